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
#include "codec/pool.h"
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
	int verified; /* 1: the file was read back, decoded and measured, and agrees */
};

/* What follows from the sums of a tensor that was coded with loss; 0 and 1 for others. */
double mkhct_result_error(const struct mkhct_result *r);
double mkhct_result_cosine(const struct mkhct_result *r);

/* How the tensors of a model are to be coded, and what became of them. */
struct mkhct_task {
	const struct hct_goal *goals; /* one for each tensor, or NULL for lossless */
	const char *options;          /* JSON, for the provenance of the file */
	struct mkhct_result *results; /* zeroed, one for each tensor, or NULL */
};

/* Writes the .hct file of the open, mapped model to the descriptor out (empty, at offset
 * 0); out_name is for messages.  Adds the bytes of the source to the meter and calls tick
 * with tensor names.  Errors: HCT_ERR_IO, HCT_ERR_NO_SPACE, HCT_ERR_NOMEM,
 * HCT_ERR_INTERRUPTED, HCT_ERR_CHANGED when the source was written to meanwhile. */
hct_error mkhct_compress(struct mkhct_compressor *c, const struct mkhct_model *model,
			 const struct mkhct_task *task, int out, const char *out_name,
			 struct hct_meter *meter, mkhct_tick tick, void *tick_arg,
			 struct hct_diag *diag);

/* The threads, for other work between two files, and the encoder of each by its worker number. */
hct_pool *mkhct_compressor_pool(const struct mkhct_compressor *c);
hct_encoder *mkhct_compressor_encoder(const struct mkhct_compressor *c, unsigned worker);

#endif
