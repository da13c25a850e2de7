/* cuFFT, as far as the cosine transform uses it, loaded at run time.  What is declared here has
 * been the same in every version since CUDA 7, so no header of cuFFT is needed to compile. */
#ifndef HCT_GPU_CUFFT_H
#define HCT_GPU_CUFFT_H

#include <cstddef>

#include <cuda_runtime.h>

#include "codec/error.h"

struct gpu_cufft {
	enum { OK = 0, ALLOC_FAILED = 2 }; /* results; others are errors, too */
	enum { R2C = 0x2a, C2R = 0x2c };   /* kinds of plans */

	int (*create)(int *plan);
	int (*set_auto_allocation)(int plan, int on);
	int (*make_plan_many)(int plan, int rank, long long *n, long long *inembed,
			      long long istride, long long idist, long long *onembed,
			      long long ostride, long long odist, int kind, long long batch,
			      size_t *work_bytes);
	int (*set_stream)(int plan, cudaStream_t stream);
	int (*set_work_area)(int plan, void *work);
	int (*exec_r2c)(int plan, float *in, float2 *out);
	int (*exec_c2r)(int plan, float2 *in, float *out);
	int (*destroy)(int plan);
};

/* Loads cuFFT, once; it stays loaded.  HCT_ERR_UNSUPPORTED when there is none: a later call looks
 * again.  Any thread. */
hct_error gpu_cufft_load(const struct gpu_cufft **out, struct hct_diag *diag);

#endif
