/* The inverse DCT: every variant against the scalar one, that one against a double sum. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/idct.h"
#include "codec/idct_tables.h"

#define N           HCT_IDCT_MAX
#define MAX_TILES   21
#define MAX_COLUMNS (N * MAX_TILES + 5)

static const double pi = 3.14159265358979323846;

static float input[N * MAX_COLUMNS], expected[N * MAX_COLUMNS], found[N * MAX_COLUMNS + 1];
static uint64_t seed;

static uint32_t next(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 32);
}

/* From -1 to 1, and the same everywhere. */
static float next_float(void)
{
	return (float)((int32_t)next() >> 8) * 0x1p-23f;
}

enum kind { PLAIN, WIDE, SUBNORMAL, HUGE_ONES, ZEROS, ANY, KINDS };

static float value(enum kind kind)
{
	uint32_t bits = next();
	float v = next_float();

	switch (kind) {
	case WIDE: /* and few, as quantised coefficients are */
		return bits % 4 ? 0 : ldexpf(v, (int)(bits >> 8) % 40 - 20);
	case SUBNORMAL:
		return ldexpf(v, -126 - (int)(bits % 20));
	case HUGE_ONES: /* sums of these overflow now and then */
		return ldexpf(v, 127 - (int)(bits % 12));
	case ZEROS:
		return bits & 1 ? -0.f : 0.f;
	case ANY: /* NaN and infinity, too */
		memcpy(&v, &bits, sizeof v);
		return bits % 64 ? v : INFINITY;
	default:
		return v;
	}
}

static void fill(enum kind kind, size_t n, uint64_t from)
{
	seed = from;
	for (size_t i = 0; i < n; i++)
		input[i] = value(kind);
}

/* Equal bits; which NaN a NaN is is open. */
static void compare(const float *a, const float *b, size_t n)
{
	if (!memcmp(a, b, n * sizeof *a))
		return;
	for (size_t i = 0; i < n; i++)
		if (!isnan(a[i]) || !isnan(b[i]))
			assert_memory_equal(a + i, b + i, sizeof *a);
}

static void compare_variants(unsigned rows, unsigned columns, size_t tiles, enum kind kind,
			     unsigned gap)
{
	size_t width = tiles * columns, stride = width + gap, n = rows * stride;

	fill(kind, n, 1 + 64 * rows + columns + tiles + kind);
	memcpy(expected, input, n * sizeof *input);
	hct_idct_scalar(expected, stride, width, rows, columns);
	for (size_t r = 0; r < rows; r++)
		compare(expected + r * stride + width, input + r * stride + width, gap);
	for (int simd = HCT_SIMD_AVX2; simd <= HCT_SIMD_AVX512; simd++) {
		/* a band that no vector is aligned with */
		float *band = found + 1;

		if (!hct_simd_supported((hct_simd)simd))
			continue;
		memcpy(band, input, n * sizeof *input);
		hct_idct_find((hct_simd)simd)(band, stride, width, rows, columns);
		compare(expected, band, n);
	}
}

static void test_variants_agree(void **state)
{
	static const size_t tiles[] = {0, 1, 2, 3, 16, MAX_TILES};

	(void)state;
	for (unsigned rows = 1; rows <= N; rows *= 2)
		for (unsigned columns = 1; columns <= N; columns *= 2)
			for (unsigned t = 0; t < sizeof tiles / sizeof *tiles; t++)
				for (int kind = PLAIN; kind < KINDS; kind++)
					if (rows * columns > 1)
						compare_variants(rows, columns, tiles[t],
								 (enum kind)kind, t % 3 * 2);
}

/* One axis of n, by the definition. */
static void direct(const double *in, double *out, size_t stride, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		double sum = n > 1 ? in[0] * sqrt(.5) : in[0];

		for (unsigned k = 1; k < n; k++)
			sum += in[k * stride] * cos(pi * ((2 * i + 1) * k % (4 * n)) / (2 * n));
		out[i * stride] = sum;
	}
}

/* Against the double sum, in the scale in which the transform is orthonormal and relative to the
 * root mean square of the coefficients.  64x64 is worst: 6e-7 and 1.1e-5 on much Gaussian data. */
static void test_definition(void **state)
{
	static double a[N * N], b[N * N];

	(void)state;
	for (unsigned rows = 1; rows <= N; rows *= 2)
		for (unsigned columns = 1; columns <= N; columns *= 2) {
			double energy = 0, error = 0, largest = 0;
			double factor = hct_idct_factor(rows, columns);
			size_t n = rows * columns;

			if (n == 1)
				continue;
			fill(PLAIN, n, n);
			for (size_t i = 0; i < n; i++) {
				a[i] = input[i];
				energy += a[i] * a[i] / (double)n;
			}
			for (size_t c = 0; c < columns; c++)
				direct(a + c, b + c, columns, rows);
			for (size_t r = 0; r < rows; r++)
				direct(b + r * columns, a + r * columns, 1, columns);
			hct_idct_scalar(input, columns, columns, rows, columns);
			for (size_t i = 0; i < n; i++) {
				double e = fabs(input[i] - a[i]) * factor;

				error += e * e / (double)n;
				largest = fmax(largest, e);
			}
			assert_true(sqrt(error / energy) < 2e-6);
			assert_true(largest / sqrt(energy) < 3e-5);
		}
}

/* With the factor, the images of unit vectors are orthonormal. */
static void test_orthonormal(void **state)
{
	static float image[N][N];

	(void)state;
	for (unsigned rows = 1; rows <= N; rows *= 2)
		for (unsigned columns = 1; columns <= N; columns *= 2) {
			unsigned n = rows * columns;

			if (n == 1 || n > N)
				continue;
			memset(image, 0, sizeof image);
			for (unsigned i = 0; i < n; i++) {
				image[i][i] = (float)hct_idct_factor(rows, columns);
				hct_idct_scalar(image[i], columns, columns, rows, columns);
			}
			for (unsigned i = 0; i < n; i++)
				for (unsigned j = 0; j <= i; j++) {
					double sum = 0;

					for (unsigned k = 0; k < n; k++)
						sum += (double)image[i][k] * image[j][k];
					assert_true(fabs(sum - (i == j)) < 2e-6);
				}
		}
}

static void test_factor(void **state)
{
	(void)state;
	assert_true(hct_idct_factor(64, 64) == .03125);
	assert_true(hct_idct_factor(64, 32) == sqrt(.5) / 16);
	assert_true(hct_idct_factor(1, 8) == .5);
	assert_true(hct_idct_factor(8, 1) == .5);
	assert_true(hct_idct_factor(1, 64) == sqrt(.5) / 4);
	assert_true(hct_idct_factor(2, 2) == 1);
	assert_true(hct_idct_factor(1, 2) == 1);
}

/* The constants are what they are said to be: none of them is near the middle of two floats. */
static void test_constants(void **state)
{
	(void)state;
	assert_true(HCT_IDCT_SQRT_HALF == (float)sqrt(.5));
	for (unsigned n = 2; n <= N; n *= 2)
		for (unsigned k = 0; k < n / 2; k++)
			assert_true(hct_idct_c[n / 2 - 1 + k] ==
				    (float)(.5 / cos(pi * (2 * k + 1) / (2 * n))));
}

/* FNV-1a of what all shapes give.  These bits are part of the file format. */
static void test_bits_stay(void **state)
{
	uint64_t hash = 0xcbf29ce484222325u;

	(void)state;
	for (unsigned rows = 1; rows <= N; rows *= 2)
		for (unsigned columns = 1; columns <= N; columns *= 2) {
			if (rows * columns == 1)
				continue;
			fill(PLAIN, rows * columns, rows * columns);
			hct_idct_scalar(input, columns, columns, rows, columns);
			for (size_t i = 0; i < rows * columns; i++) {
				uint32_t bits;

				memcpy(&bits, input + i, sizeof bits);
				hash = (hash ^ bits) * 0x100000001b3u;
			}
		}
	assert_int_equal(hash, 0xc6d129eb5d9dc6ceu);
}

/* With tile_rows 1, rows one behind the other are one long row. */
static void test_long_row(void **state)
{
	(void)state;
	for (unsigned columns = 2; columns <= N; columns *= 2) {
		size_t width = 3 * columns, n = 5 * width;

		fill(PLAIN, n, columns);
		memcpy(expected, input, n * sizeof *input);
		for (size_t r = 0; r < 5; r++)
			hct_idct_scalar(expected + r * width, width, width, 1, columns);
		hct_idct_find(hct_simd_best())(input, n, n, 1, columns);
		assert_memory_equal(input, expected, n * sizeof *input);
	}
}

static void test_shapes(void **state)
{
	(void)state;
	for (unsigned rows = 0; rows <= 2 * N; rows++)
		for (unsigned columns = 0; columns <= 2 * N; columns++) {
			int power =
				__builtin_popcount(rows) == 1 && __builtin_popcount(columns) == 1;

			assert_int_equal(hct_idct_shape(rows, columns),
					 power && rows <= N && columns <= N && rows * columns > 1);
		}
	assert_false(hct_idct_shape(1u << 31, 2));
	assert_false(hct_idct_shape(2, 1u << 31));
}

static void test_choice(void **state)
{
	(void)state;
	assert_ptr_equal(hct_idct_find(HCT_SIMD_SCALAR), hct_idct_scalar);
#if defined __x86_64__
	assert_ptr_equal(hct_idct_find(HCT_SIMD_AVX2), hct_idct_avx2);
	assert_ptr_equal(hct_idct_find(HCT_SIMD_AVX512), hct_idct_avx512);
#endif
	for (int simd = HCT_SIMD_SCALAR; simd <= HCT_SIMD_AVX512; simd++) {
		if (!hct_simd_supported((hct_simd)simd))
			continue;
		setenv("HCT_SIMD", hct_simd_name((hct_simd)simd), 1);
		assert_ptr_equal(hct_idct_find(hct_simd_best()), hct_idct_find((hct_simd)simd));
	}
	unsetenv("HCT_SIMD");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_constants),      cmocka_unit_test(test_factor),
		cmocka_unit_test(test_shapes),         cmocka_unit_test(test_definition),
		cmocka_unit_test(test_orthonormal),    cmocka_unit_test(test_bits_stay),
		cmocka_unit_test(test_variants_agree), cmocka_unit_test(test_long_row),
		cmocka_unit_test(test_choice),
	};

	return cmocka_run_group_tests_name("idct", tests, NULL, NULL);
}
