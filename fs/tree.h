/* The virtual tree: what a bundle looks like to people.
 *
 * A tree is built once from a bundle directory, a plain directory, one .hct file or
 * one plain file, and is immutable afterwards, so that any number of threads may
 * walk it.  `NAME.safetensors.hct` appears as `NAME.safetensors` with the size and
 * mtime of its source; every other file appears as it is; the bundle's hidden folder
 * `.hct` at the top does not appear.  Knows no FUSE. */
#ifndef HCTFS_TREE_H
#define HCTFS_TREE_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "codec/error.h"
#include "codec/reader.h"

struct hct_tree;

enum hct_node_kind {
	HCT_NODE_DIR,
	HCT_NODE_PLAIN, /* a file carried byte for byte */
	HCT_NODE_MODEL  /* a compressed safetensors file, shown decoded */
};

struct hct_node {
	enum hct_node_kind kind;
	uint64_t ino;            /* index in the tree + 1: the root is 1, the same at each mount of
				  * the same bundle */
	const char *name;        /* as it is shown; "" for the root */
	const char *path;        /* of the file on disk, relative names resolved at open */
	struct hct_node *parent; /* the root's is itself */
	struct hct_node **children; /* sorted by name (bytes); directories only */
	size_t child_count;
	uint64_t size;         /* as it is shown */
	uint64_t stored_bytes; /* size of the file on disk */
	struct timespec mtime; /* as it is shown */
	hct_reader *reader;    /* HCT_NODE_MODEL: open for the life of the tree */
	hct_error error;       /* HCT_TREE_KEEP_BAD: why reader is NULL */
	struct hct_diag *diag; /* its line, or NULL */
	uint64_t first_chunk;  /* HCT_NODE_MODEL: number of its chunk 0 among all of the tree */
};

enum {
	HCT_TREE_KEEP_BAD = 1 /* keep .hct files that do not open, with node->error, instead of
			       * failing: for tools that report */
};

/* path may be relative; links in it and in the bundle are followed.  Errors: those of
 * hct_reader_open; HCT_ERR_UNFINISHED for a bundle that mkhct has left behind unfinished, also with
 * HCT_TREE_KEEP_BAD: what lies in it need not belong together (one with a report is whole, also
 * while mkhct makes a new one beside it, whose part files are not shown), or that it replaces at
 * this moment; HCT_ERR_CORRUPT for two
 * files that would have one name; HCT_ERR_UNSUPPORTED for links that lead in a circle and for what
 * is neither a file nor a folder; HCT_ERR_LIMIT for more folders in one another, or files, than any
 * model has; HCT_ERR_NOT_FOUND, HCT_ERR_IO, HCT_ERR_ARGUMENT, HCT_ERR_NOMEM. */
hct_error hct_tree_open(const char *path, unsigned flags, struct hct_tree **out,
			struct hct_diag *diag);
void hct_tree_close(struct hct_tree *t);

struct hct_node *hct_tree_root(const struct hct_tree *t);
/* Nodes in depth-first order, ino - 1 is the index; NULL behind the last. */
struct hct_node *hct_tree_node(const struct hct_tree *t, size_t index);
size_t hct_tree_count(const struct hct_tree *t);
/* Chunks of all models: the keys of the cache are node->first_chunk + number. */
uint64_t hct_tree_chunk_count(const struct hct_tree *t);

/* 1 when the path opened was a bundle (it has the hidden folder or .hct files) or an
 * .hct file; 0 for plain directories and files. */
int hct_tree_is_bundle(const struct hct_tree *t);

/* The child of that name, or NULL. */
struct hct_node *hct_node_child(const struct hct_node *dir, const char *name);

/* Path as it is shown, from the root, "a/b.safetensors"; the root gives "".  Returns
 * the length that it would need, as snprintf does. */
size_t hct_node_path(const struct hct_node *node, char *buf, size_t size);

/* Reads bytes of a file as it is shown.  The range must lie within it.  Plain files
 * are opened for each call unless fd >= 0 names one open already. */
hct_error hct_node_pread(const struct hct_node *node, hct_decoder *d, int fd, uint64_t offset,
			 void *dst, size_t length, struct hct_diag *diag);

#endif
