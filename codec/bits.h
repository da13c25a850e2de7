/* Internal: bit strings, least significant bit first. */
#ifndef HCT_BITS_H
#define HCT_BITS_H

#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

/* Reads from a byte string with 8 readable bytes behind its end.  Bits behind the end
 * are whatever lies there: the caller checks `at` against the length. */
struct hct_bit_reader {
	const uint8_t *data;
	size_t at;  /* bit */
	size_t end; /* bits; at never moves further than one code behind it */
};

/* At least 57 bits from the current one on. */
HCT_INLINE uint64_t hct_bits_peek(const struct hct_bit_reader *r)
{
	return hct_load64(r->data + r->at / 8) >> r->at % 8;
}

/* Zeros before a one, at most limit (below 57); the one is taken too unless the limit was
 * reached. */
HCT_INLINE unsigned hct_bits_unary(struct hct_bit_reader *r, unsigned limit)
{
	unsigned n = hct_ctz64(hct_bits_peek(r) | (uint64_t)1 << limit);

	r->at += n + (n < limit);
	return n;
}

/* count bits, at most 32. */
HCT_INLINE uint32_t hct_bits_take(struct hct_bit_reader *r, unsigned count)
{
	uint64_t v = hct_bits_peek(r) & (((uint64_t)1 << count) - 1);

	r->at += count;
	return (uint32_t)v;
}

/* Writes to a zeroed byte string with 8 bytes of room behind what is written. */
struct hct_bit_writer {
	uint8_t *data;
	size_t at; /* bit */
};

/* count bits, at most 56. */
HCT_INLINE void hct_bits_put(struct hct_bit_writer *w, uint64_t v, unsigned count)
{
	uint8_t *p = w->data + w->at / 8;

	hct_store64(p, hct_load64(p) | v << w->at % 8);
	w->at += count;
}

/* n zeros, and a one unless n is the limit. */
HCT_INLINE void hct_bits_put_unary(struct hct_bit_writer *w, unsigned n, unsigned limit)
{
	hct_bits_put(w, n < limit ? (uint64_t)1 << n : 0, n + (n < limit));
}

HCT_INLINE size_t hct_bits_bytes(size_t bits)
{
	return (bits + 7) / 8;
}

#endif
