#include "join.h"

#include <string.h>

#include "bytes.h"

/* One group.  Called with a constant layout, so that every shift and copy is one. */
static inline __attribute__((always_inline)) void
join_group(const uint16_t *heads, const struct hct_layout l, const uint8_t *symbols,
	   const uint8_t *fields, const uint8_t *tail, const uint16_t *shifts, uint8_t *dst)
{
	const unsigned head_bits = l.exponent_bits + l.mantissa_bits, rest = l.field_bits - 1;
	uint8_t field[HCT_GROUP];

	for (unsigned i = 0; i < HCT_GROUP; i += 8) {
		uint64_t v = hct_load64(fields + i / 8 * l.field_bits);

		for (unsigned k = 0; k < 8; k++)
			field[i + k] =
				(uint8_t)(v >> k * l.field_bits & ((1u << l.field_bits) - 1));
	}
	for (unsigned i = 0; i < HCT_GROUP; i++) {
		unsigned at = i < HCT_LANES ? 2 * i : 2 * (i - HCT_LANES) + 1;
		unsigned head = (heads[symbols[at]] + shifts[i]) & ((1u << head_bits) - 1);
		uint64_t v = 0;

		head |= field[at] & ((1u << rest) - 1);
		head |= (unsigned)(field[at] >> rest) << head_bits;
		memcpy(&v, tail + i * l.tail, l.tail);
		v |= (uint64_t)head << 8 * l.tail;
		memcpy(dst + i * l.unit, &v, l.unit);
	}
}

#define JOIN(...)                                                                                  \
	join_group(t->head, (struct hct_layout){__VA_ARGS__}, symbols, fields, tail,               \
		   t->shifts + column, dst)

void hct_join_scalar(const struct hct_join_tables *t, const uint8_t *symbols, const uint8_t *fields,
		     const uint8_t *tail, uint32_t column, size_t groups, uint8_t *dst)
{
	const struct hct_layout *l = t->layout;

	for (size_t g = 0; g < groups; g++) {
		if (l->unit == 8)
			JOIN(8, 6, 11, 4, 1, 4);
		else if (l->unit == 4)
			JOIN(4, 2, 8, 7, 1, 7);
		else if (l->unit == 2 && l->tail)
			JOIN(2, 1, 5, 2, 1, 2);
		else if (l->unit == 2)
			JOIN(2, 0, 8, 7, 1, 7);
		else if (l->exponent_bits == 5)
			JOIN(1, 0, 5, 2, 1, 2);
		else
			JOIN(1, 0, 4, 3, 2, 2);
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
