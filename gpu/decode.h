/* The kernels that decode: from the lists of a batch (codec/flat.h) to bytes, all on the device.
 *
 * A batch goes through gpu_work_pack, which writes one piece of host memory (segments, groups of
 * them, tiles) for the caller to copy to the device, and gpu_work_launch, which puts the kernels
 * into a stream.  Nothing here waits, takes memory or keeps state: any threads may be at it. */
#ifndef HCT_GPU_DECODE_H
#define HCT_GPU_DECODE_H

#include <cstddef>
#include <cstdint>

#include <cuda_runtime.h>

#include "codec/device.h"

/* What the kernels know about a device. */
struct gpu_limits {
	size_t shared; /* bytes of memory that the threads of a block can share */
	unsigned multiprocessors;
};

/* Asks the current device, and allows the kernels all of that memory there: once for each device,
 * before the first batch. */
cudaError_t gpu_decode_open(struct gpu_limits *limits);

#define GPU_WORK_LAUNCHES 32 /* kinds of kernels, at most, that a batch needs */

/* One kernel; places are bytes from the beginning of what gpu_work_pack wrote. */
struct gpu_launch {
	unsigned kind;            /* decode.cu's */
	unsigned blocks, threads; /* blocks: groups of segments, too */
	size_t shared, tables;    /* bytes of the block's memory, and of tables in it */
	uint64_t groups_at;
};

/* The kernels of a batch, in their order. */
struct gpu_work {
	struct gpu_launch launches[GPU_WORK_LAUNCHES];
	unsigned count;
	uint64_t split_at, tcq_at, tiles_at;
};

/* Bytes that gpu_work_pack writes for a batch, at most; a multiple of 16. */
size_t gpu_work_bytes(const struct hct_device_batch *batch);

/* Describes the work of a batch in `out` (gpu_work_bytes, 16 bytes aligned, the host's) and *work.
 * addresses: of batch->tables[i].flat on the device, 16 bytes aligned, table_count of them.
 * Reads lists, items, tables and tables_of of the batch, and nothing else of it. */
void gpu_work_pack(const struct hct_device_batch *batch, const struct gpu_limits *limits,
		   const uint64_t *addresses, struct gpu_work *work, void *out);

/* Memory of the device that kernels work on, each 16 bytes aligned.  They read what
 * gpu_work_pack wrote, the tables, and of `in` the payloads and up to HCT_PAYLOAD_PAD bytes behind
 * each; and write the elements of the listed segments, from `out` on, their values, and bad. */
struct gpu_memory {
	const void *work;
	const uint8_t *in;
	uint8_t *out;
	uint8_t *values; /* may be NULL when the list has no tiles */
	uint32_t *bad; /* [items]: zero before, and 1 afterwards where a payload does not decode */
};

/* Puts the kernels into a stream. */
cudaError_t gpu_work_launch(const struct gpu_work *work, const struct gpu_memory *memory,
			    cudaStream_t stream);

#endif
