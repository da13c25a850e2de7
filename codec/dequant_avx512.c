/* Values and elements on AVX-512 with VBMI.  Bytes of a group lie in order of position, so the low
 * bytes of the 16-bit lanes are elements 0 to 31 and the high bytes elements 32 to 63: "a" and "b"
 * below. */
#if defined __x86_64__

#include <immintrin.h>

#define OWN_NARROW_BF16
#define OWN_NARROW_F16
#include "dequant_kernel.h"

/* What loops have that CPUs with GFNI and AVX512_BF16 choose. */
#define MODERN __attribute__((target("gfni,avx512bf16")))

/* The low byte of each 16-bit lane from a, the high one from b. */
INLINE __m512i low_high(__m512i a, __m512i b)
{
	return _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x00ff), a, b, 0xca);
}

/* ---- points that are looked up ---- */

/* Words of elements, or the numbers that are the values in units of a step. */
struct words {
	__m512i a, b;
};

/* 64 2^raw_bits bytes. */
struct table {
	__m512i part[1 << HCT_DEQUANT_LOOK_RAW];
};

INLINE struct table load_table(const uint8_t *bytes, unsigned raw_bits)
{
	struct table t;

	for (unsigned i = 0; i < 1u << raw_bits; i++)
		t.part[i] = _mm512_loadu_si512(bytes + 64 * i);
	return t;
}

/* One part, or where the first plane has ones the next one. */
INLINE __m512i look_two(const __m512i *part, __m512i codes, const __mmask64 *plane,
			unsigned raw_bits)
{
	__m512i v = _mm512_permutexvar_epi8(codes, part[0]);

	return raw_bits ? _mm512_mask_permutexvar_epi8(v, plane[0], codes, part[1]) : v;
}

/* The entries of codes and planes of raw bits, of which the number is constant. */
INLINE __m512i look(const struct table *t, __m512i codes, const __mmask64 *plane, unsigned raw_bits)
{
	__m512i v = look_two(t->part, codes, plane, raw_bits);

	if (raw_bits > 1)
		v = _mm512_mask_blend_epi8(plane[1], v, look_two(t->part + 2, codes, plane, 1));
	return v;
}

/* Words of which the low and the high bytes are given. */
INLINE struct words join(__m512i l, __m512i h)
{
	return (struct words){low_high(l, _mm512_slli_epi16(h, 8)),
			      low_high(_mm512_srli_epi16(l, 8), h)};
}

INLINE void load_planes(const uint8_t *raw, unsigned raw_bits, __mmask64 *plane)
{
	for (unsigned i = 0; i < raw_bits; i++)
		plane[i] = hct_load64(raw + 8 * i);
}

INLINE void look16(const struct hct_direct *t, const uint8_t *codes, const uint8_t *raw,
		   size_t groups, uint8_t *dst, unsigned raw_bits)
{
	const struct table low = load_table(t->low, raw_bits), high = load_table(t->high, raw_bits);

	for (size_t g = 0; g < groups; g++, codes += HCT_GROUP, dst += 2 * HCT_GROUP) {
		__m512i c = _mm512_loadu_si512(codes);
		__mmask64 plane[HCT_DEQUANT_LOOK_RAW];
		struct words v;

		load_planes(raw, raw_bits, plane);
		v = join(look(&low, c, plane, raw_bits), look(&high, c, plane, raw_bits));
		_mm512_storeu_si512(dst, v.a);
		_mm512_storeu_si512(dst + HCT_GROUP, v.b);
		raw += 8 * raw_bits;
	}
}

INLINE void look8(const struct hct_direct *t, const uint8_t *codes, const uint8_t *raw,
		  size_t groups, uint8_t *dst, unsigned raw_bits)
{
	const struct table entries = load_table(t->low, raw_bits);
	uint8_t position[HCT_GROUP];
	__m512i order;

	for (unsigned i = 0; i < HCT_GROUP; i++)
		position[i] = (uint8_t)hct_position(i);
	order = _mm512_loadu_si512(position);
	for (size_t g = 0; g < groups; g++, codes += HCT_GROUP, dst += HCT_GROUP) {
		__mmask64 plane[HCT_DEQUANT_LOOK_RAW];
		__m512i v;

		load_planes(raw, raw_bits, plane);
		v = look(&entries, _mm512_loadu_si512(codes), plane, raw_bits);
		_mm512_storeu_si512(dst, _mm512_permutexvar_epi8(order, v));
		raw += 8 * raw_bits;
	}
}

#define LOOK(name, loop)                                                                           \
	static void name(const struct hct_direct *t, const uint8_t *codes, const uint8_t *raw,     \
			 size_t groups, uint8_t *dst)                                              \
	{                                                                                          \
		if (t->values.raw_bits == 2)                                                       \
			loop(t, codes, raw, groups, dst, 2);                                       \
		else if (t->values.raw_bits == 1)                                                  \
			loop(t, codes, raw, groups, dst, 1);                                       \
		else                                                                               \
			loop(t, codes, raw, groups, dst, 0);                                       \
	}

LOOK(look_words, look16)
LOOK(look_bytes, look8)

/* ---- points that are computed ---- */

/* With b raw bits, n = 2 (c - 16 2^b) + parity = 2^(b-7) (u - 4096), where
 *     u = 256 symbol + 2^(8-b) raw + 2^(7-b) parity < 8192
 * has one byte of the symbol and one of the rest.  In the low bits of the float 2^23, u adds itself
 * to that; less 2^23 + 4096 and times 2^(b-7) step, a normal number, it is n step: there is no
 * other rounding than that of this product. */
struct raw {
	unsigned raw_bits;
	__m512i parity; /* 2^(7-b) parity of a code */
	__m512i planes; /* where rows of matrices come from: see raw_bytes_modern */
	__m512i units;  /* what they are multiplied by */
	__m512i upper;  /* the places of the upper halves of 32 floats */
	__m512 step;
};

/* Bytes in the order in which `raw_floats` wants them: those of elements 0 to 15 and 32 to 47 lie
 * in the lower halves of the 128-bit lanes, four of each in each. */
INLINE __m512i by_halves(__m512i bytes)
{
	return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), bytes);
}

INLINE struct raw raw_init(const struct hct_dequant *q)
{
	unsigned b = q->raw_bits;
	struct raw r = {.raw_bits = b, .step = _mm512_set1_ps(q->step / (float)(128 >> b))};
	uint8_t parity[64], planes[64];
	uint16_t upper[32];

	for (unsigned i = 0; i < 64; i++) {
		unsigned from = i / 16 + i / 8 % 2 * 4, row = i % 8;

		parity[i] = (uint8_t)((i >> 5) << (7 - b));
		/* row k of a matrix is bit 7 - k of its products; byte 56: no plane, so 0 */
		planes[i] = (uint8_t)(row < b ? (b - 1 - row) * 8 + from : 56);
	}
	for (unsigned i = 0; i < 32; i++)
		upper[i] = (uint16_t)(2 * i + 1);
	r.parity = _mm512_loadu_si512(parity);
	r.planes = _mm512_loadu_si512(planes);
	r.upper = _mm512_loadu_si512(upper);
	r.units = _mm512_set1_epi64((long long)0x8040201008040201);
	return r;
}

/* The raw bits of a group in the upper bits of bytes, by halves. */
INLINE __m512i raw_bytes(const struct raw *r, const uint8_t *raw)
{
	__m512i bits = _mm512_setzero_si512();

	for (unsigned i = 0; i < r->raw_bits; i++) {
		__mmask64 k = hct_load64(raw + 8 * i);
		__m512i bit = _mm512_set1_epi8((char)(1u << (8 - r->raw_bits + i)));

		bits = _mm512_mask_add_epi8(bits, k, bits, bit);
	}
	return by_halves(bits);
}

/* Eight bytes are the product of a matrix, with rows that are bytes of the planes, and all of its
 * columns' units: its transpose. */
MODERN INLINE __m512i raw_bytes_modern(const struct raw *r, const uint8_t *raw)
{
	__m512i rows = _mm512_maskz_loadu_epi64((__mmask8)((1u << r->raw_bits) - 1), raw);

	return _mm512_gf2p8affine_epi64_epi8(r->units, _mm512_permutexvar_epi8(r->planes, rows), 0);
}

INLINE __m512 raw_value(const struct raw *r, __m512i u)
{
	__m512 n = _mm512_sub_ps(_mm512_castsi512_ps(u), _mm512_set1_ps(0x1p23f + 4096));

	return _mm512_mul_ps(n, r->step);
}

/* The values of a group in natural order; bits: by halves. */
INLINE void raw_floats(const struct raw *r, const uint8_t *codes, __m512i bits, __m512 v[4])
{
	const __m512i word = _mm512_set1_epi32(0xffff), base = _mm512_set1_epi32(0x4b000000);
	const __m512i base_below = _mm512_set1_epi32(0x4b00);
	__m512i c = by_halves(_mm512_loadu_si512(codes)), symbol, a, b;

	bits = _mm512_or_si512(bits, _mm512_permutexvar_epi8(c, r->parity));
	symbol = _mm512_and_si512(c, _mm512_set1_epi8(31));
	a = _mm512_unpacklo_epi8(bits, symbol);
	b = _mm512_unpackhi_epi8(bits, symbol);
	v[0] = raw_value(r, _mm512_ternarylogic_epi32(a, word, base, 0xea));
	v[1] = raw_value(r, _mm512_ternarylogic_epi32(b, word, base, 0xea));
	v[2] = raw_value(r, _mm512_shrdi_epi32(a, base_below, 16));
	v[3] = raw_value(r, _mm512_shrdi_epi32(b, base_below, 16));
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

/* 32 values that need no bounds, as their bits. */
INLINE __m512i join_bf16(__m512i u, __m512i v, __m512i upper)
{
	const __m512i one = _mm512_set1_epi32(1), half = _mm512_set1_epi32(0x7fff);

	u = _mm512_add_epi32(_mm512_add_epi32(u, half),
			     _mm512_and_si512(_mm512_srli_epi32(u, 16), one));
	v = _mm512_add_epi32(_mm512_add_epi32(v, half),
			     _mm512_and_si512(_mm512_srli_epi32(v, 16), one));
	return _mm512_permutex2var_epi16(u, upper, v);
}

/* 32 values, with bounds where they need some; upper: the places of their upper halves. */
INLINE __m512i thirty_two_bf16(const float *src, __m512i upper)
{
	/* twice what is rounded to infinity, or is more, or NaN, without the sign */
	const __m512i large = _mm512_set1_epi32((int)0xfeff0000);
	__m512i u = _mm512_loadu_si512(src), v = _mm512_loadu_si512(src + 16);
	__mmask16 k = _mm512_cmpge_epu32_mask(_mm512_add_epi32(u, u), large);
	__mmask16 l = _mm512_cmpge_epu32_mask(_mm512_add_epi32(v, v), large);

	if (__builtin_expect(k | l, 0))
		return _mm512_inserti64x4(_mm512_castsi256_si512(sixteen_bf16(src)),
					  sixteen_bf16(src + 16), 1);
	return join_bf16(u, v, upper);
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

/* ---- loops ---- */

INLINE void put_f32(const struct raw *r, const __m512 v[4], uint8_t *dst, size_t g)
{
	(void)r;
	for (size_t i = 0; i < 4; i++)
		_mm512_storeu_ps(dst + 4 * HCT_GROUP * g + 64 * i, v[i]);
}

/* |n step| <= 4096 2^100: no bounds. */
INLINE void put_bf16(const struct raw *r, const __m512 v[4], uint8_t *dst, size_t g)
{
	for (size_t i = 0; i < 2; i++) {
		__m512i u = _mm512_castps_si512(v[2 * i]), w = _mm512_castps_si512(v[2 * i + 1]);

		_mm512_storeu_si512(dst + 2 * HCT_GROUP * g + 64 * i, join_bf16(u, w, r->upper));
	}
}

/* The instruction rounds as put_bf16 does but for subnormal numbers, which it takes for 0.  There
 * is none: a value is 0 or at least the least step, 2^-100. */
MODERN INLINE void put_bf16_modern(const struct raw *r, const __m512 v[4], uint8_t *dst, size_t g)
{
	(void)r;
	for (size_t i = 0; i < 2; i++)
		_mm512_storeu_si512(dst + 2 * HCT_GROUP * g + 64 * i,
				    (__m512i)_mm512_cvtne2ps_pbh(v[2 * i + 1], v[2 * i]));
}

INLINE void put_f16(const struct raw *r, const __m512 v[4], uint8_t *dst, size_t g)
{
	(void)r;
	for (size_t i = 0; i < 4; i++) {
		__m256i h = _mm512_cvtps_ph(v[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);

		_mm256_storeu_si256((void *)(dst + 2 * HCT_GROUP * g + 32 * i), h);
	}
}

/* Groups with raw bits, by one of raw_bytes and one of put. */
#define RAW_LOOP(attribute, name, bytes, put)                                                      \
	attribute static void name(const struct hct_dequant *q, const uint8_t *codes,              \
				   const uint8_t *raw, size_t groups, uint8_t *dst)                \
	{                                                                                          \
		const struct raw r = raw_init(q);                                                  \
                                                                                                   \
		for (size_t g = 0; g < groups; g++, codes += HCT_GROUP) {                          \
			__m512 v[4];                                                               \
                                                                                                   \
			raw_floats(&r, codes, bytes(&r, raw), v);                                  \
			put(&r, v, dst, g);                                                        \
			raw += 8 * r.raw_bits;                                                     \
		}                                                                                  \
	}

RAW_LOOP(, raw_f32, raw_bytes, put_f32)
RAW_LOOP(, raw_bf16, raw_bytes, put_bf16)
RAW_LOOP(, raw_f16, raw_bytes, put_f16)
RAW_LOOP(MODERN, raw_f32_modern, raw_bytes_modern, put_f32)
RAW_LOOP(MODERN, raw_bf16_modern, raw_bytes_modern, put_bf16_modern)
RAW_LOOP(MODERN, raw_f16_modern, raw_bytes_modern, put_f16)

INLINE void store_values(float *dst, __m512i words, __m512 step)
{
	__m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(words));
	__m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(words, 1));

	_mm512_storeu_ps(dst, _mm512_mul_ps(_mm512_cvtepi32_ps(low), step));
	_mm512_storeu_ps(dst + 16, _mm512_mul_ps(_mm512_cvtepi32_ps(high), step));
}

/* Groups without raw bits. */
static void plain_f32(const struct hct_dequant *q, const uint8_t *codes, size_t groups, float *dst)
{
	const __m512i low = _mm512_loadu_si512(q->low), high = _mm512_loadu_si512(q->high);
	const __m512 step = _mm512_set1_ps(q->fine);

	for (size_t g = 0; g < groups; g++, codes += HCT_GROUP, dst += HCT_GROUP) {
		__m512i c = _mm512_loadu_si512(codes);
		struct words n =
			join(_mm512_permutexvar_epi8(c, low), _mm512_permutexvar_epi8(c, high));

		store_values(dst, n.a, step);
		store_values(dst + HCT_LANES, n.b, step);
	}
}

static void floats(const struct hct_dequant *q, const uint8_t *codes, const uint8_t *raw,
		   size_t groups, float *dst)
{
	if (q->raw_bits)
		raw_f32(q, codes, raw, groups, (uint8_t *)dst);
	else
		plain_f32(q, codes, groups, dst);
}

static void floats_modern(const struct hct_dequant *q, const uint8_t *codes, const uint8_t *raw,
			  size_t groups, float *dst)
{
	if (q->raw_bits)
		raw_f32_modern(q, codes, raw, groups, (uint8_t *)dst);
	else
		plain_f32(q, codes, groups, dst);
}

DIRECT(f16, 2)
DIRECT(e5m2, 1)
DIRECT(e4m3, 1)
DIRECT(e5m2fnuz, 1)
DIRECT(e4m3fnuz, 1)

/* Whether F16 has infinity, which has to be avoided, nearest to some of the values. */
INLINE int exceeds_f16(const struct hct_dequant *q)
{
	return q->step * (float)(32 << q->raw_bits) >= 65520;
}

/* From codes to elements: by look-ups, in one pass, or by way of values in memory. */
#define ANY_BF16(name, one_pass)                                                                   \
	static void name(const struct hct_direct *t, const uint8_t *codes, const uint8_t *raw,     \
			 size_t groups, uint8_t *dst)                                              \
	{                                                                                          \
		if (t->values.raw_bits <= HCT_DEQUANT_LOOK_RAW)                                    \
			look_words(t, codes, raw, groups, dst);                                    \
		else                                                                               \
			one_pass(&t->values, codes, raw, groups, dst);                             \
	}

#define ANY_F16(name, one_pass)                                                                    \
	static void name(const struct hct_direct *t, const uint8_t *codes, const uint8_t *raw,     \
			 size_t groups, uint8_t *dst)                                              \
	{                                                                                          \
		if (t->values.raw_bits <= HCT_DEQUANT_LOOK_RAW)                                    \
			look_words(t, codes, raw, groups, dst);                                    \
		else if (!exceeds_f16(&t->values))                                                 \
			one_pass(&t->values, codes, raw, groups, dst);                             \
		else                                                                               \
			direct_f16(t, codes, raw, groups, dst);                                    \
	}

#define ANY_F8(dtype)                                                                              \
	static void any_##dtype(const struct hct_direct *t, const uint8_t *codes,                  \
				const uint8_t *raw, size_t groups, uint8_t *dst)                   \
	{                                                                                          \
		if (t->values.raw_bits <= HCT_DEQUANT_LOOK_RAW)                                    \
			look_bytes(t, codes, raw, groups, dst);                                    \
		else                                                                               \
			direct_##dtype(t, codes, raw, groups, dst);                                \
	}

ANY_BF16(any_bf16, raw_bf16)
ANY_BF16(any_bf16_modern, raw_bf16_modern)
ANY_F16(any_f16, raw_f16)
ANY_F16(any_f16_modern, raw_f16_modern)
ANY_F8(e5m2)
ANY_F8(e4m3)
ANY_F8(e5m2fnuz)
ANY_F8(e4m3fnuz)

#define LOOPS(suffix)                                                                              \
	{                                                                                          \
		.floats = floats##suffix, .add = add_floats,                                       \
		.direct = {[HCT_DTYPE_BF16] = any_bf16##suffix,                                    \
			   [HCT_DTYPE_F16] = any_f16##suffix,                                      \
			   [HCT_DTYPE_F8_E5M2] = any_e5m2,                                         \
			   [HCT_DTYPE_F8_E4M3] = any_e4m3,                                         \
			   [HCT_DTYPE_F8_E5M2FNUZ] = any_e5m2fnuz,                                 \
			   [HCT_DTYPE_F8_E4M3FNUZ] = any_e4m3fnuz},                                \
		.narrow = NARROW_LOOPS                                                             \
	}

const struct hct_dequant_loops hct_dequant_avx512 = LOOPS();
const struct hct_dequant_loops hct_dequant_avx512_bf16 = LOOPS(_modern);

#endif
