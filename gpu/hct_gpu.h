/* The discrete cosine transform on NVIDIA's GPUs, orthonormal and in float32: DCT-II forwards and
 * DCT-III, its inverse and its transpose, backwards, as codec/dct.h defines them.  The functions
 * are in libhct_cuda.so.
 *
 * Matrices with sides of 1, 2, 4 ... 128, and vectors of such lengths, go through a kernel of this
 * library, which reads and writes each number once.  Others go through cuFFT, which is loaded when
 * it is first needed: libcufft.so.12, .11 or .10 that the process has already or that the linker
 * finds, or what HCT_CUFFT names in the environment, a library or a folder that one lies in
 * (.../nvidia/cu13/lib or .../nvidia/cufft/lib of a Python environment).  Where there is none
 * such a transform is HCT_ERR_UNSUPPORTED.
 *
 * Accuracy: for finite input, the error of a vector or matrix of n numbers, as the square root of
 * the sum of its squares, is below HCT_GPU_DCT_ERROR(n) of that of the numbers themselves.  Where
 * squares underflow or overflow in float32 nothing is promised.  The library's own kernel gives the
 * same bits on every device and in every batch; what goes through cuFFT may differ in the last
 * ones.
 *
 * Functions for device memory only put work into the context's stream: they return before it is
 * done, and what fails then is reported by a later call.  hct_gpu_dct_wait waits for it.  The first
 * call of a shape may take long: it makes a plan, and takes memory of the device.  Functions for
 * host memory return when the result is there; any memory will do, for it is copied through pinned
 * buffers, and the copies of one part overlap the transform of another.
 *
 * Threads: any number of threads may use a context; what they put into its stream comes in some
 * order, and host transforms come one after the other.  Contexts do not disturb one another.  The
 * calling thread's current device is left as it was.
 *
 * in and out are the same array or do not overlap.  Where matrix j has its number (a, b) in `in`,
 * there it has it in `out`; what lies between is left alone.
 *
 * Errors, each with a line in diag (which may be NULL): HCT_ERR_ARGUMENT (NULL for an array, a
 * length of 0, numbers that would lie at one place or behind the end of memory), HCT_ERR_LIMIT
 * (more than HCT_GPU_DCT_MAX_NUMBERS in one vector or matrix), HCT_ERR_NOMEM (of the device, of
 * pinned memory, or more than the context may take), HCT_ERR_UNSUPPORTED (no such device, no
 * cuFFT), HCT_ERR_IO (the device failed).  After an error `out` may hold anything.  A count of 0
 * is no error. */
#ifndef HCT_GPU_H
#define HCT_GPU_H

#include <stddef.h>
#include <stdint.h>

#include "codec/error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HCT_GPU_DCT_MAX_NUMBERS ((size_t)1 << 30)
#define HCT_GPU_DCT_MAX_TILE    128

/* With log2 of <math.h>: 1.4e-6 for 64 numbers, 2.2e-6 for 16384 or 128 x 128. */
#define HCT_GPU_DCT_ERROR(n) (8e-7 + 1e-7 * log2((double)(n)))

typedef struct hct_gpu_dct hct_gpu_dct;

struct hct_gpu_dct_options {
	int device;      /* its number, from 0 */
	void *stream;    /* a cudaStream_t of the device's primary context, which outlives this one;
			  * NULL for one of its own.  The default ones are cudaStreamLegacy and
			  * cudaStreamPerThread. */
	uint64_t memory; /* bytes of the device that the context may take, without those of cuFFT's
			  * plans themselves; 0: half of what is free, and at most 2 GiB */
};

/* options may be NULL: device 0 and a stream of its own. */
hct_error hct_gpu_dct_create(const struct hct_gpu_dct_options *options, hct_gpu_dct **out,
			     struct hct_diag *diag);
/* Waits for the stream.  No thread may use the context any more.  NULL is allowed. */
void hct_gpu_dct_free(hct_gpu_dct *d);

/* The context's cudaStream_t. */
void *hct_gpu_dct_stream(const hct_gpu_dct *d);
/* Until all that is in the stream is done. */
hct_error hct_gpu_dct_wait(hct_gpu_dct *d, struct hct_diag *diag);

/* Transforms count vectors of n numbers that are neighbours; vector j begins at j * distance, and
 * distance >= n.  Device memory. */
hct_error hct_gpu_dct_1d(hct_gpu_dct *d, const float *in, float *out, size_t n, size_t count,
			 size_t distance, struct hct_diag *diag);
hct_error hct_gpu_idct_1d(hct_gpu_dct *d, const float *in, float *out, size_t n, size_t count,
			  size_t distance, struct hct_diag *diag);

/* Transforms count matrices of rows x columns numbers along both.  Row i of matrix j begins at
 * j * distance + i * stride, and its numbers are neighbours.  Matrices lie one behind the other,
 * or side by side in rows that are long enough for all of them.  Device memory. */
hct_error hct_gpu_dct_2d(hct_gpu_dct *d, const float *in, float *out, size_t rows, size_t columns,
			 size_t stride, size_t count, size_t distance, struct hct_diag *diag);
hct_error hct_gpu_idct_2d(hct_gpu_dct *d, const float *in, float *out, size_t rows, size_t columns,
			  size_t stride, size_t count, size_t distance, struct hct_diag *diag);

/* Transforms each tile of a row-major matrix, whose rows are stride apart.  Sides of a tile are 1
 * (no transform along that axis), 2, 4 ... HCT_GPU_DCT_MAX_TILE, and divide rows and columns;
 * otherwise HCT_ERR_ARGUMENT.  Device memory. */
hct_error hct_gpu_dct_tiles(hct_gpu_dct *d, const float *in, float *out, size_t rows,
			    size_t columns, size_t stride, unsigned tile_rows,
			    unsigned tile_columns, struct hct_diag *diag);
hct_error hct_gpu_idct_tiles(hct_gpu_dct *d, const float *in, float *out, size_t rows,
			     size_t columns, size_t stride, unsigned tile_rows,
			     unsigned tile_columns, struct hct_diag *diag);

/* The same from host memory to host memory. */
hct_error hct_gpu_dct_1d_host(hct_gpu_dct *d, const float *in, float *out, size_t n, size_t count,
			      size_t distance, struct hct_diag *diag);
hct_error hct_gpu_idct_1d_host(hct_gpu_dct *d, const float *in, float *out, size_t n, size_t count,
			       size_t distance, struct hct_diag *diag);
hct_error hct_gpu_dct_2d_host(hct_gpu_dct *d, const float *in, float *out, size_t rows,
			      size_t columns, size_t stride, size_t count, size_t distance,
			      struct hct_diag *diag);
hct_error hct_gpu_idct_2d_host(hct_gpu_dct *d, const float *in, float *out, size_t rows,
			       size_t columns, size_t stride, size_t count, size_t distance,
			       struct hct_diag *diag);

#ifdef __cplusplus
}
#endif
#endif
