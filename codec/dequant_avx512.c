/* Values and elements on AVX-512 with VBMI.  Bytes of a group lie in order of position, so the low
 * bytes of the 16-bit lanes are elements 0 to 31 and the high bytes elements 32 to 63: "a" and "b"
 * below. */
#if defined __x86_64__

#include <immintrin.h>

#define OWN_NARROW_BF16
#define OWN_NARROW_F16
#include "dequant_kernel.h"

/* The low byte of each 16-bit lane from a, the high one from b. */
INLINE __m512i low_high(__m512i a, __m512i b)
{
	return _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x00ff), a, b, 0xca);
}

/* The numbers that are the values in units of a step. */
struct words {
	__m512i a, b;
};

/* Entries of a table of 64 words, given as its low and its high bytes. */
INLINE struct words look_words(__m512i low, __m512i high, __m512i codes)
{
	__m512i l = _mm512_permutexvar_epi8(codes, low), h = _mm512_permutexvar_epi8(codes, high);

	return (struct words){low_high(l, _mm512_slli_epi16(h, 8)),
			      low_high(_mm512_srli_epi16(l, 8), h)};
}

/* 2 (c - 16 2^b) + parity of symbols with raw bits below them. */
INLINE struct words raw_words(__m512i codes, const uint8_t *raw, unsigned raw_bits)
{
	const __m512i low = _mm512_set1_epi16(0x00ff),
		      zero = _mm512_set1_epi16((short)(32 << raw_bits));
	__m512i bits = _mm512_setzero_si512(), symbol, parity;
	__m128i shift = _mm_cvtsi32_si128((int)raw_bits + 1);
	struct words n;

	/* raw bits, above the parity */
	for (unsigned i = 0; i < raw_bits; i++) {
		__mmask64 k = hct_load64(raw + 8 * i);

		bits = _mm512_mask_add_epi8(bits, k, bits, _mm512_set1_epi8((char)(1 << i)));
	}
	symbol = _mm512_and_si512(codes, _mm512_set1_epi8(31));
	parity = _mm512_and_si512(_mm512_srli_epi16(codes, 5), _mm512_set1_epi8(1));
	n.a = _mm512_add_epi16(_mm512_and_si512(bits, low), _mm512_and_si512(bits, low));
	n.b = _mm512_slli_epi16(_mm512_srli_epi16(bits, 8), 1);
	n.a = _mm512_or_si512(n.a, _mm512_and_si512(parity, low));
	n.b = _mm512_or_si512(n.b, _mm512_srli_epi16(parity, 8));
	n.a = _mm512_or_si512(n.a, _mm512_sll_epi16(_mm512_and_si512(symbol, low), shift));
	n.b = _mm512_or_si512(n.b, _mm512_sll_epi16(_mm512_srli_epi16(symbol, 8), shift));
	n.a = _mm512_sub_epi16(n.a, zero);
	n.b = _mm512_sub_epi16(n.b, zero);
	return n;
}

INLINE void store_values(float *dst, __m512i words, __m512 step)
{
	__m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(words));
	__m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(words, 1));

	_mm512_storeu_ps(dst, _mm512_mul_ps(_mm512_cvtepi32_ps(low), step));
	_mm512_storeu_ps(dst + 16, _mm512_mul_ps(_mm512_cvtepi32_ps(high), step));
}

static void floats(const struct hct_dequant *q, const uint8_t *codes, const uint8_t *raw,
		   size_t groups, float *dst)
{
	const __m512i low = _mm512_loadu_si512(q->low), high = _mm512_loadu_si512(q->high);
	const __m512 step = _mm512_set1_ps(q->raw_bits ? q->step : q->fine);

	for (size_t g = 0; g < groups; g++, codes += HCT_GROUP, dst += HCT_GROUP) {
		__m512i c = _mm512_loadu_si512(codes);
		struct words n =
			q->raw_bits ? raw_words(c, raw, q->raw_bits) : look_words(low, high, c);

		store_values(dst, n.a, step);
		store_values(dst + HCT_LANES, n.b, step);
		raw += 8 * q->raw_bits;
	}
}

static void look16(const uint16_t table[HCT_TCQ_POINTS], const uint8_t *codes, size_t groups,
		   uint8_t *dst)
{
	uint8_t bytes[2][HCT_TCQ_POINTS];
	__m512i low, high;

	for (unsigned i = 0; i < HCT_TCQ_POINTS; i++) {
		bytes[0][i] = (uint8_t)table[i];
		bytes[1][i] = (uint8_t)(table[i] >> 8);
	}
	low = _mm512_loadu_si512(bytes[0]);
	high = _mm512_loadu_si512(bytes[1]);
	for (size_t g = 0; g < groups; g++, codes += HCT_GROUP, dst += 2 * HCT_GROUP) {
		struct words v = look_words(low, high, _mm512_loadu_si512(codes));

		_mm512_storeu_si512(dst, v.a);
		_mm512_storeu_si512(dst + HCT_GROUP, v.b);
	}
}

static void look8(const uint8_t table[HCT_TCQ_POINTS], const uint8_t *codes, size_t groups,
		  uint8_t *dst)
{
	const __m512i entries = _mm512_loadu_si512(table);
	uint8_t position[HCT_GROUP];
	__m512i order;

	for (unsigned i = 0; i < HCT_GROUP; i++)
		position[i] = (uint8_t)hct_position(i);
	order = _mm512_loadu_si512(position);
	for (size_t g = 0; g < groups; g++, codes += HCT_GROUP, dst += HCT_GROUP) {
		__m512i c = _mm512_permutexvar_epi8(order, _mm512_loadu_si512(codes));

		_mm512_storeu_si512(dst, _mm512_permutexvar_epi8(c, entries));
	}
}

/* Bounded by +- most; NaN, which *numbers leaves out, becomes anything. */
INLINE __m512 bounded(const float *src, float most, __mmask16 *numbers)
{
	__m512 v = _mm512_loadu_ps(src);

	*numbers = _mm512_cmp_ps_mask(v, v, _CMP_ORD_Q);
	return _mm512_max_ps(_mm512_min_ps(v, _mm512_set1_ps(most)), _mm512_set1_ps(-most));
}

INLINE __m256i sixteen_bf16(const float *src)
{
	__mmask16 numbers;
	__m512i u = _mm512_castps_si512(bounded(src, 0x1.fep127f, &numbers));
	__m512i even = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));

	u = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), even);
	return _mm512_maskz_cvtepi32_epi16(numbers, _mm512_srli_epi32(u, 16));
}

INLINE __m256i sixteen_f16(const float *src)
{
	__mmask16 numbers;
	__m512 v = bounded(src, 65504, &numbers);

	return _mm512_maskz_cvtps_ph(numbers, v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* 32 values, with bounds where they need some; upper: the places of their upper halves. */
INLINE __m512i thirty_two_bf16(const float *src, __m512i upper)
{
	const __m512i one = _mm512_set1_epi32(1), half = _mm512_set1_epi32(0x7fff);
	/* twice what is rounded to infinity, or is more, or NaN, without the sign */
	const __m512i large = _mm512_set1_epi32((int)0xfeff0000);
	__m512i u = _mm512_loadu_si512(src), v = _mm512_loadu_si512(src + 16);
	__mmask16 k = _mm512_cmpge_epu32_mask(_mm512_add_epi32(u, u), large);
	__mmask16 l = _mm512_cmpge_epu32_mask(_mm512_add_epi32(v, v), large);

	if (__builtin_expect(k | l, 0))
		return _mm512_inserti64x4(_mm512_castsi256_si512(sixteen_bf16(src)),
					  sixteen_bf16(src + 16), 1);
	u = _mm512_add_epi32(_mm512_add_epi32(u, half),
			     _mm512_and_si512(_mm512_srli_epi32(u, 16), one));
	v = _mm512_add_epi32(_mm512_add_epi32(v, half),
			     _mm512_and_si512(_mm512_srli_epi32(v, 16), one));
	return _mm512_permutex2var_epi16(u, upper, v);
}

static void narrow_bf16(const float *src, size_t n, uint8_t *dst)
{
	uint16_t places[32];
	__m512i upper;

	for (unsigned i = 0; i < 32; i++)
		places[i] = (uint16_t)(2 * i + 1);
	upper = _mm512_loadu_si512(places);
	for (; n >= 32; n -= 32, src += 32, dst += 64)
		_mm512_storeu_si512(dst, thirty_two_bf16(src, upper));
	if (n) {
		float last[32] = {0};
		uint8_t out[64];

		memcpy(last, src, n * sizeof *src);
		_mm512_storeu_si512(out, thirty_two_bf16(last, upper));
		memcpy(dst, out, 2 * n);
	}
}

static void narrow_f16(const float *src, size_t n, uint8_t *dst)
{
	for (; n >= 16; n -= 16, src += 16, dst += 32)
		_mm256_storeu_si256((void *)dst, sixteen_f16(src));
	if (n) {
		float last[16] = {0};
		uint8_t out[32];

		memcpy(last, src, n * sizeof *src);
		_mm256_storeu_si256((void *)out, sixteen_f16(last));
		memcpy(dst, out, 2 * n);
	}
}

const struct hct_dequant_loops hct_dequant_avx512 = {.floats = floats,
						     .look16 = look16,
						     .look8 = look8,
						     .add = add_floats,
						     .narrow = NARROW_LOOPS};

#endif
