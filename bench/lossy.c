/* Lossy coding of the matrices of a safetensors file: bits, errors and rates, in groups.
 *
 *     bench_lossy [OPTION]... FILE.safetensors [GROUP]...
 *
 *     --dtype f32|bf16|f16   round the F32 tensors of the file first
 *     --rounds N             rounds of encoding of which the best counts (3); decoding has 5 N
 *     --quick                less of everything
 *     --peers ROWS.json      rows of other quantisers, for the group peers
 *     --json OUT.json        keep the rows of all groups
 *     --write OUT            keep the matrices, as a safetensors file
 *
 * Sizes are of whole .hct files that hold nothing but the matrices; errors are of the decoded file
 * against the source, in double; rates count CPU time of one thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "groups.h"

static const struct {
	const char *name;
	bench_group *run;
} groups[] = {{"frontier", group_frontier}, {"peers", group_peers},
	      {"gaussian", group_gaussian}, {"effort", group_effort},
	      {"layers", group_layers},     {"transforms", group_transforms},
	      {"tiles", group_tiles},       {"dct", group_dct},
	      {"spectral", group_spectral}, {"mixed", group_mixed},
	      {"encoders", group_encoders}, {"lowrank", group_lowrank},
	      {"scaling", group_scaling}};

static cJSON *read_json(const char *path)
{
	FILE *f = fopen(path, "rb");
	char *text = bench_alloc(1 << 20, 1);
	size_t n = f ? fread(text, 1, (1 << 20) - 1, f) : 0;
	cJSON *json;

	if (f)
		fclose(f);
	text[n] = 0;
	json = cJSON_Parse(text);
	free(text);
	if (!cJSON_IsArray(json))
		bench_die(path, NULL);
	return json;
}

static void write_json(const cJSON *rows, const char *path)
{
	char *text = cJSON_Print(rows);
	FILE *f = fopen(path, "wb");

	if (!text || !f || fputs(text, f) < 0 || fputc('\n', f) < 0 || fclose(f))
		bench_die(path, NULL);
	cJSON_free(text);
}

static void run_group(struct bench *b, const char *name)
{
	for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
		if (!strcmp(name, groups[i].name)) {
			groups[i].run(b);
			return;
		}
	fprintf(stderr, "bench: no group of that name: %s\n", name);
	exit(2);
}

static const char *dtype_of(const char *word)
{
	if (!strcasecmp(word, "bf16"))
		return "BF16";
	if (!strcasecmp(word, "f16"))
		return "F16";
	if (strcasecmp(word, "f32"))
		bench_die("--dtype is f32, bf16 or f16", NULL);
	return NULL;
}

int main(int argc, char **argv)
{
	const char *json = NULL, *write_to = NULL, *path = NULL;
	struct model file = {0}, matrices = {0};
	struct bench b = {.rounds = 3};
	cJSON *peers = NULL;
	int i;

	for (i = 1; i < argc && !strncmp(argv[i], "--", 2); i++) {
		if (!strcmp(argv[i], "--quick"))
			b.quick = b.rounds = 1;
		else if (i + 1 == argc)
			break;
		else if (!strcmp(argv[i], "--dtype"))
			b.dtype = dtype_of(argv[++i]);
		else if (!strcmp(argv[i], "--rounds"))
			b.rounds = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--peers"))
			b.peers = peers = read_json(argv[++i]);
		else if (!strcmp(argv[i], "--json"))
			json = argv[++i];
		else if (!strcmp(argv[i], "--write"))
			write_to = argv[++i];
		else
			break;
	}
	path = i < argc && strncmp(argv[i], "--", 2) ? argv[i++] : NULL;
	if (!path || b.rounds < 1)
		bench_die("usage: bench_lossy [--dtype f32|bf16|f16] [--rounds N] [--quick] "
			  "[--peers ROWS.json] [--json OUT.json] [--write OUT] FILE.safetensors "
			  "[GROUP]...",
			  NULL);
	b.rows = cJSON_CreateArray();
	model_load(path, &file);
	model_select(&file, b.dtype, 1, &matrices);
	model_free(&file);
	b.model = &matrices;
	if (write_to)
		model_save(&matrices, write_to);
	for (; i < argc; i++)
		run_group(&b, argv[i]);
	if (json)
		write_json(b.rows, json);
	cJSON_Delete(b.rows);
	cJSON_Delete(peers);
	model_free(&matrices);
	return 0;
}
