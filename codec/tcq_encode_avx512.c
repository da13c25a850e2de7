#if defined __x86_64__

#include <immintrin.h>

#include "tcq_encode.h"

/* Looks up a byte for each of 64 codes; high: their top bits. */
static inline __m512i look(const uint8_t table[256], __m512i code, __mmask64 high)
{
	__m512i a = _mm512_permutex2var_epi8(_mm512_loadu_si512(table), code,
					     _mm512_loadu_si512(table + 64));
	__m512i b = _mm512_permutex2var_epi8(_mm512_loadu_si512(table + 128), code,
					     _mm512_loadu_si512(table + 192));

	return _mm512_mask_mov_epi8(a, high, b);
}

/* The slots at 32 places of 16 bits. */
static inline __m512i look_slots(const uint8_t *slot, __m512i place)
{
	__m512i even = _mm512_and_si512(place, _mm512_set1_epi32(0xffff));
	__m512i odd = _mm512_srli_epi32(place, 16);

	even = _mm512_and_si512(_mm512_i32gather_epi32(even, slot, 1), _mm512_set1_epi32(255));
	odd = _mm512_and_si512(_mm512_i32gather_epi32(odd, slot, 1), _mm512_set1_epi32(255));
	return _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
}

/* Encodes one symbol a lane; the bytes go before p.  All values are of 16 bits; place: of the
 * symbol's first slot. */
static inline __m512i encode_step(__m512i x, __m512i f, __m512i reciprocal, __m512i place,
				  const uint8_t *slot, uint8_t **p)
{
	__mmask32 k = _mm512_cmpge_epu16_mask(x, _mm512_slli_epi16(f, 8));
	__m256i bytes = _mm256_maskz_compress_epi8(k, _mm512_cvtepi16_epi8(x));
	unsigned n = (unsigned)__builtin_popcount(k);
	__m512i q, r;

	*p -= n;
	_mm256_mask_storeu_epi8(*p, (__mmask32)_bzhi_u32(~0u, n), bytes);
	x = _mm512_mask_srli_epi16(x, k, x, 8);
	q = _mm512_mulhi_epu16(x, reciprocal); /* the quotient, or one less */
	r = _mm512_sub_epi16(x, _mm512_mullo_epi16(q, f));
	k = _mm512_cmpge_epu16_mask(r, f);
	q = _mm512_mask_add_epi16(q, k, q, _mm512_set1_epi16(1));
	r = _mm512_mask_sub_epi16(r, k, r, f);
	return _mm512_or_si512(_mm512_slli_epi16(q, 8),
			       look_slots(slot, _mm512_add_epi16(place, r)));
}

void hct_tcq_entropy_avx512(const struct hct_tcq_coder *coders, const struct hct_viterbi_segment *s,
			    uint8_t *const end[2], uint8_t *begin[2], uint16_t states[2][HCT_LANES])
{
	const __m512i low = _mm512_set1_epi16(0x00ff);
	__m512i x = _mm512_set1_epi16(HCT_RANS_LOW), y = x;
	uint8_t *a = end[0], *b = end[1];

	for (size_t g = s->groups; g-- > 0;) {
		const struct hct_tcq_coder *c = &coders[s->map[g >> s->run_log2]];
		__m512i code = _mm512_loadu_si512(s->codes + g * HCT_GROUP);
		__mmask64 high = _mm512_movepi8_mask(code);
		__m512i f = look(c->freq, code, high), start = look(c->start, code, high);
		__m512i r0 = look(c->reciprocal[0], code, high);
		__m512i r1 = look(c->reciprocal[1], code, high);
		/* (code >> 5) << 8 | start, of A and of B */
		__m512i table =
			_mm512_slli_epi16(_mm512_and_si512(code, _mm512_set1_epi16(0x00e0)), 3);
		__m512i place = _mm512_or_si512(table, _mm512_and_si512(start, low));

		x = encode_step(x, _mm512_and_si512(f, low),
				_mm512_ternarylogic_epi32(low, r0, _mm512_slli_epi16(r1, 8), 0xca),
				place, c->slot, &a);
		table = _mm512_slli_epi16(_mm512_srli_epi16(code, 13), 8);
		place = _mm512_or_si512(table, _mm512_srli_epi16(start, 8));
		y = encode_step(y, _mm512_srli_epi16(f, 8),
				_mm512_ternarylogic_epi32(low, _mm512_srli_epi16(r0, 8), r1, 0xca),
				place, c->slot, &b);
	}
	_mm512_storeu_si512(states[0], x);
	_mm512_storeu_si512(states[1], y);
	begin[0] = a;
	begin[1] = b;
}

#endif
