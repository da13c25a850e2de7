/* CUDA on the CPU, as far as gpu/ uses it: the kernels themselves run, thread by thread, so their
 * results can be compared and their accesses seen by AddressSanitizer where there is no GPU.  Slow,
 * and silent about everything that needs real hardware: races between warps, alignment, speed.
 *
 * Threads of a block are fibers that take turns at __syncthreads and at the collectives of a warp;
 * blocks run one after the other.  A collective that not every thread of the warp reaches, or
 * reaches at another place, ends the program.
 *
 * What is put into a stream is done when the call returns, or, with CUDA_EMULATOR_LATE in the
 * environment, not before something waits for it, as a device that is slow would do it.
 *
 * CUDA_EMULATOR_FAIL=NAME:N[:COUNT] lets the Nth call of a function ("any": of all, "launch": of
 * kernels), and COUNT or all that follow, fail with cudaErrorMemoryAllocation (cudaMalloc,
 * cudaMallocHost) or cudaErrorLaunchFailure (others); the count begins anew with another value.
 * CUDA_EMULATOR_DEVICES=N says how many devices there are (1). */
#ifndef CUDA_EMULATOR_H
#define CUDA_EMULATOR_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define CUDA_EMULATED 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline /* what is called a lot need not be copied a lot */
#define __shared__      static /* blocks run one at a time */
#define __constant__    static
#define __launch_bounds__(...)
#define CUDART_VERSION 13000

struct dim3 {
	unsigned x, y, z;
	constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
	{
	}
};
struct uint3 {
	unsigned x, y, z;
};
struct float2 {
	float x, y;
};

/* Device -------------------------------------------------------------------------------- */

typedef struct emulated_stream *cudaStream_t;

namespace emulator
{
struct position {
	uint3 thread, block;
	dim3 threads, blocks;
};
const position &here();
uint8_t *dynamic_shared();
void block_barrier();
/* Every lane's value, once all lanes of the warp have given theirs; mask must be all of them. */
const uint64_t *exchange(unsigned mask, uint64_t value, int kind);
constexpr size_t MAX_SHARED = 227u << 10;
/* kernel: the body of one thread. */
void run_kernel(dim3 blocks, dim3 threads, size_t shared, const std::function<void()> &kernel);
void launch(cudaStream_t stream, dim3 blocks, dim3 threads, size_t shared,
	    const std::function<void()> &kernel);
} // namespace emulator

#define threadIdx (emulator::here().thread)
#define blockIdx  (emulator::here().block)
#define blockDim  (emulator::here().threads)
#define gridDim   (emulator::here().blocks)
#define warpSize  32

static inline void __syncthreads()
{
	emulator::block_barrier();
}
static inline void __syncwarp(unsigned mask = ~0u)
{
	emulator::exchange(mask, 0, 0);
}
static inline void __threadfence()
{
}

static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
	const uint64_t *all = emulator::exchange(mask, predicate != 0, 1);
	unsigned v = 0;

	for (unsigned i = 0; i < 32; i++)
		v |= (unsigned)all[i] << i;
	return v;
}
static inline int __any_sync(unsigned mask, int predicate)
{
	return __ballot_sync(mask, predicate) != 0;
}
static inline int __all_sync(unsigned mask, int predicate)
{
	return __ballot_sync(mask, predicate) == ~0u;
}

template <class T> static inline T __shfl_sync(unsigned mask, T value, int lane)
{
	uint64_t v = 0;
	T out;

	memcpy(&v, &value, sizeof value);
	v = emulator::exchange(mask, v, 2)[lane & 31];
	memcpy(&out, &v, sizeof out);
	return out;
}

static inline int __popc(unsigned v)
{
	return __builtin_popcount(v);
}
static inline int __clz(int v)
{
	return v ? __builtin_clz((unsigned)v) : 32;
}
static inline int __ffs(int v)
{
	return __builtin_ffs(v);
}
static inline int __ffsll(long long v)
{
	return __builtin_ffsll(v);
}
template <class T> static inline T __ldg(const T *p)
{
	return *p;
}
template <class T> static inline T min(T a, T b)
{
	return b < a ? b : a;
}
template <class T> static inline T max(T a, T b)
{
	return a < b ? b : a;
}
static inline float __int_as_float(int v)
{
	float f;
	memcpy(&f, &v, 4);
	return f;
}
static inline int __float_as_int(float f)
{
	int v;
	memcpy(&v, &f, 4);
	return v;
}
static inline float __fmul_rn(float a, float b)
{
	return a * b;
}
static inline float __fadd_rn(float a, float b)
{
	return a + b;
}
static inline unsigned atomicOr(unsigned *p, unsigned v)
{
	unsigned old = *p;
	*p |= v;
	return old;
}

/* Host ---------------------------------------------------------------------------------- */

typedef enum cudaError {
	cudaSuccess = 0,
	cudaErrorInvalidValue = 1,
	cudaErrorMemoryAllocation = 2,
	cudaErrorInsufficientDriver = 35,
	cudaErrorNoDevice = 100,
	cudaErrorInvalidDevice = 101,
	cudaErrorNoKernelImageForDevice = 209,
	cudaErrorUnsupportedPtxVersion = 222,
	cudaErrorNotReady = 600,
	cudaErrorLaunchFailure = 719
} cudaError_t;

typedef struct emulated_event *cudaEvent_t;
enum cudaMemcpyKind {
	cudaMemcpyHostToHost,
	cudaMemcpyHostToDevice,
	cudaMemcpyDeviceToHost,
	cudaMemcpyDeviceToDevice,
	cudaMemcpyDefault
};
enum { cudaStreamNonBlocking = 1, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
enum cudaDeviceAttr {
	cudaDevAttrMultiProcessorCount = 16,
	cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice };
struct cudaPointerAttributes {
	enum cudaMemoryType type;
};
enum { cudaEnableDefault };
enum cudaDriverEntryPointQueryResult {
	cudaDriverEntryPointSuccess,
	cudaDriverEntryPointSymbolNotFound
};
struct cudaDeviceProp {
	char name[256];
	size_t totalGlobalMem, sharedMemPerBlockOptin;
	int multiProcessorCount, major, minor;
};

extern "C" {
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device);
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device);
cudaError_t cudaMalloc(void **p, size_t size);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **p, size_t size);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
			    cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p);
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **out, unsigned version,
					     unsigned long long flags,
					     enum cudaDriverEntryPointQueryResult *found);
}
template <class F> static inline cudaError_t cudaFuncSetAttribute(F, int, int)
{
	return cudaSuccess;
}
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

#endif
