/* The entropy stage of the tcq codec on AVX-512 with VBMI and VBMI2: on rans_avx512.h, tables are
 * byte permutations, and so is the trellis. */
#if defined __x86_64__

#include <immintrin.h>

#include "bytes.h"
#include "rans_avx512.h"
#include "tcq_decode.h"

#define INLINE static inline __attribute__((always_inline))
/* For each of `count` segments, a constant number: unrolled, so that all of it is in registers. */
#define EACH(i) _Pragma("GCC unroll 4") for (size_t i = 0; i < count; i++)

/* What the loop moves on in one segment. */
struct cursor {
	struct hct_pair x;
	__m512i state; /* of the trellis, in the form of hct_tcq_stage.next */
	const uint8_t *raw, *ahead;
	uint32_t column;
};

/* bits where mask is set, from a; elsewhere from b */
INLINE __m512i pick(__m512i mask, __m512i a, __m512i b)
{
	return _mm512_ternarylogic_epi32(mask, a, b, 0xca);
}

INLINE __m512i bytes_of(int v)
{
	return _mm512_set1_epi8((char)v);
}

/* 64 q entries at table, by the lower bits of index; upper: which bytes of index have the top
 * bit. */
INLINE __m512i look(const uint8_t *table, __m512i index, __mmask64 upper, unsigned q)
{
	__m512i v = _mm512_load_si512(table), w;

	if (q == 1)
		return _mm512_permutexvar_epi8(index, v);
	v = _mm512_permutex2var_epi8(v, index, _mm512_load_si512(table + 64));
	if (q == 2)
		return v;
	w = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), index,
				     _mm512_load_si512(table + 192));
	return _mm512_mask_blend_epi8(upper, v, w);
}

/* What does not change from group to group. */
struct constants {
	__m512i next, order;
	unsigned ahead_lines;
};

/* One group; q and raw are constant. */
INLINE __m512i step(struct cursor *s, const struct hct_tcq_class *c, const struct hct_tcq_stage *t,
		    const struct constants *k, unsigned q, int raw)
{
	const __m512i low = _mm512_set1_epi16(0x00ff);
	__m512i slot = hct_low_high(s->x.a, _mm512_slli_epi16(s->x.b, 8));
	__m512i place = s->state, index, pack, code, freq, rank, a, b;
	__mmask64 other, upper;

	for (unsigned i = 0; i < k->ahead_lines; i++, s->ahead += 64)
		__builtin_prefetch(s->ahead, 1);
	if (q > 1) {
		__m512i column = _mm512_loadu_si512(t->columns + s->column);

		place = _mm512_or_si512(place, _mm512_permutexvar_epi8(k->order, column));
		s->column = hct_tcq_next_column(t, s->column);
	}
	upper = q > 2 ? _mm512_movepi8_mask(place) : 0;
	index = pick(bytes_of(31), _mm512_srli_epi16(slot, 3), place);
	pack = look(c->pack, index, upper, q);
	other = _mm512_cmpge_epu8_mask(_mm512_or_si512(_mm512_slli_epi16(slot, 5), bytes_of(31)),
				       pack);
	code = pick(bytes_of(31), _mm512_mask_blend_epi8(other, index, pack), index);
	freq = look(c->freq, code, upper, q);
	rank = _mm512_and_si512(slot, bytes_of(7));
	rank = _mm512_mask_add_epi8(rank, other, rank, look(c->shift, index, upper, q));
	a = _mm512_mullo_epi16(_mm512_and_si512(freq, low), _mm512_srli_epi16(s->x.a, 8));
	b = _mm512_mullo_epi16(_mm512_srli_epi16(freq, 8), _mm512_srli_epi16(s->x.b, 8));
	s->x.a = hct_rans_refill(_mm512_add_epi16(a, _mm512_and_si512(rank, low)), &s->x.p);
	s->x.b = hct_rans_refill(_mm512_add_epi16(b, _mm512_srli_epi16(rank, 8)), &s->x.q);
	if (raw) {
		__mmask64 odd = hct_load64(s->raw);

		place = _mm512_mask_add_epi8(s->state, odd, s->state, bytes_of(1));
		s->raw += 8 * t->raw_bits;
	} else {
		place = pick(bytes_of(1), code, s->state);
	}
	s->state = _mm512_permutexvar_epi8(place, k->next);
	return code;
}

/* The lowest bit of a state is bit 5 of the form that `next` is looked up with. */
static struct cursor begin(const struct hct_tcq_segment *s)
{
	__m512i t = _mm512_loadu_si512(s->state);

	return (struct cursor){.x = hct_load_pair(&s->rans),
			       .state = pick(bytes_of(HCT_TCQ_PARITY), _mm512_slli_epi16(t, 5),
					     _mm512_and_si512(t, bytes_of(30))),
			       .raw = s->raw,
			       .ahead = s->ahead,
			       .column = s->column};
}

static void end(struct hct_tcq_segment *s, const struct cursor *c)
{
	hct_store_pair(&s->rans, c->x);
	_mm512_storeu_si512(s->state, pick(bytes_of(1), _mm512_srli_epi16(c->state, 5),
					   _mm512_and_si512(c->state, bytes_of(30))));
	s->raw = c->raw;
	s->ahead = c->ahead;
	s->column = c->column;
}

INLINE const struct hct_tcq_class *class_of(const struct hct_tcq_stage *t,
					    const struct hct_rans_segment *s)
{
	return &t->classes[s->map[s->group >> s->run_log2]];
}

INLINE struct constants constants_of(const struct hct_tcq_stage *t)
{
	uint8_t order[HCT_GROUP];

	for (unsigned i = 0; i < HCT_GROUP; i++)
		order[i] = (uint8_t)(i / 2 + i % 2 * HCT_LANES);
	return (struct constants){_mm512_loadu_si512(t->next), _mm512_loadu_si512(order),
				  t->ahead_lines};
}

/* Groups that all of them can decode with the classes that they have now. */
INLINE size_t ready(struct hct_tcq_segment *const *s, const struct cursor *x, size_t count,
		    size_t groups)
{
	size_t n = hct_run_groups(&s[0]->rans, groups);

	EACH(i)
	{
		size_t safe = hct_safe_groups(&s[i]->rans, &x[i].x);

		n = n < safe ? n : safe;
	}
	return n;
}

/* Segments side by side, which go from run to run together; count, q and raw are constant. */
INLINE void decode(const struct hct_tcq_stage *t, struct hct_tcq_segment *const *s, size_t count,
		   size_t groups, uint8_t *codes, unsigned q, int raw)
{
	const struct constants k = constants_of(t);
	const struct hct_tcq_class *c[HCT_TCQ_TOGETHER];
	struct cursor x[HCT_TCQ_TOGETHER];

	EACH(i) x[i] = begin(s[i]);
	while (groups) {
		size_t n = ready(s, x, count, groups);

		EACH(i) c[i] = class_of(t, &s[i]->rans);
		for (size_t g = 0; g < n; g++, codes += HCT_GROUP)
			EACH(i)
		_mm512_storeu_si512(codes + i * HCT_TCQ_STRIDE, step(&x[i], c[i], t, &k, q, raw));
		EACH(i)
		{
			hct_stop_pair(&s[i]->rans, &x[i].x);
			s[i]->rans.group += n;
		}
		groups -= n;
	}
	EACH(i) end(s[i], &x[i]);
}

#define LOOPS(name, q, raw)                                                                        \
	static void name(const struct hct_tcq_stage *t, struct hct_tcq_segment *const *s,          \
			 size_t count, size_t groups, uint8_t *codes)                              \
	{                                                                                          \
		if (count == 4) {                                                                  \
			decode(t, s, 4, groups, codes, q, raw);                                    \
			return;                                                                    \
		}                                                                                  \
		if (count > 1)                                                                     \
			decode(t, s, 2, groups, codes, q, raw);                                    \
		if (count & 1)                                                                     \
			decode(t, s + count - 1, 1, groups, codes + (count - 1) * HCT_TCQ_STRIDE,  \
			       q, raw);                                                            \
	}

LOOPS(one_class, 1, 0)
LOOPS(two_classes, 2, 0)
LOOPS(four_classes, 4, 0)
LOOPS(one_class_raw, 1, 1)
LOOPS(two_classes_raw, 2, 1)
LOOPS(four_classes_raw, 4, 1)

void hct_tcq_decode_avx512(const struct hct_tcq_stage *t, struct hct_tcq_segment *const *s,
			   size_t count, size_t groups, uint8_t *codes)
{
	static hct_tcq_decode *const loops[2][3] = {
		{one_class, two_classes, four_classes},
		{one_class_raw, two_classes_raw, four_classes_raw}};

	loops[t->raw_bits > 0][t->column_classes / 2](t, s, count, groups, codes);
}

#endif
