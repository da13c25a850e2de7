/* The driver's interface, as far as gpu/ uses it. */
#ifndef CUDA_EMULATOR_DRIVER_H
#define CUDA_EMULATOR_DRIVER_H

typedef int CUdevice;
typedef struct emulated_context *CUcontext;
typedef enum {
	CUDA_SUCCESS = 0,
	CUDA_ERROR_INVALID_CONTEXT = 201,
	CUDA_ERROR_LAUNCH_FAILED = 719
} CUresult;

#endif
