/* One side of a comparison: a directory, a bundle or a file, as its tensors. */
#ifndef HCT_SIDE_H
#define HCT_SIDE_H

#include <stddef.h>
#include <stdint.h>

#include "codec/error.h"
#include "codec/reader.h"
#include "codec/safetensors.h"
#include "hct_bundle.h"
#include "hct_cli.h"
#include "tree.h"

/* A safetensors file, compressed or not. */
struct hct_model {
	const struct hct_node *node;
	const struct hct_safetensors *st;
	struct hct_safetensors own; /* st of a plain file */
	char *path;                 /* as shown */
	int fd;                     /* of a plain file, otherwise -1 */
	int used;                   /* a tensor of it is compared */
};

struct hct_entry {
	struct hct_model *model;
	const struct hct_tensor *tensor;
	size_t index;            /* of the tensor in its file */
	struct hct_entry *match; /* on the other side */
};

struct hct_side {
	const char *path; /* as the user named it */
	struct hct_tree *tree;
	int bundle; /* it holds .hct files */
	struct hct_model *models;
	size_t model_count;
	struct hct_entry *entries; /* in the order of files and data */
	size_t entry_count;
	int incomplete; /* a file was left out because it is damaged */
};

/* Says which files are damaged and leaves them out; says also what fails, when the whole
 * does.  *side is to be closed in any case. */
hct_error hct_side_open(const struct hct_command *c, const char *path, struct hct_side *side);
void hct_side_close(struct hct_side *side);

/* Matches the tensors of two sides by name.  Of several tensors with one name those in
 * files of the same path belong together, and the others in their order. */
hct_error hct_side_match(struct hct_side *a, struct hct_side *b);

/* Reads bytes of a tensor; the range must lie within it.  d: the calling thread's. */
hct_error hct_entry_read(const struct hct_entry *e, hct_decoder *d, uint64_t offset, void *dst,
			 size_t length, struct hct_diag *diag);

/* How a tensor is stored; a plain file's codec is "none". */
void hct_entry_coding(const struct hct_entry *e, struct hct_coding *out);

/* The files that are used, and those without any tensor: how many, all of their elements,
 * and their sizes as they are shown (source) and as they lie on disk (stored). */
struct hct_tally hct_side_tally(const struct hct_side *side);

#endif
