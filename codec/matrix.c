#include "matrix.h"

#include "tcq.h"

#define CHUNK_ELEMENTS (128u * 1024u)
/* Dimensions are joined until there are this many columns. */
#define MIN_COLUMNS 32

uint32_t hct_matrix_columns(const struct hct_tensor *t)
{
	uint64_t columns = 1;

	for (unsigned i = t->rank; i-- > 0 && columns < MIN_COLUMNS && (i > 0 || t->rank == 1);)
		columns *= t->shape[i];
	return columns && columns <= HCT_TCQ_MAX_PERIOD ? (uint32_t)columns : 1;
}

int hct_matrix_tile_fits(uint64_t rows, uint32_t columns, unsigned rows_log2, unsigned columns_log2)
{
	uint64_t band = (uint64_t)columns << rows_log2;

	return rows >> rows_log2 << rows_log2 == rows &&
	       columns >> columns_log2 << columns_log2 == columns &&
	       (!rows_log2 || band <= 2 * CHUNK_ELEMENTS) &&
	       (!columns_log2 || columns <= CHUNK_ELEMENTS);
}

uint32_t hct_matrix_chunk(uint32_t columns, unsigned rows_log2, unsigned columns_log2)
{
	uint64_t band = (uint64_t)columns << rows_log2;

	if (rows_log2)
		return (uint32_t)(band <= CHUNK_ELEMENTS ? CHUNK_ELEMENTS / band * band : band);
	if (columns <= CHUNK_ELEMENTS)
		return CHUNK_ELEMENTS / columns * columns;
	return CHUNK_ELEMENTS >> columns_log2 << columns_log2;
}
