#include "gpu/dct_fft.cuh"

#include <cmath>

#include "gpu/launch.cuh"

#define MOST_BLOCKS 0x7fffffffu

static unsigned blocks_for(uint64_t items)
{
	uint64_t blocks = (items + FFT_THREADS - 1) / FFT_THREADS;

	return (unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS);
}

static unsigned reorder_blocks(const struct gpu_dct_matrices *m)
{
	return blocks_for((uint64_t)m->count * m->rows * ((m->columns + 1) / 2));
}

static unsigned quad_blocks(const struct gpu_dct_matrices *m)
{
	return blocks_for((uint64_t)m->count * (m->rows / 2 + 1) * (m->columns / 2 + 1));
}

size_t gpu_dct_work_numbers(const struct gpu_dct_matrices *m)
{
	return (size_t)m->rows * (m->columns / 2 + 1) * 2;
}

void gpu_dct_twiddles(size_t n, float2 *out)
{
	for (size_t k = 0; k <= n / 2; k++) {
		double angle = M_PI * (double)k / (2 * (double)n),
		       factor = sqrt((k ? 2. : 1.) / (double)n);

		out[k].x = (float)(factor * cos(angle));
		out[k].y = (float)(factor * -sin(angle));
	}
}

cudaError_t gpu_dct_order(const float *in, float *work, const struct gpu_dct_matrices *m,
			  cudaStream_t stream)
{
	const struct gpu_dct_matrices all = *m;

	return HCT_LAUNCH(dct_order, reorder_blocks(m), FFT_THREADS, 0, stream, in, work, all);
}

cudaError_t gpu_dct_restore(const float *work, float *out, const struct gpu_dct_matrices *m,
			    cudaStream_t stream)
{
	const struct gpu_dct_matrices all = *m;

	return HCT_LAUNCH(dct_restore, reorder_blocks(m), FFT_THREADS, 0, stream, work, out, all);
}

cudaError_t gpu_dct_coefficients(const float2 *work, float *out, const struct gpu_dct_matrices *m,
				 const float2 *row_twiddles, const float2 *column_twiddles,
				 cudaStream_t stream)
{
	const struct gpu_dct_matrices all = *m;

	return HCT_LAUNCH(dct_coefficients, quad_blocks(m), FFT_THREADS, 0, stream, work, out, all,
			  row_twiddles, column_twiddles);
}

cudaError_t gpu_dct_spectrum(const float *in, float2 *work, const struct gpu_dct_matrices *m,
			     const float2 *row_twiddles, const float2 *column_twiddles,
			     cudaStream_t stream)
{
	const struct gpu_dct_matrices all = *m;

	return HCT_LAUNCH(dct_spectrum, quad_blocks(m), FFT_THREADS, 0, stream, in, work, all,
			  row_twiddles, column_twiddles);
}
