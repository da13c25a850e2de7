/* Chunks of the tcq codec through every variant, whole, in parts, with fewer layers, and damaged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/dequant.h"
#include "codec/idct.h"
#include "tcq_make.h"

/* A chunk that is decoded: with its tables open and its elements known. */
struct subject {
	struct tcq_made made;
	struct hct_tensor tensor;
	void *tables;
	uint8_t *elements[HCT_TCQ_MAX_LAYERS]; /* after each layer */
};

/* From values to elements, the plain way. */
static void expect(const struct subject *s, const float *values, uint8_t *out)
{
	const struct hct_tcq_tables *t = &s->made.t;
	unsigned rows = 1u << t->tile_rows_log2, columns = 1u << t->tile_columns_log2;
	size_t n = s->made.elements, band = rows > 1 ? rows * (size_t)t->columns : columns;
	float *x = malloc(n * sizeof *x);

	memcpy(x, values, n * sizeof *x);
	for (size_t i = 0; rows * columns > 1 && i < n; i += band) {
		size_t width = rows > 1 ? t->columns : columns;

		hct_idct_scalar(x + i, width, width, rows, columns);
	}
	hct_dequant_scalar.narrow[s->tensor.dtype](x, n, out);
	free(x);
}

static void subject_open(struct subject *s, hct_dtype dtype, uint64_t first, size_t n)
{
	const char *why = NULL;

	s->tensor = (struct hct_tensor){.name = "w", .dtype = dtype};
	tcq_make_tables(&s->made);
	tcq_make_chunk(&s->made, first, n);
	if (hct_codec_tcq.open_tables(&s->tensor, s->made.params, s->made.params_length, &s->tables,
				      &why))
		fail_msg("%s", why);
	for (unsigned l = 0; l < s->made.t.layer_count; l++) {
		s->elements[l] = malloc(n * hct_dtype_unit(dtype) + 1);
		expect(s, s->made.values[l], s->elements[l]);
	}
}

static void subject_close(struct subject *s)
{
	for (unsigned l = 0; l < s->made.t.layer_count; l++)
		free(s->elements[l]);
	hct_codec_tcq.free_tables(s->tables);
	tcq_free(&s->made);
}

/* Decodes bytes [begin, end) to memory of just that size, some bytes off alignment; free *out. */
static hct_error decode(const struct subject *s, hct_simd simd, unsigned layers, size_t begin,
			size_t end, uint8_t **out, const char **why)
{
	size_t unit = hct_dtype_unit(s->tensor.dtype);
	struct hct_scratch scratch = {.simd = simd};
	struct hct_task task = {.tensor = &s->tensor,
				.tables = s->tables,
				.offset = s->made.first * unit,
				.length = s->made.elements * unit,
				.begin = begin,
				.end = end,
				.layer_count = layers,
				.layers_stored = s->made.t.layer_count,
				.scratch = &scratch};
	size_t off = begin % 3;
	hct_error e;

	*out = malloc(end - begin + off);
	for (unsigned l = 0; l < layers; l++)
		task.layers[l] = (struct hct_payload){s->made.payload[l], s->made.length[l]};
	*why = NULL;
	e = hct_codec_tcq.decode(&task, *out + off, why);
	memmove(*out, *out + off, end - begin);
	free(scratch.bytes);
	assert_true(!e || *why);
	return e;
}

static void check_range(const struct subject *s, hct_simd simd, unsigned layers, size_t begin,
			size_t end, const char *what)
{
	const char *why;
	uint8_t *out;

	if (decode(s, simd, layers, begin, end, &out, &why))
		fail_msg("%s, %s: %s", what, hct_simd_name(simd), why);
	for (size_t i = 0; i < end - begin; i++)
		if (out[i] != s->elements[layers - 1][begin + i])
			fail_msg("%s, %s, %u layers, bytes %zu to %zu: byte %zu is %02x, not %02x",
				 what, hct_simd_name(simd), layers, begin, end, begin + i, out[i],
				 s->elements[layers - 1][begin + i]);
	free(out);
}

/* Whole and in parts, all layers and fewer, in every variant. */
static void check_subject(const struct subject *s, const char *what)
{
	size_t bytes = s->made.elements * hct_dtype_unit(s->tensor.dtype);

	for (int simd = HCT_SIMD_SCALAR; simd <= HCT_SIMD_AVX512; simd++) {
		if (!hct_simd_supported((hct_simd)simd))
			continue;
		for (unsigned l = 1; l <= s->made.t.layer_count; l++)
			check_range(s, (hct_simd)simd, l, 0, bytes, what);
		for (unsigned i = 0; i < 8; i++) {
			size_t begin = tcq_next() % bytes;
			size_t n = 1 + tcq_next() % (i % 2 ? 300 : bytes);

			n = n < bytes - begin ? n : bytes - begin;
			check_range(s, (hct_simd)simd, s->made.t.layer_count, begin, begin + n,
				    what);
		}
	}
}

static const hct_dtype dtypes[] = {HCT_DTYPE_BF16,        HCT_DTYPE_F16,        HCT_DTYPE_F32,
				   HCT_DTYPE_F64,         HCT_DTYPE_F8_E4M3,    HCT_DTYPE_F8_E5M2,
				   HCT_DTYPE_F8_E4M3FNUZ, HCT_DTYPE_F8_E5M2FNUZ};

static void test_plain(void **state)
{
	static const size_t sizes[] = {1, 63, 64, 65, 1024, 2048, 2049, 5000};
	static const uint32_t columns[] = {1, 7, 64, 100, 192, 1000};

	(void)state;
	for (unsigned kind = 0; kind < 480; kind++) {
		struct subject s = {.made = tcq_model(1, columns[kind % 6], kind / 2)};
		char what[128];

		tcq_seed = kind;
		s.made.exceptions = kind % 3 ? kind % 60 : 0;
		s.made.t.segment_log2 = 10 + kind % 3;
		subject_open(&s, dtypes[kind % 8], kind % 5 ? tcq_next() % 100000 : 0,
			     sizes[kind / 8 % 8]);
		snprintf(what, sizeof what, "plain %u: %s, Q %u, K %u, b %u", kind,
			 hct_dtype_name(s.tensor.dtype), s.made.t.layers[0].column_classes,
			 s.made.t.layers[0].row_classes, s.made.t.layers[0].raw_bits);
		check_subject(&s, what);
		subject_close(&s);
	}
}

/* Elements of 8 and 16 bits with every number of raw bits; steps that go beyond the dtypes. */
static void test_raw(void **state)
{
	static const float steps[] = {0.0123f, 0x1p-100f, 0x1.8f3c2ap9f, 0x1p100f, 0x1.23p-20f};

	(void)state;
	for (unsigned kind = 0; kind < 7 * 6 * 6; kind++) {
		static const hct_dtype small[] = {HCT_DTYPE_BF16,        HCT_DTYPE_F16,
						  HCT_DTYPE_F8_E4M3,     HCT_DTYPE_F8_E5M2,
						  HCT_DTYPE_F8_E4M3FNUZ, HCT_DTYPE_F8_E5M2FNUZ};
		struct subject s = {.made = tcq_model(1, 100 + kind % 2 * 28, kind)};
		char what[64];

		tcq_seed = kind;
		s.made.t.layers[0].raw_bits = 1 + kind % 7;
		s.made.t.layers[0].step = steps[kind % 5];
		s.made.t.segment_log2 = 10 + kind % 4;
		s.made.exceptions = kind / 42 % 3 * 25;
		subject_open(&s, small[kind / 7 % 6], tcq_below(1000), 4000 + tcq_below(9000));
		snprintf(what, sizeof what, "raw %u: %s, b %u", kind,
			 hct_dtype_name(s.tensor.dtype), 1 + kind % 7);
		check_subject(&s, what);
		subject_close(&s);
	}
}

static void test_layers(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 120; kind++) {
		struct subject s = {.made = tcq_model(1 + kind % 4, 96, kind)};
		char what[64];

		tcq_seed = kind;
		s.made.exceptions = 1 + kind % 200;
		subject_open(&s, dtypes[kind % 8], 0, 100 + tcq_below(5000));
		snprintf(what, sizeof what, "layers %u", kind);
		check_subject(&s, what);
		subject_close(&s);
	}
}

static void test_tiles(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 7 * 7 * 3; kind++) {
		unsigned rows = kind % 7, columns = kind / 7 % 7;
		uint32_t width = (uint32_t)((kind / 49 + 1) * 3 % 4 + 1) << columns;
		size_t whole = rows ? (size_t)width << rows : 1u << columns;
		struct subject s = {.made = tcq_model(1 + kind % 2, width, kind)};
		char what[64];

		tcq_seed = kind;
		s.made.t.tile_rows_log2 = rows;
		s.made.t.tile_columns_log2 = columns;
		s.made.exceptions = 40;
		subject_open(&s, dtypes[kind % 8], whole * tcq_below(50),
			     whole * (1 + tcq_below((unsigned)(8000 / whole + 2))));
		snprintf(what, sizeof what, "tiles %u: %u x %u", kind, 1u << rows, 1u << columns);
		check_subject(&s, what);
		subject_close(&s);
	}
}

/* A wide matrix whose rows lie apart while they are transformed, and segments of several blocks. */
static void test_large(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 4; kind++) {
		struct subject s = {.made = tcq_model(1, 1024, 3 * kind)};
		char what[64];

		tcq_seed = kind;
		s.made.t.segment_log2 = 14 + kind % 2;
		s.made.t.tile_rows_log2 = kind < 2 ? 0 : 4;
		s.made.t.tile_columns_log2 = kind < 2 ? 0 : 3;
		s.made.exceptions = 2000;
		subject_open(&s, dtypes[kind % 3], 0, 64 * 1024);
		snprintf(what, sizeof what, "large %u", kind);
		check_subject(&s, what);
		subject_close(&s);
	}
}

/* ---- damage ---- */

/* Chunks whose length or place does not fit their tiles, or their layers. */
static void test_shape_errors(void **state)
{
	static const struct {
		unsigned rows, columns;
		uint64_t first;
		size_t n;
	} bad[] = {{2, 0, 0, 48 * 4 + 48}, {2, 0, 0, 48 * 4 - 4}, {2, 0, 1, 48 * 4},
		   {2, 3, 24, 48 * 4},     {0, 3, 0, 44},         {0, 3, 4, 48}};
	struct subject s = {.made = tcq_model(2, 48, 1)};
	const char *why;
	uint8_t *out;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct subject t = {.made = tcq_model(1, 48, 1)};

		t.made.t.tile_rows_log2 = bad[i].rows;
		t.made.t.tile_columns_log2 = bad[i].columns;
		subject_open(&t, HCT_DTYPE_BF16, 0, 48 * 16);
		t.made.first = bad[i].first;
		t.made.elements = bad[i].n;
		assert_int_equal(decode(&t, HCT_SIMD_SCALAR, 1, 0, 2 * bad[i].n, &out, &why),
				 HCT_ERR_CORRUPT);
		assert_string_equal(why, "a chunk that is not whole tiles");
		free(out);
		subject_close(&t);
	}
	subject_open(&s, HCT_DTYPE_F32, 0, 1000);
	s.made.t.layer_count = 3; /* in the file */
	assert_int_equal(decode(&s, HCT_SIMD_SCALAR, 1, 0, 4000, &out, &why), HCT_ERR_CORRUPT);
	free(out);
	s.made.t.layer_count = 2;
	subject_close(&s);
}

/* Payloads that end too early or too late. */
static void test_length_errors(void **state)
{
	struct subject s = {.made = tcq_model(2, 48, 1)};
	const char *why;
	uint8_t *out;
	size_t whole;

	(void)state;
	tcq_seed = 2;
	subject_open(&s, HCT_DTYPE_BF16, 0, 3000);
	whole = s.made.length[1];
	for (size_t n = 0; n <= whole + 1; n++) {
		const char *expected = n > whole ? "bytes that belong to no segment"
						 : "a segment that does not fit its payload";
		hct_error e;

		s.made.length[1] = n;
		e = decode(&s, HCT_SIMD_SCALAR, 2, 0, 6000, &out, &why);
		assert_int_equal(e, n == whole ? HCT_OK : HCT_ERR_CORRUPT);
		if (e)
			assert_string_equal(why,
					    n < 3 * 12 ? "a payload that is too short" : expected);
		free(out);
	}
	subject_close(&s);
}

/* What every variant makes of a payload: the same error, or the same bytes. */
static hct_error compare_variants(const struct subject *s, unsigned layers, size_t begin,
				  size_t end)
{
	const char *why, *other_why;
	uint8_t *out, *other;
	hct_error e = decode(s, HCT_SIMD_SCALAR, layers, begin, end, &out, &why);

	for (int simd = HCT_SIMD_AVX2; simd <= HCT_SIMD_AVX512; simd++) {
		if (!hct_simd_supported((hct_simd)simd))
			continue;
		assert_int_equal(decode(s, (hct_simd)simd, layers, begin, end, &other, &other_why),
				 e);
		if (e)
			assert_string_equal(why, other_why);
		else
			assert_memory_equal(out, other, end - begin);
		free(other);
	}
	free(out);
	return e;
}

/* Changes bytes anywhere, or one of the lengths, or cuts the payload. */
static void spoil(struct tcq_made *m, unsigned layer)
{
	uint8_t *p = m->payload[layer];
	size_t n = m->length[layer], segments;

	segments = (m->elements + ((size_t)1 << m->t.segment_log2) - 1) >> m->t.segment_log2;
	switch (tcq_below(6)) {
	case 0: /* a length */
		p[tcq_below((unsigned)(12 * segments))] ^= (uint8_t)(1u << tcq_below(8));
		break;
	case 1: /* bytes move from B to the exceptions, or back */
		hct_store32(p + 4, hct_load32(p + 4) + 3);
		hct_store32(p + 8, hct_load32(p + 8) - 3);
		break;
	case 2: /* a state */
		p[12 * segments + tcq_below(128)] ^= (uint8_t)(1 + tcq_below(255));
		break;
	case 3:
		m->length[layer] -= 1 + tcq_below((unsigned)n);
		memmove(p + m->length[layer], p + n, HCT_PAYLOAD_PAD);
		break;
	default:
		for (unsigned k = 0; k <= tcq_below(4); k++)
			p[tcq_below((unsigned)n)] ^= (uint8_t)(1 + tcq_below(255));
	}
}

static void test_damage(void **state)
{
	unsigned refused = 0, rounds = 1500;

	(void)state;
	for (unsigned kind = 0; kind < rounds; kind++) {
		struct subject s = {.made = tcq_model(1 + kind % 2, 64 + kind % 3, kind / 3)};
		size_t n = 1 + kind * 37 % 4000, bytes, begin;
		unsigned layer;

		tcq_seed = kind;
		s.made.exceptions = 30;
		subject_open(&s, dtypes[kind / 2 % 8], 0, n);
		bytes = n * hct_dtype_unit(s.tensor.dtype);
		layer = tcq_below(s.made.t.layer_count);
		/* of just the size that it claims */
		spoil(&s.made, layer);
		s.made.payload[layer] =
			realloc(s.made.payload[layer], s.made.length[layer] + HCT_PAYLOAD_PAD);
		refused += compare_variants(&s, s.made.t.layer_count, 0, bytes) != HCT_OK;
		begin = tcq_next() % bytes;
		compare_variants(&s, s.made.t.layer_count, begin,
				 begin + 1 + tcq_next() % (bytes - begin));
		subject_close(&s);
	}
	/* what is left are raw bits and values of exceptions, mostly */
	if (refused < rounds * 6 / 10)
		fail_msg("only %u of %u damaged payloads were refused", refused, rounds);
}

/* Lists of exceptions that break one rule each. */
static void test_exception_rules(void **state)
{
	static const struct {
		uint8_t bytes[10];
		unsigned length;
		const char *why;
	} cases[] = {/* one exception at the first element: gap 0, positive, magnitude 1 + 0 */
		     {{1, 0, 0, 0, 0, 0, 0x05}, 7, NULL},
		     {{1, 0, 0, 0, 0}, 5, "an incomplete list of exceptions"},
		     {{1, 0, 0, 0, 0, 0}, 6, "an incomplete list of exceptions"},
		     {{0, 0, 0, 0, 0, 0, 0x05}, 7, "an impossible list of exceptions"},
		     {{1, 0, 0, 0, 16, 0, 0x05}, 7, "an impossible list of exceptions"},
		     {{1, 0, 0, 0, 0, 16, 0x05}, 7, "an impossible list of exceptions"},
		     {{1, 0, 0, 0, 0, 0, 0x01, 0x08, 0}, 9, "an impossible exception"},
		     {{1, 0, 0, 0, 0, 0, 0x0d}, 7, "bits behind the last exception"},
		     {{1, 0, 0, 0, 0, 0, 0x05, 0}, 8, "bits behind the last exception"},
		     {{2, 0, 0, 0, 0, 0, 0x05}, 7, "an exception behind the end"},
		     {{3, 0, 0, 0, 0, 0, 0x2d}, 7, "an exception behind the end"},
		     /* a gap of 15 x 8 or 7 more where there are 100 elements */
		     {{1, 0, 0, 0, 3, 0, 0, 0x80, 0x10}, 9, "an exception behind the end"}};
	struct subject s = {.made = tcq_model(1, 10, 0)};
	size_t before;
	uint8_t *p;

	(void)state;
	tcq_seed = 1;
	subject_open(&s, HCT_DTYPE_F32, 0, 100);
	before = s.made.length[0];
	assert_int_equal(s.made.t.layers[0].raw_bits, 0);
	s.made.payload[0] = p = realloc(s.made.payload[0], before + 10 + HCT_PAYLOAD_PAD);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const char *why;
		uint8_t *out;
		hct_error e;

		memset(p + before, 0, 10 + HCT_PAYLOAD_PAD);
		memcpy(p + before, cases[i].bytes, cases[i].length);
		hct_store32(p + 8, cases[i].length);
		s.made.length[0] = before + cases[i].length;
		e = decode(&s, HCT_SIMD_SCALAR, 1, 0, 400, &out, &why);
		assert_int_equal(e, cases[i].why ? HCT_ERR_CORRUPT : HCT_OK);
		if (cases[i].why && strcmp(why, cases[i].why))
			fail_msg("case %zu: %s", i, why);
		free(out);
	}
	subject_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),           cmocka_unit_test(test_raw),
		cmocka_unit_test(test_layers),          cmocka_unit_test(test_tiles),
		cmocka_unit_test(test_large),           cmocka_unit_test(test_shape_errors),
		cmocka_unit_test(test_length_errors),   cmocka_unit_test(test_damage),
		cmocka_unit_test(test_exception_rules),
	};

	return cmocka_run_group_tests_name("tcq", tests, NULL, NULL);
}
