/* dtype.h: names and sizes, and each 8- and 16-bit value against its definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/dtype.h"

static const struct {
	hct_dtype dtype;
	const char *name;
	unsigned bits;
	size_t unit;
	int numeric;
} table[] = {
	{HCT_DTYPE_BOOL, "BOOL", 8, 1, 1},
	{HCT_DTYPE_F4, "F4", 4, 1, 0},
	{HCT_DTYPE_F6_E2M3, "F6_E2M3", 6, 1, 0},
	{HCT_DTYPE_F6_E3M2, "F6_E3M2", 6, 1, 0},
	{HCT_DTYPE_U8, "U8", 8, 1, 1},
	{HCT_DTYPE_I8, "I8", 8, 1, 1},
	{HCT_DTYPE_F8_E5M2, "F8_E5M2", 8, 1, 1},
	{HCT_DTYPE_F8_E4M3, "F8_E4M3", 8, 1, 1},
	{HCT_DTYPE_F8_E8M0, "F8_E8M0", 8, 1, 0},
	{HCT_DTYPE_F8_E4M3FNUZ, "F8_E4M3FNUZ", 8, 1, 1},
	{HCT_DTYPE_F8_E5M2FNUZ, "F8_E5M2FNUZ", 8, 1, 1},
	{HCT_DTYPE_I16, "I16", 16, 2, 1},
	{HCT_DTYPE_U16, "U16", 16, 2, 1},
	{HCT_DTYPE_F16, "F16", 16, 2, 1},
	{HCT_DTYPE_BF16, "BF16", 16, 2, 1},
	{HCT_DTYPE_I32, "I32", 32, 4, 1},
	{HCT_DTYPE_U32, "U32", 32, 4, 1},
	{HCT_DTYPE_F32, "F32", 32, 4, 1},
	{HCT_DTYPE_C64, "C64", 64, 8, 0},
	{HCT_DTYPE_F64, "F64", 64, 8, 1},
	{HCT_DTYPE_I64, "I64", 64, 8, 1},
	{HCT_DTYPE_U64, "U64", 64, 8, 1},
};

static void names_and_sizes(void **state)
{
	size_t count = sizeof(table) / sizeof(*table);

	(void)state;
	assert_int_equal(count + 1, HCT_DTYPE_COUNT);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(hct_dtype_from_name(table[i].name), table[i].dtype);
		assert_string_equal(hct_dtype_name(table[i].dtype), table[i].name);
		assert_int_equal(hct_dtype_bits(table[i].dtype), table[i].bits);
		assert_int_equal(hct_dtype_unit(table[i].dtype), table[i].unit);
		assert_int_equal(hct_dtype_is_numeric(table[i].dtype), table[i].numeric);
	}
}

static void unknown_names(void **state)
{
	static const char *const names[] = {"", "?", "f32", "F32 ", "F3", "F322", "F128", "BF8"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		assert_int_equal(hct_dtype_from_name(names[i]), HCT_DTYPE_UNKNOWN);
	static const int outside[] = {HCT_DTYPE_UNKNOWN, HCT_DTYPE_COUNT, -1, 1000};
	for (size_t i = 0; i < sizeof(outside) / sizeof(*outside); i++) {
		hct_dtype t = (hct_dtype)outside[i];

		assert_string_equal(hct_dtype_name(t), "?");
		assert_int_equal(hct_dtype_bits(t), 0);
		assert_int_equal(hct_dtype_unit(t), 1);
		assert_int_equal(hct_dtype_is_numeric(t), 0);
	}
}

/* Equal bits, but for NaN, of which one is like another. */
static int same(double a, double b)
{
	if (isnan(a) || isnan(b))
		return isnan(a) && isnan(b);
	return memcmp(&a, &b, sizeof(a)) == 0;
}

enum kind { IEEE, FN, FNUZ };

/* A small float by its definition: sign, exponent, mantissa. */
static double by_definition(unsigned v, int exponent_bits, int mantissa_bits, int bias,
			    enum kind kind)
{
	int mantissa = (int)v & ((1 << mantissa_bits) - 1);
	int exponent = (int)(v >> mantissa_bits) & ((1 << exponent_bits) - 1);
	int negative = (int)(v >> (mantissa_bits + exponent_bits)) & 1;
	int largest = (1 << exponent_bits) - 1;
	double x;

	if (kind == FNUZ && negative && exponent == 0 && mantissa == 0)
		return NAN;
	if (kind == FN && exponent == largest && mantissa == (1 << mantissa_bits) - 1)
		return NAN;
	if (kind == IEEE && exponent == largest && mantissa != 0)
		return NAN;
	if (kind == IEEE && exponent == largest)
		x = INFINITY;
	else if (exponent == 0)
		x = ldexp(mantissa, 1 - bias - mantissa_bits);
	else
		x = ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
	return negative ? -x : x;
}

static void check_all(hct_dtype t, int exponent_bits, int mantissa_bits, int bias, enum kind kind)
{
	int bytes = (int)hct_dtype_unit(t);
	size_t count = (size_t)1 << (8 * bytes);
	uint8_t *src = malloc(count * (size_t)bytes);
	double *dst = malloc(count * sizeof(*dst));

	assert_non_null(src);
	assert_non_null(dst);
	assert_int_equal(1 + exponent_bits + mantissa_bits, 8 * bytes);
	for (size_t v = 0; v < count; v++) {
		src[v * (size_t)bytes] = (uint8_t)v;
		if (bytes == 2)
			src[v * 2 + 1] = (uint8_t)(v >> 8);
	}
	hct_dtype_to_double(t, src, count, dst);
	for (size_t v = 0; v < count; v++) {
		double expected =
			by_definition((unsigned)v, exponent_bits, mantissa_bits, bias, kind);

		if (!same(dst[v], expected))
			fail_msg("%s %#zx: %a, expected %a", hct_dtype_name(t), v, dst[v],
				 expected);
	}
	free(src);
	free(dst);
}

static void every_small_float(void **state)
{
	(void)state;
	check_all(HCT_DTYPE_F16, 5, 10, 15, IEEE);
	check_all(HCT_DTYPE_BF16, 8, 7, 127, IEEE);
	check_all(HCT_DTYPE_F8_E5M2, 5, 2, 15, IEEE);
	check_all(HCT_DTYPE_F8_E4M3, 4, 3, 7, FN);
	check_all(HCT_DTYPE_F8_E4M3FNUZ, 4, 3, 8, FNUZ);
	check_all(HCT_DTYPE_F8_E5M2FNUZ, 5, 2, 16, FNUZ);
}

/* The figures that the formats' own papers print. */
static void known_small_floats(void **state)
{
	static const struct {
		hct_dtype dtype;
		uint16_t bits;
		double value;
	} known[] = {
		{HCT_DTYPE_F16, 0x7BFF, 65504},     {HCT_DTYPE_F16, 0x0001, 0x1p-24},
		{HCT_DTYPE_F16, 0x3C00, 1},         {HCT_DTYPE_F16, 0x8000, -0.0},
		{HCT_DTYPE_F16, 0xFC00, -INFINITY}, {HCT_DTYPE_BF16, 0x3F80, 1},
		{HCT_DTYPE_BF16, 0x0001, 0x1p-133}, {HCT_DTYPE_F8_E4M3, 0x7E, 448},
		{HCT_DTYPE_F8_E4M3, 0xFE, -448},    {HCT_DTYPE_F8_E4M3, 0x7F, NAN},
		{HCT_DTYPE_F8_E4M3, 0xFF, NAN},     {HCT_DTYPE_F8_E4M3, 0x01, 0x1p-9},
		{HCT_DTYPE_F8_E5M2, 0x7B, 57344},   {HCT_DTYPE_F8_E5M2, 0x7C, INFINITY},
		{HCT_DTYPE_F8_E5M2, 0x01, 0x1p-16}, {HCT_DTYPE_F8_E4M3FNUZ, 0x7F, 240},
		{HCT_DTYPE_F8_E4M3FNUZ, 0x80, NAN}, {HCT_DTYPE_F8_E5M2FNUZ, 0x7F, 57344},
		{HCT_DTYPE_F8_E5M2FNUZ, 0x80, NAN},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		double x = 42;

		hct_dtype_to_double(known[i].dtype, &known[i].bits, 1, &x);
		if (!same(x, known[i].value))
			fail_msg("%s %#x: %a", hct_dtype_name(known[i].dtype), known[i].bits, x);
	}
}

static void every_small_integer(void **state)
{
	static double dst[65536];
	static uint8_t bytes[256];
	static uint16_t words[65536];

	(void)state;
	for (unsigned v = 0; v < 65536; v++) {
		bytes[v & 255] = (uint8_t)v;
		words[v] = (uint16_t)v;
	}
	hct_dtype_to_double(HCT_DTYPE_U8, bytes, 256, dst);
	for (int v = 0; v < 256; v++)
		assert_true(dst[v] == v);
	hct_dtype_to_double(HCT_DTYPE_BOOL, bytes, 256, dst);
	for (int v = 0; v < 256; v++)
		assert_true(dst[v] == v);
	hct_dtype_to_double(HCT_DTYPE_I8, bytes, 256, dst);
	for (int v = 0; v < 256; v++)
		assert_true(dst[v] == (v < 128 ? v : v - 256));
	hct_dtype_to_double(HCT_DTYPE_U16, words, 65536, dst);
	for (int v = 0; v < 65536; v++)
		assert_true(dst[v] == v);
	hct_dtype_to_double(HCT_DTYPE_I16, words, 65536, dst);
	for (int v = 0; v < 65536; v++)
		assert_true(dst[v] == (v < 32768 ? v : v - 65536));
}

static void wide_types(void **state)
{
	static const int32_t i32[] = {0, 1, -1, INT32_MAX, INT32_MIN};
	static const uint32_t u32[] = {0, 1, INT32_MAX, 0x80000000u, UINT32_MAX};
	static const int64_t i64[] = {0, -1, INT64_MAX, INT64_MIN, (1LL << 53) + 1};
	static const uint64_t u64[] = {0, 1, UINT64_MAX, 1ULL << 63, (1ULL << 53) + 3};
	static const float f32[] = {-0.0f, FLT_MAX, FLT_TRUE_MIN, -INFINITY, NAN};
	static const double f64[] = {-0.0, DBL_MAX, DBL_TRUE_MIN, -INFINITY, NAN};
	double x[5];

	(void)state;
	hct_dtype_to_double(HCT_DTYPE_I32, i32, 5, x);
	for (int i = 0; i < 5; i++)
		assert_true(x[i] == (double)i32[i]);
	hct_dtype_to_double(HCT_DTYPE_U32, u32, 5, x);
	for (int i = 0; i < 5; i++)
		assert_true(x[i] == (double)u32[i]);
	hct_dtype_to_double(HCT_DTYPE_I64, i64, 5, x);
	assert_true(x[1] == -1 && x[2] == 0x1p63 && x[3] == -0x1p63 && x[4] == 0x1p53);
	hct_dtype_to_double(HCT_DTYPE_U64, u64, 5, x);
	assert_true(x[1] == 1 && x[2] == 0x1p64 && x[3] == 0x1p63 && x[4] == 0x1p53 + 4);
	hct_dtype_to_double(HCT_DTYPE_F32, f32, 5, x);
	for (int i = 0; i < 5; i++)
		assert_true(same(x[i], (double)f32[i]));
	hct_dtype_to_double(HCT_DTYPE_F64, f64, 5, x);
	for (int i = 0; i < 5; i++)
		assert_true(same(x[i], f64[i]));
}

/* Vector code has a tail, and data of a file is not aligned: any length at any address
 * gives what single elements give, and nothing behind the end is written. */
static void any_length_and_alignment(void **state)
{
	uint8_t noise[8 + 70 * 8];
	double dst[71], one;

	(void)state;
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)(i * 2654435761u >> 13);
	for (size_t t = 0; t < sizeof(table) / sizeof(*table); t++) {
		if (!table[t].numeric)
			continue;
		for (size_t n = 0; n <= 70; n++) {
			const uint8_t *src = noise + n % 8;

			dst[n] = 12345;
			hct_dtype_to_double(table[t].dtype, src, n, dst);
			assert_true(dst[n] == 12345);
			for (size_t i = 0; i < n; i++) {
				hct_dtype_to_double(table[t].dtype, src + i * table[t].unit, 1,
						    &one);
				assert_true(same(one, dst[i]));
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_sizes),          cmocka_unit_test(unknown_names),
		cmocka_unit_test(every_small_float),        cmocka_unit_test(known_small_floats),
		cmocka_unit_test(every_small_integer),      cmocka_unit_test(wide_types),
		cmocka_unit_test(any_length_and_alignment),
	};

	return cmocka_run_group_tests_name("dtype", tests, NULL, NULL);
}
