/* rANS on AVX2: 8 lanes a register, one gather for each step of a register, and a
 * shuffle that deals the next bytes of the run to the lanes that need one. */
#if defined __x86_64__

#include <immintrin.h>

#include "rans.h"

/* The 32 states of a substream, 8 in each register. */
struct lanes {
	__m256i x[4];
};

/* For a mask of 8 lanes: which of the next 8 bytes each lane takes, that is, how many lanes
 * below it take one. */
static inline __m256i deal_index(unsigned mask)
{
	uint64_t ones = _pdep_u64(mask, 0x0101010101010101u);
	uint64_t ranks = (ones * 0x0101010101010101u) - ones;

	return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)ranks));
}

static inline struct lanes load_lanes(const uint16_t x[HCT_LANES])
{
	struct lanes l;

	for (unsigned i = 0; i < 4; i++)
		l.x[i] = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(x + 8 * i)));
	return l;
}

static inline void store_lanes(uint16_t x[HCT_LANES], const struct lanes *l)
{
	for (unsigned i = 0; i < 4; i++) {
		__m256i v = _mm256_permute4x64_epi64(_mm256_packus_epi32(l->x[i], l->x[i]), 0x08);

		_mm_storeu_si128((void *)(x + 8 * i), _mm256_castsi256_si128(v));
	}
}

/* One symbol for each lane; returned in the 16-bit lanes of two registers. */
static inline void step(struct lanes *l, struct hct_rans_stream *s, const uint32_t *wide,
			__m256i symbol[2])
{
	const __m256i low = _mm256_set1_epi32(255);
	const uint8_t *p = s->p;
	__m256i w[4];

	for (unsigned i = 0; i < 4; i++) {
		__m256i x = l->x[i], y, index, bytes, need;
		unsigned mask;

		w[i] = _mm256_i32gather_epi32((const int *)wide, _mm256_and_si256(x, low), 4);
		/* Both factors are below 256, so the 16-bit product is the whole. */
		y = _mm256_mullo_epi16(_mm256_and_si256(w[i], low), _mm256_srli_epi32(x, 8));
		y = _mm256_add_epi32(y, _mm256_and_si256(_mm256_srli_epi32(w[i], 8), low));
		need = _mm256_cmpgt_epi32(_mm256_set1_epi32(HCT_RANS_LOW), y);
		mask = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(need));
		index = deal_index(mask);
		bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
		bytes = _mm256_permutevar8x32_epi32(bytes, index);
		p += __builtin_popcount(mask);
		l->x[i] = _mm256_blendv_epi8(y, _mm256_or_si256(_mm256_slli_epi32(y, 8), bytes),
					     need);
		w[i] = _mm256_srli_epi32(w[i], 16);
	}
	s->overrun |= (uint64_t)(s->end - p);
	s->p = p < s->end ? p : s->end;
	symbol[0] = _mm256_permute4x64_epi64(_mm256_packus_epi32(w[0], w[1]), 0xd8);
	symbol[1] = _mm256_permute4x64_epi64(_mm256_packus_epi32(w[2], w[3]), 0xd8);
}

static void decode_segment(struct hct_rans_segment *s, uint8_t *symbols, size_t groups)
{
	struct hct_rans_segment u = *s;
	struct lanes a = load_lanes(u.sub[0].x), b = load_lanes(u.sub[1].x);

	for (size_t g = 0; g < groups; g++, symbols += HCT_GROUP) {
		const uint32_t *wide = u.classes[u.map[u.group++ >> u.run_log2]].wide;
		__m256i sa[2], sb[2];

		step(&a, &u.sub[0], wide, sa);
		step(&b, &u.sub[1], wide, sb);
		for (unsigned i = 0; i < 2; i++)
			_mm256_storeu_si256((void *)(symbols + 32 * i),
					    _mm256_or_si256(sa[i], _mm256_slli_epi16(sb[i], 8)));
	}
	store_lanes(u.sub[0].x, &a);
	store_lanes(u.sub[1].x, &b);
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
