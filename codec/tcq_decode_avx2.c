/* The entropy stage of the tcq codec on AVX2: one gather for each step of a register, from the
 * table that the trellis and the column choose. */
#if defined __x86_64__

#include <immintrin.h>

#include "bytes.h"
#include "rans_avx2.h"
#include "tcq_decode.h"

#define INLINE static inline __attribute__((always_inline))

/* A substream: rANS states, and those of the trellis. */
struct lanes {
	struct hct_lanes rans;
	__m256i trellis[4];
};

/* Every other one of 64 bytes, from the first (sub 0) or the second on. */
static struct lanes begin(const struct hct_tcq_segment *s, unsigned sub)
{
	struct lanes l = {.rans = hct_load_lanes(s->rans.sub[sub].x)};

	for (unsigned i = 0; i < 4; i++) {
		__m128i v = _mm_srl_epi16(_mm_loadu_si128((const void *)(s->state + 16 * i)),
					  _mm_cvtsi32_si128(8 * (int)sub));

		l.trellis[i] = _mm256_cvtepu16_epi32(_mm_and_si128(v, _mm_set1_epi16(255)));
	}
	return l;
}

static void end(struct hct_tcq_segment *s, const struct lanes *a, const struct lanes *b)
{
	__m256i ta[2], tb[2];

	hct_store_lanes(s->rans.sub[0].x, &a->rans);
	hct_store_lanes(s->rans.sub[1].x, &b->rans);
	hct_narrow_lanes(a->trellis, ta);
	hct_narrow_lanes(b->trellis, tb);
	for (unsigned i = 0; i < 2; i++)
		_mm256_storeu_si256((void *)(s->state + 32 * i),
				    _mm256_or_si256(ta[i], _mm256_slli_epi16(tb[i], 8)));
}

/* One code for each lane; returned in the 16-bit lanes of two registers.  columns: of its elements,
 * or NULL; odd: bit 2 i for lane i.  has_columns and raw are constant. */
INLINE void step(const struct hct_tcq_stage *t, struct lanes *l, struct hct_rans_stream *s,
		 const uint32_t *wide, const uint8_t *columns, uint64_t odd, int has_columns,
		 int raw, __m256i code[2])
{
	const __m256i low = _mm256_set1_epi32(255), one = _mm256_set1_epi32(1);
	const __m256i lane_bit = _mm256_setr_epi32(1, 4, 16, 64, 256, 1024, 4096, 16384);
	const uint8_t *p = s->p;
	__m256i w[4];

	for (unsigned i = 0; i < 4; i++) {
		__m256i x = l->rans.x[i], v = l->trellis[i];
		__m256i table = _mm256_slli_epi32(_mm256_and_si256(v, one), 5), index;

		if (has_columns)
			table = _mm256_or_si256(table, _mm256_cvtepu8_epi32(_mm_loadl_epi64(
							       (const void *)(columns + 8 * i))));
		index = _mm256_or_si256(_mm256_slli_epi32(table, 3), _mm256_and_si256(x, low));
		w[i] = _mm256_i32gather_epi32((const int *)wide, index, 4);
		l->rans.x[i] = hct_advance(x, w[i], &p);
		v = _mm256_xor_si256(_mm256_srli_epi32(v, 1), _mm256_srli_epi32(w[i], 24));
		if (raw) {
			__m256i bits = _mm256_set1_epi32((int)(odd >> 16 * i & 0xffff));

			bits = _mm256_cmpeq_epi32(_mm256_and_si256(bits, lane_bit), lane_bit);
			bits = _mm256_and_si256(bits, _mm256_set1_epi32((int)t->odd));
			v = _mm256_xor_si256(v, bits);
		}
		l->trellis[i] = v;
		w[i] = _mm256_and_si256(_mm256_srli_epi32(w[i], 16), _mm256_set1_epi32(31));
		w[i] = _mm256_or_si256(w[i], table);
	}
	s->overrun |= (uint64_t)(s->end - p);
	s->p = p < s->end ? p : s->end;
	hct_narrow_lanes(w, code);
}

INLINE void decode_segment(const struct hct_tcq_stage *t, struct hct_tcq_segment *s, uint8_t *codes,
			   size_t groups, int has_columns, int raw)
{
	struct hct_tcq_segment u = *s;
	struct lanes a = begin(s, 0), b = begin(s, 1);

	for (size_t g = 0; g < groups; g++, u.rans.group++, codes += HCT_GROUP) {
		const uint32_t *wide = hct_tcq_wide(t, &u.rans);
		const uint8_t *columns = has_columns ? t->columns + u.column : NULL;
		uint64_t odd = raw ? hct_load64(u.raw) : 0;
		__m256i ca[2], cb[2];

		step(t, &a, &u.rans.sub[0], wide, columns, odd, has_columns, raw, ca);
		if (has_columns)
			columns += HCT_LANES;
		step(t, &b, &u.rans.sub[1], wide, columns, odd >> 1, has_columns, raw, cb);
		for (unsigned i = 0; i < 2; i++)
			_mm256_storeu_si256((void *)(codes + 32 * i),
					    _mm256_or_si256(ca[i], _mm256_slli_epi16(cb[i], 8)));
		u.raw += 8 * t->raw_bits;
		u.column = hct_tcq_next_column(t, u.column);
	}
	end(&u, &a, &b);
	*s = u;
}

void hct_tcq_decode_avx2(const struct hct_tcq_stage *t, struct hct_tcq_segment *const *s,
			 size_t count, size_t groups, uint8_t *codes)
{
	for (size_t i = 0; i < count; i++, codes += HCT_TCQ_STRIDE) {
		if (t->columns && t->raw_bits)
			decode_segment(t, s[i], codes, groups, 1, 1);
		else if (t->columns)
			decode_segment(t, s[i], codes, groups, 1, 0);
		else if (t->raw_bits)
			decode_segment(t, s[i], codes, groups, 0, 1);
		else
			decode_segment(t, s[i], codes, groups, 0, 0);
	}
}

#endif
