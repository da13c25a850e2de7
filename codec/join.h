/* Internal: joins symbols, fields and tails into elements (FORMAT.md section 4).
 *
 * Every variant gives the same bytes on any input. */
#ifndef HCT_JOIN_H
#define HCT_JOIN_H

#include <stddef.h>
#include <stdint.h>

#include "rans.h"
#include "split.h"

/* What the groups of a tensor have in common. */
struct hct_join_tables {
	const struct hct_layout *layout;
	uint16_t head[HCT_SYMBOLS]; /* exponent and joint bits at their place in the head */
	uint8_t low[HCT_SYMBOLS];   /* low 8 bits of the exponent by symbol, for byte look-ups */
	uint8_t head8[HCT_SYMBOLS]; /* head of 8-bit heads */
	uint32_t period;            /* at least 1 */
	uint32_t step;              /* 64 mod period */
	/* Shift of each column, at the place of the exponent in the head; period + 64
	 * entries, the last 64 continuing from the first. */
	const uint16_t *shifts;
} __attribute__((aligned(64)));

/* Joins groups of 64 elements.  symbols: 64 bytes a group, in order of position;
 * fields: 8 P bytes a group, with 64 readable bytes behind the last; tail: T bytes an
 * element; column: of the first element, below period.  dst need not be aligned. */
typedef void hct_join(const struct hct_join_tables *t, const uint8_t *symbols,
		      const uint8_t *fields, const uint8_t *tail, uint32_t column, size_t groups,
		      uint8_t *dst);

/* The loops of one variant, by kind of head and tail; NULL where it has none of its own. */
struct hct_join_loops {
	hct_join *f8, *f16, *bf16, *f32, *f64;
};

extern const struct hct_join_loops hct_join_avx2, hct_join_avx512;

/* The loop for a layout and an instruction set, never HCT_SIMD_AUTO. */
hct_join *hct_joiner(hct_simd simd, const struct hct_layout *l);

/* The column at which the group after this one begins. */
static inline uint32_t hct_next_column(const struct hct_join_tables *t, uint32_t column)
{
	column += t->step;
	return column >= t->period ? column - t->period : column;
}

#endif
