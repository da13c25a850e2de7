/* What CUDA answers, as an error of hctfs with its line. */
#ifndef HCT_GPU_CUDA_ERROR_H
#define HCT_GPU_CUDA_ERROR_H

#include <cuda_runtime.h>

#include "codec/error.h"

/* Writes a line, as hct_fail does, which the plug-in has not got; returns e. */
hct_error gpu_fail(struct hct_diag *diag, hct_error e, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* HCT_ERR_NOMEM, HCT_ERR_UNSUPPORTED (no such device, or this program is not for it, or no driver)
 * or HCT_ERR_IO; HCT_OK for cudaSuccess, without a line.  The line: "cuda:0: cudaMalloc: out of
 * memory", without the device when number is negative.  The thread's last error is forgotten, so
 * that the next launch does not take it for its own. */
hct_error gpu_cuda_error(struct hct_diag *diag, int number, const char *function, cudaError_t e);

#endif
