#include "gpu/context.h"

#include <cstring>

static cudaError_t driver_function(const char *name, void **out)
{
	cudaDriverEntryPointQueryResult found;
	cudaError_t e;

	/* of the interface that CUDA 11 had, which all drivers since then have */
#if CUDART_VERSION >= 12050
	e = cudaGetDriverEntryPointByVersion(name, out, 11000, cudaEnableDefault, &found);
#else
	e = cudaGetDriverEntryPoint(name, out, cudaEnableDefault, &found);
#endif
	if (!e && (found != cudaDriverEntryPointSuccess || !*out))
		e = cudaErrorInsufficientDriver;
	return e;
}

hct_error gpu_context_open(struct gpu_context *c, int number, struct hct_diag *diag)
{
	CUresult (*retain)(CUcontext *, CUdevice) = nullptr;
	const struct {
		const char *name;
		void **function;
	} wanted[] = {
		{"cuDevicePrimaryCtxRetain", (void **)&retain},
		{"cuDevicePrimaryCtxRelease", (void **)&c->release},
		{"cuCtxPushCurrent", (void **)&c->push},
		{"cuCtxPopCurrent", (void **)&c->pop},
	};
	cudaError_t e;
	int count = 0;

	memset(c, 0, sizeof *c);
	c->number = number;
	e = cudaGetDeviceCount(&count); /* begins with the driver */
	if (e)
		return gpu_cuda_error(diag, -1, "cudaGetDeviceCount", e);
	if (number < 0 || number >= count)
		return gpu_fail(diag, HCT_ERR_UNSUPPORTED, "cuda:%d: no such device (of %d)",
				number, count);
	for (const auto &w : wanted) {
		e = driver_function(w.name, w.function);
		if (e)
			return gpu_cuda_error(diag, number, "cudaGetDriverEntryPointByVersion", e);
	}
	/* devices have the same numbers in both interfaces */
	e = (cudaError_t)retain(&c->primary, number);
	return gpu_cuda_error(diag, number, "cuDevicePrimaryCtxRetain", e);
}

void gpu_context_close(struct gpu_context *c)
{
	if (c->primary)
		(void)c->release(c->number);
	c->primary = nullptr;
}
