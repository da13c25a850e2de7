#include "rans.h"

#include <string.h>

void hct_rans_order(const uint8_t freq[HCT_SYMBOLS], uint8_t cum[HCT_SYMBOLS])
{
	uint16_t starts[256] = {0}; /* by frequency */
	unsigned at = 0;

	for (unsigned s = 0; s < HCT_SYMBOLS; s++)
		starts[freq[s]] = (uint16_t)(starts[freq[s]] + freq[s]);
	for (unsigned f = 256; f-- > 0;) {
		unsigned n = starts[f];

		starts[f] = (uint16_t)at;
		at += n;
	}
	for (unsigned s = 0; s < HCT_SYMBOLS; s++) {
		cum[s] = (uint8_t)starts[freq[s]];
		starts[freq[s]] = (uint16_t)(starts[freq[s]] + freq[s]);
	}
}

int hct_rans_class_init(struct hct_rans_class *c, const uint8_t freq[HCT_SYMBOLS])
{
	unsigned sum = 0;

	for (unsigned s = 0; s < HCT_SYMBOLS; s++)
		sum += freq[s];
	if (sum != HCT_RANS_TOTAL)
		return -1;
	memcpy(c->freq, freq, HCT_SYMBOLS);
	hct_rans_order(freq, c->cum);
	for (unsigned s = 0; s < HCT_SYMBOLS; s++)
		for (unsigned i = 0; i < freq[s]; i++) {
			c->slot[c->cum[s] + i] = (uint8_t)s;
			c->wide[c->cum[s] + i] = freq[s] | i << 8 | s << 16;
		}
	return 0;
}

/* Without branches: half of them would go the wrong way.  Up to HCT_LANES bytes behind the end
 * may be read before that is noticed. */
static void decode_group(struct hct_rans_stream *s, const uint32_t *wide, uint8_t *symbols)
{
	const uint8_t *p = s->p;

	for (unsigned lane = 0; lane < HCT_LANES; lane++) {
		unsigned x = s->x[lane], low;
		uint32_t w = wide[x & 255];

		x = (w & 255) * (x >> 8) + (w >> 8 & 255);
		low = x < HCT_RANS_LOW;
		x = x << 8 * low | (*p & -low);
		p += low;
		s->x[lane] = (uint16_t)x;
		symbols[2 * lane] = (uint8_t)(w >> 16);
	}
	s->overrun |= (uint64_t)(s->end - p);
	s->p = p < s->end ? p : s->end;
}

static void decode_segment(struct hct_rans_segment *s, uint8_t *symbols, size_t groups)
{
	for (size_t g = 0; g < groups; g++, s->group++, symbols += HCT_GROUP) {
		const uint32_t *wide = s->classes[s->map[s->group >> s->run_log2]].wide;

		decode_group(&s->sub[0], wide, symbols);
		decode_group(&s->sub[1], wide, symbols + 1);
	}
}

void hct_rans_decode_scalar(struct hct_rans_segment *s, uint8_t *symbols,
			    struct hct_rans_segment *t, uint8_t *t_symbols, size_t groups)
{
	decode_segment(s, symbols, groups);
	if (t)
		decode_segment(t, t_symbols, groups);
}

int hct_rans_finished(const struct hct_rans_segment *s)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct hct_rans_stream *sub = &s->sub[i];

		if (sub->p != sub->end || sub->overrun >> 63)
			return 0;
		for (unsigned lane = 0; lane < HCT_LANES; lane++)
			if (sub->x[lane] != HCT_RANS_LOW)
				return 0;
	}
	return 1;
}

void hct_rans_coder_init(struct hct_rans_coder *c, const uint8_t freq[HCT_SYMBOLS])
{
	uint8_t cum[HCT_SYMBOLS];

	hct_rans_order(freq, cum);
	for (unsigned s = 0; s < HCT_SYMBOLS; s++) {
		c->freq[s] = freq[s];
		c->cum[s] = cum[s];
		c->reciprocal[s] = (uint16_t)(freq[s] > 1 ? 65536u / freq[s] : freq[s] * 65535u);
	}
}

void hct_rans_encode_scalar(const struct hct_rans_coder *classes, const uint8_t *map,
			    unsigned run_log2, const uint8_t *symbols, size_t groups,
			    uint8_t *const end[2], uint8_t *begin[2], uint16_t states[2][HCT_LANES])
{
	for (unsigned i = 0; i < 2; i++) {
		uint8_t *p = end[i];
		uint16_t *x = states[i];

		for (unsigned lane = 0; lane < HCT_LANES; lane++)
			x[lane] = HCT_RANS_LOW;
		for (size_t g = groups; g-- > 0;) {
			const struct hct_rans_coder *c = &classes[map[g >> run_log2]];

			for (unsigned lane = HCT_LANES; lane-- > 0;) {
				unsigned s = symbols[g * HCT_GROUP + 2 * lane + i];
				unsigned f = c->freq[s], v = x[lane], full = v >= f << 8, q;

				/* Without branches: half of them would go the wrong way. */
				p[-1] = (uint8_t)v;
				p -= full;
				v >>= 8 * full;
				q = v * c->reciprocal[s] >> 16; /* the quotient, or one less */
				v -= q * f;
				full = v >= f;
				q += full;
				v -= f & -full;
				x[lane] = (uint16_t)(q << 8 | (v + c->cum[s]));
			}
		}
		begin[i] = p;
	}
}

hct_rans_decode *hct_rans_decoder(hct_simd simd)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		return hct_rans_decode_avx512;
	if (simd == HCT_SIMD_AVX2)
		return hct_rans_decode_avx2;
#endif
	(void)simd;
	return hct_rans_decode_scalar;
}

hct_rans_encode *hct_rans_encoder(hct_simd simd)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		return hct_rans_encode_avx512;
#endif
	(void)simd;
	return hct_rans_encode_scalar;
}
