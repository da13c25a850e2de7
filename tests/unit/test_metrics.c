/* metrics.h: sums against plain long double, and what the figures say at the edges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/metrics.h"

static double noise(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (double)(int64_t)*seed * 0x1p-63;
}

static void close_to(double found, long double expected)
{
	long double scale = fabsl(expected) > 1e-300L ? fabsl(expected) : 1;

	if (!(fabsl((long double)found - expected) <= 1e-13L * scale))
		fail_msg("%.17g, expected %.17Lg", found, expected);
}

/* The definition, one pair after the other. */
static void check_against_definition(const double *a, const double *b, size_t n)
{
	struct hct_metrics m = {0};
	long double aa = 0, bb = 0, ab = 0, dd = 0;
	double max_a = 0, max_d = 0;

	for (size_t i = 0; i < n; i++) {
		double d = a[i] - b[i];

		aa += (long double)a[i] * a[i];
		bb += (long double)b[i] * b[i];
		ab += (long double)a[i] * b[i];
		dd += (long double)d * d;
		max_a = fmax(max_a, fabs(a[i]));
		max_d = fmax(max_d, fabs(d));
	}
	hct_metrics_add(&m, a, b, n);
	assert_int_equal(m.count, n);
	assert_int_equal(m.nonfinite_differ, 0);
	close_to(m.sum_aa, aa);
	close_to(m.sum_bb, bb);
	close_to(m.sum_dd, dd);
	/* The products cancel: their sum is exact to what their sizes allow. */
	assert_true(fabsl(m.sum_ab - ab) <= 1e-13L * (aa + bb));
	assert_true(m.max_abs_a == max_a);
	assert_true(m.max_abs_error == max_d);
	if (n == 0)
		return;
	close_to(hct_metrics_relative_squared_error(&m), dd / aa);
	close_to(hct_metrics_cosine(&m), (long double)m.sum_ab / sqrtl(aa * bb));
	close_to(hct_metrics_psnr_db(&m),
		 10 * log10l((long double)max_a * max_a / (dd / (long double)n)));
}

static void sums_follow_the_definition(void **state)
{
	enum { COUNT = 100003 };
	double *a = malloc(COUNT * sizeof(*a)), *b = malloc(COUNT * sizeof(*b));
	uint64_t seed = 1;

	(void)state;
	assert_non_null(a);
	assert_non_null(b);
	for (size_t i = 0; i < COUNT; i++) {
		a[i] = noise(&seed);
		b[i] = a[i] + 0.1 * noise(&seed);
	}
	/* Each length around the blocks and rows that the code uses. */
	for (size_t n = 0; n < 1100; n++)
		check_against_definition(a + n, b + n, n);
	check_against_definition(a, b, COUNT);
	/* The largest value and the largest error at each place of a row. */
	for (size_t i = 0; i < 20; i++) {
		double keep = a[i];

		a[i] = i % 2 ? 50 : -50;
		check_against_definition(a, b, 20);
		a[i] = keep;
	}
	free(a);
	free(b);
}

static void many_small_sums_do_not_drift(void **state)
{
	enum { COUNT = 1 << 16, TIMES = 256 };
	double *a = malloc(COUNT * sizeof(*a));
	struct hct_metrics m = {0};

	(void)state;
	assert_non_null(a);
	for (size_t i = 0; i < COUNT; i++)
		a[i] = 0.1;
	for (int i = 0; i < TIMES; i++)
		hct_metrics_add(&m, a, a, COUNT);
	long double expected = (long double)0.1 * 0.1 * COUNT * TIMES;
	assert_true(fabsl(m.sum_aa - expected) < 1e-12L * expected);
	free(a);
}

static void nonfinite_values(void **state)
{
	static const double a[] = {NAN, -NAN,     INFINITY, -INFINITY, 1,
				   NAN, INFINITY, 2,        INFINITY,  3};
	static const double b[] = {-NAN,     NAN,       INFINITY, -INFINITY, 1,
				   INFINITY, -INFINITY, NAN,      2,         -INFINITY};
	struct hct_metrics m = {0};

	(void)state;
	/* The first five pairs are the same. */
	hct_metrics_add(&m, a, b, 5);
	assert_int_equal(m.count, 5);
	assert_int_equal(m.nonfinite_differ, 0);
	assert_true(m.sum_aa == 1 && m.sum_bb == 1 && m.sum_ab == 1 && m.sum_dd == 0);
	assert_true(m.max_abs_a == 1 && m.max_abs_error == 0);
	assert_true(hct_metrics_relative_squared_error(&m) == 0);
	assert_true(hct_metrics_cosine(&m) == 1);
	assert_true(hct_metrics_psnr_db(&m) == INFINITY);
	assert_string_equal(hct_metrics_grade(&m), "Excellent");

	hct_metrics_add(&m, a + 5, b + 5, 5);
	assert_int_equal(m.count, 10);
	assert_int_equal(m.nonfinite_differ, 5);
	assert_true(m.sum_aa == 1 && m.sum_bb == 1 && m.sum_dd == 0);
	assert_true(m.max_abs_a == 1 && m.max_abs_error == 0);
	assert_true(hct_metrics_relative_squared_error(&m) == INFINITY);
	assert_true(hct_metrics_psnr_db(&m) == -INFINITY);
	assert_string_equal(hct_metrics_grade(&m), "Poor");
}

/* One such value, wherever it is in a block, leaves the other pairs counted. */
static void one_nonfinite_value_anywhere(void **state)
{
	static const double odd[] = {NAN, INFINITY, -INFINITY};
	double a[530], b[530];

	(void)state;
	for (size_t i = 0; i < 530; i++) {
		a[i] = 2;
		b[i] = 1;
	}
	for (size_t i = 0; i < 530; i++) {
		for (size_t k = 0; k < 3; k++) {
			for (int side = 0; side < 3; side++) {
				struct hct_metrics m = {0};

				a[i] = side == 1 ? 2 : odd[k];
				b[i] = side == 0 ? 1 : odd[k];
				hct_metrics_add(&m, a, b, 530);
				assert_int_equal(m.nonfinite_differ, side != 2);
				assert_true(m.sum_aa == 4 * 529 && m.sum_bb == 529);
				assert_true(m.sum_ab == 2 * 529 && m.sum_dd == 529);
				assert_true(m.max_abs_a == 2 && m.max_abs_error == 1);
			}
		}
		a[i] = 2;
		b[i] = 1;
	}
}

static void zeros(void **state)
{
	static const double zero[3] = {0, -0.0, 0}, one[3] = {0, 1, 0};
	struct hct_metrics none = {0}, both = {0}, reference = {0}, other = {0};

	(void)state;
	assert_true(hct_metrics_relative_squared_error(&none) == 0);
	assert_true(hct_metrics_cosine(&none) == 1);
	assert_true(hct_metrics_psnr_db(&none) == INFINITY);
	assert_string_equal(hct_metrics_grade(&none), "Excellent");

	hct_metrics_add(&both, zero, zero, 3);
	assert_true(hct_metrics_relative_squared_error(&both) == 0);
	assert_true(hct_metrics_cosine(&both) == 1);
	assert_true(hct_metrics_psnr_db(&both) == INFINITY);

	hct_metrics_add(&reference, zero, one, 3);
	assert_true(hct_metrics_relative_squared_error(&reference) == INFINITY);
	assert_true(hct_metrics_cosine(&reference) == 0);
	assert_true(hct_metrics_psnr_db(&reference) == -INFINITY);
	assert_string_equal(hct_metrics_grade(&reference), "Poor");

	hct_metrics_add(&other, one, zero, 3);
	assert_true(hct_metrics_relative_squared_error(&other) == 1);
	assert_true(hct_metrics_cosine(&other) == 0);
	close_to(hct_metrics_psnr_db(&other), 10 * log10l(3));
}

/* Where squares leave the range of double, no figure is NaN and none says equal. */
static void out_of_range(void **state)
{
	static const double pairs[][2] = {
		{1e300, 1.1e300},  {1e300, -1e300},   {1e-200, 2e-200},        {1e-200, 1},
		{1, 1e200},        {1e200, 1},        {DBL_MAX, -DBL_MAX},     {DBL_TRUE_MIN, 0},
		{0, DBL_TRUE_MIN}, {1e-170, -1e-170}, {DBL_MAX, DBL_MAX * .9}, {1e155, 1e-155}};

	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
		struct hct_metrics m = {0};

		hct_metrics_add(&m, &pairs[i][0], &pairs[i][1], 1);
		assert_int_equal(m.nonfinite_differ, 0);
		assert_true(hct_metrics_relative_squared_error(&m) > 0);
		assert_true(fabs(hct_metrics_cosine(&m)) <= 1);
		assert_false(isnan(hct_metrics_psnr_db(&m)));
		assert_true(hct_metrics_psnr_db(&m) < INFINITY);
	}
	for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
		struct hct_metrics m = {0};

		hct_metrics_add(&m, pairs[i], pairs[i], 2);
		assert_true(hct_metrics_relative_squared_error(&m) == 0);
		assert_true(hct_metrics_cosine(&m) == 1);
		assert_true(hct_metrics_psnr_db(&m) == INFINITY);
	}
}

/* Figures do not depend on the scale of both arrays, wherever in double it is, nor on what is
 * nothing beside them. */
static void any_scale(void **state)
{
	enum { COUNT = 2000 };
	double a[COUNT + 4] = {0}, b[COUNT + 4] = {0};
	struct hct_metrics one = {0};

	(void)state;
	for (int power = -1000; power <= 1020; power += 10) {
		uint64_t seed = 5;
		struct hct_metrics m = {0}, merged = {0}, part = {0};

		for (size_t i = 0; i < COUNT; i++) {
			a[i] = ldexp(noise(&seed), power);
			b[i] = a[i] + ldexp(.1 * noise(&seed), power);
		}
		b[COUNT] = power > 0 ? 1e-6 : 0;
		hct_metrics_add(&m, a, b, COUNT + 4);
		if (power == -1000)
			one = m;
		close_to(hct_metrics_relative_squared_error(&m),
			 hct_metrics_relative_squared_error(&one));
		close_to(hct_metrics_cosine(&m), hct_metrics_cosine(&one));
		assert_true(fabs(hct_metrics_psnr_db(&m) - hct_metrics_psnr_db(&one)) < 1e-9);
		assert_true(m.max_abs_error == ldexp(one.max_abs_error, power + 1000));
		/* Parts of other levels, in either order. */
		hct_metrics_add(&part, b + COUNT, b + COUNT, 4);
		hct_metrics_merge(&merged, &part);
		hct_metrics_merge(&merged, &m);
		hct_metrics_merge(&merged, &part);
		assert_int_equal(merged.level, m.level);
		close_to(hct_metrics_cosine(&merged), hct_metrics_cosine(&one));
	}
}

/* A difference that is lost beside what is equal still is one. */
static void small_beside_large(void **state)
{
	static const double a[] = {1e300, 1e-200}, b[] = {1e300, 2e-200};
	struct hct_metrics m = {0}, huge = {0}, usual = {0};
	double x = 1e300, y = 3, z = 4;

	(void)state;
	hct_metrics_add(&m, a, b, 2);
	assert_true(hct_metrics_relative_squared_error(&m) > 0);
	assert_true(m.max_abs_error == 1e-200);
	assert_true(hct_metrics_psnr_db(&m) < INFINITY);
	hct_metrics_add(&huge, &x, &x, 1);
	hct_metrics_add(&usual, &y, &z, 1);
	hct_metrics_merge(&usual, &huge);
	assert_true(hct_metrics_relative_squared_error(&usual) > 0);
	assert_true(hct_metrics_relative_squared_error(&usual) < 1e-300);
}

static void cosines_as_text(void **state)
{
	static const struct {
		double cosine;
		const char *text;
	} table[] = {{.99270123, "0.99270"}, {.9999977, "0.9999977"}, {1 - 2e-9, "0.9999999980"},
		     {1, "0.999999999999"},  {0, "0.00000"},          {-1, "-1.00000"}};
	char text[HCT_COSINE_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
		assert_string_equal(hct_metrics_cosine_text(table[i].cosine, 5, text),
				    table[i].text);
}

static void cosine_stays_within_one(void **state)
{
	uint64_t seed = 3;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		struct hct_metrics m = {0};
		double a[7], b[7], factor = 1 + fabs(noise(&seed));

		for (int k = 0; k < 7; k++) {
			a[k] = noise(&seed);
			b[k] = (i % 2 ? factor : -factor) * a[k];
		}
		hct_metrics_add(&m, a, b, 7);
		assert_true(fabs(hct_metrics_cosine(&m)) <= 1);
		assert_true(fabs(hct_metrics_cosine(&m)) > 1 - 1e-12);
		assert_true((hct_metrics_cosine(&m) > 0) == (i % 2));
	}
}

static void grades(void **state)
{
	static const struct {
		double cosine;
		const char *grade;
	} table[] = {
		/* Rounded to three digits. */
		{1, "Excellent"},     {.99751, "Excellent"},  {.99749, "Good"},
		{.99251, "Good"},     {.99249, "Acceptable"}, {.97951, "Acceptable"},
		{.97949, "Degraded"}, {.94951, "Degraded"},   {.94949, "Poor"},
		{0, "Poor"},          {-1, "Poor"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		/* Two unit vectors at that angle. */
		double c = table[i].cosine;
		double a[2] = {1, 0}, b[2] = {c, sqrt(1 - c * c)};
		struct hct_metrics m = {0};

		hct_metrics_add(&m, a, b, 2);
		assert_string_equal(hct_metrics_grade(&m), table[i].grade);
	}
}

static void merged_parts_are_the_whole(void **state)
{
	double a[1000], b[1000];
	struct hct_metrics whole = {0}, parts = {0};
	uint64_t seed = 7;

	(void)state;
	for (size_t i = 0; i < 1000; i++) {
		a[i] = i == 700 ? NAN : noise(&seed);
		b[i] = noise(&seed);
	}
	hct_metrics_add(&whole, a, b, 1000);
	for (size_t i = 0; i < 1000; i += 125) {
		struct hct_metrics part = {0};

		hct_metrics_add(&part, a + i, b + i, 125);
		hct_metrics_merge(&parts, &part);
	}
	assert_int_equal(parts.count, 1000);
	assert_int_equal(parts.nonfinite_differ, 1);
	close_to(parts.sum_aa, whole.sum_aa);
	close_to(parts.sum_bb, whole.sum_bb);
	assert_true(fabs(parts.sum_ab - whole.sum_ab) < 1e-12);
	close_to(parts.sum_dd, whole.sum_dd);
	assert_true(parts.max_abs_a == whole.max_abs_a);
	assert_true(parts.max_abs_error == whole.max_abs_error);
}

static void typed_arrays(void **state)
{
	enum { COUNT = 3001 };
	static uint8_t a[COUNT * 8 + 1], b[COUNT * 8 + 1];
	static double x[COUNT], y[COUNT];
	uint64_t seed = 9;

	(void)state;
	for (size_t i = 0; i < sizeof(a); i++) {
		a[i] = (uint8_t)(int)(127 * noise(&seed));
		b[i] = (uint8_t)(int)(127 * noise(&seed));
	}
	for (int t = 1; t < HCT_DTYPE_COUNT; t++) {
		for (int u = 1; u < HCT_DTYPE_COUNT; u++) {
			hct_dtype ta = (hct_dtype)t, tb = (hct_dtype)u;
			struct hct_metrics expected = {0}, found = {0};

			if (hct_dtype_is_numeric(ta) && hct_dtype_is_numeric(tb)) {
				hct_dtype_to_double(ta, a + 1, COUNT, x);
				hct_dtype_to_double(tb, b + 1, COUNT, y);
				hct_metrics_add(&expected, x, y, COUNT);
			}
			hct_metrics_add_typed(&found, ta, a + 1, tb, b + 1, COUNT);
			assert_int_equal(found.count, expected.count);
			assert_int_equal(found.nonfinite_differ, expected.nonfinite_differ);
			assert_memory_equal(&found.sum_aa, &expected.sum_aa, sizeof(double));
			assert_memory_equal(&found.sum_bb, &expected.sum_bb, sizeof(double));
			assert_memory_equal(&found.sum_dd, &expected.sum_dd, sizeof(double));
			assert_true(found.max_abs_error == expected.max_abs_error);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_follow_the_definition),
		cmocka_unit_test(many_small_sums_do_not_drift),
		cmocka_unit_test(nonfinite_values),
		cmocka_unit_test(one_nonfinite_value_anywhere),
		cmocka_unit_test(zeros),
		cmocka_unit_test(out_of_range),
		cmocka_unit_test(any_scale),
		cmocka_unit_test(small_beside_large),
		cmocka_unit_test(cosines_as_text),
		cmocka_unit_test(cosine_stays_within_one),
		cmocka_unit_test(grades),
		cmocka_unit_test(merged_parts_are_the_whole),
		cmocka_unit_test(typed_arrays),
	};

	return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
