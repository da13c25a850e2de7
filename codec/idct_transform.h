/* Internal: T_n of FORMAT.md section 5, lane by lane, for whatever computes it: vectors of a CPU, a
 * thread of a device.  Whoever includes this defines before
 *
 *   vec                   the vector, or one float
 *   splat                 one value in all lanes
 *   INLINE                what a function begins with
 *
 * Arrays of vectors are meant for registers: every loop over them has bounds that are constant once
 * all is inlined, and is unrolled. */
#include "idct_tables.h"
#include "inline.h"

INLINE void split(const vec *x, vec *g, vec *h, unsigned half)
{
	h[0] = x[1];
	HCT_UNROLL
	for (unsigned k = 1; k < half; k++)
		h[k] = x[2 * k + 1] + x[2 * k - 1];
	HCT_UNROLL
	for (unsigned k = 0; k < half; k++)
		g[k] = x[2 * k];
}

INLINE void scale(vec *h, unsigned half)
{
	HCT_UNROLL
	for (unsigned k = 0; k < half; k++)
		h[k] *= splat(hct_idct_c[half - 1 + k]);
}

INLINE void merge(vec *x, const vec *g, const vec *t, unsigned half)
{
	HCT_UNROLL
	for (unsigned k = 0; k < half; k++) {
		x[k] = g[k] + t[k];
		x[2 * half - 1 - k] = g[k] - t[k];
	}
}

#define DEFINE_TRANSFORM(n, half)                                                                  \
	INLINE void transform##n(vec *x)                                                           \
	{                                                                                          \
		vec g[half], h[half];                                                              \
                                                                                                   \
		split(x, g, h, half);                                                              \
		transform##half(h);                                                                \
		scale(h, half);                                                                    \
		transform##half(g);                                                                \
		merge(x, g, h, half);                                                              \
	}

#define transform1(x) ((void)(x))
DEFINE_TRANSFORM(2, 1)
DEFINE_TRANSFORM(4, 2)
DEFINE_TRANSFORM(8, 4)
DEFINE_TRANSFORM(16, 8)
DEFINE_TRANSFORM(32, 16)
DEFINE_TRANSFORM(64, 32)

INLINE void transform(vec *x, unsigned n)
{
	switch (n) {
	case 2:
		transform2(x);
		break;
	case 4:
		transform4(x);
		break;
	case 8:
		transform8(x);
		break;
	case 16:
		transform16(x);
		break;
	case 32:
		transform32(x);
		break;
	case 64:
		transform64(x);
		break;
	}
}
