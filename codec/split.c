#include "split.h"

#include <string.h>

#include "bytes.h"

const struct hct_layout *hct_layout_find(hct_dtype dtype)
{
	/*                                       unit tail E   M  J  P */
	static const struct hct_layout bf16 = {2, 0, 8, 7, 1, 7};
	static const struct hct_layout f16 = {2, 1, 5, 2, 1, 2};
	static const struct hct_layout f32 = {4, 2, 8, 7, 1, 7};
	static const struct hct_layout f64 = {8, 6, 11, 4, 1, 4};
	static const struct hct_layout e5m2 = {1, 0, 5, 2, 1, 2};
	static const struct hct_layout e4m3 = {1, 0, 4, 3, 2, 2};

	switch (dtype) {
	case HCT_DTYPE_BF16:
		return &bf16;
	case HCT_DTYPE_F16:
		return &f16;
	case HCT_DTYPE_F32:
	case HCT_DTYPE_C64:
		return &f32;
	case HCT_DTYPE_F64:
		return &f64;
	case HCT_DTYPE_F8_E5M2:
	case HCT_DTYPE_F8_E5M2FNUZ:
		return &e5m2;
	case HCT_DTYPE_F8_E4M3:
	case HCT_DTYPE_F8_E4M3FNUZ:
		return &e4m3;
	default:
		return NULL;
	}
}

static size_t exponent_count(const struct hct_layout *l)
{
	return HCT_SYMBOLS >> l->joint_bits;
}

size_t hct_split_tables_length(const struct hct_split_tables *t)
{
	return 8 + 2 * (exponent_count(t->layout) + HCT_RARE) +
	       (size_t)t->class_count * HCT_SYMBOLS + t->period;
}

void hct_split_tables_pack(const struct hct_split_tables *t, uint8_t *out)
{
	size_t n = exponent_count(t->layout);

	out[0] = (uint8_t)t->class_count;
	out[1] = (uint8_t)t->run_log2;
	out[2] = (uint8_t)t->segment_log2;
	out[3] = 0;
	hct_store32(out + 4, t->period);
	out += 8;
	for (size_t i = 0; i < n; i++, out += 2)
		hct_store16(out, t->exponents[i]);
	for (size_t i = 0; i < HCT_RARE; i++, out += 2)
		hct_store16(out, t->rare[i]);
	memcpy(out, t->freq, (size_t)t->class_count * HCT_SYMBOLS);
	out += (size_t)t->class_count * HCT_SYMBOLS;
	if (t->period)
		memcpy(out, t->shifts, t->period);
}

hct_error hct_split_tables_unpack(const struct hct_layout *layout, const uint8_t *params,
				  size_t length, struct hct_split_tables *t, const char **why)
{
	const uint8_t *p = params + 8;
	size_t n = exponent_count(layout);
	unsigned bad = 0;

	memset(t, 0, sizeof *t);
	t->layout = layout;
	if (length < 8)
		goto corrupt;
	t->class_count = params[0];
	t->run_log2 = params[1];
	t->segment_log2 = params[2];
	t->period = hct_load32(params + 4);
	if (t->class_count < 1 || t->class_count > HCT_MAX_CLASSES ||
	    t->run_log2 > HCT_MAX_RUN_LOG2 || t->segment_log2 < HCT_MIN_SEGMENT_LOG2 ||
	    t->segment_log2 > HCT_MAX_SEGMENT_LOG2 || t->period > HCT_MAX_PERIOD ||
	    length != hct_split_tables_length(t))
		goto corrupt;
	for (size_t i = 0; i < n; i++, p += 2)
		bad |= t->exponents[i] = hct_load16(p);
	for (size_t i = 0; i < HCT_RARE; i++, p += 2)
		bad |= t->rare[i] = hct_load16(p);
	if (bad >> layout->exponent_bits)
		goto corrupt;
	for (unsigned k = 0; k < t->class_count; k++, p += HCT_SYMBOLS) {
		unsigned sum = 0;

		for (unsigned s = 0; s < HCT_SYMBOLS; s++)
			sum += t->freq[k][s] = p[s];
		if (sum != HCT_RANS_TOTAL)
			goto corrupt;
	}
	t->shifts = (const int8_t *)p;
	return HCT_OK;
corrupt:
	*why = "damaged tables of the split codec";
	return HCT_ERR_CORRUPT;
}
