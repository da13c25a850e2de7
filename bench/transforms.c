/* What the transform is worth, and what it costs the decoder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "groups.h"
#include "noise.h"

#define MAX_KINDS 64
static const enum hct_transform choices[3] = {HCT_TRANSFORM_NONE, HCT_TRANSFORM_DCT,
					      HCT_TRANSFORM_AUTO};
static const char *const choice_names[3] = {"none", "dct", "auto"};

/* Tensors whose names differ in numbers only. */
struct kind {
	char name[96];
	uint64_t weights, bytes[3];
	struct hct_metrics sums[3];
	char tiles[64]; /* that auto picked */
};

/* The name without its numbers: layers.3.mlp.up is layers.mlp.up. */
static void kind_name(const char *name, char *out, size_t size)
{
	size_t n = 0;

	while (*name && n + 1 < size) {
		size_t part = strcspn(name, "./");

		if (part && strspn(name, "0123456789") >= part) {
			name += part + (name[part] != 0);
			continue;
		}
		for (size_t i = 0; i < part + (name[part] != 0) && n + 1 < size; i++)
			out[n++] = name[i];
		name += part + (name[part] != 0);
	}
	out[n] = 0;
}

static struct kind *find_kind(struct kind *kinds, size_t *count, const char *tensor)
{
	char name[sizeof kinds->name];
	size_t i = 0;

	kind_name(tensor, name, sizeof name);
	while (i < *count && strcmp(kinds[i].name, name))
		i++;
	if (i == MAX_KINDS)
		return &kinds[MAX_KINDS - 1];
	if (i == *count)
		memcpy(kinds[(*count)++].name, name, sizeof name);
	return &kinds[i];
}

static void add_tile(struct kind *k, const struct hct_plan_info *p)
{
	size_t used = strlen(k->tiles);
	char tile[32];

	if (p->tile_rows * p->tile_columns == 1)
		strcpy(tile, "none");
	else
		snprintf(tile, sizeof tile, "%ux%u", p->tile_rows, p->tile_columns);
	if (!strstr(k->tiles, tile) && used + strlen(tile) + 2 < sizeof k->tiles)
		snprintf(k->tiles + used, sizeof k->tiles - used, "%s%s", used ? " " : "", tile);
}

static void add_kinds(struct kind *kinds, size_t *count, const struct model *m,
		      const struct trial *t, unsigned choice)
{
	for (size_t i = 0; i < t->tensors; i++) {
		struct kind *k = find_kind(kinds, count, m->st.tensors[i].name);

		k->bytes[choice] += t->tensor[i].bytes;
		hct_metrics_merge(&k->sums[choice], &t->tensor[i].sums);
		if (choice == 2) {
			k->weights += m->st.tensors[i].elements;
			add_tile(k, &t->tensor[i].plan);
		}
	}
}

static void compare_transforms(struct bench *b, const struct model *m, const char *what)
{
	struct kind *kinds = calloc(MAX_KINDS, sizeof *kinds);
	size_t count = 0;

	if (!kinds)
		bench_die("out of memory", NULL);
	for (unsigned i = 0; i < 3; i++) {
		struct hct_goal goal = {.relative_squared_error = .0146, .transform = choices[i]};
		struct trial t;
		char name[64];

		snprintf(name, sizeof name, "%s, %s", what, choice_names[i]);
		trial_run(m, &goal, HCT_SIMD_AUTO, 1, &t);
		rows_add(b, name, NULL, NULL, &t);
		rows_end(m, &t, .0146);
		add_kinds(kinds, &count, m, &t, i);
		trial_free(&t);
	}
	for (size_t k = 0; count > 1 && k < count; k++) {
		printf("    %-36s %10llu weights:", kinds[k].name,
		       (unsigned long long)kinds[k].weights);
		for (unsigned i = 0; i < 3; i++)
			printf(" %s %.4f (%.2e)", choice_names[i],
			       8 * (double)kinds[k].bytes[i] / (double)kinds[k].weights,
			       hct_metrics_relative_squared_error(&kinds[k].sums[i]));
		printf("  %s\n", kinds[k].tiles);
	}
	free(kinds);
}

void group_transforms(struct bench *b)
{
	struct model m;
	float *x;

	printf("transforms, at D = .0146; by kind of tensor: bits without the file's index, and "
	       "error\n");
	rows_head("");
	compare_transforms(b, b->model, "model");
	x = noise_smooth(1024, 1024, .9, .9);
	model_of_matrix(x, 1024, 1024, b->dtype, &m);
	free(x);
	compare_transforms(b, &m, "smooth");
	model_free(&m);
}

/* Bars of decoding in million weights a second. */
static void rate_verdict(const struct trial *t, hct_simd simd, double bar)
{
	double rate;

	if (!hct_simd_supported(simd))
		return;
	rate = rows_rate(t, t->decode_seconds[simd]);
	printf("  %s %s", hct_simd_name(simd), rate >= bar ? "bar holds" : "BELOW THE BAR");
}

static void try_tile_at(struct bench *b, const struct model *m, unsigned tile_rows,
			unsigned tile_columns, double error)
{
	struct hct_goal goal = {
		.relative_squared_error = error, .effort = 9, .transform = HCT_TRANSFORM_DCT};
	int plain = tile_rows * tile_columns == 1;
	const struct hct_plan_info *p;
	struct trial t;
	char name[64];

	if (plain)
		goal.transform = HCT_TRANSFORM_NONE;
	trial_run(m, &goal, HCT_SIMD_AUTO, 1, &t);
	p = &t.tensor[0].plan;
	snprintf(name, sizeof name, "tile %ux%u, D = %.4g", tile_rows, tile_columns, error);
	rows_add(b, name, NULL, NULL, &t);
	if (!plain) {
		rate_verdict(&t, HCT_SIMD_AVX512, 1000);
		rate_verdict(&t, HCT_SIMD_AVX2, 400);
	}
	if (p->tile_rows != tile_rows || p->tile_columns != tile_columns)
		printf("  (the planner took %ux%u)", p->tile_rows, p->tile_columns);
	rows_end(m, &t, error);
	trial_free(&t);
}

/* Frees x. */
static void try_tile(struct bench *b, float *x, size_t rows, size_t columns, unsigned tile_rows,
		     unsigned tile_columns)
{
	struct model m;

	model_of_matrix(x, rows, columns, "BF16", &m);
	free(x);
	try_tile_at(b, &m, tile_rows, tile_columns, .0146);
	try_tile_at(b, &m, tile_rows, tile_columns, .001);
	model_free(&m);
}

void group_tiles(struct bench *b)
{
	size_t n = b->quick ? 512 : 2048;

	printf("decoding with tiles, BF16 out, matrices made for each, effort 9\n");
	rows_head("  bars with a tile: 1 G on AVX-512, .4 on AVX2");
	try_tile(b, noise_white(n, 1024), n, 1024, 1, 1);
	/* sides that larger tiles do not divide, which would do as well */
	try_tile(b, noise_smooth(n, 1000, 0, .9), n, 1000, 64, 1);
	try_tile(b, noise_smooth(n + 8, 1024, .9, 0), n + 8, 1024, 1, 64);
	try_tile(b, noise_tiles(n, 1024, 8), n, 1024, 8, 8);
	try_tile(b, noise_tiles(n, 1024, 16), n, 1024, 16, 16);
	try_tile(b, noise_tiles(n, 1024, 32), n, 1024, 32, 32);
	try_tile(b, noise_tiles(n, 1024, 64), n, 1024, 64, 64);
}
