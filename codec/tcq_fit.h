/* Internal: learning the tables of a tcq layer from a sample of the values that it codes. */
#ifndef HCT_TCQ_FIT_H
#define HCT_TCQ_FIT_H

#include <stddef.h>
#include <stdint.h>

#include "accelerator.h"
#include "tcq.h"
#include "tcq_sample.h"

/* What is wanted and how hard to try. */
struct hct_tcq_goal {
	double error;         /* mean squared error of a value */
	unsigned states_log2; /* of the trellis */
	unsigned column_classes, row_classes;
	unsigned run_log2; /* groups in a run */
	unsigned passes;   /* over the sample, */
	unsigned stride;   /* of which they see one of so many pieces */
};

/* What the tables promise for values like those of the sample. */
struct hct_tcq_forecast {
	double bits;  /* of a value, tables not included */
	double error; /* mean squared */
};

/* Fills layer (its column_class is malloc'ed and the caller's, NULL for one class) and finds the
 * step that reaches the error.  HCT_ERR_NOMEM; HCT_ERR_ARGUMENT when no step can, and the
 * tensor is better kept as it is. */
hct_error hct_tcq_fit(const struct hct_tcq_sample *s, const struct hct_tcq_goal *goal,
		      struct hct_searcher *searcher, struct hct_tcq_layer *layer,
		      struct hct_tcq_forecast *forecast);

/* Finds the step of an error by the secant method, on logarithms: error ~ step^slope.  The slope is
 * 2 where all values are large against the step, and less where many are not. */
struct hct_tcq_secant {
	double slope;       /* 2 to start */
	double step, ratio; /* the last ones; 0 at first */
};

/* The next step to try, when the error at this one is ratio times what is wanted. */
float hct_tcq_next_step(struct hct_tcq_secant *s, float step, double ratio);

/* Squared error, in units of step^2, that a bit is worth to a layer of that step and error: the
 * slope of D(R), 2 ln 2 D. */
static inline float hct_tcq_lambda(double error, float step)
{
	return (float)(1.3862943611198906 * error / ((double)step * step));
}

#endif
