/* Tables of tensors on the device, by their keys: those used lately stay there. */
#ifndef HCT_GPU_TABLES_H
#define HCT_GPU_TABLES_H

#include "gpu/memory.h"

#define GPU_TABLE_CHAINS 1024

struct gpu_table {
	uint64_t key;
	struct gpu_block *block;
	unsigned users; /* batches in flight: it stays */
	struct gpu_table *chain, *older, *newer;
};

/* A zeroed one is empty.  One thread at a time. */
struct gpu_tables {
	struct gpu_table *chains[GPU_TABLE_CHAINS];
	struct gpu_table *oldest, *newest; /* in the order of their last use */
	uint64_t bytes;                    /* of all blocks */
};

/* One that is there, with one user more; or NULL. */
struct gpu_table *gpu_tables_use(struct gpu_tables *t, uint64_t key);
/* One that is not there yet, with one user; takes the block.  NULL without memory. */
struct gpu_table *gpu_tables_add(struct gpu_tables *t, uint64_t key, struct gpu_block *block);
/* Gives the memory of one back to the pool. */
void gpu_tables_remove(struct gpu_tables *t, struct gpu_table *table, struct gpu_pool *pool);
/* Removes the one that was not used for longest; false when all have users. */
bool gpu_tables_evict(struct gpu_tables *t, struct gpu_pool *pool);

#endif
