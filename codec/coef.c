#include "coef.h"

#include "bytes.h"
#include "tcq.h"

hct_error hct_coef_tables_unpack(const uint8_t *params, size_t length, struct hct_coef_tables *t,
				 const char **why)
{
	if (length != HCT_COEF_TABLE_BYTES) {
		*why = "damaged tables of the coef codec";
		return HCT_ERR_CORRUPT;
	}
	*t = (struct hct_coef_tables){.tile_rows_log2 = params[0],
				      .tile_columns_log2 = params[1],
				      .exponent = (int8_t)params[2],
				      .columns = hct_load32(params + 4)};
	*why = "damaged tables of the coef codec";
	if (t->tile_rows_log2 > HCT_TCQ_MAX_TILE_LOG2 ||
	    t->tile_columns_log2 > HCT_TCQ_MAX_TILE_LOG2 || t->exponent > HCT_COEF_MAX_EXPONENT ||
	    t->exponent < HCT_COEF_MIN_EXPONENT || t->columns == 0)
		return HCT_ERR_CORRUPT;
	if (t->tile_rows_log2 + t->tile_columns_log2 == 0)
		return HCT_OK;
	return t->columns > HCT_TCQ_MAX_PERIOD || t->columns % (1u << t->tile_columns_log2)
		       ? HCT_ERR_CORRUPT
		       : HCT_OK;
}

void hct_coef_tables_pack(const struct hct_coef_tables *t, uint8_t out[HCT_COEF_TABLE_BYTES])
{
	out[0] = (uint8_t)t->tile_rows_log2;
	out[1] = (uint8_t)t->tile_columns_log2;
	out[2] = (uint8_t)t->exponent;
	out[3] = 0;
	hct_store32(out + 4, t->columns);
}
