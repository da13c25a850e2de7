/* Internal to pipeline.c: what the threads of the pool do for it.
 *
 * Each takes a slot that is AT_WORK and leaves it READY, also when it fails: then the first error,
 * its tensor and its line are the pipeline's, and jobs that begin later do nothing, but for checks:
 * what was appended before an error is kept.  What may pass, a lack of memory or a failing read, is
 * tried again three times, after longer and longer pauses; a check only for the latter. */
#ifndef MKHCT_JOBS_H
#define MKHCT_JOBS_H

#include "writer/pipeline.h"

/* Makes the plan of a struct mkhct_plan_slot; one for which there is no memory is lossless. */
void mkhct_jobs_plan(void *slot, unsigned worker);

/* Encodes the chunk of a struct mkhct_chunk_slot. */
void mkhct_jobs_chunk(void *slot, unsigned worker);

/* Reads the chunk of a struct mkhct_chunk_slot back from the file and decodes it; the first error
 * of these is the pipeline's check_error, too. */
void mkhct_jobs_check(void *slot, unsigned worker);

/* 1 once a job has failed.  From any thread. */
int mkhct_jobs_failed(struct mkhct_pipeline *p);

#endif
