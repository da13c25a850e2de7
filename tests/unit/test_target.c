/* target.h, wish.h, spectrum.h: measures of quality and what is made of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "writer/spectrum.h"
#include "writer/target.h"
#include "writer/wish.h"

static void assert_close(double a, double b, double relative)
{
	if (!(fabs(a - b) <= relative * fabs(b)))
		fail_msg("%.17g is not %.17g within %g of it", a, b, relative);
}

/* The figures of DESIGN.md. */
static void test_retention_figures(void **state)
{
	static const struct {
		double r, d; /* rounded to four places, .8 up */
	} figures[] = {{.5, .0713}, {.6, .0353}, {.7, .0146}, {.8, .0043}};

	(void)state;
	for (size_t i = 0; i < sizeof(figures) / sizeof(*figures); i++)
		assert_true(fabs(mkhct_error_of_retention(figures[i].r) - figures[i].d) < 6e-5);
	assert_true(mkhct_error_of_retention(1) == 0);
	assert_true(mkhct_error_of_retention(0) == 1);
	assert_true(mkhct_retention_of_error(0) == 1);
	assert_true(mkhct_retention_of_error(1) == 0);
	assert_true(mkhct_error_of_retention(NAN) == 1);
}

/* D(r) is the integral of x^2 phi(x) over |x| < t, here by Simpson's rule. */
static double error_by_integration(double t)
{
	int n = 20000;
	double h = t / n, sum = 0;

	for (int i = 0; i <= n; i++) {
		double x = i * h, f = x * x * exp(-x * x / 2) * sqrt(2 / M_PI);

		sum += f * (i == 0 || i == n ? 1 : i % 2 ? 4 : 2);
	}
	return sum * h / 3;
}

static void test_retention_is_the_integral(void **state)
{
	static const double ts[] = {1e-6, 1e-3, .04999, .05, .0501, .1, .3, .6745, 1, 2, 3, 5};

	(void)state;
	for (size_t i = 0; i < sizeof(ts) / sizeof(*ts); i++) {
		double r = erfc(ts[i] / sqrt(2)), d = error_by_integration(ts[i]);
		double lost = erf(ts[i] / sqrt(2));

		/* r near 1 has only so many digits of 1 - r, and D is a cube of it. */
		assert_close(mkhct_error_of_retention(r), d, 1e-9 + 4e-16 / lost * 3);
		assert_close(mkhct_retention_of_error(d), r, 1e-8);
	}
}

static void test_retention_is_monotone(void **state)
{
	double last = 1;

	(void)state;
	for (int i = 1; i <= 10000; i++) {
		double r = i / 10000., d = mkhct_error_of_retention(r);

		assert_true(d < last && d >= 0);
		assert_close(mkhct_retention_of_error(d), r, 1e-6);
		last = d;
	}
}

static void test_cosine_and_snr(void **state)
{
	(void)state;
	assert_close(mkhct_error_of_cosine(.6), .64, 1e-12);
	assert_close(mkhct_error_of_cosine(1 - 1e-12), 2e-12, 1e-3);
	assert_close(mkhct_error_of_snr(10), .1, 1e-12);
	assert_close(mkhct_error_of_snr(30), .001, 1e-12);
	/* DESIGN.md: cosines of .964, .982, .993, .998 for .5, .6, .7, .8. */
	assert_close(mkhct_retention_of_error(mkhct_error_of_cosine(.9926)), .70, 2e-3);
}

static void test_targets(void **state)
{
	struct mkhct_target t = mkhct_target_retention(.7);

	(void)state;
	assert_int_equal(t.kind, MKHCT_TARGET_ERROR);
	assert_true(t.retention == .7);
	assert_close(t.error, .0145553657, 1e-8);
	assert_int_equal(mkhct_target_retention(1).kind, MKHCT_TARGET_LOSSLESS);
	assert_int_equal(mkhct_target_error(0).kind, MKHCT_TARGET_LOSSLESS);
	assert_true(mkhct_target_lossless().error == 0 && mkhct_target_lossless().retention == 1);
	/* Whatever the command line lets through stays within (0,1). */
	assert_true(mkhct_target_retention(1e-300).error == MKHCT_ERROR_MAX);
	assert_true(mkhct_target_retention(nextafter(1, 0)).error == MKHCT_ERROR_MIN);
	t = mkhct_target_adaptive(.95);
	assert_int_equal(t.kind, MKHCT_TARGET_ADAPTIVE);
	assert_true(t.quality == .95);
	assert_close(t.error, .05, 1e-12);
}

static const struct {
	enum mkhct_wish_kind kind;
	const char *text;
	double value;
	const char *shown;
} good_wishes[] = {
	{MKHCT_WISH_RETENTION, ".7", .7, "retention 0.7"},
	{MKHCT_WISH_RETENTION, "1", 1, "retention 1"},
	{MKHCT_WISH_RETENTION, "5e-1", .5, "retention 0.5"},
	{MKHCT_WISH_COSINE, "0.999", .999, "cosine 0.999"},
	{MKHCT_WISH_SNR, "25.5", 25.5, "snr 25.5"},
	{MKHCT_WISH_SNR, "+3", 3, "snr 3"},
	{MKHCT_WISH_BPW, "1", 1, "bpw 1"},
	{MKHCT_WISH_BPW, "16", 16, "bpw 16"},
	{MKHCT_WISH_SIZE, "1.5G", 1.5 * (1 << 30), "size 1610612736"},
	{MKHCT_WISH_SIZE, "100", 100, "size 100"},
	{MKHCT_WISH_SIZE, "3K", 3072, "size 3072"},
};
static const struct {
	enum mkhct_wish_kind kind;
	const char *text;
} bad_wishes[] = {
	{MKHCT_WISH_RETENTION, "0"},
	{MKHCT_WISH_RETENTION, "1.0001"},
	{MKHCT_WISH_RETENTION, "-.5"},
	{MKHCT_WISH_RETENTION, ""},
	{MKHCT_WISH_RETENTION, "nan"},
	{MKHCT_WISH_RETENTION, "70%"},
	{MKHCT_WISH_RETENTION, " .7"},
	{MKHCT_WISH_RETENTION, ".7 "},
	{MKHCT_WISH_RETENTION, "0x1p-1"},
	{MKHCT_WISH_RETENTION, "1e-999"},
	{MKHCT_WISH_RETENTION, "e"},
	{MKHCT_WISH_RETENTION, ".5.5"},
	{MKHCT_WISH_COSINE, "1"},
	{MKHCT_WISH_COSINE, "0"},
	{MKHCT_WISH_SNR, "0"},
	{MKHCT_WISH_SNR, "151"},
	{MKHCT_WISH_SNR, "inf"},
	{MKHCT_WISH_SNR, "1e999"},
	{MKHCT_WISH_BPW, ".99"},
	{MKHCT_WISH_BPW, "16.1"},
	{MKHCT_WISH_SIZE, "0"},
	{MKHCT_WISH_SIZE, "-1"},
	{MKHCT_WISH_SIZE, "12X"},
	{MKHCT_WISH_SIZE, ""},
	{MKHCT_WISH_SIZE, "99999999999999999999G"},
};

static void test_wishes(void **state)
{
	char text[MKHCT_WISH_TEXT];
	struct mkhct_wish w;
	struct hct_diag diag;

	(void)state;
	for (size_t i = 0; i < sizeof(good_wishes) / sizeof(*good_wishes); i++) {
		assert_int_equal(mkhct_wish_parse(good_wishes[i].kind, "--x", good_wishes[i].text,
						  &w, &diag),
				 HCT_OK);
		assert_int_equal(w.kind, good_wishes[i].kind);
		assert_true(w.value == good_wishes[i].value);
		assert_string_equal(mkhct_wish_text(&w, text), good_wishes[i].shown);
	}
	for (size_t i = 0; i < sizeof(bad_wishes) / sizeof(*bad_wishes); i++) {
		if (mkhct_wish_parse(bad_wishes[i].kind, "--x", bad_wishes[i].text, &w, &diag) !=
		    HCT_ERR_ARGUMENT)
			fail_msg("'%s' was taken", bad_wishes[i].text);
		assert_memory_equal(diag.text, "--x: '", 6);
		assert_non_null(strstr(diag.text, bad_wishes[i].text));
		assert_non_null(strstr(diag.text, mkhct_wish_noun(bad_wishes[i].kind)));
	}
}

static void test_target_words(void **state)
{
	static const struct {
		const char *text;
		enum mkhct_wish_kind kind;
		double value;
	} good[] = {
		{"lossless", MKHCT_WISH_LOSSLESS, 0},
		{".9", MKHCT_WISH_RETENTION, .9},
		{"1", MKHCT_WISH_RETENTION, 1},
		{"cosine:.99", MKHCT_WISH_COSINE, .99},
		{"retention:.5", MKHCT_WISH_RETENTION, .5},
		{"snr:20", MKHCT_WISH_SNR, 20},
	};
	static const char *const bad[] = {"",       "x",        "lossless:1", "bpw:3",    "size:3K",
					  "cos:.9", "cosine:1", "retention:", "Lossless", ":.5",
					  "1.5",    "-.5",      "snr",        ".5:.5"};
	struct mkhct_wish w;
	struct hct_diag diag;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_int_equal(mkhct_wish_parse_target("--tensor", good[i].text, &w, &diag),
				 HCT_OK);
		assert_int_equal(w.kind, good[i].kind);
		assert_true(w.value == good[i].value);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (mkhct_wish_parse_target("--tensor", bad[i], &w, &diag) != HCT_ERR_ARGUMENT)
			fail_msg("'%s' was taken", bad[i]);
		assert_memory_equal(diag.text, "--tensor: '", 11);
	}
}

static void test_wish_to_target(void **state)
{
	static const struct {
		struct mkhct_wish wish;
		enum mkhct_target_kind kind;
		double error;
	} cases[] = {
		{{MKHCT_WISH_LOSSLESS, 0, 0}, MKHCT_TARGET_LOSSLESS, 0},
		{{MKHCT_WISH_RETENTION, 1, 0}, MKHCT_TARGET_LOSSLESS, 0},
		{{MKHCT_WISH_RETENTION, .5, 0}, MKHCT_TARGET_ERROR, .0713},
		{{MKHCT_WISH_COSINE, .9, 0}, MKHCT_TARGET_ERROR, .19},
		{{MKHCT_WISH_SNR, 20, 0}, MKHCT_TARGET_ERROR, .01},
		{{MKHCT_WISH_BPW, 3, 0}, MKHCT_TARGET_BUDGET, 0},
		{{MKHCT_WISH_SIZE, 3, 3}, MKHCT_TARGET_BUDGET, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct mkhct_target t = mkhct_wish_target(&cases[i].wish);

		assert_int_equal(t.kind, cases[i].kind);
		assert_close(t.error, cases[i].error, 1e-3);
		assert_int_equal(mkhct_wish_is_budget(&cases[i].wish),
				 t.kind == MKHCT_TARGET_BUDGET);
	}
	/* The retention that a cosine stands for has the same D. */
	assert_close(mkhct_error_of_retention(mkhct_wish_retention(&cases[3].wish)), .19, 1e-9);
	assert_true(mkhct_wish_retention(&cases[0].wish) == 1);
}

static double uniform(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return ((double)(*seed >> 11) + .5) / (double)(1ull << 53);
}

static double normal(uint64_t *seed)
{
	double size = sqrt(-2 * log(uniform(seed)));

	return size * cos(2 * M_PI * uniform(seed));
}

static int descending(const void *a, const void *b)
{
	float x = fabsf(*(const float *)a), y = fabsf(*(const float *)b);

	return (x < y) - (x > y);
}

/* What the histogram says against sorting all of them. */
static double retention_by_sorting(float *x, size_t n, double quality)
{
	double total = 0, sum = 0;
	size_t k = 0;

	qsort(x, n, sizeof(*x), descending);
	for (size_t i = n; i-- > 0;)
		total += (double)x[i] * x[i];
	while (k < n && sum < quality * total) {
		sum += (double)x[k] * x[k];
		k++;
	}
	return (double)k / (double)n;
}

static void test_spectrum(void **state)
{
	enum { N = 100000 };
	struct mkhct_spectrum *s = calloc(2, sizeof(*s));
	float *x = malloc(N * sizeof(*x));
	uint64_t seed = 1;

	(void)state;
	for (int kind = 0; kind < 3; kind++) {
		for (int i = 0; i < N; i++) /* white; heavy tails; few large ones */
			x[i] = (float)(kind == 0   ? normal(&seed)
				       : kind == 1 ? pow(normal(&seed), 3)
						   : normal(&seed) * (i % 50 ? .01 : 1));
		memset(s, 0, 2 * sizeof(*s));
		mkhct_spectrum_add(&s[0], x, N / 3);
		mkhct_spectrum_add(&s[1], x + N / 3, N - N / 3);
		mkhct_spectrum_merge(&s[0], &s[1]);
		for (double q = .3; q < 1; q += .137) {
			double r = mkhct_spectrum_retention(s, q);
			struct mkhct_target t = mkhct_spectrum_target(s, q);

			assert_true(fabs(r - retention_by_sorting(x, N, q)) < 2e-3);
			assert_true(t.error <= 1 - q && t.retention == r);
			/* White data: keeping r is what D(r) is about. */
			if (kind == 0)
				assert_true(fabs(mkhct_error_of_retention(r) - (1 - q)) < 3e-3);
		}
	}
	free(x);
	free(s);
}

static void test_spectrum_of_odd_data(void **state)
{
	static const float zero[4] = {0, -0.0f, 0, 0}, one[4] = {0, 0, -3, 0};
	static const float huge[2] = {3e38f, 1e-45f};
	struct mkhct_spectrum *s = calloc(1, sizeof(*s));

	(void)state;
	assert_true(mkhct_spectrum_retention(s, .9) == 1);
	mkhct_spectrum_add(s, zero, 4);
	assert_true(mkhct_spectrum_retention(s, .9) == 1);
	mkhct_spectrum_add(s, one, 4);
	assert_true(mkhct_spectrum_retention(s, .9) == .125);
	memset(s, 0, sizeof(*s));
	mkhct_spectrum_add(s, huge, 2);
	assert_true(mkhct_spectrum_retention(s, .9) == .5);
	free(s);
}

static double measured_retention(const float *x, uint64_t rows, uint64_t columns, double quality)
{
	uint64_t shape[2] = {rows, columns};
	struct hct_tensor t = {.name = (char *)"t",
			       .dtype_name = "F32",
			       .dtype = HCT_DTYPE_F32,
			       .rank = 2,
			       .shape = shape,
			       .elements = rows * columns,
			       .end = 4 * rows * columns};
	struct mkhct_spectrum *s = calloc(1, sizeof(*s));
	hct_dct *dct;
	double r;

	assert_int_equal(hct_dct_create(HCT_SIMD_AUTO, &dct), HCT_OK);
	assert_int_equal(mkhct_spectrum_measure(dct, &t, (const uint8_t *)x, s), HCT_OK);
	hct_dct_free(dct);
	r = mkhct_spectrum_retention(s, quality);
	free(s);
	return r;
}

/* Coefficients are those of tiles where shapes allow. */
static void test_spectrum_of_a_tensor(void **state)
{
	enum { N = 192 * 128 };
	float *x = malloc(N * sizeof(*x));

	(void)state;
	for (int i = 0; i < N; i++)
		x[i] = 3;
	/* A constant is one coefficient of each tile of 64 by 64 ... */
	assert_true(measured_retention(x, 192, 128, .999) == 1. / 4096);
	/* ... of 8 by 16 ... */
	assert_true(measured_retention(x, 24, 16, .999) == 1. / 128);
	/* ... of 1 by 8, and as many as there are numbers where nothing divides. */
	assert_true(measured_retention(x, 3, 8, .999) == 1. / 8);
	assert_true(measured_retention(x, 7, 9, .999) == 1);
	/* What is not finite is 0, in a tile that is otherwise as it was. */
	for (int i = 0; i < N; i++)
		x[i] = 0;
	x[0] = NAN;
	x[1] = INFINITY;
	assert_true(measured_retention(x, 7, 9, .9) == 1);
	x[2] = 1;
	assert_true(measured_retention(x, 7, 9, .9) == 1. / 63);
	free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_retention_figures),
		cmocka_unit_test(test_retention_is_the_integral),
		cmocka_unit_test(test_retention_is_monotone),
		cmocka_unit_test(test_cosine_and_snr),
		cmocka_unit_test(test_targets),
		cmocka_unit_test(test_wishes),
		cmocka_unit_test(test_target_words),
		cmocka_unit_test(test_wish_to_target),
		cmocka_unit_test(test_spectrum),
		cmocka_unit_test(test_spectrum_of_odd_data),
		cmocka_unit_test(test_spectrum_of_a_tensor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
