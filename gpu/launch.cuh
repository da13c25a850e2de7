/* Launching kernels: on a device, or on the emulator of the tests. */
#ifndef HCT_GPU_LAUNCH_CUH
#define HCT_GPU_LAUNCH_CUH

#include <cuda_runtime.h>

/* kernel may be a template's instance in parentheses.  Evaluates to the cudaError_t of the launch;
 * shared: bytes of the block's memory. */
#if defined CUDA_EMULATED
#define HCT_LAUNCH(kernel, grid, block, shared, stream, ...)                                       \
	(emulator::launch(stream, grid, block, shared, [=] { kernel(__VA_ARGS__); }),              \
	 cudaGetLastError())
#else
#define HCT_LAUNCH(kernel, grid, block, shared, stream, ...)                                       \
	(kernel<<<grid, block, shared, stream>>>(__VA_ARGS__), cudaGetLastError())
#endif

#endif
