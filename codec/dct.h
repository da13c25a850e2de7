/* The discrete cosine transform, orthonormal: DCT-II forwards and DCT-III, its inverse and its
 * transpose, backwards.  For n numbers x
 *
 *   X(k) = c(k) * sum over i of x(i) cos(pi (2 i + 1) k / (2 n)),
 *   c(0) = sqrt(1 / n), and c(k) = sqrt(2 / n) for the others,
 *
 * so the sum of squares stays the same.  A matrix is transformed along its rows and along its
 * columns.  This belongs to the encoder's library, libhctenc: decoding has kernels of its own.
 *
 * hct_dct_forward_* and hct_dct_inverse_* are FFTW's, of any length, with plans that are kept.
 * Plans are estimated, never timed, and every vector is copied to memory of one alignment and
 * transformed alone: what comes out depends on the vector and its length, not on where it lies,
 * what lies beside it, how many threads there are or what was transformed before.  FFTW picks
 * code for the CPU, and its builds differ, so the last bits may differ between machines.
 * hct_dct_tiles is code of our own that gives the same bits on every machine and in every SIMD
 * variant; what decides about the bytes of a file uses that.
 *
 * Threads: a context is shared freely, and any number of threads may transform with it at once.
 * FFTW's planner is one for the whole process and not thread safe.  This library calls it behind
 * a lock of its own (its only global state); a program that plans with FFTW itself while another
 * thread is in here must have called fftw_make_planner_thread_safe and fftwf_...  Wisdom that
 * such a program has loaded counts here too.
 *
 * Memory: a call needs room for the longer of one vector and 128 KiB; HCT_ERR_NOMEM when there
 * is none.  FFTW itself ends the process when it runs out of memory, which it needs in the
 * order of three vectors more; who transforms vectors of many millions has to know.
 *
 * in and out are the same array or do not overlap.  Infinities and NaN spread over the vector or
 * the tile that they are in. */
#ifndef HCT_DCT_H
#define HCT_DCT_H

#include <stddef.h>

#include "error.h"
#include "reader.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hct_dct hct_dct;

#define HCT_DCT_MAX_LENGTH ((size_t)1 << 30) /* of a vector, HCT_ERR_LIMIT beyond */
#define HCT_DCT_MAX_TILE   64

/* simd chooses the variant of hct_dct_tiles.  At most 64 plans are kept, those used last. */
hct_error hct_dct_create(hct_simd simd, hct_dct **out);
/* When no thread is using it any more.  NULL is allowed. */
void hct_dct_free(hct_dct *d);

/* Transforms count vectors of n numbers.  Number i of vector j lies at j * distance + i * stride,
 * in both arrays, and no two numbers at one place; what lies between is left alone.
 * HCT_ERR_ARGUMENT for NULL, for an n, stride or distance of 0 (a stride that no number and a
 * distance that no vector needs may be 0), and when places pass the end of memory. */
hct_error hct_dct_forward_1d(hct_dct *d, const float *in, float *out, size_t n, size_t stride,
			     size_t count, size_t distance);
hct_error hct_dct_inverse_1d(hct_dct *d, const float *in, float *out, size_t n, size_t stride,
			     size_t count, size_t distance);
hct_error hct_dct_forward_1d_f64(hct_dct *d, const double *in, double *out, size_t n, size_t stride,
				 size_t count, size_t distance);
hct_error hct_dct_inverse_1d_f64(hct_dct *d, const double *in, double *out, size_t n, size_t stride,
				 size_t count, size_t distance);

/* Transforms count matrices of rows x columns numbers.  Row i of matrix j begins at
 * j * distance + i * stride, and its numbers are neighbours (so stride >= columns).  Errors as
 * above. */
hct_error hct_dct_forward_2d(hct_dct *d, const float *in, float *out, size_t rows, size_t columns,
			     size_t stride, size_t count, size_t distance);
hct_error hct_dct_inverse_2d(hct_dct *d, const float *in, float *out, size_t rows, size_t columns,
			     size_t stride, size_t count, size_t distance);
hct_error hct_dct_forward_2d_f64(hct_dct *d, const double *in, double *out, size_t rows,
				 size_t columns, size_t stride, size_t count, size_t distance);
hct_error hct_dct_inverse_2d_f64(hct_dct *d, const double *in, double *out, size_t rows,
				 size_t columns, size_t stride, size_t count, size_t distance);

/* Replaces each tile of a row-major matrix by its two-dimensional DCT-II: coefficient (0, 0)
 * takes the place of the tile's first number.  Sides of a tile are 1 (no transform along that
 * axis), 2, 4 ... HCT_DCT_MAX_TILE, and divide rows and columns; otherwise HCT_ERR_ARGUMENT.
 * Needs no memory; relative error of about 2e-7 (the root of the mean square). */
hct_error hct_dct_tiles(const hct_dct *d, const float *in, size_t rows, size_t columns,
			unsigned tile_rows, unsigned tile_columns, float *out);

#ifdef __cplusplus
}
#endif
#endif
