/* Internal: the orthonormal DCT-II of tiles, in SIMD variants that give the same bits.
 *
 * A variant works on a block of rows x HCT_DCT_BLOCK elements, row-major and 64-byte aligned;
 * rows is 16 or more and a power of two.  Its order of additions and multiplications is that of
 * dct_kernel.h, without fused multiply-add, so the result is the same on every machine. */
#ifndef HCT_DCT_TILES_H
#define HCT_DCT_TILES_H

#include <stddef.h>

#include "reader.h"

#define HCT_DCT_BLOCK    64 /* columns of a block, and the longest side of a tile */
#define HCT_DCT_MIN_ROWS 16 /* of a block: the most lanes that a variant has */

/* tile_rows and tile_columns: 1, 2, 4 ... 64; tile_rows divides rows. */
typedef void hct_dct_block(float *block, size_t rows, unsigned tile_rows, unsigned tile_columns);

hct_dct_block hct_dct_block_scalar, hct_dct_block_avx2, hct_dct_block_avx512;

/* The variant for an instruction set, never HCT_SIMD_AUTO. */
hct_dct_block *hct_dct_blocks(hct_simd simd);

/* 2 cos(pi (2 i + 1) / (2 n)), i < n / 2, begins at n / 2. */
extern const float hct_dct_cosines[HCT_DCT_BLOCK];
/* sqrt(2 / n) at log2(n), and so sqrt(1 / n) behind it. */
extern const float hct_dct_scales[8];

#endif
