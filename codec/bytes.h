/* Little-endian loads and stores at any alignment. */
#ifndef HCT_BYTES_H
#define HCT_BYTES_H

#include <stdint.h>
#include <string.h>

#include "inline.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "hctfs needs a little-endian machine: safetensors data is handed out as it lies in memory"
#endif

#define HCT_LOAD(name, type)                                                                       \
	HCT_INLINE type name(const void *p)                                                        \
	{                                                                                          \
		type v;                                                                            \
		memcpy(&v, p, sizeof v);                                                           \
		return v;                                                                          \
	}
#define HCT_STORE(name, type)                                                                      \
	HCT_INLINE void name(void *p, type v)                                                      \
	{                                                                                          \
		memcpy(p, &v, sizeof v);                                                           \
	}

/* The 8 bytes at p, by way of aligned words: up to 3 bytes before and 4 behind them are read, too.
 * A device loads bytes of no alignment one by one otherwise. */
HCT_INLINE uint64_t hct_gather64(const void *p)
{
	const uint32_t *w = (const uint32_t *)((uintptr_t)p & ~(uintptr_t)3);
	unsigned shift = 8 * (unsigned)((uintptr_t)p & 3);
	uint64_t low = w[0] | (uint64_t)w[1] << 32, high = w[1] | (uint64_t)w[2] << 32;

	return (uint32_t)(low >> shift) | (high >> shift) << 32;
}

HCT_LOAD(hct_load16, uint16_t)
HCT_LOAD(hct_load_f64, double)
#if defined __CUDA_ARCH__
HCT_INLINE uint64_t hct_load64(const void *p)
{
	return hct_gather64(p);
}
HCT_INLINE uint32_t hct_load32(const void *p)
{
	return (uint32_t)hct_gather64(p);
}
#else
HCT_LOAD(hct_load32, uint32_t)
HCT_LOAD(hct_load64, uint64_t)
#endif
HCT_STORE(hct_store16, uint16_t)
HCT_STORE(hct_store32, uint32_t)
HCT_STORE(hct_store64, uint64_t)
HCT_STORE(hct_store_f64, double)

#undef HCT_LOAD
#undef HCT_STORE

#endif
