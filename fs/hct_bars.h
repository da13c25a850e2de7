/* The tensors of a bundle in the order in which hct plot draws them: layer by layer. */
#ifndef HCT_BARS_H
#define HCT_BARS_H

#include <stddef.h>

#include "codec/error.h"
#include "hct_bundle.h"
#include "tree.h"

#define HCT_MOST_STACKS 256

struct hct_bar {
	const struct hct_tensor *tensor;
	double bits, error;
	int stack;      /* layers of one stack have the same; -1 when in no layer */
	unsigned layer; /* within its stack */
	size_t prefix;  /* bytes of the name before the layer */
	size_t order;   /* in the bundle */
	double x;       /* of its left side, in bars; 0 until it is placed */
};

struct hct_bars {
	struct hct_bar *bars; /* tensors belong to the tree */
	size_t count, left_out;
	size_t stacks[HCT_MOST_STACKS], stack_count; /* the first bar of each, before sorting */
	struct hct_tally total;
};

/* Takes the tensors of all model files that open: those with elements, and (all 0) of two
 * dimensions and some size.  *out is to be freed in any case.  Errors: HCT_ERR_NOMEM. */
hct_error hct_bars_collect(const struct hct_tree *tree, int all, struct hct_bars *out);
void hct_bars_free(struct hct_bars *b);

/* Whether they belong to one layer, or both to none. */
int hct_bars_same_layer(const struct hct_bar *a, const struct hct_bar *b);

#endif
