/* Internal: entropy decoding and joining of two segments in one loop, for the layouts and
 * instruction sets where that pays: each hides the other's latency, and symbols never leave
 * the registers.  The same bytes as hct_rans_decode and then hct_join. */
#ifndef HCT_ONEPASS_H
#define HCT_ONEPASS_H

#include <stddef.h>
#include <stdint.h>

#include "join.h"
#include "rans.h"

/* One of the two segments, at the next group of its rans. */
struct hct_onepass_part {
	struct hct_rans_segment *rans;
	const uint8_t *fields, *tail;
	uint32_t column;
	uint8_t *dst;
};

/* Decodes the next groups of both, which stand at the same group number and are whole. */
typedef void hct_onepass(const struct hct_join_tables *t, const struct hct_onepass_part *a,
			 const struct hct_onepass_part *b, size_t groups);

hct_onepass hct_onepass_bf16_avx512, hct_onepass_f32_avx512;

/* NULL where there is none. */
static inline hct_onepass *hct_onepass_find(hct_simd simd, const struct hct_layout *l)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512 && l->unit == 2 && !l->tail)
		return hct_onepass_bf16_avx512;
	if (simd == HCT_SIMD_AVX512 && l->unit == 4)
		return hct_onepass_f32_avx512;
#endif
	(void)simd;
	(void)l;
	return NULL;
}

#endif
