/* The inverse DCT on AVX2: 8 lanes. */
#if defined __x86_64__

#include <immintrin.h>

#define LANES 8
#define IDCT  hct_idct_avx2

typedef __m256 vec;

static inline vec load(const float *p)
{
	return _mm256_loadu_ps(p);
}

static inline void store(float *p, vec v)
{
	_mm256_storeu_ps(p, v);
}

static inline vec splat(float v)
{
	return _mm256_set1_ps(v);
}

static inline void swap1(vec *a, vec *b)
{
	vec t = _mm256_blend_ps(*a, _mm256_moveldup_ps(*b), 0xaa);

	*b = _mm256_blend_ps(*b, _mm256_movehdup_ps(*a), 0x55);
	*a = t;
}

static inline void swap4(vec *a, vec *b)
{
	vec t = _mm256_permute2f128_ps(*a, *b, 0x20);

	*b = _mm256_permute2f128_ps(*a, *b, 0x31);
	*a = t;
}

static inline void transpose4(vec *x)
{
	__m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(x[0], x[1]));
	__m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(x[0], x[1]));
	__m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(x[2], x[3]));
	__m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(x[2], x[3]));

	x[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
	x[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
	x[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
	x[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
}

static inline vec load_parts(const float *p, const size_t *at)
{
	vec v = _mm256_castps128_ps256(_mm_loadu_ps(p + at[0]));

	return _mm256_insertf128_ps(v, _mm_loadu_ps(p + at[4]), 1);
}

#include "idct_kernel.h"

#endif
