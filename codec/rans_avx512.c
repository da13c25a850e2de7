/* rANS on AVX-512 with VBMI and VBMI2: the 32 states of a substream are one register,
 * the tables of a class are byte permutations, and no memory is gathered.
 *
 * The slots of A and B are interleaved into the 64 bytes of one register, so that one
 * look-up serves both.  The frequency times the upper half of a state is at most
 * 255 * 255: everything fits 16 bits. */
#if defined __x86_64__

#include <immintrin.h>

#include "rans.h"

/* What a step works on, in registers: the states of A and B and where their bytes are. */
struct pair {
	__m512i a, b;
	const uint8_t *p, *q;
};

/* The low byte of each 16-bit lane from a, the high one from b. */
static inline __m512i low_high(__m512i a, __m512i b)
{
	return _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x00ff), a, b, 0xca);
}

/* Where the state fell below 256: shifts in the next bytes of the run, in lane order. */
static inline __m512i refill(__m512i y, const uint8_t **p)
{
	__mmask32 k = _mm512_cmplt_epu16_mask(y, _mm512_set1_epi16(HCT_RANS_LOW));
	__m512i bytes = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)*p));

	*p += __builtin_popcount(k);
	return _mm512_or_si512(_mm512_mask_slli_epi16(y, k, y, 8),
			       _mm512_maskz_expand_epi16(k, bytes));
}

static inline __m512i step(struct pair *x, const struct hct_rans_class *c)
{
	const __m512i low = _mm512_set1_epi16(0x00ff);
	__m512i slot = low_high(x->a, _mm512_slli_epi16(x->b, 8));
	__m512i s0 = _mm512_permutex2var_epi8(_mm512_load_si512(c->slot), slot,
					      _mm512_load_si512(c->slot + 64));
	__m512i s1 = _mm512_permutex2var_epi8(_mm512_load_si512(c->slot + 128), slot,
					      _mm512_load_si512(c->slot + 192));
	__m512i symbol = _mm512_mask_blend_epi8(_mm512_movepi8_mask(slot), s0, s1);
	__m512i freq = _mm512_permutexvar_epi8(symbol, _mm512_load_si512(c->freq));
	__m512i rest =
		_mm512_sub_epi8(slot, _mm512_permutexvar_epi8(symbol, _mm512_load_si512(c->cum)));
	__m512i a = _mm512_mullo_epi16(_mm512_and_si512(freq, low), _mm512_srli_epi16(x->a, 8));
	__m512i b = _mm512_mullo_epi16(_mm512_srli_epi16(freq, 8), _mm512_srli_epi16(x->b, 8));

	x->a = refill(_mm512_add_epi16(a, _mm512_and_si512(rest, low)), &x->p);
	x->b = refill(_mm512_add_epi16(b, _mm512_srli_epi16(rest, 8)), &x->q);
	return symbol;
}

static inline struct pair load_pair(const struct hct_rans_segment *s)
{
	return (struct pair){_mm512_loadu_si512(s->sub[0].x), _mm512_loadu_si512(s->sub[1].x),
			     s->sub[0].p, s->sub[1].p};
}

/* Stops at the last byte and notes that more were asked for. */
static inline const uint8_t *stop_at_end(struct hct_rans_stream *s, const uint8_t *p)
{
	s->overrun |= (uint64_t)(s->end - p);
	return p < s->end ? p : s->end;
}

static inline void stop_pair(struct hct_rans_segment *s, struct pair *x)
{
	x->p = stop_at_end(&s->sub[0], x->p);
	x->q = stop_at_end(&s->sub[1], x->q);
}

static inline void store_pair(struct hct_rans_segment *s, struct pair x)
{
	_mm512_storeu_si512(s->sub[0].x, x.a);
	_mm512_storeu_si512(s->sub[1].x, x.b);
	s->sub[0].p = x.p;
	s->sub[1].p = x.q;
}

/* Groups that can be decoded without a look at the end of the bytes, of which one takes at most
 * 32 from each substream; 1 when there is no such, and then stop_pair must follow. */
static inline size_t safe_groups(const struct hct_rans_segment *s, const struct pair *x)
{
	size_t a = (size_t)(s->sub[0].end - x->p), b = (size_t)(s->sub[1].end - x->q);
	size_t n = (a < b ? a : b) / HCT_LANES;

	return n ? n : 1;
}

/* Groups until the class changes, and no more than `groups`. */
static inline size_t run_groups(const struct hct_rans_segment *s, size_t groups)
{
	size_t run = (size_t)1 << s->run_log2, left = run - (s->group & (run - 1));

	return left < groups ? left : groups;
}

static inline const struct hct_rans_class *class_of(const struct hct_rans_segment *s)
{
	return &s->classes[s->map[s->group >> s->run_log2]];
}

static void decode_one(struct hct_rans_segment *s, uint8_t *symbols, size_t groups)
{
	struct pair x = load_pair(s);

	while (groups) {
		const struct hct_rans_class *c = class_of(s);
		size_t n = run_groups(s, groups), safe = safe_groups(s, &x);

		n = n < safe ? n : safe;
		for (size_t g = 0; g < n; g++, symbols += HCT_GROUP)
			_mm512_storeu_si512(symbols, step(&x, c));
		stop_pair(s, &x);
		s->group += n;
		groups -= n;
	}
	store_pair(s, x);
}

void hct_rans_decode_avx512(struct hct_rans_segment *s, uint8_t *symbols,
			    struct hct_rans_segment *t, uint8_t *t_symbols, size_t groups)
{
	struct pair x, y;

	if (!t || s->group != t->group || s->run_log2 != t->run_log2) {
		decode_one(s, symbols, groups);
		if (t)
			decode_one(t, t_symbols, groups);
		return;
	}
	x = load_pair(s);
	y = load_pair(t);
	while (groups) {
		const struct hct_rans_class *c = class_of(s), *d = class_of(t);
		size_t n = run_groups(s, groups);
		size_t safe = safe_groups(s, &x), other = safe_groups(t, &y);

		safe = safe < other ? safe : other;
		n = n < safe ? n : safe;
		for (size_t g = 0; g < n; g++) {
			_mm512_storeu_si512(symbols, step(&x, c));
			_mm512_storeu_si512(t_symbols, step(&y, d));
			symbols += HCT_GROUP;
			t_symbols += HCT_GROUP;
		}
		stop_pair(s, &x);
		stop_pair(t, &y);
		s->group += n;
		t->group += n;
		groups -= n;
	}
	store_pair(s, x);
	store_pair(t, y);
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
