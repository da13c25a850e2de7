/* Internal: what a backend consists of, and what it is given to do: pieces of chunks, which the
 * threads of its pool take one run after the other. */
#ifndef HCT_WORK_H
#define HCT_WORK_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "load.h"
#include "pool.h"

struct hct_gpu;

/* What a thread of the pool has for itself. */
struct hct_worker {
	hct_decoder *decoder;
	uint8_t *buffer; /* for bytes on their way to a device; grown when it is used */
	size_t capacity;
};

struct hct_backend {
	hct_pool *pool;
	struct hct_worker *workers; /* one for each thread of it */
	unsigned threads;
	struct hct_gpu *gpu; /* NULL without */
	char cpu_name[32];
	void (*log)(void *arg, const char *line);
	void *log_arg;
	pthread_mutex_t log_lock;
};

/* Bytes of one chunk. */
struct hct_piece {
	uint64_t number;
	uint32_t begin, end; /* of the chunk's bytes; all of them where they are verified */
	uint8_t *dst;
	hct_error error; /* found */
};

struct hct_work {
	hct_backend *b;
	const hct_reader *r;
	unsigned layers;
	int verified;
	int on_device; /* dst is memory of the device */
	void *stream;  /* of the device */
	struct hct_piece *pieces;
	size_t count;
	uint64_t bytes;       /* of all pieces */
	uint64_t batch_bytes; /* of those that a device decodes together, about */

	pthread_mutex_t lock; /* over all that follows, and the pieces' errors */
	pthread_cond_t ended;
	unsigned running;     /* jobs */
	size_t next;          /* piece that nobody has taken */
	size_t first_bad;     /* piece; count when there is none */
	struct hct_diag diag; /* of it */
};

/* Runs job in `jobs` threads of the pool, with the work as its argument, until all have ended. */
void hct_work_run(struct hct_work *w, hct_job job, unsigned jobs);

/* Takes pieces in a row, of at most `bytes` bytes, or one, and at most `most`.  Returns how many; 0
 * when none is left. */
size_t hct_work_take(struct hct_work *w, uint64_t bytes, size_t most, size_t *first);

/* Notes what went wrong with piece i. */
void hct_work_fail(struct hct_work *w, size_t i, hct_error e, const struct hct_diag *diag);

/* backend_cpu.c: decodes a piece that is read already, or reads it, too, and copies it to the
 * device when that is where it belongs. */
void hct_cpu_decode_loaded(struct hct_work *w, struct hct_worker *worker, size_t i,
			   const struct hct_loaded *c);
void hct_cpu_decode(struct hct_work *w, struct hct_worker *worker, size_t i);
/* A job: pieces one after the other, until none is left. */
void hct_cpu_job(void *work, unsigned worker);

/* A line to the backend's log. */
void hct_backend_say(hct_backend *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* backend_gpu.c.  number: -1 for the first.  HCT_OK and *out NULL when it is -1 and there is none.
 */
hct_error hct_gpu_open(hct_backend *b, int number, uint64_t memory, struct hct_gpu **out,
		       struct hct_diag *diag);
/* NULL is allowed. */
void hct_gpu_close(struct hct_gpu *g);
/* Whether it still decodes. */
int hct_gpu_works(const struct hct_gpu *g);
const char *hct_gpu_name(const struct hct_gpu *g);
int hct_gpu_number(const struct hct_gpu *g);
hct_error hct_gpu_alloc(struct hct_gpu *g, size_t bytes, void **out, struct hct_diag *diag);
void hct_gpu_free(struct hct_gpu *g, void *p);
hct_error hct_gpu_copy(struct hct_gpu *g, void *to, const void *from, size_t bytes, void *stream,
		       struct hct_diag *diag);
/* Does all of it, on the GPU as long as that works. */
void hct_gpu_do(struct hct_gpu *g, struct hct_work *w);

#endif
