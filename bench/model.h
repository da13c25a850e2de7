/* Safetensors files in memory, for benchmarks: any failure ends the program with a line. */
#ifndef BENCH_MODEL_H
#define BENCH_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "codec/safetensors.h"

struct model {
	uint8_t *bytes;
	size_t length;
	struct hct_safetensors st;
};

/* Seconds of CPU time of this thread. */
double bench_now(void);

/* Prints what, and d's text unless d is NULL, and exits with 1. */
_Noreturn void bench_die(const char *what, const struct hct_diag *d);
/* malloc that ends the program without memory; room for n items of that size. */
void *bench_alloc(size_t n, size_t size);

void model_load(const char *path, struct model *out);
void model_save(const struct model *m, const char *path);
void model_free(struct model *m);

/* The same model with its F32 tensors rounded to nearest even: "BF16", "F16", or NULL for as they
 * are.  matrices_only: the floating-point tensors with two dimensions, and no others. */
void model_select(const struct model *in, const char *dtype, int matrices_only, struct model *out);

/* One matrix of rows * columns numbers, in a dtype as above, NULL meaning F32. */
void model_of_matrix(const float *values, uint64_t rows, uint64_t columns, const char *dtype,
		     struct model *out);

static inline const uint8_t *model_data(const struct model *m, size_t tensor)
{
	return m->bytes + m->st.header_len + m->st.tensors[tensor].begin;
}

/* Elements of all tensors. */
uint64_t model_weights(const struct model *m);

#endif
