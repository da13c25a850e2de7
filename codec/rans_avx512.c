/* rANS on AVX-512 with VBMI and VBMI2. */
#if defined __x86_64__

#include <immintrin.h>

#include "rans_avx512.h"

static void decode_one(struct hct_rans_segment *s, uint8_t *symbols, size_t groups)
{
	struct hct_pair x = hct_load_pair(s);

	while (groups) {
		const struct hct_rans_class *c = hct_class_of(s);
		size_t n = hct_run_groups(s, groups), safe = hct_safe_groups(s, &x);

		n = n < safe ? n : safe;
		for (size_t g = 0; g < n; g++, symbols += HCT_GROUP)
			_mm512_storeu_si512(symbols, hct_rans_step(&x, c));
		hct_stop_pair(s, &x);
		s->group += n;
		groups -= n;
	}
	hct_store_pair(s, x);
}

void hct_rans_decode_avx512(struct hct_rans_segment *s, uint8_t *symbols,
			    struct hct_rans_segment *t, uint8_t *t_symbols, size_t groups)
{
	struct hct_pair x, y;

	if (!t || s->group != t->group || s->run_log2 != t->run_log2) {
		decode_one(s, symbols, groups);
		if (t)
			decode_one(t, t_symbols, groups);
		return;
	}
	x = hct_load_pair(s);
	y = hct_load_pair(t);
	while (groups) {
		const struct hct_rans_class *c = hct_class_of(s), *d = hct_class_of(t);
		size_t n = hct_run_groups(s, groups);
		size_t safe = hct_safe_groups(s, &x), other = hct_safe_groups(t, &y);

		safe = safe < other ? safe : other;
		n = n < safe ? n : safe;
		for (size_t g = 0; g < n; g++) {
			_mm512_storeu_si512(symbols, hct_rans_step(&x, c));
			_mm512_storeu_si512(t_symbols, hct_rans_step(&y, d));
			symbols += HCT_GROUP;
			t_symbols += HCT_GROUP;
		}
		hct_stop_pair(s, &x);
		hct_stop_pair(t, &y);
		s->group += n;
		t->group += n;
		groups -= n;
	}
	hct_store_pair(s, x);
	hct_store_pair(t, y);
}

/* Looks up 16 bits for each of 32 symbols in lanes of 16 bits. */
static inline __m512i look16(const uint16_t table[HCT_SYMBOLS], __m512i symbol)
{
	return _mm512_permutex2var_epi16(_mm512_loadu_si512(table), symbol,
					 _mm512_loadu_si512(table + 32));
}

/* Encodes one symbol a lane; the bytes go before p. */
static inline __m512i encode_step(__m512i x, __m512i symbol, const struct hct_rans_coder *c,
				  uint8_t **p)
{
	__m512i f = look16(c->freq, symbol), q, r;
	/* x >= f << 8, in which f << 8 may be 0 for 256 only: frequencies are below that */
	__mmask32 k = _mm512_cmpge_epu16_mask(x, _mm512_slli_epi16(f, 8));
	__m256i bytes = _mm256_maskz_compress_epi8(k, _mm512_cvtepi16_epi8(x));
	unsigned n = (unsigned)__builtin_popcount(k);

	*p -= n;
	_mm256_mask_storeu_epi8(*p, (__mmask32)_bzhi_u32(~0u, n), bytes);
	x = _mm512_mask_srli_epi16(x, k, x, 8);
	q = _mm512_mulhi_epu16(x, look16(c->reciprocal, symbol));
	r = _mm512_sub_epi16(x, _mm512_mullo_epi16(q, f));
	k = _mm512_cmpge_epu16_mask(r, f);
	q = _mm512_mask_add_epi16(q, k, q, _mm512_set1_epi16(1));
	r = _mm512_mask_sub_epi16(r, k, r, f);
	return _mm512_add_epi16(_mm512_slli_epi16(q, 8),
				_mm512_add_epi16(r, look16(c->cum, symbol)));
}

void hct_rans_encode_avx512(const struct hct_rans_coder *classes, const uint8_t *map,
			    unsigned run_log2, const uint8_t *symbols, size_t groups,
			    uint8_t *const end[2], uint8_t *begin[2], uint16_t states[2][HCT_LANES])
{
	__m512i x = _mm512_set1_epi16(HCT_RANS_LOW), y = x;
	uint8_t *a = end[0], *b = end[1];

	for (size_t g = groups; g-- > 0;) {
		const struct hct_rans_coder *c = &classes[map[g >> run_log2]];
		__m512i s = _mm512_loadu_si512(symbols + g * HCT_GROUP);

		x = encode_step(x, _mm512_and_si512(s, _mm512_set1_epi16(0x00ff)), c, &a);
		y = encode_step(y, _mm512_srli_epi16(s, 8), c, &b);
	}
	_mm512_storeu_si512(states[0], x);
	_mm512_storeu_si512(states[1], y);
	begin[0] = a;
	begin[1] = b;
}

#endif
