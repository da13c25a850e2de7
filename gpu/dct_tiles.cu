#include "gpu/dct_tiles.cuh"

static int is_side(size_t n)
{
	return n && n <= TALL && !(n & (n - 1));
}

int gpu_dct_tiles_shape(size_t rows, size_t columns)
{
	return is_side(rows) && is_side(columns);
}

cudaError_t gpu_dct_tiles_open(void)
{
	cudaError_t e = dct_tiles_open<false>();

	return e ? e : gpu_idct_tiles_open();
}

cudaError_t gpu_dct_tiles_launch(const struct gpu_dct_tiles *tiles, bool inverse,
				 cudaStream_t stream)
{
	return inverse ? gpu_idct_tiles_launch(tiles, stream)
		       : dct_tiles_launch<false>(tiles, stream);
}
