/* Inside hctfs: the state of one mount, shared by the pieces of the FUSE adapter.
 *
 * Threads: the session's threads take requests and never wait for a decode; the pool's
 * threads decode and answer.  All of struct hctfs is fixed before the session runs, but
 * for what locks itself and the members that say so. */
#ifndef HCTFS_FUSE_FS_H
#define HCTFS_FUSE_FS_H

/* What the oldest supported libfuse offers; newer ones keep it. */
#define FUSE_USE_VERSION 310

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "blocks.h"
#include "cache.h"
#include "codec/backend.h"
#include "codec/pool.h"
#include "codec/reader.h"
#include "stream.h"
#include "tree.h"

#define HCTFS_MAX_REQUEST (1u << 20) /* bytes of one read; the kernel's limit */

/* Blocks that one request touches: of any two neighbours one at least is whole. */
#define HCTFS_MAX_BLOCKS (2 * (HCTFS_MAX_REQUEST / HCT_BLOCK_BYTES) + 2)

struct hctfs_options {
	char *bundle, *mountpoint; /* as given; hctfs_check_mountpoint makes the second absolute */
	uint64_t cache_bytes, readahead;
	int cache_given; /* 0: cache_bytes is still to be chosen */
	unsigned threads;
	unsigned uid, gid;
	unsigned max_read; /* bytes of a request; 0: the kernel's own limit */
	unsigned layers;   /* of a chunk that are read (layers.h); 0: all */
	char *gpu;         /* as struct hct_backend_options has it; NULL: auto */
	int foreground, debug, single, nonempty;
	int help, version;
};

/* A read up to this size that hits a block which nobody has read is answered by decoding just
 * the substreams that it touches; the next one decodes the block into the cache. */
#define HCTFS_SMALL_READ (32u << 10)
#define HCTFS_TOUCHES    1024 /* blocks of which that is remembered; a power of two */

/* What a node needs beside the tree's own; models only. */
struct hctfs_file {
	struct hct_blocks *blocks;
	struct hct_streams streams;
	unsigned layers; /* of the tensor that has most */
};

/* The GPU, and whether it is used: decided by a thread of its own, some time after the start. */
struct hctfs_gpu {
	pthread_t chooser;
	int choosing;         /* it was begun */
	atomic_int stop;      /* it is to end */
	hct_backend *backend; /* read only when it is used */
	atomic_int used;
};

struct hctfs {
	struct hctfs_options options;
	struct hct_tree *tree;
	struct hctfs_file *files; /* ino - 1 is the index */
	hct_cache *cache;         /* of one quality, that of the options */
	hct_pool *pool;           /* NULL with -s: what would be queued is done at once */
	hct_decoder **decoders;   /* one for each thread of the pool */
	struct hctfs_gpu gpu;
	unsigned threads;
	uint64_t distance; /* how far ahead of a stream to decode */
	size_t longest;    /* block */
	uint64_t virtual_bytes, stored_bytes;
	atomic_uint prefetches;                  /* queued or running */
	_Atomic uint64_t touches[HCTFS_TOUCHES]; /* key + 1 of a block read a little, by key */
	atomic_uchar *reported;                  /* a bit for each chunk and then each node */
	atomic_int detached;                     /* stderr is gone: messages go to syslog */
	atomic_int ready_fd;                     /* of the pipe to the parent; -1 without */
};

static inline struct hctfs_file *hctfs_file_of(struct hctfs *fs, const struct hct_node *node)
{
	return &fs->files[node->ino - 1];
}

/* fuse_ops.c: everything but reading. */
extern const struct fuse_lowlevel_ops hctfs_ops;
struct hct_node *hctfs_node(const struct hctfs *fs, fuse_ino_t ino); /* NULL: no such */
/* Whether a model is shown without some of its layers. */
int hctfs_is_cut(const struct hctfs *fs, const struct hct_node *node);

/* fuse_read.c */
/* Decides what the options leave open and makes the cache; no thread begins. */
hct_error hctfs_read_prepare(struct hctfs *fs, struct hct_diag *diag);
/* Begins the threads, in the process that serves. */
hct_error hctfs_read_start(struct hctfs *fs);
/* Waits for all reads that were taken to be answered. */
void hctfs_read_drain(struct hctfs *fs);
/* After the session has ended, and when one of the above failed. */
void hctfs_read_release(struct hctfs *fs);
void hctfs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		struct fuse_file_info *fi);

struct hctfs_fill {
	struct hctfs *fs;
	const struct hct_node *node;
	const struct hct_block *block;
	unsigned worker;
};
/* Decodes the chunks of a block one behind the other, and reports a bad one: an hct_cache_fill. */
hct_error hctfs_fill_block(void *fill, uint64_t key, void *dst, size_t length);

/* fuse_ahead.c: has decoded what comes behind a read, if that continues a stream. */
void hctfs_read_ahead(struct hctfs *fs, const struct hct_node *node, uint64_t offset, size_t size);

/* fuse_gpu.c: looks for a GPU, if the options allow one, and whether it decodes faster than the CPU
 * does, while the mount is served already. */
void hctfs_gpu_start(struct hctfs *fs);
/* The backend that is to decode many chunks at a time; NULL for the pool's threads. */
hct_backend *hctfs_gpu_backend(struct hctfs *fs);
/* When no thread of the pool is left. */
void hctfs_gpu_release(struct hctfs *fs);

/* fuse_xattr.c */
void hctfs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void hctfs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);

/* fuse_log.c */
void hctfs_say(const struct hctfs *fs, int priority, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Says why a read failed, once for each `what`: the tree's number of a chunk, or
 * hct_tree_chunk_count() + ino - 1 for a plain file. */
void hctfs_report(struct hctfs *fs, uint64_t what, const struct hct_diag *diag);
/* Has libfuse's messages look like ours. */
void hctfs_log_setup(void);
/* Between these, libfuse's errors are kept instead of shown; the second returns them. */
void hctfs_log_hold(void);
const char *hctfs_log_release(void);
/* From now on messages go to syslog, and stdin, stdout and stderr to /dev/null. */
void hctfs_detach(struct hctfs *fs);

/* fuse_options.c: the command line.  Returns -1 when there is something to mount,
 * otherwise the exit code. */
int hctfs_parse(struct fuse_args *args, struct hctfs_options *o);
void hctfs_options_free(struct hctfs_options *o);

/* fuse_mount.c */
/* Makes the mount point's path absolute, or says why nothing can be mounted there. */
hct_error hctfs_check_mountpoint(struct hctfs_options *o, struct hct_diag *diag);
/* Mounts, serves until unmounted, and returns the exit code: in the background as soon as
 * the mount answers. */
int hctfs_serve(struct hctfs *fs, struct fuse_args *args);

#endif
