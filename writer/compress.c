#include "compress.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/hctenc.h"
#include "codec/pool.h"
#include "writer/hasher.h"
#include "writer/interrupt.h"
#include "writer/names.h"
#include "writer/plan.h"

#define PLANS  256u        /* tensors planned ahead of the one being appended, */
#define AHEAD  (64u << 20) /* and bytes: a plan looks at pages all over its tensor */
#define BEHIND (16u << 20) /* map and page cache are let go in steps of this */

enum state { IDLE, AT_WORK, READY };

struct pipeline;

/* One tensor whose plan is being made or in use; tensor i uses plans[i % PLANS]. */
struct plan_slot {
	struct pipeline *pipeline;
	const struct hct_tensor *tensor;
	hct_plan *plan;
	enum state state;
};

/* One chunk that is being encoded or waits for its turn; a ring. */
struct chunk_slot {
	struct pipeline *pipeline;
	const struct plan_slot *planned;
	uint64_t number; /* within its tensor */
	struct hct_encoded encoded;
	uint8_t *payload; /* the slot's own copy */
	size_t capacity;
	enum state state;
};

struct mkhct_compressor {
	hct_pool *pool;
	hct_encoder **encoders; /* one for each thread */
	unsigned threads;
	struct chunk_slot *chunks;
	size_t chunk_slots;
	struct plan_slot plans[PLANS];
};

/* The work on one file.  Positions count tensors or slots and only grow. */
struct pipeline {
	struct mkhct_compressor *c;
	const struct mkhct_model *model;
	const struct hct_goal *goals;
	struct mkhct_result *results;
	const char *options; /* JSON */
	hct_appender *appender;
	struct mkhct_hasher *hasher;
	int out;
	struct hct_meter *meter;
	mkhct_tick tick;
	void *tick_arg;

	size_t to_plan;        /* tensors below have been given to the pool for planning */
	size_t to_submit;      /* the tensor whose chunks are being given to the pool */
	uint64_t submit_chunk; /* and the next of them */
	size_t to_append;      /* the tensor whose chunks are being appended */
	uint64_t append_chunk;
	int declared;        /* hct_appender_tensor was called for to_append */
	uint64_t head, tail; /* chunk slots in flight: head is the oldest */
	uint64_t released;   /* bytes of the map that were let go */
	uint64_t flushed;    /* bytes of the output that are on their way to disk */

	pthread_mutex_t lock; /* slot states, and all below */
	pthread_cond_t moved;
	const enum state *awaited; /* what the caller's thread sleeps on, or NULL */
	hct_error error;           /* the first of any job */
	struct hct_diag diag;
};

double mkhct_result_error(const struct mkhct_result *r)
{
	return r->energy > 0 ? r->error / r->energy : 0;
}

/* The sum of products from that of (a - b)^2. */
double mkhct_result_cosine(const struct mkhct_result *r)
{
	double product = (r->energy + r->decoded_energy - r->error) / 2;

	if (r->error == 0)
		return 1;
	if (!(r->energy > 0) || !(r->decoded_energy > 0))
		return 0;
	return fmin(fmax(product / (sqrt(r->energy) * sqrt(r->decoded_energy)), -1), 1);
}

/* Jobs ------------------------------------------------------------------------------ */

static int has_failed(struct pipeline *p)
{
	int failed;

	pthread_mutex_lock(&p->lock);
	failed = p->error != HCT_OK;
	pthread_mutex_unlock(&p->lock);
	return failed;
}

static void job_done(struct pipeline *p, enum state *state, hct_error err,
		     const struct hct_diag *diag)
{
	pthread_mutex_lock(&p->lock);
	*state = READY;
	if (err && !p->error) {
		p->error = err;
		p->diag = *diag;
	}
	if (p->awaited && (p->awaited == state || p->error))
		pthread_cond_signal(&p->moved);
	pthread_mutex_unlock(&p->lock);
}

static const struct hct_goal *goal_of(const struct pipeline *p, const struct hct_tensor *t)
{
	return p->goals ? &p->goals[t - p->model->st.tensors] : NULL;
}

struct plan_work {
	struct plan_slot *slot;
	hct_encoder *encoder;
	struct hct_diag *diag;
};

static hct_error make_plan(void *arg)
{
	struct plan_work *w = arg;
	const struct plan_slot *s = w->slot;

	return mkhct_plan_tensor(s->pipeline->model, s->tensor, w->encoder,
				 goal_of(s->pipeline, s->tensor), &w->slot->plan, w->diag);
}

static void plan_job(void *arg, unsigned worker)
{
	struct plan_slot *s = arg;
	struct pipeline *p = s->pipeline;
	struct hct_diag diag = {""};
	struct plan_work work = {s, p->c->encoders[worker], &diag};
	hct_error err = HCT_OK;

	if (!has_failed(p))
		err = mkhct_model_guard(p->model, make_plan, &work, &diag);
	mkhct_model_let_go(p->model, p->model->st.header_len + s->tensor->begin,
			   p->model->st.header_len + s->tensor->end);
	job_done(p, &s->state, err, &diag);
}

struct chunk_work {
	struct chunk_slot *slot;
	hct_encoder *encoder;
	struct hct_diag *diag;
};

/* Copies the payloads, which the encoder's next call would overwrite. */
static hct_error keep_payloads(struct chunk_slot *s, struct hct_diag *diag)
{
	size_t total = 0, at = 0;

	for (unsigned l = 0; l < s->encoded.layer_count; l++)
		total += s->encoded.layers[l].length;
	if (total > s->capacity) {
		uint8_t *grown = realloc(s->payload, total);

		if (!grown)
			return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory",
					s->pipeline->model->entry->path);
		s->payload = grown;
		s->capacity = total;
	}
	for (unsigned l = 0; l < s->encoded.layer_count; l++) {
		struct hct_encoded_layer *layer = &s->encoded.layers[l];

		memcpy(s->payload + at, layer->payload, layer->length);
		layer->payload = s->payload + at;
		at += layer->length;
	}
	return HCT_OK;
}

static hct_error encode(void *arg)
{
	struct chunk_work *w = arg;
	struct chunk_slot *s = w->slot;
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
	struct chunk_slot *s = arg;
	struct pipeline *p = s->pipeline;
	struct hct_diag diag = {""};
	struct chunk_work work = {s, p->c->encoders[worker], &diag};
	hct_error err = HCT_OK;

	if (!has_failed(p))
		err = mkhct_model_guard(p->model, encode, &work, &diag);
	job_done(p, &s->state, err, &diag);
}

/* The caller's thread ---------------------------------------------------------------- */

static struct plan_slot *plan_of(struct pipeline *p, size_t tensor)
{
	return &p->c->plans[tensor % PLANS];
}

static struct chunk_slot *chunk_at(struct pipeline *p, uint64_t position)
{
	return &p->c->chunks[position % p->c->chunk_slots];
}

static enum state state_of(struct pipeline *p, const enum state *state)
{
	enum state s;

	pthread_mutex_lock(&p->lock);
	s = *state;
	pthread_mutex_unlock(&p->lock);
	return s;
}

static void submit_plans(struct pipeline *p)
{
	const struct hct_tensor *tensors = p->model->st.tensors;

	while (p->to_plan < p->model->st.count && p->to_plan - p->to_append < PLANS) {
		struct plan_slot *s = plan_of(p, p->to_plan);

		if (p->to_plan > p->to_submit &&
		    tensors[p->to_plan].begin - tensors[p->to_submit].begin > AHEAD)
			return;
		*s = (struct plan_slot){
			.pipeline = p, .tensor = &tensors[p->to_plan], .state = AT_WORK};
		hct_pool_submit(p->c->pool, plan_job, s);
		p->to_plan++;
	}
}

/* Gives chunks to the pool while there are free slots and tensors with a plan. */
static void submit_chunks(struct pipeline *p)
{
	while (p->to_submit < p->to_plan && p->tail - p->head < p->c->chunk_slots) {
		struct plan_slot *planned = plan_of(p, p->to_submit);
		struct chunk_slot *s;

		if (state_of(p, &planned->state) != READY || has_failed(p))
			return;
		if (p->submit_chunk == hct_plan_chunk_count(planned->plan)) {
			p->to_submit++;
			p->submit_chunk = 0;
			continue;
		}
		s = chunk_at(p, p->tail++);
		s->pipeline = p;
		s->planned = planned;
		s->number = p->submit_chunk++;
		s->state = AT_WORK;
		hct_pool_submit(p->c->pool, chunk_job, s);
	}
}

/* The encoder is done with the bytes below offset: their pages leave this process, and
 * what was written starts on its way to disk, so that the fsync at the end is short. */
static void let_go(struct pipeline *p, uint64_t offset)
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

static hct_error append_chunk(struct pipeline *p, const struct hct_tensor *tensor,
			      struct hct_diag *diag)
{
	struct chunk_slot *s = chunk_at(p, p->head);
	uint32_t length = hct_plan_chunk_length(s->planned->plan, s->number);
	hct_error err = hct_appender_chunk(p->appender, &s->encoded, diag);

	if (err)
		return err;
	if (p->results) {
		struct mkhct_result *r = &p->results[p->to_append];

		r->energy += s->encoded.energy;
		r->decoded_energy += s->encoded.decoded_energy;
		r->error += s->encoded.error;
	}
	p->head++;
	p->append_chunk++;
	hct_meter_add(p->meter, length);
	if (p->tick)
		p->tick(p->tick_arg, tensor->name);
	let_go(p, p->model->st.header_len + tensor->begin +
			  s->number * hct_plan_chunk_bytes(s->planned->plan) + length);
	return HCT_OK;
}

/* Appends everything whose turn it is and that is ready. */
static hct_error append_ready(struct pipeline *p, struct hct_diag *diag)
{
	hct_error err;

	while (p->to_append < p->to_plan) {
		struct plan_slot *planned = plan_of(p, p->to_append);

		/* Before any slot: after an error, READY does not mean that a plan or a
		 * payload is there. */
		if (state_of(p, &planned->state) != READY || has_failed(p))
			return HCT_OK;
		if (!p->declared) {
			err = hct_appender_tensor(p->appender, p->to_append, planned->plan, diag);
			if (err)
				return err;
			p->declared = 1;
			if (p->results)
				hct_plan_describe(planned->plan, &p->results[p->to_append].plan);
		}
		if (p->append_chunk == hct_plan_chunk_count(planned->plan)) {
			if (p->to_submit == p->to_append) /* submit_chunks has yet to pass it */
				return HCT_OK;
			hct_plan_free(planned->plan);
			*planned = (struct plan_slot){.state = IDLE};
			p->to_append++;
			p->append_chunk = 0;
			p->declared = 0;
			continue;
		}
		if (p->head == p->tail || state_of(p, &chunk_at(p, p->head)->state) != READY)
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
static hct_error wait_for_jobs(struct pipeline *p, struct hct_diag *diag)
{
	const enum state *awaited;
	hct_error err;

	if (p->head < p->tail)
		awaited = &chunk_at(p, p->head)->state;
	else if (p->to_submit < p->to_plan)
		awaited = &plan_of(p, p->to_submit)->state;
	else
		awaited = NULL;
	pthread_mutex_lock(&p->lock);
	p->awaited = awaited;
	while (!p->error && awaited && *awaited != READY)
		pthread_cond_wait(&p->moved, &p->lock);
	p->awaited = NULL;
	err = p->error;
	if (err && diag)
		*diag = p->diag;
	pthread_mutex_unlock(&p->lock);
	return err;
}

static hct_error run_pipeline(struct pipeline *p, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	while (!err && p->to_append < p->model->st.count) {
		submit_plans(p);
		submit_chunks(p);
		err = append_ready(p, diag);
		if (!err && p->to_append < p->model->st.count) {
			submit_plans(p);
			submit_chunks(p);
			err = wait_for_jobs(p, diag);
		}
	}
	/* Jobs that are still queued use the slots and the map: let them end. */
	if (err) {
		pthread_mutex_lock(&p->lock);
		if (!p->error)
			p->error = err;
		pthread_mutex_unlock(&p->lock);
	}
	hct_pool_wait(p->c->pool);
	for (unsigned i = 0; i < PLANS; i++) {
		hct_plan_free(p->c->plans[i].plan);
		p->c->plans[i] = (struct plan_slot){.state = IDLE};
	}
	return err;
}

/* What made the file and from what: the same for the same source, whenever and wherever
 * it is compressed. */
static char *provenance(const struct pipeline *p)
{
	char name[1024];
	cJSON *root = cJSON_CreateObject();
	char *text = NULL;

	mkhct_name_printable(mkhct_name_base(p->model->entry->name), name, sizeof(name));
	if (root && cJSON_AddStringToObject(root, "tool", "mkhct") &&
	    cJSON_AddStringToObject(root, "version", HCT_VERSION) &&
	    cJSON_AddRawToObject(root, "options", p->options) &&
	    cJSON_AddStringToObject(root, "source_name", name))
		text = cJSON_PrintUnformatted(root);
	cJSON_Delete(root);
	return text;
}

static hct_error finish(struct pipeline *p, struct hct_diag *diag)
{
	const struct mkhct_entry *entry = p->model->entry;
	struct hct_source source = {.size = entry->size,
				    .mtime_sec = entry->mtime.tv_sec,
				    .mtime_nsec = (uint32_t)entry->mtime.tv_nsec};
	char *text;
	hct_error err;

	err = mkhct_hasher_finish(p->hasher, source.sha256, diag);
	p->hasher = NULL;
	if (!err)
		err = mkhct_model_unchanged(p->model, diag);
	if (err)
		return err;
	hct_meter_add(p->meter, p->model->st.header_len);
	text = provenance(p);
	if (!text)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", entry->path);
	err = hct_appender_finish(p->appender, &source, text, NULL, diag);
	cJSON_free(text);
	return err;
}

hct_error mkhct_compress(struct mkhct_compressor *c, const struct mkhct_model *model,
			 const struct mkhct_task *task, int out, const char *out_name,
			 struct hct_meter *meter, mkhct_tick tick, void *tick_arg,
			 struct hct_diag *diag)
{
	struct pipeline p = {.c = c,
			     .model = model,
			     .goals = task->goals,
			     .results = task->results,
			     .options = task->options,
			     .out = out,
			     .meter = meter,
			     .tick = tick,
			     .tick_arg = tick_arg};
	hct_error err;

	pthread_mutex_init(&p.lock, NULL);
	pthread_cond_init(&p.moved, NULL);
	err = hct_appender_create(out, out_name, &model->st, &p.appender, diag);
	if (!err)
		err = mkhct_hasher_start(model->fd, model->entry->path, model->entry->size,
					 &p.hasher, diag);
	if (!err)
		err = run_pipeline(&p, diag);
	if (!err)
		err = finish(&p, diag);
	mkhct_hasher_cancel(p.hasher);
	hct_appender_free(p.appender);
	pthread_cond_destroy(&p.moved);
	pthread_mutex_destroy(&p.lock);
	return err;
}

hct_error mkhct_compressor_create(unsigned threads, struct mkhct_compressor **out,
				  struct hct_diag *diag)
{
	struct mkhct_compressor *c = calloc(1, sizeof(*c));
	hct_error err = HCT_ERR_NOMEM;

	if (!c)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory");
	c->threads = threads;
	c->chunk_slots = 2 * (size_t)threads + 16;
	c->chunks = calloc(c->chunk_slots, sizeof(*c->chunks));
	c->encoders = calloc(threads, sizeof(hct_encoder *));
	if (!c->chunks || !c->encoders)
		goto out;
	for (unsigned i = 0; i < threads; i++)
		if ((err = hct_encoder_create(HCT_SIMD_AUTO, &c->encoders[i])) != HCT_OK)
			goto out;
	/* The queue holds all that can be in flight, so that submitting never blocks. */
	err = hct_pool_create(threads, PLANS + c->chunk_slots, &c->pool);
out:
	if (err) {
		mkhct_compressor_free(c);
		return hct_fail(diag, err, "%u encoding threads cannot be started: %s", threads,
				hct_error_string(err));
	}
	*out = c;
	return HCT_OK;
}

void mkhct_compressor_free(struct mkhct_compressor *c)
{
	if (!c)
		return;
	hct_pool_free(c->pool);
	for (unsigned i = 0; c->encoders && i < c->threads; i++)
		hct_encoder_free(c->encoders[i]);
	for (size_t i = 0; c->chunks && i < c->chunk_slots; i++)
		free(c->chunks[i].payload);
	free(c->encoders);
	free(c->chunks);
	free(c);
}

hct_pool *mkhct_compressor_pool(const struct mkhct_compressor *c)
{
	return c->pool;
}

hct_encoder *mkhct_compressor_encoder(const struct mkhct_compressor *c, unsigned worker)
{
	return c->encoders[worker];
}
