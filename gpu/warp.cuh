/* The threads of a warp, and memory that the threads of a block share. */
#ifndef HCT_GPU_WARP_CUH
#define HCT_GPU_WARP_CUH

#include <cstdint>

#include <cuda_runtime.h>

#define FULL 0xffffffffu

__device__ __forceinline__ unsigned lane_id()
{
	return threadIdx.x % 32;
}

/* v, of which the compiler knows nothing: so it keeps it in a register, and does not make it anew
 * wherever it is used. */
__device__ __forceinline__ unsigned kept(unsigned v)
{
#if !defined CUDA_EMULATED
	asm volatile("" : "+r"(v));
#endif
	return v;
}

/* A thread's place in its warp. */
struct place_in_warp {
	unsigned id, below; /* below: bits of the lanes before it */
};

__device__ __forceinline__ struct place_in_warp my_lane()
{
	unsigned id = kept(lane_id());

	return {id, kept((1u << id) - 1)};
}

__device__ __forceinline__ unsigned warp_id()
{
	return threadIdx.x / 32;
}

/* What a launch asked for. */
__device__ __forceinline__ uint8_t *block_memory()
{
#if defined CUDA_EMULATED
	return emulator::dynamic_shared();
#else
	extern __shared__ __align__(16) uint8_t memory[];
	return memory;
#endif
}

/* Copies tables to the block's memory, all threads together; n: of 4 bytes. */
__device__ __forceinline__ void copy_words(uint32_t *to, const uint32_t *from, unsigned n)
{
	for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
		to[i] = __ldg(from + i);
}

#endif
