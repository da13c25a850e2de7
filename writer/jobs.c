#include "jobs.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "codec/hct.h"
#include "codec/io.h"
#include "writer/interrupt.h"
#include "writer/plan.h"
#include "writer/work.h"

#define RETRIES 3 /* of a job that found no memory, or could not read the source */

typedef struct mkhct_pipeline pipeline;
typedef struct mkhct_plan_slot plan_slot;
typedef struct mkhct_chunk_slot chunk_slot;
typedef enum mkhct_slot_state slot_state;

int mkhct_jobs_failed(struct mkhct_pipeline *p)
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

	for (unsigned i = 0; !mkhct_jobs_failed(p); i++) {
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
	plan_slot *s = w->slot;

	return mkhct_plan_tensor(s->pipeline->model, s->tensor, w->encoder, s->goal, &s->plan,
				 w->diag);
}

void mkhct_jobs_plan(void *slot, unsigned worker)
{
	plan_slot *s = slot;
	pipeline *p = s->pipeline;
	struct hct_diag diag = {""};
	struct plan_work work = {s, p->c->encoders[worker], &diag};
	double start = hct_meter_now();
	hct_error err = attempt(p, make_plan, &work, &s->retries, &diag);

	if (err == HCT_ERR_NOMEM && s->goal && s->goal->relative_squared_error > 0) {
		s->failed = MKHCT_FAILED_MEMORY;
		s->goal = NULL;
		err = attempt(p, make_plan, &work, &s->retries, &diag);
	}
	mkhct_model_let_go(p->model, p->model->st.header_len + s->tensor->begin,
			   p->model->st.header_len + s->tensor->end);
	mkhct_work_planned(p->meter, s->tensor, s->goal, hct_meter_now() - start);
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

void mkhct_jobs_chunk(void *slot, unsigned worker)
{
	chunk_slot *s = slot;
	pipeline *p = s->pipeline;
	struct hct_diag diag = {""};
	struct chunk_work work = {s, p->c->encoders[worker], &diag};
	double start = hct_meter_now();
	hct_error err = attempt(p, encode, &work, &s->retries, &diag);

	if (!err && s->planned->plan)
		mkhct_work_coded(p->meter, s->planned->tensor, s->planned->goal,
				 hct_plan_chunk_length(s->planned->plan, s->number),
				 hct_meter_now() - start);
	job_done(p, &s->state, s->planned->tensor, err, &diag);
}

static hct_error read_back(chunk_slot *s, struct hct_diag *diag)
{
	const pipeline *p = s->pipeline;
	hct_error err = HCT_OK;

	for (unsigned i = 0;; i++) {
		err = hct_read_at(p->out, p->out_name, s->payload, s->length, s->offset, diag);
		if (err != HCT_ERR_IO || i == RETRIES || !pause_before(i))
			return err;
	}
}

void mkhct_jobs_check(void *slot, unsigned worker)
{
	chunk_slot *s = slot;
	pipeline *p = s->pipeline;
	const plan_slot *planned = s->planned;
	double start = hct_meter_now();
	struct hct_diag diag = {""};
	hct_error err = read_back(s, &diag);

	if (!err)
		err = hct_check_chunk(p->c->encoders[worker], planned->plan, s->number, &s->encoded,
				      &diag);
	if (err) {
		pthread_mutex_lock(&p->lock);
		if (!p->check_error) {
			p->check_error = err;
			p->check_diag = diag;
		}
		pthread_mutex_unlock(&p->lock);
	}
	mkhct_work_checked(p->meter, planned->tensor, planned->goal, hct_meter_now() - start);
	job_done(p, &s->state, planned->tensor, err, &diag);
}
