/* Lossless coding of a safetensors file: whole-file ratio, encode and decode rates on one
 * core, for each instruction set, and the same bytes through zstd.
 *
 *     bench_lossless FILE.safetensors [--dtype bf16|f16|f32] [--repeat N] [--write OUT]
 *
 * F32 tensors are rounded to nearest even when another dtype is asked for.  Rates are bytes of
 * tensor data a second of CPU time, best of N; the ratio is bytes of the source file over bytes
 * of the .hct file, index included.  --write keeps the rounded file, so that other programs can be
 * measured on the same bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "codec/hct.h"
#include "model.h"
#include "trial.h"

/* What the machine does at the moment, to hold the rates above against. */
static void memcpy_row(const struct model *m, int repeat)
{
	size_t n = m->length - m->st.header_len;
	uint8_t *out = bench_alloc(n, 1);
	double best = 1e9;

	for (int r = 0; r < repeat; r++) {
		double t = bench_now();

		memcpy(out, m->bytes + m->st.header_len, n);
		t = bench_now() - t;
		best = t < best ? t : best;
	}
	printf("  %-28s %8s %10s %10.2f\n", "memcpy", "", "", 1e-9 * (double)n / best);
	free(out);
}

static void zstd_row(const struct model *m, unsigned stride, int level, int repeat)
{
	size_t n = m->length - m->st.header_len, room = ZSTD_compressBound(n), coded;
	uint8_t *plain = bench_alloc(n, 1), *out = bench_alloc(room, 1), *back = bench_alloc(n, 1),
		*shuffled = bench_alloc(n, 1);
	const uint8_t *data = m->bytes + m->st.header_len;
	double t = bench_now(), best = 1e9, encode;

	for (unsigned j = 0; j < stride; j++)
		for (size_t i = 0; i < n / stride; i++)
			shuffled[j * (n / stride) + i] = data[i * stride + j];
	coded = ZSTD_compress(out, room, shuffled, n / stride * stride, level);
	encode = bench_now() - t;
	for (int r = 0; r < repeat; r++) {
		t = bench_now();
		ZSTD_decompress(back, n, out, coded);
		for (unsigned j = 0; j < stride && stride > 1; j++)
			for (size_t i = 0; i < n / stride; i++)
				plain[i * stride + j] = back[j * (n / stride) + i];
		t = bench_now() - t;
		best = t < best ? t : best;
	}
	if (memcmp(stride > 1 ? plain : back, data, n / stride * stride))
		bench_die("zstd differs", NULL);
	printf("  %-28s %8.4f %10.0f %10.2f\n", stride > 1 ? "zstd -3, bytes shuffled" : "zstd -3",
	       (double)m->length / (double)(coded + m->st.header_len), 1e-6 * (double)n / encode,
	       1e-9 * (double)n / best);
	free(plain);
	free(out);
	free(back);
	free(shuffled);
}

/* The rows of one instruction set. */
static void coder_rows(const struct model *m, hct_simd simd, int repeat)
{
	double data = (double)(m->length - m->st.header_len);
	struct trial t;
	char name[64];

	trial_run(m, NULL, simd, 3, &t);
	if (!t.identical)
		bench_die("decoded bytes differ", NULL);
	snprintf(name, sizeof name, "hct %s", hct_simd_name(simd));
	printf("  %-28s %8.4f %10.0f %10.2f\n", name, (double)m->length / (double)t.file_bytes,
	       1e-6 * data / t.encode_seconds, 1e-9 * data / trial_decode_codec(&t, simd, repeat));
	printf("  %-28s %8s %10s %10.2f\n", "  with pread and checksum", "", "",
	       1e-9 * data / trial_decode_reader(&t, simd, repeat));
	trial_free(&t);
}

int main(int argc, char **argv)
{
	const char *path = NULL, *dtype = NULL, *write_to = NULL;
	struct model source = {0}, model;
	int repeat = 15;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--dtype") && i + 1 < argc)
			dtype = argv[++i];
		else if (!strcmp(argv[i], "--repeat") && i + 1 < argc)
			repeat = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--write") && i + 1 < argc)
			write_to = argv[++i];
		else
			path = argv[i];
	}
	if (!path)
		bench_die("usage: bench_lossless FILE.safetensors [--dtype bf16|f16|f32] [--repeat "
			  "N]",
			  NULL);
	model_load(path, &source);
	model = source;
	if (dtype && !strcmp(dtype, "bf16"))
		model_select(&source, "BF16", 0, &model);
	else if (dtype && !strcmp(dtype, "f16"))
		model_select(&source, "F16", 0, &model);
	if (write_to)
		model_save(&model, write_to);
	printf("%s as %s, %zu bytes, one core\n",
	       strrchr(path, '/') ? strrchr(path, '/') + 1 : path, dtype ? dtype : "it is",
	       model.length);
	printf("  %-28s %8s %10s %10s\n", "", "ratio", "enc MB/s", "dec GB/s");
	for (int s = HCT_SIMD_AVX512; s >= HCT_SIMD_SCALAR; s--)
		if (hct_simd_supported((hct_simd)s))
			coder_rows(&model, (hct_simd)s, repeat);
	memcpy_row(&model, repeat);
	zstd_row(&model, 1, 3, 5);
	zstd_row(&model, dtype && !strcmp(dtype, "f32") ? 4 : dtype ? 2 : 4, 3, 5);
	return 0;
}
