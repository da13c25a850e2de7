/* The element types of safetensors. */
#ifndef HCT_DTYPE_H
#define HCT_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Values are internal: files carry the name as the source header spells it. */
typedef enum hct_dtype {
	HCT_DTYPE_UNKNOWN = 0, /* a name this version does not know; opaque bytes */
	HCT_DTYPE_BOOL,
	HCT_DTYPE_F4,
	HCT_DTYPE_F6_E2M3,
	HCT_DTYPE_F6_E3M2,
	HCT_DTYPE_U8,
	HCT_DTYPE_I8,
	HCT_DTYPE_F8_E5M2,
	HCT_DTYPE_F8_E4M3,
	HCT_DTYPE_F8_E8M0,
	HCT_DTYPE_F8_E4M3FNUZ,
	HCT_DTYPE_F8_E5M2FNUZ,
	HCT_DTYPE_I16,
	HCT_DTYPE_U16,
	HCT_DTYPE_F16,
	HCT_DTYPE_BF16,
	HCT_DTYPE_I32,
	HCT_DTYPE_U32,
	HCT_DTYPE_F32,
	HCT_DTYPE_C64,
	HCT_DTYPE_F64,
	HCT_DTYPE_I64,
	HCT_DTYPE_U64,
	HCT_DTYPE_COUNT
} hct_dtype;

/* HCT_DTYPE_UNKNOWN when the name is not one of safetensors'. */
hct_dtype hct_dtype_from_name(const char *name);

/* "F32", "BF16" ...; "?" for HCT_DTYPE_UNKNOWN. */
const char *hct_dtype_name(hct_dtype t);

/* Bits of one element (4 and 6 occur); 0 for HCT_DTYPE_UNKNOWN. */
unsigned hct_dtype_bits(hct_dtype t);

/* Bytes of one element as a unit of memory: 1 for sub-byte and unknown types. */
size_t hct_dtype_unit(hct_dtype t);

/* True for the types that hold numbers which compare in hct_dtype_to_double:
 * every type of at least 8 bits but C64, F8_E8M0 and UNKNOWN. */
int hct_dtype_is_numeric(hct_dtype t);

/* Converts n elements at src (little-endian, any alignment) to double.
 * Only for numeric types; 64-bit integers are rounded to nearest. */
void hct_dtype_to_double(hct_dtype t, const void *src, size_t n, double *dst);

#ifdef __cplusplus
}
#endif
#endif
