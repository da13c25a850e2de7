/* Values to elements of a dtype, which is the same for all threads. */
#ifndef HCT_GPU_NARROW_CUH
#define HCT_GPU_NARROW_CUH

#include "codec/dtype.h"
#include "codec/narrow.h"
#include "gpu/warp.cuh"

/* store is called with what to make of a value: a type, and a function that narrows to it.  dtype:
 * one that the tcq codec codes, or HCT_DTYPE_UNKNOWN for values as they are. */
template <class Store> __device__ __forceinline__ void with_narrow(unsigned dtype, Store store)
{
	switch (dtype) {
	case HCT_DTYPE_BF16:
		store([](float v) { return (uint16_t)hct_narrow_to_bf16(v); });
		break;
	case HCT_DTYPE_F16:
		store([](float v) { return (uint16_t)hct_narrow_to_f16(v); });
		break;
	case HCT_DTYPE_F32:
		store([](float v) { return hct_narrow_to_f32(v); });
		break;
	case HCT_DTYPE_F64:
		store([](float v) { return hct_narrow_to_f64(v); });
		break;
	case HCT_DTYPE_F8_E5M2:
		store([](float v) { return (uint8_t)hct_narrow_to_e5m2(v); });
		break;
	case HCT_DTYPE_F8_E4M3:
		store([](float v) { return (uint8_t)hct_narrow_to_e4m3(v); });
		break;
	case HCT_DTYPE_F8_E5M2FNUZ:
		store([](float v) { return (uint8_t)hct_narrow_to_e5m2fnuz(v); });
		break;
	case HCT_DTYPE_F8_E4M3FNUZ:
		store([](float v) { return (uint8_t)hct_narrow_to_e4m3fnuz(v); });
		break;
	default:
		store([](float v) { return v; });
	}
}

/* One of at most 16 bits. */
__device__ __forceinline__ unsigned narrowed(float v, unsigned dtype)
{
	unsigned u = 0;

	with_narrow(dtype, [&](auto narrow) { u = (unsigned)narrow(v); });
	return u;
}

#endif
