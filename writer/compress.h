/* Turning one safetensors file into one .hct file, with all cores.
 *
 * Tensors are planned and chunks are encoded by the threads of a pool, a bounded number
 * of each at a time, and appended in order by the caller's thread: the output does not
 * depend on the number of threads, nor memory on the size of the file. */
#ifndef MKHCT_COMPRESS_H
#define MKHCT_COMPRESS_H

#include "codec/encoder.h"
#include "codec/error.h"
#include "codec/meter.h"
#include "writer/carry.h"
#include "writer/model.h"

struct mkhct_compressor;

/* Threads and scratch memory, for any number of files one after the other. */
hct_error mkhct_compressor_create(unsigned threads, struct mkhct_compressor **out,
				  struct hct_diag *diag);
/* NULL is allowed. */
void mkhct_compressor_free(struct mkhct_compressor *c);

/* What became of a tensor. */
struct mkhct_result {
	struct hct_plan_info plan;
	double energy, decoded_energy, error; /* as in struct hct_encoded, of all chunks */
};

/* Writes the .hct file of the open, mapped model to the descriptor out (empty, at offset
 * 0); out_name is for messages.  goals: one for each tensor of the model, or NULL for lossless;
 * results: zeroed, one for each tensor, or NULL.  Adds the bytes of the source to the meter and
 * calls tick with tensor names.  Errors: HCT_ERR_IO, HCT_ERR_NO_SPACE, HCT_ERR_NOMEM,
 * HCT_ERR_INTERRUPTED, HCT_ERR_CHANGED when the source was written to meanwhile. */
hct_error mkhct_compress(struct mkhct_compressor *c, const struct mkhct_model *model,
			 const struct hct_goal *goals, struct mkhct_result *results, int out,
			 const char *out_name, struct hct_meter *meter, mkhct_tick tick,
			 void *tick_arg, struct hct_diag *diag);

#endif
