#include "lowrank.h"

#include <math.h>
#include <string.h>

#include "bytes.h"

#define LANES   4
#define VECTORS 2
#include "lowrank_kernel.h"

static float load_scale(const uint8_t *p)
{
	float v;

	memcpy(&v, p, sizeof v);
	return v;
}

hct_error hct_lowrank_tables_unpack(const uint8_t *params, size_t length,
				    struct hct_lowrank_tables *t, const char **why)
{
	uint64_t all;

	*why = "damaged tables of the lowrank codec";
	if (length < HCT_LOWRANK_HEAD_BYTES)
		return HCT_ERR_CORRUPT;
	*t = (struct hct_lowrank_tables){.rank = hct_load32(params),
					 .columns = hct_load32(params + 4),
					 .v_tables_length = hct_load32(params + 8),
					 .u_tables_length = hct_load32(params + 12),
					 .v_length = hct_load32(params + 16)};
	/* With a rank up to the columns, a chunk's U is no larger than the chunk. */
	if (t->rank < 1 || t->rank > HCT_LOWRANK_MAX_RANK || t->columns < t->rank ||
	    t->columns > HCT_LOWRANK_MAX_ELEMENTS / t->rank)
		return HCT_ERR_CORRUPT;
	all = HCT_LOWRANK_HEAD_BYTES + 4ull * t->rank + t->v_tables_length + t->u_tables_length +
	      (uint64_t)t->v_length;
	if (all != length)
		return HCT_ERR_CORRUPT;
	t->scales = params + HCT_LOWRANK_HEAD_BYTES;
	t->v_tables = t->scales + 4 * (size_t)t->rank;
	t->u_tables = t->v_tables + t->v_tables_length;
	t->v_payload = t->u_tables + t->u_tables_length;
	for (uint32_t k = 0; k < t->rank; k++)
		if (!isfinite(load_scale(t->scales + 4 * (size_t)k)))
			return HCT_ERR_CORRUPT;
	return HCT_OK;
}

size_t hct_lowrank_tables_length(const struct hct_lowrank_tables *t)
{
	return HCT_LOWRANK_HEAD_BYTES + 4 * (size_t)t->rank + t->v_tables_length +
	       t->u_tables_length + t->v_length;
}

void hct_lowrank_tables_pack(const struct hct_lowrank_tables *t, uint8_t *out)
{
	hct_store32(out, t->rank);
	hct_store32(out + 4, t->columns);
	hct_store32(out + 8, t->v_tables_length);
	hct_store32(out + 12, t->u_tables_length);
	hct_store32(out + 16, t->v_length);
	out += HCT_LOWRANK_HEAD_BYTES;
	memcpy(out, t->scales, 4 * (size_t)t->rank);
	out += 4 * (size_t)t->rank;
	memcpy(out, t->v_tables, t->v_tables_length);
	out += t->v_tables_length;
	memcpy(out, t->u_tables, t->u_tables_length);
	out += t->u_tables_length;
	memcpy(out, t->v_payload, t->v_length);
}

void hct_lowrank_scale(const struct hct_lowrank_tables *t, float *v)
{
	for (uint32_t k = 0; k < t->rank; k++, v += t->columns) {
		float scale = load_scale(t->scales + 4 * (size_t)k);

		for (uint32_t c = 0; c < t->columns; c++)
			v[c] *= scale;
	}
}

hct_lowrank_multiply *hct_lowrank_find(hct_simd simd)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		return hct_lowrank_multiply_avx512;
	if (simd == HCT_SIMD_AVX2)
		return hct_lowrank_multiply_avx2;
#endif
	(void)simd;
	return hct_lowrank_multiply_scalar;
}

void hct_lowrank_multiply_scalar(const float *u, size_t rows, size_t rank, const float *v,
				 size_t pitch, size_t columns, float *w)
{
	multiply(u, rows, rank, v, pitch, columns, w);
}
