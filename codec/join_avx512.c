/* Joining on AVX-512 with VBMI.
 *
 * Bytes of a group lie in order of position, so the low bytes of the 16-bit lanes are
 * elements 0 to 31 and the high bytes elements 32 to 63: "a" and "b" below. */
#if defined __x86_64__

#include <immintrin.h>

#include "join.h"

#define MASK16(x) _mm512_set1_epi16((short)(x))

/* bits where mask is set, from a; elsewhere from b */
static inline __m512i pick(__m512i mask, __m512i a, __m512i b)
{
	return _mm512_ternarylogic_epi32(mask, a, b, 0xca);
}

/* Where byte k of 8 fields of width bytes comes from, and each field's first bit. */
struct unpacker {
	__m512i bytes, bits;
};

static inline struct unpacker unpacker(unsigned width)
{
	uint8_t bytes[64], bits[64];

	for (unsigned i = 0; i < 64; i++) {
		bytes[i] = (uint8_t)((i / 8 * width + i % 8) & 63);
		bits[i] = (uint8_t)(i % 8 * width);
	}
	return (struct unpacker){_mm512_loadu_si512(bytes), _mm512_loadu_si512(bits)};
}

/* 64 fields, each in the low bits of its byte; the bits above are those of the next. */
static inline __m512i unpack(const struct unpacker *u, const uint8_t *fields)
{
	__m512i v = _mm512_permutexvar_epi8(u->bytes, _mm512_loadu_si512(fields));

	return _mm512_multishift_epi64_epi8(u->bits, v);
}

/* The 64 heads of BF16 and F32: sign, 8 exponent bits, 7 mantissa bits. */
static inline void heads16(__m512i low, const struct unpacker *u, const uint8_t *symbols,
			   const uint8_t *fields, const uint16_t *shifts, __m512i *a, __m512i *b)
{
	const __m512i exponent = MASK16(0x7f80), mantissa = MASK16(0x007f);
	__m512i s = _mm512_loadu_si512(symbols), f = unpack(u, fields);
	__m512i e = _mm512_permutexvar_epi8(s, low);
	/* The joint bit goes above the six mantissa bits of the field. */
	__m512i m = pick(_mm512_set1_epi8(0x40), _mm512_slli_epi16(s, 6), f);
	__m512i ea = _mm512_add_epi16(_mm512_slli_epi16(e, 7), _mm512_loadu_si512(shifts));
	__m512i eb =
		_mm512_add_epi16(_mm512_srli_epi16(e, 1), _mm512_loadu_si512(shifts + HCT_LANES));

	*a = pick(exponent, ea, _mm512_slli_epi16(f, 9));
	*a = pick(mantissa, m, *a);
	*b = pick(exponent, eb, _mm512_slli_epi16(f, 1));
	*b = pick(mantissa, _mm512_srli_epi16(m, 8), *b);
}

/* The 64 heads of F16 and the 8-bit types, in the low bytes of 16-bit lanes. */
static inline void heads8(__m512i heads, const struct unpacker *u, const uint8_t *symbols,
			  const uint8_t *fields, const uint16_t *shifts, __m512i *a, __m512i *b)
{
	__m512i f = unpack(u, fields);
	__m512i h = _mm512_permutexvar_epi8(_mm512_loadu_si512(symbols), heads);
	/* Two bits a field: mantissa below, sign above. */
	__m512i sign = _mm512_slli_epi16(f, 6), rest = MASK16(0x01), top = MASK16(0x80);

	*a = _mm512_add_epi16(h, _mm512_loadu_si512(shifts));
	*a = pick(rest, f, pick(top, sign, *a));
	*b = _mm512_add_epi16(_mm512_srli_epi16(h, 8), _mm512_loadu_si512(shifts + HCT_LANES));
	*b = pick(rest, _mm512_srli_epi16(f, 8), pick(top, _mm512_srli_epi16(sign, 8), *b));
}

static void join_bf16(const struct hct_join_tables *t, const uint8_t *symbols,
		      const uint8_t *fields, const uint8_t *tail, uint32_t column, size_t groups,
		      uint8_t *dst)
{
	const struct unpacker u = unpacker(7);
	const __m512i low = _mm512_loadu_si512(t->low);

	(void)tail;
	for (size_t g = 0; g < groups; g++) {
		__m512i a, b;

		heads16(low, &u, symbols + 64 * g, fields + 56 * g, t->shifts + column, &a, &b);
		_mm512_storeu_si512(dst + 128 * g, a);
		_mm512_storeu_si512(dst + 128 * g + 64, b);
		column = hct_next_column(t, column);
	}
}

/* Puts 32 heads above 32 tails. */
static inline void store32(uint8_t *dst, const uint8_t *tail, __m512i head)
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

static void join_f32(const struct hct_join_tables *t, const uint8_t *symbols, const uint8_t *fields,
		     const uint8_t *tail, uint32_t column, size_t groups, uint8_t *dst)
{
	const struct unpacker u = unpacker(7);
	const __m512i low = _mm512_loadu_si512(t->low);

	for (size_t g = 0; g < groups; g++) {
		__m512i a, b;

		heads16(low, &u, symbols + 64 * g, fields + 56 * g, t->shifts + column, &a, &b);
		store32(dst + 256 * g, tail + 128 * g, a);
		store32(dst + 256 * g + 128, tail + 128 * g + 64, b);
		column = hct_next_column(t, column);
	}
}

static void join_f16(const struct hct_join_tables *t, const uint8_t *symbols, const uint8_t *fields,
		     const uint8_t *tail, uint32_t column, size_t groups, uint8_t *dst)
{
	const struct unpacker u = unpacker(2);
	const __m512i heads = _mm512_loadu_si512(t->head8);

	for (size_t g = 0; g < groups; g++) {
		const uint8_t *tl = tail + 64 * g;
		__m512i a, b;

		heads8(heads, &u, symbols + 64 * g, fields + 16 * g, t->shifts + column, &a, &b);
		a = pick(MASK16(0x00ff), _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)tl)),
			 _mm512_slli_epi16(a, 8));
		b = pick(MASK16(0x00ff),
			 _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(tl + 32))),
			 _mm512_slli_epi16(b, 8));
		_mm512_storeu_si512(dst + 128 * g, a);
		_mm512_storeu_si512(dst + 128 * g + 64, b);
		column = hct_next_column(t, column);
	}
}

static void join_f8(const struct hct_join_tables *t, const uint8_t *symbols, const uint8_t *fields,
		    const uint8_t *tail, uint32_t column, size_t groups, uint8_t *dst)
{
	const struct unpacker u = unpacker(2);
	const __m512i heads = _mm512_loadu_si512(t->head8);

	(void)tail;
	for (size_t g = 0; g < groups; g++) {
		__m512i a, b;

		heads8(heads, &u, symbols + 64 * g, fields + 16 * g, t->shifts + column, &a, &b);
		_mm256_storeu_si256((void *)(dst + 64 * g), _mm512_cvtepi16_epi8(a));
		_mm256_storeu_si256((void *)(dst + 64 * g + 32), _mm512_cvtepi16_epi8(b));
		column = hct_next_column(t, column);
	}
}

/* F64 is rare among models. */
const struct hct_join_loops hct_join_avx512 = {
	.f8 = join_f8, .f16 = join_f16, .bf16 = join_bf16, .f32 = join_f32};

#endif
