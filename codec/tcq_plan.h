/* Internal: deciding how a tensor is coded with the tcq codec, and doing it. */
#ifndef HCT_TCQ_PLAN_H
#define HCT_TCQ_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "encoder.h"
#include "plan.h"
#include "tcq.h"

struct hct_tcq_plan;

/* Looks at a tensor (all of it once, a sample of it closely) and decides on tables.  data: its
 * bytes.  *out is NULL when the tensor is better kept lossless, and *why says why, a constant
 * phrase.  Errors: HCT_ERR_NOMEM. */
hct_error hct_tcq_plan_create(hct_encoder *e, const struct hct_tensor *tensor, const uint8_t *data,
			      const struct hct_goal *goal, struct hct_tcq_plan **out,
			      const char **why);
void hct_tcq_plan_free(struct hct_tcq_plan *p);
/* Bytes that it holds, about. */
size_t hct_tcq_plan_memory(const struct hct_tcq_plan *p);

const struct hct_tcq_tables *hct_tcq_plan_tables(const struct hct_tcq_plan *p);
/* What it expects: bits of an element, tables included, and relative squared error. */
void hct_tcq_plan_forecast(const struct hct_tcq_plan *p, double *bits, double *error);
/* Elements of a chunk. */
uint32_t hct_tcq_plan_chunk(const struct hct_tcq_plan *p);

/* Codes the n elements at data, the first of which is element `first` of the tensor, and decodes
 * them again.  The payloads of out and its digests and sums are set; HCT_ERR_LIMIT when it would
 * not be smaller than the elements themselves. */
hct_error hct_tcq_encode(hct_encoder *e, const struct hct_tcq_plan *p, const uint8_t *data,
			 size_t n, uint64_t first, struct hct_encoded *out);

/* The same for what is part of something else, whatever its size: never HCT_ERR_LIMIT. */
hct_error hct_tcq_encode_part(hct_encoder *e, const struct hct_tcq_plan *p, const uint8_t *data,
			      size_t n, uint64_t first, struct hct_encoded *out);

#endif
