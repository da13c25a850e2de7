/* Small matrices, each transformed along its columns on the way from the device's memory to the
 * block's, there along its rows, and copied back: every number is read and written once.
 *
 * The matrices of a block lie one below the other in its memory: TALL rows.  A thread transforms
 * one column or row in its registers.  A vector of 128 numbers, TALL, is two halves, of the even
 * and of the odd coefficients, for threads of different warps: the first step of the recursion is
 * done while it is loaded, and the last step of an inverse one by whoever reads it next.  Until
 * then it is parked: number i of the first half at i, and of the second at 64 + i. */
#ifndef HCT_GPU_DCT_TILES_CUH
#define HCT_GPU_DCT_TILES_CUH

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "gpu/dct_short.cuh"
#include "gpu/dct_tiles.h"
#include "gpu/launch.cuh"
#include "gpu/warp.cuh"

#define TALL (2u * SHORT_MOST)

/* Where numbers lie in the block's memory, so that threads at neighbouring rows, and threads at
 * neighbouring columns, are at different banks. */

/* Rows an odd number of floats apart. */
struct tall_padded {
	unsigned pitch;

	__device__ __forceinline__ explicit tall_padded(unsigned columns_log2)
	    : pitch((1u << columns_log2) + 1)
	{
	}
	__device__ __forceinline__ unsigned operator()(unsigned row, unsigned column) const
	{
		return row * pitch + column;
	}
};

/* Rows of TALL without gaps, because so many of them fill the memory of some devices. */
struct tall_mixed {
	__device__ __forceinline__ explicit tall_mixed(unsigned)
	{
	}
	__device__ __forceinline__ unsigned operator()(unsigned row, unsigned column) const
	{
		return (row * TALL + column) ^ (row & 31);
	}
};

/* f(N) for N = 2^log2, which is one of 2, 4 ... Most; N is a constant. */
template <unsigned Most, class F> __device__ __forceinline__ void with_length(unsigned log2, F f)
{
	if constexpr (Most > 2) {
		if (log2 < (unsigned)__builtin_ctz(Most)) {
			with_length<Most / 2>(log2, f);
			return;
		}
	}
	f(std::integral_constant<unsigned, Most>());
}

/* The threads' work on the matrices of one block, TALL or, with halves, 2 TALL of them. */
template <bool Inverse, class Place> struct tall {
	const struct gpu_dct_tiles &t;
	const float *in;
	float *out;
	unsigned matrices; /* that there are, of TALL >> rows_log2 */
	float *memory;
	Place place;

	/* From device memory, as it is: for matrices of one row. */
	__device__ __forceinline__ void copy_in() const
	{
		constexpr unsigned AHEAD = 16;
		const unsigned log2 = t.columns_log2, n = matrices << log2;

		for (unsigned first = threadIdx.x; first < n; first += AHEAD * blockDim.x) {
			float v[AHEAD];

#pragma unroll
			for (unsigned k = 0; k < AHEAD; k++) {
				unsigned i = first + k * blockDim.x;

				v[k] = i < n ? in[(i >> log2) * t.near + (i & ((1u << log2) - 1))]
					     : 0;
			}
#pragma unroll
			for (unsigned k = 0; k < AHEAD; k++) {
				unsigned i = first + k * blockDim.x;

				if (i < n)
					memory[place(i >> log2, i & ((1u << log2) - 1))] = v[k];
			}
		}
	}

	/* A whole vector, but for the factor of all. */
	template <unsigned N> static __device__ __forceinline__ void whole(float *x)
	{
		if (Inverse) {
			x[0] *= SQRT_HALF;
			short_three<N>(x);
		} else {
			short_two<N>(x);
			x[0] *= SQRT_HALF;
		}
	}

	/* Half of TALL numbers; at(i) is number i. */
	template <class At>
	static __device__ __forceinline__ void load_half(float *x, bool second, At at)
	{
#pragma unroll
		for (unsigned i = 0; i < SHORT_MOST; i++) {
			if (Inverse)
				x[i] = at(2 * i + second);
			else
				x[i] = second ? at(i) - at(TALL - 1 - i) : at(i) + at(TALL - 1 - i);
		}
	}
	static __device__ __forceinline__ void half(float *x, bool second)
	{
		if (second)
			short_four<SHORT_MOST>(x);
		else
			whole<SHORT_MOST>(x);
	}
	/* Where number i of a half goes: it is a coefficient, or parked. */
	static __device__ __forceinline__ unsigned half_place(unsigned i, bool second)
	{
		return Inverse ? SHORT_MOST * second + i : 2 * i + second;
	}

	/* From device memory, transformed along the columns. */
	template <unsigned N> __device__ __forceinline__ void columns() const
	{
		const unsigned log2 = t.columns_log2, n = matrices << log2;

		for (unsigned i = threadIdx.x; i < n; i += blockDim.x) {
			const unsigned column = i & ((1u << log2) - 1), top = (i >> log2) * N;
			const float *from = in + (i >> log2) * t.near + column;
			float x[N];

#pragma unroll
			for (unsigned k = 0; k < N; k++)
				x[k] = from[k * t.stride];
			whole<N>(x);
#pragma unroll
			for (unsigned k = 0; k < N; k++)
				memory[place(top + k, column)] = x[k];
		}
	}

	/* The same for columns of TALL: of one matrix. */
	__device__ __forceinline__ void long_columns() const
	{
		const unsigned column = threadIdx.x % TALL;
		const bool second = threadIdx.x / TALL;
		const float *from = in + column;
		float x[SHORT_MOST];

		if (column >> t.columns_log2)
			return;
		load_half(x, second, [&](unsigned k) { return from[k * t.stride]; });
		half(x, second);
#pragma unroll
		for (unsigned k = 0; k < SHORT_MOST; k++)
			memory[place(half_place(k, second), column)] = x[k];
	}

	/* Number k of a row, parked or not. */
	__device__ __forceinline__ float in_row(bool parked, unsigned row, unsigned k) const
	{
		if (!parked)
			return memory[place(row, k)];

		const bool upper = row < SHORT_MOST;
		const unsigned first = upper ? row : TALL - 1 - row;
		const float a = memory[place(first, k)], b = memory[place(SHORT_MOST + first, k)];

		return upper ? a + b : a - b;
	}

	/* In the block's memory, along the rows.  parked: the columns are. */
	template <unsigned N> __device__ __forceinline__ void rows(bool parked) const
	{
		const unsigned row = threadIdx.x;
		const bool mine = row < matrices << t.rows_log2;
		float x[N];

		if (mine) {
#pragma unroll
			for (unsigned k = 0; k < N; k++)
				x[k] = in_row(parked, row, k);
			whole<N>(x);
		}
		if (parked)
			__syncthreads();
		if (mine) {
#pragma unroll
			for (unsigned k = 0; k < N; k++)
				memory[place(row, k)] = x[k];
		}
	}

	/* The same for rows of TALL, also of those that nothing was put in. */
	__device__ __forceinline__ void long_rows(bool parked) const
	{
		const unsigned row = threadIdx.x % TALL;
		const bool second = threadIdx.x / TALL;
		float x[SHORT_MOST];

		load_half(x, second, [&](unsigned k) { return in_row(parked, row, k); });
		half(x, second);
		__syncthreads();
#pragma unroll
		for (unsigned k = 0; k < SHORT_MOST; k++)
			memory[place(row, half_place(k, second))] = x[k];
	}

	/* To device memory; a warp writes neighbouring numbers.  The parameters: whether columns or
	 * rows are parked. */
	__device__ __forceinline__ void copy_out(float scale, bool columns_parked,
						 bool rows_parked) const
	{
		const unsigned log2 = t.columns_log2, n = matrices << t.rows_log2;
		const unsigned column = threadIdx.x & ((1u << log2) - 1);
		const bool left = column < SHORT_MOST;
		const unsigned first = left ? column : TALL - 1 - column;
		const float sign = left ? 1.0f : -1.0f;

#pragma unroll 8
		for (unsigned row = threadIdx.x >> log2; row < n; row += blockDim.x >> log2) {
			const unsigned matrix = row >> t.rows_log2;
			const unsigned i = row & ((1u << t.rows_log2) - 1);
			float v;

			if (rows_parked)
				v = fmaf(sign, memory[place(row, SHORT_MOST + first)],
					 memory[place(row, first)]);
			else
				v = in_row(columns_parked, row, column);
			out[matrix * t.near + i * t.stride + column] = v * scale;
		}
	}
};

/* Blocks that a multiprocessor should have room for: the shorter the vectors, the more threads it
 * takes until enough of memory is on its way. */
constexpr unsigned blocks_together(unsigned rows, unsigned columns)
{
	return rows > columns ? 1 : columns == 16 ? 8 : columns == 32 ? 6 : columns == 64 ? 4 : 2;
}

/* Matrices of at most Rows x Columns numbers.  bands: of TALL rows, in a row of matrices. */
template <unsigned Rows, unsigned Columns, bool Inverse, unsigned Threads>
__global__ void __launch_bounds__(Threads, blocks_together(Rows, Columns))
	dct_tiles(const struct gpu_dct_tiles t, uint64_t bands, float scale)
{
	using place = std::conditional_t<Columns == TALL, tall_mixed, tall_padded>;
	constexpr unsigned alone = Rows < SHORT_MOST ? Rows : SHORT_MOST;
	const unsigned most = TALL >> t.rows_log2;
	/* shorter ones, with shorter rows, have smaller kernels */
	const bool long_columns = Rows == TALL && (Columns < TALL || t.rows_log2 == 7);
	float *memory = (float *)block_memory();

	for (uint64_t i = blockIdx.x; i < t.down * bands; i += gridDim.x) {
		uint64_t first = i % bands * most, left = t.across - first;
		size_t at = i / bands * t.far + first * t.near;
		const tall<Inverse, place> b = {t,          t.in + at,
						t.out + at, left < most ? (unsigned)left : most,
						memory,     place(t.columns_log2)};

		if (long_columns)
			b.long_columns();
		else if (t.rows_log2)
			with_length<alone>(t.rows_log2, [&](auto n) {
				b.template columns<decltype(n)::value>();
			});
		else
			b.copy_in();
		__syncthreads();
		if constexpr (Columns == TALL)
			b.long_rows(Inverse && long_columns);
		else if (t.columns_log2)
			with_length<Columns>(t.columns_log2, [&](auto n) {
				b.template rows<decltype(n)::value>(Inverse && long_columns);
			});
		__syncthreads();
		b.copy_out(scale, Inverse && long_columns && !t.columns_log2,
			   Inverse && Columns == TALL);
		__syncthreads();
	}
}

/* Host: what gpu_dct_tiles_open and _launch are for one direction ------------------------- */

#define MOST_BLOCKS 0x7fffffffu

/* Calls f with the sides of the smallest kernel that takes such matrices, as constants. */
template <class F> static cudaError_t with_kernel(unsigned rows_log2, unsigned columns_log2, F f)
{
	unsigned longest = rows_log2 > columns_log2 ? rows_log2 : columns_log2;
	using std::integral_constant;

	if (longest <= 4)
		return f(integral_constant<unsigned, 16>(), integral_constant<unsigned, 16>());
	if (longest == 5)
		return f(integral_constant<unsigned, 32>(), integral_constant<unsigned, 32>());
	if (longest == 6)
		return f(integral_constant<unsigned, 64>(), integral_constant<unsigned, 64>());
	if (columns_log2 < 7)
		return f(integral_constant<unsigned, 128>(), integral_constant<unsigned, 64>());
	return f(integral_constant<unsigned, 128>(), integral_constant<unsigned, 128>());
}

/* Bytes of the block's memory. */
static inline size_t tall_bytes(unsigned columns_log2)
{
	size_t columns = (size_t)1 << columns_log2;

	return sizeof(float) * TALL * (columns == TALL ? columns : columns + 1);
}

/* Of the orthonormal transform of n numbers. */
static inline double factor(unsigned log2)
{
	return log2 ? sqrt(2.0 / (double)(1u << log2)) : 1.0;
}

template <bool Inverse>
cudaError_t dct_tiles_launch(const struct gpu_dct_tiles *tiles, cudaStream_t stream)
{
	return with_kernel(tiles->rows_log2, tiles->columns_log2, [=](auto rows, auto columns) {
		constexpr unsigned R = decltype(rows)::value, C = decltype(columns)::value;
		constexpr unsigned threads = R == TALL ? 2 * TALL : TALL;
		const struct gpu_dct_tiles t = *tiles;
		const unsigned most = TALL >> t.rows_log2;
		const uint64_t bands = (t.across + most - 1) / most, blocks = t.down * bands;
		const float scale = (float)(factor(t.rows_log2) * factor(t.columns_log2));

		return HCT_LAUNCH((dct_tiles<R, C, Inverse, threads>),
				  (unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS), threads,
				  tall_bytes(t.columns_log2), stream, t, bands, scale);
	});
}

template <bool Inverse> cudaError_t dct_tiles_open(void)
{
	return cudaFuncSetAttribute(dct_tiles<TALL, TALL, Inverse, 2 * TALL>,
				    cudaFuncAttributeMaxDynamicSharedMemorySize,
				    (int)tall_bytes(7));
}

#endif
