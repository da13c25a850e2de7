/* How few bits at which error: the measure that the coder is built for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "groups.h"
#include "noise.h"

/* Bits a weight over the matrices of gpt2-attn: at most, and hoped for. */
static const struct bar {
	double error, bar, aim;
} bars[] = {{.0713, 1.93, 1.76}, {.0353, 2.39, 2.21}, {.0146, 2.99, 2.80},
	    {.0043, 3.84, 3.64}, {.001, 4.88, 4.66},  {.0001, 6.56, 6.32}};

static void verdict(double value, double bar, double aim)
{
	printf(" %6.2f %5.2f %s", bar, aim,
	       value <= aim   ? "aim reached"
	       : value <= bar ? "bar holds"
			      : "ABOVE THE BAR");
}

static void print_rate(const char *what, double rate, double bar, double aim)
{
	printf("    %-24s %8.0f Mw/s, bar %.0f", what, rate, bar);
	if (aim > 0)
		printf(", aim %.0f", aim);
	printf(": %s\n", aim > 0 && rate >= aim ? "aim reached"
			 : rate >= bar          ? "bar holds"
						: "BELOW THE BAR");
}

/* Of coding at the error that mkhct codes with unless told otherwise.  The bars of decoding are for
 * BF16. */
static void print_rates(const struct bench *b, const struct trial *t)
{
	int bf16 = b->dtype && !strcmp(b->dtype, "BF16");

	print_rate("encode", rows_rate(t, t->encode_seconds), 40, 150);
	if (bf16 && hct_simd_supported(HCT_SIMD_AVX512))
		print_rate("decode, AVX-512", rows_rate(t, t->decode_seconds[HCT_SIMD_AVX512]),
			   4000, 0);
	if (bf16 && hct_simd_supported(HCT_SIMD_AVX2))
		print_rate("decode, AVX2", rows_rate(t, t->decode_seconds[HCT_SIMD_AVX2]), 800, 0);
	printf("    %-24s %8.0f Mw/s\n", "with pread and checksum",
	       rows_rate(t, trial_decode_reader(t, HCT_SIMD_AUTO, 15)));
}

void group_frontier(struct bench *b)
{
	struct trial t;

	printf("rate and distortion\n");
	rows_head("    bar   aim");
	for (size_t i = 0; i < sizeof bars / sizeof *bars; i++) {
		struct hct_goal goal = {.relative_squared_error = bars[i].error};
		char name[32];

		snprintf(name, sizeof name, "hct, D = %.4g", bars[i].error);
		trial_run(b->model, &goal, HCT_SIMD_AUTO, b->rounds, &t);
		rows_add(b, name, "hct", NULL, &t);
		verdict(trial_bits(&t), bars[i].bar, bars[i].aim);
		rows_end(b->model, &t, bars[i].error);
		if (bars[i].error == .0146)
			print_rates(b, &t);
		trial_free(&t);
	}
	trial_run(b->model, NULL, HCT_SIMD_AUTO, 1, &t);
	rows_add(b, "hct, lossless", NULL, NULL, &t);
	rows_end(b->model, &t, 0);
	trial_free(&t);
}

static double number(const cJSON *row, const char *name)
{
	const cJSON *n = cJSON_GetObjectItem(row, name);

	return cJSON_IsNumber(n) ? n->valuedouble : 0;
}

/* Ours at the error of each peer. */
void group_peers(struct bench *b)
{
	const cJSON *peer;

	printf("at the error of others: their bits, and how many fewer ours are at equal error "
	       "(bar .5)\n");
	if (!b->peers) {
		printf("  not available: no rows of other quantisers\n");
		return;
	}
	rows_head("  theirs  fewer");
	cJSON_ArrayForEach(peer, b->peers)
	{
		struct hct_goal goal = {.relative_squared_error =
						number(peer, "relative_squared_error")};
		const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(peer, "name"));
		double bits = number(peer, "bits"), fewer;
		struct trial t;
		char title[64];

		if (!name || bits <= 0 || goal.relative_squared_error <= 0) {
			printf("  %-28s %s\n", name ? name : "?",
			       cJSON_GetStringValue(cJSON_GetObjectItem(peer, "note")));
			continue;
		}
		snprintf(title, sizeof title, "hct, as %s", name);
		trial_run(b->model, &goal, HCT_SIMD_AUTO, 1, &t);
		rows_add(b, title, "hct", NULL, &t);
		fewer = bits - trial_bits_at(&t, goal.relative_squared_error);
		printf(" %7.4f %6.3f %s", bits, fewer, fewer >= .5 ? "" : "BELOW THE BAR");
		rows_end(b->model, &t, goal.relative_squared_error);
		trial_free(&t);
	}
}

void group_gaussian(struct bench *b)
{
	static const double rates[] = {2, 2.5, 3, 4, 5};
	size_t rows = b->quick ? 512 : 4096, columns = 1024;
	float *x = noise_white(rows, columns);
	struct model m;

	model_of_matrix(x, rows, columns, NULL, &m);
	free(x);
	printf("white Gaussian data, %zu x %zu: bits above Shannon's bound\n", rows, columns);
	rows_head("    gap   bar   aim");
	for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
		for (unsigned effort = 5; effort <= (b->quick ? 5 : 9); effort += 4) {
			struct hct_goal goal = {.relative_squared_error = pow(4, -rates[i]),
						.effort = effort};
			struct trial t;
			char name[64];
			double gap;

			snprintf(name, sizeof name, "D = 4^-%g, effort %u", rates[i], effort);
			trial_run(&m, &goal, HCT_SIMD_AUTO, 1, &t);
			gap = trial_bits_at(&t, 1);
			rows_add(b, name, NULL, NULL, &t);
			printf(" %6.3f", gap);
			verdict(gap, .16, .10);
			rows_end(&m, &t, goal.relative_squared_error);
			trial_free(&t);
		}
	model_free(&m);
}

void group_effort(struct bench *b)
{
	printf("effort, at D = .0146\n");
	rows_head("");
	for (unsigned effort = 1; effort <= 9; effort++) {
		struct hct_goal goal = {.relative_squared_error = .0146, .effort = effort};
		struct trial t;
		char name[32];

		snprintf(name, sizeof name, "effort %u", effort);
		trial_run(b->model, &goal, HCT_SIMD_AUTO, effort < 7 ? b->rounds : 1, &t);
		rows_add(b, name, NULL, NULL, &t);
		rows_end(b->model, &t, .0146);
		trial_free(&t);
	}
}

/* Bits so far and error after each layer. */
static void print_layers(const struct model *m, const struct trial *t)
{
	uint64_t bytes = 0;

	for (unsigned l = 0; l + 1 < t->layers; l++) {
		struct hct_metrics sums;

		trial_measure_layers(m, t, l + 1, &sums);
		bytes += t->layer_bytes[l];
		printf("    after layer %u: %-12s %8.4f %11.3e %9.6f\n", l + 1, "",
		       8 * (double)bytes / (double)t->weights,
		       hct_metrics_relative_squared_error(&sums), hct_metrics_cosine(&sums));
	}
}

void group_layers(struct bench *b)
{
	static const double errors[] = {.0146, .001, .0001};

	printf("layers: loss, in bits for each layer beyond the first, at equal error (bar .15)\n");
	rows_head("   loss");
	for (size_t i = b->quick ? 1 : 0; i < (b->quick ? 2 : 3); i++) {
		double one = 0;

		for (unsigned n = 1; n <= HCT_GOAL_MAX_LAYERS; n++) {
			struct hct_goal goal = {.relative_squared_error = errors[i], .layers = n};
			struct trial t;
			char name[64];

			snprintf(name, sizeof name, "D = %.4g, %u layer%s", errors[i], n,
				 n > 1 ? "s" : "");
			trial_run(b->model, &goal, HCT_SIMD_AUTO, 1, &t);
			rows_add(b, name, NULL, NULL, &t);
			if (n == 1) {
				one = trial_bits_at(&t, errors[i]);
			} else {
				double loss = (trial_bits_at(&t, errors[i]) - one) / (n - 1);

				printf(" %6.3f %s", loss,
				       loss <= .15 ? "bar holds" : "ABOVE THE BAR");
			}
			rows_end(b->model, &t, errors[i]);
			print_layers(b->model, &t);
			trial_free(&t);
		}
	}
}
