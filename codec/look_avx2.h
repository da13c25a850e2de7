/* Internal: look-ups in a table of 64 bytes on AVX2. */
#ifndef HCT_LOOK_AVX2_H
#define HCT_LOOK_AVX2_H

#include <immintrin.h>
#include <stdint.h>

/* The table as four of 16. */
struct hct_table64 {
	__m256i part[4];
};

static inline struct hct_table64 hct_table64(const uint8_t bytes[64])
{
	struct hct_table64 t;

	for (unsigned i = 0; i < 4; i++)
		t.part[i] = _mm256_broadcastsi128_si256(
			_mm_loadu_si128((const void *)(bytes + 16 * i)));
	return t;
}

/* The entries for 32 indices, of which the top bit must be 0; bit 6 is ignored. */
static inline __m256i hct_look64(const struct hct_table64 *t, __m256i i)
{
	__m256i bit4 = _mm256_slli_epi16(i, 3), bit5 = _mm256_slli_epi16(i, 2);
	__m256i lower = _mm256_blendv_epi8(_mm256_shuffle_epi8(t->part[0], i),
					   _mm256_shuffle_epi8(t->part[1], i), bit4);
	__m256i upper = _mm256_blendv_epi8(_mm256_shuffle_epi8(t->part[2], i),
					   _mm256_shuffle_epi8(t->part[3], i), bit4);

	return _mm256_blendv_epi8(lower, upper, bit5);
}

#endif
