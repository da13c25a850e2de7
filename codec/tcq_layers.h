/* Internal: the layers of a tcq plan: what error each is to leave, and their tables, learnt from a
 * sample so that they leave it. */
#ifndef HCT_TCQ_LAYERS_H
#define HCT_TCQ_LAYERS_H

#include <stddef.h>
#include <stdint.h>

#include "plan.h"
#include "tcq.h"
#include "tcq_sample.h"
#include "widen.h"

/* How hard an effort tries. */
struct hct_tcq_effort {
	size_t sample; /* elements */
	unsigned passes, states_log2, row_classes, shapes, trials;
};

#define HCT_TCQ_PEAKS 4

/* A tensor while it is planned, by one thread.  Owns s and peak, and nothing else that it points
 * to. */
struct hct_tcq_planner {
	hct_encoder *e;
	const struct hct_tensor *tensor;
	const uint8_t *data;
	const struct hct_goal *goal; /* effort and layers at least 1 */
	const struct hct_tcq_effort *effort;
	struct hct_census census;
	uint64_t elements, rows;
	uint32_t columns;
	size_t sample; /* elements */
	struct hct_tcq_sample s;
	unsigned stride; /* tables are learnt from one of so many pieces of it; 0 for 1 */
	int draft;       /* an uneven tensor is fitted again, to a larger sample */
	/* The bands with the most energy, apart, when they have far more than their share. */
	uint64_t peaks[HCT_TCQ_PEAKS];
	size_t peak_count;
	uint32_t peak_rows; /* of such a band */
	struct hct_tcq_sample peak;
	/* What hct_tcq_fit_layers finds. */
	int uneven;    /* error and step do not go together as they do where all values are large */
	double spread; /* variance of the squared errors measured last, in squares of their mean */
	float lambda[HCT_TCQ_MAX_LAYERS]; /* of the layers as fitted */
};

/* Mean squared error that a layer is to leave, of values as they are: the goal's for the last one,
 * less what rounding to the dtype adds, and more for those before it.  Needs the goal, the census
 * and the elements only. */
double hct_tcq_layer_error(const struct hct_tcq_planner *p, unsigned layer);

/* Fits all layers of t to the sample: classes, tables, and the step that leaves the error wanted.
 * The number of layers, tile, segment and columns of t are set, and its layers zero; their column
 * classes are malloc'ed and the caller's, in case of an error too.  A trial does it in fewer passes
 * and does not correct the step of the last layer, nor does a draft of an uneven tensor.  *bits: of
 * an element, tables not included; *error: mean squared, of an element as it is, without rounding;
 * both are forecasts where they are not measured.  Samples that were taken are transformed anew,
 * and then hold what the layers before the last leave.  Errors: HCT_ERR_NOMEM; HCT_ERR_ARGUMENT
 * when no step reaches the error. */
hct_error hct_tcq_fit_layers(struct hct_tcq_planner *p, struct hct_tcq_tables *t, int trial,
			     double *bits, double *error);

#endif
