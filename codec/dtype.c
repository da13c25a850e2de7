#include "dtype.h"

#include <string.h>

#include "bytes.h"

static const struct {
	const char *name;
	unsigned bits;
} dtypes[HCT_DTYPE_COUNT] = {
	[HCT_DTYPE_UNKNOWN] = {"?", 0},
	[HCT_DTYPE_BOOL] = {"BOOL", 8},
	[HCT_DTYPE_F4] = {"F4", 4},
	[HCT_DTYPE_F6_E2M3] = {"F6_E2M3", 6},
	[HCT_DTYPE_F6_E3M2] = {"F6_E3M2", 6},
	[HCT_DTYPE_U8] = {"U8", 8},
	[HCT_DTYPE_I8] = {"I8", 8},
	[HCT_DTYPE_F8_E5M2] = {"F8_E5M2", 8},
	[HCT_DTYPE_F8_E4M3] = {"F8_E4M3", 8},
	[HCT_DTYPE_F8_E8M0] = {"F8_E8M0", 8},
	[HCT_DTYPE_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8},
	[HCT_DTYPE_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8},
	[HCT_DTYPE_I16] = {"I16", 16},
	[HCT_DTYPE_U16] = {"U16", 16},
	[HCT_DTYPE_F16] = {"F16", 16},
	[HCT_DTYPE_BF16] = {"BF16", 16},
	[HCT_DTYPE_I32] = {"I32", 32},
	[HCT_DTYPE_U32] = {"U32", 32},
	[HCT_DTYPE_F32] = {"F32", 32},
	[HCT_DTYPE_C64] = {"C64", 64},
	[HCT_DTYPE_F64] = {"F64", 64},
	[HCT_DTYPE_I64] = {"I64", 64},
	[HCT_DTYPE_U64] = {"U64", 64},
};

static int known(hct_dtype t)
{
	return (unsigned)t > HCT_DTYPE_UNKNOWN && (unsigned)t < HCT_DTYPE_COUNT;
}

hct_dtype hct_dtype_from_name(const char *name)
{
	for (unsigned t = HCT_DTYPE_UNKNOWN + 1; t < HCT_DTYPE_COUNT; t++) {
		if (strcmp(dtypes[t].name, name) == 0)
			return (hct_dtype)t;
	}
	return HCT_DTYPE_UNKNOWN;
}

const char *hct_dtype_name(hct_dtype t)
{
	return dtypes[known(t) ? t : HCT_DTYPE_UNKNOWN].name;
}

unsigned hct_dtype_bits(hct_dtype t)
{
	return dtypes[known(t) ? t : HCT_DTYPE_UNKNOWN].bits;
}

size_t hct_dtype_unit(hct_dtype t)
{
	unsigned bits = hct_dtype_bits(t);

	return bits < 8 ? 1 : bits / 8;
}

int hct_dtype_is_numeric(hct_dtype t)
{
	return hct_dtype_bits(t) >= 8 && t != HCT_DTYPE_C64 && t != HCT_DTYPE_F8_E8M0;
}

static inline float float_of_bits(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* How a float of 8 or 16 bits says infinity and NaN. */
enum specials {
	SPECIALS_IEEE, /* the largest exponent */
	SPECIALS_FN,   /* all ones is NaN, no infinity */
	SPECIALS_FNUZ  /* minus zero is NaN, no infinity */
};

/* A float of `bits` bits with `mantissa` mantissa bits and the given exponent bias,
 * widened exactly.  Inlined with constants it has no branch, so that the loops over
 * it become vector code; subnormals come from a subtraction and not from subnormal
 * operands, which are slow and which a host program may flush to zero. */
static inline double widen(uint32_t v, unsigned bits, unsigned mantissa, unsigned bias,
			   enum specials specials)
{
	uint32_t sign = v >> (bits - 1);
	uint32_t magnitude = v & ((1u << (bits - 1)) - 1);
	uint32_t exponent_max = (1u << (bits - 1 - mantissa)) - 1;
	uint32_t infinity = exponent_max << mantissa;
	uint32_t rebias = (127 - bias) << 23;
	uint32_t normal = (magnitude << (23 - mantissa)) + rebias;
	uint32_t smallest = (1u << 23) + rebias; /* the smallest normal value */
	uint32_t nan = 0x7FFFFFFFu;
	uint32_t subnormal;
	uint32_t out;

	float f = float_of_bits(normal + (1u << 23)) - float_of_bits(smallest);
	memcpy(&subnormal, &f, sizeof(subnormal));
	out = magnitude < (1u << mantissa) ? subnormal : normal;
	if (specials == SPECIALS_IEEE) {
		out |= magnitude >= infinity ? 0x7F800000u : 0;
	} else if (specials == SPECIALS_FN) {
		out = magnitude == (1u << (bits - 1)) - 1 ? nan : out;
	} else {
		out = v == 1u << (bits - 1) ? nan : out;
	}
	return float_of_bits(out | sign << 31);
}

#define CONVERT(size, expression)                                                                  \
	do {                                                                                       \
		for (size_t i = 0; i < n; i++) {                                                   \
			const uint8_t *p = bytes + i * (size);                                     \
			dst[i] = (double)(expression);                                             \
		}                                                                                  \
	} while (0)

void hct_dtype_to_double(hct_dtype t, const void *src, size_t n, double *restrict dst)
{
	const uint8_t *restrict bytes = src;

	switch (t) {
	case HCT_DTYPE_BOOL:
	case HCT_DTYPE_U8:
		CONVERT(1, *p);
		break;
	case HCT_DTYPE_I8:
		CONVERT(1, (int8_t)*p);
		break;
	case HCT_DTYPE_F8_E5M2:
		CONVERT(1, widen(*p, 8, 2, 15, SPECIALS_IEEE));
		break;
	case HCT_DTYPE_F8_E4M3:
		CONVERT(1, widen(*p, 8, 3, 7, SPECIALS_FN));
		break;
	case HCT_DTYPE_F8_E4M3FNUZ:
		CONVERT(1, widen(*p, 8, 3, 8, SPECIALS_FNUZ));
		break;
	case HCT_DTYPE_F8_E5M2FNUZ:
		CONVERT(1, widen(*p, 8, 2, 16, SPECIALS_FNUZ));
		break;
	case HCT_DTYPE_I16:
		CONVERT(2, (int16_t)hct_load16(p));
		break;
	case HCT_DTYPE_U16:
		CONVERT(2, hct_load16(p));
		break;
	case HCT_DTYPE_F16:
		CONVERT(2, widen(hct_load16(p), 16, 10, 15, SPECIALS_IEEE));
		break;
	case HCT_DTYPE_BF16:
		CONVERT(2, float_of_bits((uint32_t)hct_load16(p) << 16));
		break;
	case HCT_DTYPE_I32:
		CONVERT(4, (int32_t)hct_load32(p));
		break;
	case HCT_DTYPE_U32:
		CONVERT(4, hct_load32(p));
		break;
	case HCT_DTYPE_F32:
		CONVERT(4, float_of_bits(hct_load32(p)));
		break;
	case HCT_DTYPE_F64:
		CONVERT(8, hct_load_f64(p));
		break;
	case HCT_DTYPE_I64:
		CONVERT(8, (int64_t)hct_load64(p));
		break;
	case HCT_DTYPE_U64:
		CONVERT(8, hct_load64(p));
		break;
	case HCT_DTYPE_UNKNOWN:
	case HCT_DTYPE_F4:
	case HCT_DTYPE_F6_E2M3:
	case HCT_DTYPE_F6_E3M2:
	case HCT_DTYPE_F8_E8M0:
	case HCT_DTYPE_C64:
	case HCT_DTYPE_COUNT:
		break;
	}
}
