/* The kernels of dct_fft.h.  Each thread takes what belongs together: two neighbours of a row of v,
 * or the four coefficients that two numbers of V make.
 *
 * With a and b the twiddles of row k and column l, R rows and C columns, P = b V(k, l) and
 * Q = conj(b V(R - k, l)), where V(R, l) is V(0, l):
 *   X(k, l)         =  Re a (P + Q) / 2
 *   X(R - k, l)     = -Im a (P + Q) / 2
 *   X(k, C - l)     = -Im a (P - Q) / 2
 *   X(R - k, C - l) = -Re a (P - Q) / 2. */
#ifndef HCT_GPU_DCT_FFT_CUH
#define HCT_GPU_DCT_FFT_CUH

#include "gpu/dct_fft.h"

#define FFT_THREADS 256

__device__ __forceinline__ float2 times(float2 a, float2 b)
{
	return {fmaf(a.x, b.x, -(a.y * b.y)), fmaf(a.x, b.y, a.y * b.x)};
}

/* a conj(b) */
__device__ __forceinline__ float2 times_conjugate(float2 a, float2 b)
{
	return {fmaf(a.x, b.x, a.y * b.y), fmaf(a.y, b.x, -(a.x * b.y))};
}

/* The places of a thread's work: item 0, 1 ... of count x rows x columns. */
struct fft_item {
	uint32_t matrix, row, column;

	__device__ __forceinline__ fft_item(uint32_t i, uint32_t rows, uint32_t columns)
	{
		uint32_t all = i / columns;

		column = i - all * columns;
		matrix = all / rows;
		row = all - matrix * rows;
	}
};

/* f(i) for i < n, by all threads of the grid. */
template <class F> __device__ __forceinline__ void share_out(uint64_t n, F f)
{
	uint64_t step = (uint64_t)gridDim.x * blockDim.x;

	for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
		f((uint32_t)i);
}

/* Between rows of `in` or `out` and v: move(place in the matrices, place in v), twice. */
template <class Move>
__device__ __forceinline__ void reorder(const struct gpu_dct_matrices &m, Move move)
{
	const uint32_t pairs = (m.columns + 1) / 2;

	share_out((uint64_t)m.count * m.rows * pairs, [&](uint32_t i) {
		const fft_item at(i, m.rows, pairs);
		const uint32_t half = at.row / 2, j = at.column;
		const size_t row = at.row % 2 ? m.rows - 1 - half : half;
		const size_t v = (at.matrix * (size_t)m.rows + row) * (m.columns / 2 + 1) * 2;
		const size_t x = at.matrix * m.distance + at.row * m.stride + 2 * j * m.step;

		move(x, v + j);
		if (2 * j + 1 < m.columns)
			move(x + m.step, v + m.columns - 1 - j);
	});
}

__global__ void __launch_bounds__(FFT_THREADS)
	dct_order(const float *in, float *work, const struct gpu_dct_matrices m)
{
	reorder(m, [&](size_t x, size_t v) { work[v] = in[x]; });
}

__global__ void __launch_bounds__(FFT_THREADS)
	dct_restore(const float *work, float *out, const struct gpu_dct_matrices m)
{
	reorder(m, [&](size_t x, size_t v) { out[x] = work[v]; });
}

/* Where the four coefficients and the two numbers of V lie, which some of are one. */
struct fft_quad {
	uint32_t k, l;
	size_t x, up, across; /* coefficient (k, l), and how far it is to R - k and C - l */
	size_t v, other;      /* V(k, l) and V(R - k, l) */
	bool has_up, has_across;

	__device__ __forceinline__ fft_quad(uint32_t i, const struct gpu_dct_matrices &m)
	{
		const uint32_t half = m.columns / 2 + 1;
		const fft_item at(i, m.rows / 2 + 1, half);
		const size_t first = at.matrix * (size_t)m.rows;

		k = at.row;
		l = at.column;
		has_up = k && 2 * k < m.rows;
		has_across = l && 2 * l < m.columns;
		x = at.matrix * m.distance + k * m.stride + l * m.step;
		up = k ? (size_t)(m.rows - 2 * k) * m.stride : 0;
		across = l ? (size_t)(m.columns - 2 * l) * m.step : 0;
		v = (first + k) * half + l;
		other = (first + (k ? m.rows - k : 0)) * half + l;
	}
};

__device__ __forceinline__ uint64_t quads(const struct gpu_dct_matrices &m)
{
	return (uint64_t)m.count * (m.rows / 2 + 1) * (m.columns / 2 + 1);
}

__global__ void __launch_bounds__(FFT_THREADS)
	dct_coefficients(const float2 *work, float *out, const struct gpu_dct_matrices m,
			 const float2 *row_twiddles, const float2 *column_twiddles)
{
	share_out(quads(m), [&](uint32_t i) {
		const fft_quad q(i, m);
		const float2 a = row_twiddles[q.k], b = column_twiddles[q.l];
		const float2 p = times(b, work[q.v]), o = times(b, work[q.other]);
		const float2 sum = times(a, {.5f * (p.x + o.x), .5f * (p.y - o.y)});
		const float2 difference = times(a, {.5f * (p.x - o.x), .5f * (p.y + o.y)});

		out[q.x] = sum.x;
		if (q.has_up)
			out[q.x + q.up] = -sum.y;
		if (q.has_across)
			out[q.x + q.across] = -difference.y;
		if (q.has_up && q.has_across)
			out[q.x + q.up + q.across] = -difference.x;
	});
}

__global__ void __launch_bounds__(FFT_THREADS)
	dct_spectrum(const float *in, float2 *work, const struct gpu_dct_matrices m,
		     const float2 *row_twiddles, const float2 *column_twiddles)
{
	share_out(quads(m), [&](uint32_t i) {
		const fft_quad q(i, m);
		const float2 a = row_twiddles[q.k], b = column_twiddles[q.l];
		/* the square of a twiddle's factor is 2 / n, but 1 / n of the first */
		const float scale = (q.k ? .5f : 1.f) * (q.l ? .5f : 1.f);
		const float x = scale * in[q.x];
		const float up = q.k ? scale * in[q.x + q.up] : 0;
		const float across = q.l ? scale * in[q.x + q.across] : 0;
		const float both = q.k && q.l ? scale * in[q.x + q.up + q.across] : 0;

		work[q.v] = times_conjugate(times_conjugate({x - both, -(up + across)}, a), b);
		if (q.has_up)
			work[q.other] = times_conjugate(times({x + both, up - across}, a), b);
	});
}

#endif
