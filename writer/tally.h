/* Sums over what was written: sizes, and the quality of what was coded with loss. */
#ifndef MKHCT_TALLY_H
#define MKHCT_TALLY_H

#include <stdint.h>

#include <cjson/cJSON.h>

#include "codec/safetensors.h"
#include "writer/compress.h"
#include "writer/json.h"

struct mkhct_tally {
	uint64_t tensors, weights, source_bytes, stored_bytes;
	uint64_t bf16_bytes;    /* of the source, were floats of more than 16 bits BF16 */
	uint64_t verified;      /* tensors */
	double errors, cosines; /* of each tensor, times its weights */
	double worst_error;     /* the largest relative squared error; -1 before there is one */
	double worst;           /* the cosine of that tensor */
	char worst_name[256];
};

void mkhct_tally_begin(struct mkhct_tally *t);

/* Adds a tensor that takes stored_bytes. */
void mkhct_tally_add(struct mkhct_tally *sum, const struct hct_tensor *t, uint64_t stored_bytes,
		     const struct mkhct_result *r);

/* Adds what another tally has. */
void mkhct_tally_merge(struct mkhct_tally *sum, const struct mkhct_tally *part);

/* Writes a tally into an object so that mkhct_tally_read gives exactly the same again.  0, or -1
 * when out of memory, or when the object is none of a tally. */
int mkhct_tally_write(const struct mkhct_tally *t, cJSON *object);
int mkhct_tally_read(const cJSON *object, struct mkhct_tally *out);

/* Stored bits a weight; 0 without weights. */
double mkhct_tally_bits(const struct mkhct_tally *t);
/* Means over tensors by their weights, so that no tensor counts for its scale; 0 and 1 without
 * weights. */
double mkhct_tally_error(const struct mkhct_tally *t);
double mkhct_tally_cosine(const struct mkhct_tally *t);

#endif
