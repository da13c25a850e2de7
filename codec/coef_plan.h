/* Internal: deciding how a tensor is coded with the coef codec, and doing it: the literal coders
 * of the method, HCT_METHOD_TOPK, HCT_METHOD_MIXED and HCT_METHOD_INT4.
 *
 * TOPK keeps the coefficients of largest magnitude: those from a threshold on that a sample of
 * the tensor gives (of goal.effort's size, evenly spaced, all of a small tensor), one for the
 * tensor, so that its energetic parts keep more.  MIXED has a second threshold for FP16.  The tile
 * is the one of least error on part of the sample; AUTO never means none here, unless no tile
 * fits.  INT4 keeps every element as it is.  The error is what comes of it. */
#ifndef HCT_COEF_PLAN_H
#define HCT_COEF_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "coef.h"
#include "encoder.h"
#include "plan.h"

struct hct_coef_plan;

/* As hct_tcq_plan_create. */
hct_error hct_coef_plan_create(hct_encoder *e, const struct hct_tensor *tensor, const uint8_t *data,
			       const struct hct_goal *goal, struct hct_coef_plan **out,
			       const char **why);
void hct_coef_plan_free(struct hct_coef_plan *p);

const struct hct_coef_tables *hct_coef_plan_tables(const struct hct_coef_plan *p);
/* What it expects: bits of an element, tables included, and relative squared error. */
void hct_coef_plan_forecast(const struct hct_coef_plan *p, double *bits, double *error);
/* Elements of a chunk. */
uint32_t hct_coef_plan_chunk(const struct hct_coef_plan *p);

/* As hct_tcq_encode. */
hct_error hct_coef_encode(hct_encoder *e, const struct hct_coef_plan *p, const uint8_t *data,
			  size_t n, uint64_t first, struct hct_encoded *out);

#endif
