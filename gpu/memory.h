/* Memory of the device within a bound, and pinned memory of the host, both kept to be used again:
 * to take or give them from or to the driver takes long, and stops what the device does. */
#ifndef HCT_GPU_MEMORY_H
#define HCT_GPU_MEMORY_H

#include <cstddef>
#include <cstdint>
#include <mutex>

#include <cuda_runtime.h>

/* Device memory ------------------------------------------------------------------------- */

struct gpu_segment;

/* 256 bytes aligned. */
struct gpu_block {
	uint8_t *p;
	size_t bytes;
	/* memory.cu's */
	struct gpu_segment *segment;
	struct gpu_block *before, *after; /* in the segment */
	bool used;
};

/* Zeroed but for limit, it is empty.  One thread at a time. */
struct gpu_pool {
	uint64_t limit, held; /* bytes */
	struct gpu_segment *segments;
};

/* A block of at least so many bytes.  Small ones share what was taken from the driver; large ones
 * have their own, and go back to the driver when they are given.  cudaErrorMemoryAllocation: beyond
 * the limit, or there is none. */
cudaError_t gpu_pool_take(struct gpu_pool *pool, size_t bytes, struct gpu_block **out);
/* NULL is allowed.  Nothing on the device may use it any more. */
void gpu_pool_give(struct gpu_pool *pool, struct gpu_block *block);

/* Pinned memory of the host -------------------------------------------------------------- */

struct gpu_pinned;

/* Any number of threads. */
struct gpu_pinned_pool {
	std::mutex lock;
	struct gpu_pinned *blocks = nullptr; /* those that are used, and those that are kept */
	uint64_t keep = 0, kept = 0;         /* bytes that may be, and are, kept unused */
};

/* 4096 bytes aligned. */
cudaError_t gpu_pinned_take(struct gpu_pinned_pool *pool, size_t bytes, void **out);
/* NULL is allowed. */
void gpu_pinned_give(struct gpu_pinned_pool *pool, void *p);
/* Gives all that is unused back. */
void gpu_pinned_trim(struct gpu_pinned_pool *pool);

/* bytes, or somewhat more, so that sizes that differ little are the same one. */
size_t gpu_rounded(size_t bytes);

#endif
