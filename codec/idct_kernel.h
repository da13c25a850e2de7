/* Internal: the inverse DCT on vectors.  A variant includes this once, after
 *
 *   LANES                 floats of a vector
 *   vec                   the vector
 *   load, store           from and to any address
 *   splat                 one value in all lanes
 *   load_parts(p, at)     lanes 4 j to 4 j + 3 from p + at[4 j]
 *   transpose4(x)         of four vectors, in each 4 lanes
 *   swap1, swap4, swap8   swapD(a, b): the upper D of each 2 D lanes of a change places with the
 *                         lower D of b; swap8 only for 16 lanes
 *   IDCT                  the name of the function
 *
 * Sums and products are those of the compiler's vectors: one IEEE operation a lane.  Arrays of
 * vectors are meant for registers: every loop over them has bounds that are constant once all is
 * inlined, and is unrolled. */
#include <string.h>

#include "idct.h"

#define INLINE static inline __attribute__((always_inline))

#include "idct_transform.h"

/* LANES columns of n coefficients.  The outermost step of T_n is written out, so that no
 * coefficient is loaded long before its turn: 64 vectors are more than there are registers. */
INLINE void transform_columns(const float *src, size_t src_stride, float *dst, size_t dst_stride,
			      unsigned n)
{
	unsigned half = n / 2;
	vec g[32], h[32];

	h[0] = load(src + src_stride);
#pragma GCC unroll 64
	for (unsigned k = 1; k < half; k++)
		h[k] = load(src + (2 * k + 1) * src_stride) + load(src + (2 * k - 1) * src_stride);
	transform(h, half);
	scale(h, half);
	g[0] = load(src) * splat(HCT_IDCT_SQRT_HALF);
#pragma GCC unroll 64
	for (unsigned k = 1; k < half; k++)
		g[k] = load(src + 2 * k * src_stride);
	transform(g, half);
#pragma GCC unroll 64
	for (unsigned k = 0; k < half; k++) {
		store(dst + k * dst_stride, g[k] + h[k]);
		store(dst + (n - 1 - k) * dst_stride, g[k] - h[k]);
	}
}

/* Transposes each n x n block of n vectors, n <= LANES. */
INLINE void transpose(vec *x, unsigned n)
{
	if (n == 2)
		swap1(&x[0], &x[1]);
#pragma GCC unroll 64
	for (unsigned i = 0; i < n / 4; i++)
		transpose4(x + 4 * i);
#pragma GCC unroll 64
	for (unsigned i = 0; i < n / 8 * 4; i++)
		swap4(&x[i + (i & 4)], &x[i + (i & 4) + 4]);
#if LANES == 16
#pragma GCC unroll 64
	for (unsigned i = 0; i < n / 16 * 8; i++)
		swap8(&x[i], &x[i + 8]);
#endif
}

/* x[i] is float i of each of LANES places.  Half of the transposition happens while loading,
 * which keeps the shuffle port free. */
INLINE void load_transposed(vec *x, const float *p, const size_t *at)
{
#pragma GCC unroll 64
	for (unsigned i = 0; i < LANES; i += 4) {
#pragma GCC unroll 64
		for (unsigned k = 0; k < 4; k++)
			x[i + k] = load_parts(p + i, at + k);
		transpose4(x + i);
	}
}

/* Rows of n <= LANES: n pieces of LANES floats, several rows in each where n < LANES. */
INLINE void transform_short_rows(const float *src, const size_t *src_at, float *dst,
				 const size_t *dst_at, unsigned n)
{
	vec x[LANES];

	if (n == LANES) {
		load_transposed(x, src, src_at);
	} else {
#pragma GCC unroll 64
		for (unsigned i = 0; i < n; i++)
			x[i] = load(src + src_at[i]);
		transpose(x, n);
	}
	x[0] *= splat(HCT_IDCT_SQRT_HALF);
	transform(x, n);
	transpose(x, n);
#pragma GCC unroll 64
	for (unsigned i = 0; i < n; i++)
		store(dst + dst_at[i], x[i]);
}

/* Along the columns: `width` columns, a multiple of LANES. */
typedef void columns_pass(const float *src, size_t src_stride, float *dst, size_t dst_stride,
			  size_t width);

/* LANES rows of n > LANES; columns: the pass along columns of n. */
INLINE void transform_long_rows(const float *src, const size_t *src_at, float *dst,
				const size_t *dst_at, unsigned n, columns_pass *columns)
{
	float turned[HCT_IDCT_MAX * LANES] __attribute__((aligned(64)));
	vec x[LANES];

	for (unsigned b = 0; b < n; b += LANES) {
		load_transposed(x, src + b, src_at);
#pragma GCC unroll 64
		for (unsigned i = 0; i < LANES; i++)
			store(turned + (b + i) * LANES, x[i]);
	}
	columns(turned, LANES, turned, LANES, LANES);
	for (unsigned b = 0; b < n; b += LANES) {
#pragma GCC unroll 64
		for (unsigned i = 0; i < LANES; i++)
			x[i] = load(turned + (b + i) * LANES);
		transpose(x, LANES);
#pragma GCC unroll 64
		for (unsigned i = 0; i < LANES; i++)
			store(dst + dst_at[i] + b, x[i]);
	}
}

/* Along the rows: `count` pieces of PIECE(n) floats, a multiple of BLOCK(n), from src + src_at[i]
 * to dst + dst_at[i]. */
typedef void rows_pass(const float *src, const size_t *src_at, float *dst, const size_t *dst_at,
		       size_t count);

/* Floats of a piece: one row of n, or several side by side. */
#define PIECE(n) ((n) < LANES ? LANES : (n))
/* Pieces that are transformed at a time. */
#define BLOCK(n) ((n) < LANES ? (n) : LANES)

#define DEFINE_PASSES(n)                                                                           \
	static __attribute__((noinline)) void columns##n(                                          \
		const float *src, size_t src_stride, float *dst, size_t dst_stride, size_t width)  \
	{                                                                                          \
		for (size_t c = 0; c < width; c += LANES)                                          \
			transform_columns(src + c, src_stride, dst + c, dst_stride, n);            \
	}                                                                                          \
	static void rows##n(const float *src, const size_t *src_at, float *dst,                    \
			    const size_t *dst_at, size_t count)                                    \
	{                                                                                          \
		for (size_t i = 0; i < count; i += BLOCK(n))                                       \
			if (n <= LANES)                                                            \
				transform_short_rows(src, src_at + i, dst, dst_at + i, BLOCK(n));  \
			else                                                                       \
				transform_long_rows(src, src_at + i, dst, dst_at + i, n,           \
						    columns##n);                                   \
	}

DEFINE_PASSES(2)
DEFINE_PASSES(4)
DEFINE_PASSES(8)
DEFINE_PASSES(16)
DEFINE_PASSES(32)
DEFINE_PASSES(64)

/* How a band is worked off: in panels of whole tiles whose rows make whole blocks.  One panel at
 * a time, through a scratch copy that stays in the first cache: the sums of the next panel's
 * first pass fill in where the shuffles of this one's second pass leave room. */
struct plan {
	columns_pass *along_columns; /* or NULL */
	rows_pass *along_rows;       /* or NULL */
	size_t rows, width;          /* of a panel */
	size_t pieces;               /* of a panel */
	/* Where the pieces of a panel begin: in a band, and in a panel without gaps. */
	size_t band_at[HCT_IDCT_MAX], panel_at[HCT_IDCT_MAX];
};

static void make_plan(struct plan *p, size_t stride, unsigned tile_rows, unsigned tile_columns)
{
	static columns_pass *const along_columns[] = {NULL,      columns2,  columns4, columns8,
						      columns16, columns32, columns64};
	static rows_pass *const along_rows[] = {NULL, rows2, rows4, rows8, rows16, rows32, rows64};
	unsigned row_log2 = (unsigned)__builtin_ctz(tile_rows);

	p->along_columns = along_columns[row_log2];
	p->along_rows = along_rows[__builtin_ctz(tile_columns)];
	p->rows = tile_rows;
	p->pieces = tile_rows < BLOCK(tile_columns) ? BLOCK(tile_columns) : tile_rows;
	p->width = p->pieces / tile_rows * PIECE(tile_columns);
	for (size_t i = 0; i < p->pieces; i++) {
		size_t row = i & (tile_rows - 1), column = (i >> row_log2) * PIECE(tile_columns);

		p->band_at[i] = row * stride + column;
		p->panel_at[i] = row * p->width + column;
	}
}

/* One panel, in place; at: where its pieces begin. */
static void do_panel(const struct plan *p, float *panel, size_t stride, const size_t *at)
{
	float scratch[HCT_IDCT_MAX * HCT_IDCT_MAX] __attribute__((aligned(64)));

	if (!p->along_rows) {
		p->along_columns(panel, stride, panel, stride, p->width);
	} else if (!p->along_columns) {
		p->along_rows(panel, at, panel, at, p->pieces);
	} else {
		p->along_columns(panel, stride, scratch, p->width, p->width);
		p->along_rows(scratch, p->panel_at, panel, at, p->pieces);
	}
}

/* What is left of a band, less than a panel: zeros fill it up. */
static void do_rest(const struct plan *p, float *rest, size_t stride, size_t width)
{
	float panel[HCT_IDCT_MAX * HCT_IDCT_MAX] __attribute__((aligned(64)));

	memset(panel, 0, p->rows * p->width * sizeof *panel);
	for (size_t r = 0; r < p->rows; r++)
		memcpy(panel + r * p->width, rest + r * stride, width * sizeof *panel);
	do_panel(p, panel, p->width, p->panel_at);
	for (size_t r = 0; r < p->rows; r++)
		memcpy(rest + r * stride, panel + r * p->width, width * sizeof *panel);
}

void IDCT(float *band, size_t stride, size_t columns, unsigned tile_rows, unsigned tile_columns)
{
	struct plan p;
	size_t c = 0;

	make_plan(&p, stride, tile_rows, tile_columns);
	if (!p.along_rows && columns >= LANES) {
		c = columns & -(size_t)LANES;
		p.along_columns(band, stride, band, stride, c);
	}
	for (; columns - c >= p.width; c += p.width)
		do_panel(&p, band + c, stride, p.band_at);
	if (c < columns)
		do_rest(&p, band + c, stride, columns - c);
}
