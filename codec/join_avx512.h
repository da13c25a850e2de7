/* Internal: joining heads of 16 bits on AVX-512, for the loops that are built on it.
 *
 * Bytes of a group lie in order of position, so the low bytes of the 16-bit lanes are
 * elements 0 to 31 and the high bytes elements 32 to 63: "a" and "b" below. */
#ifndef HCT_JOIN_AVX512_H
#define HCT_JOIN_AVX512_H

#include <immintrin.h>

#include "join.h"

#define HCT_MASK16(x) _mm512_set1_epi16((short)(x))

/* bits where mask is set, from a; elsewhere from b */
static inline __m512i hct_pick(__m512i mask, __m512i a, __m512i b)
{
	return _mm512_ternarylogic_epi32(mask, a, b, 0xca);
}

/* Where byte k of 8 fields of width bytes comes from, and each field's first bit. */
struct hct_unpacker {
	__m512i bytes, bits;
};

static inline struct hct_unpacker hct_unpacker(unsigned width)
{
	uint8_t bytes[64], bits[64];

	for (unsigned i = 0; i < 64; i++) {
		bytes[i] = (uint8_t)((i / 8 * width + i % 8) & 63);
		bits[i] = (uint8_t)(i % 8 * width);
	}
	return (struct hct_unpacker){_mm512_loadu_si512(bytes), _mm512_loadu_si512(bits)};
}

/* 64 fields, each in the low bits of its byte; the bits above are those of the next. */
static inline __m512i hct_unpack(const struct hct_unpacker *u, const uint8_t *fields)
{
	__m512i v = _mm512_permutexvar_epi8(u->bytes, _mm512_loadu_si512(fields));

	return _mm512_multishift_epi64_epi8(u->bits, v);
}

/* The 64 heads of BF16 and F32: sign, 8 exponent bits, 7 mantissa bits. */
static inline void hct_heads16(__m512i low, const struct hct_unpacker *u, __m512i s,
			       const uint8_t *fields, const uint16_t *shifts, __m512i *a,
			       __m512i *b)
{
	const __m512i exponent = HCT_MASK16(0x7f80), mantissa = HCT_MASK16(0x007f);
	__m512i f = hct_unpack(u, fields);
	__m512i e = _mm512_permutexvar_epi8(s, low);
	/* The joint bit goes above the six mantissa bits of the field. */
	__m512i m = hct_pick(_mm512_set1_epi8(0x40), _mm512_slli_epi16(s, 6), f);
	__m512i ea = _mm512_add_epi16(_mm512_slli_epi16(e, 7), _mm512_loadu_si512(shifts));
	__m512i eb =
		_mm512_add_epi16(_mm512_srli_epi16(e, 1), _mm512_loadu_si512(shifts + HCT_LANES));

	*a = hct_pick(exponent, ea, _mm512_slli_epi16(f, 9));
	*a = hct_pick(mantissa, m, *a);
	*b = hct_pick(exponent, eb, _mm512_slli_epi16(f, 1));
	*b = hct_pick(mantissa, _mm512_srli_epi16(m, 8), *b);
}

/* Puts 32 heads above 32 tails. */
static inline void hct_store_f32(uint8_t *dst, const uint8_t *tail, __m512i head)
{
	static const uint16_t order[64] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,  37, 6,
					   38, 7,  39, 8,  40, 9,  41, 10, 42, 11, 43, 12, 44,
					   13, 45, 14, 46, 15, 47, 16, 48, 17, 49, 18, 50, 19,
					   51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57,
					   26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63};
	__m512i t = _mm512_loadu_si512(tail);

	_mm512_storeu_si512(dst, _mm512_permutex2var_epi16(t, _mm512_loadu_si512(order), head));
	_mm512_storeu_si512(dst + 64,
			    _mm512_permutex2var_epi16(t, _mm512_loadu_si512(order + 32), head));
}

#endif
