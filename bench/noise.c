#include "noise.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "codec/hctenc.h"
#include "model.h"

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static float *gaussian(size_t n, uint64_t seed)
{
	float *x = bench_alloc(n + 1, sizeof *x);

	for (size_t i = 0; i < n; i += 2) { /* Box and Muller */
		double u = ((double)(next(&seed) >> 11) + .5) * 0x1p-53;
		double angle = 2 * M_PI * 0x1p-53 * (double)(next(&seed) >> 11);
		double radius = sqrt(-2 * log(u));

		x[i] = (float)(radius * cos(angle));
		x[i + 1] = (float)(radius * sin(angle));
	}
	return x;
}

float *noise_white(size_t rows, size_t columns)
{
	return gaussian(rows * columns, 1);
}

float *noise_smooth(size_t rows, size_t columns, double row_rho, double column_rho)
{
	float *x = gaussian(rows * columns, 2);
	float fresh_row = (float)sqrt(1 - row_rho * row_rho);
	float fresh_column = (float)sqrt(1 - column_rho * column_rho);

	for (size_t i = 0; i < rows; i++)
		for (size_t j = 1; j < columns; j++)
			x[i * columns + j] = fresh_row * x[i * columns + j] +
					     (float)row_rho * x[i * columns + j - 1];
	for (size_t i = 1; i < rows; i++)
		for (size_t j = 0; j < columns; j++)
			x[i * columns + j] = fresh_column * x[i * columns + j] +
					     (float)column_rho * x[(i - 1) * columns + j];
	return x;
}

float *noise_tiles(size_t rows, size_t columns, size_t side)
{
	float *x = gaussian(rows * columns, 3);
	hct_dct *dct;

	if (hct_dct_create(HCT_SIMD_AUTO, &dct))
		bench_die("out of memory", NULL);
	for (size_t i = 0; i < rows; i++)
		for (size_t j = 0; j < columns; j++)
			x[i * columns + j] *= expf(-3 * (float)(i % side + j % side) / (float)side);
	for (size_t i = 0; i < rows; i += side)
		if (hct_dct_inverse_2d(dct, x + i * columns, x + i * columns, side, side, columns,
				       columns / side, side))
			bench_die("transform", NULL);
	hct_dct_free(dct);
	return x;
}

float *noise_low_rank(size_t rows, size_t columns, size_t rank, double noise)
{
	float *a = gaussian(rows * rank, 4), *b = gaussian(rank * columns, 5);
	float *x = gaussian(rows * columns, 6);
	float scale = (float)(1 / sqrt((double)rank));

	for (size_t i = 0; i < rows; i++) {
		float *row = x + i * columns;

		for (size_t j = 0; j < columns; j++)
			row[j] *= (float)sqrt(noise);
		for (size_t k = 0; k < rank; k++)
			for (size_t j = 0; j < columns; j++)
				row[j] += scale * a[i * rank + k] * b[k * columns + j];
	}
	free(a);
	free(b);
	return x;
}
