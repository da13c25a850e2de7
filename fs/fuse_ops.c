#include "fuse_fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Seconds that the kernel may keep what it knows: nothing here ever changes. */
#define FOR_EVER (365.0 * 24 * 3600)

#define BLOCK_SIZE     (1u << 20) /* preferred for reading */
#define FRAGMENT_SIZE  4096u      /* in which statfs counts */
#define MAX_BACKGROUND 64
#define CONGESTION     48

struct hct_node *hctfs_node(const struct hctfs *fs, fuse_ino_t ino)
{
	return ino ? hct_tree_node(fs->tree, ino - 1) : NULL;
}

int hctfs_is_cut(const struct hctfs *fs, const struct hct_node *node)
{
	return fs->options.layers && fs->files[node->ino - 1].layers > fs->options.layers;
}

static void fill_stat(const struct hctfs *fs, const struct hct_node *n, struct stat *st)
{
	memset(st, 0, sizeof *st);
	st->st_ino = n->ino;
	st->st_mode = n->kind == HCT_NODE_DIR ? S_IFDIR | 0555 : S_IFREG | 0444;
	st->st_nlink = 1;
	if (n->kind == HCT_NODE_DIR) {
		st->st_nlink = 2;
		for (size_t i = 0; i < n->child_count; i++)
			st->st_nlink += n->children[i]->kind == HCT_NODE_DIR;
	}
	st->st_uid = fs->options.uid;
	st->st_gid = fs->options.gid;
	st->st_size = (off_t)n->size;
	st->st_blksize = BLOCK_SIZE;
	st->st_blocks = (blkcnt_t)(n->size / 512 + (n->size % 512 != 0));
	st->st_mtim = st->st_ctim = st->st_atim = n->mtime;
}

static void fill_entry(const struct hctfs *fs, const struct hct_node *n, struct fuse_entry_param *e)
{
	memset(e, 0, sizeof *e);
	e->ino = n->ino;
	e->attr_timeout = FOR_EVER;
	e->entry_timeout = FOR_EVER;
	fill_stat(fs, n, &e->attr);
}

/* Requests come for 1 MiB when max_pages is 256, which libfuse derives from max_write. */
static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	const struct hctfs *fs = userdata;

	conn->max_write = HCTFS_MAX_REQUEST;
	if (fs->options.max_read)
		conn->max_read = fs->options.max_read;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = CONGESTION;
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
				  FUSE_CAP_SPLICE_MOVE | FUSE_CAP_AUTO_INVAL_DATA);
	conn->want |= conn->capable &
		      (FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_EXPORT_SUPPORT);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct hctfs *fs = fuse_req_userdata(req);
	const struct hct_node *dir = hctfs_node(fs, parent), *n = NULL;
	struct fuse_entry_param e = {.entry_timeout = FOR_EVER};

	/* "." and ".." come from NFS servers. */
	if (dir && strcmp(name, ".") == 0)
		n = dir;
	else if (dir && strcmp(name, "..") == 0)
		n = dir->parent;
	else if (dir && dir->kind == HCT_NODE_DIR)
		n = hct_node_child(dir, name);
	if (!dir) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	if (n)
		fill_entry(fs, n, &e);
	fuse_reply_entry(req, &e);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct hctfs *fs = fuse_req_userdata(req);
	const struct hct_node *n = hctfs_node(fs, ino);
	struct stat st;

	(void)fi;
	if (!n) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	fill_stat(fs, n, &st);
	fuse_reply_attr(req, &st, FOR_EVER);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct hctfs *fs = fuse_req_userdata(req);
	const struct hct_node *n = hctfs_node(fs, ino);

	if (!n || n->kind == HCT_NODE_DIR) {
		fuse_reply_err(req, n ? EISDIR : ESTALE);
		return;
	}
	if ((fi->flags & O_ACCMODE) != O_RDONLY || fi->flags & O_TRUNC) {
		fuse_reply_err(req, EROFS);
		return;
	}
	fi->keep_cache = 1;
	if (n->kind == HCT_NODE_PLAIN) {
		int fd = open(n->path, O_RDONLY | O_CLOEXEC);

		if (fd < 0) {
			int saved = errno;
			struct hct_diag diag;

			hct_fail_errno(&diag, saved, "%s: cannot open", n->path);
			hctfs_report(fs, hct_tree_chunk_count(fs->tree) + n->ino - 1, &diag);
			fuse_reply_err(req, saved == EMFILE || saved == EACCES ? saved : EIO);
			return;
		}
		fi->fh = (uint64_t)fd;
	}
	if (fuse_reply_open(req, fi) < 0 && n->kind == HCT_NODE_PLAIN)
		close((int)fi->fh);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct hct_node *n = hctfs_node(fuse_req_userdata(req), ino);

	if (n && n->kind == HCT_NODE_PLAIN)
		close((int)fi->fh);
	fuse_reply_err(req, 0);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct hct_node *n = hctfs_node(fuse_req_userdata(req), ino);

	if (!n || n->kind != HCT_NODE_DIR) {
		fuse_reply_err(req, n ? ENOTDIR : ESTALE);
		return;
	}
	fi->keep_cache = 1;
	fi->cache_readdir = 1;
	fuse_reply_open(req, fi);
}

/* Entry number k of a folder: ".", "..", then the children; its offset is k + 1. */
static size_t add_entry(const struct hctfs *fs, fuse_req_t req, const struct hct_node *dir,
			uint64_t k, int plus, char *buf, size_t room)
{
	const struct hct_node *n = k == 0 ? dir : k == 1 ? dir->parent : dir->children[k - 2];
	const char *name = k == 0 ? "." : k == 1 ? ".." : n->name;
	struct fuse_entry_param e;

	fill_entry(fs, n, &e);
	if (!plus)
		return fuse_add_direntry(req, buf, room, name, &e.attr, (off_t)(k + 1));
	/* The kernel takes no reference to "." and "..". */
	if (k < 2)
		e.ino = 0;
	return fuse_add_direntry_plus(req, buf, room, name, &e, (off_t)(k + 1));
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, int plus)
{
	const struct hctfs *fs = fuse_req_userdata(req);
	const struct hct_node *dir = hctfs_node(fs, ino);
	size_t used = 0;
	char *buf;

	if (!dir || dir->kind != HCT_NODE_DIR || offset < 0) {
		fuse_reply_err(req, dir ? EINVAL : ESTALE);
		return;
	}
	buf = malloc(size ? size : 1);
	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (uint64_t k = (uint64_t)offset; k < dir->child_count + 2; k++) {
		size_t n = add_entry(fs, req, dir, k, plus, buf + used, size - used);

		if (n > size - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, buf, used);
	free(buf);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, offset, 0);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			   struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, offset, 1);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	const struct hctfs *fs = fuse_req_userdata(req);
	struct statvfs st = {.f_bsize = BLOCK_SIZE,
			     .f_frsize = FRAGMENT_SIZE,
			     .f_blocks = (fs->virtual_bytes + FRAGMENT_SIZE - 1) / FRAGMENT_SIZE,
			     .f_files = hct_tree_count(fs->tree),
			     .f_flag = ST_RDONLY,
			     .f_namemax = 255};

	(void)ino;
	fuse_reply_statfs(req, &st);
}

/* The mount is read-only, so the kernel refuses all of these by itself; they answer for a
 * mount that somebody has made writable. */

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	(void)ino, (void)attr, (void)to_set, (void)fi;
	fuse_reply_err(req, EROFS);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)parent, (void)name, (void)mode, (void)rdev;
	fuse_reply_err(req, EROFS);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)parent, (void)name, (void)mode;
	fuse_reply_err(req, EROFS);
}

static void op_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent, (void)name;
	fuse_reply_err(req, EROFS);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	(void)target, (void)parent, (void)name;
	fuse_reply_err(req, EROFS);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		      const char *newname, unsigned flags)
{
	(void)parent, (void)name, (void)newparent, (void)newname, (void)flags;
	fuse_reply_err(req, EROFS);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	(void)ino, (void)newparent, (void)newname;
	fuse_reply_err(req, EROFS);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	(void)parent, (void)name, (void)mode, (void)fi;
	fuse_reply_err(req, EROFS);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	(void)ino, (void)buf, (void)size, (void)offset, (void)fi;
	fuse_reply_err(req, EROFS);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			 struct fuse_file_info *fi)
{
	(void)ino, (void)mode, (void)offset, (void)length, (void)fi;
	fuse_reply_err(req, EROFS);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			size_t size, int flags)
{
	(void)ino, (void)name, (void)value, (void)size, (void)flags;
	fuse_reply_err(req, EROFS);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)ino, (void)name;
	fuse_reply_err(req, EROFS);
}

/* No flock and getlk: the kernel then keeps locks itself, as for a local file system.  No
 * flush, lseek or access: the kernel's own answers are right for files that do not change. */
const struct fuse_lowlevel_ops hctfs_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_remove,
	.rmdir = op_remove,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.open = op_open,
	.read = hctfs_read,
	.write = op_write,
	.release = op_release,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.statfs = op_statfs,
	.setxattr = op_setxattr,
	.getxattr = hctfs_getxattr,
	.listxattr = hctfs_listxattr,
	.removexattr = op_removexattr,
	.create = op_create,
	.fallocate = op_fallocate,
};
