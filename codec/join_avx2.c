/* Joining on AVX2.  As in join_avx512.c, the low bytes of 16-bit lanes are elements of
 * the first half of the group ("a") and the high bytes those of the second ("b"); a
 * register holds 16 of each. */
#if defined __x86_64__

#include <immintrin.h>
#include <string.h>

#include "join.h"
#include "look_avx2.h"

#define MASK16(x) _mm256_set1_epi16((short)(x))

/* bits where mask is set, from a; elsewhere from b */
static inline __m256i pick(__m256i mask, __m256i a, __m256i b)
{
	return _mm256_or_si256(_mm256_and_si256(mask, a), _mm256_andnot_si256(mask, b));
}

static inline __m256i load(const void *p)
{
	return _mm256_loadu_si256(p);
}

static inline void store(void *p, __m256i v)
{
	_mm256_storeu_si256(p, v);
}

/* 32 fields of width bits, each alone in its byte; width bytes hold 8 of them. */
static inline __m256i unpack(const uint8_t *fields, unsigned width, uint64_t mask)
{
	uint64_t q[4];

	for (unsigned i = 0; i < 4; i++) {
		memcpy(&q[i], fields + i * width, 8);
		q[i] = _pdep_u64(q[i], mask);
	}
	return _mm256_set_epi64x((long long)q[3], (long long)q[2], (long long)q[1],
				 (long long)q[0]);
}

/* 32 heads of BF16 and F32. */
static inline void heads16(const struct hct_table64 *low, const uint8_t *symbols,
			   const uint8_t *fields, const uint16_t *shifts, __m256i *a, __m256i *b)
{
	const __m256i exponent = MASK16(0x7f80), mantissa = MASK16(0x007f);
	__m256i s = load(symbols), f = unpack(fields, 7, 0x7f7f7f7f7f7f7f7f);
	__m256i e = hct_look64(low, s);
	__m256i m = pick(_mm256_set1_epi8(0x40), _mm256_slli_epi16(s, 6), f);
	__m256i ea = _mm256_add_epi16(_mm256_slli_epi16(e, 7), load(shifts));
	__m256i eb = _mm256_add_epi16(_mm256_srli_epi16(e, 1), load(shifts + HCT_LANES));

	*a = pick(exponent, ea, _mm256_slli_epi16(f, 9));
	*a = pick(mantissa, m, *a);
	*b = pick(exponent, eb, _mm256_slli_epi16(f, 1));
	*b = pick(mantissa, _mm256_srli_epi16(m, 8), *b);
}

/* 32 heads of F16 and the 8-bit types, in the low bytes of 16-bit lanes. */
static inline void heads8(const struct hct_table64 *heads, const uint8_t *symbols,
			  const uint8_t *fields, const uint16_t *shifts, __m256i *a, __m256i *b)
{
	const __m256i rest = MASK16(0x01), top = MASK16(0x80);
	__m256i f = unpack(fields, 2, 0x0303030303030303), h = hct_look64(heads, load(symbols));
	__m256i sign = _mm256_slli_epi16(f, 6);

	*a = _mm256_add_epi16(h, load(shifts));
	*a = pick(rest, f, pick(top, sign, *a));
	*b = _mm256_add_epi16(_mm256_srli_epi16(h, 8), load(shifts + HCT_LANES));
	*b = pick(rest, _mm256_srli_epi16(f, 8), pick(top, _mm256_srli_epi16(sign, 8), *b));
}

static void join_bf16(const struct hct_join_tables *t, const uint8_t *symbols,
		      const uint8_t *fields, const uint8_t *tail, uint32_t column, size_t groups,
		      uint8_t *dst)
{
	const struct hct_table64 low = hct_table64(t->low);

	(void)tail;
	for (size_t g = 0; g < groups; g++, column = hct_next_column(t, column))
		for (unsigned half = 0; half < 2; half++) {
			uint8_t *d = dst + 128 * g + 32 * half;
			__m256i a, b;

			heads16(&low, symbols + 64 * g + 32 * half, fields + 56 * g + 28 * half,
				t->shifts + column + 16 * half, &a, &b);
			store(d, a);
			store(d + 64, b);
		}
}

/* Puts 16 heads above 16 tails. */
static inline void store32(uint8_t *dst, const uint8_t *tail, __m256i head)
{
	__m256i t = load(tail);
	__m256i lo = _mm256_unpacklo_epi16(t, head), hi = _mm256_unpackhi_epi16(t, head);

	store(dst, _mm256_permute2x128_si256(lo, hi, 0x20));
	store(dst + 32, _mm256_permute2x128_si256(lo, hi, 0x31));
}

static void join_f32(const struct hct_join_tables *t, const uint8_t *symbols, const uint8_t *fields,
		     const uint8_t *tail, uint32_t column, size_t groups, uint8_t *dst)
{
	const struct hct_table64 low = hct_table64(t->low);

	for (size_t g = 0; g < groups; g++, column = hct_next_column(t, column))
		for (unsigned half = 0; half < 2; half++) {
			const uint8_t *tl = tail + 128 * g + 32 * half;
			uint8_t *d = dst + 256 * g + 64 * half;
			__m256i a, b;

			heads16(&low, symbols + 64 * g + 32 * half, fields + 56 * g + 28 * half,
				t->shifts + column + 16 * half, &a, &b);
			store32(d, tl, a);
			store32(d + 128, tl + 64, b);
		}
}

static void join_f16(const struct hct_join_tables *t, const uint8_t *symbols, const uint8_t *fields,
		     const uint8_t *tail, uint32_t column, size_t groups, uint8_t *dst)
{
	const struct hct_table64 heads = hct_table64(t->head8);

	for (size_t g = 0; g < groups; g++, column = hct_next_column(t, column))
		for (unsigned half = 0; half < 2; half++) {
			const uint8_t *tl = tail + 64 * g + 16 * half;
			uint8_t *d = dst + 128 * g + 32 * half;
			__m256i a, b;

			heads8(&heads, symbols + 64 * g + 32 * half, fields + 16 * g + 8 * half,
			       t->shifts + column + 16 * half, &a, &b);
			store(d, _mm256_or_si256(
					 _mm256_slli_epi16(a, 8),
					 _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)tl))));
			store(d + 64, _mm256_or_si256(_mm256_slli_epi16(b, 8),
						      _mm256_cvtepu8_epi16(_mm_loadu_si128(
							      (const void *)(tl + 32)))));
		}
}

static void join_f8(const struct hct_join_tables *t, const uint8_t *symbols, const uint8_t *fields,
		    const uint8_t *tail, uint32_t column, size_t groups, uint8_t *dst)
{
	const struct hct_table64 heads = hct_table64(t->head8);
	const __m256i low = MASK16(0x00ff);

	(void)tail;
	for (size_t g = 0; g < groups; g++, column = hct_next_column(t, column))
		for (unsigned half = 0; half < 2; half++) {
			uint8_t *d = dst + 64 * g + 16 * half;
			__m256i a, b, v;

			heads8(&heads, symbols + 64 * g + 32 * half, fields + 16 * g + 8 * half,
			       t->shifts + column + 16 * half, &a, &b);
			v = _mm256_packus_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low));
			v = _mm256_permute4x64_epi64(v, 0xd8);
			_mm_storeu_si128((void *)d, _mm256_castsi256_si128(v));
			_mm_storeu_si128((void *)(d + 32), _mm256_extracti128_si256(v, 1));
		}
}

/* F64 is rare among models. */
const struct hct_join_loops hct_join_avx2 = {
	.f8 = join_f8, .f16 = join_f16, .bf16 = join_bf16, .f32 = join_f32};

#endif
