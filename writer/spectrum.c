#include "spectrum.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/widen.h"

/* Exponent and six bits of mantissa: the order of these is the order of magnitudes. */
static unsigned class_of(float x)
{
	uint32_t u;

	memcpy(&u, &x, 4);
	return (u & 0x7FFFFFFF) >> 17;
}

void mkhct_spectrum_add(struct mkhct_spectrum *s, const float *coefficients, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		double x = coefficients[i];
		unsigned c = class_of(coefficients[i]);

		s->count[c]++;
		s->energy[c] += x * x;
	}
}

static unsigned side(uint64_t length)
{
	for (unsigned s = HCT_DCT_MAX_TILE; s >= 8; s /= 2)
		if (length % s == 0)
			return s;
	return 1;
}

/* Rows of the tensor from `row`, as coefficients. */
static hct_error take_band(const hct_dct *dct, const struct hct_tensor *t, const uint8_t *data,
			   uint64_t row, size_t columns, const unsigned tile[2], float *band,
			   struct mkhct_spectrum *s)
{
	size_t n = tile[0] * columns;
	hct_error err;

	hct_widen(t->dtype, data + row * columns * hct_dtype_unit(t->dtype), n, band);
	for (size_t i = 0; i < n; i++)
		if (!isfinite(band[i]))
			band[i] = 0;
	err = hct_dct_tiles(dct, band, tile[0], columns, tile[0], tile[1], band);
	if (!err)
		mkhct_spectrum_add(s, band, n);
	return err;
}

hct_error mkhct_spectrum_measure(const hct_dct *dct, const struct hct_tensor *t,
				 const uint8_t *data, struct mkhct_spectrum *s)
{
	uint64_t columns = t->rank ? t->shape[t->rank - 1] : 1, rows, bands, step;
	unsigned tile[2];
	hct_error err = HCT_OK;
	float *band;

	if (t->elements == 0)
		return HCT_OK;
	rows = t->elements / columns;
	if (columns > MKHCT_SPECTRUM_SAMPLE / HCT_DCT_MAX_TILE) {
		/* Rows so long are cut: no tensor of a model has them but by accident. */
		columns = side(columns) > 1 ? side(columns) : 1;
		rows = t->elements / columns;
	}
	tile[0] = side(rows);
	tile[1] = side(columns);
	band = malloc(tile[0] * columns * sizeof(*band));
	if (!band)
		return HCT_ERR_NOMEM;
	bands = rows / tile[0];
	step = (t->elements + MKHCT_SPECTRUM_SAMPLE - 1) / MKHCT_SPECTRUM_SAMPLE;
	for (uint64_t b = 0; !err && b < bands; b += step)
		err = take_band(dct, t, data, b * tile[0], columns, tile, band, s);
	free(band);
	return err;
}

void mkhct_spectrum_merge(struct mkhct_spectrum *s, const struct mkhct_spectrum *other)
{
	for (unsigned c = 0; c < MKHCT_SPECTRUM_CLASSES; c++) {
		s->count[c] += other->count[c];
		s->energy[c] += other->energy[c];
	}
}

double mkhct_spectrum_retention(const struct mkhct_spectrum *s, double quality)
{
	double total = 0, wanted, kept = 0, energy = 0;
	uint64_t n = 0;

	for (unsigned c = 0; c < MKHCT_SPECTRUM_CLASSES; c++) {
		total += s->energy[c];
		n += s->count[c];
	}
	if (!(total > 0))
		return 1;
	wanted = quality * total;
	for (unsigned c = MKHCT_SPECTRUM_CLASSES; c-- > 0;) {
		if (!s->count[c])
			continue;
		if (energy + s->energy[c] >= wanted) {
			double part = (wanted - energy) / s->energy[c];

			kept += ceil(part * (double)s->count[c]);
			break;
		}
		energy += s->energy[c];
		kept += (double)s->count[c];
	}
	return fmin(fmax(kept, 1) / (double)n, 1);
}

struct mkhct_target mkhct_spectrum_target(const struct mkhct_spectrum *s, double quality)
{
	return mkhct_spectrum_target_of(mkhct_spectrum_retention(s, quality), quality);
}

struct mkhct_target mkhct_spectrum_target_of(double retention, double quality)
{
	double error = fmin(mkhct_error_of_retention(retention), 1 - quality);
	struct mkhct_target t = mkhct_target_error(error);

	if (t.kind == MKHCT_TARGET_ERROR)
		t.retention = retention;
	return t;
}
