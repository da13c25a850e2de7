#include "pipeline.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "codec/hct.h"
#include "codec/io.h"
#include "writer/interrupt.h"
#include "writer/plan.h"
#include "writer/work.h"

#define AHEAD   (64u << 20) /* bytes planned ahead: a plan looks at pages all over its tensor */
#define BEHIND  (16u << 20) /* map and page cache are let go in steps of this */
#define KEPT    (1u << 20)  /* a slot's buffer, when it is not in use */
#define RETRIES 3           /* of a job that found no memory, or could not read the source */

typedef struct mkhct_pipeline pipeline;
typedef struct mkhct_plan_slot plan_slot;
typedef struct mkhct_chunk_slot chunk_slot;
typedef enum mkhct_slot_state slot_state;

/* Jobs ------------------------------------------------------------------------------ */

static int has_failed(pipeline *p)
{
	int failed;

	pthread_mutex_lock(&p->lock);
	failed = p->error != HCT_OK;
	pthread_mutex_unlock(&p->lock);
	return failed;
}

static void job_done(pipeline *p, slot_state *state, const struct hct_tensor *tensor, hct_error err,
		     const struct hct_diag *diag)
{
	pthread_mutex_lock(&p->lock);
	*state = MKHCT_READY;
	if (err && !p->error) {
		p->error = err;
		p->error_tensor = (size_t)(tensor - p->model->st.tensors);
		p->diag = *diag;
	}
	if (p->awaited && (p->awaited == state || p->error))
		pthread_cond_signal(&p->moved);
	pthread_mutex_unlock(&p->lock);
}

/* A goal for a tensor; NULL: without loss. */
static const struct hct_goal *goal_of(const pipeline *p, const struct hct_tensor *t)
{
	size_t i = (size_t)(t - p->model->st.tensors);

	if (!p->task->goals || (p->task->results && p->task->results[i].failed))
		return NULL;
	return &p->task->goals[i];
}

/* Short of memory, or a disk or network that hiccups: the next attempt may do. */
static int may_pass(hct_error err)
{
	return err == HCT_ERR_NOMEM || err == HCT_ERR_IO;
}

/* A tenth of a second, then four, then more; 0 when a signal came meanwhile. */
static int pause_before(unsigned attempt)
{
	const struct timespec tenth = {.tv_nsec = 100000000};

	for (unsigned i = 0; i < 1u << 2 * attempt; i++) {
		if (mkhct_interrupt_check(NULL))
			return 0;
		nanosleep(&tenth, NULL);
	}
	return 1;
}

/* Runs work(arg), which may read the model, and again when it may pass. */
static hct_error attempt(pipeline *p, hct_error (*work)(void *), void *arg, unsigned *retries,
			 struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	for (unsigned i = 0; !has_failed(p); i++) {
		err = mkhct_model_guard(p->model, work, arg, diag);
		if (!may_pass(err) || i == RETRIES || !pause_before(i))
			break;
		++*retries;
	}
	return err;
}

struct plan_work {
	plan_slot *slot;
	hct_encoder *encoder;
	struct hct_diag *diag;
};

static hct_error make_plan(void *arg)
{
	struct plan_work *w = arg;
	const plan_slot *s = w->slot;
	const struct hct_goal *goal = s->failed ? NULL : goal_of(s->pipeline, s->tensor);

	return mkhct_plan_tensor(s->pipeline->model, s->tensor, w->encoder, goal, &w->slot->plan,
				 w->diag);
}

static void plan_job(void *arg, unsigned worker)
{
	plan_slot *s = arg;
	pipeline *p = s->pipeline;
	struct hct_diag diag = {""};
	struct plan_work work = {s, p->c->encoders[worker], &diag};
	double start = hct_meter_now();
	hct_error err = attempt(p, make_plan, &work, &s->retries, &diag);

	if (err == HCT_ERR_NOMEM && goal_of(p, s->tensor)) {
		s->failed = 1;
		err = attempt(p, make_plan, &work, &s->retries, &diag);
	}
	mkhct_model_let_go(p->model, p->model->st.header_len + s->tensor->begin,
			   p->model->st.header_len + s->tensor->end);
	mkhct_work_planned(p->meter, s->tensor, goal_of(p, s->tensor), hct_meter_now() - start);
	if (!err && s->plan) {
		s->memory = hct_plan_memory(s->plan);
		pthread_mutex_lock(&p->lock);
		p->plan_bytes += s->memory;
		pthread_mutex_unlock(&p->lock);
	}
	job_done(p, &s->state, s->tensor, err, &diag);
}

struct chunk_work {
	chunk_slot *slot;
	hct_encoder *encoder;
	struct hct_diag *diag;
};

/* Copies the payloads, which the encoder's next call would overwrite. */
static hct_error keep_payloads(chunk_slot *s, struct hct_diag *diag)
{
	size_t total = 0, at = 0;

	for (unsigned l = 0; l < s->encoded.layer_count; l++)
		total += s->encoded.layers[l].length;
	if (total + HCT_CHECK_PAD > s->capacity) {
		uint8_t *grown = realloc(s->payload, total + HCT_CHECK_PAD);

		if (!grown)
			return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory",
					s->pipeline->model->entry->path);
		s->payload = grown;
		s->capacity = total + HCT_CHECK_PAD;
	}
	for (unsigned l = 0; l < s->encoded.layer_count; l++) {
		struct hct_encoded_layer *layer = &s->encoded.layers[l];

		memcpy(s->payload + at, layer->payload, layer->length);
		layer->payload = s->payload + at;
		at += layer->length;
	}
	memset(s->payload + total, 0, HCT_CHECK_PAD);
	s->length = total;
	return HCT_OK;
}

static hct_error encode(void *arg)
{
	struct chunk_work *w = arg;
	chunk_slot *s = w->slot;
	const hct_plan *plan = s->planned->plan;
	const uint8_t *data = mkhct_model_data(s->pipeline->model, s->planned->tensor) +
			      s->number * hct_plan_chunk_bytes(plan);
	hct_error err;

	err = hct_encode_chunk(w->encoder, plan, s->number, data, &s->encoded, w->diag);
	if (err)
		return err;
	return keep_payloads(s, w->diag);
}

static void chunk_job(void *arg, unsigned worker)
{
	chunk_slot *s = arg;
	pipeline *p = s->pipeline;
	struct hct_diag diag = {""};
	struct chunk_work work = {s, p->c->encoders[worker], &diag};
	const struct hct_tensor *tensor = s->planned->tensor;
	double start = hct_meter_now();
	hct_error err = attempt(p, encode, &work, &s->retries, &diag);

	if (!err && s->planned->plan)
		mkhct_work_coded(p->meter, tensor, goal_of(p, tensor),
				 hct_plan_chunk_length(s->planned->plan, s->number),
				 hct_meter_now() - start);
	job_done(p, &s->state, s->planned->tensor, err, &diag);
}

/* Reads a chunk back from the file and decodes it. */
static void check_job(void *arg, unsigned worker)
{
	chunk_slot *s = arg;
	pipeline *p = s->pipeline;
	const struct hct_tensor *tensor = s->planned->tensor;
	double start = hct_meter_now();
	struct hct_diag diag = {""};
	hct_error err = HCT_OK;

	if (!has_failed(p)) {
		err = hct_read_at(p->out, p->out_name, s->payload, s->length, s->offset, &diag);
		if (!err)
			err = hct_check_chunk(p->c->encoders[worker], s->planned->plan, s->number,
					      &s->encoded, &diag);
	}
	mkhct_work_checked(p->meter, tensor, goal_of(p, tensor), hct_meter_now() - start);
	job_done(p, &s->state, s->planned->tensor, err, &diag);
}

/* The caller's thread ---------------------------------------------------------------- */

static plan_slot *plan_of(pipeline *p, size_t tensor)
{
	return &p->c->plans[tensor % MKHCT_PLANS];
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

/* A plan that is not going to be used. */
static void unplan(pipeline *p, plan_slot *s)
{
	p->tables -= s->tables;
	free_plan(p, s);
}

static void submit_plans(pipeline *p)
{
	const struct hct_tensor *tensors = p->model->st.tensors;

	while (p->to_plan < p->model->st.count && p->to_plan - p->to_append < MKHCT_PLANS) {
		plan_slot *s = plan_of(p, p->to_plan);

		if (p->to_plan > p->to_submit &&
		    (tensors[p->to_plan].begin - tensors[p->to_submit].begin > AHEAD ||
		     plan_bytes(p) > p->c->memory.plan_bytes))
			return;
		*s = (plan_slot){
			.pipeline = p, .tensor = &tensors[p->to_plan], .state = MKHCT_AT_WORK};
		hct_pool_submit(p->c->pool, plan_job, s);
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
		plan_slot *planned = plan_of(p, p->to_submit);
		chunk_slot *s;
		size_t claim;
		hct_error err;

		if (state_of(p, &planned->state) != MKHCT_READY || has_failed(p))
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
		hct_pool_submit(p->c->pool, chunk_job, s);
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
	hct_error err = HCT_OK;

	if (!task->ledger)
		return HCT_OK;
	/* What a sync could not write is lost, even when the next one succeeds. */
	if (p->unsynced)
		return hct_fail(diag, HCT_ERR_IO, "%s: cannot be written to disk", p->out_name);
	p->unsynced = 1;
	if (fsync(p->out) != 0)
		return hct_fail_errno(diag, errno, "%s: cannot be written to disk", p->out_name);
	err = mkhct_ledger_save(task->ledger, p->appender, task->results, diag);
	if (!err)
		err = mkhct_ledger_sync(task->ledger, diag);
	p->unsynced = err != HCT_OK;
	standing.ledger_bytes = mkhct_ledger_bytes(task->ledger);
	if (!err)
		err = task->save(task->arg, &standing, diag);
	p->saved_tensors = p->to_append;
	p->saved_at = hct_meter_now();
	return err;
}

static int save_is_due(const pipeline *p)
{
	const struct mkhct_task *task = p->task;

	if (!task->ledger)
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
		hct_pool_submit(p->c->pool, check_job, s);
	}
	hct_meter_add(p->meter, length);
	if (p->tick)
		p->tick(p->tick_arg, tensor->name);
	let_go(p, p->model->st.header_len + tensor->begin +
			  s->number * hct_plan_chunk_bytes(s->planned->plan) + length);
	return save_is_due(p) ? mkhct_pipeline_save(p, diag) : HCT_OK;
}

/* Frees the slots of chunks that are done with. */
static void pass_checked(pipeline *p)
{
	while (p->checked < p->head && state_of(p, &chunk_at(p, p->checked)->state) == MKHCT_READY)
		p->checked++;
}

static hct_error declare(pipeline *p, const plan_slot *planned, struct hct_diag *diag)
{
	struct mkhct_result *r = p->task->results ? &p->task->results[p->to_append] : NULL;
	hct_error err = hct_appender_tensor(p->appender, p->to_append, planned->plan, diag);

	if (err)
		return err;
	p->declared = 1;
	if (r) {
		hct_plan_describe(planned->plan, &r->plan);
		r->retries += planned->retries;
		r->failed |= planned->failed;
	}
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
	p->declared = 0;
}

/* Appends everything whose turn it is and that is ready. */
static hct_error append_ready(pipeline *p, struct hct_diag *diag)
{
	hct_error err;

	while (p->to_append < p->to_plan) {
		plan_slot *planned = plan_of(p, p->to_append);

		pass_checked(p);
		/* Before any slot: after an error, READY does not mean that a plan or a
		 * payload is there. */
		if (state_of(p, &planned->state) != MKHCT_READY || has_failed(p))
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
		if (has_failed(p))
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
	const slot_state *awaited;
	hct_error err;

	pass_checked(p);
	if (p->checked < p->tail)
		awaited = &chunk_at(p, p->checked)->state;
	else if (p->to_submit < p->to_plan)
		awaited = &plan_of(p, p->to_submit)->state;
	else
		awaited = NULL;
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

/* Lets all jobs end; those that have not begun do nothing. */
static void drain(pipeline *p, hct_error err)
{
	pthread_mutex_lock(&p->lock);
	if (!p->error) {
		p->error = err;
		p->error_tensor = SIZE_MAX;
	}
	pthread_mutex_unlock(&p->lock);
	hct_pool_wait(p->c->pool);
}

hct_error mkhct_pipeline_rewind(pipeline *p, struct hct_diag *diag)
{
	struct mkhct_result *r = &p->task->results[p->to_append];
	uint64_t bytes;
	hct_error err = hct_appender_rewind(p->appender, diag);

	if (err)
		return err;
	*r = (struct mkhct_result){.retries = r->retries, .failed = r->failed};
	p->declared = 0;
	p->append_chunk = 0;
	bytes = hct_appender_bytes(p->appender);
	p->flushed = p->flushed < bytes ? p->flushed : bytes;
	if (lseek(p->out, (off_t)bytes, SEEK_SET) < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be cut", p->out_name);
	/* Saved before anything that an older checkpoint speaks of is written over. */
	if (p->task->ledger)
		err = mkhct_ledger_drop(p->task->ledger, p->to_append, diag);
	return err ? err : mkhct_pipeline_save(p, diag);
}

/* After all jobs have ended because of a tensor that cannot be coded as it was to be: begins
 * anew behind what is appended, with that tensor lossless. */
static hct_error give_in(pipeline *p, struct hct_diag *diag)
{
	size_t tensor = p->error_tensor;
	hct_error err = HCT_OK;

	p->task->results[tensor].failed = 1;
	for (size_t i = p->to_append + 1; i < p->to_plan; i++)
		unplan(p, plan_of(p, i));
	p->to_submit = p->to_append;
	p->submit_chunk = p->append_chunk;
	p->to_plan = p->to_append + 1;
	if (tensor == p->to_append || !plan_of(p, p->to_append)->plan) {
		const hct_plan *plan = plan_of(p, p->to_append)->plan;
		uint64_t done = plan ? p->append_chunk * hct_plan_chunk_bytes(plan) : 0;
		uint64_t all = hct_tensor_bytes(&p->model->st.tensors[p->to_append]);

		hct_meter_add(p->meter, -(done < all ? done : all));
		if (p->declared)
			err = mkhct_pipeline_rewind(p, diag);
		unplan(p, plan_of(p, p->to_append));
		p->to_plan = p->to_append;
		p->submit_chunk = 0;
	}
	p->checked = p->head = p->tail;
	p->claimed = 0;
	p->error = HCT_OK;
	return err;
}

/* 1 when a tensor that was to be lossy is at fault. */
static int is_of_tensor(const pipeline *p, hct_error err)
{
	return (err == HCT_ERR_NOMEM || err == HCT_ERR_DIGEST || err == HCT_ERR_CORRUPT) &&
	       p->error == err && p->error_tensor != SIZE_MAX && p->task->results &&
	       p->task->goals && !p->task->results[p->error_tensor].failed &&
	       p->task->goals[p->error_tensor].relative_squared_error > 0;
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
		if (err) {
			drain(p, err);
			if (is_of_tensor(p, err))
				err = give_in(p, diag);
		}
	}
	/* Jobs that are still queued use the slots and the map: let them end. */
	if (err)
		drain(p, err);
	hct_pool_wait(p->c->pool);
	for (unsigned i = 0; i < MKHCT_PLANS; i++) {
		hct_plan_free(p->c->plans[i].plan);
		p->c->plans[i] = (plan_slot){.state = MKHCT_IDLE};
	}
	return err;
}
