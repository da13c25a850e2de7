/* Planning a tensor of a mapped model. */
#ifndef MKHCT_PLAN_H
#define MKHCT_PLAN_H

#include "codec/encoder.h"
#include "writer/model.h"

/* hct_plan_create for a tensor of the model, which looks at all of it when the goal is lossy: pages
 * leave this process behind it, and a signal ends it with HCT_ERR_INTERRUPTED.  Inside
 * mkhct_model_guard. */
hct_error mkhct_plan_tensor(const struct mkhct_model *m, const struct hct_tensor *t, hct_encoder *e,
			    const struct hct_goal *goal, hct_plan **out, struct hct_diag *diag);

#endif
