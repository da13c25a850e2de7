/* Internal: the exceptions of a segment of the tcq codec, read one after the other (FORMAT.md
 * section 5). */
#ifndef HCT_TCQ_EXCEPTIONS_H
#define HCT_TCQ_EXCEPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "bits.h"
#include "gaps.h"
#include "split.h"
#include "tcq.h"

struct hct_tcq_exceptions {
	size_t at; /* element of the next one; SIZE_MAX behind the last one */
	int32_t e; /* how many steps are to be added there */

	size_t elements, left; /* left: behind the next one */
	unsigned rice, magnitude;
	struct hct_bit_reader bits;
};

/* Reads the next one; or, behind the last one, makes sure that the list ends there.  Returns NULL,
 * or what is wrong with the list. */
HCT_INLINE const char *hct_tcq_exceptions_next(struct hct_tcq_exceptions *x)
{
	struct hct_bit_reader *bits = &x->bits;
	unsigned negative, zeros;
	size_t gap;
	uint32_t m;

	if (!x->left) {
		size_t rest = bits->end - bits->at;

		x->at = SIZE_MAX;
		if (rest >= 8 || hct_bits_take(bits, (unsigned)rest))
			return "bits behind the last exception";
		return NULL;
	}
	x->left--;
	bits->at += hct_gap_look(hct_bits_peek(bits), x->rice, &gap);
	x->at += 1 + gap;
	negative = hct_bits_take(bits, 1);
	zeros = hct_bits_unary(bits, HCT_TCQ_MAX_MAGNITUDE);
	m = (1u << zeros) - 1 + hct_bits_take(bits, zeros);
	m = m << x->magnitude | hct_bits_take(bits, x->magnitude);
	x->e = negative ? -(int32_t)m : (int32_t)m;
	if (bits->at > bits->end || x->at >= x->elements)
		return "an exception behind the end";
	if (zeros == HCT_TCQ_MAX_MAGNITUDE)
		return "an impossible exception";
	return NULL;
}

/* Reads the head of a list (of 0 bytes: none) and its first exception; elements: of the segment.
 * 24 bytes behind the list are readable.  Returns as hct_tcq_exceptions_next does. */
HCT_INLINE const char *hct_tcq_exceptions_start(struct hct_tcq_exceptions *x, const uint8_t *list,
						size_t length, size_t elements)
{
	memset(x, 0, sizeof *x);
	x->at = SIZE_MAX; /* the one before the first is in front of the first element */
	x->elements = elements;
	if (!length)
		return NULL;
	if (length <= HCT_TCQ_EXCEPTION_HEAD)
		return "an incomplete list of exceptions";
	x->left = hct_load32(list);
	x->rice = list[4];
	x->magnitude = list[5];
	x->bits.data = list + HCT_TCQ_EXCEPTION_HEAD;
	x->bits.end = 8 * (length - HCT_TCQ_EXCEPTION_HEAD);
	if (!x->left || x->rice > HCT_MAX_RICE || x->magnitude > HCT_TCQ_MAX_RICE)
		return "an impossible list of exceptions";
	return hct_tcq_exceptions_next(x);
}

#endif
