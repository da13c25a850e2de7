/* The fused kernel of the cosine transform: both dimensions of small matrices in one go. */
#ifndef HCT_GPU_DCT_TILES_H
#define HCT_GPU_DCT_TILES_H

#include <cstddef>
#include <cstdint>

#include <cuda_runtime.h>

/* down x across matrices of equal size in device memory.  Matrix (i, j) begins at
 * i * far + j * near, in both arrays, and its rows are stride apart. */
struct gpu_dct_tiles {
	const float *in;
	float *out;
	uint64_t down, across;
	size_t far, near, stride;
	unsigned rows_log2, columns_log2;
};

/* 1 when there is a kernel for matrices with such sides. */
int gpu_dct_tiles_shape(size_t rows, size_t columns);

/* Allows the kernels the memory that they need, on the current device: once before the first
 * launch there. */
cudaError_t gpu_dct_tiles_open(void);

cudaError_t gpu_dct_tiles_launch(const struct gpu_dct_tiles *tiles, bool inverse,
				 cudaStream_t stream);

/* The inverse half of both. */
cudaError_t gpu_idct_tiles_open(void);
cudaError_t gpu_idct_tiles_launch(const struct gpu_dct_tiles *tiles, cudaStream_t stream);

#endif
