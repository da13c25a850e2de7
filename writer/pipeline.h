/* Internal to compress.c: planning, encoding, appending and checking the tensors of one file.
 *
 * Tensors are planned and chunks are encoded by the threads of a pool, a bounded number of each at
 * a time, and appended in order by the caller's thread; with verify each is then read back and
 * decoded by the pool before its place is free again, its tensor is done, or a checkpoint is saved
 * that has it: no checkpoint speaks of a chunk that was not checked. */
#ifndef MKHCT_PIPELINE_H
#define MKHCT_PIPELINE_H

#include <pthread.h>
#include <stdint.h>

#include "codec/appender.h"
#include "codec/encoder.h"
#include "codec/error.h"
#include "codec/meter.h"
#include "codec/pool.h"
#include "writer/carry.h"
#include "writer/compress.h"
#include "writer/hasher.h"
#include "writer/ledger.h"
#include "writer/memory.h"
#include "writer/model.h"

#define MKHCT_PLANS 256u /* tensors planned ahead of the one being appended */

struct mkhct_pipeline;

enum mkhct_slot_state { MKHCT_IDLE, MKHCT_AT_WORK, MKHCT_READY };

/* One tensor whose plan is being made or in use; tensor i uses plans[i % MKHCT_PLANS]. */
struct mkhct_plan_slot {
	struct mkhct_pipeline *pipeline;
	const struct hct_tensor *tensor;
	const struct hct_goal *goal; /* NULL: without loss */
	hct_plan *plan;
	size_t memory; /* of the plan, once it is ready */
	size_t tables; /* of the plan, once its chunks are being encoded */
	unsigned retries;
	enum mkhct_failure failed; /* why it is lossless, though it was not to be */
	enum mkhct_slot_state state;
};

/* One chunk that is being encoded, waits for its turn, or is being checked; a ring. */
struct mkhct_chunk_slot {
	struct mkhct_pipeline *pipeline;
	const struct mkhct_plan_slot *planned;
	uint64_t number; /* within its tensor */
	struct hct_encoded encoded;
	uint8_t *payload; /* the slot's own copy */
	size_t length, capacity;
	size_t claimed;  /* bytes that it may come to have */
	uint64_t offset; /* of it in the file, once it is there */
	unsigned retries;
	enum mkhct_slot_state state;
};

/* What all files share. */
struct mkhct_compressor {
	struct mkhct_memory memory;
	hct_pool *pool;
	hct_encoder **encoders; /* one for each thread */
	hct_encoder *spare;     /* of the caller's thread */
	unsigned threads;
	struct mkhct_chunk_slot *chunks;
	size_t chunk_slots;
	struct mkhct_plan_slot plans[MKHCT_PLANS];
};

/* The work on one file.  Positions count tensors or slots and only grow, but for tensors that are
 * begun anew. */
struct mkhct_pipeline {
	struct mkhct_compressor *c;
	const struct mkhct_model *model;
	const struct mkhct_task *task;
	hct_appender *appender;
	struct mkhct_hasher *hasher;
	int out;
	const char *out_name;
	struct hct_meter *meter;
	mkhct_tick tick;
	void *tick_arg;

	size_t to_plan;        /* tensors below have been given to the pool for planning */
	size_t to_submit;      /* the tensor whose chunks are being given to the pool */
	uint64_t submit_chunk; /* and the next of them */
	size_t to_append;      /* the tensor whose chunks are being appended */
	uint64_t append_chunk;
	size_t tables; /* bytes of the tables of all tensors up to to_submit */
	int declared;  /* hct_appender_tensor was called for to_append */
	int again;     /* its chunks are being written once more, coded as they were */
	int rewound;   /* a tensor was taken back, and no checkpoint says so yet */
	/* Chunk slots: from checked on they are being checked, from head on being encoded or ready.
	 */
	uint64_t checked, head, tail;
	size_t claimed;       /* bytes of all chunks in flight */
	uint64_t released;    /* bytes of the map that were let go */
	uint64_t flushed;     /* bytes of the output that are on their way to disk */
	int unsynced;         /* a sync has failed: no checkpoint may be saved any more */
	size_t saved_tensors; /* when the checkpoint was saved last, */
	double saved_at;      /* monotonic seconds */

	pthread_mutex_t lock; /* slot states, and all below */
	pthread_cond_t moved;
	const enum mkhct_slot_state *awaited; /* what the caller's thread sleeps on, or NULL */
	hct_error error;                      /* the first of any job, */
	size_t error_tensor;                  /* and where; SIZE_MAX: no tensor's */
	hct_error check_error;                /* the first of a check, of tensor to_append, */
	struct hct_diag check_diag;           /* until that is taken back */
	size_t plan_bytes;                    /* of all plans that are there */
	struct hct_diag diag;
};

/* Runs from where to_append and append_chunk stand to the end of the model.  A tensor in the middle
 * of which it begins has its plan in its slot. */
hct_error mkhct_pipeline_run(struct mkhct_pipeline *p, struct hct_diag *diag);

/* The slot of a tensor. */
static inline struct mkhct_plan_slot *mkhct_pipeline_plan(struct mkhct_pipeline *p, size_t tensor)
{
	return &p->c->plans[tensor % MKHCT_PLANS];
}

/* Frees a plan that is not going to be used, if there is one. */
void mkhct_pipeline_unplan(struct mkhct_pipeline *p, struct mkhct_plan_slot *s);

/* In the words of struct hct_plan_info's why. */
const char *mkhct_failure_text(enum mkhct_failure failure);

/* What tensor i is to be coded with now; NULL: without loss.  From the caller's thread. */
const struct hct_goal *mkhct_pipeline_goal(const struct mkhct_pipeline *p, size_t i);

/* Tells the task's warn. */
void mkhct_pipeline_warn(const struct mkhct_pipeline *p, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Puts what was appended, all of it checked, on the disk and calls the task's save. */
hct_error mkhct_pipeline_save(struct mkhct_pipeline *p, struct hct_diag *diag);

/* Takes the tensor that is being appended out of file and ledger again, and saves that.  When that
 * fails, the checkpoint before it is good as long as nothing is written or cut. */
hct_error mkhct_pipeline_rewind(struct mkhct_pipeline *p, struct hct_diag *diag);

/* After an error of any job, or err of the caller's thread: lets all jobs end.  HCT_OK when the
 * pipeline stands where it can go on, with a tensor that is to be written again or without loss;
 * otherwise the error. */
hct_error mkhct_pipeline_recover(struct mkhct_pipeline *p, hct_error err, struct hct_diag *diag);

/* After an error: takes back the tensor of which a chunk could not be checked, and saves the rest.
 * Best effort: the checkpoint before it stays good. */
void mkhct_pipeline_keep(struct mkhct_pipeline *p);

#endif
