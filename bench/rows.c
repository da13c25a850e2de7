#include "rows.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A target is missed when the error is larger by more than this. */
#define TOLERANCE 1.01

static void add_number(cJSON *row, const char *name, double value)
{
	if (isfinite(value))
		cJSON_AddNumberToObject(row, name, value);
	else
		cJSON_AddNullToObject(row, name);
}

void rows_head(const char *extra)
{
	printf("  %-28s %8s %11s %9s %8s", "", "bits", "error", "cosine", "enc Mw/s");
	for (int s = HCT_SIMD_AVX512; s >= HCT_SIMD_SCALAR; s--)
		if (hct_simd_supported((hct_simd)s)) {
			char head[32];

			snprintf(head, sizeof head, "dec %s", hct_simd_name((hct_simd)s));
			printf(" %10s", head);
		}
	printf("%s\n", extra);
}

void rows_add(struct bench *b, const char *name, const char *series, const char *note,
	      struct trial *t)
{
	cJSON *row = cJSON_CreateObject(), *decode;
	double best = 0;

	printf("  %-28s %8.4f %11.3e %9.6f %8.1f", name, trial_bits(t), trial_error(t),
	       hct_metrics_cosine(&t->sums), rows_rate(t, t->encode_seconds));
	cJSON_AddStringToObject(row, "name", name);
	if (series)
		cJSON_AddStringToObject(row, "series", series);
	add_number(row, "bits", trial_bits(t));
	add_number(row, "relative_squared_error", trial_error(t));
	add_number(row, "cosine", hct_metrics_cosine(&t->sums));
	add_number(row, "encode_mweights", rows_rate(t, t->encode_seconds));
	decode = cJSON_CreateObject();
	for (int s = HCT_SIMD_AVX512; s >= HCT_SIMD_SCALAR; s--) {
		double rate;

		if (!hct_simd_supported((hct_simd)s))
			continue;
		t->decode_seconds[s] = trial_decode_codec(t, (hct_simd)s, 5 * b->rounds);
		rate = rows_rate(t, t->decode_seconds[s]);
		best = rate > best ? rate : best;
		printf(" %10.0f", rate);
		add_number(decode, hct_simd_name((hct_simd)s), rate);
	}
	add_number(row, "decode_mweights", best);
	cJSON_AddItemToObject(row, "decode_by_instructions", decode);
	cJSON_AddStringToObject(row, "note", note ? note : "");
	cJSON_AddItemToArray(b->rows, row);
	fflush(stdout);
}

void rows_missing(struct bench *b, const char *name, const char *why)
{
	cJSON *row = cJSON_CreateObject();

	printf("  %-28s not available: %s\n", name, why);
	cJSON_AddStringToObject(row, "name", name);
	cJSON_AddNullToObject(row, "bits");
	cJSON_AddNullToObject(row, "relative_squared_error");
	cJSON_AddStringToObject(row, "note", why);
	cJSON_AddItemToArray(b->rows, row);
}

void rows_end(const struct model *m, const struct trial *t, double target)
{
	unsigned missed = 0, lossless = 0;
	const char *why = NULL;
	size_t worst = trial_worst(t);

	for (size_t i = 0; i < t->tensors; i++) {
		double error = hct_metrics_relative_squared_error(&t->tensor[i].sums);

		missed += target > 0 && error > TOLERANCE * target;
		if (t->tensor[i].plan.why) {
			lossless++;
			why = t->tensor[i].plan.why;
		}
	}
	if (missed)
		printf("  %u of %zu miss the error, most %s: %.3e", missed, t->tensors,
		       m->st.tensors[worst].name,
		       hct_metrics_relative_squared_error(&t->tensor[worst].sums));
	if (lossless)
		printf("  %u of %zu lossless: %s", lossless, t->tensors, why);
	printf("\n");
	fflush(stdout);
}
