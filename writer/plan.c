#include "plan.h"

#include "writer/interrupt.h"

#define BEHIND (16u << 20) /* bytes of pages that are let go at a time */

struct watched {
	const struct mkhct_model *model;
	uint64_t begin, released; /* of the file */
};

static int watch(void *arg, uint64_t done)
{
	struct watched *w = arg;

	if (w->begin + done - w->released >= BEHIND) {
		mkhct_model_let_go(w->model, w->released, w->begin + done);
		w->released = w->begin + done;
	}
	return mkhct_interrupt_check(NULL) != HCT_OK;
}

hct_error mkhct_plan_tensor(const struct mkhct_model *m, const struct hct_tensor *t, hct_encoder *e,
			    const struct hct_goal *goal, hct_plan **out, struct hct_diag *diag)
{
	struct watched w = {m, m->st.header_len + t->begin, m->st.header_len + t->begin};
	hct_error err;

	hct_encoder_watch(e, watch, &w);
	err = hct_plan_create(e, t, mkhct_model_data(m, t), goal, out, diag);
	hct_encoder_watch(e, NULL, NULL);
	return err == HCT_ERR_INTERRUPTED ? mkhct_interrupt_check(diag) : err;
}
