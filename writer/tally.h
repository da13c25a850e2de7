/* Sums over what was written: sizes, and the quality of what was coded with loss. */
#ifndef MKHCT_TALLY_H
#define MKHCT_TALLY_H

#include <stdint.h>

#include "codec/safetensors.h"
#include "writer/compress.h"

struct mkhct_tally {
	uint64_t tensors, weights, source_bytes, stored_bytes;
	uint64_t bf16_bytes;    /* of the source, were floats of more than 16 bits BF16 */
	uint64_t verified;      /* tensors */
	double errors, cosines; /* of each tensor, times its weights */
	double worst_error;     /* the largest relative squared error; -1 before there is one */
	double worst;           /* the cosine of that tensor */
	char worst_name[256];
};

/* Tensors that are lossless for a reason although their target was not. */
#define MKHCT_EXCUSES      12u /* reasons; what comes with a further one is not named */
#define MKHCT_EXCUSE_NAMES 3u  /* the first */

struct mkhct_excuses {
	unsigned count;
	struct mkhct_excuse {
		const char *why; /* mkhct_result.plan.why */
		uint64_t tensors;
		char names[MKHCT_EXCUSE_NAMES][256]; /* printable */
	} list[MKHCT_EXCUSES];
};

/* Takes a tensor in when it is one of them. */
void mkhct_excuses_add(struct mkhct_excuses *e, const char *name, const struct mkhct_result *r);

void mkhct_tally_begin(struct mkhct_tally *t);

/* Adds a tensor that takes stored_bytes. */
void mkhct_tally_add(struct mkhct_tally *sum, const struct hct_tensor *t, uint64_t stored_bytes,
		     const struct mkhct_result *r);

/* Stored bits a weight; 0 without weights. */
double mkhct_tally_bits(const struct mkhct_tally *t);
/* Means over tensors by their weights, so that no tensor counts for its scale; 0 and 1 without
 * weights. */
double mkhct_tally_error(const struct mkhct_tally *t);
double mkhct_tally_cosine(const struct mkhct_tally *t);

#define MKHCT_COSINE_TEXT 24

/* The cosine of what lost something, with at least this many digits behind the point, and two of
 * what it lacks to 1: "0.99270", "0.9999977".  It lacks something, if only 1e-12.  Returns buf. */
char *mkhct_cosine_text(double cosine, int digits, char buf[MKHCT_COSINE_TEXT]);

#endif
