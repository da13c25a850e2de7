/* Elements as float32, what a tensor holds, and distances, against plain long doubles. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/dequant.h"
#include "codec/tcq.h"
#include "codec/widen.h"

static uint32_t bits_of(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof u);
	return u;
}

/* All patterns of up to 16 bits, and at an odd address. */
static void every_pattern(hct_dtype dtype)
{
	size_t unit = hct_dtype_unit(dtype), n = (size_t)1 << 8 * unit;
	uint8_t *data = malloc(n * unit + 1), *odd = malloc(n * unit + 1);
	float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);

	for (size_t i = 0; i < n; i++)
		memcpy(data + i * unit, &i, unit);
	memcpy(odd + 1, data, n * unit);
	hct_widen(dtype, data, n, x);
	hct_widen(dtype, odd + 1, n, y);
	assert_memory_equal(x, y, n * sizeof *x);
	for (size_t i = 0; i < n; i++) {
		double d;

		hct_dtype_to_double(dtype, data + i * unit, 1, &d);
		if (isnan(d)) {
			assert_true(isnan(x[i]));
		} else {
			assert_true((double)x[i] == d);
			assert_int_equal(signbit(x[i]) != 0, signbit(d) != 0);
		}
	}
	free(data);
	free(odd);
	free(x);
	free(y);
}

static void small_dtypes_are_exact(void **state)
{
	(void)state;
	every_pattern(HCT_DTYPE_BF16);
	every_pattern(HCT_DTYPE_F16);
	every_pattern(HCT_DTYPE_F8_E4M3);
	every_pattern(HCT_DTYPE_F8_E5M2);
	every_pattern(HCT_DTYPE_F8_E4M3FNUZ);
	every_pattern(HCT_DTYPE_F8_E5M2FNUZ);
}

static void f32_is_itself(void **state)
{
	static const uint32_t patterns[] = {0,          1,          0x80000000,
					    0x7f800000, 0xff800001, 0x7f7fffff,
					    0x00800000, 0x3f800001, 0xffffffff};
	float x[9];

	(void)state;
	hct_widen(HCT_DTYPE_F32, (const uint8_t *)patterns, 9, x);
	assert_memory_equal(x, patterns, sizeof patterns);
}

static void f64_is_rounded_to_nearest(void **state)
{
	static const struct {
		double from;
		float to;
	} cases[] = {
		{1 + 0x1p-24, 1},
		{1 + 0x1.8p-23, 1 + 0x1p-22f},
		{-0x1p-150, -0.f},
		{0x1.8p-149, 0x1p-148f},
		{1e300, INFINITY},
		{-1e300, -INFINITY},
		{3.4028235e38, FLT_MAX},
		{0.1, .1f},
		{-0., -0.f},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		float x;

		hct_widen(HCT_DTYPE_F64, (const uint8_t *)&cases[i].from, 1, &x);
		assert_int_equal(bits_of(x), bits_of(cases[i].to));
	}
}

static uint32_t seed;

static double uniform(void)
{
	seed = seed * 1664525u + 1013904223u;
	return seed / 4294967296.0;
}

/* n elements about a scale. */
static void fill(hct_dtype dtype, size_t n, double scale, uint8_t *out)
{
	for (size_t i = 0; i < n; i++) {
		double d = scale * (uniform() - .5) * exp2(8 * uniform());
		float f = (float)d;

		if (dtype == HCT_DTYPE_F64)
			memcpy(out + 8 * i, &d, 8);
		else
			hct_dequant_scalar.narrow[dtype](&f, 1, out + i * hct_dtype_unit(dtype));
	}
}

static void near_to(double found, long double exact)
{
	if (fabsl(found - exact) > 1e-12L * fabsl(exact))
		fail_msg("%.17g instead of %.17g", found, (double)exact);
}

/* In any number of calls, of any length. */
static void sums_are_right(void **state)
{
	static const size_t lengths[] = {1, 2, 15, 16, 17, 1023, 1024, 1025, 5000};

	(void)state;
	seed = 1;
	for (int dtype = 0; dtype < HCT_DTYPE_COUNT; dtype++)
		for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
			size_t n = lengths[i], unit = hct_dtype_unit(dtype), cut = n / 3;
			uint8_t *a = malloc(n * 8), *b = malloc(n * 8);
			struct hct_census c = {.finite = 1};
			struct hct_distance d = {0};
			long double aa = 0, bb = 0, dd = 0;
			double peak = 0;

			if (!hct_tcq_has_dtype(dtype)) {
				free(a);
				free(b);
				continue;
			}
			fill(dtype, n, .7, a);
			fill(dtype, n, .7, b);
			hct_census_add(&c, dtype, a, cut);
			hct_census_add(&c, dtype, a + cut * unit, n - cut);
			hct_distance_add(&d, dtype, a, b, cut);
			hct_distance_add(&d, dtype, a + cut * unit, b + cut * unit, n - cut);
			for (size_t j = 0; j < n; j++) {
				float x, y;

				hct_widen(dtype, a + j * unit, 1, &x);
				hct_widen(dtype, b + j * unit, 1, &y);
				aa += (long double)x * x;
				bb += (long double)y * y;
				dd += ((long double)x - y) * ((long double)x - y);
				peak = fmax(peak, fabsf(x));
			}
			near_to(c.energy, aa);
			assert_true(c.peak == peak && c.finite == 1);
			near_to(d.aa, aa);
			near_to(d.bb, bb);
			near_to(d.dd, dd);
			free(a);
			free(b);
		}
}

static void wide_ranges_do_not_overflow(void **state)
{
	float a[40], b[40];
	struct hct_census c = {.finite = 1};
	struct hct_distance d = {0};

	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		a[i] = i % 2 ? FLT_MAX : 1e-45f;
		b[i] = -a[i];
	}
	hct_census_add(&c, HCT_DTYPE_F32, (const uint8_t *)a, 40);
	hct_distance_add(&d, HCT_DTYPE_F32, (const uint8_t *)a, (const uint8_t *)b, 40);
	assert_true(c.finite && c.peak == FLT_MAX);
	near_to(c.energy, 20 * (long double)FLT_MAX * FLT_MAX);
	near_to(d.dd, 80 * (long double)FLT_MAX * FLT_MAX);
	c = (struct hct_census){.finite = 1};
	hct_census_add(&c, HCT_DTYPE_F32, (const uint8_t *)a, 1);
	assert_true(c.peak == 1e-45f && c.energy > 0);
}

/* One NaN or infinity anywhere is found, and stays found. */
static void what_is_not_finite(void **state)
{
	static const float bad[] = {INFINITY, -INFINITY, NAN, -NAN};
	float x[3000];

	(void)state;
	for (unsigned k = 0; k < 4; k++)
		for (size_t at = 0; at < 3000; at += 171) {
			struct hct_census c = {.finite = 1};

			for (size_t i = 0; i < 3000; i++)
				x[i] = 1;
			x[at] = bad[k];
			hct_census_add(&c, HCT_DTYPE_F32, (const uint8_t *)x, 3000);
			assert_int_equal(c.finite, 0);
			x[at] = 1;
			hct_census_add(&c, HCT_DTYPE_F32, (const uint8_t *)x, 3000);
			assert_int_equal(c.finite, 0);
		}
}

/* The error of rounding uniform mantissas, as measured. */
static void rounding_is_as_large_as_said(void **state)
{
	(void)state;
	seed = 2;
	for (int dtype = 0; dtype < HCT_DTYPE_COUNT; dtype++) {
		double sum = 0, all = 0, ratio;

		if (!hct_tcq_has_dtype(dtype))
			continue;
		for (unsigned i = 0; i < 200000; i++) {
			float f = (float)exp2(uniform() * 2 - 2), g;
			uint8_t bytes[8];

			hct_dequant_scalar.narrow[dtype](&f, 1, bytes);
			hct_widen(dtype, bytes, 1, &g);
			sum += ((double)f - g) * ((double)f - g);
			all += (double)f * f;
		}
		if (hct_rounding_error(dtype) == 0) {
			assert_true(sum == 0);
			continue;
		}
		ratio = sum / all / hct_rounding_error(dtype);
		assert_true(ratio > .8 && ratio < 1.25);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_dtypes_are_exact),
		cmocka_unit_test(f32_is_itself),
		cmocka_unit_test(f64_is_rounded_to_nearest),
		cmocka_unit_test(sums_are_right),
		cmocka_unit_test(wide_ranges_do_not_overflow),
		cmocka_unit_test(what_is_not_finite),
		cmocka_unit_test(rounding_is_as_large_as_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
