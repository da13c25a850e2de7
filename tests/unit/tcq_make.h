/* Chunks of the tcq codec for unit tests and what they stand for: symbols are drawn as the tables'
 * frequencies have them, raw bits, classes and exceptions at random. */
#ifndef TCQ_MAKE_H
#define TCQ_MAKE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codec/bits.h"
#include "codec/codec.h"
#include "codec/gaps.h"
#include "codec/split.h"
#include "codec/tcq.h"

static uint64_t tcq_seed;

static uint32_t tcq_next(void)
{
	tcq_seed = tcq_seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(tcq_seed >> 33);
}

static unsigned tcq_below(unsigned n)
{
	return tcq_next() % n;
}

/* A tensor's tables, and one chunk. */
struct tcq_made {
	struct hct_tcq_tables t; /* set it up to the classes, raw bits and states of the layers */
	unsigned exceptions;     /* one of so many elements is one; 0 for none */
	uint8_t *column_class[HCT_TCQ_MAX_LAYERS];
	uint8_t *params;
	size_t params_length;

	size_t elements;
	uint64_t first;                       /* element of the tensor */
	uint8_t *payload[HCT_TCQ_MAX_LAYERS]; /* HCT_PAYLOAD_PAD bytes more than */
	size_t length[HCT_TCQ_MAX_LAYERS];
	float *values[HCT_TCQ_MAX_LAYERS]; /* sums up to that layer, before any transform */
};

/* The symbol and rank of each slot of a table, and back. */
struct tcq_slots {
	uint8_t freq[HCT_TCQ_SYMBOLS], symbol[256], slot[HCT_TCQ_SYMBOLS][256];
};

/* Frequencies that sum to 256. */
static inline void tcq_random_freq(uint8_t freq[HCT_TCQ_SYMBOLS], unsigned kind)
{
	unsigned left = 256;

	memset(freq, 0, HCT_TCQ_SYMBOLS);
	switch (kind) {
	case 0: /* the most skewed there is */
		freq[tcq_below(16)] = 255;
		freq[16 + tcq_below(16)] = 1;
		return;
	case 1:
		memset(freq, 8, HCT_TCQ_SYMBOLS);
		return;
	case 2: /* every symbol, and a peak */
		memset(freq, 1, HCT_TCQ_SYMBOLS);
		left -= HCT_TCQ_SYMBOLS;
		for (unsigned d = 0; left; d = (d + 1) % 8) {
			unsigned n = 14 - d < left ? 14 - d : left;

			freq[16 + d / 2 - 2] = (uint8_t)(freq[16 + d / 2 - 2] + n);
			left -= n;
		}
		return;
	default:
		while (left) {
			unsigned s = tcq_below(kind == 3 ? 3 : HCT_TCQ_SYMBOLS);
			unsigned n = 1 + tcq_below(kind == 4 ? 9 : 40);

			n = n < left ? n : left;
			n = freq[s] + n > 255 ? 255u - freq[s] : n;
			freq[s] = (uint8_t)(freq[s] + n);
			left -= n;
		}
	}
}

static inline void tcq_slots_init(struct tcq_slots *t, const uint8_t freq[HCT_TCQ_SYMBOLS])
{
	struct hct_alias a;

	assert_int_equal(hct_alias_init(&a, freq), 0);
	memcpy(t->freq, freq, HCT_TCQ_SYMBOLS);
	for (unsigned slot = 0; slot < 256; slot++) {
		unsigned i = slot / 8, j = slot % 8;
		unsigned s = j < a.own[i] ? i : a.other[i];

		t->symbol[slot] = (uint8_t)s;
		t->slot[s][(j + (j < a.own[i] ? 0 : a.shift[i])) & 255] = (uint8_t)slot;
	}
}

static inline void tcq_free(struct tcq_made *m)
{
	for (unsigned l = 0; l < HCT_TCQ_MAX_LAYERS; l++) {
		free(m->column_class[l]);
		free(m->payload[l]);
		free(m->values[l]);
		m->column_class[l] = m->payload[l] = NULL;
		m->values[l] = NULL;
	}
	free(m->params);
	m->params = NULL;
}

/* Tables of which the kind says what there is of states, classes and raw bits. */
static inline struct tcq_made tcq_model(unsigned layers, uint32_t columns, unsigned kind)
{
	struct tcq_made m = {.t = {.layer_count = layers, .segment_log2 = 10, .columns = columns}};

	for (unsigned i = 0; i < layers; i++) {
		m.t.layers[i].states_log2 = 3 + (kind + i) % 3;
		m.t.layers[i].column_classes = 1u << (kind / 3 + i) % 3;
		m.t.layers[i].row_classes = 1 + (kind * 7 + i) % 16;
		m.t.layers[i].run_log2 = (kind + i) % 4;
		m.t.layers[i].raw_bits = kind % 4 ? (kind + 3 * i) % 8 : 0;
	}
	return m;
}

/* Fills in frequencies, offsets, column classes and, where they are 0, steps; packs. */
static inline void tcq_make_tables(struct tcq_made *m)
{
	for (unsigned i = 0; i < m->t.layer_count; i++) {
		struct hct_tcq_layer *l = &m->t.layers[i];
		size_t bytes = (size_t)m->t.columns * hct_tcq_column_bits(l->column_classes) / 8;

		for (unsigned k = 0; k < l->row_classes; k++)
			for (unsigned q = 0; q < l->column_classes; q++)
				for (unsigned p = 0; p < 2; p++)
					tcq_random_freq(l->freq[k][q][p], tcq_below(7));
		for (unsigned p = 0; p < HCT_TCQ_POINTS; p++)
			l->offset[p] = (int8_t)(l->raw_bits ? 0 : tcq_next());
		if (l->step == 0)
			l->step = (1 + (float)tcq_below(1000) / 1000) / (float)(16 << 4 * i);
		if (l->column_classes == 1)
			continue;
		m->column_class[i] = malloc(bytes + 1);
		for (size_t b = 0; b <= bytes; b++)
			m->column_class[i][b] = (uint8_t)tcq_next();
		l->column_class = m->column_class[i];
	}
	m->params_length = hct_tcq_tables_length(&m->t);
	m->params = malloc(m->params_length);
	hct_tcq_tables_pack(&m->t, m->params);
}

/* Writes a list of exceptions of n elements and adds them to their values. */
static inline size_t tcq_make_exceptions(const struct tcq_made *m, float step, size_t n,
					 float *values, uint8_t *out)
{
	struct hct_bit_writer w = {.data = out + HCT_TCQ_EXCEPTION_HEAD};
	unsigned rice = tcq_below(8), low = tcq_below(16);
	uint32_t count = 0;
	size_t after = 0;

	memset(out, 0, n * 16 + 64);
	for (size_t i = 0; m->exceptions && i < n; i++) {
		unsigned gap = (unsigned)(i - after), zeros, u, v, negative;
		int e;

		if (tcq_below(m->exceptions))
			continue;
		hct_gap_put(&w, gap, rice);
		zeros = tcq_below(9);
		negative = tcq_below(2);
		u = tcq_below(1u << zeros);
		v = tcq_below(1u << low);
		hct_bits_put(&w, negative, 1);
		hct_bits_put_unary(&w, zeros, 9);
		hct_bits_put(&w, u, zeros);
		hct_bits_put(&w, v, low);
		e = (int)(((1u << zeros) - 1 + u) << low | v);
		assert_true(e <= HCT_TCQ_MAX_EXCEPTION);
		values[i] += (float)(negative ? -e : e) * step;
		after = i + 1;
		count++;
	}
	if (!count)
		return 0;
	hct_store32(out, count);
	out[4] = (uint8_t)rice;
	out[5] = (uint8_t)low;
	return HCT_TCQ_EXCEPTION_HEAD + hct_bits_bytes(w.at);
}

/* Where one step of the decoder's has its slots: the table and the symbol. */
struct tcq_step {
	uint8_t table, symbol; /* table: 2 q + parity of the row class */
};

/* Encodes one substream (0 or 1) backwards, so that it ends at end; returns where it begins. */
static inline uint8_t *tcq_encode(const struct tcq_slots *slots, unsigned tables,
				  const uint8_t *map, unsigned run_log2,
				  const struct tcq_step *steps, size_t groups, unsigned sub,
				  uint16_t x[HCT_LANES], uint8_t *end)
{
	for (unsigned lane = 0; lane < HCT_LANES; lane++)
		x[lane] = 256;
	for (size_t g = groups; g-- > 0;)
		for (unsigned lane = HCT_LANES; lane-- > 0;) {
			const struct tcq_step *s = &steps[g * HCT_GROUP + sub * HCT_LANES + lane];
			const struct tcq_slots *t = &slots[map[g >> run_log2] * tables + s->table];
			unsigned f = t->freq[s->symbol], v = x[lane];

			if (v >= f << 8) {
				*--end = (uint8_t)v;
				v >>= 8;
			}
			x[lane] = (uint16_t)(v / f << 8 | t->slot[s->symbol][v % f]);
		}
	return end;
}

/* What one element of a layer is; moves the state of its trellis on. */
static inline struct tcq_step tcq_draw(const struct hct_tcq_layer *l, const struct tcq_slots *slots,
				       unsigned q, uint8_t next[][2], uint8_t *state, uint8_t *raw,
				       float *value)
{
	unsigned parity = *state & 1;
	struct tcq_step s = {.table = (uint8_t)(2 * q + parity)};
	int c, n;

	s.symbol = slots[s.table].symbol[tcq_below(256)];
	*raw = (uint8_t)tcq_below(1u << l->raw_bits);
	c = (s.symbol << l->raw_bits) + *raw;
	n = 64 * (2 * (c - (16 << l->raw_bits)) + (int)parity);
	if (!l->raw_bits)
		n += l->offset[32 * parity + s.symbol];
	*value = (float)n * (l->step * 0x1p-6f);
	*state = next[*state][c & 1];
	return s;
}

/* One segment of a layer of m elements, the first of which is `first`; returns its length. */
static inline size_t tcq_make_segment(const struct tcq_made *m, unsigned layer,
				      const struct tcq_slots *slots, uint64_t first, size_t n,
				      float *values, uint8_t *entry, uint8_t *out)
{
	const struct hct_tcq_layer *l = &m->t.layers[layer];
	size_t groups = (n + 63) / 64, runs = (groups + (1u << l->run_log2) - 1) >> l->run_log2;
	size_t map_bytes = hct_tcq_map_bytes(l, groups), listed, room = groups * 32;
	struct tcq_step *steps = malloc(groups * 64 * sizeof *steps);
	uint8_t *map = malloc(runs), *bytes = malloc(2 * room), *p = out;
	uint8_t next[HCT_TCQ_MAX_STATES][2], state[64] = {0};
	unsigned tables = 2 * l->column_classes;
	struct hct_bit_writer w = {.data = out + HCT_TCQ_STATE_BYTES};
	uint8_t *planes = calloc(groups * 8, HCT_TCQ_MAX_RAW + 1);
	uint16_t x[HCT_LANES];

	hct_trellis_init(l->states_log2, next);
	memset(out, 0, HCT_TCQ_STATE_BYTES + map_bytes + 16);
	for (size_t r = 0; r < runs; r++) {
		map[r] = (uint8_t)tcq_below(l->row_classes);
		hct_bits_put(&w, map[r], hct_class_bits(l->row_classes));
	}
	for (size_t i = 0; i < groups * 64; i++) {
		unsigned at = i % 64 < 32 ? i % 32 * 2 : i % 32 * 2 + 1;
		unsigned q = hct_tcq_column_class(l, (uint32_t)((first + i) % m->t.columns));
		uint8_t raw;
		float v;

		steps[i] = tcq_draw(l, slots + map[i / 64 >> l->run_log2] * tables, q, next,
				    &state[i % 64], &raw, &v);
		for (unsigned b = 0; b < l->raw_bits; b++)
			planes[(i / 64 * l->raw_bits + b) * 8 + at / 8] |=
				(uint8_t)((raw >> b & 1) << at % 8);
		if (i < n)
			values[i] = v;
	}
	p += HCT_TCQ_STATE_BYTES + map_bytes;
	for (unsigned sub = 0; sub < 2; sub++) {
		uint8_t *end = bytes + (sub + 1) * room;
		uint8_t *begin =
			tcq_encode(slots, tables, map, l->run_log2, steps, groups, sub, x, end);

		memcpy(out + 64 * sub, x, 64);
		memcpy(p, begin, (size_t)(end - begin));
		p += end - begin;
		hct_store32(entry + 4 * sub, (uint32_t)(end - begin));
	}
	listed = tcq_make_exceptions(m, l->step, n, values, p);
	hct_store32(entry + 8, (uint32_t)listed);
	p += listed;
	memcpy(p, planes, groups * 8 * l->raw_bits);
	p += groups * 8 * l->raw_bits;
	free(steps);
	free(map);
	free(bytes);
	free(planes);
	return (size_t)(p - out);
}

/* The chunk of n elements from element `first` of the tensor on. */
static inline void tcq_make_chunk(struct tcq_made *m, uint64_t first, size_t n)
{
	size_t size = (size_t)1 << m->t.segment_log2, segments = (n + size - 1) / size;

	m->first = first;
	m->elements = n;
	for (unsigned i = 0; i < m->t.layer_count; i++) {
		const struct hct_tcq_layer *l = &m->t.layers[i];
		unsigned tables = 2 * l->column_classes;
		struct tcq_slots *slots = malloc(tables * l->row_classes * sizeof *slots);
		size_t room = segments * (size * (2 + 16 + 1) + 4096), at = 12 * segments;

		for (unsigned k = 0; k < l->row_classes; k++)
			for (unsigned t = 0; t < tables; t++)
				tcq_slots_init(&slots[k * tables + t], l->freq[k][t / 2][t % 2]);
		free(m->payload[i]);
		free(m->values[i]);
		m->payload[i] = calloc(1, room);
		m->values[i] = calloc(n + 1, sizeof(float));
		for (size_t s = 0; s < segments; s++) {
			size_t base = s * size, elements = n - base < size ? n - base : size;

			at += tcq_make_segment(m, i, slots, first + base, elements,
					       m->values[i] + base, m->payload[i] + 12 * s,
					       m->payload[i] + at);
		}
		m->length[i] = at;
		m->payload[i] = realloc(m->payload[i], at + HCT_PAYLOAD_PAD);
		memset(m->payload[i] + at, (int)tcq_next(), HCT_PAYLOAD_PAD);
		for (size_t e = 0; i && e < n; e++)
			m->values[i][e] = m->values[i - 1][e] + m->values[i][e];
		free(slots);
	}
}

#endif
