/* Internal: conversion of values in plain C without branches, which every variant compiles into
 * vector code of its own. */
#ifndef HCT_DEQUANT_KERNEL_H
#define HCT_DEQUANT_KERNEL_H

#include "bytes.h"
#include "dequant.h"
#include "narrow.h"

#define INLINE static inline __attribute__((always_inline))

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
NARROW(narrow_bf16, 2, hct_store16, uint16_t, hct_narrow_to_bf16(src[i]))
#endif
#ifndef OWN_NARROW_F16
NARROW(narrow_f16, 2, hct_store16, uint16_t, hct_narrow_to_f16(src[i]))
#endif
NARROW(narrow_f32, 4, hct_store32, uint32_t, hct_narrow_to_f32(src[i]))
NARROW(narrow_f64, 8, hct_store64, uint64_t, hct_narrow_to_f64(src[i]))
NARROW(narrow_e5m2, 1, store8, uint8_t, hct_narrow_to_e5m2(src[i]))
NARROW(narrow_e4m3, 1, store8, uint8_t, hct_narrow_to_e4m3(src[i]))
NARROW(narrow_e5m2fnuz, 1, store8, uint8_t, hct_narrow_to_e5m2fnuz(src[i]))
NARROW(narrow_e4m3fnuz, 1, store8, uint8_t, hct_narrow_to_e4m3fnuz(src[i]))

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
