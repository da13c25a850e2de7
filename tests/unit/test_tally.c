/* tally.h: means that no tensor's scale decides, the worst tensor and reasons. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "writer/excuses.h"
#include "writer/tally.h"

static struct hct_tensor tensor(char *name, uint64_t elements)
{
	return (struct hct_tensor){
		.name = name, .dtype = HCT_DTYPE_F32, .elements = elements, .end = 4 * elements};
}

/* The sums of b = scale * a with an error that is orthogonal to a. */
static struct mkhct_result result(double energy, double scale, double noise)
{
	return (struct mkhct_result){.energy = energy,
				     .decoded_energy = (scale * scale + noise) * energy,
				     .error = ((1 - scale) * (1 - scale) + noise) * energy};
}

static void test_means_and_worst(void **state)
{
	struct hct_tensor huge = tensor("huge", 100), small = tensor("small", 300),
			  scaled = tensor("scaled", 600);
	struct mkhct_result r;
	struct mkhct_tally t;

	(void)state;
	mkhct_tally_begin(&t);
	assert_true(mkhct_tally_cosine(&t) == 1 && mkhct_tally_error(&t) == 0);
	r = result(1e12, 1, 1e-6);
	mkhct_tally_add(&t, &huge, 10, &r);
	r = result(1, 1, .02);
	mkhct_tally_add(&t, &small, 20, &r);
	/* The largest error, at a cosine that is better than that of small. */
	r = result(1, .8, 0);
	mkhct_tally_add(&t, &scaled, 30, &r);
	assert_true(fabs(mkhct_tally_error(&t) - (.1 * 1e-6 + .3 * .02 + .6 * .04)) < 1e-12);
	assert_true(fabs(mkhct_tally_cosine(&t) - (.1 / sqrt(1 + 1e-6) + .3 / sqrt(1.02) + .6)) <
		    1e-12);
	assert_string_equal(t.worst_name, "scaled");
	assert_true(fabs(t.worst_error - .04) < 1e-12 && fabs(t.worst - 1) < 1e-12);
	assert_int_equal(t.stored_bytes, 60);
}

static void test_excuses(void **state)
{
	static const char *const whys[] = {"w0", "w1", "w2", "w3", "w4", "w5", "w6",
					   "w7", "w8", "w9", "wa", "wb", "wc", "wd"};
	struct mkhct_result r = {.plan = {.why = "it has NaN or infinity"}};
	struct mkhct_excuses e = {.count = 0};
	char name[16], why[] = "it has NaN or infinity";

	(void)state;
	for (int i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "t%d\x1b", i);
		r.plan.why = i % 2 ? why : "it has NaN or infinity";
		mkhct_excuses_add(&e, name, &r);
	}
	assert_int_equal(e.count, 1);
	assert_int_equal(e.list[0].tensors, 5);
	assert_string_equal(e.list[0].names[0], "t0\xEF\xBF\xBD");
	assert_string_equal(e.list[0].names[2], "t2\xEF\xBF\xBD");
	/* Neither what lost something nor what was meant to be lossless is one. */
	r.error = 1;
	mkhct_excuses_add(&e, "lossy", &r);
	mkhct_excuses_add(&e, "exact", &(struct mkhct_result){.error = 0});
	assert_int_equal(e.list[0].tensors, 5);
	r.error = 0;
	for (size_t i = 0; i < sizeof(whys) / sizeof(*whys); i++) {
		r.plan.why = whys[i];
		mkhct_excuses_add(&e, "x", &r);
	}
	assert_int_equal(e.count, MKHCT_EXCUSES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_means_and_worst),
		cmocka_unit_test(test_excuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
