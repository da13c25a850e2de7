/* Internal: the code of the gaps between exceptions (FORMAT.md section 4), which the split and the
 * tcq codec share: a Rice code, or after HCT_MAX_QUOTIENT zeros the gap as it is. */
#ifndef HCT_GAPS_H
#define HCT_GAPS_H

#include <stddef.h>
#include <stdint.h>

#include "bits.h"
#include "split.h"

/* The parameter that suits `count` gaps between that many elements (a geometric distribution). */
HCT_INLINE unsigned hct_gap_rice(size_t elements, size_t count)
{
	size_t mean = elements / (count + 1);
	unsigned rice = 0;

	while (rice < HCT_MAX_RICE && (size_t)2 << rice < mean)
		rice++;
	return rice;
}

/* gap: below 2^HCT_GAP_BITS. */
HCT_INLINE void hct_gap_put(struct hct_bit_writer *w, uint32_t gap, unsigned rice)
{
	if (gap >> rice < HCT_MAX_QUOTIENT) {
		hct_bits_put_unary(w, gap >> rice, HCT_MAX_QUOTIENT);
		hct_bits_put(w, gap & ((1u << rice) - 1), rice);
	} else {
		hct_bits_put_unary(w, HCT_MAX_QUOTIENT, HCT_MAX_QUOTIENT);
		hct_bits_put(w, gap, HCT_GAP_BITS);
	}
}

/* The gap, in elements, that bits begin with; rice: the parameter of the list, at most
 * HCT_MAX_RICE. Returns how many of them it is, at most 41: what hct_bits_peek gives holds it, and
 * 16 more. */
HCT_INLINE unsigned hct_gap_look(uint64_t bits, unsigned rice, size_t *gap)
{
	unsigned quotient = hct_ctz64(bits | (uint64_t)1 << HCT_MAX_QUOTIENT);

	if (quotient == HCT_MAX_QUOTIENT) {
		*gap = bits >> HCT_MAX_QUOTIENT & ((1u << HCT_GAP_BITS) - 1);
		return HCT_MAX_QUOTIENT + HCT_GAP_BITS;
	}
	*gap = ((size_t)quotient << rice) + (bits >> (quotient + 1) & ((1u << rice) - 1));
	return quotient + 1 + rice;
}

#endif
