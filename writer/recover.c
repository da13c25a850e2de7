/* What the pipeline does after an error: what can be mended is done anew, and what cannot leaves
 * the file as far as it is good. */
#include <errno.h>
#include <unistd.h>

#include "writer/pipeline.h"

typedef struct mkhct_pipeline pipeline;
typedef struct mkhct_plan_slot plan_slot;

const char *mkhct_failure_text(enum mkhct_failure failure)
{
	switch (failure) {
	case MKHCT_FAILED_MEMORY:
		return "there was not enough memory to code it with loss";
	case MKHCT_FAILED_CHECK:
		return "what was written of it with loss was read back as something else";
	default:
		return "an earlier run could not code it with loss";
	}
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

/* Saved before anything that an older checkpoint speaks of is written over. */
static hct_error save_rewound(pipeline *p, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	if (p->task->ledger)
		err = mkhct_ledger_drop(p->task->ledger, p->to_append, diag);
	return err ? err : mkhct_pipeline_save(p, diag);
}

hct_error mkhct_pipeline_rewind(pipeline *p, struct hct_diag *diag)
{
	struct mkhct_result *r = p->task->results ? &p->task->results[p->to_append] : NULL;
	uint64_t bytes, begin = p->model->st.tensors[p->to_append].begin;
	hct_error err = hct_appender_rewind(p->appender, diag);

	if (err)
		return err;
	p->rewound = 1;
	p->check_error = HCT_OK;
	if (r)
		*r = (struct mkhct_result){.retries = r->retries, .failed = r->failed};
	p->declared = 0;
	p->append_chunk = 0;
	bytes = hct_appender_bytes(p->appender);
	p->flushed = p->flushed < bytes ? p->flushed : bytes;
	begin += p->model->st.header_len;
	p->released = p->released < begin ? p->released : begin;
	if (lseek(p->out, (off_t)bytes, SEEK_SET) < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be cut", p->out_name);
	return save_rewound(p, diag);
}

void mkhct_pipeline_keep(pipeline *p)
{
	hct_error err = HCT_OK;

	if (p->check_error)
		err = mkhct_pipeline_rewind(p, NULL);
	else if (p->rewound)
		err = save_rewound(p, NULL);
	/* What a chunk has left that did not fit makes room for the rest on a full disk. */
	if (!err && ftruncate(p->out, (off_t)hct_appender_bytes(p->appender)) == 0)
		(void)mkhct_pipeline_save(p, NULL);
}

/* After all jobs have ended: goes on behind what is appended; whole: with the tensor that is being
 * appended from its beginning, replan: and with another plan. */
static hct_error begin_anew(pipeline *p, int whole, int replan, struct hct_diag *diag)
{
	plan_slot *planned = mkhct_pipeline_plan(p, p->to_append);
	hct_error err = HCT_OK;

	for (size_t i = p->to_append + 1; i < p->to_plan; i++)
		mkhct_pipeline_unplan(p, mkhct_pipeline_plan(p, i));
	p->checked = p->head = p->tail;
	p->claimed = 0;
	p->error = HCT_OK;
	p->to_submit = p->to_append;
	p->to_plan = p->to_append + 1;
	if (whole) {
		const hct_plan *plan = planned->plan;
		uint64_t done = plan ? p->append_chunk * hct_plan_chunk_bytes(plan) : 0;
		uint64_t all = hct_tensor_bytes(&p->model->st.tensors[p->to_append]);

		hct_meter_add(p->meter, -(done < all ? done : all));
		if (p->declared)
			err = mkhct_pipeline_rewind(p, diag);
	}
	p->submit_chunk = p->append_chunk;
	if (replan) {
		mkhct_pipeline_unplan(p, planned);
		p->to_plan = p->to_append;
	}
	return err;
}

/* After all jobs have ended because of a tensor that cannot be coded as it was to be: begins
 * anew behind what is appended, with that tensor lossless. */
static hct_error give_in(pipeline *p, struct hct_diag *diag)
{
	size_t tensor = p->error_tensor;
	int anew = tensor == p->to_append || !mkhct_pipeline_plan(p, p->to_append)->plan;

	p->task->results[tensor].failed = MKHCT_FAILED_MEMORY;
	mkhct_pipeline_warn(p, "%s: %s: %s; it is coded without loss", p->out_name,
			    p->model->st.tensors[tensor].name, p->diag.text);
	return begin_anew(p, anew, anew, diag);
}

/* 1 when a tensor that was to be lossy is at fault. */
static int is_of_tensor(const pipeline *p, hct_error err)
{
	return err == HCT_ERR_NOMEM && p->error == err && p->error_tensor != SIZE_MAX &&
	       p->task->results && p->task->goals && !p->task->results[p->error_tensor].failed &&
	       p->task->goals[p->error_tensor].relative_squared_error > 0;
}

/* After all jobs have ended because a chunk was not read back as it was written: its tensor is
 * written once more, because that may have gone wrong once, and then without loss, again twice. */
static hct_error write_again(pipeline *p, struct hct_diag *diag)
{
	struct mkhct_result *r = p->task->results ? &p->task->results[p->to_append] : NULL;
	struct hct_plan_info plan;
	int replan;

	hct_plan_describe(mkhct_pipeline_plan(p, p->to_append)->plan, &plan);
	replan = p->again && r && plan.relative_squared_error > 0;
	if (p->again && !replan)
		return hct_fail(diag, p->check_error,
				"%s: %s, also when it was written again: see to the disk and the "
				"memory of this machine",
				p->out_name, p->check_diag.text);
	mkhct_pipeline_warn(p, "%s: %s; the tensor is %s", p->out_name, p->check_diag.text,
			    replan ? "coded without loss" : "written again");
	if (replan)
		r->failed = MKHCT_FAILED_CHECK;
	if (r)
		r->retries++;
	p->again = !replan;
	return begin_anew(p, 1, replan, diag);
}

/* 1 when another way of writing a chunk may do. */
static int is_of_chunk(hct_error err)
{
	return err == HCT_ERR_NOMEM || err == HCT_ERR_DIGEST || err == HCT_ERR_CORRUPT;
}

hct_error mkhct_pipeline_recover(pipeline *p, hct_error err, struct hct_diag *diag)
{
	drain(p, err);
	if (p->check_error) {
		if (p->error == err && is_of_chunk(err) && is_of_chunk(p->check_error))
			return write_again(p, diag);
		return err;
	}
	return is_of_tensor(p, err) ? give_in(p, diag) : err;
}
