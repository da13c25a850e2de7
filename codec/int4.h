/* Internal: INT4 with a scale for each block, the baseline's quantiser. */
#ifndef HCT_INT4_H
#define HCT_INT4_H

#include <stdint.h>

#include "coef.h"

/* Finds an FP16 scale, of either sign, and integers q from -8 to 7 for n numbers, at most
 * HCT_COEF_BLOCK, of magnitudes up to 65504: a small squared error, which is returned.  x has
 * room for HCT_COEF_BLOCK numbers, and those behind n are set to 0. */
double hct_int4_block(float x[HCT_COEF_BLOCK], unsigned n, uint16_t *scale,
		      int8_t q[HCT_COEF_BLOCK]);

/* The nearest FP16 number; magnitudes beyond the largest become that. */
uint16_t hct_half_round(float x);

#endif
