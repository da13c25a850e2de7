#include "trial.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zstd.h>

#include "codec/codec.h"
#include "codec/hctenc.h"
#include "codec/index.h"

/* Of decoding: no more rounds than the first few when these took that many seconds. */
#define MIN_ROUNDS 3
#define ENOUGH     1.0

static void code_tensor(hct_encoder *e, hct_appender *a, const struct model *m, size_t i,
			const struct hct_goal *goal, struct trial *t)
{
	const uint8_t *data = model_data(m, i);
	struct hct_encoded chunk;
	struct hct_diag d = {""};
	hct_plan *p;

	if (hct_plan_create(e, &m->st.tensors[i], data, goal, &p, &d) ||
	    hct_appender_tensor(a, i, p, &d))
		bench_die("plan", &d);
	hct_plan_describe(p, &t->tensor[i].plan);
	if (t->tensor[i].plan.layers > t->layers)
		t->layers = t->tensor[i].plan.layers;
	for (uint64_t k = 0; k < hct_plan_chunk_count(p); k++) {
		if (hct_encode_chunk(e, p, k, data + k * hct_plan_chunk_bytes(p), &chunk, &d) ||
		    hct_appender_chunk(a, &chunk, &d))
			bench_die("chunk", &d);
		for (unsigned l = 0; l < chunk.layer_count; l++)
			t->layer_bytes[l] += chunk.layers[l].length;
	}
	hct_plan_free(p);
}

static void code(const struct model *m, const struct hct_goal *goal, hct_simd simd, struct trial *t)
{
	struct hct_source source = {.size = m->length};
	struct hct_diag d = {""};
	hct_appender *a;
	hct_encoder *e;
	double start, seconds;

	t->fd = memfd_create("bench", MFD_CLOEXEC);
	memset(t->layer_bytes, 0, sizeof t->layer_bytes);
	start = bench_now();
	if (t->fd < 0 || hct_encoder_create(simd, &e) ||
	    hct_appender_create(t->fd, "bench", &m->st, &a, &d))
		bench_die("cannot start", &d);
	for (size_t i = 0; i < m->st.count; i++)
		code_tensor(e, a, m, i, goal, t);
	if (hct_appender_finish(a, &source, "{}", &t->file_bytes, &d))
		bench_die("finish", &d);
	seconds = bench_now() - start;
	if (seconds < t->encode_seconds)
		t->encode_seconds = seconds;
	hct_appender_free(a);
	hct_encoder_free(e);
}

static hct_reader *open_again(const struct trial *t)
{
	struct hct_diag d = {""};
	hct_reader *r;

	if (hct_reader_open_fd(fcntl(t->fd, F_DUPFD_CLOEXEC, 0), "bench", &r, &d))
		bench_die("open", &d);
	return r;
}

/* Decodes the first `layers` layers, 0 meaning all, and compares: adds to the sums of the tensors,
 * unless tensor is NULL, and to those of all.  Returns whether every byte is the source's. */
static int compare(const struct model *m, hct_reader *r, unsigned layers,
		   struct trial_tensor *tensor, struct hct_metrics *sums)
{
	uint8_t *out = bench_alloc(HCT_MAX_CHUNK, 1);
	struct hct_diag d = {""};
	hct_decoder *dec;
	int identical = 1;

	if (hct_decoder_create(HCT_SIMD_AUTO, &dec))
		bench_die("decoder", NULL);
	hct_decoder_set_layers(dec, layers);
	for (uint64_t k = 0; k < hct_reader_chunk_count(r); k++) {
		struct hct_metrics part = {0};
		struct hct_chunk c;
		hct_dtype dtype;

		if (hct_reader_decode_verified(r, dec, k, out, &d))
			bench_die("decode", &d);
		hct_reader_chunk(r, k, &c);
		identical &= !memcmp(out, m->bytes + c.offset, c.length);
		dtype = m->st.tensors[c.tensor].dtype;
		if (hct_dtype_is_numeric(dtype))
			hct_metrics_add_typed(&part, dtype, m->bytes + c.offset, dtype, out,
					      c.length / hct_dtype_unit(dtype));
		hct_metrics_merge(sums, &part);
		if (tensor)
			hct_metrics_merge(&tensor[c.tensor].sums, &part);
	}
	hct_decoder_free(dec);
	free(out);
	return identical;
}

static void measure(const struct model *m, struct trial *t)
{
	hct_reader *r = open_again(t);

	t->identical = compare(m, r, 0, t->tensor, &t->sums);
	for (size_t i = 0; i < t->tensors; i++) {
		struct hct_coding coding;

		hct_reader_coding(r, i, &coding);
		t->tensor[i].bytes = coding.stored_bytes;
	}
	hct_reader_close(r);
}

void trial_run(const struct model *m, const struct hct_goal *goal, hct_simd simd, int rounds,
	       struct trial *out)
{
	*out = (struct trial){.fd = -1,
			      .encode_seconds = INFINITY,
			      .weights = model_weights(m),
			      .tensors = m->st.count};
	out->tensor = calloc(m->st.count, sizeof *out->tensor);
	if (!out->tensor)
		bench_die("out of memory", NULL);
	for (int i = 0; i < rounds || !i; i++) {
		if (i)
			close(out->fd);
		code(m, goal, simd, out);
	}
	measure(m, out);
}

const char *trial_refusal(const struct model *m, const struct hct_goal *goal)
{
	struct hct_plan_info info = {0};
	struct hct_diag d = {""};
	hct_encoder *e;
	hct_plan *p;
	hct_error err;

	if (hct_encoder_create(HCT_SIMD_AUTO, &e))
		bench_die("cannot start", NULL);
	err = hct_plan_create(e, &m->st.tensors[0], model_data(m, 0), goal, &p, &d);
	if (!err) {
		hct_plan_describe(p, &info);
		hct_plan_free(p);
	}
	hct_encoder_free(e);
	if (err)
		return hct_error_string(err);
	if (!strcmp(info.codec, "tcq") &&
	    (goal->method == HCT_METHOD_TOPK || goal->method == HCT_METHOD_MIXED ||
	     goal->method == HCT_METHOD_INT4))
		return "this build has no such coder";
	return info.why;
}

void trial_free(struct trial *t)
{
	close(t->fd);
	free(t->tensor);
	*t = (struct trial){.fd = -1};
}

void trial_measure_layers(const struct model *m, const struct trial *t, unsigned layers,
			  struct hct_metrics *sums)
{
	hct_reader *r = open_again(t);

	*sums = (struct hct_metrics){0};
	compare(m, r, layers, NULL, sums);
	hct_reader_close(r);
}

double trial_decode_reader(const struct trial *t, hct_simd simd, int rounds)
{
	uint8_t *out = bench_alloc(HCT_MAX_CHUNK, 1);
	hct_reader *r = open_again(t);
	struct hct_diag d = {""};
	hct_decoder *dec;
	double best = INFINITY, spent = 0;

	if (hct_decoder_create(simd, &dec))
		bench_die("decoder", NULL);
	for (int i = 0; i < rounds && (i < MIN_ROUNDS || spent < ENOUGH); i++) {
		double start = bench_now();

		for (uint64_t k = 0; k < hct_reader_chunk_count(r); k++)
			if (hct_reader_decode(r, dec, k, out, &d))
				bench_die("decode", &d);
		start = bench_now() - start;
		spent += start;
		best = start < best ? start : best;
	}
	hct_decoder_free(dec);
	hct_reader_close(r);
	free(out);
	return best;
}

/* Decodes the chunks of one tensor, payloads at file. */
static void decode_tensor(const struct hct_index *x, size_t i, const uint8_t *file,
			  struct hct_scratch *scratch, uint8_t *out)
{
	const struct hct_tensor_record *rec = &x->tensors[i];
	const struct hct_codec *c = hct_codec_find(rec->codec);
	const struct hct_tensor *tensor = &x->st.tensors[i];
	const char *why = "";
	void *tables = NULL;

	if (c->open_tables && c->open_tables(tensor, x->params + rec->params_offset,
					     rec->params_length, &tables, &why))
		bench_die(why, NULL);
	for (uint64_t k = 0; k < rec->chunk_count; k++) {
		struct hct_extent ext;
		uint64_t at = k * rec->chunk_bytes, left = hct_tensor_bytes(tensor) - at;
		struct hct_task task = {.tensor = tensor,
					.tables = tables,
					.offset = at,
					.length = left < rec->chunk_bytes ? left : rec->chunk_bytes,
					.layer_count = rec->layers,
					.layers_stored = rec->layers,
					.scratch = scratch};

		task.end = task.length;
		for (unsigned l = 0; l < rec->layers; l++) {
			hct_index_extent(x, i, k, l, &ext);
			task.layers[l] = (struct hct_payload){file + ext.offset, ext.length};
		}
		if (hct_codec_find(ext.codec)->decode(&task, out, &why))
			bench_die(why, NULL);
	}
	if (c->free_tables)
		c->free_tables(tables);
}

double trial_decode_codec(const struct trial *t, hct_simd simd, int rounds)
{
	struct hct_scratch scratch = {.simd = simd, .dctx = (void *)ZSTD_createDCtx()};
	uint8_t *out = bench_alloc(HCT_MAX_CHUNK, 1), *file;
	struct hct_diag d = {""};
	struct hct_index x;
	double best = INFINITY, spent = 0;
	struct stat sb;

	if (fstat(t->fd, &sb) || hct_index_read(t->fd, "bench", &x, &d))
		bench_die("index", &d);
	file = bench_alloc((size_t)sb.st_size + HCT_PAYLOAD_PAD, 1);
	for (off_t at = 0; at < sb.st_size;) {
		ssize_t n = pread(t->fd, file + at, (size_t)(sb.st_size - at), at);

		if (n <= 0)
			bench_die("read", NULL);
		at += n;
	}
	for (int i = 0; i < rounds && (i < MIN_ROUNDS || spent < ENOUGH); i++) {
		double start = bench_now();

		for (size_t k = 0; k < x.st.count; k++)
			decode_tensor(&x, k, file, &scratch, out);
		start = bench_now() - start;
		spent += start;
		best = start < best ? start : best;
	}
	ZSTD_freeDCtx((void *)scratch.dctx);
	free(scratch.bytes);
	free(out);
	free(file);
	hct_index_free(&x);
	return best;
}

double trial_bits(const struct trial *t)
{
	return 8 * (double)t->file_bytes / (double)t->weights;
}

double trial_error(const struct trial *t)
{
	return hct_metrics_relative_squared_error(&t->sums);
}

double trial_bits_at(const struct trial *t, double error)
{
	return trial_bits(t) + .5 * log2(trial_error(t) / error);
}

size_t trial_worst(const struct trial *t)
{
	double worst = 0;
	size_t found = 0;

	for (size_t i = 0; i < t->tensors; i++) {
		double error = hct_metrics_relative_squared_error(&t->tensor[i].sums);

		if (error > worst) {
			worst = error;
			found = i;
		}
	}
	return found;
}

size_t trial_count(const struct trial *t, const char *codec)
{
	size_t n = 0;

	for (size_t i = 0; i < t->tensors; i++)
		n += !strcmp(t->tensor[i].plan.codec, codec);
	return n;
}
