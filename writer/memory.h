/* --memory: what may be resident, shared out among threads and queues. */
#ifndef MKHCT_MEMORY_H
#define MKHCT_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define MKHCT_MEMORY_LEAST (UINT64_C(256) << 20)
/* With a GPU, whose driver keeps some hundred megabytes of the host's. */
#define MKHCT_MEMORY_GPU (UINT64_C(768) << 20)

struct mkhct_memory {
	unsigned threads;    /* that there is memory for, at most as many as were asked for */
	size_t plan_bytes;   /* of plans that wait for their tensor's turn */
	size_t chunk_bytes;  /* of chunks that are being encoded, or wait for theirs */
	size_t window_bytes; /* of the source's pages that each of a few readers keeps */
};

/* bytes: at least MKHCT_MEMORY_LEAST; threads: that are asked for. */
struct mkhct_memory mkhct_memory_share(uint64_t bytes, unsigned threads);

/* Bytes that are resident now; 0 when the kernel does not tell. */
uint64_t mkhct_memory_resident(void);

#endif
