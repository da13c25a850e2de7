/* The encoders of the method, topk, mixed and int4: what they promise, and what they refuse. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lossy.h"

static const hct_dtype dtypes[] = {HCT_DTYPE_BF16,        HCT_DTYPE_F16,        HCT_DTYPE_F32,
				   HCT_DTYPE_F64,         HCT_DTYPE_F8_E4M3,    HCT_DTYPE_F8_E5M2,
				   HCT_DTYPE_F8_E4M3FNUZ, HCT_DTYPE_F8_E5M2FNUZ};

static struct hct_goal goal_of(enum hct_method method, double retention, double ratio)
{
	return (struct hct_goal){.relative_squared_error = .01,
				 .method = method,
				 .retention = retention,
				 .fp16_ratio = ratio};
}

/* D(r) of DESIGN: what dropping all but the largest coefficients of Gaussian data leaves. */
static double dropped_energy(double retention)
{
	double low = 0, high = 8, t;

	for (unsigned i = 0; i < 60; i++) {
		t = (low + high) / 2;
		if (erfc(t / sqrt(2)) > retention)
			low = t;
		else
			high = t;
	}
	return 1 - retention - 2 * low * exp(-low * low / 2) / sqrt(2 * acos(-1));
}

static double entropy(double p)
{
	return p <= 0 || p >= 1 ? 0 : -p * log2(p) - (1 - p) * log2(1 - p);
}

static void test_topk(void **state)
{
	static const double retentions[] = {.3, .5, .7, .9, 1};
	struct lossy_matrix m = lossy_gaussian(HCT_DTYPE_F32, 512, 512);
	double before = 1;

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		double r = retentions[i], d = dropped_energy(r);
		struct hct_goal goal = goal_of(HCT_METHOD_TOPK, r, 0);
		struct lossy_result out = lossy_code(&m, &goal, HCT_SIMD_AUTO);

		assert_string_equal(out.info.codec, "coef");
		assert_true(out.info.tile_rows * out.info.tile_columns > 1);
		assert_true(fabs(out.kept / (512. * 512) - r) < .005);
		/* INT4 adds less than 1% of the energy */
		assert_true(out.error > d && out.error < d + .01);
		assert_true(out.error < before);
		before = out.error;
		assert_true(fabs(out.error - out.info.relative_squared_error) < .02 * out.error);
		/* 4.5 bits of each kept one, and a mask that costs little more than its entropy */
		r = out.kept / (512. * 512);
		assert_true(fabs(out.bits - (4.5 * r + entropy(r))) < .025);
		assert_true(fabs(out.bits - out.info.bits) < .02);
	}
	lossy_free(&m);
}

static void test_mixed(void **state)
{
	struct lossy_matrix m = lossy_gaussian(HCT_DTYPE_BF16, 300, 320);
	struct hct_goal goal = goal_of(HCT_METHOD_TOPK, .6, 0);
	struct lossy_result topk = lossy_code(&m, &goal, HCT_SIMD_AUTO);
	double before = topk.error;

	(void)state;
	for (unsigned ratio = 0; ratio <= 100; ratio += 20) {
		struct lossy_result out;

		goal = goal_of(HCT_METHOD_MIXED, .6, ratio / 100.);
		out = lossy_code(&m, &goal, HCT_SIMD_AUTO);
		assert_true(fabs(out.halves - ratio / 100. * out.kept) < .01 * out.kept);
		/* those of highest energy leave INT4 the smaller half of the error */
		assert_true(ratio ? out.error < before : out.error == before);
		before = out.error;
	}
	assert_true(before < 1.02 * dropped_energy(.6));
	lossy_free(&m);
}

static void test_plain_int4(void **state)
{
	struct lossy_matrix m = lossy_gaussian(HCT_DTYPE_F32, 256, 512);
	struct hct_goal goal = goal_of(HCT_METHOD_INT4, 0, 0);
	struct lossy_result out = lossy_code(&m, &goal, HCT_SIMD_AUTO);

	(void)state;
	assert_int_equal(out.info.tile_rows * out.info.tile_columns, 1);
	assert_true(out.error > .0060 && out.error < .0070);
	assert_true(out.bits >= 4.5 && out.bits < 4.505);
	assert_true(out.kept == 256 * 512 && out.halves == 0);
	lossy_free(&m);
}

/* Smooth matrices keep their energy in few coefficients; transforms are obeyed. */
static void test_transform(void **state)
{
	struct lossy_matrix m = lossy_gaussian(HCT_DTYPE_F32, 256, 256);
	struct hct_goal goal = goal_of(HCT_METHOD_TOPK, .3, 0);
	struct lossy_result dct, none;

	(void)state;
	for (size_t i = 0; i < 256 * 256; i++)
		m.values[i] = (float)(sin((double)(i / 256) / 19) * cos((double)(i % 256) / 23) +
				      .01 * lossy_gauss());
	lossy_narrow(&m);
	dct = lossy_code(&m, &goal, HCT_SIMD_AUTO);
	goal.transform = HCT_TRANSFORM_NONE;
	none = lossy_code(&m, &goal, HCT_SIMD_AUTO);
	assert_int_equal(none.info.tile_rows * none.info.tile_columns, 1);
	assert_true(dct.error < none.error / 10);
	lossy_free(&m);
}

/* Any scale, and outliers. */
static void test_scales(void **state)
{
	struct lossy_matrix m = lossy_gaussian(HCT_DTYPE_F32, 64, 64);
	struct hct_goal goal = goal_of(HCT_METHOD_INT4, 0, 0);
	double error = lossy_code(&m, &goal, HCT_SIMD_AUTO).error;

	(void)state;
	for (int e = -72; e <= 48; e += 12) {
		struct lossy_matrix scaled = lossy_copy(&m, ldexp(1, e));

		assert_true(fabs(lossy_code(&scaled, &goal, HCT_SIMD_AUTO).error / error - 1) <
			    .01);
		lossy_free(&scaled);
	}
	m.values[77] = 30000;
	lossy_narrow(&m);
	assert_true(lossy_code(&m, &goal, HCT_SIMD_AUTO).error < .01);
	lossy_free(&m);
}

/* What cannot be coded is lossless, and a goal out of range an error. */
static void test_refused(void **state)
{
	struct lossy_matrix m = lossy_gaussian(HCT_DTYPE_F32, 64, 64);
	struct hct_goal goal = goal_of(HCT_METHOD_TOPK, .7, 0);
	const struct hct_goal bad[] = {
		goal_of(HCT_METHOD_TOPK, 0, 0),     goal_of(HCT_METHOD_TOPK, 1.01, 0),
		goal_of(HCT_METHOD_TOPK, NAN, 0),   goal_of(HCT_METHOD_MIXED, .7, -.1),
		goal_of(HCT_METHOD_MIXED, .7, 1.1), goal_of(HCT_METHOD_MIXED, 0, .1),
		goal_of((enum hct_method)6, .7, .1)};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(lossy_refused(&m, &bad[i]), HCT_ERR_ARGUMENT);
	m.tensor.rank = 1;
	lossy_expect_lossless(&m, &goal, "it is no matrix");
	m.tensor.rank = 2;
	m.values[5] = NAN;
	lossy_narrow(&m);
	lossy_expect_lossless(&m, &goal, "it has NaN or infinity");
	memset(m.values, 0, 64 * 64 * sizeof(float));
	lossy_narrow(&m);
	lossy_expect_lossless(&m, &goal, "it is zero");
	lossy_free(&m);
	m = lossy_gaussian(HCT_DTYPE_F32, 31, 33);
	lossy_expect_lossless(&m, &goal, "it is too small");
	lossy_free(&m);
	/* four different numbers take 2 bits without loss */
	m = lossy_gaussian(HCT_DTYPE_F32, 128, 128);
	for (size_t i = 0; i < 128 * 128; i++)
		m.values[i] = (float)(1 + lossy_below(4));
	lossy_narrow(&m);
	lossy_expect_lossless(&m, &goal, "lossless is no larger");
	lossy_free(&m);
}

/* Odd shapes, all dtypes and settings: what is coded is decoded, and is what is said of it. */
static void test_any(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 150; kind++) {
		struct hct_goal goal =
			goal_of(HCT_METHOD_TOPK, .05 + kind % 20 * .05, kind % 7 / 6.);
		struct lossy_matrix m;
		uint32_t rows, columns;

		lossy_seed = kind;
		goal.method = kind % 3 == 0   ? HCT_METHOD_TOPK
			      : kind % 3 == 1 ? HCT_METHOD_MIXED
					      : HCT_METHOD_INT4;
		goal.effort = kind % 10;
		goal.transform = (enum hct_transform)(kind / 3 % 3);
		rows = 1 + lossy_below(kind % 4 ? 200 : 2000);
		columns = kind % 10 == 9 ? 70000 + lossy_below(100000) : 1 + lossy_below(400);
		rows = columns > 1000 ? 1 + lossy_below(5) : rows;
		columns = kind % 2 ? (columns + 7) / 8 * 8 : columns;
		m = lossy_gaussian(dtypes[kind % 8], rows, columns);
		lossy_code(&m, &goal, HCT_SIMD_AUTO);
		lossy_free(&m);
	}
}

/* The file does not depend on the machine's instruction set. */
static void test_same_bytes(void **state)
{
	struct lossy_matrix m = lossy_gaussian(HCT_DTYPE_BF16, 256, 192);

	(void)state;
	for (unsigned method = HCT_METHOD_TOPK; method <= HCT_METHOD_INT4; method++) {
		struct hct_goal goal = goal_of((enum hct_method)method, .6, .2);
		uint64_t hash = lossy_code(&m, &goal, HCT_SIMD_SCALAR).hash;

		if (method == HCT_METHOD_SVD)
			continue;
		for (int simd = HCT_SIMD_AVX2; simd <= HCT_SIMD_AVX512; simd++)
			if (hct_simd_supported((hct_simd)simd))
				assert_true(lossy_code(&m, &goal, (hct_simd)simd).hash == hash);
	}
	lossy_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_topk),       cmocka_unit_test(test_mixed),
		cmocka_unit_test(test_plain_int4), cmocka_unit_test(test_transform),
		cmocka_unit_test(test_scales),     cmocka_unit_test(test_refused),
		cmocka_unit_test(test_any),        cmocka_unit_test(test_same_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
