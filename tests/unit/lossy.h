/* Coding a matrix with loss, for the unit tests of encoders: by the plan, chunk by chunk, decoded
 * again with the codec's own tables and measured. */
#ifndef LOSSY_H
#define LOSSY_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>
#include <zstd.h>

#include "codec/bytes.h"
#include "codec/codec.h"
#include "codec/coef.h"
#include "codec/dequant.h"
#include "codec/encoder.h"
#include "codec/plan.h"
#include "codec/widen.h"

/* Numbers by chance. */
static uint64_t lossy_seed = 1;

static inline uint32_t lossy_next(void)
{
	lossy_seed = lossy_seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(lossy_seed >> 32 ^ lossy_seed >> 41);
}

static inline unsigned lossy_below(unsigned n)
{
	return lossy_next() % n;
}

static inline double lossy_gauss(void)
{
	double u = (lossy_next() + 1.) / 4294967297., v = lossy_next() / 4294967296.;

	return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

struct lossy_matrix {
	struct hct_tensor tensor;
	uint64_t shape[2];
	float *values;
	uint8_t *data; /* the values as elements */
};

/* Makes the elements anew after values have changed; NaN and infinity stay only in F32. */
static inline void lossy_narrow(struct lossy_matrix *m)
{
	if (m->tensor.dtype == HCT_DTYPE_F32)
		memcpy(m->data, m->values, m->tensor.elements * sizeof(float));
	else
		hct_dequant_scalar.narrow[m->tensor.dtype](m->values, m->tensor.elements, m->data);
}

static inline struct lossy_matrix lossy_gaussian(hct_dtype dtype, uint32_t rows, uint32_t columns)
{
	size_t n = (size_t)rows * columns;
	struct lossy_matrix m = {.tensor = {.name = "w",
					    .dtype = dtype,
					    .dtype_name = hct_dtype_name(dtype),
					    .rank = 2,
					    .elements = n,
					    .end = n * hct_dtype_unit(dtype)},
				 .shape = {rows, columns}};

	m.values = malloc(n * sizeof *m.values);
	m.data = malloc(n * hct_dtype_unit(dtype));
	for (size_t i = 0; i < n; i++)
		m.values[i] = (float)lossy_gauss();
	lossy_narrow(&m);
	return m;
}

static inline struct lossy_matrix lossy_copy(const struct lossy_matrix *from, double scale)
{
	struct lossy_matrix m = lossy_gaussian(from->tensor.dtype, (uint32_t)from->shape[0],
					       (uint32_t)from->shape[1]);

	for (size_t i = 0; i < m.tensor.elements; i++)
		m.values[i] = (float)(from->values[i] * scale);
	lossy_narrow(&m);
	return m;
}

static inline void lossy_free(struct lossy_matrix *m)
{
	free(m->values);
	free(m->data);
}

struct lossy_result {
	struct hct_plan_info info;
	double bits;         /* of an element: payloads, and tables as they are */
	double payload_bits; /* payloads alone */
	double error;        /* relative squared */
	double kept, halves; /* coefficients of the coef codec: kept, and FP16 */
	uint64_t hash;       /* of all that was made */
};

/* Counts what a payload of the coef codec keeps. */
static inline void lossy_count(const struct hct_encoded *c, size_t n, struct lossy_result *out)
{
	const uint8_t *p = c->layers[0].payload;
	size_t masks = hct_load32(p + 4) + (size_t)hct_load32(p + 8), kept, left, halves;

	/* From the lengths: 9/16 bytes and 2 bytes for each of the kinds, which are k in all. */
	left = c->layers[0].length - 12 - masks;
	kept = n;
	if (p[0]) {
		uint8_t *mask = calloc(1, n / 8 + 1);

		kept = 0;
		if (p[0] == HCT_MASK_ZSTD)
			ZSTD_decompress(mask, n / 8 + 1, p + 12, hct_load32(p + 4));
		else
			memcpy(mask, p + 12, (n + 7) / 8);
		for (size_t i = 0; i < n; i++)
			kept += mask[i / 8] >> i % 8 & 1;
		free(mask);
	}
	halves = p[1] ? (size_t)(((double)left - .5625 * (double)kept) / (2 - .5625) + .5) : 0;
	out->kept += (double)kept;
	out->halves += (double)halves;
}

/* Decodes a chunk and compares it with what the encoder says of it. */
static inline void lossy_check(const struct lossy_matrix *m, const struct hct_plan *p, uint64_t at,
			       size_t length, const struct hct_encoded *c, struct hct_distance *all)
{
	const struct hct_codec *codec = hct_codec_find(c->codec);
	struct hct_scratch scratch = {.simd = hct_simd_best(), .dctx = ZSTD_createDCtx()};
	struct hct_task task = {.tensor = &m->tensor,
				.offset = at,
				.length = length,
				.end = length,
				.layer_count = c->layer_count,
				.layers_stored = c->layer_count,
				.scratch = &scratch};
	size_t n = length / hct_dtype_unit(m->tensor.dtype);
	uint8_t *out = malloc(length);
	struct hct_distance d = {0};
	const char *why = NULL;
	void *tables = NULL;

	if (codec->open_tables)
		assert_int_equal(
			codec->open_tables(&m->tensor, p->params, p->params_length, &tables, &why),
			HCT_OK);
	task.tables = tables;
	for (unsigned l = 0; l < c->layer_count; l++) {
		uint8_t *copy = malloc(c->layers[l].length + HCT_PAYLOAD_PAD);

		memcpy(copy, c->layers[l].payload, c->layers[l].length);
		memset(copy + c->layers[l].length, 0xff, HCT_PAYLOAD_PAD);
		task.layers[l] = (struct hct_payload){copy, c->layers[l].length};
	}
	if (codec->decode(&task, out, &why))
		fail_msg("%s: %s", codec->name, why);
	assert_true(XXH3_64bits(out, length) == c->layers[c->layer_count - 1].digest);
	if (codec->open_tables && c->codec != HCT_CODEC_SPLIT) {
		hct_distance_add(&d, m->tensor.dtype, m->data + at, out, n);
		assert_true(fabs(d.dd - c->error) <= 1e-9 * d.dd);
		assert_true(fabs(d.aa - c->energy) <= 1e-9 * d.aa);
		assert_true(fabs(d.bb - c->decoded_energy) <= 1e-9 * d.bb);
	} else {
		assert_true(c->error == 0);
		assert_memory_equal(out, m->data + at, length);
		d.aa = c->energy;
	}
	all->aa += d.aa;
	all->dd += d.dd;
	for (unsigned l = 0; l < c->layer_count; l++)
		free((void *)task.layers[l].data);
	if (tables)
		codec->free_tables(tables);
	ZSTD_freeDCtx(scratch.dctx);
	free(scratch.bytes);
	free(out);
}

/* Plans, codes and decodes a matrix. */
static inline struct lossy_result lossy_code(struct lossy_matrix *m, const struct hct_goal *goal,
					     hct_simd simd)
{
	size_t unit = hct_dtype_unit(m->tensor.dtype);
	struct lossy_result out = {.hash = 0};
	struct hct_distance all = {0};
	struct hct_diag diag = {{0}};
	double bytes;
	hct_encoder *e;
	hct_plan *p;

	m->tensor.shape = m->shape;
	assert_int_equal(hct_encoder_create(simd, &e), HCT_OK);
	if (hct_plan_create(e, &m->tensor, m->data, goal, &p, &diag))
		fail_msg("%s", diag.text);
	hct_plan_describe(p, &out.info);
	bytes = 0;
	out.hash = p->params_length ? XXH3_64bits(p->params, p->params_length) : 0;
	for (uint64_t i = 0; i < hct_plan_chunk_count(p); i++) {
		uint64_t at = i * hct_plan_chunk_bytes(p);
		size_t length = hct_plan_chunk_length(p, i);
		struct hct_encoded c;

		if (hct_encode_chunk(e, p, i, m->data + at, &c, &diag))
			fail_msg("%s", diag.text);
		for (unsigned l = 0; l < c.layer_count; l++) {
			bytes += c.layers[l].length;
			out.hash = XXH3_64bits_withSeed(c.layers[l].payload, c.layers[l].length,
							out.hash);
		}
		if (c.codec == HCT_CODEC_COEF)
			lossy_count(&c, length / unit, &out);
		lossy_check(m, p, at, length, &c, &all);
	}
	out.payload_bits = 8 * bytes / (double)m->tensor.elements;
	out.bits = out.payload_bits + 8 * (double)p->params_length / (double)m->tensor.elements;
	out.error = all.aa > 0 ? all.dd / all.aa : 0;
	hct_plan_free(p);
	hct_encoder_free(e);
	return out;
}

/* The error of planning. */
static inline hct_error lossy_refused(struct lossy_matrix *m, const struct hct_goal *goal)
{
	hct_encoder *e;
	hct_error err;
	hct_plan *p;

	m->tensor.shape = m->shape;
	assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &e), HCT_OK);
	err = hct_plan_create(e, &m->tensor, m->data, goal, &p, NULL);
	hct_plan_free(p);
	hct_encoder_free(e);
	return err;
}

static inline void lossy_expect_lossless(struct lossy_matrix *m, const struct hct_goal *goal,
					 const char *why)
{
	struct lossy_result out = lossy_code(m, goal, HCT_SIMD_AUTO);

	if (!out.info.why)
		fail_msg("coded with loss, but: %s", why);
	assert_string_equal(out.info.why, why);
	assert_true(out.error == 0 && out.info.bits > 0 && out.info.relative_squared_error == 0);
	assert_true(out.info.layers == 1);
}

#endif
