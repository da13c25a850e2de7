/* Internal: deciding whether a tensor is coded as low-rank factors, and doing it. */
#ifndef HCT_LOWRANK_PLAN_H
#define HCT_LOWRANK_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "encoder.h"
#include "plan.h"

struct hct_lowrank_plan;

/* Looks for factors that reach the goal's error with fewer bits of an element than rival, which is
 * what another coder takes.  With quick it first looks at a sample of the matrix and gives up when
 * that does not promise enough.  *out is NULL when there are none.  The rows of the tensor are
 * what hct_matrix_columns makes of it.  Ranks that take more memory than rank.h allows are not
 * tried: where one of them might have paid, and there are no factors, *note says so, a constant
 * phrase.  The plan keeps V twice, 16 MiB at most.  Errors: HCT_ERR_NOMEM, HCT_ERR_INTERRUPTED. */
hct_error hct_lowrank_plan_create(hct_encoder *e, const struct hct_tensor *tensor,
				  const uint8_t *data, const struct hct_goal *goal, double rival,
				  int quick, struct hct_lowrank_plan **out, const char **note);
void hct_lowrank_plan_free(struct hct_lowrank_plan *p);
/* Bytes that it holds, about. */
size_t hct_lowrank_plan_memory(const struct hct_lowrank_plan *p);

/* The tables as they go into PARAMS; length bytes, the plan's. */
const uint8_t *hct_lowrank_plan_params(const struct hct_lowrank_plan *p, size_t *length);
/* What it expects: bits of an element, tables included, and relative squared error. */
void hct_lowrank_plan_forecast(const struct hct_lowrank_plan *p, double *bits, double *error);
unsigned hct_lowrank_plan_rank(const struct hct_lowrank_plan *p);
/* Elements of a chunk. */
uint32_t hct_lowrank_plan_chunk(const struct hct_lowrank_plan *p);

/* As hct_tcq_encode. */
hct_error hct_lowrank_encode(hct_encoder *e, const struct hct_lowrank_plan *p, const uint8_t *data,
			     size_t n, uint64_t first, struct hct_encoded *out);

#endif
