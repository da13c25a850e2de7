/* What mkhct has to do, in kinds of work, so that the meter can tell the time that is left. */
#ifndef MKHCT_WORK_H
#define MKHCT_WORK_H

#include "codec/encoder.h"
#include "codec/error.h"
#include "codec/meter.h"
#include "codec/safetensors.h"
#include "writer/checkpoint.h"
#include "writer/goals.h"
#include "writer/source.h"

/* Amounts are what a core is guessed to need, in nanoseconds: what a tensor costs does not follow
 * from its bytes alone. */
enum mkhct_work {
	MKHCT_WORK_CARRY,       /* other files; nothing else goes on meanwhile */
	MKHCT_WORK_SMALL_EXACT, /* small tensors that are to be lossless: planning and coding */
	MKHCT_WORK_SMALL_LOSSY, /* and with loss */
	MKHCT_WORK_EXACT,       /* others that are to be lossless: planning and coding */
	MKHCT_WORK_PLAN,        /* others that are to be coded with loss: planning */
	MKHCT_WORK_LOSSY,       /* the same: coding */
	MKHCT_WORK_VERIFY, /* tensors that are measured when their file is whole; serial, too */
	MKHCT_WORK_REPORT  /* tensors in the report, at the end; serial */
};

/* Tells the meter, after hct_meter_start, of what the checkpoint says is still to be done of the
 * source.  Goals have their errors, or goals is NULL and all is lossless.  sample: the share of
 * tensors that are verified.  Reads the headers of the models.  Errors: those of mkhct_model_open,
 * HCT_ERR_CHANGED. */
hct_error mkhct_work_expect(struct hct_meter *m, const struct mkhct_source *source,
			    const struct mkhct_checkpoint *checkpoint,
			    const struct mkhct_goals *goals, double sample, struct hct_diag *diag);

/* Before that: all tensors are going to be measured with these goals (survey.h).  Errors: those of
 * mkhct_model_open, HCT_ERR_CHANGED. */
hct_error mkhct_work_expect_measuring(struct hct_meter *m, const struct mkhct_goals *goals,
				      struct hct_diag *diag);
/* One is measured. */
void mkhct_work_measured(struct hct_meter *m, const struct hct_tensor *t,
			 const struct hct_goal *goal, double seconds);

/* A tensor was planned, or bytes of it were coded: the thread that did it says so, with the
 * seconds of its time. */
void mkhct_work_planned(struct hct_meter *m, const struct hct_tensor *t,
			const struct hct_goal *goal, double seconds);
void mkhct_work_coded(struct hct_meter *m, const struct hct_tensor *t, const struct hct_goal *goal,
		      uint64_t bytes, double seconds);
/* A chunk of such a tensor was read back, which belongs to its coding. */
void mkhct_work_checked(struct hct_meter *m, const struct hct_tensor *t,
			const struct hct_goal *goal, double seconds);
/* Bytes of whole tensors were measured in a file, or of another file copied; seconds: of the
 * clock. */
void mkhct_work_verified(struct hct_meter *m, uint64_t bytes, double seconds);
void mkhct_work_carried(struct hct_meter *m, uint64_t bytes, double seconds);

#endif
