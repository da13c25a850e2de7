/* Writing a bundle: every file of the source into its part file, with a checkpoint that goes along,
 * and at the end the reports and the names. */
#ifndef MKHCT_BUNDLE_H
#define MKHCT_BUNDLE_H

#include "codec/error.h"
#include "writer/compress.h"
#include "writer/goals.h"
#include "writer/options.h"
#include "writer/output.h"
#include "writer/progress.h"
#include "writer/report.h"
#include "writer/source.h"

struct mkhct_bundle {
	const struct mkhct_options *options;
	const struct mkhct_source *source;
	const struct mkhct_goals *goals; /* with all errors known; NULL to finish a bundle */
	const char *recipe;              /* the options as JSON */
	int lossless;                    /* they leave nothing else */
	struct mkhct_output *output;     /* begun */
	struct mkhct_compressor *compressor;
	struct mkhct_report *report;
	struct mkhct_progress *progress; /* whose events hear of it */
	double started;                  /* monotonic seconds */
};

/* Does what the checkpoint of the output says is still to be done of the source.  Errors: of
 * everything below; what was done stays done. */
hct_error mkhct_bundle_write(struct mkhct_bundle *b, struct hct_diag *diag);

/* Once all entries are there: the reports, and all names.  *seconds: that all runs took. */
hct_error mkhct_bundle_finish(struct mkhct_bundle *b, double *seconds, struct hct_diag *diag);

/* The final report on standard output.  Errors: HCT_ERR_IO, HCT_ERR_NOMEM. */
hct_error mkhct_bundle_print(const struct mkhct_bundle *b, double seconds, struct hct_diag *diag);

/* HCT_OK when standard output has all that was printed; otherwise HCT_ERR_IO and the line `what`.
 */
hct_error mkhct_flush_output(const char *what, struct hct_diag *diag);

#endif
