/* The context of hct_gpu.h, as its parts share it. */
#ifndef HCT_GPU_DCT_CONTEXT_H
#define HCT_GPU_DCT_CONTEXT_H

#include <cstddef>
#include <cstdint>
#include <mutex>

#include "gpu/context.h"
#include "gpu/cufft.h"
#include "gpu/hct_gpu.h"
#include "gpu/memory.h"

/* Bytes that are worked on at a time, if a matrix is not larger: enough to keep a device busy, and
 * little enough to stay in its second cache from one kernel to the next. */
#define GPU_DCT_CHUNK ((size_t)16 << 20)

#define GPU_DCT_PLANS  16
#define GPU_DCT_TABLES 32

/* down x across matrices, as struct gpu_dct_tiles has them. */
struct gpu_dct_call {
	size_t rows, columns, stride;
	uint64_t down, across;
	size_t far, near;
	bool inverse;
};

/* A plan of cuFFT. */
struct gpu_dct_plan {
	bool made;
	int plan;
	uint32_t rows, columns, batch;
	bool inverse;
	size_t area_bytes; /* that it needs while it runs */
	uint64_t used;     /* time of last use, by the context's clock */
};

/* Twiddles for a length. */
struct gpu_dct_table {
	size_t n; /* 0 in an empty place */
	struct gpu_block *memory;
	uint64_t used;
};

/* What host transforms copy through. */
struct gpu_dct_staging {
	bool open;
	cudaStream_t up, down;
	float *pinned_up[2], *pinned_down[2];
	cudaEvent_t moved_up[2], moved_down[2]; /* the pinned buffer is free, or full */
	cudaEvent_t filled[2], ready[2];        /* the slot is uploaded, or transformed */
	struct gpu_block *slots[2];
};

struct hct_gpu_dct {
	struct gpu_context context;
	cudaStream_t stream;
	bool own_stream;

	std::mutex lock; /* of what follows, and of the order in the stream */
	struct gpu_pool pool;
	uint64_t clock; /* calls */
	struct gpu_dct_plan plans[GPU_DCT_PLANS];
	struct gpu_dct_table tables[GPU_DCT_TABLES];
	struct gpu_block *work, *area; /* v or V (dct_fft.h), and what plans need */

	std::mutex host_lock; /* of the staging, taken before the other */
	struct gpu_dct_staging staging;
};

/* The context is current in all that follows. */

/* Puts a transform into the stream; the call is one of those that the header allows, with down
 * 1 for shapes that need cuFFT.  Takes the lock. */
hct_error gpu_dct_enqueue(hct_gpu_dct *d, const float *in, float *out,
			  const struct gpu_dct_call *call, struct hct_diag *diag);

/* The same as gpu_dct_enqueue from host memory to host memory; returns when it is done.  Holds no
 * lock when it is called. */
hct_error gpu_dct_from_host(hct_gpu_dct *d, const float *in, float *out,
			    const struct gpu_dct_call *call, struct hct_diag *diag);

/* With the lock held: */

/* Device memory of at least so many bytes in *block, the old one's or new, within the limit. */
hct_error gpu_dct_reserve(hct_gpu_dct *d, struct gpu_block **block, size_t bytes,
			  struct hct_diag *diag);

/* Kept ones, or new ones in the place of those that were used longest ago. */
hct_error gpu_dct_find_plan(hct_gpu_dct *d, const struct gpu_cufft *cufft, uint32_t rows,
			    uint32_t columns, uint32_t batch, bool inverse,
			    struct gpu_dct_plan **out, struct hct_diag *diag);
hct_error gpu_dct_find_table(hct_gpu_dct *d, size_t n, const float2 **out, struct hct_diag *diag);

/* Everything that find made, and reserve took.  Nothing may be in the stream. */
void gpu_dct_forget(hct_gpu_dct *d);
void gpu_dct_staging_close(hct_gpu_dct *d);

static inline hct_error gpu_dct_error(hct_gpu_dct *d, struct hct_diag *diag, const char *function,
				      cudaError_t e)
{
	return gpu_cuda_error(diag, d->context.number, function, e);
}

hct_error gpu_dct_cufft_error(hct_gpu_dct *d, struct hct_diag *diag, const char *function,
			      int result);

#endif
