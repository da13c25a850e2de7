#include "memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "codec/encoder.h"

#define MIB (UINT64_C(1) << 20)

/* The program, its libraries and their buffers, the index and the report of a large model, and what
 * the allocator holds back. */
#define BASE (64 * MIB)

struct mkhct_memory mkhct_memory_share(uint64_t bytes, unsigned threads)
{
	struct mkhct_memory m = {.window_bytes = 16 * MIB};
	uint64_t left = bytes - BASE - 2 * m.window_bytes; /* appending and hashing */
	uint64_t each = hct_encoder_memory() + m.window_bytes;
	uint64_t most = (left - left / 5) / each; /* a fifth for the queues */

	m.threads = threads;
	if (most < threads)
		m.threads = most ? (unsigned)most : 1;
	left -= m.threads * each;
	m.plan_bytes = left / 2;
	m.chunk_bytes = left / 2;
	return m;
}

uint64_t mkhct_memory_resident(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	uint64_t pages = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%*u %" SCNu64, &pages) != 1)
		pages = 0;
	fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}
