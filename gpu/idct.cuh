/* The inverse DCT of tiles (FORMAT.md section 5), and the narrowing behind it. */
#ifndef HCT_GPU_IDCT_CUH
#define HCT_GPU_IDCT_CUH

#include "codec/flat.h"
#include "codec/idct_tables.h"
#include "gpu/narrow.cuh"
#include "gpu/warp.cuh"

namespace inverse
{
typedef float vec;

__device__ __forceinline__ float splat(float v)
{
	return v;
}

#define INLINE static __device__ __forceinline__
#include "codec/idct_transform.h"
#undef INLINE
} // namespace inverse

#define PANEL_THREADS  128
#define PANEL_ELEMENTS 8192 /* at most: 128 rows, and columns, of tiles of 64 x 64 */

/* Tiles that one block transforms, in the order in which they lie: from left to right, band after
 * band. */
struct gpu_panel {
	uint32_t tiles; /* place in the list */
	uint32_t first, count;
};

__device__ __host__ __forceinline__ unsigned panel_tiles(const struct hct_flat_tiles *t)
{
	return PANEL_ELEMENTS >> (t->tile_rows_log2 + t->tile_columns_log2);
}

/* A panel in the block's memory: the rows of its tiles, tile after tile, each a float longer than
 * it is, so that threads at the same place of different rows do not meet in a bank. */
struct panel {
	const float *values; /* of the chunk */
	float *memory;
	unsigned rows_log2, columns_log2; /* of a tile */
	unsigned columns;                 /* of the chunk */
	unsigned first, count, across;    /* tiles; across: in a row of them */
	bool one_band;

	/* Where column `line` of the panel begins in the chunk. */
	__device__ __forceinline__ size_t place(unsigned line) const
	{
		unsigned tile = first + (line >> columns_log2);
		unsigned band = one_band ? 0 : tile / across;
		unsigned column = line & ((1u << columns_log2) - 1);

		column += (tile - band * across) << columns_log2;
		return ((size_t)band << rows_log2) * columns + column;
	}

	/* Row 0 of column `line`; the next rows follow pitch() floats apart. */
	__device__ __forceinline__ float *column(unsigned line) const
	{
		unsigned tile = line >> columns_log2;

		return memory + (tile << rows_log2) * pitch() + (line & ((1u << columns_log2) - 1));
	}

	__device__ __forceinline__ unsigned pitch() const
	{
		return (1u << columns_log2) + 1;
	}

	/* From the chunk to the block's memory, transformed along the columns, of N rows. */
	template <unsigned N> __device__ __forceinline__ void load() const
	{
		for (unsigned i = threadIdx.x; i < count << columns_log2; i += PANEL_THREADS) {
			const float *from = values + place(i);
			float *to = column(i), x[N];

			HCT_UNROLL
			for (unsigned k = 0; k < N; k++)
				x[k] = from[(size_t)k * columns];
			if constexpr (N > 1) {
				x[0] *= HCT_IDCT_SQRT_HALF;
				inverse::transform(x, N);
			}
			HCT_UNROLL
			for (unsigned k = 0; k < N; k++)
				to[k * pitch()] = x[k];
		}
	}

	/* Along the rows, of N columns, in place. */
	template <unsigned N> __device__ __forceinline__ void turn() const
	{
		for (unsigned i = threadIdx.x; i < count << rows_log2; i += PANEL_THREADS) {
			float *row = memory + i * (N + 1), x[N];

			HCT_UNROLL
			for (unsigned k = 0; k < N; k++)
				x[k] = row[k];
			x[0] *= HCT_IDCT_SQRT_HALF;
			inverse::transform(x, N);
			HCT_UNROLL
			for (unsigned k = 0; k < N; k++)
				row[k] = x[k];
		}
	}

	/* From the block's memory to elements. */
	template <class Narrow>
	__device__ __forceinline__ void store(uint8_t *out, Narrow narrow) const
	{
		auto *elements = (decltype(narrow(0.f)) *)out;

		for (unsigned i = threadIdx.x; i < count << columns_log2; i += PANEL_THREADS) {
			auto *to = elements + place(i);
			const float *from = column(i);

			for (unsigned k = 0; k < 1u << rows_log2; k++)
				to[(size_t)k * columns] = narrow(from[k * pitch()]);
		}
	}
};

/* MaxLog2: of the longer side of the tiles.  One panel for each block, of whose memory it takes
 * all. */
template <unsigned MaxLog2>
__global__ void __launch_bounds__(PANEL_THREADS)
	idct_tiles(const struct gpu_panel *panels, const struct hct_flat_tiles *tiles,
		   const uint8_t *values, uint8_t *out)
{
	const struct gpu_panel mine = panels[blockIdx.x];
	const struct hct_flat_tiles t = tiles[mine.tiles];
	struct panel p;

	p.values = (const float *)(values + t.values);
	p.memory = (float *)block_memory();
	p.rows_log2 = t.tile_rows_log2;
	p.columns_log2 = t.tile_columns_log2;
	p.columns = t.columns;
	p.first = mine.first;
	p.count = mine.count;
	p.across = t.columns >> t.tile_columns_log2;
	p.one_band = t.rows >> t.tile_rows_log2 == 1;
	switch (t.tile_rows_log2) {
	case 0:
		p.load<1>();
		break;
	case 1:
		p.load<2>();
		break;
	case 2:
		p.load<4>();
		break;
	case 3:
		p.load<8>();
		break;
	case 4:
		p.load<16>();
		break;
	case 5:
		if constexpr (MaxLog2 >= 5)
			p.load<32>();
		break;
	case 6:
		if constexpr (MaxLog2 >= 6)
			p.load<64>();
		break;
	}
	__syncthreads();
	switch (t.tile_columns_log2) {
	case 1:
		p.turn<2>();
		break;
	case 2:
		p.turn<4>();
		break;
	case 3:
		p.turn<8>();
		break;
	case 4:
		p.turn<16>();
		break;
	case 5:
		if constexpr (MaxLog2 >= 5)
			p.turn<32>();
		break;
	case 6:
		if constexpr (MaxLog2 >= 6)
			p.turn<64>();
		break;
	}
	__syncthreads();
	with_narrow(t.dtype, [&](auto narrow) { p.store(out + t.out, narrow); });
}

#endif
