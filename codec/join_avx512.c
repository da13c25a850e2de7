/* Joining on AVX-512 with VBMI. */
#if defined __x86_64__

#include <immintrin.h>

#include "join_avx512.h"

/* The 64 heads of F16 and the 8-bit types, in the low bytes of 16-bit lanes. */
static inline void heads8(__m512i heads, const struct hct_unpacker *u, const uint8_t *symbols,
			  const uint8_t *fields, const uint16_t *shifts, __m512i *a, __m512i *b)
{
	__m512i f = hct_unpack(u, fields);
	__m512i h = _mm512_permutexvar_epi8(_mm512_loadu_si512(symbols), heads);
	/* Two bits a field: mantissa below, sign above. */
	__m512i sign = _mm512_slli_epi16(f, 6), rest = HCT_MASK16(0x01), top = HCT_MASK16(0x80);

	*a = _mm512_add_epi16(h, _mm512_loadu_si512(shifts));
	*a = hct_pick(rest, f, hct_pick(top, sign, *a));
	*b = _mm512_add_epi16(_mm512_srli_epi16(h, 8), _mm512_loadu_si512(shifts + HCT_LANES));
	*b = hct_pick(rest, _mm512_srli_epi16(f, 8), hct_pick(top, _mm512_srli_epi16(sign, 8), *b));
}

static void join_bf16(const struct hct_join_tables *t, const uint8_t *symbols,
		      const uint8_t *fields, const uint8_t *tail, uint32_t column, size_t groups,
		      uint8_t *dst)
{
	const struct hct_unpacker u = hct_unpacker(7);
	const __m512i low = _mm512_loadu_si512(t->low);

	(void)tail;
	for (size_t g = 0; g < groups; g++) {
		__m512i a, b;

		hct_heads16(low, &u, _mm512_loadu_si512(symbols + 64 * g), fields + 56 * g,
			    t->shifts + column, &a, &b);
		_mm512_storeu_si512(dst + 128 * g, a);
		_mm512_storeu_si512(dst + 128 * g + 64, b);
		column = hct_next_column(t, column);
	}
}

static void join_f32(const struct hct_join_tables *t, const uint8_t *symbols, const uint8_t *fields,
		     const uint8_t *tail, uint32_t column, size_t groups, uint8_t *dst)
{
	const struct hct_unpacker u = hct_unpacker(7);
	const __m512i low = _mm512_loadu_si512(t->low);

	for (size_t g = 0; g < groups; g++) {
		__m512i a, b;

		hct_heads16(low, &u, _mm512_loadu_si512(symbols + 64 * g), fields + 56 * g,
			    t->shifts + column, &a, &b);
		hct_store_f32(dst + 256 * g, tail + 128 * g, a);
		hct_store_f32(dst + 256 * g + 128, tail + 128 * g + 64, b);
		column = hct_next_column(t, column);
	}
}

static void join_f16(const struct hct_join_tables *t, const uint8_t *symbols, const uint8_t *fields,
		     const uint8_t *tail, uint32_t column, size_t groups, uint8_t *dst)
{
	const struct hct_unpacker u = hct_unpacker(2);
	const __m512i heads = _mm512_loadu_si512(t->head8);

	for (size_t g = 0; g < groups; g++) {
		const uint8_t *tl = tail + 64 * g;
		__m512i a, b;

		heads8(heads, &u, symbols + 64 * g, fields + 16 * g, t->shifts + column, &a, &b);
		a = hct_pick(HCT_MASK16(0x00ff),
			     _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)tl)),
			     _mm512_slli_epi16(a, 8));
		b = hct_pick(HCT_MASK16(0x00ff),
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
	const struct hct_unpacker u = hct_unpacker(2);
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
