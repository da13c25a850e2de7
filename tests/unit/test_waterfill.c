/* waterfill.h: bytes dealt out so that each gains the same everywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "writer/waterfill.h"

#define N 6

/* Items whose rate is a - slope ln D bits a weight, as a measurement at one D tells. */
static void make(struct mkhct_fill items[N])
{
	static const double weights[N] = {1e5, 2e5, 5e4, 1e6, 3e5, 1e4};
	static const double slopes[N] = {.7, .72, .3, .7, .65, .5};
	static const double measured[N] = {.01, .02, .015, .005, .01, .1};

	for (size_t i = 0; i < N; i++)
		items[i] = (struct mkhct_fill){
			.weights = weights[i],
			.lossless = weights[i] * 11 / 8,
			.slope = slopes[i],
			.measured_error = measured[i],
			.measured_bytes = weights[i] * (.2 - slopes[i] * log(measured[i])) / 8,
		};
}

static double loss(const struct mkhct_fill items[N])
{
	double sum = 0;

	for (size_t i = 0; i < N; i++)
		sum += items[i].weights * items[i].error;
	return sum;
}

static double sum_bytes(const struct mkhct_fill items[N])
{
	double sum = 0;

	for (size_t i = 0; i < N; i++)
		sum += mkhct_fill_bytes(&items[i]);
	return sum;
}

static void test_meets_the_budget(void **state)
{
	struct mkhct_fill items[N];

	(void)state;
	make(items);
	for (double bits = 1.5; bits < 8; bits += .5) {
		double bytes = 1.66e6 * bits / 8;

		assert_true(fabs(mkhct_waterfill(items, N, bytes) / bytes - 1) < 1e-6);
		assert_true(fabs(sum_bytes(items) / bytes - 1) < 1e-6);
	}
}

/* At the optimum errors are in proportion to slopes, and moving bytes from one item to another
 * makes the sum of errors larger. */
static void test_gain_is_equal(void **state)
{
	struct mkhct_fill items[N];
	double best;

	(void)state;
	make(items);
	mkhct_waterfill(items, N, 1.66e6 * 3 / 8);
	for (size_t i = 1; i < N; i++)
		assert_true(fabs(items[i].error / items[i].slope * items[0].slope / items[0].error -
				 1) < 1e-6);
	best = loss(items);
	for (size_t i = 0; i < N; i++) {
		struct mkhct_fill other[N];
		size_t k = (i + 1) % N;

		memcpy(other, items, sizeof(other));
		other[i].error *= exp(800 / (other[i].weights * other[i].slope));
		other[k].error *= exp(-800 / (other[k].weights * other[k].slope));
		assert_true(fabs(sum_bytes(other) - sum_bytes(items)) < 1);
		assert_true(loss(other) > best);
	}
}

static void test_lossless_where_it_is_cheaper(void **state)
{
	struct mkhct_fill items[N];

	(void)state;
	make(items);
	items[2].lossless = 100;     /* hardly anything */
	items[4].measured_error = 0; /* cannot be coded with loss */
	mkhct_waterfill(items, N, 1.66e6 * 5 / 8);
	assert_true(items[2].error == 0 && items[4].error == 0);
	assert_true(items[0].error > 0);
	assert_true(fabs(sum_bytes(items) / (1.66e6 * 5 / 8) - 1) < 1e-6);
}

static void test_refused_errors_are_not_given_out(void **state)
{
	struct mkhct_fill items[N];

	(void)state;
	make(items);
	items[3].refused = 1e-3;
	for (double bits = 2; bits < 9; bits++) {
		mkhct_waterfill(items, N, 1.66e6 * bits / 8);
		assert_true(items[3].error == 0 || items[3].error > 1e-3);
	}
}

/* More than everything can use goes into lossless tensors, those first that gain most. */
static void test_what_is_left_makes_tensors_lossless(void **state)
{
	struct mkhct_fill items[N];
	double all = 0;

	(void)state;
	make(items);
	for (size_t i = 0; i < N; i++) {
		items[i].refused = 1e-5;
		all += items[i].lossless;
	}
	mkhct_waterfill(items, N, .95 * all);
	assert_true(sum_bytes(items) <= .95 * all && sum_bytes(items) > .8 * all);
	mkhct_waterfill(items, N, 1.02 * all);
	for (size_t i = 0; i < N; i++)
		assert_true(items[i].error == 0);
}

static void test_too_little_gives_the_most_error(void **state)
{
	struct mkhct_fill items[N];

	(void)state;
	make(items);
	assert_true(mkhct_waterfill(items, N, 1) > 1);
	for (size_t i = 0; i < N; i++)
		assert_true(items[i].error == MKHCT_FILL_MOST);
	assert_true(mkhct_waterfill(items, 0, 1000) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_meets_the_budget),
		cmocka_unit_test(test_gain_is_equal),
		cmocka_unit_test(test_lossless_where_it_is_cheaper),
		cmocka_unit_test(test_refused_errors_are_not_given_out),
		cmocka_unit_test(test_what_is_left_makes_tensors_lossless),
		cmocka_unit_test(test_too_little_gives_the_most_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
