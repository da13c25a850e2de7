/* Internal: tensors in which the same values come again and again: constant ones, those of few
 * values, those that are mostly zeros.  Lossless coding may take no more of them than the
 * quantiser, whose error does not get cheap where the values do. */
#ifndef HCT_REPEATS_H
#define HCT_REPEATS_H

#include <stdint.h>

#include "plan.h"

/* 1 when, by a few thousand elements from all over the tensor, at least half of its elements have
 * the same bytes, or an ideal coder that knew no more than how often each value occurs spent at
 * most so many bits on an element, and at most 6.  Quick, and 0 for weights as training leaves
 * them.  data: its bytes, one element at least, of a dtype with whole bytes.  Overwrites the
 * encoder's scratch; without memory it is 0. */
int hct_repeats_found(struct hct_encoder *e, const struct hct_tensor *tensor, const uint8_t *data,
		      double bits);

#endif
