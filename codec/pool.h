/* A pool of threads that run jobs in the order in which they were given.
 *
 * Jobs must not wait for jobs of the same pool that were given later, so from within a
 * job hct_pool_try_submit is safe, and hct_pool_submit and hct_pool_wait are not. */
#ifndef HCT_POOL_H
#define HCT_POOL_H

#include <stddef.h>

#include "error.h"

typedef struct hct_pool hct_pool;

/* worker: 0 .. threads-1, so that a job can use scratch memory of its thread. */
typedef void (*hct_job)(void *arg, unsigned worker);

/* CPUs that this process may use (its affinity), at least 1. */
unsigned hct_pool_default_threads(void);

/* queue: jobs that may wait before hct_pool_submit blocks.  The threads take no signals
 * but faults.  Errors: HCT_ERR_ARGUMENT when threads or queue is 0, HCT_ERR_NOMEM. */
hct_error hct_pool_create(unsigned threads, size_t queue, hct_pool **out);

/* Waits for all jobs, then ends the threads.  NULL is allowed. */
void hct_pool_free(hct_pool *p);

unsigned hct_pool_threads(const hct_pool *p);

/* Queues a job; blocks while the queue is full. */
void hct_pool_submit(hct_pool *p, hct_job job, void *arg);

/* Queues a job and returns 1, or returns 0 at once when the queue is full. */
int hct_pool_try_submit(hct_pool *p, hct_job job, void *arg);

/* Blocks until every job submitted so far has ended. */
void hct_pool_wait(hct_pool *p);

#endif
