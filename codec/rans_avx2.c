/* rANS on AVX2: one gather for each step of a register. */
#if defined __x86_64__

#include <immintrin.h>

#include "rans_avx2.h"

/* One symbol for each lane; returned in the 16-bit lanes of two registers. */
static inline void step(struct hct_lanes *l, struct hct_rans_stream *s, const uint32_t *wide,
			__m256i symbol[2])
{
	const __m256i low = _mm256_set1_epi32(255);
	const uint8_t *p = s->p;
	__m256i w[4];

	for (unsigned i = 0; i < 4; i++) {
		__m256i x = l->x[i];

		w[i] = _mm256_i32gather_epi32((const int *)wide, _mm256_and_si256(x, low), 4);
		l->x[i] = hct_advance(x, w[i], &p);
		w[i] = _mm256_srli_epi32(w[i], 16);
	}
	s->overrun |= (uint64_t)(s->end - p);
	s->p = p < s->end ? p : s->end;
	hct_narrow_lanes(w, symbol);
}

static void decode_segment(struct hct_rans_segment *s, uint8_t *symbols, size_t groups)
{
	struct hct_rans_segment u = *s;
	struct hct_lanes a = hct_load_lanes(u.sub[0].x), b = hct_load_lanes(u.sub[1].x);

	for (size_t g = 0; g < groups; g++, symbols += HCT_GROUP) {
		const uint32_t *wide = u.classes[u.map[u.group++ >> u.run_log2]].wide;
		__m256i sa[2], sb[2];

		step(&a, &u.sub[0], wide, sa);
		step(&b, &u.sub[1], wide, sb);
		for (unsigned i = 0; i < 2; i++)
			_mm256_storeu_si256((void *)(symbols + 32 * i),
					    _mm256_or_si256(sa[i], _mm256_slli_epi16(sb[i], 8)));
	}
	hct_store_lanes(u.sub[0].x, &a);
	hct_store_lanes(u.sub[1].x, &b);
	*s = u;
}

void hct_rans_decode_avx2(struct hct_rans_segment *s, uint8_t *symbols, struct hct_rans_segment *t,
			  uint8_t *t_symbols, size_t groups)
{
	decode_segment(s, symbols, groups);
	if (t)
		decode_segment(t, t_symbols, groups);
}

#endif
