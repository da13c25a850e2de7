#include "cut.h"

#include <string.h>

#include "bytes.h"

void hct_cut_heads(const struct hct_layout *l, const uint8_t *data, size_t n, uint16_t *heads)
{
	switch (l->unit) {
	case 1:
		for (size_t i = 0; i < n; i++)
			heads[i] = data[i];
		break;
	case 2:
		if (!l->tail)
			memcpy(heads, data, 2 * n);
		for (size_t i = 0; l->tail && i < n; i++)
			heads[i] = data[2 * i + 1];
		break;
	case 4:
		for (size_t i = 0; i < n; i++)
			heads[i] = (uint16_t)(hct_load32(data + 4 * i) >> 16);
		break;
	default:
		for (size_t i = 0; i < n; i++)
			heads[i] = hct_load16(data + 8 * i + 6);
	}
}

void hct_cut_tails(const struct hct_layout *l, const uint8_t *data, size_t n, uint8_t *tails)
{
	switch (l->tail) {
	case 0:
		break;
	case 1:
		for (size_t i = 0; i < n; i++)
			tails[i] = data[2 * i];
		break;
	case 2:
		for (size_t i = 0; i < n; i++)
			hct_store16(tails + 2 * i, hct_load16(data + 4 * i));
		break;
	default:
		for (size_t i = 0; i < n; i++)
			memcpy(tails + 6 * i, data + 8 * i, 6);
	}
}

/* Cuts the heads of a group.  Called with a constant layout, so that every shift is one. */
static inline __attribute__((always_inline)) void
cut_group(const struct hct_split_plan *p, const struct hct_layout l, const uint16_t *heads,
	  const uint16_t *shifts, uint8_t *symbols, uint8_t *fields)
{
	const unsigned joint = (1u << l.joint_bits) - 1, rest = l.field_bits - 1;
	const unsigned mask = (1u << l.exponent_bits) - 1;
	uint8_t field[HCT_GROUP];

	for (unsigned i = 0; i < HCT_GROUP; i++) {
		unsigned at = i < HCT_LANES ? 2 * i : 2 * (i - HCT_LANES) + 1, h = heads[i];
		unsigned slot = p->slot_of[((h >> l.mantissa_bits) - shifts[i]) & mask];
		unsigned j = h >> (l.mantissa_bits - l.joint_bits) & joint;

		symbols[at] = (uint8_t)((slot == 255 ? HCT_ESCAPE : slot << l.joint_bits) | j);
		field[at] = (uint8_t)((h & ((1u << rest) - 1)) |
				      (h >> (l.exponent_bits + l.mantissa_bits) & 1) << rest);
	}
	for (unsigned i = 0; i < HCT_GROUP; i += 8) {
		uint64_t v = 0;

		for (unsigned k = 0; k < 8; k++)
			v |= (uint64_t)field[i + k] << k * l.field_bits;
		/* The bytes behind these belong to the next eight, which come later. */
		hct_store64(fields + i / 8 * l.field_bits, v);
	}
}

void hct_cut_scalar(const struct hct_split_plan *p, const uint8_t *data, size_t n, uint64_t first,
		    uint8_t *symbols, uint8_t *fields)
{
	const struct hct_layout *l = p->t.layout;
	uint32_t column = (uint32_t)(first % p->period);

	for (size_t g = 0; g < n; g += HCT_GROUP) {
		size_t count = n - g < HCT_GROUP ? n - g : HCT_GROUP;
		uint16_t heads[HCT_GROUP] = {0};
		const uint16_t *s = p->columns + column;

		hct_cut_heads(l, data + g * l->unit, count, heads);
		if (l->exponent_bits == 8)
			cut_group(p, (struct hct_layout){0, 0, 8, 7, 1, 7}, heads, s, symbols,
				  fields);
		else if (l->exponent_bits == 5)
			cut_group(p, (struct hct_layout){0, 0, 5, 2, 1, 2}, heads, s, symbols,
				  fields);
		else if (l->exponent_bits == 4)
			cut_group(p, (struct hct_layout){0, 0, 4, 3, 2, 2}, heads, s, symbols,
				  fields);
		else
			cut_group(p, (struct hct_layout){0, 0, 11, 4, 1, 4}, heads, s, symbols,
				  fields);
		symbols += HCT_GROUP;
		fields += 8 * l->field_bits;
		column += p->step;
		column -= column >= p->period ? p->period : 0;
	}
}

hct_cut *hct_cutter(hct_simd simd)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		return hct_cut_avx512;
#endif
	(void)simd;
	return hct_cut_scalar;
}
