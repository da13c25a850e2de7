/* Internal: the inverse DCT of tiles, which decoding ends with where a tensor was
 * transformed, as FORMAT.md specifies it.  (Recursion: B. G. Lee, "A new algorithm to
 * compute the discrete cosine transform", IEEE Trans. ASSP-32, 1984.)
 *
 * A tile of R rows and C columns, powers of two from 1 to 64 and not both 1, is
 * transformed along its columns (the R axis) and then along its rows (the C axis); an axis of
 * length 1 is left alone.  Along an axis of length N, coefficients X become
 *
 *   x[n] = X[0] / sqrt(2) + sum over k = 1 .. N-1 of X[k] cos(pi (2n+1) k / (2N))
 *
 * which is the orthonormal inverse DCT-II (DCT-III) but for a factor of sqrt(2/N).  The
 * caller applies those of both axes, hct_idct_factor(R, C), to the coefficients
 * beforehand, together with the quantiser's step.
 *
 * Only additions, subtractions and multiplications of float32 happen, in a fixed order, each
 * rounded to nearest even, subnormals kept (the state that threads start with).  So every
 * variant gives the bits of the scalar one, on any input, with one exception: where a
 * result is a NaN, which NaN is open.  Only the steps of a hostile file lead to one, and rounding
 * to the dtype makes it 0. */
#ifndef HCT_IDCT_H
#define HCT_IDCT_H

#include <stddef.h>

#include "reader.h"

#define HCT_IDCT_MAX 64 /* longest axis of a tile */

/* Transforms a band in place: tile_rows rows of `columns` floats, `stride` floats from one row to
 * the next, cut into tiles of tile_rows x tile_columns from the left; columns is a multiple of
 * tile_columns.  What lies between the rows is left alone.  Any number of threads at a time, each
 * with a band of its own; about 40 KiB of stack.
 *
 * For speed: a band that is aligned to 64 bytes and fits into the second cache; a stride that is
 * a multiple of 16 and not of 512 (rows a power of two apart fall into the same few lines of the
 * first cache, which can halve the rate); with tile_rows 1, rows that lie one behind the other
 * as one long row. */
typedef void hct_idct(float *band, size_t stride, size_t columns, unsigned tile_rows,
		      unsigned tile_columns);

hct_idct hct_idct_scalar, hct_idct_avx2, hct_idct_avx512;

/* The variant for an instruction set, never HCT_SIMD_AUTO. */
hct_idct *hct_idct_find(hct_simd simd);

/* 1 when tiles of this shape can be transformed. */
int hct_idct_shape(unsigned tile_rows, unsigned tile_columns);

/* Product of sqrt(2/N) over the axes longer than 1: exact, or sqrt(1/2) correctly rounded
 * times a power of two. */
double hct_idct_factor(unsigned tile_rows, unsigned tile_columns);

#endif
