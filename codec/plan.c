#include "plan.h"

#include <stdlib.h>
#include <string.h>

#include "codec.h"
#include "coef_plan.h"
#include "encoder.h"
#include "lowrank_plan.h"
#include "repeats.h"
#include "split.h"
#include "tcq_plan.h"
#include "trial.h"

/* A chunk holds this many elements, or the whole rows nearest below. */
#define CHUNK_ELEMENTS (128u * 1024u)
#define DEFAULT_EFFORT 5
/* Lossy tensors of up to that many elements are compared with lossless coding. */
#define SMALL_ELEMENTS 65536u
/* Of tensors in which values repeat: chunks that both are tried on, all of most. */
#define WEIGHED_CHUNKS 32u
/* Bits of an element that a layer more may cost. */
#define LAYER_COST 0.15

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

/* Decides on a lossless codec. */
static int plan_lossless(hct_encoder *e, hct_plan *p, const uint8_t *data)
{
	const struct hct_layout *layout = hct_layout_find(p->tensor->dtype);

	p->chunk_bytes = choose_chunk(p->tensor);
	if (layout) {
		p->split = hct_split_plan_create(e, p->tensor, layout, data);
		if (!p->split)
			return 0;
	}
	hct_trial_choose(e, p, data);
	if (!keep_tables(p))
		return 0;
	p->bits += 8 * HCT_TABLE_SHARE * p->params_length / (double)elements_of(p);
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
				      goal->method == HCT_METHOD_AUTO, &p->lowrank, &p->note);
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
	p->mixed = 0;
	p->bits = p->error = 0;
}

static int values_repeat(hct_encoder *e, const hct_plan *p, const uint8_t *data)
{
	return hct_plan_is_lossy(p) && hct_repeats_found(e, p->tensor, data, p->bits);
}

/* What chunks take. */
struct weight {
	double bytes, elements, energy, error;
};

static hct_error weigh_chunk(hct_encoder *e, const hct_plan *p, uint64_t n, const uint8_t *data,
			     struct weight *w)
{
	struct hct_encoded out;
	hct_error err = hct_encode_chunk(e, p, n, data + n * hct_plan_chunk_bytes(p), &out, NULL);

	for (unsigned l = 0; !err && l < out.layer_count; l++)
		w->bytes += out.layers[l].length;
	w->elements += hct_plan_chunk_length(p, n) / (double)hct_dtype_unit(p->tensor->dtype);
	w->energy += out.energy;
	w->error += out.error;
	return err;
}

/* Lets every chunk be zstd where that is smaller, and drops the lossy plan when a lossless one,
 * which may have tables, takes less still: by coding chunks with both, since a trial in a few
 * places says nothing of values that lie here and there. */
static hct_error weigh_lossless(hct_encoder *e, hct_plan *p, const uint8_t *data)
{
	hct_plan rival = {.tensor = p->tensor, .bytes = p->bytes, .level = p->level, .stride = 1};
	hct_error err = plan_lossless(e, &rival, data) ? HCT_OK : HCT_ERR_NOMEM;
	uint64_t chunks = (p->bytes + p->chunk_bytes - 1) / p->chunk_bytes;
	uint64_t taken = chunks < WEIGHED_CHUNKS ? chunks : WEIGHED_CHUNKS;
	struct weight mixed = {0}, exact = {0};
	double tables, all;

	p->mixed = 1;
	rival.chunk_bytes = p->chunk_bytes;
	for (uint64_t i = 0; i < taken && !err; i++) {
		uint64_t n = i * chunks / taken;

		err = weigh_chunk(e, p, n, data, &mixed);
		if (!err)
			err = weigh_chunk(e, &rival, n, data, &exact);
		if (!err && hct_encoder_watched(e, (n + 1) * p->chunk_bytes))
			err = HCT_ERR_INTERRUPTED;
	}
	tables = HCT_TABLE_SHARE * p->params_length;
	all = exact.bytes + HCT_TABLE_SHARE * rival.params_length;
	hct_split_plan_free(rival.split);
	free(rival.params);
	if (err)
		return err;
	if (taken == chunks ? all <= mixed.bytes + tables : all < mixed.bytes) {
		drop_lossy(p);
		p->why = "lossless is no larger";
		return HCT_OK;
	}
	p->bits = 8 * (mixed.bytes / mixed.elements + tables / (double)elements_of(p));
	p->error = mixed.energy > 0 ? mixed.error / mixed.energy : 0;
	return HCT_OK;
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
 * than one: what low-rank factors hold, or a few giants, has no use for refinements; nor have
 * values that repeat, which zstd codes, in one layer. */
static hct_error plan_layers(hct_encoder *e, hct_plan *p, const uint8_t *data,
			     const struct hct_goal *goal)
{
	hct_plan single = *p;
	struct hct_goal g = *goal;
	hct_error err;

	g.layers = 1;
	err = plan_quantiser(e, &single, data, &g);
	g.layers = goal->layers;
	if (!err && g.layers > 1 && values_repeat(e, &single, data))
		g.layers = 1;
	for (; !err && hct_plan_is_lossy(&single) && g.layers > 1; g.layers--) {
		err = plan_quantiser(e, p, data, &g);
		if (!err && hct_plan_is_lossy(p) &&
		    p->bits <= single.bits + LAYER_COST * (double)(g.layers - 1)) {
			drop_lossy(&single);
			return HCT_OK;
		}
		drop_lossy(p);
	}
	*p = single;
	return err;
}

/* Decides on a lossy coding; hct_plan_is_lossy() stays 0 when there is to be none. */
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
	if (!err && hct_plan_is_lossy(p) && elements_of(p) <= SMALL_ELEMENTS)
		err = compare_lossless(e, p, data);
	if (!err && p->layers == 1 && values_repeat(e, p, data))
		err = weigh_lossless(e, p, data);
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
	if (p->bytes && !err && !hct_plan_is_lossy(p) && !plan_lossless(e, p, data))
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

size_t hct_plan_table_bytes(const hct_plan *p)
{
	return p->params_length;
}

void hct_plan_drop_tables(hct_encoder *e, hct_plan *p, const void *data)
{
	const char *why = hct_plan_is_lossy(p)
				  ? "the tables of all tensors have reached their limit"
				  : p->why;

	if (!p->bytes)
		return;
	hct_split_plan_free(p->split);
	p->split = NULL;
	drop_lossy(p);
	p->why = why;
	p->stride = 1;
	p->chunk_bytes = choose_chunk(p->tensor);
	hct_trial_choose(e, p, data);
	p->chunk_count = (p->bytes + p->chunk_bytes - 1) / p->chunk_bytes;
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
				      .note = p->note,
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

size_t hct_plan_memory(const hct_plan *p)
{
	size_t bytes = sizeof *p + p->params_length;

	if (p->split)
		bytes += hct_split_plan_memory(p->split);
	if (p->tcq)
		bytes += hct_tcq_plan_memory(p->tcq);
	if (p->lowrank)
		bytes += hct_lowrank_plan_memory(p->lowrank);
	return bytes; /* those of the coef codec are small */
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
