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

/* Group after group, of one layout: that of t, as a constant. */
static inline __attribute__((always_inline)) void
join_groups(const struct hct_join_tables *t, const struct hct_layout l, const uint8_t *symbols,
	    const uint8_t *fields, const uint8_t *tail, uint32_t column, size_t groups,
	    uint8_t *dst)
{
	for (size_t g = 0; g < groups; g++) {
		join_group(t->head, l, symbols, fields, tail, t->shifts + column, dst);
		symbols += HCT_GROUP;
		fields += 8 * l.field_bits;
		tail += HCT_GROUP * l.tail;
		dst += HCT_GROUP * l.unit;
		column = hct_next_column(t, column);
	}
}

#define LOOP(name, ...)                                                                            \
	static void name(const struct hct_join_tables *t, const uint8_t *symbols,                  \
			 const uint8_t *fields, const uint8_t *tail, uint32_t column,              \
			 size_t groups, uint8_t *dst)                                              \
	{                                                                                          \
		join_groups(t, (struct hct_layout){__VA_ARGS__}, symbols, fields, tail, column,    \
			    groups, dst);                                                          \
	}

LOOP(join_e4m3, 1, 0, 4, 3, 2, 2)
LOOP(join_e5m2, 1, 0, 5, 2, 1, 2)
LOOP(join_f16, 2, 1, 5, 2, 1, 2)
LOOP(join_bf16, 2, 0, 8, 7, 1, 7)
LOOP(join_f32, 4, 2, 8, 7, 1, 7)
LOOP(join_f64, 8, 6, 11, 4, 1, 4)

static void join_f8(const struct hct_join_tables *t, const uint8_t *symbols, const uint8_t *fields,
		    const uint8_t *tail, uint32_t column, size_t groups, uint8_t *dst)
{
	hct_join *join = t->layout->exponent_bits == 5 ? join_e5m2 : join_e4m3;

	join(t, symbols, fields, tail, column, groups, dst);
}

static const struct hct_join_loops scalar = {
	.f8 = join_f8, .f16 = join_f16, .bf16 = join_bf16, .f32 = join_f32, .f64 = join_f64};

static hct_join *loop_for(const struct hct_join_loops *loops, const struct hct_layout *l)
{
	switch (l->unit) {
	case 1:
		return loops->f8;
	case 2:
		return l->tail ? loops->f16 : loops->bf16;
	case 4:
		return loops->f32;
	default:
		return loops->f64;
	}
}

hct_join *hct_joiner(hct_simd simd, const struct hct_layout *l)
{
	hct_join *join = NULL;

#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		join = loop_for(&hct_join_avx512, l);
	if (simd == HCT_SIMD_AVX2)
		join = loop_for(&hct_join_avx2, l);
#endif
	(void)simd;
	return join ? join : loop_for(&scalar, l);
}
