#include "encoder.h"

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "checksum.h"
#include "codec.h"
#include "coef_plan.h"
#include "format.h"
#include "lowrank_plan.h"
#include "plan.h"
#include "split.h"
#include "tcq_plan.h"
#include "widen.h"

/* A chunk holds this many elements, or the whole rows nearest below. */
#define CHUNK_ELEMENTS (128u * 1024u)
/* Bytes of the tensor's middle with which codecs are compared. */
#define TRIAL_BYTES    (256u * 1024u)
#define DEFAULT_EFFORT 5
/* Lossy tensors of up to that many elements are compared with lossless coding. */
#define SMALL_ELEMENTS 65536u
/* Bits of an element that a layer more may cost. */
#define LAYER_COST 0.15
/* Share of a table's bytes that is left when PARAMS is compressed, about. */
#define TABLE_SHARE 0.7

hct_error hct_encoder_create(hct_simd simd, hct_encoder **out)
{
	hct_encoder *e;

	*out = NULL;
	if (simd == HCT_SIMD_AUTO)
		simd = hct_simd_best();
	if (!hct_simd_supported(simd))
		return HCT_ERR_UNSUPPORTED;
	e = calloc(1, sizeof *e);
	if (!e)
		return HCT_ERR_NOMEM;
	e->simd = simd;
	e->decoding.simd = simd;
	e->cctx = ZSTD_createCCtx();
	e->decoding.dctx = ZSTD_createDCtx();
	if (!e->cctx || !e->decoding.dctx || hct_dct_create(simd, &e->dct)) {
		hct_encoder_free(e);
		return HCT_ERR_NOMEM;
	}
	*out = e;
	return HCT_OK;
}

void hct_encoder_free(hct_encoder *e)
{
	if (!e)
		return;
	ZSTD_freeCCtx(e->cctx);
	ZSTD_freeDCtx(e->decoding.dctx);
	hct_dct_free(e->dct);
	free(e->decoding.bytes);
	free(e->payload);
	free(e->work);
	free(e->decoded);
	free(e);
}

void hct_encoder_watch(hct_encoder *e, int (*watch)(void *arg, uint64_t done), void *arg)
{
	e->watch = watch;
	e->watch_arg = arg;
}

int hct_buffer_reserve(uint8_t **buf, size_t *capacity, size_t size)
{
	if (*capacity < size) {
		free(*buf);
		size = (size + 4095) & ~(size_t)4095;
		*buf = aligned_alloc(64, size);
		*capacity = *buf ? size : 0;
	}
	return *buf != NULL;
}

static void transpose(const uint8_t *src, size_t n, unsigned stride, uint8_t *dst)
{
	for (unsigned j = 0; j < stride; j++)
		for (size_t i = 0; i < n / stride; i++)
			*dst++ = src[i * stride + j];
}

size_t hct_zstd_encode(struct hct_encoder *e, const uint8_t *src, size_t n, unsigned stride,
		       int level, size_t limit)
{
	size_t bound = ZSTD_compressBound(n), length;

	if (!hct_buffer_reserve(&e->payload, &e->payload_capacity, bound + 1))
		return 0;
	if (stride > 1) {
		if (!hct_buffer_reserve(&e->work, &e->work_capacity, n))
			return 0;
		transpose(src, n, stride, e->work);
		src = e->work;
	}
	e->payload[0] = (uint8_t)stride;
	length = ZSTD_compressCCtx(e->cctx, e->payload + 1, bound, src, n, level);
	return ZSTD_isError(length) || length + 1 >= limit ? 0 : length + 1;
}

/* Bytes of a chunk: whole rows of the last dimension where these are short. */
static uint32_t choose_chunk(const struct hct_tensor *t)
{
	size_t unit = hct_dtype_unit(t->dtype);
	uint64_t row = t->rank ? t->shape[t->rank - 1] : 1, rows;

	if (hct_dtype_bits(t->dtype) != unit * 8 || row == 0 || row > CHUNK_ELEMENTS)
		return CHUNK_ELEMENTS * (uint32_t)unit;
	rows = CHUNK_ELEMENTS / row;
	return (uint32_t)(rows * row * unit);
}

/* Keeps the tables of the split codec if that was chosen. */
static int keep_tables(hct_plan *p)
{
	const struct hct_split_tables *t;

	if (p->codec != HCT_CODEC_SPLIT) {
		hct_split_plan_free(p->split);
		p->split = NULL;
		return 1;
	}
	t = hct_split_plan_tables(p->split);
	p->params_length = (uint32_t)hct_split_tables_length(t);
	p->params = malloc(p->params_length);
	if (p->params)
		hct_split_tables_pack(t, p->params);
	return p->params != NULL;
}

static uint64_t elements_of(const hct_plan *p)
{
	return p->bytes / hct_dtype_unit(p->tensor->dtype);
}

/* Compares codecs on a piece of the tensor. */
static void choose_codec(hct_encoder *e, hct_plan *p, const uint8_t *data)
{
	size_t unit = hct_dtype_unit(p->tensor->dtype);
	uint64_t n = p->bytes < TRIAL_BYTES ? p->bytes : TRIAL_BYTES;
	const uint8_t *piece = data + (p->bytes - n) / 2 / unit * unit;
	const unsigned strides[] = {1, (unsigned)unit};
	size_t best = n, length;

	n = n / unit * unit;
	p->codec = HCT_CODEC_RAW;
	if (p->split && n) {
		const struct hct_layout *l = hct_layout_find(p->tensor->dtype);

		length = hct_split_encode(e, p->split, piece, n / l->unit,
					  (uint64_t)(piece - data) / l->unit, best);
		if (length) {
			best = length;
			p->codec = HCT_CODEC_SPLIT;
		}
	}
	for (size_t i = 0; n && i < (unit > 1 ? 2 : 1); i++) {
		length = hct_zstd_encode(e, piece, n, strides[i], p->level, best);
		if (length) {
			best = length;
			p->codec = HCT_CODEC_ZSTD;
			p->stride = strides[i];
		}
	}
	if (n)
		p->bits = 8 * (double)best / (double)(n / unit);
}

/* Decides on a lossless codec. */
static int plan_lossless(hct_encoder *e, hct_plan *p, const uint8_t *data)
{
	const struct hct_layout *layout = hct_layout_find(p->tensor->dtype);

	p->chunk_bytes = choose_chunk(p->tensor);
	if (layout) {
		p->split = hct_split_plan_create(p->tensor, layout, data);
		if (!p->split)
			return 0;
	}
	choose_codec(e, p, data);
	if (!keep_tables(p))
		return 0;
	p->bits += 8 * TABLE_SHARE * p->params_length / (double)elements_of(p);
	return 1;
}

/* What lossy plans have in common: their tables are `length` bytes, to be filled in. */
static hct_error adopt(hct_plan *p, unsigned codec, uint32_t chunk, size_t length)
{
	p->codec = (uint16_t)codec;
	p->chunk_bytes = chunk * (uint32_t)hct_dtype_unit(p->tensor->dtype);
	free(p->params);
	p->params = malloc(length);
	p->params_length = (uint32_t)length;
	return p->params ? HCT_OK : HCT_ERR_NOMEM;
}

static hct_error plan_tcq(hct_encoder *e, hct_plan *p, const uint8_t *data,
			  const struct hct_goal *goal)
{
	const struct hct_tcq_tables *t;
	hct_error err;

	err = hct_tcq_plan_create(e, p->tensor, data, goal, &p->tcq, &p->why);
	if (err || !p->tcq)
		return err;
	t = hct_tcq_plan_tables(p->tcq);
	hct_tcq_plan_forecast(p->tcq, &p->bits, &p->error);
	p->layers = t->layer_count;
	err = adopt(p, HCT_CODEC_TCQ, hct_tcq_plan_chunk(p->tcq), hct_tcq_tables_length(t));
	if (!err)
		hct_tcq_tables_pack(t, p->params);
	return err;
}

static hct_error plan_coef(hct_encoder *e, hct_plan *p, const uint8_t *data,
			   const struct hct_goal *goal)
{
	hct_error err = hct_coef_plan_create(e, p->tensor, data, goal, &p->coef, &p->why);

	if (err || !p->coef)
		return err;
	hct_coef_plan_forecast(p->coef, &p->bits, &p->error);
	err = adopt(p, HCT_CODEC_COEF, hct_coef_plan_chunk(p->coef), HCT_COEF_TABLE_BYTES);
	if (!err)
		hct_coef_tables_pack(hct_coef_plan_tables(p->coef), p->params);
	return err;
}

/* Puts low-rank factors in the place of a tcq plan where they take fewer bits. */
static hct_error plan_lowrank(hct_encoder *e, hct_plan *p, const uint8_t *data,
			      const struct hct_goal *goal)
{
	const uint8_t *params;
	size_t length;
	hct_error err;

	if (!p->tcq || goal->layers > 1)
		return HCT_OK; /* see plan_layers */
	err = hct_lowrank_plan_create(e, p->tensor, data, goal, p->bits,
				      goal->method == HCT_METHOD_AUTO, &p->lowrank);
	if (err || !p->lowrank)
		return err;
	hct_tcq_plan_free(p->tcq);
	p->tcq = NULL;
	hct_lowrank_plan_forecast(p->lowrank, &p->bits, &p->error);
	params = hct_lowrank_plan_params(p->lowrank, &length);
	err = adopt(p, HCT_CODEC_LOWRANK, hct_lowrank_plan_chunk(p->lowrank), length);
	if (!err)
		memcpy(p->params, params, length);
	return err;
}

static int is_lossy(const hct_plan *p)
{
	return p->tcq || p->coef || p->lowrank;
}

/* Back to nothing, for lossless coding. */
static void drop_lossy(hct_plan *p)
{
	hct_tcq_plan_free(p->tcq);
	hct_coef_plan_free(p->coef);
	hct_lowrank_plan_free(p->lowrank);
	free(p->params);
	p->tcq = NULL;
	p->coef = NULL;
	p->lowrank = NULL;
	p->params = NULL;
	p->params_length = 0;
	p->layers = 1;
	p->bits = p->error = 0;
}

/* Drops a lossy plan of a small tensor when lossless coding takes no more. */
static hct_error compare_lossless(hct_encoder *e, hct_plan *p, const uint8_t *data)
{
	hct_plan rival = {.tensor = p->tensor, .bytes = p->bytes, .level = p->level, .stride = 1};
	hct_error err = plan_lossless(e, &rival, data) ? HCT_OK : HCT_ERR_NOMEM;
	int better = !err && rival.bits <= p->bits;

	hct_split_plan_free(rival.split);
	free(rival.params);
	if (better) {
		drop_lossy(p);
		p->why = "lossless is no larger";
	}
	return err;
}

/* Decides on the quantiser, or on low-rank factors where these may be and take fewer bits. */
static hct_error plan_quantiser(hct_encoder *e, hct_plan *p, const uint8_t *data,
				const struct hct_goal *goal)
{
	hct_error err = plan_tcq(e, p, data, goal);

	return !err && goal->method != HCT_METHOD_TCQ ? plan_lowrank(e, p, data, goal) : err;
}

/* The same with as many layers as are wanted, or fewer where they cannot be made or cost much more
 * than one: what low-rank factors hold, or a few giants, has no use for refinements. */
static hct_error plan_layers(hct_encoder *e, hct_plan *p, const uint8_t *data,
			     const struct hct_goal *goal)
{
	hct_plan single = *p;
	struct hct_goal g = *goal;
	hct_error err;

	g.layers = 1;
	err = plan_quantiser(e, &single, data, &g);
	for (g.layers = goal->layers; !err && is_lossy(&single) && g.layers > 1; g.layers--) {
		err = plan_quantiser(e, p, data, &g);
		if (!err && is_lossy(p) &&
		    p->bits <= single.bits + LAYER_COST * (double)(g.layers - 1)) {
			drop_lossy(&single);
			return HCT_OK;
		}
		drop_lossy(p);
	}
	*p = single;
	return err;
}

/* Decides on a lossy coding; is_lossy() stays 0 when there is to be none. */
static hct_error plan_lossy(hct_encoder *e, hct_plan *p, const uint8_t *data,
			    const struct hct_goal *goal)
{
	hct_error err;

	switch (goal->method) {
	case HCT_METHOD_TOPK:
	case HCT_METHOD_MIXED:
	case HCT_METHOD_INT4:
		err = plan_coef(e, p, data, goal);
		break;
	default:
		err = plan_layers(e, p, data, goal);
	}
	if (!err && is_lossy(p) && elements_of(p) <= SMALL_ELEMENTS)
		err = compare_lossless(e, p, data);
	return err;
}

static int goal_is_sound(const struct hct_goal *g)
{
	int keeps = g->relative_squared_error > 0 &&
		    (g->method == HCT_METHOD_TOPK || g->method == HCT_METHOD_MIXED);

	return g->relative_squared_error >= 0 && g->relative_squared_error < 1 && g->effort <= 9 &&
	       g->layers <= HCT_GOAL_MAX_LAYERS && (unsigned)g->transform <= HCT_TRANSFORM_DCT &&
	       (unsigned)g->method <= HCT_METHOD_INT4 &&
	       (!keeps || (g->retention > 0 && g->retention <= 1)) &&
	       (g->method != HCT_METHOD_MIXED || (g->fp16_ratio >= 0 && g->fp16_ratio <= 1));
}

hct_error hct_plan_create(hct_encoder *e, const struct hct_tensor *tensor, const void *data,
			  const struct hct_goal *goal, hct_plan **out, struct hct_diag *diag)
{
	hct_plan *p = calloc(1, sizeof *p);
	hct_error err = HCT_OK;

	*out = NULL;
	if (!p)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", tensor->name);
	if (goal && !goal_is_sound(goal)) {
		free(p);
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: a goal out of range", tensor->name);
	}
	p->tensor = tensor;
	p->bytes = hct_tensor_bytes(tensor);
	p->level = p->bytes < (1u << 20) ? 12 : 3;
	p->stride = 1;
	p->layers = 1;
	if (p->bytes && goal && goal->relative_squared_error > 0) {
		struct hct_goal g = *goal;

		g.effort = g.effort ? g.effort : DEFAULT_EFFORT;
		g.layers = g.layers ? g.layers : 1;
		err = plan_lossy(e, p, data, &g);
	}
	if (p->bytes && !err && !is_lossy(p) && !plan_lossless(e, p, data))
		err = HCT_ERR_NOMEM;
	if (err) {
		hct_plan_free(p);
		return hct_fail(diag, err, "%s: %s", tensor->name, hct_error_string(err));
	}
	if (p->bytes)
		p->chunk_count = (p->bytes + p->chunk_bytes - 1) / p->chunk_bytes;
	*out = p;
	return HCT_OK;
}

void hct_plan_free(hct_plan *p)
{
	if (!p)
		return;
	hct_split_plan_free(p->split);
	drop_lossy(p);
	free(p);
}

void hct_plan_describe(const hct_plan *p, struct hct_plan_info *out)
{
	*out = (struct hct_plan_info){.codec = p->bytes ? hct_codec_find(p->codec)->name : "empty",
				      .why = p->why,
				      .layers = p->layers,
				      .tile_rows = 1,
				      .tile_columns = 1,
				      .bits = p->bits,
				      .relative_squared_error = p->error};
	if (p->tcq) {
		const struct hct_tcq_tables *t = hct_tcq_plan_tables(p->tcq);

		out->tile_rows = 1u << t->tile_rows_log2;
		out->tile_columns = 1u << t->tile_columns_log2;
	}
	if (p->coef) {
		const struct hct_coef_tables *t = hct_coef_plan_tables(p->coef);

		out->tile_rows = 1u << t->tile_rows_log2;
		out->tile_columns = 1u << t->tile_columns_log2;
	}
}

uint32_t hct_plan_chunk_bytes(const hct_plan *p)
{
	return p->chunk_bytes;
}

uint64_t hct_plan_chunk_count(const hct_plan *p)
{
	return p->chunk_count;
}

uint32_t hct_plan_chunk_length(const hct_plan *p, uint64_t n)
{
	uint64_t left = p->bytes - n * p->chunk_bytes;

	return left < p->chunk_bytes ? (uint32_t)left : p->chunk_bytes;
}

/* Codes a chunk without loss. */
static hct_error encode_lossless(hct_encoder *e, const hct_plan *p, uint64_t n, const void *data,
				 size_t length, struct hct_encoded *out)
{
	size_t coded = 0;

	out->codec = p->codec;
	if (p->codec == HCT_CODEC_ZSTD || is_lossy(p)) {
		out->codec = HCT_CODEC_ZSTD;
		coded = hct_zstd_encode(e, data, length, length % p->stride ? 1 : p->stride,
					p->level, length);
	}
	if (p->codec == HCT_CODEC_SPLIT) {
		size_t unit = hct_layout_find(p->tensor->dtype)->unit;

		coded = hct_split_encode(e, p->split, data, length / unit,
					 n * p->chunk_bytes / unit, length);
	}
	if (!coded) {
		if (!hct_buffer_reserve(&e->payload, &e->payload_capacity, length))
			return HCT_ERR_NOMEM;
		memcpy(e->payload, data, length);
		coded = length;
		out->codec = HCT_CODEC_RAW;
	}
	out->layer_count = 1;
	out->layers[0] = (struct hct_encoded_layer){.payload = e->payload,
						    .length = (uint32_t)coded,
						    .checksum = hct_checksum(e->payload, coded),
						    .digest = hct_checksum(data, length)};
	return HCT_OK;
}

/* Codes n elements, the first of which is element `first` of the tensor, with loss.
 * HCT_ERR_LIMIT when that is no smaller. */
static hct_error encode_lossy(hct_encoder *e, const hct_plan *p, const void *data, size_t n,
			      uint64_t first, struct hct_encoded *out)
{
	out->codec = p->codec;
	if (p->coef)
		return hct_coef_encode(e, p->coef, data, n, first, out);
	if (p->lowrank)
		return hct_lowrank_encode(e, p->lowrank, data, n, first, out);
	return hct_tcq_encode(e, p->tcq, data, n, first, out);
}

hct_error hct_encode_chunk(hct_encoder *e, const hct_plan *p, uint64_t n, const void *data,
			   struct hct_encoded *out, struct hct_diag *diag)
{
	size_t length = hct_plan_chunk_length(p, n), unit = hct_dtype_unit(p->tensor->dtype);
	hct_error err = HCT_ERR_LIMIT;

	memset(out, 0, sizeof *out);
	if (is_lossy(p))
		err = encode_lossy(e, p, data, length / unit, n * p->chunk_bytes / unit, out);
	if (err == HCT_ERR_LIMIT) {
		err = encode_lossless(e, p, n, data, length, out);
		if (!err && is_lossy(p)) {
			struct hct_distance d = {0};

			hct_distance_add(&d, p->tensor->dtype, data, data, length / unit);
			out->energy = out->decoded_energy = d.aa;
		}
	}
	return err ? hct_fail(diag, err, "%s: %s", p->tensor->name, hct_error_string(err)) : HCT_OK;
}
