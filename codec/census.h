/* Internal: looking at every element of a tensor, which for a large one takes long and brings all
 * of its pages in: the encoder's watch is asked between pieces. */
#ifndef HCT_CENSUS_H
#define HCT_CENSUS_H

#include <stdint.h>

#include "plan.h"
#include "widen.h"

/* Called for each piece, in order. */
typedef void hct_census_look(void *arg, uint64_t number, const struct hct_census *piece);

/* Fills *all from the tensor whose bytes lie at data, `piece` elements at a time; look may be NULL.
 * HCT_ERR_INTERRUPTED when the watch says so. */
hct_error hct_census_take(hct_encoder *e, const struct hct_tensor *t, const uint8_t *data,
			  uint64_t piece, struct hct_census *all, hct_census_look *look, void *arg);

/* Why the tensor of a census cannot be coded with loss, a constant phrase; NULL when nothing is in
 * the way.  F64 has numbers that are 0 or infinite to a census, which is of float32: where these
 * matter the elements at data are looked at again. */
const char *hct_census_fault(const struct hct_census *all, const struct hct_tensor *t,
			     const uint8_t *data);

#endif
