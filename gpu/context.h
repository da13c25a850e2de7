/* A device's primary context, which all of a program's users of CUDA share (PyTorch, too), and
 * making it current for the time of a call.
 *
 * By the driver's own calls: cudaSetDevice cannot give back "none", and setting the device that
 * cudaGetDevice told, which is 0 in a new thread, would make a context on a GPU that nobody
 * wanted. */
#ifndef HCT_GPU_CONTEXT_H
#define HCT_GPU_CONTEXT_H

#include <cuda.h>

#include "gpu/cuda_error.h"

struct gpu_context {
	int number; /* of the device */
	CUcontext primary;
	CUresult (*push)(CUcontext);
	CUresult (*pop)(CUcontext *);
	CUresult (*release)(CUdevice);
};

/* Errors: HCT_ERR_UNSUPPORTED (no such device), HCT_ERR_NOMEM, HCT_ERR_IO. */
hct_error gpu_context_open(struct gpu_context *c, int number, struct hct_diag *diag);
/* Not while it is current anywhere by gpu_current. */
void gpu_context_close(struct gpu_context *c);

/* The context is current for the calling thread while one of these lives; afterwards it is again
 * what was before, or none. */
struct gpu_current {
	const struct gpu_context *const context;
	const CUresult result; /* of making it so */

	explicit gpu_current(const struct gpu_context *c) : context(c), result(c->push(c->primary))
	{
	}
	~gpu_current()
	{
		CUcontext before;

		if (result == CUDA_SUCCESS)
			(void)context->pop(&before);
	}
	gpu_current(const gpu_current &) = delete;
	gpu_current &operator=(const gpu_current &) = delete;

	/* CUDA numbers the errors of its two interfaces alike. */
	cudaError_t error() const
	{
		return (cudaError_t)result;
	}
};

#endif
