/* Internal: which codec codes a tensor without loss. */
#ifndef HCT_TRIAL_H
#define HCT_TRIAL_H

#include <stdint.h>

#include "plan.h"

/* Codes parts of the tensor, whose bytes lie at data, with raw, zstd and, where p has a plan for
 * it, the split codec, and sets codec, stride and bits of p, tables not included. */
void hct_trial_choose(hct_encoder *e, hct_plan *p, const uint8_t *data);

#endif
