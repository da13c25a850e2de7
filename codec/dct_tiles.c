#include <stdint.h>
#include <string.h>

#include "dct.h"

#define LANES 4
typedef float vec __attribute__((vector_size(16), may_alias));

static inline void transpose(vec r[LANES])
{
	for (unsigned i = 1; i < LANES; i++)
		for (unsigned j = 0; j < i; j++) {
			float f = r[i][j];

			r[i][j] = r[j][i];
			r[j][i] = f;
		}
}

#include "dct_kernel.h"

const float hct_dct_cosines[HCT_DCT_BLOCK] = {
	0.0f,         1.41421356f,   1.84775907f,  0.765366865f, 1.96157056f,  1.66293922f,
	1.11114047f,  0.390180644f,  1.99036945f,  1.91388067f,  1.76384253f,  1.54602091f,
	1.26878657f,  0.942793474f,  0.580569355f, 0.196034281f, 1.99759091f,  1.97835302f,
	1.94006251f,  1.88308813f,   1.80797859f,  1.71545722f,  1.60641506f,  1.48190225f,
	1.34311791f,  1.19139861f,   1.02820549f,  0.855110187f, 0.673779707f, 0.48596036f,
	0.293460949f, 0.0981353487f, 1.99939764f,  1.99458091f,  1.98495907f,  1.97055528f,
	1.95140426f,  1.92755213f,   1.89905636f,  1.8659856f,   1.82841951f,  1.7864486f,
	1.74017398f,  1.68970713f,   1.63516963f,  1.57669286f,  1.51441769f,  1.44849417f,
	1.37908109f,  1.30634569f,   1.23046318f,  1.15161638f,  1.06999524f,  0.985796384f,
	0.899222659f, 0.810482628f,  0.719790073f, 0.627363481f, 0.533425515f, 0.43820248f,
	0.341923778f, 0.24482135f,   0.147129127f, 0.049082457f,
};

const float hct_dct_scales[8] = {1.41421356f,  1.0f,  0.707106781f, 0.5f,
				 0.353553391f, 0.25f, 0.176776695f, 0.125f};

void hct_dct_block_scalar(float *block, size_t rows, unsigned tile_rows, unsigned tile_columns)
{
	block_pass(block, rows, tile_rows, tile_columns);
}

hct_dct_block *hct_dct_blocks(hct_simd simd)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		return hct_dct_block_avx512;
	if (simd == HCT_SIMD_AVX2)
		return hct_dct_block_avx2;
#endif
	(void)simd;
	return hct_dct_block_scalar;
}
