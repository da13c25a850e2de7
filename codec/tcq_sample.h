/* Internal: the part of a tensor's values that its tables are learnt from. */
#ifndef HCT_TCQ_SAMPLE_H
#define HCT_TCQ_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "dct.h"
#include "plan.h"
#include "rans.h"
#include "safetensors.h"

/* Pieces of a tensor's values, each at most a segment of whole groups. */
struct hct_tcq_piece {
	float *x;        /* whole groups, zeros behind the last element */
	size_t elements; /* at most 2^16 */
	uint32_t column; /* of the first element */
};

struct hct_tcq_sample {
	struct hct_tcq_piece *pieces;
	size_t count;
	size_t elements; /* of all pieces */
	uint32_t columns;
	uint32_t band_rows;    /* rows that lie together; 0 when rows are longer than a piece */
	float *values, *plain; /* what pieces point into, and the same before any transform */
};

#define HCT_TCQ_PIECE (64u * 1024u) /* most elements of a piece */

/* Takes about so many elements of a tensor, the bytes of which lie at data, as bands of at least
 * `rows` whole rows (or parts of long rows) spread all over it: many small bands tell more of a
 * tensor than a few large ones.  Pieces are made of bands from everywhere.  Their values are there
 * after hct_tcq_sample_transform.  e: whose watch is told where it is.  In any case *s goes to
 * hct_tcq_sample_free.  Errors: HCT_ERR_NOMEM, HCT_ERR_INTERRUPTED. */
hct_error hct_tcq_sample_take(const hct_encoder *e, const struct hct_tensor *tensor,
			      const uint8_t *data, uint32_t columns, size_t elements, unsigned rows,
			      struct hct_tcq_sample *s);
/* The same for given bands: number i is rows i * band_rows and on (or the i-th part of
 * HCT_TCQ_PIECE elements), with the band_rows of hct_tcq_band_rows. */
hct_error hct_tcq_sample_take_bands(const hct_encoder *e, const struct hct_tensor *tensor,
				    const uint8_t *data, uint32_t columns, uint32_t band_rows,
				    const uint64_t *bands, size_t count, struct hct_tcq_sample *s);
/* Rows of a band for a sample of at least so many whole rows; 0 when a row alone is too long. */
uint32_t hct_tcq_band_rows(uint32_t columns, unsigned rows);
/* Harmless on a zeroed struct and when repeated. */
void hct_tcq_sample_free(struct hct_tcq_sample *s);

/* Fills the values of every stride-th piece: coefficients of tiles, as the codec has them, or the
 * elements themselves for 0 and 0.  Tiles fit the columns, and the rows of bands. */
void hct_tcq_sample_transform(struct hct_tcq_sample *s, const hct_dct *dct, unsigned rows_log2,
			      unsigned columns_log2, size_t stride);

/* Bits that a coder which knew the scale of every value would spend on one, about, at that mean
 * squared error, from every stride-th piece; for comparisons. */
double hct_tcq_sample_bits(const struct hct_tcq_sample *s, double error, size_t stride);

/* Groups of a piece, and runs of 2^run_log2 groups. */
static inline size_t hct_tcq_piece_groups(const struct hct_tcq_piece *p)
{
	return (p->elements + HCT_GROUP - 1) / HCT_GROUP;
}

static inline size_t hct_tcq_piece_runs(const struct hct_tcq_piece *p, unsigned run_log2)
{
	return (hct_tcq_piece_groups(p) + ((size_t)1 << run_log2) - 1) >> run_log2;
}

#endif
