/* The literal coders of the method beside the quantiser. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "groups.h"
#include "noise.h"

/* D of a retention: the error that keeping the fraction r of largest coefficients of white
 * Gaussian data leaves. */
static double error_of_retention(double r)
{
	double low = 0, high = 40, t;

	for (int i = 0; i < 200; i++) { /* 2 (1 - Phi(t)) = r */
		t = (low + high) / 2;
		if (erfc(t / sqrt(2)) > r)
			low = t;
		else
			high = t;
	}
	t = low;
	return 1 - r - 2 * t * exp(-t * t / 2) / sqrt(2 * M_PI);
}

static double bits_at_error(const struct model *m, double error)
{
	struct hct_goal goal = {.relative_squared_error = error, .method = HCT_METHOD_TCQ};
	struct trial t;
	double bits;

	trial_run(m, &goal, HCT_SIMD_AUTO, 1, &t);
	bits = trial_bits_at(&t, error);
	trial_free(&t);
	return bits;
}

/* The error that the quantiser leaves with so many bits; found by trying. */
static double error_at_bits(const struct model *m, double bits)
{
	double error = .9 * pow(4, -bits), found = 0;

	for (int i = 0; i < 5; i++) {
		struct hct_goal goal = {.relative_squared_error = error < .9 ? error : .9,
					.method = HCT_METHOD_TCQ};
		double surplus;
		struct trial t;

		trial_run(m, &goal, HCT_SIMD_AUTO, 1, &t);
		surplus = trial_bits(&t) - bits;
		found = trial_error(&t) * pow(4, surplus);
		trial_free(&t);
		if (fabs(surplus) < .01)
			break;
		error = found;
	}
	return found;
}

/* A line of one method and, beside it, what the quantiser does.  Returns 0 when the method is
 * not to be had. */
static int try_method(struct bench *b, const struct model *m, const struct hct_goal *goal,
		      const char *name, const char *series, int equal_bytes)
{
	const char *why = trial_refusal(m, goal);
	struct trial t;

	if (why) {
		rows_missing(b, name, why);
		return 0;
	}
	trial_run(m, goal, HCT_SIMD_AUTO, 1, &t);
	rows_add(b, name, series, NULL, &t);
	printf(" %8.4f", bits_at_error(m, trial_error(&t)));
	if (equal_bytes)
		printf(" %11.3e", error_at_bits(m, trial_bits(&t)));
	if (goal->method == HCT_METHOD_SVD || goal->method == HCT_METHOD_AUTO)
		printf("  %zu of %zu by tcq", trial_count(&t, "tcq"), t.tensors);
	rows_end(m, &t, 0);
	trial_free(&t);
	return 1;
}

void group_spectral(struct bench *b)
{
	printf("retention: the literal coders, and tcq at the error that a retention stands for\n");
	rows_head("  tcq at that error, bits");
	for (unsigned percent = 30; percent <= 90; percent += b->quick ? 20 : 10) {
		double r = percent / 100.;
		struct hct_goal goal = {.relative_squared_error = error_of_retention(r),
					.method = HCT_METHOD_TOPK,
					.retention = r,
					.fp16_ratio = .2};
		char name[64];

		snprintf(name, sizeof name, "topk, %u%%", percent);
		try_method(b, b->model, &goal, name, "top-k of the DCT, INT4", 0);
		goal.method = HCT_METHOD_MIXED;
		snprintf(name, sizeof name, "mixed, %u%%", percent);
		try_method(b, b->model, &goal, name, "top-k, FP16 and INT4", 0);
		goal.method = HCT_METHOD_TCQ;
		snprintf(name, sizeof name, "tcq, %u%%", percent);
		try_method(b, b->model, &goal, name, "hct", 0);
	}
}

void group_mixed(struct bench *b)
{
	static const double ratios[] = {0, .05, .1, .2, .35, .5, .75, 1};

	printf("mixed precision at a retention of .70, by the share of FP16\n");
	rows_head("  tcq at that error, bits");
	for (size_t i = 0; i < sizeof ratios / sizeof *ratios; i++) {
		struct hct_goal goal = {.relative_squared_error = error_of_retention(.7),
					.method = HCT_METHOD_MIXED,
					.retention = .7,
					.fp16_ratio = ratios[i]};
		char name[64];

		snprintf(name, sizeof name, "fp16-ratio %.2f", ratios[i]);
		if (!try_method(b, b->model, &goal, name, NULL, 0))
			return;
	}
}

static const struct {
	const char *name;
	enum hct_method method;
} coders[] = {{"topk, 70%", HCT_METHOD_TOPK}, {"mixed, 70%", HCT_METHOD_MIXED},
	      {"int4", HCT_METHOD_INT4},      {"svd", HCT_METHOD_SVD},
	      {"tcq", HCT_METHOD_TCQ},        {"auto", HCT_METHOD_AUTO}};

static void try_coders(struct bench *b, const struct model *m)
{
	struct hct_goal goal = {.relative_squared_error = .0146, .retention = .7, .fp16_ratio = .2};

	printf("beside each coder: the bits of tcq at its error, and the error of tcq at its "
	       "bytes\n");
	rows_head("      bits       error");
	for (size_t i = 0; i < sizeof coders / sizeof *coders; i++) {
		goal.method = coders[i].method;
		try_method(b, m, &goal, coders[i].name, NULL, 1);
	}
}

void group_encoders(struct bench *b)
{
	try_coders(b, b->model);
}

void group_lowrank(struct bench *b)
{
	struct model m;
	float *x = noise_low_rank(1024, 1024, 32, .01);

	model_of_matrix(x, 1024, 1024, b->dtype, &m);
	free(x);
	printf("a matrix of 1024 x 1024 and rank 32, with 1%% of noise\n");
	try_coders(b, &m);
	model_free(&m);
}
