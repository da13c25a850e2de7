/* Internal: values to elements of a dtype, without branches: rounded to nearest even, bounded by
 * the largest finite value; NaN becomes 0 (FORMAT.md section 5). */
#ifndef HCT_NARROW_H
#define HCT_NARROW_H

#include <stdint.h>
#include <string.h>

#include "inline.h"

#define HCT_F32_INFINITY 0x7f800000u

HCT_INLINE uint32_t hct_float_bits(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof u);
	return u;
}

HCT_INLINE float hct_bits_float(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof f);
	return f;
}

/* All ones but for NaN. */
HCT_INLINE uint32_t hct_is_number(uint32_t magnitude)
{
	return magnitude > HCT_F32_INFINITY ? 0 : ~0u;
}

/* A type of `bits` bits with M mantissa bits and an exponent bias; largest: its largest finite
 * magnitude; unsigned_zero: when the sign and nothing else is a NaN. */
HCT_INLINE uint32_t hct_narrow_small(float f, unsigned bits, unsigned mantissa, unsigned bias,
				     uint32_t largest, int unsigned_zero)
{
	uint32_t u = hct_float_bits(f), m = u & 0x7fffffff, sign = u >> 31 << (bits - 1);
	unsigned drop = 23 - mantissa;
	uint32_t least = (128 - bias) << 23; /* the least normal value */
	/* the last place of which is that of the subnormals */
	uint32_t unit = (151 - bias - mantissa) << 23;
	uint32_t subnormal = hct_float_bits(hct_bits_float(m) + hct_bits_float(unit)) - unit;
	uint32_t normal = m + (1u << (drop - 1)) - 1 + (m >> drop & 1) - ((127 - bias) << 23);
	uint32_t small = -(uint32_t)(m < least); /* a mask: a choice would become a branch */
	uint32_t v = (subnormal & small) | (normal >> drop & ~small);

	v = v < largest ? v : largest;
	if (unsigned_zero)
		sign = v ? sign : 0;
	return (v | sign) & hct_is_number(m);
}

HCT_INLINE uint32_t hct_narrow_to_bf16(float f)
{
	uint32_t u = hct_float_bits(f), m = u & 0x7fffffff, v;

	v = (m + 0x7fff + (m >> 16 & 1)) >> 16;
	v = v < 0x7f7f ? v : 0x7f7f;
	return (v | (u >> 16 & 0x8000)) & hct_is_number(m);
}

HCT_INLINE uint32_t hct_narrow_to_f16(float f)
{
	return hct_narrow_small(f, 16, 10, 15, 0x7bff, 0);
}

HCT_INLINE uint32_t hct_narrow_to_e5m2(float f)
{
	return hct_narrow_small(f, 8, 2, 15, 0x7b, 0);
}

HCT_INLINE uint32_t hct_narrow_to_e4m3(float f)
{
	return hct_narrow_small(f, 8, 3, 7, 0x7e, 0);
}

HCT_INLINE uint32_t hct_narrow_to_e5m2fnuz(float f)
{
	return hct_narrow_small(f, 8, 2, 16, 0x7f, 1);
}

HCT_INLINE uint32_t hct_narrow_to_e4m3fnuz(float f)
{
	return hct_narrow_small(f, 8, 3, 8, 0x7f, 1);
}

HCT_INLINE uint32_t hct_narrow_to_f32(float f)
{
	uint32_t u = hct_float_bits(f), m = u & 0x7fffffff,
		 v = m < HCT_F32_INFINITY ? m : HCT_F32_INFINITY - 1;

	return (v | (u & 0x80000000)) & hct_is_number(m);
}

HCT_INLINE uint64_t hct_narrow_to_f64(float f)
{
	uint32_t m = hct_float_bits(f) & 0x7fffffff;
	double d = (double)f;
	uint64_t v;

	memcpy(&v, &d, sizeof v);
	/* infinity less one in the last place is the largest finite value */
	v -= m == HCT_F32_INFINITY;
	return m > HCT_F32_INFINITY ? 0 : v;
}

#endif
