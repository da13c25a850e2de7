/* From codes to values and elements: the formula, rounding to each dtype against a search for the
 * nearest element, and every variant against the scalar one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "codec/bytes.h"
#include "codec/dequant.h"
#include "codec/dtype.h"

static uint64_t seed;

static uint32_t next(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 32);
}

static float float_of(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof f);
	return f;
}

static const hct_dtype dtypes[] = {HCT_DTYPE_BF16,        HCT_DTYPE_F16,        HCT_DTYPE_F32,
				   HCT_DTYPE_F64,         HCT_DTYPE_F8_E4M3,    HCT_DTYPE_F8_E5M2,
				   HCT_DTYPE_F8_E4M3FNUZ, HCT_DTYPE_F8_E5M2FNUZ};
#define DTYPES (sizeof dtypes / sizeof *dtypes)

/* Every variant that this CPU has: for (VARIANTS(v)) ... */
enum { SCALAR, AVX2, AVX512, AVX512_BF16, VARIANT_COUNT };
#define VARIANTS(v)                                                                                \
	unsigned v = SCALAR;                                                                       \
	v < VARIANT_COUNT;                                                                         \
	v++

static const char *const variant_names[] = {"scalar", "avx2", "avx512", "avx512 with bf16"};

/* NULL when this CPU does not have it. */
static const struct hct_dequant_loops *loops_of(unsigned v)
{
#if defined __x86_64__
	if (v == AVX512 && hct_simd_supported(HCT_SIMD_AVX512))
		return &hct_dequant_avx512;
	if (v == AVX512_BF16 && hct_simd_supported(HCT_SIMD_AVX512) && hct_dequant_has_bf16())
		return &hct_dequant_avx512_bf16;
	if (v == AVX2 && hct_simd_supported(HCT_SIMD_AVX2))
		return &hct_dequant_avx2;
#endif
	return v == SCALAR ? &hct_dequant_scalar : NULL;
}

/* One value through a variant. */
static uint64_t narrow_one(unsigned v, hct_dtype t, float f)
{
	uint8_t out[8] = {0};

	loops_of(v)->narrow[t](&f, 1, out);
	return hct_load64(out);
}

/* The finite values of a dtype of 8 or 16 bits, in rising order from 0, with their codes. */
struct scale {
	double value[1 << 15];
	unsigned count;
};

static void scale_init(struct scale *s, hct_dtype t)
{
	unsigned codes = 1u << (hct_dtype_bits(t) - 1);

	s->count = 0;
	for (unsigned c = 0; c < codes; c++) {
		uint16_t u = (uint16_t)c;
		double v;

		hct_dtype_to_double(t, &u, 1, &v);
		if (isfinite(v))
			s->value[s->count++] = v;
	}
}

/* What a magnitude is rounded to, by its distance from the two elements around it. */
static unsigned nearest(const struct scale *s, double m)
{
	unsigned low = 0, high = s->count - 1;

	if (m >= s->value[high])
		return high;
	while (high - low > 1) {
		unsigned mid = (low + high) / 2;

		if (s->value[mid] <= m)
			low = mid;
		else
			high = mid;
	}
	if (m - s->value[low] != s->value[high] - m)
		return m - s->value[low] < s->value[high] - m ? low : high;
	return low % 2 ? high : low;
}

static void check_narrow(const struct scale *s, hct_dtype t, float f)
{
	uint64_t expected = nearest(s, fabs((double)f));
	int fnuz = t == HCT_DTYPE_F8_E4M3FNUZ || t == HCT_DTYPE_F8_E5M2FNUZ;

	if (signbit(f) && (expected || !fnuz))
		expected |= 1u << (hct_dtype_bits(t) - 1);
	for (VARIANTS(v)) {
		if (loops_of(v) && narrow_one(v, t, f) != expected)
			fail_msg("%s, %s: %a becomes %llx, not %llx", hct_dtype_name(t),
				 variant_names[v], (double)f,
				 (unsigned long long)narrow_one(v, t, f),
				 (unsigned long long)expected);
	}
}

/* Every element of the small dtypes, what lies in the middle between two, and the floats beside
 * these; then anything. */
static void test_rounding(void **state)
{
	static struct scale s;

	(void)state;
	for (size_t d = 0; d < DTYPES; d++) {
		hct_dtype t = dtypes[d];

		if (hct_dtype_bits(t) > 16)
			continue;
		scale_init(&s, t);
		for (unsigned i = 0; i + 1 < s.count; i++) {
			float a = (float)s.value[i];
			float middle = (float)((s.value[i] + s.value[i + 1]) / 2);

			check_narrow(&s, t, a);
			check_narrow(&s, t, -a);
			check_narrow(&s, t, middle);
			check_narrow(&s, t, -middle);
			check_narrow(&s, t, nextafterf(middle, 0));
			check_narrow(&s, t, nextafterf(-middle, -INFINITY));
		}
		check_narrow(&s, t, (float)s.value[s.count - 1]);
		check_narrow(&s, t, nextafterf((float)s.value[s.count - 1], INFINITY));
		check_narrow(&s, t, 1.04f * (float)s.value[s.count - 1]);
		check_narrow(&s, t, 3e38f);
		check_narrow(&s, t, -INFINITY);
		check_narrow(&s, t, INFINITY);
		for (unsigned i = 0; i < 100000; i++) {
			float f = float_of(next());

			if (!isnan(f))
				check_narrow(&s, t, f);
		}
	}
}

static void test_wide_and_nan(void **state)
{
	static const uint32_t nans[] = {0x7fc00000, 0xffc00000, 0x7f800001, 0xffffffff};
	uint32_t u = 0x7f7fffff;
	double most = 0x1.fffffffffffffp+1023, v = -most, w = -0.0;

	(void)state;
	for (VARIANTS(s)) {
		uint64_t bits;

		if (!loops_of(s))
			continue;
		for (size_t d = 0; d < DTYPES; d++)
			for (size_t i = 0; i < 4; i++)
				assert_int_equal(narrow_one(s, dtypes[d], float_of(nans[i])), 0);
		assert_int_equal(narrow_one(s, HCT_DTYPE_F32, INFINITY), u);
		assert_int_equal(narrow_one(s, HCT_DTYPE_F32, -INFINITY), u | 0x80000000);
		assert_int_equal(narrow_one(s, HCT_DTYPE_F32, -0.0f), 0x80000000);
		assert_int_equal(narrow_one(s, HCT_DTYPE_F32, float_of(0x80000001)), 0x80000001);
		memcpy(&bits, &v, 8);
		assert_int_equal(narrow_one(s, HCT_DTYPE_F64, -INFINITY), bits);
		memcpy(&bits, &most, 8);
		assert_int_equal(narrow_one(s, HCT_DTYPE_F64, INFINITY), bits);
		memcpy(&bits, &w, 8);
		assert_int_equal(narrow_one(s, HCT_DTYPE_F64, -0.0f), bits);
		v = 0x1.5555p-130;
		memcpy(&bits, &v, 8);
		assert_int_equal(narrow_one(s, HCT_DTYPE_F64, 0x1.5555p-130f), bits);
		v = -most;
	}
}

/* Any number of values at any place, and nothing beside them is written. */
static void test_lengths(void **state)
{
	static float src[300];
	uint8_t out[300 * 8 + 16], expected[300 * 8 + 16];

	(void)state;
	seed = 5;
	for (unsigned i = 0; i < 300; i++)
		src[i] = float_of(next());
	for (unsigned round = 0; round < 3000; round++) {
		hct_dtype t = dtypes[round % DTYPES];
		size_t n = next() % 130, at = next() % 8, unit = hct_dtype_unit(t);
		const float *from = src + next() % 150;

		memset(expected, 0xa5, sizeof expected);
		hct_dequant_scalar.narrow[t](from, n, expected + at);
		assert_int_equal(expected[at + n * unit], 0xa5);
		for (VARIANTS(v)) {
			if (!loops_of(v))
				continue;
			memset(out, 0xa5, sizeof out);
			loops_of(v)->narrow[t](from, n, out + at);
			assert_memory_equal(out, expected, sizeof out);
		}
	}
}

static struct hct_tcq_layer layer(unsigned raw_bits, float step)
{
	struct hct_tcq_layer l = {.raw_bits = raw_bits, .step = step};

	for (unsigned i = 0; i < HCT_TCQ_POINTS; i++)
		l.offset[i] = (int8_t)(raw_bits ? 0 : next());
	return l;
}

/* The value of an element, as FORMAT.md has it. */
static float formula(const struct hct_tcq_layer *l, unsigned code, unsigned raw)
{
	int s = code & 31, p = code >> 5 & 1, c = (s << l->raw_bits) + (int)raw;

	if (l->raw_bits)
		return hct_tcq_value(l->step, 64 * (2 * (c - (16 << l->raw_bits)) + p));
	return hct_tcq_value(l->step, 64 * (2 * (s - 16) + p) + l->offset[32 * p + s]);
}

/* Steps of every kind, the largest and the smallest too; raw bits of every number; the upper bits
 * of codes say nothing. */
static void test_values(void **state)
{
	enum { GROUPS = 5 };
	static const float steps[] = {0x1p-100f,      0x1.fffffep-100f, 0x1p100f,
				      0x1.8f3c2ap-7f, 0.0123f,          0x1.fffffep99f};
	uint8_t codes[GROUPS * 64], raw[GROUPS * 8 * HCT_TCQ_MAX_RAW];
	float out[GROUPS * 64 + 1];

	(void)state;
	seed = 7;
	for (unsigned round = 0; round < 400; round++) {
		struct hct_tcq_layer l = layer(round % 8, steps[round / 8 % 6]);
		struct hct_dequant q;

		hct_dequant_init(&q, &l);
		for (unsigned i = 0; i < sizeof codes; i++)
			codes[i] = (uint8_t)next();
		for (unsigned i = 0; i < sizeof raw; i++)
			raw[i] = (uint8_t)next();
		for (VARIANTS(v)) {
			if (!loops_of(v))
				continue;
			out[GROUPS * 64] = 1;
			loops_of(v)->floats(&q, codes, raw, GROUPS, out);
			assert_true(out[GROUPS * 64] == 1);
			for (unsigned i = 0; i < GROUPS * 64; i++) {
				unsigned at = hct_position(i % 64), bits = 0;
				float f;

				for (unsigned b = 0; b < l.raw_bits; b++)
					bits |= (raw[(i / 64 * l.raw_bits + b) * 8 + at / 8] >>
							 at % 8 &
						 1u)
						<< b;
				f = formula(&l, codes[i / 64 * 64 + at], bits);
				assert_memory_equal(&out[i], &f, sizeof f);
				f = hct_dequant_value(&q, codes + i / 64 * 64,
						      raw + i / 64 * 8 * l.raw_bits, i % 64);
				assert_memory_equal(&out[i], &f, sizeof f);
			}
		}
	}
}

/* From codes to elements, with every number of raw bits, of steps that reach all of a dtype and
 * beyond it, any number of groups at any place; nothing beside them is written. */
static void test_direct(void **state)
{
	enum { GROUPS = 19 };
	static const float steps[] = {0x1p-100f,      0x1.fffffep-100f, 0x1p100f,
				      0x1.8f3c2ap-7f, 0x1.8f3c2ap-24f,  0x1.fffffep99f,
				      0x1.ffcp9f,     0x1.ffdffep9f,    0x1.ffep9f};
	static uint8_t codes[GROUPS * 64], raw[GROUPS * 8 * HCT_TCQ_MAX_RAW];
	static uint8_t out[2 * GROUPS * 64 + 8], expected[sizeof out];
	static float values[GROUPS * 64];

	(void)state;
	seed = 9;
	for (unsigned round = 0; round < 8 * 8 * 9 * 7; round++) {
		float scale = round / 576 < 2 ? 1 : 1 / (float)(1 << round / 576);
		struct hct_tcq_layer l = layer(round % 8, steps[round / 64 % 9]);
		hct_dtype dtype = dtypes[round / 8 % 8];
		size_t at = next() % 4, groups = next() % (GROUPS + 1), unit;
		struct hct_direct t;

		unit = hct_dtype_unit(dtype);
		if (unit > 2)
			continue;
		if (l.step > 1 && l.step < 0x1p20f)
			l.step *= scale;
		for (unsigned i = 0; i < sizeof codes; i++)
			codes[i] = (uint8_t)(round % 3 ? next() : next() % 2 * 31);
		for (unsigned i = 0; i < sizeof raw; i++)
			raw[i] = (uint8_t)next();
		hct_direct_init(&t, &l, dtype);
		t.f16c = t.f16c && round % 5;
		hct_dequant_scalar.floats(&t.values, codes, raw, groups, values);
		memset(expected, 0xa5, sizeof expected);
		hct_dequant_scalar.narrow[dtype](values, groups * 64, expected + at);
		for (VARIANTS(v)) {
			if (!loops_of(v))
				continue;
			memset(out, 0xa5, sizeof out);
			loops_of(v)->direct[dtype](&t, codes, raw, groups, out + at);
			for (size_t i = 0; i < sizeof out; i++)
				if (out[i] != expected[i])
					fail_msg("%s, %s, b %u, step %a: byte %zu is %02x, not "
						 "%02x",
						 variant_names[v], hct_dtype_name(dtype),
						 l.raw_bits, (double)l.step, i, out[i],
						 expected[i]);
		}
	}
}

/* The best loops that there are. */
static void test_find(void **state)
{
	(void)state;
	assert_ptr_equal(hct_dequant_find(HCT_SIMD_SCALAR), loops_of(SCALAR));
	if (hct_simd_supported(HCT_SIMD_AVX2))
		assert_ptr_equal(hct_dequant_find(HCT_SIMD_AVX2), loops_of(AVX2));
	if (hct_simd_supported(HCT_SIMD_AVX512))
		assert_ptr_equal(hct_dequant_find(HCT_SIMD_AVX512),
				 loops_of(hct_dequant_has_bf16() ? AVX512_BF16 : AVX512));
}

static void test_add(void **state)
{
	float a[100], b[100], out[100];

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		a[i] = (float)next();
		b[i] = (float)next() * 0x1p-9f;
	}
	for (VARIANTS(v)) {
		if (!loops_of(v))
			continue;
		memcpy(out, a, sizeof out);
		loops_of(v)->add(out, b, 99);
		for (unsigned i = 0; i < 100; i++)
			assert_true(out[i] == (i < 99 ? a[i] + b[i] : a[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rounding), cmocka_unit_test(test_wide_and_nan),
		cmocka_unit_test(test_lengths),  cmocka_unit_test(test_values),
		cmocka_unit_test(test_direct),   cmocka_unit_test(test_find),
		cmocka_unit_test(test_add),
	};

	return cmocka_run_group_tests_name("dequant", tests, NULL, NULL);
}
