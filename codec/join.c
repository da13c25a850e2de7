#include "join.h"

#include <string.h>

#include "bytes.h"

/* One group, for any layout. */
static inline void join_group(const struct hct_join_tables *t, const uint8_t *symbols,
			      const uint8_t *fields, const uint8_t *tail, const uint16_t *shifts,
			      uint8_t *dst)
{
	const struct hct_layout *l = t->layout;
	unsigned head_bits = l->exponent_bits + l->mantissa_bits, p = l->field_bits;
	unsigned tail_bits = 8 * l->tail;

	for (unsigned i = 0; i < HCT_GROUP; i++) {
		unsigned at = i < HCT_LANES ? 2 * i : 2 * (i - HCT_LANES) + 1, bit = at * p;
		/* The last field ends with the last byte: load the one before it for those. */
		unsigned field = (fields[bit / 8] | fields[(bit + p - 1) / 8] << 8) >> bit % 8;
		unsigned head = (t->head[symbols[at]] + shifts[i]) & ((1u << head_bits) - 1);
		uint64_t v;

		head |= field & ((1u << (p - 1)) - 1);
		head |= (field >> (p - 1) & 1) << head_bits;
		v = (uint64_t)head << tail_bits;
		for (unsigned b = 0; b < l->tail; b++)
			v |= (uint64_t)tail[i * l->tail + b] << 8 * b;
		memcpy(dst + i * l->unit, &v, l->unit);
	}
}

void hct_join_scalar(const struct hct_join_tables *t, const uint8_t *symbols, const uint8_t *fields,
		     const uint8_t *tail, uint32_t column, size_t groups, uint8_t *dst)
{
	const struct hct_layout *l = t->layout;

	for (size_t g = 0; g < groups; g++) {
		join_group(t, symbols, fields, tail, t->shifts + column, dst);
		symbols += HCT_GROUP;
		fields += 8 * l->field_bits;
		tail += HCT_GROUP * l->tail;
		dst += HCT_GROUP * l->unit;
		column += t->step;
		column -= column >= t->period ? t->period : 0;
	}
}

hct_join *hct_joiner(hct_simd simd)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		return hct_join_avx512;
	if (simd == HCT_SIMD_AVX2)
		return hct_join_avx2;
#endif
	(void)simd;
	return hct_join_scalar;
}
