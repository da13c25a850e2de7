/* Decoding of the lowrank codec: factors by the tcq codec, and their product. */
#include <stdlib.h>
#include <string.h>

#include "codec.h"
#include "dequant.h"
#include "lowrank.h"
#include "tcq.h"

/* A tensor's tables as decoding wants them. */
struct tables {
	hct_dtype dtype;
	size_t unit;
	uint32_t rank, columns;
	void *u;  /* tables of the tcq codec */
	float *v; /* rank x columns, times their scales */
};

/* Factors are coded as if they were this tensor. */
static const struct hct_tensor factor = {.name = "", .dtype = HCT_DTYPE_F32};

static void free_tables(void *p)
{
	struct tables *x = p;

	if (!x)
		return;
	if (x->u)
		hct_codec_tcq.free_tables(x->u);
	free(x->v);
	free(x);
}

/* Decodes V. */
static hct_error open_v(const struct hct_lowrank_tables *t, struct tables *x, const char **why)
{
	size_t bytes = (size_t)t->rank * t->columns * sizeof(float);
	struct hct_scratch scratch = {.simd = hct_simd_best()};
	struct hct_task task = {.tensor = &factor,
				.length = bytes,
				.end = bytes,
				.layer_count = 1,
				.layers_stored = 1,
				.scratch = &scratch};
	/* The payload is not padded where it lies. */
	uint8_t *payload = calloc(1, t->v_length + (size_t)HCT_PAYLOAD_PAD);
	void *tables = NULL;
	hct_error e = HCT_ERR_NOMEM;

	x->v = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
	if (payload && x->v) {
		memcpy(payload, t->v_payload, t->v_length);
		e = hct_codec_tcq.open_tables(&factor, t->v_tables, t->v_tables_length, &tables,
					      why);
	}
	if (!e) {
		task.tables = tables;
		task.layers[0] = (struct hct_payload){payload, t->v_length};
		e = hct_codec_tcq.decode(&task, (uint8_t *)x->v, why);
		hct_codec_tcq.free_tables(tables);
	}
	if (!e)
		hct_lowrank_scale(t, x->v);
	free(scratch.bytes);
	free(payload);
	return e;
}

static hct_error open_tables(const struct hct_tensor *tensor, const uint8_t *params, size_t length,
			     void **out, const char **why)
{
	struct hct_lowrank_tables t;
	struct tables *x;
	hct_error e;

	*out = NULL;
	if (!hct_tcq_has_dtype(tensor->dtype)) {
		*why = "the lowrank codec on a dtype that it does not code";
		return HCT_ERR_CORRUPT;
	}
	e = hct_lowrank_tables_unpack(params, length, &t, why);
	if (e)
		return e;
	x = calloc(1, sizeof *x);
	if (!x)
		return HCT_ERR_NOMEM;
	x->dtype = tensor->dtype;
	x->unit = hct_dtype_unit(tensor->dtype);
	x->rank = t.rank;
	x->columns = t.columns;
	e = hct_codec_tcq.open_tables(&factor, t.u_tables, t.u_tables_length, &x->u, why);
	if (!e)
		e = open_v(&t, x, why);
	if (e)
		free_tables(x);
	else
		*out = x;
	return e;
}

/* Decodes rows [first, end) of a chunk's U; free *out. */
static hct_error decode_u(const struct hct_task *task, size_t rows, size_t first, size_t end,
			  float **out, const char **why)
{
	const struct tables *x = task->tables;
	size_t row = x->rank * sizeof(float);
	struct hct_task part = {.tensor = &factor,
				.tables = x->u,
				.offset = task->offset / x->unit / x->columns * row,
				.length = rows * row,
				.begin = first * row,
				.end = end * row,
				.layers = {task->layers[0]},
				.layer_count = 1,
				.layers_stored = 1,
				.scratch = task->scratch};

	*out = aligned_alloc(64, ((end - first) * row + 63) & ~(size_t)63);
	return *out ? hct_codec_tcq.decode(&part, (uint8_t *)*out, why) : HCT_ERR_NOMEM;
}

/* Multiplies the wanted rows and hands out what is wanted of them. */
static hct_error finish(const struct hct_task *task, const float *u, size_t first, size_t end,
			uint8_t *dst)
{
	const struct tables *x = task->tables;
	hct_narrow *narrow = hct_dequant_find(task->scratch->simd)->narrow[x->dtype];
	hct_lowrank_multiply *multiply = hct_lowrank_find(task->scratch->simd);
	size_t row = x->columns * x->unit, rows, most = 16;
	uint8_t *scratch =
		hct_scratch_reserve(task->scratch, most * x->columns * (sizeof(float) + x->unit));
	uint8_t *out;
	float *w = (void *)scratch;

	if (!scratch)
		return HCT_ERR_NOMEM;
	out = scratch + most * x->columns * sizeof(float);
	for (size_t r = first; r < end; r += rows) {
		size_t from = r * row, to, begin = task->begin;

		rows = end - r < most ? end - r : most;
		to = (r + rows) * row;
		multiply(u + (r - first) * x->rank, rows, x->rank, x->v, x->columns, x->columns, w);
		if (from >= begin && to <= task->end) {
			narrow(w, rows * x->columns, dst + (from - begin));
			continue;
		}
		narrow(w, rows * x->columns, out);
		begin = from > begin ? from : begin;
		to = to < task->end ? to : task->end;
		memcpy(dst + (begin - task->begin), out + (begin - from), to - begin);
	}
	return HCT_OK;
}

static hct_error decode(const struct hct_task *task, uint8_t *dst, const char **why)
{
	const struct tables *x = task->tables;
	size_t row = x->columns * x->unit, first, end;
	float *u = NULL;
	hct_error e;

	if (task->length % row || task->offset % row) {
		*why = "a chunk that is not whole rows";
		return HCT_ERR_CORRUPT;
	}
	first = task->begin / row;
	end = (task->end + row - 1) / row;
	e = decode_u(task, task->length / row, first, end, &u, why);
	if (!e)
		e = finish(task, u, first, end, dst);
	free(u);
	return e;
}

const struct hct_codec hct_codec_lowrank = {.id = HCT_CODEC_LOWRANK,
					    .name = "lowrank",
					    .max_layers = 1,
					    .open_tables = open_tables,
					    .free_tables = free_tables,
					    .decode = decode};
