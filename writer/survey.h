/* What coding the tensors of a model would give, without writing anything: each is planned and
 * some of its chunks are coded, by all threads.  Up to MKHCT_SURVEY_CHUNKS chunks of a tensor are
 * coded, spread evenly over it; a tensor that has no more is measured exactly. */
#ifndef MKHCT_SURVEY_H
#define MKHCT_SURVEY_H

#include <stdint.h>

#include "codec/encoder.h"
#include "codec/error.h"
#include "codec/format.h"
#include "writer/carry.h"
#include "writer/compress.h"
#include "writer/goals.h"
#include "writer/model.h"
#include "writer/progress.h"

#define MKHCT_SURVEY_CHUNKS 16

struct mkhct_measured;

/* Of one tensor, extrapolated from the chunks that were coded. */
struct mkhct_forecast {
	struct mkhct_result result;
	double extent_bytes;
	uint64_t extents;
	/* Its record in the index, but for the places, which depend on other tensors. */
	struct hct_tensor_record record;
	double table_bytes; /* its share, by length, of all tables of that survey, which the file
			     * compresses together */
	int lossy;          /* 0: it came out lossless */
	int exact;          /* every chunk was coded */
};

/* Measures tensor i of the open, mapped model with goals[i], for all i with wanted[i]; wanted
 * NULL means all.  Others are left alone in out.  measured, or NULL: what an earlier run has found
 * is taken from there (measured.h), and what is found is noted there, also when it ends early.
 * progress, or NULL, shows how many are measured, of those that it was told of
 * (mkhct_progress_measure).  Errors: HCT_ERR_NOMEM, HCT_ERR_IO, HCT_ERR_NO_SPACE, HCT_ERR_CHANGED,
 * HCT_ERR_INTERRUPTED. */
hct_error mkhct_survey(struct mkhct_compressor *c, const struct mkhct_model *model,
		       const unsigned char *wanted, const struct hct_goal *goals,
		       struct mkhct_forecast *out, struct mkhct_measured *measured,
		       struct mkhct_progress *progress, struct hct_diag *diag);

/* Turns targets that are ADAPTIVE into errors, by the spectra of their tensors; measured, progress
 * and errors as above. */
hct_error mkhct_survey_spectra(struct mkhct_compressor *c, const struct mkhct_model *model,
			       struct mkhct_model_goals *goals, struct mkhct_measured *measured,
			       struct mkhct_progress *progress, struct hct_diag *diag);

/* Bytes of the .hct file that holds tensors with these forecasts; options is what will be in its
 * provenance.  Within some 100 bytes where every forecast is exact: tensors that were measured
 * in different surveys may share tables. */
double mkhct_survey_file_bytes(const struct mkhct_model *model,
			       const struct mkhct_forecast *forecasts, const char *options);

#endif
