/* Internal: the parts of the AVX2 entropy decoder that do not know its tables, for the loops that
 * are built on it.  8 lanes a register, and a shuffle that deals the next bytes of the run to the
 * lanes that need one. */
#ifndef HCT_RANS_AVX2_H
#define HCT_RANS_AVX2_H

#include <immintrin.h>

#include "rans.h"

/* The 32 states of a substream, 8 in each register. */
struct hct_lanes {
	__m256i x[4];
};

/* For a mask of 8 lanes: which of the next 8 bytes each lane takes, that is, how many lanes
 * below it take one. */
static inline __m256i hct_deal_index(unsigned mask)
{
	uint64_t ones = _pdep_u64(mask, 0x0101010101010101u);
	uint64_t ranks = (ones * 0x0101010101010101u) - ones;

	return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)ranks));
}

static inline struct hct_lanes hct_load_lanes(const uint16_t x[HCT_LANES])
{
	struct hct_lanes l;

	for (unsigned i = 0; i < 4; i++)
		l.x[i] = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(x + 8 * i)));
	return l;
}

static inline void hct_store_lanes(uint16_t x[HCT_LANES], const struct hct_lanes *l)
{
	for (unsigned i = 0; i < 4; i++) {
		__m256i v = _mm256_permute4x64_epi64(_mm256_packus_epi32(l->x[i], l->x[i]), 0x08);

		_mm_storeu_si128((void *)(x + 8 * i), _mm256_castsi256_si128(v));
	}
}

/* The states after one symbol each: x before it, w as `wide` tables have it (frequency in bits 0 to
 * 7, rank in bits 8 to 15). */
static inline __m256i hct_advance(__m256i x, __m256i w, const uint8_t **p)
{
	const __m256i low = _mm256_set1_epi32(255);
	__m256i y, bytes, need;
	unsigned mask;

	/* Both factors are below 256, so the 16-bit product is the whole. */
	y = _mm256_mullo_epi16(_mm256_and_si256(w, low), _mm256_srli_epi32(x, 8));
	y = _mm256_add_epi32(y, _mm256_and_si256(_mm256_srli_epi32(w, 8), low));
	need = _mm256_cmpgt_epi32(_mm256_set1_epi32(HCT_RANS_LOW), y);
	mask = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(need));
	bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)*p));
	bytes = _mm256_permutevar8x32_epi32(bytes, hct_deal_index(mask));
	*p += __builtin_popcount(mask);
	return _mm256_blendv_epi8(y, _mm256_or_si256(_mm256_slli_epi32(y, 8), bytes), need);
}

/* Four times 8 values below 2^16 as 16-bit lanes, in order. */
static inline void hct_narrow_lanes(const __m256i w[4], __m256i out[2])
{
	out[0] = _mm256_permute4x64_epi64(_mm256_packus_epi32(w[0], w[1]), 0xd8);
	out[1] = _mm256_permute4x64_epi64(_mm256_packus_epi32(w[2], w[3]), 0xd8);
}

#endif
