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
#include "writer/memory.h"
#include "writer/model.h"

struct mkhct_compressor;

/* Threads and scratch memory, for any number of files one after the other: as memory.h shares them
 * out. */
hct_error mkhct_compressor_create(const struct mkhct_memory *memory, struct mkhct_compressor **out,
				  struct hct_diag *diag);
/* Has a GPU help all its encoders, before the first file; NULL for none. */
void mkhct_compressor_accelerate(struct mkhct_compressor *c, hct_accelerator *gpu);
/* NULL is allowed. */
void mkhct_compressor_free(struct mkhct_compressor *c);

/* Why a tensor is lossless that was not to be. */
enum mkhct_failure {
	MKHCT_NOT_FAILED,
	MKHCT_FAILED_BEFORE, /* in an earlier run */
	MKHCT_FAILED_MEMORY, /* there was too little to code it */
	MKHCT_FAILED_CHECK   /* what was written of it was read back as something else */
};

/* What became of a tensor. */
struct mkhct_result {
	struct hct_plan_info plan;
	double energy, decoded_energy, error; /* as in struct hct_encoded, of all chunks */
	int verified;              /* 1: the file was read back, decoded and measured, and agrees */
	unsigned retries;          /* of planning, encoding and writing */
	enum mkhct_failure failed; /* if so, plan.why says it in words */
};

/* What follows from the sums of a tensor that was coded with loss; 0 and 1 for others. */
double mkhct_result_error(const struct mkhct_result *r);
double mkhct_result_cosine(const struct mkhct_result *r);

/* How far a file has got, all of it on the disk. */
struct mkhct_standing {
	size_t tensors;  /* whole ones, */
	uint64_t chunks; /* and chunks of the next */
	uint64_t bytes;  /* of the part file */
	uint64_t ledger_bytes;
};

struct mkhct_ledger;

/* How the tensors of a model are to be coded, and what became of them. */
struct mkhct_task {
	const struct hct_goal *goals; /* one for each tensor, or NULL for lossless */
	const char *options;          /* JSON, for the provenance of the file */
	int verify;                   /* decode and compare what is written, chunk by chunk, and
				       * what the ledger has */
	struct mkhct_result *results; /* zeroed, one for each tensor, or NULL without a ledger */
	struct mkhct_ledger *ledger;  /* NULL, or how far the file has got, and where to note it */
	/* Called when what was appended is on the disk, every so many tensors, or seconds where
	 * that is 0, and when work ends early.  NULL without a ledger. */
	hct_error (*save)(void *arg, const struct mkhct_standing *standing, struct hct_diag *diag);
	void (*tensor_done)(void *arg, size_t tensor, uint64_t stored_bytes); /* or NULL */
	/* A line for the user, without "warning: "; or NULL.  Names in it are as in the file. */
	void (*warn)(void *arg, const char *line);
	void *arg; /* of all three */
	unsigned every_tensors;
	double every_seconds;
	/* Monotonic seconds, or NULL: until then, which save may put off, none is called that work
	 * does not need. */
	const double *not_before;
};

/* Writes the .hct file of the open, mapped model to the descriptor out, open for reading and
 * writing; out_name is for messages.  What the ledger does not know of the file is cut off.  Adds
 * the bytes of the source to the meter, those of an earlier run as such, and calls tick with tensor
 * names.  A tensor that cannot be coded as its goal says is coded without loss; one that is not
 * read back as it was written is first written once more as it was, either way, and whatever comes
 * of it the ledger has nothing that was not checked.  Errors: HCT_ERR_DIGEST or HCT_ERR_CORRUPT
 * when that does not help, HCT_ERR_IO, HCT_ERR_NO_SPACE, HCT_ERR_NOMEM, HCT_ERR_INTERRUPTED,
 * HCT_ERR_CHANGED when the source was written to meanwhile. */
hct_error mkhct_compress(struct mkhct_compressor *c, const struct mkhct_model *model,
			 const struct mkhct_task *task, int out, const char *out_name,
			 struct hct_meter *meter, mkhct_tick tick, void *tick_arg,
			 struct hct_diag *diag);

/* The threads, for other work between two files, and the encoder of each by its worker number. */
hct_pool *mkhct_compressor_pool(const struct mkhct_compressor *c);
hct_encoder *mkhct_compressor_encoder(const struct mkhct_compressor *c, unsigned worker);

#endif
