/* Sums over what was written: sizes, and the quality of what was coded with loss. */
#ifndef MKHCT_TALLY_H
#define MKHCT_TALLY_H

#include <stdint.h>

#include "codec/safetensors.h"
#include "writer/compress.h"

struct mkhct_tally {
	uint64_t tensors, weights, source_bytes, stored_bytes;
	uint64_t bf16_bytes; /* of the source, were floats of more than 16 bits BF16 */
	uint64_t verified;   /* tensors */
	double energy, error;
	double cosines; /* each times its weights */
	double worst;   /* cosine; 2 before there is one */
	char worst_name[256];
};

void mkhct_tally_begin(struct mkhct_tally *t);

/* Adds a tensor that takes stored_bytes. */
void mkhct_tally_add(struct mkhct_tally *sum, const struct hct_tensor *t, uint64_t stored_bytes,
		     const struct mkhct_result *r);

/* Stored bits a weight; 0 without weights. */
double mkhct_tally_bits(const struct mkhct_tally *t);
double mkhct_tally_error(const struct mkhct_tally *t);
/* Mean by weights; 1 without any. */
double mkhct_tally_cosine(const struct mkhct_tally *t);

#endif
