/* Decoding of the split codec: entropy stage, joining, exceptions. */
#include <stdlib.h>
#include <string.h>

#include "bits.h"
#include "bytes.h"
#include "classmap.h"
#include "codec.h"
#include "flat.h"
#include "gaps.h"
#include "join.h"
#include "onepass.h"
#include "rans.h"
#include "split.h"

/* Groups that are decoded and joined at a time, so that symbols stay in the L1 cache. */
#define BLOCK_GROUPS 64
#define MAX_GROUPS   (1u << (HCT_MAX_SEGMENT_LOG2 - 6))

/* A tensor's tables as decoding wants them. */
struct tables {
	struct hct_split_tables t;
	struct hct_join_tables join;
	uint16_t *shifts; /* of join */
	struct hct_rans_class classes[];
};

/* One segment of a chunk. */
struct segment {
	struct hct_rans_segment rans;
	const uint8_t *exceptions;
	size_t exception_bytes;
	const uint8_t *fields, *tail;
	size_t elements, groups;
	uint32_t column;   /* of its first element */
	size_t begin, end; /* elements of the segment that are wanted: begin is the first of a
			    * group, end that too or the segment's last */
	uint8_t *dst;      /* of element begin */
	uint8_t *symbols;  /* BLOCK_GROUPS groups */
	uint8_t *map;
};

/* A chunk while it is decoded. */
struct job {
	const struct hct_task *task;
	const struct tables *tables;
	const struct hct_layout *layout;
	const uint8_t *payload;
	size_t elements, segment_elements, segment_count;
	const uint8_t *tail; /* decompressed where it was compressed */
	hct_rans_decode *rans;
	hct_join *join;
	hct_onepass *onepass; /* both of them in one; may be NULL */
	const char **why;
};

static void free_tables(void *p)
{
	struct tables *x = p;

	if (x)
		free(x->shifts);
	free(x);
}

static int init_join(struct hct_join_tables *j, const struct hct_split_tables *t, uint16_t **shifts)
{
	const struct hct_layout *l = t->layout;
	unsigned joint = l->joint_bits, m = l->mantissa_bits;
	uint32_t period = t->period ? t->period : 1;

	for (unsigned s = 0; s < HCT_SYMBOLS; s++) {
		unsigned e = t->exponents[s >> joint];

		j->head[s] = (uint16_t)(e << m | (s & ((1u << joint) - 1)) << (m - joint));
		j->head8[s] = (uint8_t)j->head[s];
		j->low[s] = (uint8_t)e;
	}
	*shifts = malloc((period + HCT_GROUP) * sizeof **shifts);
	if (!*shifts)
		return 0;
	for (uint32_t i = 0; i < period; i++) {
		unsigned d = t->period ? (unsigned)t->shifts[i] : 0;

		(*shifts)[i] = (uint16_t)((d & ((1u << l->exponent_bits) - 1)) << m);
	}
	for (uint32_t i = 0; i < HCT_GROUP; i++)
		(*shifts)[period + i] = (*shifts)[i % period];
	j->layout = l;
	j->period = period;
	j->step = HCT_GROUP % period;
	j->shifts = *shifts;
	return 1;
}

static hct_error open_tables(const struct hct_tensor *tensor, const uint8_t *params, size_t length,
			     void **out, const char **why)
{
	const struct hct_layout *layout = hct_layout_find(tensor->dtype);
	struct hct_split_tables t;
	struct tables *x;
	hct_error e;

	*out = NULL;
	if (!layout) {
		*why = "the split codec on a dtype that it does not split";
		return HCT_ERR_CORRUPT;
	}
	e = hct_split_tables_unpack(layout, params, length, &t, why);
	if (e)
		return e;
	x = aligned_alloc(64, (sizeof *x + t.class_count * sizeof x->classes[0] + 63) & ~63ul);
	if (!x || !init_join(&x->join, &t, &x->shifts)) {
		free(x);
		return HCT_ERR_NOMEM;
	}
	x->t = t;
	x->t.shifts = NULL; /* the index may go before the decoder: keep no pointer into it */
	for (unsigned k = 0; k < t.class_count; k++)
		hct_rans_class_init(&x->classes[k], t.freq[k]);
	*out = x;
	return HCT_OK;
}

static hct_error corrupt(const struct job *j, const char *why)
{
	*j->why = why;
	return HCT_ERR_CORRUPT;
}

static size_t map_bytes_of(const struct tables *x, size_t groups)
{
	return hct_class_map_bytes(x->t.class_count, x->t.run_log2, groups);
}

/* The parts of the payload that belong to one segment; *at runs on. */
static hct_error open_segment(const struct job *j, size_t i, size_t *at, size_t limit,
			      struct segment *s)
{
	const uint8_t *entry = j->payload + HCT_SPLIT_HEAD_BYTES + i * HCT_SPLIT_SEGMENT_BYTES;
	uint64_t a = hct_load32(entry), b = hct_load32(entry + 4), x = hct_load32(entry + 8);
	const uint8_t *p = j->payload + *at;
	uint64_t left = limit - *at, map_bytes, field_bytes;

	s->elements = j->elements - i * j->segment_elements;
	if (s->elements > j->segment_elements)
		s->elements = j->segment_elements;
	s->groups = (s->elements + HCT_GROUP - 1) / HCT_GROUP;
	map_bytes = map_bytes_of(j->tables, s->groups);
	field_bytes = s->groups * 8 * j->layout->field_bits;
	if (HCT_SPLIT_STATE_BYTES + map_bytes + a + b + x + field_bytes > left)
		return corrupt(j, "a segment that does not fit its payload");
	memset(&s->rans, 0, sizeof s->rans);
	memcpy(s->rans.sub[0].x, p, 2 * HCT_LANES);
	memcpy(s->rans.sub[1].x, p + 2 * HCT_LANES, 2 * HCT_LANES);
	p += HCT_SPLIT_STATE_BYTES + map_bytes;
	s->rans.sub[0].p = p;
	s->rans.sub[0].end = s->rans.sub[1].p = p + a;
	s->rans.sub[1].end = s->exceptions = p + a + b;
	s->exception_bytes = x;
	s->fields = p + a + b + x;
	s->tail = j->tail + i * j->segment_elements * j->layout->tail;
	*at += HCT_SPLIT_STATE_BYTES + map_bytes + a + b + x + field_bytes;
	return HCT_OK;
}

/* Of the first element of segment i. */
static uint32_t column_of(const struct job *j, size_t i)
{
	return (uint32_t)((j->task->offset / j->layout->unit + i * j->segment_elements) %
			  j->tables->join.period);
}

/* Makes a segment that open_segment found ready for decoding. */
static hct_error start_segment(const struct job *j, size_t i, struct segment *s)
{
	const struct tables *x = j->tables;
	const uint8_t *map = s->rans.sub[0].p - map_bytes_of(x, s->groups);

	for (unsigned sub = 0; sub < 2; sub++)
		for (unsigned lane = 0; lane < HCT_LANES; lane++)
			if (s->rans.sub[sub].x[lane] < HCT_RANS_LOW)
				return corrupt(j, "an impossible start state");
	s->rans.classes = x->classes;
	s->rans.run_log2 = x->t.run_log2;
	s->rans.map = s->map;
	s->column = column_of(j, i);
	if (hct_class_map_unpack(map, x->t.class_count, x->t.run_log2, s->groups, s->map))
		return corrupt(j, "a class that its tensor does not have");
	return HCT_OK;
}

/* Joins `groups` groups from group g on, as far as they are wanted. */
static void join_block(const struct job *j, struct segment *s, size_t g, size_t groups)
{
	const struct hct_layout *l = j->layout;
	size_t wanted = s->begin / HCT_GROUP, full = s->end / HCT_GROUP, skip;
	uint8_t last[HCT_GROUP * 8], tail[HCT_GROUP * 6] = {0};
	uint32_t column;
	const uint8_t *fields, *symbols;

	skip = wanted > g ? wanted - g : 0;
	if (skip >= groups)
		return;
	g += skip;
	groups -= skip;
	symbols = s->symbols + skip * HCT_GROUP;
	fields = s->fields + g * 8 * l->field_bits;
	column = (s->column + (uint32_t)g * HCT_GROUP) % j->tables->join.period;
	if (g + groups <= full) {
		j->join(&j->tables->join, symbols, fields, s->tail + g * HCT_GROUP * l->tail,
			column, groups, s->dst + (g * HCT_GROUP - s->begin) * l->unit);
		return;
	}
	/* The last group is not full: join it into a buffer of its own. */
	if (full > g) {
		size_t n = full - g;

		j->join(&j->tables->join, symbols, fields, s->tail + g * HCT_GROUP * l->tail,
			column, n, s->dst + (g * HCT_GROUP - s->begin) * l->unit);
		symbols += n * HCT_GROUP;
		fields += n * 8 * l->field_bits;
		column = (uint32_t)((column + (uint64_t)n * HCT_GROUP) % j->tables->join.period);
	}
	if (s->end % HCT_GROUP) {
		size_t n = s->end % HCT_GROUP;

		memcpy(tail, s->tail + full * HCT_GROUP * l->tail, n * l->tail);
		j->join(&j->tables->join, symbols, fields, tail, column, 1, last);
		memcpy(s->dst + (full * HCT_GROUP - s->begin) * l->unit, last, n * l->unit);
	}
}

/* Replaces the exponent of an element. */
static inline void patch(const struct job *j, const struct segment *s, size_t element,
			 uint32_t column, unsigned value)
{
	const struct hct_layout *l = j->layout;
	const struct hct_join_tables *t = &j->tables->join;
	uint8_t *p = s->dst + (element - s->begin) * l->unit;
	unsigned place = l->mantissa_bits, mask = ((1u << l->exponent_bits) - 1) << place;
	unsigned head = ((value << place) + t->shifts[column]) & mask;
	uint64_t v;

	if (l->unit == 2) {
		uint16_t h = hct_load16(p);

		h &= (uint16_t) ~(mask << 8 * l->tail);
		hct_store16(p, (uint16_t)(h | head << 8 * l->tail));
		return;
	}
	v = 0;
	memcpy(&v, p, l->unit);
	v &= ~((uint64_t)mask << 8 * l->tail);
	v |= (uint64_t)head << 8 * l->tail;
	memcpy(p, &v, l->unit);
}

/* The next exception: how many elements after the last one, and its exponent. */
static inline size_t take_exception(const struct job *j, struct hct_bit_reader *bits, unsigned rice,
				    unsigned *value)
{
	uint64_t v = hct_bits_peek(bits);
	size_t gap;
	unsigned length = hct_gap_look(v, rice, &gap);
	unsigned index = (unsigned)__builtin_ctzll(v >> length | 1u << HCT_RARE_OTHER);

	/* One load holds all of it, but for an exponent that is not in the table. */
	bits->at += length + index + (index < HCT_RARE_OTHER);
	*value = index < HCT_RARE_OTHER ? j->tables->t.rare[index]
					: hct_bits_take(bits, j->layout->exponent_bits);
	return gap;
}

/* Applies the exceptions of a segment to the elements that are wanted. */
static hct_error apply_exceptions(const struct job *j, const struct segment *s)
{
	struct hct_bit_reader bits = {.data = s->exceptions + HCT_EXCEPTION_HEAD};
	size_t count, at = 0; /* element behind the last exception */
	uint32_t column = s->column, period = j->tables->join.period; /* of that element */
	unsigned rice;

	if (!s->exception_bytes)
		return HCT_OK;
	if (s->exception_bytes <= HCT_EXCEPTION_HEAD)
		return corrupt(j, "an incomplete list of exceptions");
	count = hct_load32(s->exceptions);
	rice = s->exceptions[4];
	bits.end = 8 * (s->exception_bytes - HCT_EXCEPTION_HEAD);
	if (!count || rice > HCT_MAX_RICE)
		return corrupt(j, "an impossible list of exceptions");
	for (size_t i = 0; i < count; i++) {
		unsigned value;
		size_t gap = take_exception(j, &bits, rice, &value);

		at += gap;
		if (bits.at > bits.end || at >= s->elements)
			return corrupt(j, "an exception behind the end");
		/* A gap is below 2^17, and mostly shorter than a row: seldom divide. */
		column += (uint32_t)gap;
		if (column >= period)
			column -= period;
		if (column >= period)
			column %= period;
		if (at >= s->begin && at < s->end)
			patch(j, s, at, column, value);
		at++;
		column = column + 1 == period ? 0 : column + 1;
	}
	if (bits.end - bits.at >= 8 || hct_bits_take(&bits, (unsigned)(bits.end - bits.at)))
		return corrupt(j, "bits behind the last exception");
	return HCT_OK;
}

/* Decodes as many groups of two segments as a one-pass loop can, which wants all of them whole.
 * Returns how many. */
static size_t run_onepass(const struct job *j, struct segment *s)
{
	size_t a = s[0].elements / HCT_GROUP, b = s[1].elements / HCT_GROUP;
	size_t groups = a < b ? a : b;
	struct hct_onepass_part part[2];

	if (!j->onepass || s[0].begin || s[1].begin || s[0].end < s[0].elements ||
	    s[1].end < s[1].elements)
		return 0;
	for (unsigned i = 0; i < 2; i++)
		part[i] = (struct hct_onepass_part){&s[i].rans, s[i].fields, s[i].tail, s[i].column,
						    s[i].dst};
	j->onepass(&j->tables->join, &part[0], &part[1], groups);
	return groups;
}

/* Decodes one segment, or two together. */
static hct_error run_segments(const struct job *j, struct segment *s, size_t n)
{
	size_t todo[2] = {(s[0].end + HCT_GROUP - 1) / HCT_GROUP, 0}, g = 0;
	hct_error e = HCT_OK;

	if (n == 2) {
		todo[1] = (s[1].end + HCT_GROUP - 1) / HCT_GROUP;
		g = run_onepass(j, s);
	}
	while (g < todo[0] || g < todo[1]) {
		size_t most = todo[0] > todo[1] ? todo[0] : todo[1];
		size_t least = todo[0] < todo[1] ? todo[0] : todo[1];
		size_t block = (g < least ? least : most) - g;

		block = block < BLOCK_GROUPS ? block : BLOCK_GROUPS;
		if (g < least)
			j->rans(&s[0].rans, s[0].symbols, &s[1].rans, s[1].symbols, block);
		else if (todo[0] > todo[1])
			j->rans(&s[0].rans, s[0].symbols, NULL, NULL, block);
		else
			j->rans(&s[1].rans, s[1].symbols, NULL, NULL, block);
		for (size_t i = 0; i < n; i++)
			if (g < todo[i])
				join_block(j, &s[i], g, block);
		g += block;
	}
	for (size_t i = 0; i < n && !e; i++) {
		if (todo[i] == s[i].groups
			    ? !hct_rans_finished(&s[i].rans)
			    : (s[i].rans.sub[0].overrun | s[i].rans.sub[1].overrun) >> 63)
			e = corrupt(j, "a substream that does not end as it should");
		else
			e = apply_exceptions(j, &s[i]);
	}
	return e;
}

/* Finds where the tail lies, and decompresses it behind `scratch` when need be. */
static hct_error open_tail(struct job *j, size_t length, uint8_t *scratch)
{
	const uint8_t *stored = j->payload + j->task->layers[0].length - length;
	size_t bytes = j->elements * j->layout->tail;

	j->tail = stored;
	if (j->payload[0] == HCT_TAIL_STORED)
		return length == bytes ? HCT_OK : corrupt(j, "a tail of the wrong length");
	if (j->payload[0] != HCT_TAIL_ZSTD)
		return corrupt(j, "an unknown encoding of the tail");
	j->tail = scratch;
	if (hct_zstd_decode(j->task->scratch, stored, length, scratch, bytes))
		return corrupt(j, "a damaged tail");
	return HCT_OK;
}

/* Walks over the segments, decoding those that the elements [begin, end) touch to dst,
 * which is where element begin, the first of a group, goes. */
static hct_error run(struct job *j, size_t begin, size_t end, uint8_t *dst, uint8_t *buffers)
{
	size_t at = HCT_SPLIT_HEAD_BYTES + j->segment_count * HCT_SPLIT_SEGMENT_BYTES;
	size_t limit = j->task->layers[0].length - hct_load32(j->payload + 4), ready = 0;
	struct segment s[2];

	for (size_t i = 0; i < j->segment_count; i++) {
		struct segment *c = &s[ready];
		size_t base = i * j->segment_elements;
		hct_error e = open_segment(j, i, &at, limit, c);

		if (!e && begin < base + c->elements && end > base) {
			c->symbols = buffers + ready * (BLOCK_GROUPS * HCT_GROUP + MAX_GROUPS);
			c->map = c->symbols + BLOCK_GROUPS * HCT_GROUP;
			c->begin = begin > base ? begin - base : 0;
			c->end = end - base < c->elements ? end - base : c->elements;
			c->dst = dst + (base + c->begin - begin) * j->layout->unit;
			e = start_segment(j, i, c);
			if (!e && ++ready == 2) {
				e = run_segments(j, s, 2);
				ready = 0;
			}
		}
		if (e)
			return e;
	}
	if (at != limit)
		return corrupt(j, "bytes that belong to no segment");
	return ready ? run_segments(j, s, 1) : HCT_OK;
}

/* Checks the head of a chunk. */
static hct_error open_job(struct job *j, const struct hct_task *task, const char **why)
{
	const struct tables *x = task->tables;
	const struct hct_layout *l = x->t.layout;
	size_t length = task->layers[0].length;

	*j = (struct job){.task = task,
			  .tables = x,
			  .layout = l,
			  .payload = task->layers[0].data,
			  .elements = task->length / l->unit,
			  .segment_elements = (size_t)1 << x->t.segment_log2,
			  .why = why};
	if (task->length % l->unit)
		return corrupt(j, "a chunk that is not whole elements");
	j->segment_count = (j->elements + j->segment_elements - 1) / j->segment_elements;
	if (length < HCT_SPLIT_HEAD_BYTES + j->segment_count * HCT_SPLIT_SEGMENT_BYTES ||
	    hct_load32(j->payload + 4) >
		    length - HCT_SPLIT_HEAD_BYTES - j->segment_count * HCT_SPLIT_SEGMENT_BYTES)
		return corrupt(j, "a payload that is too short");
	return HCT_OK;
}

static hct_error decode(const struct hct_task *task, uint8_t *dst, const char **why)
{
	const struct hct_layout *l = ((const struct tables *)task->tables)->t.layout;
	size_t buffers = 2 * (BLOCK_GROUPS * HCT_GROUP + MAX_GROUPS), tail_bytes, begin, end;
	uint8_t *scratch, *aside = NULL;
	struct job j;
	hct_error e = open_job(&j, task, why);

	if (e)
		return e;
	j.rans = hct_rans_decoder(task->scratch->simd);
	j.join = hct_joiner(task->scratch->simd, l);
	j.onepass = hct_onepass_find(task->scratch->simd, l);
	/* A range that does not fall on groups is decoded aside and copied. */
	begin = task->begin / l->unit / HCT_GROUP * HCT_GROUP;
	end = (task->end + l->unit - 1) / l->unit;
	end = (end + HCT_GROUP - 1) / HCT_GROUP * HCT_GROUP;
	end = end < j.elements ? end : j.elements;
	tail_bytes = j.payload[0] == HCT_TAIL_ZSTD ? j.elements * l->tail + 64 : 0;
	scratch =
		hct_scratch_reserve(task->scratch, buffers + tail_bytes + (end - begin) * l->unit);
	if (!scratch)
		return HCT_ERR_NOMEM;
	e = open_tail(&j, hct_load32(j.payload + 4), scratch + buffers);
	if (e)
		return e;
	if (begin * l->unit != task->begin || end * l->unit != task->end)
		aside = scratch + buffers + tail_bytes;
	e = run(&j, begin, end, aside ? aside : dst, scratch);
	if (!e && aside)
		memcpy(dst, aside + (task->begin - begin * l->unit), task->end - task->begin);
	return e;
}

/* For devices --------------------------------------------------------------------------- */

static size_t flat_bytes(const void *tables)
{
	const struct tables *x = tables;
	size_t n = sizeof(struct hct_flat_split) + x->t.class_count * sizeof x->classes[0].wide +
		   (x->join.period + HCT_GROUP) * sizeof *x->shifts;

	return (n + 15) & ~(size_t)15;
}

static void flatten(const void *tables, void *out)
{
	const struct tables *x = tables;
	struct hct_flat_split *f = out;
	size_t bytes = flat_bytes(tables);
	uint32_t *wide = (uint32_t *)(f + 1);

	memset(out, 0, bytes);
	*f = (struct hct_flat_split){.bytes = (uint32_t)bytes,
				     .class_count = x->t.class_count,
				     .run_log2 = x->t.run_log2,
				     .unit = x->t.layout->unit,
				     .exponent_bits = x->t.layout->exponent_bits,
				     .period = x->join.period,
				     .wide_at = sizeof *f};
	memcpy(f->rare, x->t.rare, sizeof f->rare);
	for (unsigned k = 0; k < x->t.class_count; k++)
		for (unsigned i = 0; i < HCT_RANS_TOTAL; i++) {
			uint32_t w = x->classes[k].wide[i];

			*wide++ = (w & 255) | (uint32_t)x->join.head[w >> 16] << 8 |
				  (w >> 8 & 255) << 24;
		}
	f->shifts_at = (uint32_t)((uint8_t *)wide - (uint8_t *)out);
	memcpy(wide, x->shifts, (x->join.period + HCT_GROUP) * sizeof *x->shifts);
}

/* Lists segment i, which begins at *at of the payload. */
static hct_error list_segment(const struct job *j, size_t i, size_t *at, size_t limit,
			      struct hct_flat_list *list)
{
	uint64_t begin = list->in[0] + *at;
	struct hct_flat_split_segment *f;
	struct segment s;
	hct_error e = open_segment(j, i, at, limit, &s);

	if (e)
		return e;
	f = hct_flat_add_split(list);
	if (!f)
		return HCT_ERR_NOMEM;
	f->part.at = begin;
	f->part.a = (uint32_t)(s.rans.sub[0].end - s.rans.sub[0].p);
	f->part.b = (uint32_t)(s.rans.sub[1].end - s.rans.sub[1].p);
	f->part.x = (uint32_t)s.exception_bytes;
	f->tail = list->in[0] + (uint64_t)(s.tail - j->payload);
	f->out = list->out + i * j->segment_elements * j->layout->unit;
	f->elements = (uint32_t)s.elements;
	f->column = column_of(j, i);
	f->item = list->item;
	return HCT_OK;
}

/* What decode() finds wrong before it decodes is found here, too.  A tail that is compressed is
 * the CPU's. */
static hct_error list(const struct hct_task *task, struct hct_flat_list *list, const char **why)
{
	size_t at, limit, count = list->split_count;
	struct job j;
	hct_error e = open_job(&j, task, why);

	if (e)
		return e;
	if (j.payload[0] == HCT_TAIL_ZSTD || task->begin || task->end != task->length)
		return HCT_ERR_UNSUPPORTED;
	e = open_tail(&j, hct_load32(j.payload + 4), NULL);
	at = HCT_SPLIT_HEAD_BYTES + j.segment_count * HCT_SPLIT_SEGMENT_BYTES;
	limit = task->layers[0].length - hct_load32(j.payload + 4);
	for (size_t i = 0; i < j.segment_count && !e; i++)
		e = list_segment(&j, i, &at, limit, list);
	if (!e && at != limit)
		e = corrupt(&j, "bytes that belong to no segment");
	if (e)
		list->split_count = count;
	return e;
}

const struct hct_codec hct_codec_split = {.id = HCT_CODEC_SPLIT,
					  .name = "split",
					  .max_layers = 1,
					  .open_tables = open_tables,
					  .free_tables = free_tables,
					  .decode = decode,
					  .flat_bytes = flat_bytes,
					  .flatten = flatten,
					  .list = list};
