/* INT4 blocks and FP16 numbers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "codec/int4.h"
#include "lossy.h"

static float half_value(uint16_t h)
{
	double m = h & 1023, e = h >> 10 & 31, v = e ? ldexp(1024 + m, (int)e - 25) : ldexp(m, -24);

	return (float)(h >> 15 ? -v : v);
}

static double block_error(const float *x, unsigned n, uint16_t scale, const int8_t *q)
{
	double sum = 0;

	for (unsigned i = 0; i < n; i++) {
		double d = x[i] - (double)q[i] * half_value(scale);

		assert_true(q[i] >= -8 && q[i] <= 7);
		sum += d * d;
	}
	return sum;
}

/* The least error of any scale, by trying 4000 of them. */
static double least_error(const float *x, unsigned n)
{
	double top = 0, least = 1e300;

	for (unsigned i = 0; i < n; i++)
		top = fmax(top, fabs((double)x[i]));
	for (int k = -2000; k <= 2000; k++) {
		double scale = k * top / 8000, sum = 0;

		for (unsigned i = 0; i < n && k; i++) {
			double q = fmin(fmax(rint(x[i] / scale), -8), 7), d = x[i] - q * scale;

			sum += d * d;
		}
		least = k && sum < least ? sum : least;
	}
	return least;
}

static void test_int4(void **state)
{
	double sum = 0, least = 0, energy = 0;

	(void)state;
	lossy_seed = 1;
	for (unsigned round = 0; round < 600; round++) {
		unsigned n = round % 3 ? HCT_COEF_BLOCK : 1 + round % 32;
		float x[HCT_COEF_BLOCK] = {0}, copy[HCT_COEF_BLOCK];
		int8_t q[HCT_COEF_BLOCK];
		uint16_t scale;
		double error;

		for (unsigned i = 0; i < n; i++)
			x[i] = (float)lossy_gauss();
		memcpy(copy, x, sizeof copy);
		error = hct_int4_block(x, n, &scale, q);
		assert_memory_equal(x, copy, n * sizeof *x);
		assert_true(fabs(error - block_error(x, n, scale, q)) < 1e-4 * error + 1e-9);
		if (n < HCT_COEF_BLOCK)
			continue;
		sum += error;
		least += least_error(x, n);
		for (unsigned i = 0; i < n; i++)
			energy += (double)x[i] * x[i];
	}
	/* .0065 on Gaussian numbers; Q4_0, which never clips, leaves .0084 */
	assert_true(sum / energy > .0060 && sum / energy < .0070);
	assert_true(sum < 1.02 * least);
}

static void test_int4_edges(void **state)
{
	float zero[HCT_COEF_BLOCK] = {0}, one[HCT_COEF_BLOCK] = {0}, grid[HCT_COEF_BLOCK];
	int8_t q[HCT_COEF_BLOCK];
	uint16_t scale;

	(void)state;
	assert_true(hct_int4_block(zero, 32, &scale, q) == 0);
	for (unsigned i = 0; i < 32; i++)
		assert_true(q[i] == 0);
	/* one number, of any size */
	for (float v = 65504; v > 1e-6f; v /= 3) {
		one[0] = -v;
		assert_true(hct_int4_block(one, 32, &scale, q) <= 1e-2 * v * v + 1e-14);
	}
	/* what is on a grid stays there */
	for (unsigned i = 0; i < 32; i++)
		grid[i] = .5f * (float)((int)i % 16 - 8);
	assert_true(hct_int4_block(grid, 32, &scale, q) < 1e-9);
	/* too small for any scale */
	memset(one, 0, sizeof one);
	one[3] = 1e-12f;
	assert_true(hct_int4_block(one, 32, &scale, q) <= 1.01e-24);
}

static void test_half(void **state)
{
	(void)state;
	for (unsigned h = 0; h < 65536; h++)
		if (!hct_half_is_special((uint16_t)h)) {
			assert_true(hct_half_value((uint16_t)h) == half_value((uint16_t)h));
			assert_int_equal(hct_half_round(half_value((uint16_t)h)), h);
		}
	assert_true(hct_half_is_special(0x7c00) && hct_half_is_special(0xfc01));
	for (int e = HCT_COEF_MIN_EXPONENT; e <= HCT_COEF_MAX_EXPONENT; e++)
		assert_true(hct_coef_power(e) == ldexpf(1, e));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_int4),
		cmocka_unit_test(test_int4_edges),
		cmocka_unit_test(test_half),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
