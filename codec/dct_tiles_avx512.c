/* The DCT of tiles on AVX-512: 16 lanes. */
#if defined __x86_64__

#include <immintrin.h>

#define LANES 16
typedef __m512 vec;

static inline void transpose(vec r[LANES])
{
	vec a[LANES], b[LANES];

	for (unsigned i = 0; i < LANES; i += 2) {
		a[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
		a[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
	}
	for (unsigned i = 0; i < LANES; i += 4)
		for (unsigned j = 0; j < 2; j++) {
			b[i + 2 * j] = _mm512_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
			b[i + 2 * j + 1] = _mm512_shuffle_ps(a[i + j], a[i + j + 2], 0xee);
		}
	/* Now the quarters of b: of rows 0 to 3, 4 to 7 ... columns i, i + 4, i + 8, i + 12. */
	for (unsigned i = 0; i < 4; i++) {
		vec p = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
		vec q = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
		vec s = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
		vec t = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);

		r[i] = _mm512_shuffle_f32x4(p, q, 0x88);
		r[i + 8] = _mm512_shuffle_f32x4(p, q, 0xdd);
		r[i + 4] = _mm512_shuffle_f32x4(s, t, 0x88);
		r[i + 12] = _mm512_shuffle_f32x4(s, t, 0xdd);
	}
}

#include "dct_kernel.h"

void hct_dct_block_avx512(float *block, size_t rows, unsigned tile_rows, unsigned tile_columns)
{
	block_pass(block, rows, tile_rows, tile_columns);
}

#endif
