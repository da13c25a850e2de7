/* Internal: conversion of values in plain C without branches, which every variant compiles into
 * vector code of its own. */
#ifndef HCT_DEQUANT_KERNEL_H
#define HCT_DEQUANT_KERNEL_H

#include "bytes.h"
#include "dequant.h"

#define INLINE static inline __attribute__((always_inline))

#define F32_INFINITY 0x7f800000u

INLINE uint32_t bits_of(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof u);
	return u;
}

INLINE float float_of(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof f);
	return f;
}

/* All ones but for NaN. */
INLINE uint32_t number(uint32_t magnitude)
{
	return magnitude > F32_INFINITY ? 0 : ~0u;
}

/* A type of `bits` bits with M mantissa bits and an exponent bias; largest: its largest finite
 * magnitude; unsigned_zero: when the sign and nothing else is a NaN. */
INLINE uint32_t narrow_small(float f, unsigned bits, unsigned mantissa, unsigned bias,
			     uint32_t largest, int unsigned_zero)
{
	uint32_t u = bits_of(f), m = u & 0x7fffffff, sign = u >> 31 << (bits - 1);
	unsigned drop = 23 - mantissa;
	uint32_t least = (128 - bias) << 23; /* the least normal value */
	/* the last place of which is that of the subnormals */
	uint32_t unit = (151 - bias - mantissa) << 23;
	uint32_t subnormal = bits_of(float_of(m) + float_of(unit)) - unit;
	uint32_t normal = m + (1u << (drop - 1)) - 1 + (m >> drop & 1) - ((127 - bias) << 23);
	uint32_t small = -(uint32_t)(m < least); /* a mask: a choice would become a branch */
	uint32_t v = (subnormal & small) | (normal >> drop & ~small);

	v = v < largest ? v : largest;
	if (unsigned_zero)
		sign = v ? sign : 0;
	return (v | sign) & number(m);
}

INLINE uint32_t narrow_to_bf16(float f)
{
	uint32_t u = bits_of(f), m = u & 0x7fffffff, v;

	v = (m + 0x7fff + (m >> 16 & 1)) >> 16;
	v = v < 0x7f7f ? v : 0x7f7f;
	return (v | (u >> 16 & 0x8000)) & number(m);
}

INLINE uint32_t narrow_to_f32(float f)
{
	uint32_t u = bits_of(f), m = u & 0x7fffffff, v = m < F32_INFINITY ? m : F32_INFINITY - 1;

	return (v | (u & 0x80000000)) & number(m);
}

INLINE uint64_t narrow_to_f64(float f)
{
	uint32_t m = bits_of(f) & 0x7fffffff;
	double d = (double)f;
	uint64_t v;

	memcpy(&v, &d, sizeof v);
	/* infinity less one in the last place is the largest finite value */
	v -= m == F32_INFINITY;
	return m > F32_INFINITY ? 0 : v;
}

INLINE void store8(uint8_t *p, uint8_t v)
{
	*p = v;
}

#define NARROW(name, unit, store, type, expression)                                                \
	static void name(const float *restrict src, size_t n, uint8_t *restrict dst)               \
	{                                                                                          \
		for (size_t i = 0; i < n; i++)                                                     \
			store(dst + i * (unit), (type)(expression));                               \
	}

/* Of these, a variant may have better ones. */
#ifndef OWN_NARROW_BF16
NARROW(narrow_bf16, 2, hct_store16, uint16_t, narrow_to_bf16(src[i]))
#endif
#ifndef OWN_NARROW_F16
NARROW(narrow_f16, 2, hct_store16, uint16_t, narrow_small(src[i], 16, 10, 15, 0x7bff, 0))
#endif
NARROW(narrow_f32, 4, hct_store32, uint32_t, narrow_to_f32(src[i]))
NARROW(narrow_f64, 8, hct_store64, uint64_t, narrow_to_f64(src[i]))
NARROW(narrow_e5m2, 1, store8, uint8_t, narrow_small(src[i], 8, 2, 15, 0x7b, 0))
NARROW(narrow_e4m3, 1, store8, uint8_t, narrow_small(src[i], 8, 3, 7, 0x7e, 0))
NARROW(narrow_e5m2fnuz, 1, store8, uint8_t, narrow_small(src[i], 8, 2, 16, 0x7f, 1))
NARROW(narrow_e4m3fnuz, 1, store8, uint8_t, narrow_small(src[i], 8, 3, 8, 0x7f, 1))

#define NARROW_LOOPS                                                                               \
	{                                                                                          \
		[HCT_DTYPE_BF16] = narrow_bf16, [HCT_DTYPE_F16] = narrow_f16,                      \
		[HCT_DTYPE_F32] = narrow_f32, [HCT_DTYPE_F64] = narrow_f64,                        \
		[HCT_DTYPE_F8_E5M2] = narrow_e5m2, [HCT_DTYPE_F8_E4M3] = narrow_e4m3,              \
		[HCT_DTYPE_F8_E5M2FNUZ] = narrow_e5m2fnuz,                                         \
		[HCT_DTYPE_F8_E4M3FNUZ] = narrow_e4m3fnuz,                                         \
	}

/* From codes to elements by way of values, so few at a time that they stay near. */
#define DIRECT_GROUPS 8
#define DIRECT(dtype, unit)                                                                        \
	static void direct_##dtype(const struct hct_direct *t, const uint8_t *codes,               \
				   const uint8_t *raw, size_t groups, uint8_t *dst)                \
	{                                                                                          \
		float v[DIRECT_GROUPS * HCT_GROUP];                                                \
                                                                                                   \
		for (size_t n; groups; groups -= n) {                                              \
			n = groups < DIRECT_GROUPS ? groups : DIRECT_GROUPS;                       \
			floats(&t->values, codes, raw, n, v);                                      \
			narrow_##dtype(v, n *HCT_GROUP, dst);                                      \
			codes += n * HCT_GROUP;                                                    \
			raw += n * 8 * t->values.raw_bits;                                         \
			dst += n * HCT_GROUP * (unit);                                             \
		}                                                                                  \
	}

static void add_floats(float *restrict dst, const float *restrict src, size_t n)
{
	for (size_t i = 0; i < n; i++)
		dst[i] += src[i];
}

#endif
