#include "tcq_exceptions.h"

#include "gaps.h"
#include "split.h"
#include "tcq.h"

static hct_error corrupt(const char **why, const char *what)
{
	*why = what;
	return HCT_ERR_CORRUPT;
}

hct_error hct_tcq_exceptions_next(struct hct_tcq_exceptions *x, const char **why)
{
	struct hct_bit_reader *bits = &x->bits;
	unsigned negative, zeros;
	size_t gap;
	uint32_t m;

	if (!x->left) {
		size_t rest = bits->end - bits->at;

		x->at = SIZE_MAX;
		if (rest >= 8 || hct_bits_take(bits, (unsigned)rest))
			return corrupt(why, "bits behind the last exception");
		return HCT_OK;
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
		return corrupt(why, "an exception behind the end");
	if (zeros == HCT_TCQ_MAX_MAGNITUDE)
		return corrupt(why, "an impossible exception");
	return HCT_OK;
}

hct_error hct_tcq_exceptions_start(struct hct_tcq_exceptions *x, const uint8_t *list, size_t length,
				   size_t elements, const char **why)
{
	/* the one before the first is in front of the first element */
	*x = (struct hct_tcq_exceptions){.at = SIZE_MAX, .elements = elements};
	if (!length)
		return HCT_OK;
	if (length <= HCT_TCQ_EXCEPTION_HEAD)
		return corrupt(why, "an incomplete list of exceptions");
	x->left = hct_load32(list);
	x->rice = list[4];
	x->magnitude = list[5];
	x->bits.data = list + HCT_TCQ_EXCEPTION_HEAD;
	x->bits.end = 8 * (length - HCT_TCQ_EXCEPTION_HEAD);
	if (!x->left || x->rice > HCT_MAX_RICE || x->magnitude > HCT_TCQ_MAX_RICE)
		return corrupt(why, "an impossible list of exceptions");
	return hct_tcq_exceptions_next(x, why);
}
