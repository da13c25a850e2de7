/* The DCT of tiles on AVX2: 8 lanes. */
#if defined __x86_64__

#include <immintrin.h>

#define LANES 8
typedef __m256 vec;

static inline void transpose(vec r[LANES])
{
	vec a[LANES], b[LANES];

	for (unsigned i = 0; i < LANES; i += 2) {
		a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
		a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
	}
	for (unsigned i = 0; i < LANES; i += 4)
		for (unsigned j = 0; j < 2; j++) {
			b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
			b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0xee);
		}
	for (unsigned i = 0; i < 4; i++) {
		r[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
		r[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
	}
}

#include "dct_kernel.h"

void hct_dct_block_avx2(float *block, size_t rows, unsigned tile_rows, unsigned tile_columns)
{
	block_pass(block, rows, tile_rows, tile_columns);
}

#endif
