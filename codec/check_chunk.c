/* Checking what this encoder has made, by its plan. */
#include "check.h"
#include "plan.h"

hct_error hct_check_chunk(hct_encoder *e, const hct_plan *p, uint64_t n,
			  const struct hct_encoded *chunk, struct hct_diag *diag)
{
	const struct hct_origin o = {.tensor = p->tensor,
				     .codec = p->codec,
				     .params = p->params,
				     .params_length = p->params_length,
				     .offset = n * p->chunk_bytes,
				     .length = hct_plan_chunk_length(p, n)};

	return hct_check_origin(e, &o, n, chunk, diag);
}
