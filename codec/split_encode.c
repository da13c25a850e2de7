/* Encoding chunks with the split codec. */
#include <string.h>

#include <zstd.h>

#include "bits.h"
#include "bytes.h"
#include "cut.h"
#include "gaps.h"
#include "split_plan.h"

/* Of a code: both of its parts in their longest form. */
#define EXCEPTION_MAX_BITS (HCT_MAX_QUOTIENT + HCT_GAP_BITS + HCT_RARE_OTHER + 11)

/* Bytes of a tail that are tried before all of it is compressed. */
#define TAIL_TRIAL (16u << 10)

/* An exception of a segment. */
struct exception {
	uint32_t gap;
	uint16_t exponent;
};

/* One segment while it is coded. */
struct work {
	const struct hct_split_plan *p;
	const struct hct_layout *l;
	uint8_t *symbols; /* cut symbols, then coded ones; in order of position */
	uint8_t *map;
	uint8_t *streams; /* room for the bytes of both substreams, filled from the end */
	size_t stream_room;
	struct exception *exceptions;
	size_t exception_count;
};

/* Chooses the class of each run. */
static void choose_map(struct work *w, size_t groups)
{
	size_t run = (size_t)1 << w->p->t.run_log2;

	if (w->p->t.class_count == 1) {
		memset(w->map, 0, (groups + run - 1) / run);
		return;
	}
	for (size_t g = 0, r = 0; g < groups; g += run, r++) {
		size_t n = (groups - g < run ? groups - g : run) * HCT_GROUP;
		const uint8_t *s = w->symbols + g * HCT_GROUP;
		/* Four rows of counters, so that equal symbols in a row do not wait. */
		int16_t counts[4][HCT_CUT_SYMBOLS] = {{0}};

		for (size_t i = 0; i < n; i += 4) {
			counts[0][s[i]]++;
			counts[1][s[i + 1]]++;
			counts[2][s[i + 2]]++;
			counts[3][s[i + 3]]++;
		}
		for (unsigned k = 0; k < HCT_CUT_SYMBOLS; k++)
			counts[0][k] = (int16_t)(counts[0][k] + counts[1][k] + counts[2][k] +
						 counts[3][k]);
		w->map[r] = (uint8_t)hct_split_choose_class(w->p, counts[0]);
	}
}

/* The exponent of an element of the segment, its shift subtracted. */
static uint16_t exponent_of(const struct work *w, const uint8_t *data, uint64_t first,
			    size_t element)
{
	const struct hct_layout *l = w->l;
	uint16_t head;

	hct_cut_heads(l, data + element * l->unit, 1, &head);
	return (uint16_t)((head >> l->mantissa_bits) -
			  w->p->columns[(first + element) % w->p->period]) &
	       (uint16_t)((1u << l->exponent_bits) - 1);
}

/* Turns symbols without a frequency into exceptions. */
static void settle_symbols(struct work *w, const uint8_t *data, uint64_t first, size_t elements,
			   size_t groups)
{
	const struct hct_split_plan *p = w->p;
	unsigned joint = (1u << w->l->joint_bits) - 1;
	size_t next = 0;

	w->exception_count = 0;
	for (size_t g = 0; g < groups; g++) {
		unsigned k = w->map[g >> p->t.run_log2];
		uint8_t *s = w->symbols + g * HCT_GROUP;
		const int16_t *cost = p->cost[k];
		unsigned odd = 0;

		/* Exceptions cost most: rarely does a group have one. */
		for (unsigned i = 0; i < HCT_GROUP; i++)
			odd |= cost[s[i]] >= p->exception_cost;
		if (!odd)
			continue;
		for (unsigned i = 0; i < HCT_GROUP; i++) {
			unsigned at = i < HCT_LANES ? 2 * i : 2 * (i - HCT_LANES) + 1;
			size_t element = g * HCT_GROUP + i;

			if (s[at] < HCT_ESCAPE && p->t.freq[k][s[at]])
				continue;
			if (element < elements) {
				w->exceptions[w->exception_count++] =
					(struct exception){(uint32_t)(element - next),
							   exponent_of(w, data, first, element)};
				next = element + 1;
			}
			s[at] = p->stand_in[k][s[at] & joint];
		}
	}
}

static uint8_t *put(uint8_t *out, const void *src, size_t n)
{
	if (n)
		memcpy(out, src, n);
	return out + n;
}

static uint8_t *put_exceptions(const struct work *w, size_t elements, uint8_t *out)
{
	struct hct_bit_writer bits = {.data = out + HCT_EXCEPTION_HEAD};
	unsigned rice = hct_gap_rice(elements, w->exception_count);
	size_t n = w->exception_count;

	if (!n)
		return out;
	hct_store32(out, (uint32_t)n);
	out[4] = (uint8_t)rice;
	memset(bits.data, 0, hct_bits_bytes(n * EXCEPTION_MAX_BITS) + 8);
	for (size_t i = 0; i < n; i++) {
		const struct exception *x = &w->exceptions[i];
		unsigned index = w->p->rare_of[x->exponent];

		hct_gap_put(&bits, x->gap, rice);
		hct_bits_put_unary(&bits, index, HCT_RARE_OTHER);
		if (index == HCT_RARE_OTHER)
			hct_bits_put(&bits, x->exponent, w->l->exponent_bits);
	}
	return bits.data + hct_bits_bytes(bits.at);
}

/* Codes one segment to out; entry: its line in the table of segments. */
static uint8_t *encode_segment(struct work *w, hct_simd simd, const uint8_t *data, size_t elements,
			       uint64_t first, uint8_t *entry, uint8_t *out, uint8_t *fields)
{
	size_t groups = (elements + HCT_GROUP - 1) / HCT_GROUP, a, b;
	size_t field_bytes = groups * 8 * w->l->field_bits;
	uint8_t *end[2] = {w->streams + w->stream_room, w->streams + 2 * w->stream_room}, *begin[2];
	uint16_t states[2][HCT_LANES];
	uint8_t *exceptions;

	hct_cutter(simd)(w->p, data, elements, first, w->symbols, fields);
	choose_map(w, groups);
	settle_symbols(w, data, first, elements, groups);
	hct_rans_encoder(simd)(w->p->coder, w->map, w->p->t.run_log2, w->symbols, groups, end,
			       begin, states);
	a = (size_t)(end[0] - begin[0]);
	b = (size_t)(end[1] - begin[1]);
	hct_store32(entry, (uint32_t)a);
	hct_store32(entry + 4, (uint32_t)b);
	out = put(out, states, sizeof states);
	out = hct_class_map_pack(w->map, w->p->t.class_count, w->p->t.run_log2, groups, out);
	out = put(out, begin[0], a);
	out = put(out, begin[1], b);
	exceptions = out;
	out = put_exceptions(w, elements, out);
	hct_store32(entry + 8, (uint32_t)(out - exceptions));
	return put(out, fields, field_bytes);
}

/* Collects the tails of n elements, compressed where that helps. */
static uint8_t *put_tail(struct hct_encoder *e, const struct hct_layout *l, const uint8_t *data,
			 size_t n, uint8_t *tail, uint8_t *head, uint8_t *out, size_t room)
{
	size_t bytes = n * l->tail, trial = bytes < TAIL_TRIAL ? bytes : TAIL_TRIAL, length;

	head[0] = HCT_TAIL_STORED;
	if (bytes) {
		hct_cut_tails(l, data, n, tail);
		length = ZSTD_compressCCtx(e->cctx, out, room, tail, trial, 1);
		if (!ZSTD_isError(length) && length < trial - trial / 16) {
			length = ZSTD_compressCCtx(e->cctx, out, room, tail, bytes, 3);
			if (!ZSTD_isError(length) && length < bytes) {
				head[0] = HCT_TAIL_ZSTD;
				hct_store32(head + 4, (uint32_t)length);
				return out + length;
			}
		}
		memcpy(out, tail, bytes);
	}
	hct_store32(head + 4, (uint32_t)bytes);
	return out + bytes;
}

size_t hct_split_encode(struct hct_encoder *e, const struct hct_split_plan *p, const uint8_t *data,
			size_t n, uint64_t first, size_t limit)
{
	const struct hct_layout *l = p->t.layout;
	size_t segment = (size_t)1 << p->t.segment_log2, count = (n + segment - 1) / segment;
	size_t groups = segment / HCT_GROUP, tail_bytes = n * l->tail;
	/* Worst cases: a byte a symbol; every element an exception with a value of its own. */
	size_t per_segment = HCT_SPLIT_STATE_BYTES + groups + segment + HCT_EXCEPTION_HEAD + 8 +
			     hct_bits_bytes(segment * EXCEPTION_MAX_BITS) +
			     groups * 8 * l->field_bits;
	size_t bound = HCT_SPLIT_HEAD_BYTES + count * (HCT_SPLIT_SEGMENT_BYTES + per_segment) +
		       ZSTD_compressBound(tail_bytes) + HCT_GROUP;
	size_t room = segment / 2 + HCT_GROUP;
	struct work w = {.p = p, .l = l, .stream_room = room};
	uint8_t *at, *fields, *tail, *out;

	if (!hct_buffer_reserve(&e->payload, &e->payload_capacity, bound) ||
	    !hct_buffer_reserve(&e->work, &e->work_capacity,
				segment + groups + 2 * room + segment * sizeof *w.exceptions +
					groups * 64 + tail_bytes + 1024))
		return 0;
	at = e->work;
	w.symbols = at;
	w.map = at += segment;
	w.streams = at += groups;
	w.exceptions = (struct exception *)(void *)(at += 2 * room);
	fields = at += segment * sizeof *w.exceptions;
	tail = at + groups * 8 * l->field_bits + 64;
	out = e->payload + HCT_SPLIT_HEAD_BYTES + count * HCT_SPLIT_SEGMENT_BYTES;
	memset(e->payload, 0, HCT_SPLIT_HEAD_BYTES);
	for (size_t i = 0; i < count; i++) {
		size_t base = i * segment, m = n - base < segment ? n - base : segment;

		out = encode_segment(&w, e->simd, data + base * l->unit, m, first + base,
				     e->payload + HCT_SPLIT_HEAD_BYTES +
					     i * HCT_SPLIT_SEGMENT_BYTES,
				     out, fields);
		if ((size_t)(out - e->payload) >= limit)
			return 0;
	}
	out = put_tail(e, l, data, n, tail, e->payload, out,
		       e->payload_capacity - (size_t)(out - e->payload));
	return (size_t)(out - e->payload) < limit ? (size_t)(out - e->payload) : 0;
}
