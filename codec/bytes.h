/* Little-endian loads and stores at any alignment. */
#ifndef HCT_BYTES_H
#define HCT_BYTES_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "hctfs needs a little-endian machine: safetensors data is handed out as it lies in memory"
#endif

#define HCT_LOAD(name, type)                                                                       \
	static inline type name(const void *p)                                                     \
	{                                                                                          \
		type v;                                                                            \
		memcpy(&v, p, sizeof v);                                                           \
		return v;                                                                          \
	}
#define HCT_STORE(name, type)                                                                      \
	static inline void name(void *p, type v)                                                   \
	{                                                                                          \
		memcpy(p, &v, sizeof v);                                                           \
	}

HCT_LOAD(hct_load16, uint16_t)
HCT_LOAD(hct_load32, uint32_t)
HCT_LOAD(hct_load64, uint64_t)
HCT_LOAD(hct_load_f64, double)
HCT_STORE(hct_store16, uint16_t)
HCT_STORE(hct_store32, uint32_t)
HCT_STORE(hct_store64, uint64_t)
HCT_STORE(hct_store_f64, double)

#undef HCT_LOAD
#undef HCT_STORE

#endif
