/* Internal: the matrix that lossy coding sees a tensor as, and how it is cut into tiles and
 * chunks. */
#ifndef HCT_MATRIX_H
#define HCT_MATRIX_H

#include <stdint.h>

#include "safetensors.h"

/* Columns of the matrix: the last dimension, or the last few when that is short, as with
 * convolutions; 1 when there would be too many, or none.  At least 1. */
uint32_t hct_matrix_columns(const struct hct_tensor *t);

/* 1 when tiles of these sides cut a matrix evenly, and chunks of whole tiles are not too long. */
int hct_matrix_tile_fits(uint64_t rows, uint32_t columns, unsigned rows_log2,
			 unsigned columns_log2);

/* Elements of a chunk of a matrix that is cut into such tiles. */
uint32_t hct_matrix_chunk(uint32_t columns, unsigned rows_log2, unsigned columns_log2);

#endif
