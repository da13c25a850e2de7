/* Decodes a batch with memory of just the sizes that it claims, so that AddressSanitizer sees what
 * kernels read and write besides; and with any limits of the device. */
#include <cstdlib>
#include <vector>

#include "gpu/decode.h"

namespace
{

/* A copy of n bytes in memory of its own, as of a device. */
uint8_t *copy_of(const void *from, size_t n)
{
	uint8_t *p = (uint8_t *)malloc(n ? n : 1);

	if (n)
		memcpy(p, from, n);
	return p;
}

} // namespace

/* As the plug-in would, with everything in the host's memory: batch->in has in_bytes, batch->out
 * out_bytes, and bad is zeroed.  Copies and the stream are ignored. */
extern "C" __attribute__((visibility("default"))) int
hct_emulated_decode(const struct hct_device_batch *batch, size_t shared, unsigned multiprocessors)
{
	const struct gpu_limits limits = {shared, multiprocessors};
	size_t bytes = gpu_work_bytes(batch);
	std::vector<uint64_t> addresses;
	struct gpu_memory memory;
	struct gpu_work work;
	uint8_t *packed = (uint8_t *)malloc(bytes);
	cudaError_t e;

	for (size_t i = 0; i < batch->table_count; i++)
		addresses.push_back(
			(uintptr_t)copy_of(batch->tables[i].flat, batch->tables[i].bytes));
	gpu_work_pack(batch, &limits, addresses.data(), &work, packed);
	memory.work = packed;
	memory.in = batch->in;
	memory.out = (uint8_t *)batch->out;
	memory.values = (uint8_t *)malloc(batch->values_bytes ? batch->values_bytes : 1);
	memory.bad = batch->bad;
	e = gpu_work_launch(&work, &memory, nullptr);
	free(memory.values);
	free(packed);
	for (uint64_t a : addresses)
		free((void *)(uintptr_t)a);
	return e;
}
