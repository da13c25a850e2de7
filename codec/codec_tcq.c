/* Decoding of the tcq codec: entropy stage, values, exceptions, layers, inverse transform. */
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "codec.h"
#include "dequant.h"
#include "flat.h"
#include "idct.h"
#include "split.h"
#include "tcq.h"
#include "tcq_decode.h"
#include "tcq_exceptions.h"

/* Groups that go through all stages at a time, so that what lies between them stays in the L1
 * cache. */
#define BLOCK_GROUPS   HCT_TCQ_BLOCK
#define BLOCK_ELEMENTS (BLOCK_GROUPS * HCT_GROUP)
#define TOGETHER       HCT_TCQ_TOGETHER
#define MAX_GROUPS     (1u << (HCT_MAX_SEGMENT_LOG2 - 6))
#define MAX_UNIT       8

/* A layer's tables as decoding wants them. */
struct layer {
	struct hct_tcq_layer t;
	struct hct_tcq_stage stage;
	struct hct_dequant dequant;
};

/* A tensor's. */
struct tables {
	hct_dtype dtype;
	size_t unit;
	unsigned layer_count, segment_log2;
	unsigned tile_rows, tile_columns;
	uint32_t columns;
	struct hct_direct direct; /* of the first layer, for elements of 8 or 16 bits */
	struct layer layers[];
};

/* What is under way while a chunk is decoded; in scratch memory. */
struct buffers {
	float sum[TOGETHER][BLOCK_ELEMENTS];
	float layer[BLOCK_ELEMENTS];
	uint8_t codes[TOGETHER][HCT_TCQ_STRIDE];
	uint8_t out[BLOCK_ELEMENTS * MAX_UNIT];
	uint8_t maps[TOGETHER][HCT_TCQ_MAX_LAYERS][MAX_GROUPS];
} __attribute__((aligned(64)));

/* One layer of a segment. */
struct part {
	struct hct_tcq_segment tcq;
	struct hct_tcq_exceptions exceptions;
	const uint8_t *listed; /* the exceptions' bytes */
	size_t listed_bytes;
	const uint8_t *raw;
};

/* One segment of a chunk. */
struct segment {
	size_t base; /* its first element */
	size_t elements, groups;
	size_t todo; /* groups that are to be decoded */
	struct part parts[HCT_TCQ_MAX_LAYERS];
};

/* A chunk while it is decoded. */
struct job {
	const struct hct_task *task;
	const struct tables *tables;
	uint8_t *dst;
	size_t elements, segment_elements, segment_count;
	size_t begin, end; /* elements that are wanted; whole bands where there are some */
	struct buffers *buffers;
	float *band;  /* the wanted elements' values, where tiles have several rows; or NULL */
	size_t pitch; /* floats from one of its rows to the next */
	int direct;   /* from codes to elements, without values between them */
	hct_tcq_decode *decode;
	const struct hct_dequant_loops *loops;
	hct_narrow *narrow;
	hct_idct *idct;
	const char **why;
};

static void free_tables(void *p)
{
	struct tables *x = p;

	for (unsigned i = 0; x && i < x->layer_count; i++)
		hct_tcq_stage_free(&x->layers[i].stage);
	free(x);
}

static hct_error open_tables(const struct hct_tensor *tensor, const uint8_t *params, size_t length,
			     void **out, const char **why)
{
	struct hct_tcq_tables *t;
	struct tables *x = NULL;
	hct_error e;

	*out = NULL;
	if (!hct_tcq_has_dtype(tensor->dtype)) {
		*why = "the tcq codec on a dtype that it does not code";
		return HCT_ERR_CORRUPT;
	}
	t = malloc(sizeof *t);
	if (!t)
		return HCT_ERR_NOMEM;
	e = hct_tcq_tables_unpack(params, length, t, why);
	if (e)
		goto out;
	e = HCT_ERR_NOMEM;
	x = aligned_alloc(64, (sizeof *x + t->layer_count * sizeof x->layers[0] + 63) & ~63ul);
	if (!x)
		goto out;
	memset(x, 0, sizeof *x + t->layer_count * sizeof x->layers[0]);
	x->dtype = tensor->dtype;
	x->unit = hct_dtype_unit(tensor->dtype);
	x->segment_log2 = t->segment_log2;
	x->tile_rows = 1u << t->tile_rows_log2;
	x->tile_columns = 1u << t->tile_columns_log2;
	x->columns = t->columns;
	for (; x->layer_count < t->layer_count; x->layer_count++) {
		struct layer *l = &x->layers[x->layer_count];

		l->t = t->layers[x->layer_count];
		if (hct_tcq_stage_init(&l->stage, &l->t, t->columns, x->unit))
			goto out;
		l->t.column_class = NULL; /* the index may go before the decoder */
		hct_dequant_init(&l->dequant, &l->t);
	}
	if (x->unit <= 2)
		hct_direct_init(&x->direct, &x->layers[0].t, x->dtype);
	*out = x;
	x = NULL;
	e = HCT_OK;
out:
	free_tables(x);
	free(t);
	return e;
}

static hct_error corrupt(const struct job *j, const char *why)
{
	*j->why = why;
	return HCT_ERR_CORRUPT;
}

/* The parts of a layer's payload that belong to one segment; *at runs on. */
static hct_error open_part(const struct job *j, unsigned layer, size_t i, size_t *at,
			   struct segment *s)
{
	const struct hct_payload *payload = &j->task->layers[layer];
	const struct layer *l = &j->tables->layers[layer];
	const uint8_t *entry = payload->data + i * HCT_TCQ_SEGMENT_BYTES;
	uint64_t a = hct_load32(entry), b = hct_load32(entry + 4), x = hct_load32(entry + 8);
	uint64_t map_bytes = hct_tcq_map_bytes(&l->t, s->groups);
	uint64_t raw_bytes = (uint64_t)s->groups * 8 * l->t.raw_bits;
	uint64_t all = HCT_TCQ_STATE_BYTES + map_bytes + a + b + x + raw_bytes;
	const uint8_t *p = payload->data + *at;
	struct part *part = &s->parts[layer];

	if (all > payload->length - *at)
		return corrupt(j, "a segment that does not fit its payload");
	*at += all;
	memset(part, 0, sizeof *part);
	memcpy(part->tcq.rans.sub[0].x, p, 2 * HCT_LANES);
	memcpy(part->tcq.rans.sub[1].x, p + 2 * HCT_LANES, 2 * HCT_LANES);
	p += HCT_TCQ_STATE_BYTES;
	part->tcq.rans.map = p; /* until it is unpacked */
	p += map_bytes;
	part->tcq.rans.sub[0].p = p;
	part->tcq.rans.sub[0].end = part->tcq.rans.sub[1].p = p + a;
	part->tcq.rans.sub[1].end = part->listed = p + a + b;
	part->listed_bytes = x;
	part->raw = part->tcq.raw = p + a + b + x;
	return HCT_OK;
}

/* Of the first element of a segment. */
static uint32_t column_of(const struct job *j, const struct segment *s)
{
	return (uint32_t)((j->task->offset / j->tables->unit + s->base) % j->tables->columns);
}

/* Makes a layer of a segment that open_part found ready for decoding. */
static hct_error start_part(const struct job *j, unsigned layer, struct segment *s, uint8_t *map)
{
	const struct layer *l = &j->tables->layers[layer];
	struct part *p = &s->parts[layer];
	const char *wrong;

	for (unsigned sub = 0; sub < 2; sub++)
		for (unsigned lane = 0; lane < HCT_LANES; lane++)
			if (p->tcq.rans.sub[sub].x[lane] < HCT_RANS_LOW)
				return corrupt(j, "an impossible start state");
	if (hct_tcq_map_unpack(&l->t, p->tcq.rans.map, s->groups, map))
		return corrupt(j, "a class that its tensor does not have");
	p->tcq.rans.map = map;
	p->tcq.rans.run_log2 = l->t.run_log2;
	p->tcq.column = column_of(j, s);
	wrong = hct_tcq_exceptions_start(&p->exceptions, p->listed, p->listed_bytes, s->elements);
	return wrong ? corrupt(j, wrong) : HCT_OK;
}

/* Reads the next exception of a layer of a segment. */
static hct_error next_exception(const struct job *j, struct hct_tcq_exceptions *x)
{
	const char *wrong = hct_tcq_exceptions_next(x);

	return wrong ? corrupt(j, wrong) : HCT_OK;
}

/* Adds the exceptions of groups from g on to their values. */
static hct_error add_exceptions(const struct job *j, unsigned layer, struct segment *s, size_t g,
				size_t groups, float *values)
{
	struct hct_tcq_exceptions *x = &s->parts[layer].exceptions;
	float step = j->tables->layers[layer].dequant.step;
	size_t first = g * HCT_GROUP, n = groups * HCT_GROUP;
	hct_error e = HCT_OK;

	while (x->at < first + n && !e) {
		if (x->at >= first)
			values[x->at - first] += (float)x->e * step;
		e = next_exception(j, x);
	}
	return e;
}

/* The same for elements of a layer that are made of codes at once. */
static hct_error patch_exceptions(const struct job *j, struct segment *s, size_t g, size_t groups,
				  const uint8_t *codes, const uint8_t *raw, uint8_t *elements)
{
	struct hct_tcq_exceptions *x = &s->parts[0].exceptions;
	const struct hct_dequant *q = &j->tables->layers[0].dequant;
	size_t first = g * HCT_GROUP, n = groups * HCT_GROUP;
	hct_error e = HCT_OK;

	while (x->at < first + n && !e) {
		if (x->at >= first) {
			size_t i = x->at - first, group = i / HCT_GROUP;
			float v = hct_dequant_value(q, codes + group * HCT_GROUP,
						    raw + group * 8 * q->raw_bits, i % HCT_GROUP);

			v += (float)x->e * q->step;
			hct_dequant_scalar.narrow[j->tables->dtype](&v, 1,
								    elements + i * j->tables->unit);
		}
		e = next_exception(j, x);
	}
	return e;
}

/* Where the n elements from e on go when all bytes of them are wanted, otherwise NULL. */
static uint8_t *place_of(const struct job *j, size_t e, size_t n)
{
	size_t unit = j->tables->unit;

	if (e * unit < j->task->begin || (e + n) * unit > j->task->end)
		return NULL;
	return j->dst + (e * unit - j->task->begin);
}

/* Copies what is wanted of the n elements from e on. */
static void copy_wanted(const struct job *j, const uint8_t *elements, size_t e, size_t n)
{
	size_t unit = j->tables->unit, first = e * unit, begin = first, end = (e + n) * unit;

	begin = begin > j->task->begin ? begin : j->task->begin;
	end = end < j->task->end ? end : j->task->end;
	if (begin < end)
		memcpy(j->dst + (begin - j->task->begin), elements + (begin - first), end - begin);
}

/* Hands out the n values from element e on, at most a block of them. */
static void hand_out(const struct job *j, const float *values, size_t e, size_t n)
{
	uint8_t *to = place_of(j, e, n);

	if (to == (const uint8_t *)values)
		return;
	j->narrow(values, n, to ? to : j->buffers->out);
	if (!to)
		copy_wanted(j, j->buffers->out, e, n);
}

/* Where the values of a block of whole groups are made. */
static float *values_of(const struct job *j, size_t which, size_t e, size_t n)
{
	int straight = j->tables->dtype == HCT_DTYPE_F32 && !j->idct;
	uint8_t *to = straight ? place_of(j, e, n) : NULL;

	return to && !((uintptr_t)to % sizeof(float)) ? (void *)to : j->buffers->sum[which];
}

/* The values of a layer of a block to dst, added to those there unless it is the first. */
static hct_error block_values(const struct job *j, unsigned layer, struct segment *s, size_t g,
			      size_t groups, const uint8_t *codes, float *dst)
{
	const struct layer *l = &j->tables->layers[layer];
	float *values = layer ? j->buffers->layer : dst;
	hct_error e;

	j->loops->floats(&l->dequant, codes, s->parts[layer].raw + g * 8 * l->t.raw_bits, groups,
			 values);
	e = add_exceptions(j, layer, s, g, groups, values);
	if (layer && !e)
		j->loops->add(dst, values, groups * HCT_GROUP);
	return e;
}

/* Where a wanted element is in the bands; *left: elements from there to the end of the row. */
static float *band_at(const struct job *j, size_t e, size_t *left)
{
	size_t columns = j->tables->columns, at = e - j->begin;

	*left = columns - at % columns;
	return j->band + at / columns * j->pitch + at % columns;
}

/* Puts the n values from element e on into the bands, as far as these go. */
static void keep(const struct job *j, const float *values, size_t e, size_t n)
{
	size_t end = e + n < j->end ? e + n : j->end;

	if (e < j->begin) {
		values += j->begin - e;
		e = j->begin;
	}
	while (e < end) {
		float *to = band_at(j, e, &n);

		n = n < end - e ? n : end - e;
		memcpy(to, values, n * sizeof *to);
		values += n;
		e += n;
	}
}

/* A block of which all layers have been added up. */
static void finish_block(const struct job *j, const struct segment *s, size_t g, size_t groups,
			 float *values)
{
	size_t first = s->base + g * HCT_GROUP, n = groups * HCT_GROUP;

	if (n > s->base + s->elements - first)
		n = s->base + s->elements - first;
	if (j->band) {
		keep(j, values, first, n);
		return;
	}
	if (j->idct)
		j->idct(values, n, n, 1, j->tables->tile_columns);
	hand_out(j, values, first, n);
}

/* A block from codes to elements. */
static hct_error direct_block(const struct job *j, struct segment *s, size_t g, size_t groups,
			      const uint8_t *codes)
{
	const struct tables *x = j->tables;
	size_t first = s->base + g * HCT_GROUP, n = groups * HCT_GROUP;
	uint8_t *to = place_of(j, first, n);
	uint8_t *elements = to ? to : j->buffers->out;
	const uint8_t *raw = s->parts[0].raw + g * 8 * x->layers[0].t.raw_bits;
	hct_error e;

	j->loops->direct[x->dtype](&x->direct, codes, raw, groups, elements);
	e = patch_exceptions(j, s, g, groups, codes, raw, elements);
	if (!e && !to) {
		size_t left = s->base + s->elements - first;

		copy_wanted(j, elements, first, n < left ? n : left);
	}
	return e;
}

/* Memory of all elements of a block, most likely that which they go to. */
static const uint8_t *ahead_of(const struct job *j, const struct segment *s, size_t g,
			       size_t groups)
{
	const uint8_t *to = place_of(j, s->base + g * HCT_GROUP, groups * HCT_GROUP);

	return to && !j->band ? to : j->buffers->out;
}

/* All stages of `groups` groups from group g on of some segments. */
static hct_error run_block(const struct job *j, struct segment *const *s, size_t count, size_t g,
			   size_t groups)
{
	struct buffers *b = j->buffers;
	unsigned layers = j->task->layer_count;

	for (unsigned l = 0; l < layers; l++) {
		struct hct_tcq_segment *tcq[TOGETHER];

		for (size_t i = 0; i < count; i++) {
			tcq[i] = &s[i]->parts[l].tcq;
			tcq[i]->ahead = ahead_of(j, s[i], g, groups);
		}
		j->decode(&j->tables->layers[l].stage, tcq, count, groups, b->codes[0]);
		for (size_t i = 0; i < count; i++) {
			size_t first = s[i]->base + g * HCT_GROUP, n = groups * HCT_GROUP;
			float *values;
			hct_error e;

			if (first + n <= j->begin)
				continue;
			/* one buffer for all of them, where nothing has to be kept */
			values = values_of(j, layers > 1 ? i : 0, first, n);
			e = j->direct ? direct_block(j, s[i], g, groups, b->codes[i])
				      : block_values(j, l, s[i], g, groups, b->codes[i], values);
			if (e)
				return e;
			if (!j->direct && l == layers - 1)
				finish_block(j, s[i], g, groups, values);
		}
	}
	return HCT_OK;
}

/* 0 when a layer of a segment has ended, or been broken off, as it may not. */
static int ended_well(const struct job *j, const struct segment *s)
{
	for (unsigned l = 0; l < j->task->layer_count; l++) {
		const struct hct_rans_segment *r = &s->parts[l].tcq.rans;

		if (s->todo == s->groups ? !hct_rans_finished(r)
					 : (r->sub[0].overrun | r->sub[1].overrun) >> 63 != 0)
			return 0;
	}
	return 1;
}

/* Decodes some segments together. */
static hct_error run_segments(const struct job *j, struct segment *s, size_t count)
{
	hct_error e = HCT_OK;
	size_t groups;

	for (size_t g = 0; !e; g += groups) {
		struct segment *left[TOGETHER];
		size_t n = 0;

		groups = BLOCK_GROUPS;
		for (size_t i = 0; i < count; i++)
			if (g < s[i].todo) {
				left[n++] = &s[i];
				groups = s[i].todo - g < groups ? s[i].todo - g : groups;
			}
		if (!n)
			break;
		e = run_block(j, left, n, g, groups);
	}
	for (size_t i = 0; i < count && !e; i++)
		if (!ended_well(j, &s[i]))
			e = corrupt(j, "a substream that does not end as it should");
	return e;
}

/* Says what segment i holds. */
static void place_segment(const struct job *j, size_t i, struct segment *s)
{
	s->base = i * j->segment_elements;
	s->elements = j->elements - s->base;
	if (s->elements > j->segment_elements)
		s->elements = j->segment_elements;
	s->groups = (s->elements + HCT_GROUP - 1) / HCT_GROUP;
}

/* Finds all layers of segment i and, when it is wanted, makes them ready. */
static hct_error open_segment(const struct job *j, size_t i, size_t at[HCT_TCQ_MAX_LAYERS],
			      struct segment *s, uint8_t (*maps)[MAX_GROUPS], int *wanted)
{
	hct_error e = HCT_OK;
	size_t end;

	place_segment(j, i, s);
	for (unsigned l = 0; l < j->task->layer_count && !e; l++)
		e = open_part(j, l, i, &at[l], s);
	*wanted = j->begin < s->base + s->elements && j->end > s->base;
	if (e || !*wanted)
		return e;
	end = j->end - s->base < s->elements ? j->end - s->base : s->elements;
	s->todo = (end + HCT_GROUP - 1) / HCT_GROUP;
	for (unsigned l = 0; l < j->task->layer_count && !e; l++)
		e = start_part(j, l, s, maps[l]);
	return e;
}

/* Where the first segment of each layer begins. */
static hct_error begin_layers(const struct job *j, size_t at[HCT_TCQ_MAX_LAYERS])
{
	for (unsigned l = 0; l < j->task->layer_count; l++) {
		at[l] = j->segment_count * HCT_TCQ_SEGMENT_BYTES;
		if (j->task->layers[l].length < at[l])
			return corrupt(j, "a payload that is too short");
	}
	return HCT_OK;
}

/* Whether the last segment of each layer ends where its payload does. */
static hct_error end_layers(const struct job *j, const size_t at[HCT_TCQ_MAX_LAYERS])
{
	for (unsigned l = 0; l < j->task->layer_count; l++)
		if (at[l] != j->task->layers[l].length)
			return corrupt(j, "bytes that belong to no segment");
	return HCT_OK;
}

/* Walks over the segments, decoding those that are wanted. */
static hct_error run(const struct job *j)
{
	size_t at[HCT_TCQ_MAX_LAYERS], ready = 0;
	struct segment s[TOGETHER];
	hct_error e = begin_layers(j, at);

	if (e)
		return e;
	for (size_t i = 0; i < j->segment_count; i++) {
		int wanted;

		e = open_segment(j, i, at, &s[ready], j->buffers->maps[ready], &wanted);
		if (!e && wanted && ++ready == TOGETHER) {
			e = run_segments(j, s, TOGETHER);
			ready = 0;
		}
		if (e)
			return e;
	}
	e = end_layers(j, at);
	return !e && ready ? run_segments(j, s, ready) : e;
}

/* Transforms the bands back and hands them out. */
static void finish_bands(const struct job *j)
{
	const struct tables *x = j->tables;
	size_t rows = (j->end - j->begin) / x->columns, n;
	size_t e = j->task->begin / x->unit, end = (j->task->end + x->unit - 1) / x->unit;

	for (size_t r = 0; r < rows; r += x->tile_rows)
		j->idct(j->band + r * j->pitch, j->pitch, x->columns, x->tile_rows,
			x->tile_columns);
	for (; e < end; e += n) {
		const float *values = band_at(j, e, &n);

		n = j->pitch == x->columns || n > end - e ? end - e : n;
		n = n < BLOCK_ELEMENTS ? n : BLOCK_ELEMENTS;
		hand_out(j, values, e, n);
	}
}

/* A good distance between rows, for the caches' sake: see idct.h. */
static size_t pitch_of(size_t columns)
{
	size_t pitch = (columns + 15) & ~(size_t)15;

	if (columns < 64)
		return columns;
	return pitch % 512 ? pitch : pitch + 16;
}

/* Checks how a chunk is cut, and finds what of it has to be decoded.  Returns the floats of the
 * wanted bands in *band. */
static hct_error measure(struct job *j, size_t *band)
{
	const struct tables *x = j->tables;
	const struct hct_task *task = j->task;
	size_t whole = 1; /* elements that come together */
	uint64_t first = task->offset / x->unit;

	*band = 0;
	if (task->length % x->unit || task->offset % x->unit)
		return corrupt(j, "a chunk that is not whole elements");
	if (task->layer_count > x->layer_count ||
	    (task->layers_stored && task->layers_stored != x->layer_count))
		return corrupt(j, "layers that its tables do not have");
	j->elements = task->length / x->unit;
	j->segment_count = (j->elements + j->segment_elements - 1) / j->segment_elements;
	if (x->tile_rows > 1)
		whole = (size_t)x->tile_rows * x->columns;
	else
		whole = x->tile_columns;
	if (j->elements % whole || first % (x->tile_rows > 1 ? x->columns : whole))
		return corrupt(j, "a chunk that is not whole tiles");
	j->begin = task->begin / x->unit;
	j->end = (task->end + x->unit - 1) / x->unit;
	if (x->tile_rows > 1) {
		j->begin -= j->begin % whole;
		j->end += (whole - j->end % whole) % whole;
		j->pitch = pitch_of(x->columns);
		*band = (j->end - j->begin) / x->columns * j->pitch;
	}
	return HCT_OK;
}

static hct_error decode(const struct hct_task *task, uint8_t *dst, const char **why)
{
	const struct tables *x = task->tables;
	hct_simd simd = task->scratch->simd;
	const struct hct_dequant_loops *loops = hct_dequant_find(simd);
	int tiles = x->tile_rows * x->tile_columns > 1;
	struct job j = {.task = task,
			.tables = x,
			.dst = dst,
			.segment_elements = (size_t)1 << x->segment_log2,
			.direct = task->layer_count == 1 && !tiles && x->unit <= 2,
			.decode = hct_tcq_decoder(simd),
			.loops = loops,
			.narrow = loops->narrow[x->dtype],
			.idct = tiles ? hct_idct_find(simd) : NULL,
			.why = why};
	size_t band;
	uint8_t *scratch;
	hct_error e = measure(&j, &band);

	if (e)
		return e;
	scratch = hct_scratch_reserve(task->scratch, sizeof *j.buffers + band * sizeof *j.band);
	if (!scratch)
		return HCT_ERR_NOMEM;
	j.buffers = (void *)scratch;
	j.band = band ? (void *)(scratch + sizeof *j.buffers) : NULL;
	e = run(&j);
	if (!e && j.band)
		finish_bands(&j);
	return e;
}

/* For devices --------------------------------------------------------------------------- */

static size_t wide_words(const struct layer *l)
{
	return (size_t)2 * HCT_RANS_TOTAL * l->t.column_classes * l->t.row_classes;
}

/* The words of the stage, in another order of their parts, and with the parity of their table. */
static void flatten_wide(const struct layer *l, uint32_t *out)
{
	for (size_t i = 0; i < wide_words(l); i++) {
		uint32_t w = l->stage.wide[i], parity = i / HCT_RANS_TOTAL % 2;

		out[i] = (w & 255) | w >> 24 << HCT_FLAT_STATE | (w >> 16 & 31) << 16 |
			 parity << 21 | (w >> 8 & 255) << 24;
	}
}

/* Of the classes of columns. */
static size_t column_bytes(const struct tables *x, const struct layer *l)
{
	return l->stage.columns ? (size_t)x->columns + HCT_GROUP : 0;
}

static size_t flat_bytes(const void *tables)
{
	const struct tables *x = tables;
	size_t n = sizeof(struct hct_flat_tcq);

	for (unsigned i = 0; i < x->layer_count; i++)
		n += wide_words(&x->layers[i]) * sizeof(uint32_t) + column_bytes(x, &x->layers[i]);
	return (n + 15) & ~(size_t)15;
}

static void flatten(const void *tables, void *out)
{
	const struct tables *x = tables;
	struct hct_flat_tcq *f = out;
	size_t bytes = flat_bytes(tables), at = sizeof *f;

	memset(out, 0, bytes);
	f->bytes = (uint32_t)bytes;
	f->dtype = x->dtype;
	f->layer_count = x->layer_count;
	f->columns = x->columns;
	f->tile_rows_log2 = hct_ctz64(x->tile_rows);
	f->tile_columns_log2 = hct_ctz64(x->tile_columns);
	for (unsigned i = 0; i < x->layer_count; i++) {
		const struct layer *l = &x->layers[i];
		struct hct_flat_layer *g = &f->layers[i];

		g->column_classes = l->t.column_classes;
		g->row_classes = l->t.row_classes;
		g->run_log2 = l->t.run_log2;
		g->raw_bits = l->t.raw_bits;
		g->odd = l->stage.odd << HCT_FLAT_STATE;
		g->step = l->dequant.step;
		memcpy(g->point, l->dequant.point, sizeof g->point);
		g->wide_at = (uint32_t)at;
		flatten_wide(l, (uint32_t *)((uint8_t *)out + at));
		at += wide_words(l) * sizeof(uint32_t);
	}
	/* bytes come behind all words */
	for (unsigned i = 0; i < x->layer_count; i++) {
		size_t n = column_bytes(x, &x->layers[i]);

		if (!n)
			continue;
		f->layers[i].columns_at = (uint32_t)at;
		memcpy((uint8_t *)out + at, x->layers[i].stage.columns, n);
		at += n;
	}
}

/* Lists segment i, the layers of which begin at at[] of their payloads. */
static hct_error list_segment(const struct job *j, size_t i, size_t at[HCT_TCQ_MAX_LAYERS],
			      struct hct_flat_list *list)
{
	struct hct_flat_tcq_segment *f = hct_flat_add_tcq(list);
	struct segment s;

	if (!f)
		return HCT_ERR_NOMEM;
	place_segment(j, i, &s);
	for (unsigned l = 0; l < j->task->layer_count; l++) {
		const struct hct_rans_segment *r = &s.parts[l].tcq.rans;
		hct_error e;

		f->parts[l].at = list->in[l] + at[l];
		e = open_part(j, l, i, &at[l], &s);
		if (e)
			return e;
		f->parts[l].a = (uint32_t)(r->sub[0].end - r->sub[0].p);
		f->parts[l].b = (uint32_t)(r->sub[1].end - r->sub[1].p);
		f->parts[l].x = (uint32_t)s.parts[l].listed_bytes;
	}
	f->out = j->idct ? list->values + s.base * sizeof(float)
			 : list->out + s.base * j->tables->unit;
	f->elements = (uint32_t)s.elements;
	f->column = column_of(j, &s);
	f->item = list->item;
	f->layers = j->task->layer_count;
	return HCT_OK;
}

/* Lists the tiles of a chunk.  Tiles of one row lie in a row as long as the chunk. */
static hct_error list_tiles(const struct job *j, struct hct_flat_list *list)
{
	const struct tables *x = j->tables;
	struct hct_flat_tiles *f = hct_flat_add_tiles(list);

	if (!f)
		return HCT_ERR_NOMEM;
	f->values = list->values;
	f->out = list->out;
	f->columns = x->tile_rows > 1 ? x->columns : (uint32_t)j->elements;
	f->rows = (uint32_t)(j->elements / f->columns);
	f->tile_rows_log2 = hct_ctz64(x->tile_rows);
	f->tile_columns_log2 = hct_ctz64(x->tile_columns);
	f->dtype = x->dtype;
	return HCT_OK;
}

/* What decode() finds wrong before it decodes is found here, too. */
static hct_error list(const struct hct_task *task, struct hct_flat_list *list, const char **why)
{
	const struct tables *x = task->tables;
	size_t at[HCT_TCQ_MAX_LAYERS], band, count = list->tcq_count;
	struct job j = {.task = task,
			.tables = x,
			.segment_elements = (size_t)1 << x->segment_log2,
			.idct = x->tile_rows * x->tile_columns > 1 ? hct_idct_scalar : NULL,
			.why = why};
	hct_error e = measure(&j, &band);

	if (e)
		return e;
	if (task->begin || task->end != task->length)
		return HCT_ERR_UNSUPPORTED;
	e = begin_layers(&j, at);
	for (size_t i = 0; i < j.segment_count && !e; i++)
		e = list_segment(&j, i, at, list);
	if (!e)
		e = end_layers(&j, at);
	if (!e && j.idct)
		e = list_tiles(&j, list);
	if (e)
		list->tcq_count = count;
	return e;
}

const struct hct_codec hct_codec_tcq = {.id = HCT_CODEC_TCQ,
					.name = "tcq",
					.max_layers = HCT_TCQ_MAX_LAYERS,
					.open_tables = open_tables,
					.free_tables = free_tables,
					.decode = decode,
					.flat_bytes = flat_bytes,
					.flatten = flatten,
					.list = list};
