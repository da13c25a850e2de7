#include "idct.h"

#include <float.h>

#include "idct_tables.h"

/* Wider intermediate results would give other bits. */
_Static_assert(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16, "float must be computed as float");
#ifdef __FAST_MATH__
#error "-ffast-math reorders sums: decoding would not give the bytes that FORMAT.md defines"
#endif

int hct_idct_shape(unsigned tile_rows, unsigned tile_columns)
{
	return tile_rows >= 1 && tile_rows <= HCT_IDCT_MAX && !(tile_rows & (tile_rows - 1)) &&
	       tile_columns >= 1 && tile_columns <= HCT_IDCT_MAX &&
	       !(tile_columns & (tile_columns - 1)) && tile_rows * tile_columns > 1;
}

double hct_idct_factor(unsigned tile_rows, unsigned tile_columns)
{
	double square = 1, factor = 1; /* square: of the factor */

	if (tile_rows > 1)
		square *= 2.0 / tile_rows;
	if (tile_columns > 1)
		square *= 2.0 / tile_columns;
	for (; square < .5; square *= 4)
		factor /= 2;
	return square < 1 ? factor * 0x1.6a09e667f3bcdp-1 : factor;
}

/* T_N, in place. */
static void transform(float *x, unsigned n)
{
	const float *c = hct_idct_c + n / 2 - 1;
	float g[HCT_IDCT_MAX / 2], h[HCT_IDCT_MAX / 2];

	if (n < 2)
		return;
	for (unsigned k = 0; k < n / 2; k++) {
		g[k] = x[2 * k];
		h[k] = k ? x[2 * k + 1] + x[2 * k - 1] : x[1];
	}
	transform(g, n / 2);
	transform(h, n / 2);
	for (unsigned k = 0; k < n / 2; k++) {
		float t = h[k] * c[k];

		x[k] = g[k] + t;
		x[n - 1 - k] = g[k] - t;
	}
}

/* n values that lie `stride` apart. */
static void transform_line(float *line, size_t stride, unsigned n)
{
	float x[HCT_IDCT_MAX];

	if (n < 2)
		return;
	for (unsigned k = 0; k < n; k++)
		x[k] = line[k * stride];
	x[0] *= HCT_IDCT_SQRT_HALF;
	transform(x, n);
	for (unsigned k = 0; k < n; k++)
		line[k * stride] = x[k];
}

void hct_idct_scalar(float *band, size_t stride, size_t columns, unsigned tile_rows,
		     unsigned tile_columns)
{
	for (size_t c = 0; c < columns; c++)
		transform_line(band + c, stride, tile_rows);
	for (size_t r = 0; r < tile_rows; r++)
		for (size_t c = 0; c < columns; c += tile_columns)
			transform_line(band + r * stride + c, 1, tile_columns);
}

hct_idct *hct_idct_find(hct_simd simd)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		return hct_idct_avx512;
	if (simd == HCT_SIMD_AVX2)
		return hct_idct_avx2;
#endif
	(void)simd;
	return hct_idct_scalar;
}
