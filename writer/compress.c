#include "compress.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/check.h"
#include "codec/hctenc.h"
#include "codec/io.h"
#include "codec/pool.h"
#include "writer/interrupt.h"
#include "writer/names.h"
#include "writer/pipeline.h"
#include "writer/plan.h"

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

/* What made the file and from what: the same for the same source, whenever and wherever
 * it is compressed. */
static char *provenance(const struct mkhct_pipeline *p)
{
	char name[1024];
	cJSON *root = cJSON_CreateObject();
	char *text = NULL;

	mkhct_name_printable(mkhct_name_base(p->model->entry->name), name, sizeof(name));
	if (root && cJSON_AddStringToObject(root, "tool", "mkhct") &&
	    cJSON_AddStringToObject(root, "version", HCT_VERSION) &&
	    cJSON_AddRawToObject(root, "options", p->task->options) &&
	    cJSON_AddStringToObject(root, "source_name", name))
		text = cJSON_PrintUnformatted(root);
	cJSON_Delete(root);
	return text;
}

static hct_error finish(struct mkhct_pipeline *p, struct hct_diag *diag)
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

/* Going on ---------------------------------------------------------------------------- */

struct plan_work {
	struct mkhct_pipeline *p;
	size_t tensor;
	hct_plan **out;
	struct hct_diag *diag;
};

static hct_error plan_again(void *arg)
{
	struct plan_work *w = arg;
	return mkhct_plan_tensor(w->p->model, &w->p->model->st.tensors[w->tensor], w->p->c->spare,
				 mkhct_pipeline_goal(w->p, w->tensor), w->out, w->diag);
}

/* The tensor in the middle of which the file ends: plans are not kept, and are the same when they
 * are made anew, on the same kind of machine. */
static hct_error restore_last(struct mkhct_pipeline *p, size_t i, const struct hct_appended *t,
			      struct hct_diag *diag)
{
	struct mkhct_plan_slot *slot = &p->c->plans[i % MKHCT_PLANS];
	struct plan_work work = {p, i, &slot->plan, diag};
	hct_error err;

	slot->goal = mkhct_pipeline_goal(p, i);
	err = mkhct_model_guard(p->model, plan_again, &work, diag);

	if (!err)
		err = hct_appender_restore(p->appender, i, t, diag);
	if (err)
		return err;
	p->to_append = p->to_submit = i;
	p->append_chunk = p->submit_chunk = t->chunks;
	p->to_plan = i + 1;
	p->declared = 1;
	slot->pipeline = p;
	slot->tensor = &p->model->st.tensors[i];
	slot->state = MKHCT_READY;
	if (hct_appended_matches(t, slot->plan)) {
		p->tables += slot->tables = t->params_length;
		return HCT_OK;
	}
	hct_plan_free(slot->plan);
	slot->plan = NULL;
	p->to_plan = i;
	p->submit_chunk = 0;
	return mkhct_pipeline_rewind(p, diag);
}

/* Whether the file has what the ledger says of a tensor.  HCT_ERR_DIGEST or HCT_ERR_CORRUPT: not.
 */
static hct_error check_restored(struct mkhct_pipeline *p, const struct hct_tensor *tensor,
				const struct hct_appended *t, struct hct_diag *diag)
{
	uint8_t *bytes = NULL, *grown;
	hct_error err = HCT_OK;

	for (uint64_t n = 0; !err && n < t->chunks; n++) {
		uint64_t offset = 0;
		uint32_t length;

		err = hct_appended_place(tensor, t, n, &offset, &length);
		if (err) {
			hct_fail(diag, err, "%s: its ledger is not of this file", tensor->name);
			break;
		}
		grown = realloc(bytes, (size_t)length + HCT_CHECK_PAD);
		if (!grown) {
			err = hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", p->out_name);
			break;
		}
		bytes = grown;
		err = hct_read_at(p->out, p->out_name, bytes, length, offset, diag);
		memset(bytes + length, 0, HCT_CHECK_PAD);
		if (!err)
			err = hct_check_appended(p->c->spare, tensor, t, n, bytes, diag);
		if (!err)
			err = mkhct_interrupt_check(diag);
	}
	free(bytes);
	return err;
}

/* Takes over tensor i of `count`, whose chunks are checked first when all are to be: at a bad one
 * the rest is left, and *count is i. */
static hct_error restore_tensor(struct mkhct_pipeline *p, size_t i, size_t *count,
				struct hct_diag *diag)
{
	const struct hct_tensor *tensor = &p->model->st.tensors[i];
	struct hct_appended t;
	hct_error err = HCT_OK;

	mkhct_ledger_tensor(p->task->ledger, i, &t, &p->task->results[i]);
	if (p->task->verify)
		err = check_restored(p, tensor, &t, diag);
	if (err == HCT_ERR_DIGEST || err == HCT_ERR_CORRUPT) {
		mkhct_pipeline_warn(p, "%s: %s; all from this tensor on is written again",
				    p->out_name, diag ? diag->text : hct_error_string(err));
		p->task->results[i] = (struct mkhct_result){.retries = 0};
		*count = i;
		return HCT_OK;
	}
	if (err)
		return err;
	hct_meter_skip(p->meter, t.chunks < t.chunk_count ? t.chunks * t.chunk_bytes
							  : hct_tensor_bytes(tensor));
	if (t.chunks < t.chunk_count && i + 1 == *count)
		return restore_last(p, i, &t, diag);
	err = hct_appender_restore(p->appender, i, &t, diag);
	p->tables += t.params_length;
	p->to_plan = p->to_submit = p->to_append = i + 1;
	return err;
}

/* Takes over what the ledger says is in the file. */
static hct_error restore(struct mkhct_pipeline *p, struct hct_diag *diag)
{
	struct mkhct_ledger *ledger = p->task->ledger;
	size_t had = ledger ? mkhct_ledger_count(ledger) : 0, count = had;
	struct stat sb;
	uint64_t bytes;
	hct_error err = HCT_OK;

	if (count > p->model->st.count)
		return hct_fail(diag, HCT_ERR_CORRUPT, "%s: its ledger has too many tensors",
				p->out_name);
	for (size_t i = 0; !err && i < count; i++)
		err = restore_tensor(p, i, &count, diag);
	if (err == HCT_ERR_ARGUMENT)
		err = hct_fail(diag, HCT_ERR_CORRUPT,
			       "%s: its ledger is of another file; give --restart to begin anew",
			       p->out_name);
	for (size_t i = had; !err && i > count; i--)
		err = mkhct_ledger_drop(ledger, i - 1, diag);
	if (!err && had > count)
		err = mkhct_pipeline_save(p, diag); /* before anything of it is cut */
	bytes = hct_appender_bytes(p->appender);
	p->flushed = bytes;
	if (!err && count && (fstat(p->out, &sb) != 0 || (uint64_t)sb.st_size < bytes))
		err = hct_fail(
			diag, HCT_ERR_CORRUPT,
			"%s: its ledger has more than the file; give --restart to begin anew",
			p->out_name);
	if (!err && (ftruncate(p->out, (off_t)bytes) != 0 ||
		     lseek(p->out, (off_t)bytes, SEEK_SET) != (off_t)bytes))
		err = hct_fail_errno(diag, errno, "%s: cannot be gone on with", p->out_name);
	return err;
}

hct_error mkhct_compress(struct mkhct_compressor *c, const struct mkhct_model *model,
			 const struct mkhct_task *task, int out, const char *out_name,
			 struct hct_meter *meter, mkhct_tick tick, void *tick_arg,
			 struct hct_diag *diag)
{
	struct mkhct_pipeline p = {.c = c,
				   .model = model,
				   .task = task,
				   .out = out,
				   .out_name = out_name,
				   .meter = meter,
				   .tick = tick,
				   .tick_arg = tick_arg};
	hct_error err;

	pthread_mutex_init(&p.lock, NULL);
	pthread_cond_init(&p.moved, NULL);
	err = hct_appender_create(out, out_name, &model->st, &p.appender, diag);
	if (!err)
		err = restore(&p, diag);
	if (!err)
		err = mkhct_hasher_start(model->fd, model->entry->path, model->entry->size,
					 &p.hasher, diag);
	if (!err) {
		err = mkhct_pipeline_run(&p, diag);
		if (err && err != HCT_ERR_CHANGED)
			mkhct_pipeline_keep(&p);
	}
	if (!err)
		err = finish(&p, diag);
	mkhct_hasher_cancel(p.hasher);
	hct_appender_free(p.appender);
	pthread_cond_destroy(&p.moved);
	pthread_mutex_destroy(&p.lock);
	return err;
}

hct_error mkhct_compressor_create(const struct mkhct_memory *memory, struct mkhct_compressor **out,
				  struct hct_diag *diag)
{
	unsigned threads = memory->threads;
	struct mkhct_compressor *c = calloc(1, sizeof(*c));
	hct_error err = HCT_ERR_NOMEM;

	if (!c)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory");
	c->memory = *memory;
	c->threads = threads;
	c->chunk_slots = 2 * (size_t)threads + 16;
	c->chunks = calloc(c->chunk_slots, sizeof(*c->chunks));
	c->encoders = calloc(threads, sizeof(hct_encoder *));
	if (!c->chunks || !c->encoders)
		goto out;
	for (unsigned i = 0; i < threads; i++)
		if ((err = hct_encoder_create(HCT_SIMD_AUTO, &c->encoders[i])) != HCT_OK)
			goto out;
	err = hct_encoder_create(HCT_SIMD_AUTO, &c->spare);
	if (err)
		goto out;
	/* The queue holds all that can be in flight, so that submitting never blocks. */
	err = hct_pool_create(threads, MKHCT_PLANS + 2 * c->chunk_slots, &c->pool);
out:
	if (err) {
		mkhct_compressor_free(c);
		return hct_fail(diag, err, "%u encoding threads cannot be started: %s", threads,
				hct_error_string(err));
	}
	*out = c;
	return HCT_OK;
}

void mkhct_compressor_accelerate(struct mkhct_compressor *c, hct_accelerator *gpu)
{
	for (unsigned i = 0; i < c->threads; i++)
		hct_encoder_accelerate(c->encoders[i], gpu);
	hct_encoder_accelerate(c->spare, gpu);
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
	for (unsigned i = 0; i < MKHCT_PLANS; i++) /* when it failed before the pipeline ran */
		hct_plan_free(c->plans[i].plan);
	hct_encoder_free(c->spare);
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
