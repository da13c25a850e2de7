#include "widen.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "bytes.h"
#include "clones.h"

/* Elements at a time, so that they stay in the L1 cache. */
#define BLOCK 1024
/* Sums that are carried side by side, in a fixed order whatever the compiler's vectors. */
#define LANES 16

static float from_bits(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof f);
	return f;
}

HCT_CLONES static void widen_bf16(const uint8_t *src, size_t n, float *dst)
{
	for (size_t i = 0; i < n; i++)
		dst[i] = from_bits((uint32_t)hct_load16(src + 2 * i) << 16);
}

/* The exponent is moved by a multiplication, which makes subnormals right, too. */
HCT_CLONES static void widen_f16(const uint8_t *src, size_t n, float *dst)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t h = hct_load16(src + 2 * i), sign = (h & 0x8000) << 16;
		float f = from_bits((h & 0x7fff) << 13) * 0x1p112f;

		dst[i] = (h & 0x7c00) == 0x7c00 ? from_bits(sign | 0x7f800000 | (h & 0x3ff) << 13)
						: (sign ? -f : f);
	}
}

void hct_widen(hct_dtype dtype, const uint8_t *src, size_t n, float *dst)
{
	size_t unit = hct_dtype_unit(dtype);

	if (dtype == HCT_DTYPE_F32) {
		memcpy(dst, src, 4 * n);
	} else if (dtype == HCT_DTYPE_BF16) {
		widen_bf16(src, n, dst);
	} else if (dtype == HCT_DTYPE_F16) {
		widen_f16(src, n, dst);
	} else {
		double block[BLOCK];

		for (size_t i = 0; i < n; i += BLOCK) {
			size_t m = n - i < BLOCK ? n - i : BLOCK;

			hct_dtype_to_double(dtype, src + i * unit, m, block);
			for (size_t j = 0; j < m; j++)
				dst[i + j] = (float)block[j];
		}
	}
}

static double sum(const double s[LANES])
{
	double t = 0;

	for (unsigned l = 0; l < LANES; l++)
		t += s[l];
	return t;
}

/* The numbers of a dtype: bits of the mantissa, and the exponent of the least normal one. */
static int numbers_of(hct_dtype dtype, int *mantissa, int *least)
{
	static const struct {
		hct_dtype dtype;
		int mantissa, least;
	} all[] = {{HCT_DTYPE_BF16, 7, -126},      {HCT_DTYPE_F16, 10, -14},
		   {HCT_DTYPE_F8_E4M3, 3, -6},     {HCT_DTYPE_F8_E5M2, 2, -14},
		   {HCT_DTYPE_F8_E4M3FNUZ, 3, -7}, {HCT_DTYPE_F8_E5M2FNUZ, 2, -15}};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (all[i].dtype == dtype) {
			*mantissa = all[i].mantissa;
			*least = all[i].least;
			return 1;
		}
	return 0;
}

double hct_rounding_error(hct_dtype dtype)
{
	int mantissa, least;

	/* 2.16: mean square of a mantissa, from 1 to 2 */
	return numbers_of(dtype, &mantissa, &least) ? ldexp(1, -2 * mantissa) / 12 / 2.16 : 0;
}

/* Sum of the squared distances between neighbours at n numbers. */
HCT_CLONES static double neighbour_squares(const float *x, size_t n, int mantissa, int least)
{
	double all = 0;

	for (size_t i = 0; i < n; i += LANES) {
		float sum = 0;

		for (unsigned l = 0; l < LANES && i + l < n; l++) {
			uint32_t u;
			int e;

			memcpy(&u, &x[i + l], 4);
			e = (int)(u >> 23 & 255) - 127;
			e = e < least ? least : e;
			sum += from_bits((uint32_t)(2 * (e - mantissa) + 127) << 23);
		}
		all += sum;
	}
	return all;
}

/* Only the short dtypes have subnormal numbers that weights come near to. */
static double rounding_squares(hct_dtype dtype, const float *x, size_t n, double energy)
{
	int mantissa, least;

	if (!numbers_of(dtype, &mantissa, &least) || dtype == HCT_DTYPE_BF16)
		return energy * hct_rounding_error(dtype);
	return neighbour_squares(x, n, mantissa, least) / 12;
}

/* Sums of squares of n numbers, a multiple of LANES. */
HCT_CLONES static void square_block(const float *x, size_t n, double squares[LANES])
{
	double s[LANES] = {0};

	for (size_t j = 0; j < n; j += LANES)
		for (unsigned l = 0; l < LANES; l++)
			s[l] += (double)x[j + l] * x[j + l];
	memcpy(squares, s, sizeof s);
}

/* The bits of the largest magnitude: these compare as the integers that they are, NaN beyond
 * infinity. */
HCT_CLONES static uint32_t largest(const uint32_t *u, size_t n)
{
	uint32_t top = 0;

	for (size_t j = 0; j < n; j++) {
		uint32_t v = u[j] & 0x7fffffff;

		top = v > top ? v : top;
	}
	return top;
}

void hct_census_add(struct hct_census *c, hct_dtype dtype, const uint8_t *src, size_t n)
{
	size_t unit = hct_dtype_unit(dtype);
	float x[BLOCK];
	uint32_t bits[BLOCK];

	for (size_t i = 0; i < n; i += BLOCK) {
		size_t m = n - i < BLOCK ? n - i : BLOCK, end = (m + LANES - 1) / LANES * LANES;
		double squares[LANES], energy;
		uint32_t top;

		hct_widen(dtype, src + i * unit, m, x);
		for (size_t j = m; j < end; j++)
			x[j] = 0;
		memcpy(bits, x, m * sizeof *bits);
		top = largest(bits, m);
		c->finite &= top < 0x7f800000;
		if (top < 0x7f800000) {
			square_block(x, end, squares);
			energy = sum(squares);
			c->peak = fmax(c->peak, from_bits(top));
			c->energy += energy;
			c->rounding += rounding_squares(dtype, x, m, energy);
		}
	}
}

HCT_CLONES static void distance_block(struct hct_distance *d, const float *a, const float *b,
				      size_t n)
{
	double aa[LANES] = {0}, bb[LANES] = {0}, dd[LANES] = {0};

	for (size_t j = 0; j < n; j += LANES)
		for (unsigned l = 0; l < LANES; l++) {
			double x = a[j + l], y = b[j + l];

			aa[l] += x * x;
			bb[l] += y * y;
			dd[l] += (x - y) * (x - y);
		}
	d->aa += sum(aa);
	d->bb += sum(bb);
	d->dd += sum(dd);
}

void hct_distance_add(struct hct_distance *d, hct_dtype dtype, const uint8_t *a, const uint8_t *b,
		      size_t n)
{
	size_t unit = hct_dtype_unit(dtype);
	float x[BLOCK], y[BLOCK];

	for (size_t i = 0; i < n; i += BLOCK) {
		size_t m = n - i < BLOCK ? n - i : BLOCK, end = (m + LANES - 1) / LANES * LANES;

		hct_widen(dtype, a + i * unit, m, x);
		hct_widen(dtype, b + i * unit, m, y);
		for (size_t j = m; j < end; j++)
			x[j] = y[j] = 0;
		distance_block(d, x, y, m);
	}
}
