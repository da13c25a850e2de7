#include "tcq_decode.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"

/* The state as `next` has it: its lowest bit above the others, to be a parity at its place. */
static uint8_t form(unsigned t)
{
	return (uint8_t)((t & 1) << 5 | (t & ~1u));
}

/* What a slot of symbol s gives, less its rank. */
static uint32_t wide_symbol(const uint8_t freq[HCT_TCQ_SYMBOLS], unsigned s, const uint8_t flip[2])
{
	return freq[s] | s << 16 | (uint32_t)flip[s & 1] << 24;
}

/* The tables of one row class, column class and parity; at: where those of its buckets begin. */
static void init_tables(struct hct_tcq_class *c, unsigned at, uint32_t *wide,
			const uint8_t freq[HCT_TCQ_SYMBOLS], const uint8_t flip[2])
{
	struct hct_alias a;

	hct_alias_init(&a, freq);
	memcpy(c->shift + at, a.shift, sizeof a.shift);
	memcpy(c->freq + at, freq, HCT_TCQ_SYMBOLS);
	for (unsigned i = 0; i < HCT_TCQ_SYMBOLS; i++, wide += HCT_TCQ_BUCKET) {
		uint32_t mine = wide_symbol(freq, i, flip);
		uint32_t others = wide_symbol(freq, a.other[i], flip);

		c->pack[at + i] = (uint8_t)(a.other[i] | a.own[i] % HCT_TCQ_BUCKET << 5);
		for (uint32_t j = 0; j < HCT_TCQ_BUCKET; j++) {
			uint32_t rank = (j + a.shift[i]) & 255;

			wide[j] = j < a.own[i] ? mine | j << 8 : others | rank << 8;
		}
	}
}

/* One block of memory for all that is not of a fixed size. */
static int take_memory(struct hct_tcq_stage *t, const struct hct_tcq_layer *l,
		       struct hct_tcq_class **classes, uint32_t **wide, uint8_t **columns)
{
	size_t class_bytes = l->row_classes * sizeof **classes;
	size_t wide_bytes = sizeof **wide * 512 * l->column_classes * l->row_classes;
	size_t column_bytes = l->column_classes > 1 ? (size_t)t->period + HCT_GROUP : 0;
	uint8_t *p = aligned_alloc(64, (class_bytes + wide_bytes + column_bytes + 63) & ~63ul);

	if (!p)
		return -1;
	t->memory = p;
	*classes = (void *)p;
	*wide = (void *)(p + class_bytes);
	*columns = p + class_bytes + wide_bytes;
	return 0;
}

int hct_tcq_stage_init(struct hct_tcq_stage *t, const struct hct_tcq_layer *l, uint32_t columns,
		       size_t unit)
{
	uint8_t next[HCT_TCQ_MAX_STATES][2];
	struct hct_tcq_class *classes;
	uint8_t *column;
	uint32_t *wide;

	memset(t, 0, sizeof *t);
	t->column_classes = l->column_classes;
	t->raw_bits = l->raw_bits;
	t->ahead_lines = (unsigned)unit;
	t->period = columns;
	t->step = HCT_GROUP % columns;
	if (take_memory(t, l, &classes, &wide, &column))
		return -1;
	memset(classes, 0, l->row_classes * sizeof *classes);
	t->classes = classes;
	t->wide = wide;
	hct_trellis_init(l->states_log2, next);
	/* The trellis is linear: what the parity adds, and what an odd code adds. */
	t->odd = next[0][1];
	for (unsigned s = 0; s < 1u << l->states_log2; s++)
		for (unsigned z = 0; z < 2; z++)
			t->next[form(s) | z] = form(next[s][z]);
	for (unsigned k = 0; k < l->row_classes; k++)
		for (unsigned i = 0; i < 2 * l->column_classes; i++, wide += HCT_RANS_TOTAL) {
			uint8_t parity = next[i & 1][0];
			uint8_t flip[2] = {parity, (uint8_t)(parity ^ (l->raw_bits ? 0 : t->odd))};

			init_tables(&classes[k], 32 * i, wide, l->freq[k][i / 2][i & 1], flip);
		}
	if (l->column_classes == 1)
		return 0;
	t->columns = column;
	for (uint32_t i = 0; i < columns; i++)
		column[i] = (uint8_t)(hct_tcq_column_class(l, i) << 6);
	for (uint32_t i = 0; i < HCT_GROUP; i++)
		column[columns + i] = column[i % columns];
	return 0;
}

void hct_tcq_stage_free(struct hct_tcq_stage *t)
{
	free(t->memory);
	t->memory = NULL;
}

/* One substream's share of a group: of state, codes and raw, every other one from the first on.
 * columns: of its elements.  Up to HCT_LANES bytes behind the end may be read before that is
 * noticed. */
static void decode_half(const struct hct_tcq_stage *t, struct hct_rans_stream *s,
			const uint32_t *wide, const uint8_t *columns, uint64_t raw, uint8_t *state,
			uint8_t *codes)
{
	const uint8_t *p = s->p;

	for (unsigned lane = 0; lane < HCT_LANES; lane++) {
		unsigned x = s->x[lane], v = state[2 * lane], low;
		unsigned table = columns[lane] | (v & 1) << 5;
		uint32_t w = wide[table << 3 | (x & 255)];

		x = (w & 255) * (x >> 8) + (w >> 8 & 255);
		low = x < HCT_RANS_LOW;
		x = x << 8 * low | (*p & -low);
		p += low;
		s->x[lane] = (uint16_t)x;
		codes[2 * lane] = (uint8_t)(table | (w >> 16 & 31));
		state[2 * lane] =
			(uint8_t)(v >> 1 ^ w >> 24 ^ (t->odd & -(unsigned)(raw >> 2 * lane & 1)));
	}
	s->overrun |= (uint64_t)(s->end - p);
	s->p = p < s->end ? p : s->end;
}

static void decode_segment(const struct hct_tcq_stage *t, struct hct_tcq_segment *s, uint8_t *codes,
			   size_t groups)
{
	static const uint8_t none[HCT_GROUP] = {0};

	for (size_t g = 0; g < groups; g++, s->rans.group++, codes += HCT_GROUP) {
		const uint32_t *wide = hct_tcq_wide(t, &s->rans);
		const uint8_t *columns = t->columns ? t->columns + s->column : none;
		uint64_t raw = t->raw_bits ? hct_load64(s->raw) : 0;

		decode_half(t, &s->rans.sub[0], wide, columns, raw, s->state, codes);
		decode_half(t, &s->rans.sub[1], wide, columns + HCT_LANES, raw >> 1, s->state + 1,
			    codes + 1);
		s->raw += 8 * t->raw_bits;
		s->column = hct_tcq_next_column(t, s->column);
	}
}

void hct_tcq_decode_scalar(const struct hct_tcq_stage *t, struct hct_tcq_segment *const *s,
			   size_t count, size_t groups, uint8_t *codes)
{
	for (size_t i = 0; i < count; i++)
		decode_segment(t, s[i], codes + i * HCT_TCQ_STRIDE, groups);
}

hct_tcq_decode *hct_tcq_decoder(hct_simd simd)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		return hct_tcq_decode_avx512;
	if (simd == HCT_SIMD_AVX2)
		return hct_tcq_decode_avx2;
#endif
	(void)simd;
	return hct_tcq_decode_scalar;
}
