#include "gpu/cuda_error.h"

#include <cstdarg>
#include <cstdio>

hct_error gpu_fail(struct hct_diag *diag, hct_error e, const char *format, ...)
{
	if (diag) {
		va_list args;

		va_start(args, format);
		vsnprintf(diag->text, sizeof diag->text, format, args);
		va_end(args);
	}
	return e;
}

static hct_error kind_of(cudaError_t e)
{
	switch (e) {
	case cudaSuccess:
		return HCT_OK;
	case cudaErrorMemoryAllocation:
		return HCT_ERR_NOMEM;
	case cudaErrorInsufficientDriver:
	case cudaErrorNoDevice:
	case cudaErrorInvalidDevice:
	case cudaErrorNoKernelImageForDevice:
	case cudaErrorUnsupportedPtxVersion:
		return HCT_ERR_UNSUPPORTED;
	default:
		return HCT_ERR_IO;
	}
}

hct_error gpu_cuda_error(struct hct_diag *diag, int number, const char *function, cudaError_t e)
{
	const char *text;

	if (e == cudaSuccess)
		return HCT_OK;
	text = cudaGetErrorString(e);
	(void)cudaGetLastError();
	if (number < 0)
		return gpu_fail(diag, kind_of(e), "%s: %s", function, text);
	return gpu_fail(diag, kind_of(e), "cuda:%d: %s: %s", number, function, text);
}
