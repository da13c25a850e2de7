/* The inverse DCT on AVX-512: 16 lanes. */
#if defined __x86_64__

#include <immintrin.h>

#define LANES 16
#define IDCT  hct_idct_avx512

typedef __m512 vec;

static inline vec load(const float *p)
{
	return _mm512_loadu_ps(p);
}

static inline void store(float *p, vec v)
{
	_mm512_storeu_ps(p, v);
}

static inline vec splat(float v)
{
	return _mm512_set1_ps(v);
}

static inline void swap1(vec *a, vec *b)
{
	vec t = _mm512_mask_moveldup_ps(*a, 0xaaaa, *b);

	*b = _mm512_mask_movehdup_ps(*b, 0x5555, *a);
	*a = t;
}

static inline void swap4(vec *a, vec *b)
{
	vec t = _mm512_mask_shuffle_f32x4(*a, 0xf0f0, *b, *b, 0xa0);

	*b = _mm512_mask_shuffle_f32x4(*b, 0x0f0f, *a, *a, 0xf5);
	*a = t;
}

static inline void swap8(vec *a, vec *b)
{
	vec t = _mm512_insertf32x8(*a, _mm512_castps512_ps256(*b), 1);

	*b = _mm512_shuffle_f32x4(*a, *b, 0xee);
	*a = t;
}

static inline void transpose4(vec *x)
{
	__m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[0], x[1]));
	__m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(x[0], x[1]));
	__m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(x[2], x[3]));
	__m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(x[2], x[3]));

	x[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
	x[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
	x[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
	x[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
}

static inline vec load_parts(const float *p, const size_t *at)
{
	vec v = _mm512_castps128_ps512(_mm_loadu_ps(p + at[0]));

	v = _mm512_mask_broadcast_f32x4(v, 0x00f0, _mm_loadu_ps(p + at[4]));
	v = _mm512_mask_broadcast_f32x4(v, 0x0f00, _mm_loadu_ps(p + at[8]));
	return _mm512_mask_broadcast_f32x4(v, 0xf000, _mm_loadu_ps(p + at[12]));
}

#include "idct_kernel.h"

#endif
