/* Internal: the body that the variants of dct_tiles.h share.  Whoever includes this has defined
 *   LANES      floats of a register
 *   vec        a type of so many, with + - * as the compiler's vector types have them
 *   transpose  static void (vec r[LANES]): of LANES x LANES floats, in place
 *
 * One lane is one vector to be transformed.  Lee's recursion, read forwards (B. G. Lee, "A new
 * algorithm to compute the discrete cosine transform", IEEE Trans. ASSP 32, 1984): for n inputs
 * x, with h = n / 2 and X(k) = sum of x(i) cos(pi (2 i + 1) k / (2 n)),
 *   X(2 k)                  is the DCT-II of x(i) + x(n - 1 - i),
 *   X(2 k + 1) + X(2 k - 1) is the DCT-II of (x(i) - x(n - 1 - i)) 2 cos(pi (2 i + 1) / (2 n)),
 * and X(-1) = X(1). */
#ifdef LANES

#include "dct_tiles.h"

/* Inlined into one another they are a quarter faster. */
#define HCT_DCT_STEP(n, h)                                                                         \
	static inline __attribute__((always_inline)) void dct_##n(vec *x)                          \
	{                                                                                          \
		vec even[h], odd[h];                                                               \
                                                                                                   \
		for (unsigned i = 0; i < (h); i++) {                                               \
			vec a = x[i], b = x[(n)-1 - i];                                            \
                                                                                                   \
			even[i] = a + b;                                                           \
			odd[i] = (a - b) * hct_dct_cosines[(h) + i];                               \
		}                                                                                  \
		dct_##h(even);                                                                     \
		dct_##h(odd);                                                                      \
		x[0] = even[0];                                                                    \
		x[1] = odd[0] * 0.5f;                                                              \
		for (unsigned i = 1; i < (h); i++) {                                               \
			x[2 * i] = even[i];                                                        \
			x[2 * i + 1] = odd[i] - x[2 * i - 1];                                      \
		}                                                                                  \
	}

static inline void dct_1(vec *x)
{
	(void)x;
}

/* cppcheck, which does not know vec, takes it to be of no size. */
/* cppcheck-suppress ctuArrayIndex */
HCT_DCT_STEP(2, 1)
/* cppcheck-suppress ctuArrayIndex */
HCT_DCT_STEP(4, 2)
/* cppcheck-suppress ctuArrayIndex */
HCT_DCT_STEP(8, 4)
/* cppcheck-suppress ctuArrayIndex */
HCT_DCT_STEP(16, 8)
/* cppcheck-suppress ctuArrayIndex */
HCT_DCT_STEP(32, 16)
/* cppcheck-suppress ctuArrayIndex */
HCT_DCT_STEP(64, 32)

static void transform(vec *x, unsigned n)
{
	unsigned log2n = (unsigned)__builtin_ctz(n);
	float scale = hct_dct_scales[log2n];

	switch (n) {
	case 2:
		dct_2(x);
		break;
	case 4:
		dct_4(x);
		break;
	case 8:
		dct_8(x);
		break;
	case 16:
		dct_16(x);
		break;
	case 32:
		dct_32(x);
		break;
	default:
		dct_64(x);
		break;
	}
	x[0] = x[0] * hct_dct_scales[log2n + 1];
	for (unsigned i = 1; i < n; i++)
		x[i] = x[i] * scale;
}

/* Along the columns: LANES neighbouring ones at a time. */
static void columns_pass(vec *block, size_t rows, unsigned tile_rows)
{
	enum { WIDTH = HCT_DCT_BLOCK / LANES };
	vec x[HCT_DCT_BLOCK];

	for (size_t row = 0; row < rows; row += tile_rows, block += tile_rows * WIDTH)
		for (unsigned c = 0; c < WIDTH; c++) {
			for (unsigned i = 0; i < tile_rows; i++)
				x[i] = block[i * WIDTH + c];
			transform(x, tile_rows);
			for (unsigned i = 0; i < tile_rows; i++)
				block[i * WIDTH + c] = x[i];
		}
}

/* Along the rows: LANES of them at a time, turned so that each becomes a lane. */
static void rows_pass(vec *block, size_t rows, unsigned tile_columns)
{
	enum { WIDTH = HCT_DCT_BLOCK / LANES };
	vec x[HCT_DCT_BLOCK];

	for (size_t row = 0; row < rows; row += LANES, block += LANES * WIDTH) {
		for (unsigned c = 0; c < WIDTH; c++) {
			for (unsigned i = 0; i < LANES; i++)
				x[c * LANES + i] = block[i * WIDTH + c];
			transpose(x + c * LANES);
		}
		for (unsigned c = 0; c < HCT_DCT_BLOCK; c += tile_columns)
			transform(x + c, tile_columns);
		for (unsigned c = 0; c < WIDTH; c++) {
			transpose(x + c * LANES);
			for (unsigned i = 0; i < LANES; i++)
				block[i * WIDTH + c] = x[c * LANES + i];
		}
	}
}

static void block_pass(float *block, size_t rows, unsigned tile_rows, unsigned tile_columns)
{
	if (tile_rows > 1)
		columns_pass((vec *)(void *)block, rows, tile_rows);
	if (tile_columns > 1)
		rows_pass((vec *)(void *)block, rows, tile_columns);
}

#endif
