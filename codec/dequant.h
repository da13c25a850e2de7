/* Internal: from codes of the tcq codec to values, and from values to elements.
 *
 * Codes come as hct_tcq_decode gives them, a group of 64 at a time in order of position; the upper
 * two bits of each are ignored.  Values and elements leave in natural order.
 *
 * Every variant gives the same bits on any input. */
#ifndef HCT_DEQUANT_H
#define HCT_DEQUANT_H

#include <stddef.h>
#include <stdint.h>

#include "rans.h"
#include "tcq.h"

#define HCT_DEQUANT_LOOK_RAW 2 /* raw bits, at most, that are looked up together with the code */

/* What the elements of a layer have in common. */
struct hct_dequant {
	unsigned raw_bits;
	float step;                   /* of exceptions, and of points when there are raw bits */
	float fine;                   /* step / 64, of points without raw bits */
	float point[HCT_TCQ_POINTS];  /* their values, by 32 parity + symbol */
	uint8_t low[HCT_TCQ_POINTS];  /* low and high byte of n, of which the value is n fine */
	uint8_t high[HCT_TCQ_POINTS]; /* (two's complement) */
};

void hct_dequant_init(struct hct_dequant *q, const struct hct_tcq_layer *l);

/* Groups of codes, with 8 b bytes of raw bits each, to 64 values each. */
typedef void hct_dequant_floats(const struct hct_dequant *q, const uint8_t *codes,
				const uint8_t *raw, size_t groups, float *dst);

/* The value of element i of a group. */
float hct_dequant_value(const struct hct_dequant *q, const uint8_t *codes, const uint8_t *raw,
			unsigned i);

/* What the elements of a tensor of one layer and without transform have in common. */
struct hct_direct {
	struct hct_dequant values;
	int f16c; /* this CPU has F16C, as nearly all that have AVX2 */
	/* Elements by 64 raw + 32 parity + symbol, their low and their high bytes; only where there
	 * are at most HCT_DEQUANT_LOOK_RAW raw bits. */
	uint8_t low[HCT_TCQ_POINTS << HCT_DEQUANT_LOOK_RAW];
	uint8_t high[HCT_TCQ_POINTS << HCT_DEQUANT_LOOK_RAW];
};

/* dtype: one of 8 or 16 bits that the codec codes. */
void hct_direct_init(struct hct_direct *t, const struct hct_tcq_layer *l, hct_dtype dtype);

/* Groups of codes, with 8 b bytes of raw bits each, to 64 elements each: what `narrow` makes of the
 * values.  dst need not be aligned. */
typedef void hct_dequant_direct(const struct hct_direct *t, const uint8_t *codes,
				const uint8_t *raw, size_t groups, uint8_t *dst);

/* n values to elements of a dtype: rounded to nearest even, bounded by the largest finite value;
 * NaN becomes 0.  dst need not be aligned. */
typedef void hct_narrow(const float *src, size_t n, uint8_t *dst);

/* Adds n values to those at dst. */
typedef void hct_add_floats(float *dst, const float *src, size_t n);

/* The loops of one variant. */
struct hct_dequant_loops {
	hct_dequant_floats *floats;
	hct_add_floats *add;
	hct_dequant_direct *direct[HCT_DTYPE_COUNT]; /* of 8 and 16 bits; otherwise NULL */
	hct_narrow *narrow[HCT_DTYPE_COUNT]; /* NULL for dtypes that the codec does not code */
};

extern const struct hct_dequant_loops hct_dequant_scalar, hct_dequant_avx2, hct_dequant_avx512;
/* For CPUs that have GFNI and AVX512_BF16, too. */
extern const struct hct_dequant_loops hct_dequant_avx512_bf16;
int hct_dequant_has_bf16(void);

/* The variant for an instruction set, never HCT_SIMD_AUTO: the best one that this CPU has. */
const struct hct_dequant_loops *hct_dequant_find(hct_simd simd);

/* Where element i of a group has its code. */
static inline unsigned hct_position(unsigned i)
{
	return i < HCT_LANES ? 2 * i : 2 * (i - HCT_LANES) + 1;
}

#endif
