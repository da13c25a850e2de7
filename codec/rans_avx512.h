/* Internal: the step of the AVX-512 entropy decoder, for the loops that are built on it.
 *
 * The 32 states of a substream are one register, the tables of a class are byte permutations,
 * and no memory is gathered.  The slots of A and B are interleaved into the 64 bytes of one
 * register, so that one look-up serves both.  The frequency times the upper half of a state is
 * at most 255 * 255: everything fits 16 bits. */
#ifndef HCT_RANS_AVX512_H
#define HCT_RANS_AVX512_H

#include <immintrin.h>

#include "rans.h"

/* What a step works on, in registers: the states of A and B and where their bytes are. */
struct hct_pair {
	__m512i a, b;
	const uint8_t *p, *q;
};

/* The low byte of each 16-bit lane from a, the high one from b. */
static inline __m512i hct_low_high(__m512i a, __m512i b)
{
	return _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x00ff), a, b, 0xca);
}

/* Where the state fell below 256: shifts in the next bytes of the run, in lane order. */
static inline __m512i hct_rans_refill(__m512i y, const uint8_t **p)
{
	__mmask32 k = _mm512_cmplt_epu16_mask(y, _mm512_set1_epi16(HCT_RANS_LOW));
	__m512i bytes = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)*p));

	*p += __builtin_popcount(k);
	return _mm512_or_si512(_mm512_mask_slli_epi16(y, k, y, 8),
			       _mm512_maskz_expand_epi16(k, bytes));
}

static inline __m512i hct_rans_step(struct hct_pair *x, const struct hct_rans_class *c)
{
	const __m512i low = _mm512_set1_epi16(0x00ff);
	__m512i slot = hct_low_high(x->a, _mm512_slli_epi16(x->b, 8));
	__m512i s0 = _mm512_permutex2var_epi8(_mm512_load_si512(c->slot), slot,
					      _mm512_load_si512(c->slot + 64));
	__m512i s1 = _mm512_permutex2var_epi8(_mm512_load_si512(c->slot + 128), slot,
					      _mm512_load_si512(c->slot + 192));
	__m512i symbol = _mm512_mask_blend_epi8(_mm512_movepi8_mask(slot), s0, s1);
	__m512i freq = _mm512_permutexvar_epi8(symbol, _mm512_load_si512(c->freq));
	__m512i rest =
		_mm512_sub_epi8(slot, _mm512_permutexvar_epi8(symbol, _mm512_load_si512(c->cum)));
	__m512i a = _mm512_mullo_epi16(_mm512_and_si512(freq, low), _mm512_srli_epi16(x->a, 8));
	__m512i b = _mm512_mullo_epi16(_mm512_srli_epi16(freq, 8), _mm512_srli_epi16(x->b, 8));

	x->a = hct_rans_refill(_mm512_add_epi16(a, _mm512_and_si512(rest, low)), &x->p);
	x->b = hct_rans_refill(_mm512_add_epi16(b, _mm512_srli_epi16(rest, 8)), &x->q);
	return symbol;
}

static inline struct hct_pair hct_load_pair(const struct hct_rans_segment *s)
{
	return (struct hct_pair){_mm512_loadu_si512(s->sub[0].x), _mm512_loadu_si512(s->sub[1].x),
				 s->sub[0].p, s->sub[1].p};
}

/* Stops at the last byte and notes that more were asked for. */
static inline const uint8_t *hct_stop_at_end(struct hct_rans_stream *s, const uint8_t *p)
{
	s->overrun |= (uint64_t)(s->end - p);
	return p < s->end ? p : s->end;
}

static inline void hct_stop_pair(struct hct_rans_segment *s, struct hct_pair *x)
{
	x->p = hct_stop_at_end(&s->sub[0], x->p);
	x->q = hct_stop_at_end(&s->sub[1], x->q);
}

static inline void hct_store_pair(struct hct_rans_segment *s, struct hct_pair x)
{
	_mm512_storeu_si512(s->sub[0].x, x.a);
	_mm512_storeu_si512(s->sub[1].x, x.b);
	s->sub[0].p = x.p;
	s->sub[1].p = x.q;
}

/* Groups that can be decoded without a look at the end of the bytes, of which one takes at most
 * 32 from each substream; 1 when there is no such, and then hct_stop_pair must follow. */
static inline size_t hct_safe_groups(const struct hct_rans_segment *s, const struct hct_pair *x)
{
	size_t a = (size_t)(s->sub[0].end - x->p), b = (size_t)(s->sub[1].end - x->q);
	size_t n = (a < b ? a : b) / HCT_LANES;

	return n ? n : 1;
}

/* Groups until the class changes, and no more than `groups`. */
static inline size_t hct_run_groups(const struct hct_rans_segment *s, size_t groups)
{
	size_t run = (size_t)1 << s->run_log2, left = run - (s->group & (run - 1));

	return left < groups ? left : groups;
}

static inline const struct hct_rans_class *hct_class_of(const struct hct_rans_segment *s)
{
	return &s->classes[s->map[s->group >> s->run_log2]];
}

#endif
