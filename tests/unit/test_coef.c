/* The coef codec: tables, chunks of every kind through every variant, whole, in parts and damaged.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zstd.h>

#include "codec/bytes.h"
#include "codec/codec.h"
#include "codec/coef.h"
#include "codec/dequant.h"
#include "codec/idct.h"
#include "lossy.h"

/* ---- tables ---- */

static int refuses(const uint8_t *params, size_t length)
{
	uint8_t *copy = malloc(length ? length : 1); /* of just that size */
	struct hct_coef_tables t;
	const char *why = NULL;
	hct_error e;

	memcpy(copy, params, length);
	e = hct_coef_tables_unpack(copy, length, &t, &why);
	free(copy);
	assert_true(e == HCT_OK || (e == HCT_ERR_CORRUPT && why));
	return e != HCT_OK;
}

static void test_tables(void **state)
{
	static const uint8_t good[8] = {3, 4, (uint8_t)-7, 0, 48, 0, 0, 0};
	static const struct {
		size_t at;
		uint8_t value;
	} bad[] = {{0, 7},   {0, 255}, {1, 7},  {1, 5}, {2, 61}, {2, (uint8_t)-101},
		   {2, 128}, {4, 0},   {4, 49}, {6, 17}};
	struct hct_coef_tables t;
	uint8_t p[9] = {0};
	const char *why;

	(void)state;
	assert_int_equal(hct_coef_tables_unpack(good, 8, &t, &why), HCT_OK);
	assert_int_equal(t.tile_rows_log2, 3);
	assert_int_equal(t.tile_columns_log2, 4);
	assert_int_equal(t.exponent, -7);
	assert_int_equal(t.columns, 48);
	hct_coef_tables_pack(&t, p);
	assert_memory_equal(p, good, 8);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		memcpy(p, good, 8);
		p[bad[i].at] = bad[i].value;
		if (!refuses(p, 8))
			fail_msg("byte %zu may not be %u", bad[i].at, bad[i].value);
	}
	for (size_t n = 0; n < 10; n++)
		if (n != 8) {
			memset(p, 0, sizeof p);
			memcpy(p, good, n < 8 ? n : 8);
			assert_true(refuses(p, n < 9 ? n : 9));
		}
	/* without tiles any number of columns is fine, and the exponents' limits are */
	memcpy(p, (const uint8_t[]){0, 0, 60, 9, 255, 255, 255, 255}, 8);
	assert_false(refuses(p, 8));
	p[2] = (uint8_t)-100;
	assert_false(refuses(p, 8));
}

/* ---- chunks ---- */

/* A chunk made by hand, and what it should decode to. */
struct subject {
	struct hct_tensor tensor;
	struct hct_coef_tables t;
	void *tables;
	uint64_t first;
	size_t n, length; /* elements; of the payload */
	uint8_t *payload; /* padded */
	uint8_t *elements;
	size_t scales_at, halves_at, masks; /* places in the payload; bytes of masks */
};

static uint8_t *put_mask(const uint8_t *bits, size_t n, unsigned form, uint8_t *out)
{
	size_t bytes = (n + 7) / 8;

	if (form == HCT_MASK_STORED) {
		memcpy(out, bits, bytes);
		return out + bytes;
	}
	if (form == HCT_MASK_ZSTD)
		return out + ZSTD_compress(out, ZSTD_compressBound(bytes), bits, bytes, 3);
	return out;
}

/* A finite FP16 number. */
static uint16_t some_half(void)
{
	uint16_t h;

	do
		h = (uint16_t)lossy_next();
	while (hct_half_is_special(h));
	return h;
}

static float half_value(uint16_t h)
{
	double m = h & 1023, e = h >> 10 & 31, v = e ? ldexp(1024 + m, (int)e - 25) : ldexp(m, -24);

	return (float)(h >> 15 ? -v : v);
}

/* From coefficients to elements, the plain way. */
static void expect(struct subject *s, float *x)
{
	unsigned rows = 1u << s->t.tile_rows_log2, columns = 1u << s->t.tile_columns_log2;
	size_t band = rows > 1 ? rows * (size_t)s->t.columns : columns;

	for (size_t i = 0; rows * columns > 1 && i < s->n; i += band) {
		size_t width = rows > 1 ? s->t.columns : columns;

		hct_idct_scalar(x + i, width, width, rows, columns);
	}
	hct_dequant_scalar.narrow[s->tensor.dtype](x, s->n, s->elements);
}

/* Fills the payload with anything. */
static void make_chunk(struct subject *s, unsigned form, unsigned half_form, unsigned share)
{
	uint8_t *mask = calloc(1, s->n / 8 + 8), *halves = calloc(1, s->n / 8 + 8), *p, *from;
	size_t room = 64 + 2 * ZSTD_compressBound(s->n / 8 + 8) + 3 * s->n + HCT_PAYLOAD_PAD;
	float *x = calloc(s->n, sizeof *x), *v = calloc(s->n + 1, sizeof *v), unit;
	size_t kept = 0, four = 0, half = 0, fours = 0, half_count;
	unsigned *is_half = calloc(s->n + 1, sizeof *is_half);

	unit = ldexpf(1, s->t.exponent);
	s->payload = calloc(1, room);
	s->payload[0] = (uint8_t)form;
	s->payload[1] = (uint8_t)half_form;
	for (size_t i = 0; i < s->n; i++)
		if (form == HCT_MASK_NONE || lossy_below(100) < share) {
			mask[i / 8] |= (uint8_t)(1 << i % 8);
			is_half[kept] =
				half_form == HCT_MASK_ALL || (half_form && lossy_below(100) < 30);
			halves[kept / 8] |= (uint8_t)(is_half[kept] << kept % 8);
			fours += !is_half[kept++];
		}
	half_count = kept - fours;
	p = from = s->payload + HCT_COEF_HEAD_BYTES;
	p = put_mask(mask, s->n, form, p);
	hct_store32(s->payload + 4, (uint32_t)(p - from));
	from = p;
	p = put_mask(halves, kept, half_form, p);
	hct_store32(s->payload + 8, (uint32_t)(p - from));
	s->masks = (size_t)(p - s->payload);
	s->scales_at = s->masks;
	s->halves_at = s->scales_at + (fours + 31) / 32 * 2 + (fours + 1) / 2;
	s->length = s->halves_at + 2 * half_count;
	for (size_t i = s->scales_at; i < s->halves_at; i++)
		s->payload[i] = (uint8_t)lossy_next();
	for (size_t i = 0; i < (fours + 31) / 32; i++)
		hct_store16(s->payload + s->scales_at + 2 * i, some_half());
	for (size_t i = 0; i < half_count; i++)
		hct_store16(s->payload + s->halves_at + 2 * i, some_half());
	p = s->payload + s->scales_at + (fours + 31) / 32 * 2;
	for (size_t i = 0, k = 0; i < s->n; i++) {
		if (!(mask[i / 8] >> i % 8 & 1))
			continue;
		if (is_half[k++]) {
			x[i] = half_value(hct_load16(s->payload + s->halves_at + 2 * half++)) *
			       unit;
			continue;
		}
		int q = p[four / 2] >> four % 2 * 4 & 15;

		q = q > 7 ? q - 16 : q;
		x[i] = (float)q *
		       (half_value(hct_load16(s->payload + s->scales_at + four / 32 * 2)) * unit);
		four++;
	}
	s->elements = malloc(s->n * hct_dtype_unit(s->tensor.dtype));
	expect(s, x);
	free(mask);
	free(halves);
	free(is_half);
	free(x);
	free(v);
}

static void subject_open(struct subject *s, hct_dtype dtype, unsigned form, unsigned half_form,
			 unsigned share)
{
	uint8_t params[HCT_COEF_TABLE_BYTES];
	const char *why;

	s->tensor = (struct hct_tensor){.name = "w", .dtype = dtype};
	hct_coef_tables_pack(&s->t, params);
	assert_int_equal(
		hct_codec_coef.open_tables(&s->tensor, params, sizeof params, &s->tables, &why),
		HCT_OK);
	make_chunk(s, form, half_form, share);
}

static void subject_close(struct subject *s)
{
	hct_codec_coef.free_tables(s->tables);
	free(s->payload);
	free(s->elements);
}

/* Decodes bytes [begin, end) to memory of just that size; free *out. */
static hct_error decode(const struct subject *s, hct_simd simd, size_t begin, size_t end, int pad,
			uint8_t **out, const char **why)
{
	size_t unit = hct_dtype_unit(s->tensor.dtype);
	struct hct_scratch scratch = {.simd = simd, .dctx = ZSTD_createDCtx()};
	uint8_t *payload = malloc(s->length + HCT_PAYLOAD_PAD);
	struct hct_task task = {.tensor = &s->tensor,
				.tables = s->tables,
				.offset = s->first * unit,
				.length = s->n * unit,
				.begin = begin,
				.end = end,
				.layers = {{payload, s->length}},
				.layer_count = 1,
				.scratch = &scratch};
	hct_error e;

	memcpy(payload, s->payload, s->length);
	memset(payload + s->length, pad, HCT_PAYLOAD_PAD);
	*out = malloc(end - begin);
	*why = NULL;
	e = hct_codec_coef.decode(&task, *out, why);
	ZSTD_freeDCtx(scratch.dctx);
	free(scratch.bytes);
	free(payload);
	assert_true(!e || *why);
	return e;
}

static void check_range(const struct subject *s, hct_simd simd, size_t begin, size_t end,
			const char *what)
{
	const char *why;
	uint8_t *out;

	if (decode(s, simd, begin, end, 0xff, &out, &why))
		fail_msg("%s, %s: %s", what, hct_simd_name(simd), why);
	for (size_t i = 0; i < end - begin; i++)
		if (out[i] != s->elements[begin + i])
			fail_msg("%s, %s, bytes %zu to %zu: byte %zu is %02x, not %02x", what,
				 hct_simd_name(simd), begin, end, begin + i, out[i],
				 s->elements[begin + i]);
	free(out);
}

/* Whole and in parts, in every variant. */
static void check_subject(const struct subject *s, const char *what)
{
	size_t bytes = s->n * hct_dtype_unit(s->tensor.dtype);

	for (int simd = HCT_SIMD_SCALAR; simd <= HCT_SIMD_AVX512; simd++) {
		if (!hct_simd_supported((hct_simd)simd))
			continue;
		check_range(s, (hct_simd)simd, 0, bytes, what);
		for (unsigned i = 0; i < 8; i++) {
			size_t begin = lossy_next() % bytes;
			size_t n = 1 + lossy_next() % (i % 2 ? 300 : bytes);

			n = n < bytes - begin ? n : bytes - begin;
			check_range(s, (hct_simd)simd, begin, begin + n, what);
		}
	}
}

static const hct_dtype dtypes[] = {HCT_DTYPE_BF16,        HCT_DTYPE_F16,        HCT_DTYPE_F32,
				   HCT_DTYPE_F64,         HCT_DTYPE_F8_E4M3,    HCT_DTYPE_F8_E5M2,
				   HCT_DTYPE_F8_E4M3FNUZ, HCT_DTYPE_F8_E5M2FNUZ};

static void test_plain(void **state)
{
	static const size_t sizes[] = {1, 7, 32, 33, 64, 1000, 4095, 4096, 4097, 9000};
	static const unsigned shares[] = {0, 30, 70, 100, 99};

	(void)state;
	for (unsigned kind = 0; kind < 600; kind++) {
		struct subject s = {.t = {.exponent = (int)(kind % 161) - 100, .columns = 1 + kind},
				    .n = sizes[kind % 10],
				    .first = kind % 5 ? lossy_next() % 10000 : 0};
		char what[64];

		lossy_seed = kind;
		subject_open(&s, dtypes[kind % 8], kind / 10 % 3, kind / 30 % 4, shares[kind % 5]);
		snprintf(what, sizeof what, "plain %u", kind);
		check_subject(&s, what);
		subject_close(&s);
	}
}

static void test_tiles(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 7 * 7 * 4; kind++) {
		unsigned rows = kind % 7, columns = kind / 7 % 7;
		uint32_t width = (kind / 49 * 3 % 4 + 1) << columns;
		size_t whole = rows ? (size_t)width << rows : 1u << columns;
		struct subject s = {.t = {rows, columns, (int)(kind % 120) - 60, width},
				    .n = whole * (1 + kind % (unsigned)(9000 / whole + 2)),
				    .first = whole * (kind % 9)};
		char what[64];

		lossy_seed = kind;
		subject_open(&s, dtypes[kind % 8], kind % 3, kind / 3 % 4, 60);
		snprintf(what, sizeof what, "tiles %u: %u x %u", kind, 1u << rows, 1u << columns);
		check_subject(&s, what);
		subject_close(&s);
	}
}

/* ---- damage ---- */

/* What every variant makes of a payload; all must agree. */
static hct_error verdict(const struct subject *s, size_t begin, size_t end, const char **why)
{
	uint8_t *first = NULL, *out;
	hct_error expected = HCT_OK, e;

	for (int simd = HCT_SIMD_SCALAR; simd <= HCT_SIMD_AVX512; simd++) {
		if (!hct_simd_supported((hct_simd)simd))
			continue;
		e = decode(s, (hct_simd)simd, begin, end, 0x55 * (int)simd, &out, why);
		if (!first) {
			expected = e;
			first = out;
			continue;
		}
		assert_int_equal(e, expected);
		if (!e)
			assert_memory_equal(out, first, end - begin);
		free(out);
	}
	free(first);
	assert_true(expected == HCT_OK || expected == HCT_ERR_CORRUPT);
	return expected;
}

static void expect_error(const struct subject *s, const char *phrase)
{
	const char *why;

	assert_int_equal(verdict(s, 0, s->n * hct_dtype_unit(s->tensor.dtype), &why),
			 HCT_ERR_CORRUPT);
	assert_string_equal(why, phrase);
}

static struct subject good_one(unsigned form, unsigned half_form)
{
	struct subject s = {.t = {2, 3, 0, 48}, .n = 48 * 20};

	lossy_seed = 7;
	subject_open(&s, HCT_DTYPE_F32, form, half_form, 70);
	return s;
}

static void test_lengths(void **state)
{
	struct subject s = good_one(HCT_MASK_STORED, HCT_MASK_STORED);
	size_t length = s.length;

	(void)state;
	for (size_t n = 0; n < length; n++) {
		s.length = n;
		expect_error(&s, n < 12        ? "a payload that is too short"
				 : n < s.masks ? "masks that do not fit their payload"
					       : "values that do not fill their payload");
	}
	s.length = length + 1; /* it is padded */
	expect_error(&s, "values that do not fill their payload");
	s.length = length;
	hct_store32(s.payload + 4, 0xffffffff);
	expect_error(&s, "masks that do not fit their payload");
	hct_store32(s.payload + 4, 119);
	expect_error(&s, "a mask of the wrong length");
	hct_store32(s.payload + 4, 121);
	expect_error(&s, "a mask of the wrong length");
	subject_close(&s);
}

static void test_forms(void **state)
{
	struct subject s = good_one(HCT_MASK_STORED, HCT_MASK_STORED);
	struct subject z = good_one(HCT_MASK_ZSTD, HCT_MASK_ZSTD);
	struct subject all = good_one(HCT_MASK_NONE, HCT_MASK_ALL);

	(void)state;
	s.payload[0] = 3;
	expect_error(&s, "an unknown form of mask");
	s.payload[0] = 1;
	s.payload[1] = 4;
	expect_error(&s, "an unknown form of mask");
	s.payload[1] = 0;
	expect_error(&s, "a mask where there is none");
	s.payload[1] = 3;
	expect_error(&s, "a mask where there is none");
	s.payload[1] = 1;
	s.payload[0] = 0;
	expect_error(&s, "a mask where there is none");
	z.payload[12] ^= 1; /* the frame's magic */
	expect_error(&z, "a damaged mask");
	z.payload[12] ^= 1;
	z.payload[1] = 1;
	expect_error(&z, "a mask of the wrong length");
	/* reserved bytes have no meaning */
	all.payload[2] = all.payload[3] = 255;
	check_subject(&all, "reserved");
	subject_close(&s);
	subject_close(&z);
	subject_close(&all);
}

/* Bits behind the last coefficient do not count. */
static void test_unused_bits(void **state)
{
	struct subject s = {.t = {0, 0, 3, 48}, .n = 1001};
	size_t mask = 126;

	(void)state;
	lossy_seed = 5;
	subject_open(&s, HCT_DTYPE_F32, HCT_MASK_STORED, HCT_MASK_STORED, 50);
	s.payload[12 + mask - 1] |= 0xfe;
	check_subject(&s, "unused bits");
	subject_close(&s);
}

static void test_not_finite(void **state)
{
	static const uint16_t special[] = {0x7c00, 0xfc00, 0x7e01, 0xffff};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct subject s = good_one(HCT_MASK_STORED, HCT_MASK_STORED);

		hct_store16(s.payload + s.length - 2, special[i]);
		expect_error(&s, "a value that is not finite");
		hct_store16(s.payload + s.scales_at, special[i]);
		expect_error(&s, "a scale that is not finite");
		subject_close(&s);
	}
}

static void test_shape_errors(void **state)
{
	static const struct {
		uint64_t first;
		size_t n;
	} bad[] = {{0, 48 * 4 + 48}, {0, 48 * 4 - 4}, {1, 48 * 4}, {24, 48 * 4}};
	struct subject s = good_one(HCT_MASK_NONE, HCT_MASK_NONE);

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		s.first = bad[i].first;
		s.n = bad[i].n;
		expect_error(&s, "a chunk that is not whole tiles");
	}
	subject_close(&s);
}

/* Any damage: every variant says the same, and reads and writes only what it may. */
static void test_damage(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 3000; kind++) {
		struct subject s = good_one(kind % 3, kind / 3 % 4);
		size_t bytes = s.n * 4, begin;
		const char *why;

		lossy_seed = kind + 1000;
		for (unsigned i = 0; i <= kind % 3; i++)
			s.payload[lossy_next() % (kind % 2 ? 30 : s.length)] =
				(uint8_t)lossy_next();
		begin = lossy_next() % bytes;
		verdict(&s, 0, bytes, &why);
		verdict(&s, begin, begin + 1 + lossy_next() % (bytes - begin), &why);
		subject_close(&s);
	}
}

static void test_dtype(void **state)
{
	static const uint8_t params[8] = {0, 0, 0, 0, 1};
	struct hct_tensor t = {.dtype = HCT_DTYPE_I32};
	const char *why = NULL;
	void *tables;

	(void)state;
	assert_int_equal(hct_codec_coef.open_tables(&t, params, 8, &tables, &why), HCT_ERR_CORRUPT);
	assert_non_null(why);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),     cmocka_unit_test(test_plain),
		cmocka_unit_test(test_tiles),      cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_forms),      cmocka_unit_test(test_unused_bits),
		cmocka_unit_test(test_not_finite), cmocka_unit_test(test_shape_errors),
		cmocka_unit_test(test_damage),     cmocka_unit_test(test_dtype),

	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
