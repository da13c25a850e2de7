/* Internal: the coef codec.  Coefficients of a tile DCT, or elements, of which some are dropped,
 * some have 4 bits and a scale for each 32, and some are FP16 (FORMAT.md section 6). */
#ifndef HCT_COEF_H
#define HCT_COEF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "error.h"

#define HCT_COEF_TABLE_BYTES  8
#define HCT_COEF_HEAD_BYTES   12
#define HCT_COEF_BLOCK        32 /* values that share a scale */
#define HCT_COEF_MAX_EXPONENT 60
#define HCT_COEF_MIN_EXPONENT (-100)

/* How a mask lies in a payload. */
enum hct_mask_form {
	HCT_MASK_NONE = 0, /* all are kept; none is FP16 */
	HCT_MASK_STORED = 1,
	HCT_MASK_ZSTD = 2,
	HCT_MASK_ALL = 3 /* all are FP16 */
};

/* The tables of a tensor as they lie in PARAMS. */
struct hct_coef_tables {
	unsigned tile_rows_log2, tile_columns_log2;
	int exponent; /* FP16 numbers are times 2^exponent */
	uint32_t columns;
};

/* Reads and checks them.  On error *why says what. */
hct_error hct_coef_tables_unpack(const uint8_t *params, size_t length, struct hct_coef_tables *t,
				 const char **why);
void hct_coef_tables_pack(const struct hct_coef_tables *t, uint8_t out[HCT_COEF_TABLE_BYTES]);

/* 1 for infinities and NaN. */
static inline int hct_half_is_special(uint16_t h)
{
	return (h & 0x7c00) == 0x7c00;
}

/* The value of a finite FP16 number; exact. */
static inline float hct_half_value(uint16_t h)
{
	uint32_t bits = (uint32_t)(h & 0x7fff) << 13 | (uint32_t)(h & 0x8000) << 16;
	float v;

	memcpy(&v, &bits, sizeof v);
	return v * 0x1p112f;
}

/* 2^e for an exponent of the tables. */
static inline float hct_coef_power(int e)
{
	uint32_t bits = (uint32_t)(127 + e) << 23;
	float v;

	memcpy(&v, &bits, sizeof v);
	return v;
}

#endif
