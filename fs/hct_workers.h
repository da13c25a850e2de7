/* A pool of threads, each with a decoder and two buffers of its own. */
#ifndef HCT_WORKERS_H
#define HCT_WORKERS_H

#include <stddef.h>
#include <stdint.h>

#include "codec/error.h"
#include "codec/pool.h"
#include "codec/reader.h"

struct hct_workers {
	hct_pool *pool;
	unsigned count;
	struct hct_worker {
		hct_decoder *decoder;
		uint8_t *buffer[2];
		size_t size[2];
	} * each; /* count of them: the worker number of a job is the index */
};

/* threads 0: as many as there are CPUs. */
hct_error hct_workers_create(unsigned threads, struct hct_workers *out);
/* No job may be at work.  Harmless on a zeroed struct. */
void hct_workers_free(struct hct_workers *w);

/* A buffer of at least size bytes, with the contents of before or without; NULL without
 * memory.  It stays with the worker. */
void *hct_worker_buffer(struct hct_worker *w, unsigned which, size_t size);

#endif
