/* What a cosine transform of any length needs around a Fourier transform of the same length
 * (J. Makhoul, "A fast cosine transform in one and two dimensions", IEEE Trans. ASSP 28, 1980):
 *
 *   v(i) = x(2 i) and v(n - 1 - i) = x(2 i + 1);  V, the Fourier transform of v;
 *   exp(-i pi k / (2 n)) V(k) = X(k) - i X(n - k), for the cosine transform X without factors.
 *
 * In two dimensions the first line holds for each, and what becomes of V is in dct_fft.cuh.
 *
 * Work is v, row by row, with 2 (columns / 2 + 1) floats from row to row; or in its place V,
 * columns / 2 + 1 complex numbers in each row, as Fourier transforms of real numbers in place have
 * it. */
#ifndef HCT_GPU_DCT_FFT_H
#define HCT_GPU_DCT_FFT_H

#include <cstddef>
#include <cstdint>

#include <cuda_runtime.h>

/* count matrices in device memory: number (i, j) of matrix b at b * distance + i * stride +
 * j * step.  count times the numbers of a matrix is below 2^31. */
struct gpu_dct_matrices {
	uint32_t rows, columns, count;
	size_t distance, stride, step;
};

/* Floats of a matrix in work. */
size_t gpu_dct_work_numbers(const struct gpu_dct_matrices *m);

/* exp(-i pi k / (2 n)) times the factor of coefficient k of the orthonormal transform, for
 * k = 0 ... n / 2.  out: [n / 2 + 1], the host's. */
void gpu_dct_twiddles(size_t n, float2 *out);

/* The twiddles, on the device, are those of rows and of columns. */

/* in -> v */
cudaError_t gpu_dct_order(const float *in, float *work, const struct gpu_dct_matrices *m,
			  cudaStream_t stream);
/* V -> coefficients */
cudaError_t gpu_dct_coefficients(const float2 *work, float *out, const struct gpu_dct_matrices *m,
				 const float2 *row_twiddles, const float2 *column_twiddles,
				 cudaStream_t stream);
/* coefficients -> V, with which an inverse Fourier transform without factors gives v */
cudaError_t gpu_dct_spectrum(const float *in, float2 *work, const struct gpu_dct_matrices *m,
			     const float2 *row_twiddles, const float2 *column_twiddles,
			     cudaStream_t stream);
/* v -> out */
cudaError_t gpu_dct_restore(const float *work, float *out, const struct gpu_dct_matrices *m,
			    cudaStream_t stream);

#endif
