/* Internal: cuts elements into symbols, fields and tails; the inverse of join.h. */
#ifndef HCT_CUT_H
#define HCT_CUT_H

#include "split_plan.h"

/* Cuts n elements at data, the first of which is element `first` of the tensor.
 *   symbols: 64 for each group, in order of position; cut symbols (split_plan.h); those
 *            behind the last element are of elements that are zero
 *   fields:  8 P bytes for each group, and 8 more bytes of room */
typedef void hct_cut(const struct hct_split_plan *p, const uint8_t *data, size_t n, uint64_t first,
		     uint8_t *symbols, uint8_t *fields);

hct_cut hct_cut_scalar, hct_cut_avx512;

/* The variant for an instruction set, never HCT_SIMD_AUTO. */
hct_cut *hct_cutter(hct_simd simd);

/* Copies the heads of n elements, and the tails. */
void hct_cut_heads(const struct hct_layout *l, const uint8_t *data, size_t n, uint16_t *heads);
void hct_cut_tails(const struct hct_layout *l, const uint8_t *data, size_t n, uint8_t *tails);

#endif
