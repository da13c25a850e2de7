#include "tcq_encode.h"

#include <stdlib.h>
#include <string.h>

#include "bits.h"
#include "bytes.h"
#include "gaps.h"
#include "idct.h"
#include "split.h"
#include "widen.h"

/* Bits of the longest code of an exception: gap, sign, magnitude. */
#define EXCEPTION_MAX_BITS (HCT_MAX_QUOTIENT + HCT_GAP_BITS + 1 + 2 * HCT_TCQ_MAX_MAGNITUDE + 15)

static int init_coder(struct hct_tcq_coder *c, const struct hct_tcq_layer *l, unsigned row)
{
	for (unsigned table = 0; table < 2 * l->column_classes; table++) {
		const uint8_t *freq = l->freq[row][table >> 1][table & 1];
		unsigned rank[HCT_TCQ_SYMBOLS] = {0}, at = 0;
		struct hct_alias a;

		if (hct_alias_init(&a, freq))
			return 0;
		for (unsigned s = 0; s < HCT_TCQ_SYMBOLS; s++) {
			unsigned code = table << 5 | s;

			unsigned r = freq[s] > 1 ? 65536u / freq[s] : freq[s] * 65535u;

			c->freq[code] = freq[s];
			c->start[code] = (uint8_t)at;
			c->reciprocal[0][code] = (uint8_t)r;
			c->reciprocal[1][code] = (uint8_t)(r >> 8);
			at += freq[s];
			rank[s] = a.own[s];
			for (unsigned j = 0; j < a.own[s]; j++)
				c->slot[table << 8 | (c->start[code] + j)] =
					(uint8_t)(HCT_TCQ_BUCKET * s + j);
		}
		for (unsigned i = 0; i < HCT_TCQ_SYMBOLS; i++)
			for (unsigned j = a.own[i]; j < HCT_TCQ_BUCKET; j++) {
				unsigned s = a.other[i];
				unsigned place = c->start[table << 5 | s] + rank[s]++;

				c->slot[table << 8 | place] = (uint8_t)(HCT_TCQ_BUCKET * i + j);
			}
	}
	return 1;
}

void hct_tcq_spread_columns(const struct hct_tcq_tables *t, const struct hct_tcq_layer *l,
			    uint8_t *out)
{
	if (l->column_classes == 1) {
		memset(out, 0, t->columns + (size_t)HCT_GROUP);
		return;
	}
	for (uint32_t i = 0; i < t->columns; i++)
		out[i] = (uint8_t)hct_tcq_column_class(l, i);
	for (uint32_t i = 0; i < HCT_GROUP; i++)
		out[t->columns + i] = out[i % t->columns];
}

struct hct_tcq_layer_encoder *hct_tcq_layer_encoder_create(const struct hct_tcq_tables *t,
							   unsigned layer, float lambda)
{
	const struct hct_tcq_layer *l = &t->layers[layer];
	struct hct_tcq_layer_encoder *e = malloc(sizeof *e + l->row_classes * sizeof e->coders[0]);
	int ok = 1;

	if (!e)
		return NULL;
	e->column_classes = malloc(t->columns + (size_t)HCT_GROUP);
	for (unsigned k = 0; k < l->row_classes; k++)
		ok &= init_coder(&e->coders[k], l, k);
	if (!e->column_classes || !ok) {
		hct_tcq_layer_encoder_free(e);
		return NULL;
	}
	hct_tcq_spread_columns(t, l, e->column_classes);
	hct_viterbi_init(&e->search, l, lambda);
	hct_dequant_init(&e->dequant, l);
	return e;
}

void hct_tcq_layer_encoder_free(struct hct_tcq_layer_encoder *e)
{
	if (e)
		free(e->column_classes);
	free(e);
}

void hct_tcq_reconstruct(const struct hct_dequant *q, const struct hct_dequant_loops *loops,
			 const struct hct_viterbi_segment *s, float *out)
{
	loops->floats(q, s->codes, (const uint8_t *)s->planes, s->groups, out);
	for (size_t i = 0; i < s->exception_count; i++) {
		const struct hct_tcq_exception *x = &s->exceptions[i];

		out[x->element] += (float)x->value * q->step;
	}
}

hct_error hct_tcq_values(const struct hct_tcq_tables *t, const hct_dct *dct, hct_dtype dtype,
			 const uint8_t *data, size_t n, float *values)
{
	unsigned rows = 1u << t->tile_rows_log2, columns = 1u << t->tile_columns_log2;
	size_t end = (n + HCT_GROUP - 1) / HCT_GROUP * HCT_GROUP;
	float factor;
	hct_error e;

	hct_widen(dtype, data, n, values);
	for (size_t i = n; i < end; i++)
		values[i] = 0;
	if (rows == 1 && columns == 1)
		return HCT_OK;
	if (rows == 1)
		e = hct_dct_tiles(dct, values, 1, n, 1, columns, values);
	else
		e = hct_dct_tiles(dct, values, n / t->columns, t->columns, rows, columns, values);
	factor = (float)hct_idct_factor(rows, columns);
	for (size_t i = 0; i < n; i++)
		values[i] *= factor;
	return e;
}

/* The buffers of a segment, in scratch memory. */
struct buffers {
	struct hct_viterbi_segment s; /* what all of a layer have in common */
	uint8_t *maps;                /* of HCT_VITERBI_BATCH segments */
	uint8_t *streams; /* room for the bytes of both substreams, filled from their ends */
	size_t stream_room;
	float *found; /* reconstructed values */
	void *search;
};

static size_t round_up(size_t n)
{
	return (n + 63) / 64 * 64;
}

size_t hct_tcq_scratch(const struct hct_tcq_tables *t)
{
	size_t n = (size_t)1 << t->segment_log2, groups = n / HCT_GROUP;

	return round_up(n) + round_up(groups * 8 * HCT_TCQ_MAX_RAW) +
	       round_up(n * sizeof(struct hct_tcq_exception)) +
	       round_up(HCT_VITERBI_BATCH * groups) + round_up(n + 2 * HCT_GROUP) +
	       round_up(4 * n) + hct_viterbi_scratch(groups);
}

static void lay_out(struct buffers *b, const struct hct_tcq_tables *t, uint8_t *scratch)
{
	size_t n = (size_t)1 << t->segment_log2, groups = n / HCT_GROUP;

	b->s.codes = scratch;
	scratch += round_up(n);
	b->s.planes = (uint64_t *)(void *)scratch;
	scratch += round_up(groups * 8 * HCT_TCQ_MAX_RAW);
	b->s.exceptions = (struct hct_tcq_exception *)(void *)scratch;
	scratch += round_up(n * sizeof(struct hct_tcq_exception));
	b->maps = scratch;
	scratch += round_up(HCT_VITERBI_BATCH * groups);
	b->streams = scratch;
	b->stream_room = n / 2 + HCT_GROUP;
	scratch += round_up(n + 2 * HCT_GROUP);
	b->found = (float *)(void *)scratch;
	scratch += round_up(4 * n);
	b->search = scratch;
}

static uint8_t *put(uint8_t *out, const void *src, size_t n)
{
	if (n)
		memcpy(out, src, n);
	return out + n;
}

/* Without branches: half of them would go the wrong way. */
void hct_tcq_entropy_scalar(const struct hct_tcq_coder *coders, const struct hct_viterbi_segment *s,
			    uint8_t *const end[2], uint8_t *begin[2], uint16_t states[2][HCT_LANES])
{
	for (unsigned sub = 0; sub < 2; sub++) {
		uint8_t *p = end[sub];
		uint16_t *x = states[sub];

		for (unsigned lane = 0; lane < HCT_LANES; lane++)
			x[lane] = HCT_RANS_LOW;
		for (size_t g = s->groups; g-- > 0;) {
			const struct hct_tcq_coder *c = &coders[s->map[g >> s->run_log2]];
			const uint8_t *codes = s->codes + g * HCT_GROUP + sub;

			for (unsigned lane = HCT_LANES; lane-- > 0;) {
				unsigned code = codes[2 * lane], f = c->freq[code];
				unsigned r = c->reciprocal[0][code] | c->reciprocal[1][code] << 8;
				unsigned v = x[lane], full = v >= f << 8, q;

				p[-1] = (uint8_t)v;
				p -= full;
				v >>= 8 * full;
				q = v * r >> 16; /* the quotient, or one less */
				v -= q * f;
				full = v >= f;
				q += full;
				v -= f & -full;
				v += c->start[code];
				x[lane] = (uint16_t)(q << 8 | c->slot[(code >> 5) << 8 | v]);
			}
		}
		begin[sub] = p;
	}
}

hct_tcq_entropy *hct_tcq_entropy_find(hct_simd simd)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		return hct_tcq_entropy_avx512;
#endif
	(void)simd;
	return hct_tcq_entropy_scalar;
}

static int by_element(const void *a, const void *b)
{
	const struct hct_tcq_exception *x = a, *y = b;

	return x->element < y->element ? -1 : x->element > y->element;
}

static void put_magnitude(struct hct_bit_writer *bits, uint32_t v, unsigned m)
{
	uint32_t high = (v >> m) + 1; /* 2^i + u */
	unsigned i = 31u - (unsigned)__builtin_clz(high);

	hct_bits_put(bits, (uint64_t)1 << i, i + 1);
	hct_bits_put(bits, high - (1u << i), i);
	hct_bits_put(bits, v & ((1u << m) - 1), m);
}

/* The parameter that keeps the quotients of the largest magnitude in range and suits the mean. */
static unsigned choose_magnitude(const struct hct_viterbi_segment *s)
{
	uint64_t total = 0;
	uint32_t top = 0;
	unsigned m = 0;

	for (size_t i = 0; i < s->exception_count; i++) {
		uint32_t v = (uint32_t)abs(s->exceptions[i].value);

		total += v;
		top = v > top ? v : top;
	}
	while (m < 15 && ((uint64_t)4 << m) * s->exception_count <= total)
		m++;
	while ((top >> m) + 1 >= 1u << HCT_TCQ_MAX_MAGNITUDE)
		m++;
	return m;
}

static uint8_t *put_exceptions(const struct hct_viterbi_segment *s, size_t elements, uint8_t *out)
{
	struct hct_bit_writer bits = {.data = out + HCT_TCQ_EXCEPTION_HEAD};
	unsigned rice = hct_gap_rice(elements, s->exception_count), m;
	size_t next = 0;

	if (!s->exception_count)
		return out;
	m = choose_magnitude(s);
	hct_store32(out, (uint32_t)s->exception_count);
	out[4] = (uint8_t)rice;
	out[5] = (uint8_t)m;
	memset(bits.data, 0, hct_bits_bytes(s->exception_count * EXCEPTION_MAX_BITS) + 8);
	for (size_t i = 0; i < s->exception_count; i++) {
		const struct hct_tcq_exception *x = &s->exceptions[i];

		hct_gap_put(&bits, x->element - (uint32_t)next, rice);
		hct_bits_put(&bits, x->value < 0, 1);
		put_magnitude(&bits, (uint32_t)abs(x->value), m);
		next = x->element + (size_t)1;
	}
	return bits.data + hct_bits_bytes(bits.at);
}

/* Sorts the exceptions and drops those that fill up the last group. */
static void settle_exceptions(struct hct_viterbi_segment *s, size_t elements)
{
	size_t n = s->exception_count;

	qsort(s->exceptions, n, sizeof *s->exceptions, by_element);
	while (n && s->exceptions[n - 1].element >= elements)
		n--;
	s->exception_count = n;
}

size_t hct_tcq_payload_bound(const struct hct_tcq_tables *t, const struct hct_tcq_layer *l,
			     size_t n)
{
	size_t segment = (size_t)1 << t->segment_log2, count = (n + segment - 1) / segment;
	size_t groups = n / HCT_GROUP + count;

	return count * (HCT_TCQ_SEGMENT_BYTES + HCT_TCQ_STATE_BYTES + HCT_TCQ_EXCEPTION_HEAD + 64) +
	       groups * (1 + HCT_GROUP + 8 * (size_t)l->raw_bits) +
	       hct_bits_bytes(n * EXCEPTION_MAX_BITS);
}

/* Everything for the segments of a layer. */
struct layer_work {
	const struct hct_tcq_tables *t;
	const struct hct_tcq_layer *l;
	const struct hct_tcq_layer_encoder *e;
	struct hct_searcher *searcher;
	struct buffers b;
	float *values;
	size_t n, segment; /* values, and those of a segment */
	uint64_t first;    /* of the tensor */
	int residual;
};

static size_t elements_of(const struct layer_work *w, size_t i)
{
	size_t left = w->n - i * w->segment;

	return left < w->segment ? left : w->segment;
}

/* Begins with the search of segment i and those behind it. */
static void begin_search(struct layer_work *w, size_t i, size_t count,
			 struct hct_viterbi_segment *segments)
{
	size_t n = count - i < HCT_VITERBI_BATCH ? count - i : HCT_VITERBI_BATCH;

	for (size_t j = 0; j < n; j++) {
		struct hct_viterbi_segment *s = &segments[j];
		size_t at = (i + j) * w->segment;

		*s = w->b.s;
		s->x = w->values + at;
		s->groups = (elements_of(w, i + j) + HCT_GROUP - 1) / HCT_GROUP;
		s->column = (uint32_t)((w->first + at) % w->t->columns);
		s->map = w->b.maps + j * (w->segment / HCT_GROUP);
	}
	hct_searcher_begin(w->searcher, &w->e->search, segments, n);
}

/* Codes segment i, whose search has begun. */
static uint8_t *encode_segment(struct layer_work *w, size_t i, struct hct_viterbi_segment *s,
			       uint8_t *entry, uint8_t *out)
{
	uint8_t *const end[2] = {w->b.streams + w->b.stream_room,
				 w->b.streams + 2 * w->b.stream_room};
	size_t elements = elements_of(w, i);
	uint16_t states[2][HCT_LANES];
	uint8_t *p[2], *exceptions;

	hct_searcher_find(w->searcher, &w->e->search, s, w->b.search);
	settle_exceptions(s, elements);
	out += sizeof states;
	hct_tcq_entropy_find(w->searcher->simd)(w->e->coders, s, end, p, states);
	memcpy(out - sizeof states, states, sizeof states);
	out = hct_class_map_pack(s->map, w->l->row_classes, s->run_log2, s->groups, out);
	out = put(out, p[0], (size_t)(end[0] - p[0]));
	out = put(out, p[1], (size_t)(end[1] - p[1]));
	exceptions = out;
	out = put_exceptions(s, elements, out);
	hct_store32(entry, (uint32_t)(end[0] - p[0]));
	hct_store32(entry + 4, (uint32_t)(end[1] - p[1]));
	hct_store32(entry + 8, (uint32_t)(out - exceptions));
	out = put(out, s->planes, s->groups * 8 * w->l->raw_bits);
	if (w->residual) {
		hct_tcq_reconstruct(&w->e->dequant, hct_dequant_find(w->searcher->simd), s,
				    w->b.found);
		for (size_t j = 0; j < s->groups * HCT_GROUP; j++)
			w->values[i * w->segment + j] -= w->b.found[j];
	}
	return out;
}

size_t hct_tcq_encode_layer(const struct hct_tcq_tables *t, unsigned layer,
			    const struct hct_tcq_layer_encoder *e, struct hct_searcher *searcher,
			    float *values, size_t n, uint64_t first, int residual, uint8_t *scratch,
			    uint8_t *out)
{
	struct layer_work w = {.t = t,
			       .l = &t->layers[layer],
			       .e = e,
			       .searcher = searcher,
			       .values = values,
			       .n = n,
			       .segment = (size_t)1 << t->segment_log2,
			       .first = first,
			       .residual = residual};
	size_t count = (n + w.segment - 1) / w.segment;
	struct hct_viterbi_segment segments[HCT_VITERBI_BATCH];
	uint8_t *begin = out, *entry = out;

	lay_out(&w.b, t, scratch);
	w.b.s.column_classes = e->column_classes;
	w.b.s.period = t->columns;
	w.b.s.run_log2 = w.l->run_log2;
	w.b.s.choose = 1;
	out += count * HCT_TCQ_SEGMENT_BYTES;
	for (size_t i = 0; i < count; i++, entry += HCT_TCQ_SEGMENT_BYTES) {
		if (i % HCT_VITERBI_BATCH == 0)
			begin_search(&w, i, count, segments);
		out = encode_segment(&w, i, &segments[i % HCT_VITERBI_BATCH], entry, out);
	}
	return (size_t)(out - begin);
}
