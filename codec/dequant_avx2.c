/* Values and elements on AVX2.  As in dequant_avx512.c, the low bytes of 16-bit lanes are elements
 * of the first half of the group ("a") and the high bytes those of the second ("b"); a register
 * holds 16 of each. */
#if defined __x86_64__

#include <immintrin.h>

#include "dequant_kernel.h"
#include "look_avx2.h"

/* 16-bit numbers of 16 elements of each half. */
struct words {
	__m256i a, b;
};

/* 32 codes without the bits that are not for these tables. */
INLINE __m256i load_codes(const uint8_t *codes)
{
	return _mm256_and_si256(_mm256_loadu_si256((const void *)codes), _mm256_set1_epi8(63));
}

INLINE struct words join_bytes(__m256i low, __m256i high)
{
	const __m256i mask = _mm256_set1_epi16(0x00ff);
	struct words w = {_mm256_and_si256(low, mask), _mm256_andnot_si256(mask, high)};

	w.a = _mm256_or_si256(w.a, _mm256_slli_epi16(high, 8));
	w.b = _mm256_or_si256(w.b, _mm256_srli_epi16(low, 8));
	return w;
}

/* Bit i of a plane, given 32 of them, as bit `to` of byte i. */
INLINE __m256i spread(uint32_t plane, unsigned to)
{
	const __m256i where = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2,
					       2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
	const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
	__m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32((int)plane), where);

	v = _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit);
	return _mm256_and_si256(v, _mm256_set1_epi8((char)(1 << to)));
}

/* 2 (c - 16 2^b) + parity of 32 symbols; raw: 4 bytes of each 8 are theirs. */
INLINE struct words raw_words(__m256i codes, const uint8_t *raw, unsigned raw_bits)
{
	const __m256i low = _mm256_set1_epi16(0x00ff);
	__m256i bits = _mm256_setzero_si256(), symbol, parity;
	__m128i shift = _mm_cvtsi32_si128((int)raw_bits + 1);
	__m256i zero = _mm256_set1_epi16((short)(32 << raw_bits));
	struct words n;

	for (unsigned i = 0; i < raw_bits; i++)
		bits = _mm256_or_si256(bits, spread(hct_load32(raw + 8 * i), i));
	symbol = _mm256_and_si256(codes, _mm256_set1_epi8(31));
	parity = _mm256_and_si256(_mm256_srli_epi16(codes, 5), _mm256_set1_epi8(1));
	n.a = _mm256_slli_epi16(_mm256_and_si256(bits, low), 1);
	n.b = _mm256_slli_epi16(_mm256_srli_epi16(bits, 8), 1);
	n.a = _mm256_or_si256(n.a, _mm256_and_si256(parity, low));
	n.b = _mm256_or_si256(n.b, _mm256_srli_epi16(parity, 8));
	n.a = _mm256_or_si256(n.a, _mm256_sll_epi16(_mm256_and_si256(symbol, low), shift));
	n.b = _mm256_or_si256(n.b, _mm256_sll_epi16(_mm256_srli_epi16(symbol, 8), shift));
	n.a = _mm256_sub_epi16(n.a, zero);
	n.b = _mm256_sub_epi16(n.b, zero);
	return n;
}

INLINE void store_values(float *dst, __m256i words, __m256 step)
{
	__m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(words));
	__m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(words, 1));

	_mm256_storeu_ps(dst, _mm256_mul_ps(_mm256_cvtepi32_ps(low), step));
	_mm256_storeu_ps(dst + 8, _mm256_mul_ps(_mm256_cvtepi32_ps(high), step));
}

static void floats(const struct hct_dequant *q, const uint8_t *codes, const uint8_t *raw,
		   size_t groups, float *dst)
{
	const struct hct_table64 low = hct_table64(q->low), high = hct_table64(q->high);
	const __m256 step = _mm256_set1_ps(q->raw_bits ? q->step : q->fine);

	for (size_t g = 0; g < groups; g++, raw += 8 * q->raw_bits)
		for (unsigned half = 0; half < 2; half++) {
			float *d = dst + HCT_GROUP * g + 16 * half;
			__m256i c = load_codes(codes + HCT_GROUP * g + 32 * half);
			struct words n =
				q->raw_bits ? raw_words(c, raw + 4 * half, q->raw_bits)
					    : join_bytes(hct_look64(&low, c), hct_look64(&high, c));

			store_values(d, n.a, step);
			store_values(d + HCT_LANES, n.b, step);
		}
}

static void look16(const struct hct_direct *t, const uint8_t *codes, size_t groups, uint8_t *dst)
{
	const struct hct_table64 low = hct_table64(t->low), high = hct_table64(t->high);

	for (size_t g = 0; g < groups; g++)
		for (unsigned half = 0; half < 2; half++) {
			uint8_t *d = dst + 2 * HCT_GROUP * g + 32 * half;
			__m256i c = load_codes(codes + HCT_GROUP * g + 32 * half);
			struct words v = join_bytes(hct_look64(&low, c), hct_look64(&high, c));

			_mm256_storeu_si256((void *)d, v.a);
			_mm256_storeu_si256((void *)(d + HCT_GROUP), v.b);
		}
}

static void look8(const struct hct_direct *t, const uint8_t *codes, size_t groups, uint8_t *dst)
{
	const struct hct_table64 table = hct_table64(t->low);
	const __m256i low = _mm256_set1_epi16(0x00ff);

	for (size_t g = 0; g < groups; g++)
		for (unsigned half = 0; half < 2; half++) {
			uint8_t *d = dst + HCT_GROUP * g + 16 * half;
			__m256i v =
				hct_look64(&table, load_codes(codes + HCT_GROUP * g + 32 * half));

			v = _mm256_packus_epi16(_mm256_and_si256(v, low), _mm256_srli_epi16(v, 8));
			v = _mm256_permute4x64_epi64(v, 0xd8);
			_mm_storeu_si128((void *)d, _mm256_castsi256_si128(v));
			_mm_storeu_si128((void *)(d + HCT_LANES), _mm256_extracti128_si256(v, 1));
		}
}

/* What loops have that also need F16C. */
#define F16C __attribute__((target("f16c")))

/* The values of 16 words, of which each half lies in two quarters: a[0 .. 3], b[0 .. 3], a[4 .. 7],
 * b[4 .. 7].  step: 2^-16 of a step, which is a normal number still; so is every value but 0. */
struct halves {
	__m256 a, b;
};

INLINE struct halves word_values(__m256i words, __m256 step)
{
	const __m256i zero = _mm256_setzero_si256();
	__m256i a = _mm256_unpacklo_epi16(zero, words), b = _mm256_unpackhi_epi16(zero, words);

	return (struct halves){_mm256_mul_ps(_mm256_cvtepi32_ps(a), step),
			       _mm256_mul_ps(_mm256_cvtepi32_ps(b), step)};
}

/* The upper half of what is rounded; |n step| <= 4096 2^100 needs no bounds. */
INLINE __m256i upper_bf16(__m256 v)
{
	__m256i u = _mm256_castps_si256(v);
	__m256i even = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));

	u = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), even);
	return _mm256_srli_epi32(u, 16);
}

INLINE __m256i words_bf16(__m256i words, __m256 step)
{
	struct halves v = word_values(words, step);

	return _mm256_packus_epi32(upper_bf16(v.a), upper_bf16(v.b));
}

F16C INLINE __m128i eight_f16(__m256 v)
{
	const __m256 most = _mm256_set1_ps(65504), least = _mm256_set1_ps(-65504);

	return _mm256_cvtps_ph(_mm256_max_ps(_mm256_min_ps(v, most), least),
			       _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

F16C INLINE __m256i words_f16(__m256i words, __m256 step)
{
	struct halves v = word_values(words, step);
	__m128i a = eight_f16(v.a), b = eight_f16(v.b);

	return _mm256_setr_m128i(_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b));
}

/* Groups with raw bits to elements of 16 bits, by words_... */
#define RAW_LOOP(attribute, name, convert)                                                         \
	attribute static void name(const struct hct_dequant *q, const uint8_t *codes,              \
				   const uint8_t *raw, size_t groups, uint8_t *dst)                \
	{                                                                                          \
		const __m256 step = _mm256_set1_ps(q->step * 0x1p-16f);                            \
                                                                                                   \
		for (size_t g = 0; g < groups; g++, raw += 8 * q->raw_bits)                        \
			for (unsigned half = 0; half < 2; half++) {                                \
				uint8_t *d = dst + 2 * HCT_GROUP * g + 32 * half;                  \
				__m256i c = load_codes(codes + HCT_GROUP * g + 32 * half);         \
				struct words n = raw_words(c, raw + 4 * half, q->raw_bits);        \
                                                                                                   \
				_mm256_storeu_si256((void *)d, convert(n.a, step));                \
				_mm256_storeu_si256((void *)(d + HCT_GROUP), convert(n.b, step));  \
			}                                                                          \
	}

RAW_LOOP(, raw_bf16, words_bf16)
RAW_LOOP(F16C, raw_f16, words_f16)

DIRECT(f16, 2)
DIRECT(e5m2, 1)
DIRECT(e4m3, 1)
DIRECT(e5m2fnuz, 1)
DIRECT(e4m3fnuz, 1)

/* From codes to elements: by look-ups where there are no raw bits, otherwise in one pass, or by way
 * of values in memory. */
static void any_bf16(const struct hct_direct *t, const uint8_t *codes, const uint8_t *raw,
		     size_t groups, uint8_t *dst)
{
	if (t->values.raw_bits)
		raw_bf16(&t->values, codes, raw, groups, dst);
	else
		look16(t, codes, groups, dst);
}

static void any_f16(const struct hct_direct *t, const uint8_t *codes, const uint8_t *raw,
		    size_t groups, uint8_t *dst)
{
	if (!t->values.raw_bits)
		look16(t, codes, groups, dst);
	else if (t->f16c)
		raw_f16(&t->values, codes, raw, groups, dst);
	else
		direct_f16(t, codes, raw, groups, dst);
}

#define ANY_F8(dtype)                                                                              \
	static void any_##dtype(const struct hct_direct *t, const uint8_t *codes,                  \
				const uint8_t *raw, size_t groups, uint8_t *dst)                   \
	{                                                                                          \
		if (t->values.raw_bits)                                                            \
			direct_##dtype(t, codes, raw, groups, dst);                                \
		else                                                                               \
			look8(t, codes, groups, dst);                                              \
	}

ANY_F8(e5m2)
ANY_F8(e4m3)
ANY_F8(e5m2fnuz)
ANY_F8(e4m3fnuz)

const struct hct_dequant_loops hct_dequant_avx2 = {
	.floats = floats,
	.add = add_floats,
	.direct = {[HCT_DTYPE_BF16] = any_bf16,
		   [HCT_DTYPE_F16] = any_f16,
		   [HCT_DTYPE_F8_E5M2] = any_e5m2,
		   [HCT_DTYPE_F8_E4M3] = any_e4m3,
		   [HCT_DTYPE_F8_E5M2FNUZ] = any_e5m2fnuz,
		   [HCT_DTYPE_F8_E4M3FNUZ] = any_e4m3fnuz},
	.narrow = NARROW_LOOPS};

#endif
