#include "pipeline.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "codec/hct.h"
#include "codec/io.h"
#include "writer/interrupt.h"
#include "writer/jobs.h"

#define AHEAD  (64u << 20) /* bytes planned ahead: a plan looks at pages all over its tensor */
#define BEHIND (16u << 20) /* map and page cache are let go in steps of this */

typedef struct mkhct_pipeline pipeline;
typedef struct mkhct_plan_slot plan_slot;
typedef struct mkhct_chunk_slot chunk_slot;
typedef enum mkhct_slot_state slot_state;

const struct hct_goal *mkhct_pipeline_goal(const pipeline *p, size_t i)
{
	const struct mkhct_task *task = p->task;

	return task->goals && !(task->results && task->results[i].failed) ? &task->goals[i] : NULL;
}

void mkhct_pipeline_warn(const pipeline *p, const char *format, ...)
{
	va_list args;
	char *line;
	int n;

	if (!p->task->warn)
		return;
	va_start(args, format);
	n = vasprintf(&line, format, args);
	va_end(args);
	if (n < 0)
		return;
	p->task->warn(p->task->arg, line);
	free(line);
}

static chunk_slot *chunk_at(pipeline *p, uint64_t position)
{
	return &p->c->chunks[position % p->c->chunk_slots];
}

static slot_state state_of(pipeline *p, const slot_state *state)
{
	slot_state s;

	pthread_mutex_lock(&p->lock);
	s = *state;
	pthread_mutex_unlock(&p->lock);
	return s;
}

static size_t plan_bytes(pipeline *p)
{
	size_t bytes;

	pthread_mutex_lock(&p->lock);
	bytes = p->plan_bytes;
	pthread_mutex_unlock(&p->lock);
	return bytes;
}

static void free_plan(pipeline *p, plan_slot *s)
{
	pthread_mutex_lock(&p->lock);
	p->plan_bytes -= s->memory;
	pthread_mutex_unlock(&p->lock);
	hct_plan_free(s->plan);
	*s = (plan_slot){.state = MKHCT_IDLE};
}

void mkhct_pipeline_unplan(pipeline *p, plan_slot *s)
{
	p->tables -= s->tables;
	free_plan(p, s);
}

static void submit_plans(pipeline *p)
{
	const struct hct_tensor *tensors = p->model->st.tensors;

	while (p->to_plan < p->model->st.count && p->to_plan - p->to_append < MKHCT_PLANS) {
		plan_slot *s = mkhct_pipeline_plan(p, p->to_plan);

		if (p->to_plan > p->to_submit &&
		    (tensors[p->to_plan].begin - tensors[p->to_submit].begin > AHEAD ||
		     plan_bytes(p) > p->c->memory.plan_bytes))
			return;
		*s = (plan_slot){.pipeline = p,
				 .tensor = &tensors[p->to_plan],
				 .goal = mkhct_pipeline_goal(p, p->to_plan),
				 .state = MKHCT_AT_WORK};
		hct_pool_submit(p->c->pool, mkhct_jobs_plan, s);
		p->to_plan++;
	}
}

struct drop_work {
	hct_encoder *encoder;
	plan_slot *slot;
};

static hct_error drop_tables(void *arg)
{
	struct drop_work *w = arg;

	hct_plan_drop_tables(w->encoder, w->slot->plan,
			     mkhct_model_data(w->slot->pipeline->model, w->slot->tensor));
	return HCT_OK;
}

/* Before the first chunk of a tensor: where the tables of those before it have left no room, it has
 * none.  Depends on the order of tensors alone. */
static hct_error claim_tables(pipeline *p, plan_slot *s, struct hct_diag *diag)
{
	size_t bytes = hct_plan_table_bytes(s->plan);
	struct drop_work work = {p->c->spare, s};
	hct_error err;

	if (p->submit_chunk || s->tables || !bytes)
		return HCT_OK;
	if (bytes <= HCT_TABLES_MAX - p->tables) {
		p->tables += s->tables = bytes;
		return HCT_OK;
	}
	err = mkhct_model_guard(p->model, drop_tables, &work, diag);
	pthread_mutex_lock(&p->lock);
	p->plan_bytes -= s->memory;
	p->plan_bytes += s->memory = hct_plan_memory(s->plan);
	pthread_mutex_unlock(&p->lock);
	return err;
}

/* Gives chunks to the pool while there are free slots and tensors with a plan. */
static hct_error submit_chunks(pipeline *p, struct hct_diag *diag)
{
	while (p->to_submit < p->to_plan && p->tail - p->checked < p->c->chunk_slots) {
		plan_slot *planned = mkhct_pipeline_plan(p, p->to_submit);
		chunk_slot *s;
		size_t claim;
		hct_error err;

		if (state_of(p, &planned->state) != MKHCT_READY || mkhct_jobs_failed(p))
			return HCT_OK;
		err = claim_tables(p, planned, diag);
		if (err)
			return err;
		if (p->submit_chunk == hct_plan_chunk_count(planned->plan)) {
			p->to_submit++;
			p->submit_chunk = 0;
			continue;
		}
		claim = 2 * (size_t)hct_plan_chunk_length(planned->plan, p->submit_chunk);
		if (p->tail > p->checked && p->claimed + claim > p->c->memory.chunk_bytes)
			return HCT_OK;
		s = chunk_at(p, p->tail++);
		p->claimed += s->claimed = claim;
		s->pipeline = p;
		s->planned = planned;
		s->number = p->submit_chunk++;
		s->retries = 0;
		s->state = MKHCT_AT_WORK;
		hct_pool_submit(p->c->pool, mkhct_jobs_chunk, s);
	}
	return HCT_OK;
}

/* The encoder is done with the bytes below offset: their pages leave this process, and
 * what was written starts on its way to disk, so that the fsync at the end is short. */
static void let_go(pipeline *p, uint64_t offset)
{
	off_t written;

	mkhct_hasher_advance(p->hasher, offset);
	if (offset - p->released < BEHIND)
		return;
	mkhct_model_let_go(p->model, p->released > BEHIND ? p->released - BEHIND : 0, offset);
	p->released = offset;
	written = lseek(p->out, 0, SEEK_CUR);
	if (written > 0 && (uint64_t)written > p->flushed) {
		sync_file_range(p->out, (off_t)p->flushed, written - (off_t)p->flushed,
				SYNC_FILE_RANGE_WRITE);
		p->flushed = (uint64_t)written;
	}
}

hct_error mkhct_pipeline_save(pipeline *p, struct hct_diag *diag)
{
	const struct mkhct_task *task = p->task;
	struct mkhct_standing standing = {.tensors = p->to_append,
					  .chunks = p->append_chunk,
					  .bytes = hct_appender_bytes(p->appender)};
	hct_error err;

	if (!task->ledger)
		return HCT_OK;
	/* What a sync could not write is lost, even when the next one succeeds. */
	if (p->unsynced)
		return hct_fail(diag, HCT_ERR_IO, "%s: cannot be written to disk", p->out_name);
	p->unsynced = 1;
	err = hct_sync_out(p->out, p->out_name, diag);
	if (err)
		return err;
	err = mkhct_ledger_save(task->ledger, p->appender, task->results, diag);
	if (!err)
		err = mkhct_ledger_sync(task->ledger, diag);
	p->unsynced = err != HCT_OK;
	standing.ledger_bytes = mkhct_ledger_bytes(task->ledger);
	if (!err)
		err = task->save(task->arg, &standing, diag);
	if (!err)
		p->rewound = 0;
	p->saved_tensors = p->to_append;
	p->saved_at = hct_meter_now();
	return err;
}

static int save_is_due(const pipeline *p)
{
	const struct mkhct_task *task = p->task;

	if (!task->ledger || (task->not_before && hct_meter_now() < *task->not_before))
		return 0;
	return task->every_tensors ? p->to_append - p->saved_tensors >= task->every_tensors
				   : hct_meter_now() - p->saved_at >= task->every_seconds;
}

static void add_result(pipeline *p, const chunk_slot *s)
{
	struct mkhct_result *r = p->task->results ? &p->task->results[p->to_append] : NULL;

	if (!r)
		return;
	r->energy += s->encoded.energy;
	r->decoded_energy += s->encoded.decoded_energy;
	r->error += s->encoded.error;
	r->retries += s->retries;
}

/* Frees the slots of chunks that are done with. */
static void pass_checked(pipeline *p)
{
	while (p->checked < p->head && state_of(p, &chunk_at(p, p->checked)->state) == MKHCT_READY)
		p->checked++;
}

/* Sleeps until the state is READY, or a job has failed, of which it returns the error; NULL: only
 * that. */
static hct_error wait_for(pipeline *p, const slot_state *awaited, struct hct_diag *diag)
{
	hct_error err;

	pthread_mutex_lock(&p->lock);
	p->awaited = awaited;
	while (!p->error && awaited && *awaited != MKHCT_READY)
		pthread_cond_wait(&p->moved, &p->lock);
	p->awaited = NULL;
	err = p->error;
	if (err && diag)
		*diag = p->diag;
	pthread_mutex_unlock(&p->lock);
	return err;
}

/* Until everything that was appended is checked.  The error of any job. */
static hct_error wait_for_checks(pipeline *p, struct hct_diag *diag)
{
	hct_error err;
	int waiting;

	do {
		pass_checked(p);
		waiting = p->checked < p->head;
		err = wait_for(p, waiting ? &chunk_at(p, p->checked)->state : NULL, diag);
	} while (!err && waiting);
	return err;
}

static hct_error append_chunk(pipeline *p, const struct hct_tensor *tensor, struct hct_diag *diag)
{
	chunk_slot *s = chunk_at(p, p->head);
	uint32_t length = hct_plan_chunk_length(s->planned->plan, s->number);
	hct_error err;

	s->offset = hct_appender_bytes(p->appender);
	err = hct_appender_chunk(p->appender, &s->encoded, diag);
	if (err)
		return err;
	add_result(p, s);
	p->head++;
	p->append_chunk++;
	if (p->task->verify) {
		s->state = MKHCT_AT_WORK;
		hct_pool_submit(p->c->pool, mkhct_jobs_check, s);
	}
	hct_meter_add(p->meter, length);
	if (p->tick)
		p->tick(p->tick_arg, tensor->name);
	let_go(p, p->model->st.header_len + tensor->begin +
			  s->number * hct_plan_chunk_bytes(s->planned->plan) + length);
	if (!save_is_due(p))
		return HCT_OK;
	err = wait_for_checks(p, diag);
	return err ? err : mkhct_pipeline_save(p, diag);
}

static hct_error declare(pipeline *p, plan_slot *planned, struct hct_diag *diag)
{
	struct mkhct_result *r = p->task->results ? &p->task->results[p->to_append] : NULL;
	hct_error err = hct_appender_tensor(p->appender, p->to_append, planned->plan, diag);

	if (err)
		return err;
	p->declared = 1;
	if (r) {
		hct_plan_describe(planned->plan, &r->plan);
		r->retries += planned->retries;
		if (planned->failed)
			r->failed = planned->failed;
		if (r->failed)
			r->plan.why = mkhct_failure_text(r->failed);
	}
	if (planned->failed)
		mkhct_pipeline_warn(p, "%s: %s: out of memory; it is coded without loss",
				    p->out_name, planned->tensor->name);
	planned->retries = 0; /* should it be declared once more */
	planned->failed = MKHCT_NOT_FAILED;
	return HCT_OK;
}

/* All chunks of the tensor are appended, and checked. */
static void finish_tensor(pipeline *p, plan_slot *planned)
{
	struct hct_appended t;
	uint64_t bytes = 0;

	if (p->task->tensor_done) {
		hct_appender_describe(p->appender, p->to_append, &t);
		bytes = hct_appended_bytes(&t);
		p->task->tensor_done(p->task->arg, p->to_append, bytes);
	}
	free_plan(p, planned);
	p->to_append++;
	p->append_chunk = 0;
	p->declared = p->again = 0;
}

/* Appends everything whose turn it is and that is ready. */
static hct_error append_ready(pipeline *p, struct hct_diag *diag)
{
	hct_error err;

	while (p->to_append < p->to_plan) {
		plan_slot *planned = mkhct_pipeline_plan(p, p->to_append);

		pass_checked(p);
		/* Before any slot: after an error, READY does not mean that a plan or a
		 * payload is there. */
		if (state_of(p, &planned->state) != MKHCT_READY || mkhct_jobs_failed(p))
			return HCT_OK;
		if (!p->declared) {
			err = declare(p, planned, diag);
			if (err)
				return err;
		}
		if (p->append_chunk == hct_plan_chunk_count(planned->plan)) {
			/* submit_chunks has yet to pass it, or checks are under way */
			if (p->to_submit == p->to_append || p->checked < p->head)
				return HCT_OK;
			finish_tensor(p, planned);
			continue;
		}
		if (p->head == p->tail || state_of(p, &chunk_at(p, p->head)->state) != MKHCT_READY)
			return HCT_OK;
		if (mkhct_jobs_failed(p))
			return HCT_OK;
		err = append_chunk(p, planned->tensor, diag);
		if (!err)
			err = mkhct_interrupt_check(diag);
		if (err)
			return err;
	}
	return HCT_OK;
}

/* Waits for the job without which nothing moves: the oldest chunk, or a plan when no
 * chunk is in flight.  Returns the error of any job. */
static hct_error wait_for_jobs(pipeline *p, struct hct_diag *diag)
{
	pass_checked(p);
	if (p->checked < p->tail)
		return wait_for(p, &chunk_at(p, p->checked)->state, diag);
	return wait_for(
		p, p->to_submit < p->to_plan ? &mkhct_pipeline_plan(p, p->to_submit)->state : NULL,
		diag);
}

hct_error mkhct_pipeline_run(pipeline *p, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	p->saved_at = hct_meter_now();
	p->saved_tensors = p->to_append;
	while (!err && p->to_append < p->model->st.count) {
		submit_plans(p);
		err = submit_chunks(p, diag);
		if (!err)
			err = append_ready(p, diag);
		if (!err && p->to_append < p->model->st.count) {
			submit_plans(p);
			err = submit_chunks(p, diag);
			if (!err)
				err = wait_for_jobs(p, diag);
		}
		if (err)
			err = mkhct_pipeline_recover(p, err, diag);
	}
	hct_pool_wait(p->c->pool);
	for (unsigned i = 0; i < MKHCT_PLANS; i++) {
		hct_plan_free(p->c->plans[i].plan);
		p->c->plans[i] = (plan_slot){.state = MKHCT_IDLE};
	}
	return err;
}
