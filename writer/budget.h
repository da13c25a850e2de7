/* --bpw and --size: finding the error of each tensor so that all of them fit; and what else is
 * measured in all models before any is coded. */
#ifndef MKHCT_BUDGET_H
#define MKHCT_BUDGET_H

#include "codec/error.h"
#include "writer/carry.h"
#include "writer/compress.h"
#include "writer/goals.h"
#include "writer/measured.h"
#include "writer/progress.h"
#include "writer/source.h"
#include "writer/wish.h"

struct mkhct_budget {
	const struct mkhct_wish *wish; /* BPW: of the .hct files over all weights in them; SIZE: of
					* all files of the bundle */
	const struct mkhct_source *source;
	const char *options; /* JSON that goes into each file, about as long as it will be */
	double rest;         /* bytes of the bundle besides its models: counts for SIZE */
	struct mkhct_measured *measured; /* or NULL: as for mkhct_survey */
	struct mkhct_progress *progress;
};

/* Sets the goals of all tensors whose target is BUDGET, by measuring them at several errors
 * (survey.h) and dealing out bytes (waterfill.h), and leaves the forecasts of all tensors in
 * goals.  A budget above what lossless takes makes everything lossless.  *note: a line for the
 * user when the budget is missed by more than 1%, or empty.  Errors: HCT_ERR_ARGUMENT with what
 * is possible when the budget cannot be met; those of mkhct_survey. */
hct_error mkhct_budget_meet(const struct mkhct_budget *b, struct mkhct_compressor *c,
			    struct mkhct_goals *goals, struct hct_diag *note,
			    struct hct_diag *diag);

/* --policy adaptive: turns targets that are ADAPTIVE into errors.  Errors: those of
 * mkhct_survey_spectra. */
hct_error mkhct_budget_adapt(const struct mkhct_budget *b, struct mkhct_compressor *c,
			     struct mkhct_goals *goals, struct hct_diag *diag);

/* Measures all tensors at their goals and leaves forecasts in goals. */
hct_error mkhct_budget_forecast(const struct mkhct_budget *b, struct mkhct_compressor *c,
				struct mkhct_goals *goals, struct hct_diag *diag);

/* Bytes of all .hct files by those forecasts. */
hct_error mkhct_budget_bytes(const struct mkhct_budget *b, const struct mkhct_goals *goals,
			     double *bytes, struct hct_diag *diag);

#endif
