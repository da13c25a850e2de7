/* Cutting on AVX-512 with VBMI: BF16 and F32, the bulk of all weights; other layouts go to
 * the scalar variant. */
#if defined __x86_64__

#include <immintrin.h>
#include <string.h>

#include "cut.h"

/* The low byte of each 16-bit lane from a, the high one from b. */
static inline __m512i interleave(__m512i a, __m512i b)
{
	return _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x00ff), a, _mm512_slli_epi16(b, 8),
					 0xca);
}

/* slot_of, for exponents of 8 bits */
struct slots {
	__m512i part[4];
};

static inline __m512i look(const struct slots *t, __m512i e)
{
	__m512i lower = _mm512_permutex2var_epi8(t->part[0], e, t->part[1]);
	__m512i upper = _mm512_permutex2var_epi8(t->part[2], e, t->part[3]);

	return _mm512_mask_blend_epi8(_mm512_movepi8_mask(e), lower, upper);
}

/* The heads of 32 elements of 4 bytes. */
static inline __m512i heads32(const uint8_t *p)
{
	static const uint16_t odd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
					 23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
					 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};

	return _mm512_permutex2var_epi16(_mm512_loadu_si512(p), _mm512_loadu_si512(odd),
					 _mm512_loadu_si512(p + 64));
}

static inline void cut_group(const struct slots *t, __m512i a, __m512i b, const uint16_t *shifts,
			     uint8_t *symbols, uint8_t *fields)
{
	const __m512i low = _mm512_set1_epi16(0xff), sign = _mm512_set1_epi16(0x40);
	__m512i ea = _mm512_sub_epi16(_mm512_srli_epi16(a, 7), _mm512_loadu_si512(shifts));
	__m512i eb =
		_mm512_sub_epi16(_mm512_srli_epi16(b, 7), _mm512_loadu_si512(shifts + HCT_LANES));
	__m512i slot = look(t, interleave(_mm512_and_si512(ea, low), eb));
	__m512i joint = interleave(_mm512_srli_epi16(a, 6), _mm512_srli_epi16(b, 6));
	__m512i symbol =
		_mm512_mask_mov_epi8(_mm512_add_epi8(slot, slot), _mm512_movepi8_mask(slot),
				     _mm512_set1_epi8(HCT_ESCAPE));
	/* sign above six mantissa bits */
	__m512i fa = _mm512_ternarylogic_epi32(sign, _mm512_srli_epi16(a, 9), a, 0xca);
	__m512i fb = _mm512_ternarylogic_epi32(sign, _mm512_srli_epi16(b, 9), b, 0xca);
	uint64_t f[8];

	symbol = _mm512_ternarylogic_epi32(_mm512_set1_epi8(1), joint, symbol, 0xca);
	_mm512_storeu_si512(symbols, symbol);
	_mm512_storeu_si512(f, interleave(fa, fb));
	for (unsigned i = 0; i < 8; i++) {
		uint64_t v = _pext_u64(f[i], 0x7f7f7f7f7f7f7f7f);

		/* The eighth byte belongs to the next eight fields, which come later. */
		memcpy(fields + 7 * i, &v, 8);
	}
}

void hct_cut_avx512(const struct hct_split_plan *p, const uint8_t *data, size_t n, uint64_t first,
		    uint8_t *symbols, uint8_t *fields)
{
	const struct hct_layout *l = p->t.layout;
	uint32_t column = (uint32_t)(first % p->period);
	size_t full = n / HCT_GROUP;
	struct slots t;

	if (l->exponent_bits != 8) {
		hct_cut_scalar(p, data, n, first, symbols, fields);
		return;
	}
	for (unsigned i = 0; i < 4; i++)
		t.part[i] = _mm512_loadu_si512(p->slot_of + 64 * i);
	for (size_t g = 0; g < full; g++) {
		const uint8_t *d = data + g * HCT_GROUP * l->unit;
		__m512i a, b;

		if (l->unit == 2) {
			a = _mm512_loadu_si512(d);
			b = _mm512_loadu_si512(d + 64);
		} else {
			a = heads32(d);
			b = heads32(d + 128);
		}
		cut_group(&t, a, b, p->columns + column, symbols + g * HCT_GROUP, fields + 56 * g);
		column += p->step;
		column -= column >= p->period ? p->period : 0;
	}
	if (n % HCT_GROUP)
		hct_cut_scalar(p, data + full * HCT_GROUP * l->unit, n % HCT_GROUP,
			       first + full * HCT_GROUP, symbols + full * HCT_GROUP,
			       fields + 56 * full);
}

#endif
