#include "dequant.h"

#include "dequant_kernel.h"

void hct_dequant_init(struct hct_dequant *q, const struct hct_tcq_layer *l)
{
	q->raw_bits = l->raw_bits;
	q->step = l->step;
	q->fine = l->step * 0x1p-6f;
	for (int i = 0; i < HCT_TCQ_POINTS; i++) {
		int symbol = i % HCT_TCQ_SYMBOLS, parity = i / HCT_TCQ_SYMBOLS;
		int n = 64 * (2 * (symbol - HCT_TCQ_ZERO) + parity) + l->offset[i];

		q->point[i] = hct_tcq_value(l->step, n);
		q->low[i] = (uint8_t)(n & 255);
		q->high[i] = (uint8_t)(n >> 8 & 255);
	}
}

/* Raw bits: 64 n = 64 (2 (c - 16 2^b) + parity) steps of 1/64 are n steps: both factors are those
 * of the formula times a power of two. */
static float raw_value(const struct hct_dequant *q, unsigned code, unsigned raw)
{
	int c = (int)((code % HCT_TCQ_SYMBOLS) << q->raw_bits | raw);
	int n = 2 * (c - (HCT_TCQ_ZERO << q->raw_bits)) + (int)(code / HCT_TCQ_SYMBOLS & 1);

	return (float)n * q->step;
}

static void floats(const struct hct_dequant *q, const uint8_t *codes, const uint8_t *raw,
		   size_t groups, float *dst)
{
	for (size_t g = 0; g < groups; g++, codes += HCT_GROUP, dst += HCT_GROUP) {
		uint64_t planes[HCT_TCQ_MAX_RAW];

		for (unsigned i = 0; i < q->raw_bits; i++, raw += 8)
			planes[i] = hct_load64(raw);
		for (unsigned i = 0; i < HCT_GROUP; i++) {
			unsigned at = hct_position(i), bits = 0;

			for (unsigned b = 0; b < q->raw_bits; b++)
				bits |= (unsigned)(planes[b] >> at & 1) << b;
			dst[i] = q->raw_bits ? raw_value(q, codes[at], bits)
					     : q->point[codes[at] % HCT_TCQ_POINTS];
		}
	}
}

static void look16(const uint16_t table[HCT_TCQ_POINTS], const uint8_t *codes, size_t groups,
		   uint8_t *dst)
{
	for (size_t g = 0; g < groups; g++, codes += HCT_GROUP, dst += 2 * HCT_GROUP)
		for (unsigned i = 0; i < HCT_GROUP; i++)
			hct_store16(dst + 2 * i, table[codes[hct_position(i)] % HCT_TCQ_POINTS]);
}

static void look8(const uint8_t table[HCT_TCQ_POINTS], const uint8_t *codes, size_t groups,
		  uint8_t *dst)
{
	for (size_t g = 0; g < groups; g++, codes += HCT_GROUP, dst += HCT_GROUP)
		for (unsigned i = 0; i < HCT_GROUP; i++)
			dst[i] = table[codes[hct_position(i)] % HCT_TCQ_POINTS];
}

const struct hct_dequant_loops hct_dequant_scalar = {.floats = floats,
						     .look16 = look16,
						     .look8 = look8,
						     .add = add_floats,
						     .narrow = NARROW_LOOPS};

const struct hct_dequant_loops *hct_dequant_find(hct_simd simd)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		return &hct_dequant_avx512;
	if (simd == HCT_SIMD_AVX2)
		return &hct_dequant_avx2;
#endif
	(void)simd;
	return &hct_dequant_scalar;
}
