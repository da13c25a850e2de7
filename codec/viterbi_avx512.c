#if defined __x86_64__

#include <immintrin.h>

#define HCT_VITERBI_OWN_COSTS
#include "viterbi_kernel.h"

/* The rates of one row class and parity: 32 for each column class. */
struct rates {
	__m512i_u class[HCT_TCQ_MAX_COLUMNS];
};

static inline __m512i rate_of(const struct rates *r, __m512i index, unsigned classes)
{
	__m512i low, high;

	if (classes == 1)
		return _mm512_permutexvar_epi16(index, r->class[0]);
	low = _mm512_permutex2var_epi16(r->class[0], index, r -> class[1]);
	if (classes == 2)
		return low;
	high = _mm512_permutex2var_epi16(r->class[2], index, r -> class[3]);
	return _mm512_mask_mov_epi16(low, _mm512_test_epi16_mask(index, _mm512_set1_epi16(64)),
				     high);
}

/* Bits and squared error of symbols; d: from the nominal point, in step / 64. */
static inline __m512i cost_of(const struct rates *r, __m512i offsets, __m512i columns,
			      __m512i symbol, __m512i d, unsigned classes)
{
	__m512i rate = rate_of(r, _mm512_or_si512(columns, symbol), classes);

	d = _mm512_abs_epi16(_mm512_sub_epi16(d, _mm512_permutexvar_epi16(symbol, offsets)));
	d = _mm512_min_epi16(d, _mm512_set1_epi16(255));
	return _mm512_add_epi16(rate, _mm512_srli_epi16(_mm512_mullo_epi16(d, d), 4));
}

static inline __attribute__((always_inline)) void branches(const struct hct_viterbi *v,
							   struct work *w, size_t g,
							   const uint8_t *classes, unsigned row,
							   unsigned class_count)
{
	const __m512i zero = _mm512_set1_epi16(HCT_TCQ_ZERO),
		      symbols = _mm512_set1_epi16(HCT_TCQ_SYMBOLS);
	__m128i b = _mm_cvtsi32_si128((int)v->raw_bits);
	struct rates rates[2];
	__m512i offsets[2];

	for (unsigned p = 0; p < 2; p++) {
		for (unsigned q = 0; q < class_count; q++)
			rates[p].class[q] = _mm512_loadu_si512(v->rate[row][p][q]);
		offsets[p] = _mm512_loadu_si512(v->offset[p]);
	}
	for (unsigned h = 0; h < HCT_GROUP; h += 32) {
		size_t i = g * HCT_GROUP + h;
		__m512i base = _mm512_loadu_si512(w->base + i), picks = _mm512_setzero_si512();
		__m512i part =
			_mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(w->part + i)));
		__m512i columns = _mm512_slli_epi16(
			_mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(classes + h))), 5);

		for (unsigned o = 0; o < COSETS; o++) {
			__m512i rest = _mm512_sub_epi16(part, _mm512_set1_epi16((short)(64 * o)));
			__m512i low = _mm512_srai_epi16(rest, 15), k, s, t, cost;
			__m512i best = _mm512_set1_epi16((short)v->exception);
			__m512i pick = _mm512_set1_epi16((short)(PICK_EXCEPTION << 2 * o));
			__mmask32 m;

			k = _mm512_slli_epi16(_mm512_add_epi16(base, low), 1);
			k = _mm512_or_si512(k, _mm512_set1_epi16((short)(o >> 1)));
			rest = _mm512_add_epi16(rest,
						_mm512_and_si512(low, _mm512_set1_epi16(256)));
			s = _mm512_add_epi16(_mm512_sra_epi16(k, b), zero);
			t = _mm512_add_epi16(k, _mm512_set1_epi16(2));
			t = _mm512_add_epi16(_mm512_sra_epi16(t, b), zero);
			cost = cost_of(&rates[o & 1], offsets[o & 1], columns, t,
				       _mm512_sub_epi16(rest, _mm512_set1_epi16(256)), class_count);
			m = _mm512_cmplt_epu16_mask(t, symbols);
			m = _mm512_mask_cmple_epu16_mask(m, cost, best);
			best = _mm512_mask_mov_epi16(best, m, cost);
			pick = _mm512_mask_mov_epi16(
				pick, m, _mm512_set1_epi16((short)(PICK_HIGH << 2 * o)));
			cost = cost_of(&rates[o & 1], offsets[o & 1], columns, s, rest,
				       class_count);
			m = _mm512_cmplt_epu16_mask(s, symbols);
			m = _mm512_mask_cmple_epu16_mask(m, cost, best);
			best = _mm512_mask_mov_epi16(best, m, cost);
			pick = _mm512_mask_mov_epi16(pick, m,
						     _mm512_set1_epi16((short)(PICK_LOW << 2 * o)));
			_mm512_store_si512(w->branch[o] + h, best);
			picks = _mm512_or_si512(picks, pick);
		}
		_mm256_storeu_si256((void *)(w->pick + i), _mm512_cvtepi16_epi8(picks));
	}
}

static void branch_costs(const struct hct_viterbi *v, struct work *w, size_t g,
			 const uint8_t *columns, unsigned row)
{
	if (v->column_classes == 1)
		branches(v, w, g, columns, row, 1);
	else if (v->column_classes == 2)
		branches(v, w, g, columns, row, 2);
	else
		branches(v, w, g, columns, row, 4);
}

static void class_costs(const struct hct_viterbi *v, const struct work *w, size_t g,
			const uint8_t *columns, uint32_t costs[HCT_TCQ_MAX_ROWS])
{
	const __m512i zero = _mm512_setzero_si512(), top = _mm512_set1_epi16(HCT_TCQ_SYMBOLS - 1);
	const __m512i most = _mm512_set1_epi16((short)v->exception);
	__m128i b = _mm_cvtsi32_si128((int)v->raw_bits);

	for (unsigned h = 0; h < HCT_GROUP; h += 32) {
		size_t i = g * HCT_GROUP + h;
		__m512i base = _mm512_loadu_si512(w->base + i), s;
		__m512i part =
			_mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(w->part + i)));
		__m512i classes =
			_mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(columns + h)));

		part = _mm512_srli_epi16(_mm512_add_epi16(part, _mm512_set1_epi16(64)), 7);
		s = _mm512_add_epi16(_mm512_slli_epi16(base, 1), part);
		s = _mm512_add_epi16(_mm512_sra_epi16(s, b), _mm512_set1_epi16(HCT_TCQ_ZERO));
		s = _mm512_min_epi16(_mm512_max_epi16(s, zero), top);
		s = _mm512_or_si512(s, _mm512_slli_epi16(classes, 5));
		for (unsigned k = 0; k < v->row_classes; k++) {
			const struct rates *r = (const void *)v->rate[k][0];
			__m512i rate = _mm512_min_epu16(rate_of(r, s, v->column_classes), most);

			costs[k] += (uint32_t)_mm512_reduce_add_epi32(
				_mm512_madd_epi16(rate, _mm512_set1_epi16(1)));
		}
	}
}

/* One half of a group: 32 lanes of 16 bits. */
struct half {
	__m512i state, prev, code;
	__mmask32 exceptions;
};

static inline void trace_half(const struct hct_viterbi *v, const struct work *w, size_t i,
			      const uint16_t *chosen, struct half *x)
{
	const __m512i one = _mm512_set1_epi16(1);
	__m512i base = _mm512_loadu_si512(w->base + i), bit, index, o, pick, k, table[2];
	__m512i part = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(w->part + i)));
	__m512i picks = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(w->pick + i)));
	__mmask32 m;

	table[0] = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)v->prev[0]));
	table[1] = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)v->prev[16]));
	/* Shifts by 16 and more, also by what looks like a negative number, give 0. */
	bit = _mm512_srlv_epi16(_mm512_loadu_si512(chosen), x->state);
	if (v->states_log2 == 5)
		bit = _mm512_or_si512(
			bit, _mm512_srlv_epi16(_mm512_loadu_si512(chosen + HCT_GROUP),
					       _mm512_sub_epi16(x->state, _mm512_set1_epi16(16))));
	index = _mm512_or_si512(_mm512_slli_epi16(x->state, 1), _mm512_and_si512(bit, one));
	x->prev = _mm512_permutex2var_epi16(table[0], index, table[1]);
	o = _mm512_or_si512(_mm512_slli_epi16(_mm512_srli_epi16(x->prev, 5), 1),
			    _mm512_and_si512(x->prev, one));
	pick = _mm512_and_si512(_mm512_srlv_epi16(picks, _mm512_slli_epi16(o, 1)),
				_mm512_set1_epi16(3));
	m = _mm512_cmplt_epi16_mask(part, _mm512_slli_epi16(o, 6));
	base = _mm512_mask_sub_epi16(base, m, base, one);
	m = _mm512_cmpeq_epi16_mask(pick, _mm512_set1_epi16(PICK_HIGH));
	base = _mm512_mask_add_epi16(base, m, base, one);
	k = _mm512_or_si512(_mm512_slli_epi16(base, 1), _mm512_srli_epi16(x->prev, 5));
	x->code = _mm512_add_epi16(k, _mm512_set1_epi16((short)(HCT_TCQ_ZERO << v->raw_bits)));
	x->exceptions = _mm512_cmpeq_epi16_mask(pick, _mm512_set1_epi16(PICK_EXCEPTION));
}

static void settle_exceptions(const struct hct_viterbi *v, struct hct_viterbi_segment *s, size_t i,
			      const uint8_t *columns, unsigned row, struct half *x)
{
	uint16_t code[32], prev[32];

	_mm512_storeu_si512(code, x->code);
	_mm512_storeu_si512(prev, x->prev);
	for (uint32_t m = x->exceptions; m; m &= m - 1) {
		unsigned l = (unsigned)__builtin_ctz(m);

		code[l] = (uint16_t)make_exception(v, s, i + l, row, columns[l], prev[l]);
	}
	x->code = _mm512_loadu_si512(code);
}

/* Codes and raw bits of a half, in the low byte of each lane. */
static inline void finish_half(const struct hct_viterbi *v, struct hct_viterbi_segment *s, size_t i,
			       const uint8_t *columns, unsigned row, struct half *x, __m512i *code,
			       __m512i *raw)
{
	__m128i b = _mm_cvtsi32_si128((int)v->raw_bits);
	__m512i q = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)columns));
	__m512i parity = _mm512_slli_epi16(_mm512_and_si512(x->prev, _mm512_set1_epi16(1)), 5);

	if (__builtin_expect(x->exceptions != 0, 0))
		settle_exceptions(v, s, i, columns, row, x);
	*raw = _mm512_and_si512(x->code, _mm512_set1_epi16((short)((1 << v->raw_bits) - 1)));
	*code = _mm512_or_si512(_mm512_or_si512(_mm512_slli_epi16(q, 6), parity),
				_mm512_srl_epi16(x->code, b));
	x->state = _mm512_and_si512(x->prev, _mm512_set1_epi16(31));
}

static void trace_group(const struct hct_viterbi *v, const struct work *w,
			struct hct_viterbi_segment *s, size_t g, const uint8_t *columns,
			unsigned row, uint16_t state[HCT_GROUP])
{
	const uint16_t *chosen = w->chosen + g * 2 * HCT_GROUP;
	__m512i code[2], raw[2], all;

	for (unsigned h = 2; h-- > 0;) {
		struct half x = {.state = _mm512_loadu_si512(state + 32 * h)};
		size_t i = g * HCT_GROUP + 32 * h;

		trace_half(v, w, i, chosen + 32 * h, &x);
		finish_half(v, s, i, columns + 32 * h, row, &x, &code[h], &raw[h]);
		_mm512_storeu_si512(state + 32 * h, x.state);
	}
	/* The order of position: lanes of A and B in turns. */
	_mm512_storeu_si512(s->codes + g * HCT_GROUP,
			    _mm512_or_si512(code[0], _mm512_slli_epi16(code[1], 8)));
	all = _mm512_or_si512(raw[0], _mm512_slli_epi16(raw[1], 8));
	for (unsigned j = 0; j < v->raw_bits; j++)
		s->planes[g * v->raw_bits + j] =
			_mm512_test_epi8_mask(all, _mm512_set1_epi8((char)(1 << j)));
}

void hct_viterbi_search_avx512(const struct hct_viterbi *v, struct hct_viterbi_segment *s,
			       void *scratch)
{
	search(v, s, scratch);
}

#endif
