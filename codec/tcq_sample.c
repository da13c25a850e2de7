#include "tcq_sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clones.h"
#include "idct.h"
#include "widen.h"

#define BAND_LEAST (4u * 1024u) /* elements */

void hct_tcq_sample_free(struct hct_tcq_sample *s)
{
	free(s->values);
	free(s->plain);
	free(s->pieces);
	*s = (struct hct_tcq_sample){0};
}

/* A number for each piece that has no pattern, to place it by. */
static uint64_t scatter(uint64_t i)
{
	i = (i + 1) * 0x9e3779b97f4a7c15u;
	return (i ^ i >> 29) * 0xbf58476d1ce4e5b9u >> 32;
}

/* Memory for count pieces of room elements each. */
static int make_room(struct hct_tcq_sample *s, size_t count, size_t room)
{
	s->pieces = calloc(count, sizeof *s->pieces);
	s->values = aligned_alloc(64, count * room * sizeof(float));
	s->plain = aligned_alloc(64, count * room * sizeof(float));
	if (!s->pieces || !s->values || !s->plain)
		return 0;
	for (size_t i = 0; i < count; i++)
		s->pieces[i].x = s->values + i * room;
	s->count = count;
	return 1;
}

/* So many that bands are neither tiny nor too large for a piece. */
uint32_t hct_tcq_band_rows(uint32_t columns, unsigned rows)
{
	uint32_t n = rows;

	while ((uint64_t)n * columns < BAND_LEAST && n < 1u << 16)
		n *= 2;
	while (n && (uint64_t)n * columns > HCT_TCQ_PIECE)
		n /= 2;
	return n;
}

/* Elements of a band. */
static uint64_t band_elements(uint32_t columns, uint32_t band_rows)
{
	return band_rows ? (uint64_t)band_rows * columns : HCT_TCQ_PIECE;
}

hct_error hct_tcq_sample_take_bands(const hct_encoder *e, const struct hct_tensor *tensor,
				    const uint8_t *data, uint32_t columns, uint32_t band_rows,
				    const uint64_t *bands, size_t count, struct hct_tcq_sample *s)
{
	size_t unit = hct_dtype_unit(tensor->dtype), pieces, room;
	uint64_t band = band_elements(columns, band_rows);

	*s = (struct hct_tcq_sample){.columns = columns, .band_rows = band_rows};
	pieces = (count + HCT_TCQ_PIECE / band - 1) / (HCT_TCQ_PIECE / band);
	room = ((count + pieces - 1) / pieces * band + HCT_GROUP - 1) / HCT_GROUP * HCT_GROUP;
	if (!make_room(s, pieces, room))
		return HCT_ERR_NOMEM;
	for (size_t i = 0; i < count; i++) {
		struct hct_tcq_piece *piece = &s->pieces[i % pieces];
		float *plain = s->plain + (piece->x - s->values);
		uint64_t at = bands[i] * band, left = hct_tensor_bytes(tensor) / unit - at;
		size_t n = left < band ? (size_t)left : (size_t)band; /* the last may be shorter */

		if (!piece->elements)
			piece->column = (uint32_t)(at % columns);
		hct_widen(tensor->dtype, data + at * unit, n, plain + piece->elements);
		piece->elements += n;
		s->elements += n;
		if (hct_encoder_watched(e, (at + n) * unit))
			return HCT_ERR_INTERRUPTED;
	}
	for (size_t i = 0; i < pieces; i++)
		for (size_t j = s->pieces[i].elements; j % HCT_GROUP; j++)
			s->plain[i * room + j] = 0;
	return HCT_OK;
}

hct_error hct_tcq_sample_take(const hct_encoder *e, const struct hct_tensor *tensor,
			      const uint8_t *data, uint32_t columns, size_t elements, unsigned rows,
			      struct hct_tcq_sample *s)
{
	uint32_t band_rows = hct_tcq_band_rows(columns, rows);
	uint64_t band = band_elements(columns, band_rows), *bands;
	uint64_t all = (hct_tensor_bytes(tensor) / hct_dtype_unit(tensor->dtype) + band - 1) / band;
	size_t count = (elements + band - 1) / band;
	hct_error err;

	*s = (struct hct_tcq_sample){0};
	count = count < all ? count : (size_t)all;
	bands = malloc(count * sizeof *bands);
	if (!bands)
		return HCT_ERR_NOMEM;
	for (size_t i = 0; i < count; i++)
		bands[i] = i * all / count + scatter(i) % (all / count);
	err = hct_tcq_sample_take_bands(e, tensor, data, columns, band_rows, bands, count, s);
	free(bands);
	return err;
}

void hct_tcq_sample_transform(struct hct_tcq_sample *s, const hct_dct *dct, unsigned rows_log2,
			      unsigned columns_log2, size_t stride)
{
	unsigned rows = 1u << rows_log2, columns = 1u << columns_log2;
	float factor = rows * columns > 1 ? (float)hct_idct_factor(rows, columns) : 1;

	for (size_t i = 0; i < s->count; i += stride) {
		struct hct_tcq_piece *piece = &s->pieces[i];
		const float *src = s->plain + (piece->x - s->values);
		size_t n = piece->elements, end = (n + HCT_GROUP - 1) / HCT_GROUP * HCT_GROUP;

		memcpy(piece->x, src, end * sizeof *src);
		if (rows > 1)
			hct_dct_tiles(dct, src, n / s->columns, s->columns, rows, columns,
				      piece->x);
		else if (columns > 1)
			hct_dct_tiles(dct, src, 1, n / columns * columns, 1, columns, piece->x);
		for (size_t j = 0; j < n && factor != 1; j++)
			piece->x[j] *= factor;
	}
}

/* A long product of numbers of at least 1, its exponent apart. */
struct product {
	double mantissa;
	int64_t exponent;
};

static inline void product_add(struct product *p, double factor)
{
	uint64_t u;

	p->mantissa *= factor;
	memcpy(&u, &p->mantissa, sizeof u);
	p->exponent += (int64_t)(u >> 52) - 1023;
	u = (u & 0xfffffffffffff) | (uint64_t)1023 << 52;
	memcpy(&p->mantissa, &u, sizeof u);
}

/* Multiplies 1 + scale x^2 of n values, a multiple of 32, in a fixed order.  A factor is below 2^50
 * by far, so that products of 16 fit. */
HCT_CLONES static void multiply(const float *x, size_t n, double scale, struct product *all)
{
	struct product sum = *all;

	for (size_t j = 0; j < n; j += 32) {
		double p[8] = {1, 1, 1, 1, 1, 1, 1, 1};

		for (size_t k = 0; k < 32; k += 8)
			for (unsigned l = 0; l < 8; l++) {
				double v = x[j + k + l], y = 1 + v * v * scale;

				p[l] *= y < 0x1p50 ? y : 0x1p50;
			}
		product_add(&sum, (p[0] * p[1]) * (p[2] * p[3]));
		product_add(&sum, (p[4] * p[5]) * (p[6] * p[7]));
	}
	*all = sum;
}

double hct_tcq_sample_bits(const struct hct_tcq_sample *s, double error, size_t stride)
{
	const double scale = 1 / error;
	struct product all = {.mantissa = 1};
	size_t elements = 0;

	for (size_t i = 0; i < s->count; i += stride) {
		const struct hct_tcq_piece *piece = &s->pieces[i];
		size_t n = piece->elements / 32 * 32;

		multiply(piece->x, n, scale, &all);
		elements += n;
	}
	return ((double)all.exponent + log2(all.mantissa)) / 2 / (double)elements;
}
