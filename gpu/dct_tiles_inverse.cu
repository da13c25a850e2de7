/* Compiled apart, for they take long. */
#include "gpu/dct_tiles.cuh"

cudaError_t gpu_idct_tiles_open(void)
{
	return dct_tiles_open<true>();
}

cudaError_t gpu_idct_tiles_launch(const struct gpu_dct_tiles *tiles, cudaStream_t stream)
{
	return dct_tiles_launch<true>(tiles, stream);
}
