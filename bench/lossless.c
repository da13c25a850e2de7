/* Lossless coding of a safetensors file: whole-file ratio, encode and decode rates on one
 * core, for each instruction set, and the same bytes through zstd.
 *
 *     bench_lossless FILE.safetensors [--dtype bf16|f16|f32] [--repeat N] [--write OUT]
 *
 * F32 tensors are rounded to nearest even when another dtype is asked for.  Rates are bytes of
 * tensor data a second of CPU time, best of N; the ratio is bytes of the source file over bytes
 * of the .hct file, index included.  --write keeps the rounded file, so that other programs can be
 * measured on the same bytes. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <zstd.h>

#include "codec/codec.h"
#include "codec/hct.h"
#include "codec/index.h"

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what, const struct hct_diag *d)
{
	fprintf(stderr, "bench_lossless: %s%s%s\n", what, d ? ": " : "", d ? d->text : "");
	exit(1);
}

/* A safetensors file in memory. */
struct model {
	uint8_t *bytes;
	size_t length;
	struct hct_safetensors st;
};

static void parse(struct model *m)
{
	struct hct_diag d;
	size_t header;

	if (m->length < 8 || hct_safetensors_header_len(m->bytes, m->length, &header, &d) ||
	    hct_safetensors_parse(m->bytes, header, m->length, &m->st, &d))
		die("not a safetensors file", &d);
}

static void load(const char *path, struct model *m)
{
	struct stat sb;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(fd, &sb))
		die(path, NULL);
	m->length = (size_t)sb.st_size;
	m->bytes = malloc(m->length + 64);
	for (size_t at = 0; at < m->length;) {
		ssize_t n = read(fd, m->bytes + at, m->length - at);

		if (n <= 0)
			die("cannot read", NULL);
		at += (size_t)n;
	}
	close(fd);
	parse(m);
}

static uint16_t to_bf16(float f)
{
	uint32_t u;

	memcpy(&u, &f, 4);
	if ((u & 0x7fffffff) > 0x7f800000) /* NaN */
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* F32 to the bits of F16, rounded to nearest even. */
static uint16_t to_f16(float f)
{
	uint32_t u, sign;
	float a;

	memcpy(&u, &f, 4);
	sign = u >> 16 & 0x8000;
	u &= 0x7fffffff;
	if (u > 0x7f800000) /* NaN */
		return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x1ff));
	if (u >= 0x477ff000) /* 65520 and above */
		return (uint16_t)(sign | 0x7c00);
	if (u >= 0x38800000) /* normal */
		return (uint16_t)(sign | ((u + 0xfff + (u >> 13 & 1) - (112u << 23)) >> 13));
	memcpy(&a, &u, 4);
	a += 0.5f; /* whose last place is that of the subnormals */
	memcpy(&u, &a, 4);
	return (uint16_t)(sign | (u - 0x3f000000));
}

/* The same model with its F32 tensors in 16 bits. */
static void convert(const struct model *in, const char *dtype, struct model *out)
{
	size_t header = 16, at;
	uint64_t pos = 0, length;
	char *text;

	for (size_t i = 0; i < in->st.count; i++)
		header += strlen(in->st.tensors[i].name) * 6 + 200 + 24 * in->st.tensors[i].rank;
	out->bytes = malloc(header + in->length + 64);
	text = (char *)out->bytes + 8;
	at = (size_t)sprintf(text, "{");
	for (size_t i = 0; i < in->st.count; i++) {
		const struct hct_tensor *t = &in->st.tensors[i];
		uint64_t n = hct_tensor_bytes(t) / (t->dtype == HCT_DTYPE_F32 ? 2 : 1);

		at += (size_t)sprintf(text + at, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[",
				      i ? "," : "", t->name,
				      t->dtype == HCT_DTYPE_F32 ? dtype : t->dtype_name);
		for (unsigned k = 0; k < t->rank; k++)
			at += (size_t)sprintf(text + at, "%s%llu", k ? "," : "",
					      (unsigned long long)t->shape[k]);
		at += (size_t)sprintf(text + at, "],\"data_offsets\":[%llu,%llu]}",
				      (unsigned long long)pos, (unsigned long long)(pos + n));
		pos += n;
	}
	at += (size_t)sprintf(text + at, "}");
	while (at % 8)
		text[at++] = ' ';
	length = at;
	memcpy(out->bytes, &length, 8);
	out->length = 8 + at + pos;
	for (size_t i = 0, to = 8 + at; i < in->st.count; i++) {
		const struct hct_tensor *t = &in->st.tensors[i];
		const uint8_t *src = in->bytes + in->st.header_len + t->begin;

		if (t->dtype != HCT_DTYPE_F32) {
			memcpy(out->bytes + to, src, hct_tensor_bytes(t));
			to += hct_tensor_bytes(t);
			continue;
		}
		for (uint64_t k = 0; k < t->elements; k++, to += 2) {
			float f;
			uint16_t h;

			memcpy(&f, src + 4 * k, 4);
			h = dtype[0] == 'B' ? to_bf16(f) : to_f16(f);
			memcpy(out->bytes + to, &h, 2);
		}
	}
	parse(out);
}

/* Compresses into an unnamed file; returns its descriptor. */
static int compress(const struct model *m, hct_simd simd, double *seconds, uint64_t *bytes)
{
	struct hct_source source = {.size = m->length};
	struct hct_encoded chunk;
	struct hct_diag d;
	hct_appender *a;
	hct_encoder *e;
	int fd = memfd_create("bench", 0);
	double start = now();

	if (fd < 0 || hct_encoder_create(simd, &e) ||
	    hct_appender_create(fd, "bench", &m->st, &a, &d))
		die("cannot start", NULL);
	for (size_t i = 0; i < m->st.count; i++) {
		const uint8_t *data = m->bytes + m->st.header_len + m->st.tensors[i].begin;
		hct_plan *p;

		if (hct_plan_create(e, &m->st.tensors[i], data, NULL, &p, &d) ||
		    hct_appender_tensor(a, i, p, &d))
			die("plan", &d);
		for (uint64_t k = 0; k < hct_plan_chunk_count(p); k++)
			if (hct_encode_chunk(e, p, k, data + k * hct_plan_chunk_bytes(p), &chunk,
					     &d) ||
			    hct_appender_chunk(a, &chunk, &d))
				die("chunk", &d);
		hct_plan_free(p);
	}
	if (hct_appender_finish(a, &source, "{}", bytes, &d))
		die("finish", &d);
	*seconds = now() - start;
	hct_appender_free(a);
	hct_encoder_free(e);
	return fd;
}

/* Decodes every chunk through the reader and compares; returns the best of n times. */
static double decode(const struct model *m, int fd, hct_simd simd, int repeat)
{
	struct hct_diag d;
	hct_decoder *dec;
	hct_reader *r;
	uint8_t *out = aligned_alloc(4096, HCT_MAX_CHUNK);
	double best = 1e9;

	if (hct_reader_open_fd(dup(fd), "bench", &r, &d) || hct_decoder_create(simd, &dec))
		die("open", &d);
	for (int i = 0; i <= repeat; i++) {
		double start = now();

		for (uint64_t k = 0; k < hct_reader_chunk_count(r); k++) {
			struct hct_chunk c;

			if (hct_reader_decode(r, dec, k, out, &d))
				die("decode", &d);
			if (i)
				continue;
			/* the first round compares, the others are timed */
			hct_reader_chunk(r, k, &c);
			if (memcmp(out, m->bytes + c.offset, c.length))
				die("decoded bytes differ", NULL);
		}
		start = now() - start;
		best = i && start < best ? start : best;
	}
	hct_decoder_free(dec);
	hct_reader_close(r);
	free(out);
	return best;
}

/* The codec alone: payloads in memory, already verified. */
static double decode_codec(const struct model *m, int fd, hct_simd simd, int repeat)
{
	struct hct_index x;
	struct hct_diag d;
	struct hct_scratch scratch = {.simd = simd, .dctx = (void *)ZSTD_createDCtx()};
	struct stat sb;
	uint8_t *out = aligned_alloc(4096, HCT_MAX_CHUNK), *file;
	double best = 1e9;

	if (fstat(fd, &sb) || hct_index_read(fd, "bench", &x, &d))
		die("index", &d);
	file = malloc((size_t)sb.st_size + HCT_PAYLOAD_PAD);
	if (pread(fd, file, (size_t)sb.st_size, 0) != sb.st_size)
		die("read", NULL);
	for (int i = 0; i < repeat; i++) {
		double start = now();

		for (size_t t = 0; t < m->st.count; t++) {
			const struct hct_tensor_record *rec = &x.tensors[t];
			const struct hct_codec *c = hct_codec_find(rec->codec);
			void *tables = NULL;
			const char *why = "";

			if (c->open_tables &&
			    c->open_tables(&x.st.tensors[t], x.params + rec->params_offset,
					   rec->params_length, &tables, &why))
				die(why, NULL);
			for (uint64_t k = 0; k < rec->chunk_count; k++) {
				struct hct_extent ext;
				uint64_t at = k * rec->chunk_bytes;
				uint64_t left = hct_tensor_bytes(&x.st.tensors[t]) - at;
				struct hct_task task = {
					.tensor = &x.st.tensors[t],
					.tables = tables,
					.offset = at,
					.length = left < rec->chunk_bytes ? left : rec->chunk_bytes,
					.layer_count = 1,
					.scratch = &scratch};

				hct_index_extent(&x, t, k, 0, &ext);
				task.end = task.length;
				task.layers[0] =
					(struct hct_payload){file + ext.offset, ext.length};
				if (hct_codec_find(ext.codec)->decode(&task, out, &why))
					die(why, NULL);
			}
			if (c->free_tables)
				c->free_tables(tables);
		}
		start = now() - start;
		best = start < best ? start : best;
	}
	ZSTD_freeDCtx((void *)scratch.dctx);
	free(scratch.bytes);
	free(out);
	free(file);
	hct_index_free(&x);
	return best;
}

/* What the machine does at the moment, to hold the rates above against. */
static void memcpy_row(const struct model *m, int repeat)
{
	size_t n = m->length - m->st.header_len;
	uint8_t *out = malloc(n);
	double best = 1e9;

	for (int r = 0; r < repeat; r++) {
		double t = now();

		memcpy(out, m->bytes + m->st.header_len, n);
		t = now() - t;
		best = t < best ? t : best;
	}
	printf("  %-28s %8s %10s %10.2f\n", "memcpy", "", "", 1e-9 * (double)n / best);
	free(out);
}

static void zstd_row(const struct model *m, unsigned stride, int level, int repeat)
{
	size_t n = m->length - m->st.header_len, room = ZSTD_compressBound(n), coded;
	uint8_t *plain = malloc(n), *out = malloc(room), *back = malloc(n), *shuffled = malloc(n);
	const uint8_t *data = m->bytes + m->st.header_len;
	double t = now(), best = 1e9, encode;

	for (unsigned j = 0; j < stride; j++)
		for (size_t i = 0; i < n / stride; i++)
			shuffled[j * (n / stride) + i] = data[i * stride + j];
	coded = ZSTD_compress(out, room, shuffled, n / stride * stride, level);
	encode = now() - t;
	for (int r = 0; r < repeat; r++) {
		t = now();
		ZSTD_decompress(back, n, out, coded);
		for (unsigned j = 0; j < stride && stride > 1; j++)
			for (size_t i = 0; i < n / stride; i++)
				plain[i * stride + j] = back[j * (n / stride) + i];
		t = now() - t;
		best = t < best ? t : best;
	}
	if (memcmp(stride > 1 ? plain : back, data, n / stride * stride))
		die("zstd differs", NULL);
	printf("  %-28s %8.4f %10.0f %10.2f\n", stride > 1 ? "zstd -3, bytes shuffled" : "zstd -3",
	       (double)m->length / (double)(coded + m->st.header_len), 1e-6 * (double)n / encode,
	       1e-9 * (double)n / best);
	free(plain);
	free(out);
	free(back);
	free(shuffled);
}

int main(int argc, char **argv)
{
	const char *path = NULL, *dtype = NULL, *write_to = NULL;
	struct model source = {0}, model;
	double seconds, data;
	int repeat = 15, fd;
	uint64_t bytes;

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
		die("usage: bench_lossless FILE.safetensors [--dtype bf16|f16|f32] [--repeat N]",
		    NULL);
	load(path, &source);
	model = source;
	if (dtype && !strcmp(dtype, "bf16"))
		convert(&source, "BF16", &model);
	else if (dtype && !strcmp(dtype, "f16"))
		convert(&source, "F16", &model);
	if (write_to) {
		FILE *f = fopen(write_to, "wb");

		if (!f || fwrite(model.bytes, 1, model.length, f) != model.length || fclose(f))
			die(write_to, NULL);
	}
	data = (double)(model.length - model.st.header_len);
	printf("%s as %s, %zu bytes, one core\n",
	       strrchr(path, '/') ? strrchr(path, '/') + 1 : path, dtype ? dtype : "it is",
	       model.length);
	printf("  %-28s %8s %10s %10s\n", "", "ratio", "enc MB/s", "dec GB/s");
	for (int s = HCT_SIMD_AVX512; s >= HCT_SIMD_SCALAR; s--) {
		double best = 1e9;
		char name[64];

		if (!hct_simd_supported((hct_simd)s))
			continue;
		for (int r = 0; r < 3; r++) {
			if (r)
				close(fd);
			fd = compress(&model, (hct_simd)s, &seconds, &bytes);
			best = seconds < best ? seconds : best;
		}
		snprintf(name, sizeof name, "hct %s", hct_simd_name((hct_simd)s));
		printf("  %-28s %8.4f %10.0f %10.2f\n", name, (double)model.length / (double)bytes,
		       1e-6 * data / best,
		       1e-9 * data / decode_codec(&model, fd, (hct_simd)s, repeat));
		snprintf(name, sizeof name, "  with pread and checksum");
		printf("  %-28s %8s %10s %10.2f\n", name, "", "",
		       1e-9 * data / decode(&model, fd, (hct_simd)s, repeat));
		close(fd);
	}
	memcpy_row(&model, repeat);
	zstd_row(&model, 1, 3, 5);
	zstd_row(&model, dtype && !strcmp(dtype, "f32") ? 4 : dtype ? 2 : 4, 3, 5);
	return 0;
}
