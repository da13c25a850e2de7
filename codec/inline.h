/* Internal: functions that the CPU and a device share.  CUDA's compiler makes them for both; to a
 * C compiler they are static inline. */
#ifndef HCT_INLINE_H
#define HCT_INLINE_H

#include <stdint.h>

/* HCT_CONSTANT: begins the definition of a table; HCT_UNROLL: before a loop of constant bounds, all
 * of whose rounds are to be written out; HCT_ROLL: before one that is not to grow. */
#if defined __CUDACC__
#define HCT_INLINE   static __host__ __device__ __forceinline__
#define HCT_CONSTANT static __constant__ const
#define HCT_UNROLL   _Pragma("unroll")
#define HCT_ROLL     _Pragma("unroll 1")
#elif defined                                                                                      \
	__cplusplus /* the emulator of the tests: what is called a lot need not be copied a lot */
#define HCT_INLINE   static inline __attribute__((unused))
#define HCT_CONSTANT static const
#define HCT_UNROLL
#define HCT_ROLL
#else
#define HCT_INLINE   static inline __attribute__((always_inline, unused))
#define HCT_CONSTANT static const
#define HCT_UNROLL   _Pragma("GCC unroll 64")
#define HCT_ROLL     _Pragma("GCC unroll 1")
#endif

/* Zeros below the lowest one of v, which is not 0. */
HCT_INLINE unsigned hct_ctz64(uint64_t v)
{
#if defined __CUDA_ARCH__
	return (unsigned)__ffsll((long long)v) - 1;
#else
	return (unsigned)__builtin_ctzll(v);
#endif
}

/* Zeros above the highest one of v, which is not 0. */
HCT_INLINE unsigned hct_clz32(uint32_t v)
{
#if defined __CUDA_ARCH__
	return (unsigned)__clz((int)v);
#else
	return (unsigned)__builtin_clz(v);
#endif
}

#endif
