/* Lossy coding of tensors that are not as weights are: extreme, constant, sparse, empty.  They
 * reach the error that was asked for, or are lossless and say why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "codec/tcq.h"
#include "tcq_measure.h"

/* Every dtype --------------------------------------------------------------------------- */

static void every_dtype(void **state)
{
	(void)state;
	measure_seed = 20;
	for (int dtype = 0; dtype < HCT_DTYPE_COUNT; dtype++) {
		struct hct_goal goal = goal_of(D70);
		struct tensor t;
		struct outcome o;

		if (!hct_tcq_has_dtype(dtype))
			continue;
		t = tensor_of(dtype, 256, 512);
		for (size_t i = 0; i < t.n; i++)
			tensor_set(&t, i, measure_gaussian());
		o = measure(&t, &goal, HCT_SIMD_AUTO);
		/* Where decoded values fall back onto the source's, the error is less. */
		assert_false(o.failed);
		assert_true(o.error <= 1.015 * D70 && o.error > .75 * D70);
		tensor_free(&t);
	}
}

/* Tensors that are not lossy, and say why --------------------------------------------------- */

static void expect_lossless(struct tensor *t, double error, const char *why)
{
	struct hct_goal goal = goal_of(error);
	struct outcome o;

	for (goal.layers = 1; goal.layers <= 3; goal.layers += 2) {
		o = measure(t, &goal, HCT_SIMD_AUTO);
		assert_int_equal(o.failed, HCT_OK);
		assert_string_not_equal(o.plan.codec, "tcq");
		assert_non_null(o.plan.why);
		if (why)
			assert_string_equal(o.plan.why, why);
		assert_int_equal(o.coding.layers, 1);
		assert_true(o.error == 0 && o.recorded == 0);
	}
	tensor_free(t);
}

#define OUT_OF_RANGE "its values are out of range"

/* Of a number in double that is neither 0 nor infinite nothing else is said. */
static void what_is_out_of_range(void **state)
{
	static const double scales[] = {1e-300, 1e-60, 1e60, 1e300};
	struct tensor t;

	(void)state;
	measure_seed = 23;
	for (unsigned i = 0; i < 4; i++)
		for (unsigned literal = 0; literal < 2; literal++) {
			struct hct_goal goal = goal_of(D70);
			struct outcome o;

			goal.method = literal ? HCT_METHOD_INT4 : HCT_METHOD_AUTO;
			t = tensor_of(HCT_DTYPE_F64, 100, 100);
			for (size_t j = 0; j < t.n; j++)
				tensor_set(&t, j, scales[i] * measure_gaussian());
			o = measure(&t, &goal, HCT_SIMD_AUTO);
			assert_non_null(o.plan.why);
			assert_string_equal(o.plan.why, OUT_OF_RANGE);
			tensor_set(&t, 7, i % 2 ? NAN : INFINITY);
			o = measure(&t, &goal, HCT_SIMD_AUTO);
			assert_string_equal(o.plan.why, "it has NaN or infinity");
			memset(t.data, 0, t.n * sizeof(double));
			tensor_set(&t, 8, -0.);
			o = measure(&t, &goal, HCT_SIMD_AUTO);
			assert_string_equal(o.plan.why, "it is zero");
			tensor_free(&t);
		}
	t = tensor_of(HCT_DTYPE_F32, 100, 100);
	for (size_t i = 0; i < t.n; i++)
		tensor_set(&t, i, 1e37 * measure_uniform());
	expect_lossless(&t, D70, OUT_OF_RANGE);
}

static void what_stays_lossless(void **state)
{
	struct tensor t;

	(void)state;
	measure_seed = 21;
	t = tensor_of(HCT_DTYPE_F32, 100, 100);
	fill_gaussian(&t);
	tensor_set(&t, 9999, NAN);
	expect_lossless(&t, D70, "it has NaN or infinity");
	t = tensor_of(HCT_DTYPE_BF16, 100, 100);
	fill_gaussian(&t);
	memcpy(t.data + 2 * 77, "\x80\xff", 2); /* -infinity */
	expect_lossless(&t, D70, "it has NaN or infinity");
	t = tensor_of(HCT_DTYPE_F16, 100, 100);
	expect_lossless(&t, D70, "it is zero");
	t = tensor_of(HCT_DTYPE_F32, 100, 100);
	for (size_t i = 0; i < t.n; i++)
		tensor_set(&t, i, 1e-41 * measure_gaussian());
	expect_lossless(&t, D70, NULL);
	t = tensor_of(HCT_DTYPE_F32, 100, 100);
	for (size_t i = 0; i < t.n; i++)
		tensor_set(&t, i, measure_uniform() < .5 ? 3.4028234e38 : -3.4028234e38);
	expect_lossless(&t, D70, OUT_OF_RANGE);
	t = tensor_of(HCT_DTYPE_I16, 100, 100);
	fill_gaussian(&(struct tensor){.dtype = HCT_DTYPE_BF16, .n = t.n, .data = t.data});
	expect_lossless(&t, D70, "its dtype");
	t = tensor_of(HCT_DTYPE_BF16, 100, 100);
	fill_gaussian(&t);
	expect_lossless(&t, 4e-6, "its dtype is too coarse for that error");
	t = tensor_of(HCT_DTYPE_F32, 100, 100);
	fill_gaussian(&t);
	expect_lossless(&t, 1e-20, NULL);
	t = tensor_of(HCT_DTYPE_F32, 1, 1);
	tensor_set(&t, 0, 1.5);
	expect_lossless(&t, D70, NULL);
	t = tensor_of_shape(HCT_DTYPE_F32, 0, NULL);
	tensor_set(&t, 0, -3);
	expect_lossless(&t, D70, NULL);
}

static void no_elements(void **state)
{
	struct tensor t = tensor_of(HCT_DTYPE_F32, 0, 1000000);
	struct hct_goal goal = goal_of(D70);
	struct outcome o = measure(&t, &goal, HCT_SIMD_AUTO);

	(void)state;
	assert_int_equal(o.failed, HCT_OK);
	assert_string_equal(o.coding.codec, "empty");
	tensor_free(&t);
}

static void goals_out_of_range(void **state)
{
	static const double errors[] = {-1e-9, 1, 1.5, INFINITY, NAN};
	struct tensor t = tensor_of(HCT_DTYPE_F32, 10, 10);
	struct hct_goal goal;

	(void)state;
	fill_gaussian(&t);
	for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
		goal = goal_of(errors[i]);
		assert_int_equal(measure(&t, &goal, HCT_SIMD_AUTO).failed, HCT_ERR_ARGUMENT);
	}
	goal = goal_of(D70);
	goal.layers = HCT_GOAL_MAX_LAYERS + 1;
	assert_int_equal(measure(&t, &goal, HCT_SIMD_AUTO).failed, HCT_ERR_ARGUMENT);
	goal = goal_of(D70);
	goal.effort = 10;
	assert_int_equal(measure(&t, &goal, HCT_SIMD_AUTO).failed, HCT_ERR_ARGUMENT);
	goal = goal_of(D70);
	goal.transform = 3;
	assert_int_equal(measure(&t, &goal, HCT_SIMD_AUTO).failed, HCT_ERR_ARGUMENT);
	goal = goal_of(0);
	assert_true(measure(&t, &goal, HCT_SIMD_AUTO).error == 0);
	tensor_free(&t);
}

/* Tensors whose error does not follow the step ------------------------------------------------ */

static void one_value(struct tensor *t)
{
	tensor_set(t, t->n / 3, 1);
}

static void one_row(struct tensor *t)
{
	size_t columns = t->shape[1];

	for (size_t i = 0; i < columns; i++)
		tensor_set(t, (t->shape[0] - 3) * columns + i, measure_gaussian());
}

static void constant(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, 1);
}

static void near_constant(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, 1 + .001 * measure_gaussian());
}

static void rank_one(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i,
			   sin(.1 * (double)(i / t->shape[1])) * cos((double)(i % t->shape[1])));
}

static void two_values(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, measure_uniform() < .5 ? -1 : 1);
}

static void outlier(struct tensor *t, double v)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, measure_gaussian());
	tensor_set(t, t->n / 3, v);
}

static void outlier_600(struct tensor *t)
{
	outlier(t, 600);
}

static void outlier_1e4(struct tensor *t)
{
	outlier(t, 1e4);
}

static void outlier_1e30(struct tensor *t)
{
	outlier(t, 1e30);
}

static void small_f8(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, 2.7e-5 * measure_gaussian());
}

static void small_f16(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, 3e-7 * measure_gaussian());
}

/* The error may be less than was asked for, never more; or the tensor is lossless. */
static void stubborn_tensors(void **state)
{
	static const struct {
		const char *name;
		void (*fill)(struct tensor *);
		hct_dtype dtype;
	} tensors[] = {
		{"one value", one_value, HCT_DTYPE_F32},
		{"one row", one_row, HCT_DTYPE_F32},
		{"constant", constant, HCT_DTYPE_F32},
		{"constant", constant, HCT_DTYPE_BF16},
		{"near constant", near_constant, HCT_DTYPE_F32},
		{"rank one", rank_one, HCT_DTYPE_F32},
		{"two values", two_values, HCT_DTYPE_F32},
		{"outlier 600", outlier_600, HCT_DTYPE_F32},
		{"outlier 1e4", outlier_1e4, HCT_DTYPE_F32},
		{"outlier 1e30", outlier_1e30, HCT_DTYPE_F32},
		{"outlier 1e30", outlier_1e30, HCT_DTYPE_F64},
		{"small F8", small_f8, HCT_DTYPE_F8_E5M2},
		{"small F16", small_f16, HCT_DTYPE_F16},
	};
	static const double errors[] = {.3, D70, .0001};
	unsigned bad = 0;

	(void)state;
	for (unsigned i = 0; i < sizeof tensors / sizeof *tensors; i++)
		for (unsigned d = 0; d < sizeof errors / sizeof *errors; d++) {
			struct tensor t = tensor_of(tensors[i].dtype, 512, 768);
			struct hct_goal goal = goal_of(errors[d]);
			struct outcome o;

			measure_seed = 22;
			tensors[i].fill(&t);
			o = measure(&t, &goal, HCT_SIMD_AUTO);
			if (o.failed || !(o.error <= 1.03 * errors[d])) {
				if (o.failed)
					print_error("%s at %g: %s\n", tensors[i].name, errors[d],
						    hct_error_string(o.failed));
				else
					complain(tensors[i].name, &o, errors[d]);
				bad++;
			}
			tensor_free(&t);
		}
	assert_int_equal(bad, 0);
}

/* Several layers where they cannot be made, or cost far more than one: there are fewer, and the
 * file is no larger for it. */
static void layers_that_do_not_pay(void **state)
{
	void (*const fills[])(struct tensor *) = {outlier_1e30, rank_one};

	(void)state;
	for (unsigned f = 0; f < 2; f++) {
		struct tensor t = tensor_of(HCT_DTYPE_F32, 256, 256);
		struct hct_goal goal = goal_of(D70);
		struct outcome one, o;

		measure_seed = 24;
		fills[f](&t);
		goal.method = HCT_METHOD_AUTO;
		one = measure(&t, &goal, HCT_SIMD_AUTO);
		for (goal.layers = 2; goal.layers <= 4; goal.layers++) {
			o = measure(&t, &goal, HCT_SIMD_AUTO);
			assert_true(o.error > 0 && o.error <= 1.01 * D70);
			assert_true(o.bits <= one.bits + .01);
			assert_int_equal(o.coding.layers, o.plan.layers);
		}
		assert_true(one.bits < .3);
		tensor_free(&t);
	}
}

/* Values that repeat --------------------------------------------------------------------------- */

static void four_values(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, .02 * floor(4 * measure_uniform()));
}

static void mostly_zero(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, measure_uniform() < .02 ? measure_gaussian() : 0);
}

static void constant_half(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, i < t->n / 2 ? measure_gaussian() : .1234567);
}

/* No larger than lossless, whatever the size and the number of layers; and where they are lossless
 * as a whole that is said. */
static void values_that_repeat(void **state)
{
	static const struct {
		const char *name;
		void (*fill)(struct tensor *);
		hct_dtype dtype;
		uint64_t rows, columns;
		int exact;
		double most; /* bits */
	} tensors[] = {
		{"constant", constant, HCT_DTYPE_F32, 300, 300, 1, .1},
		{"constant", constant, HCT_DTYPE_BF16, 2048, 1024, 1, .01},
		/* 65 chunks, more than are looked at: each is lossless, not the tensor */
		{"constant", constant, HCT_DTYPE_BF16, 2080, 4096, 0, .01},
		{"two values", two_values, HCT_DTYPE_F32, 512, 768, 1, 1.6},
		{"four values", four_values, HCT_DTYPE_BF16, 512, 768, 0, 4},
		{"mostly zero", mostly_zero, HCT_DTYPE_F32, 512, 768, 0, 1},
		{"half constant", constant_half, HCT_DTYPE_F32, 1024, 1024, 0, 1.7},
		{"one row", one_row, HCT_DTYPE_F32, 512, 768, 0, .1},
	};
	static const double errors[] = {.3, D70, .0001};

	(void)state;
	for (unsigned i = 0; i < sizeof tensors / sizeof *tensors; i++) {
		struct tensor t = tensor_of(tensors[i].dtype, tensors[i].rows, tensors[i].columns);
		struct hct_goal exact = goal_of(0);
		double least;

		measure_seed = 25;
		tensors[i].fill(&t);
		least = measure(&t, &exact, HCT_SIMD_AUTO).bits;
		for (unsigned d = 0; d < sizeof errors / sizeof *errors; d++) {
			struct hct_goal goal = goal_of(errors[d]);
			struct outcome o;

			goal.layers = d == 1 ? 3 : 1;
			o = measure(&t, &goal, HCT_SIMD_AUTO);
			if (o.failed || o.error > 1.015 * errors[d] || o.bits > least + .02 ||
			    (d == 1 && o.bits > tensors[i].most))
				fail_msg("%s at %g: error %g, %g bits, lossless %g",
					 tensors[i].name, errors[d], o.error, o.bits, least);
			if (d != 1) /* at other errors more of them are lossless, or fewer */
				continue;
			if (tensors[i].exact != (o.error == 0 && o.plan.why))
				fail_msg("%s at %g: error %g, %s", tensors[i].name, errors[d],
					 o.error, o.plan.why ? o.plan.why : "lossy");
			if (tensors[i].exact)
				assert_string_equal(o.plan.why, "lossless is no larger");
		}
		tensor_free(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_dtype),
		cmocka_unit_test(what_stays_lossless),
		cmocka_unit_test(no_elements),
		cmocka_unit_test(goals_out_of_range),
		cmocka_unit_test(stubborn_tensors),
		cmocka_unit_test(what_is_out_of_range),
		cmocka_unit_test(layers_that_do_not_pay),
		cmocka_unit_test(values_that_repeat),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
