/* Backends: the same bytes from the CPU and from a GPU (the emulated plug-in of HCT_TEST_PLUGIN),
 * as whole chunks and as rows of tensors, of every codec and dtype; and damage. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend_model.h"
#include "codec/checksum.h"

/* Whole chunks -------------------------------------------------------------------------- */

static void expect_all(hct_backend *b, unsigned layers, int verified)
{
	struct hct_diag diag = {"bytes that are not expected"};

	if (!all_right(b, layers, verified, &diag))
		fail_msg("%u layers: %s", layers, diag.text);
}

static void expect_chunks(const char *gpu, unsigned threads)
{
	struct lines lines;
	hct_backend *b = open_backend(gpu, threads, &lines);

	for (unsigned layers = 0; layers < 4; layers++)
		expect_all(b, layers, layers % 2);
	assert_int_equal(hct_backend_decode(b, shared.r, 0, 0, NULL, 0, NULL), HCT_OK);
	if (lines.count)
		fail_msg("%s", lines.last);
	hct_backend_close(b);
}

static void test_chunks_cpu(void **state)
{
	(void)state;
	expect_chunks("off", 1);
	expect_chunks("off", 5);
}

static void test_chunks_gpu(void **state)
{
	(void)state;
	if (!have_plugin())
		skip();
	expect_chunks("0", 1);
	expect_chunks("auto", 3);
}

/* Rows ---------------------------------------------------------------------------------- */

static uint64_t rows_of(const struct hct_tensor *t)
{
	return t->rank ? t->shape[0] : 1;
}

/* Some rows of each tensor, at places that chunks begin at and others. */
static size_t choose_rows(struct hct_load *loads, uint32_t seed)
{
	const struct hct_safetensors *st = hct_reader_safetensors(shared.r);
	size_t n = 0;

	for (size_t i = 0; i < st->count; i++) {
		uint64_t rows = rows_of(&st->tensors[i]), first, count;

		seed = seed * 1664525 + 1013904223;
		first = seed % 7 == 0 ? 0 : (seed >> 8) % (rows + 1);
		seed = seed * 1664525 + 1013904223;
		count = seed % 3 == 0 ? rows - first : (seed >> 8) % (rows - first + 1);
		/* half elements: whole bytes are two rows */
		if (st->tensors[i].dtype == HCT_DTYPE_F4) {
			first &= ~UINT64_C(1);
			count = (count + 1) & ~UINT64_C(1);
		}
		loads[n++] = (struct hct_load){.tensor = i, .first_row = first, .rows = count};
	}
	return n;
}

/* Loads rows into one piece of memory of the device each, and compares them. */
static void expect_rows(hct_backend *b, struct hct_load *loads, size_t count, unsigned layers)
{
	const struct hct_safetensors *st = hct_reader_safetensors(shared.r);
	struct hct_diag diag = {""};

	for (size_t i = 0; i < count; i++) {
		uint64_t bytes = hct_load_bytes(shared.r, &loads[i]);

		assert_int_equal(hct_backend_alloc(b, bytes, &loads[i].dst, NULL), HCT_OK);
		assert_int_equal((uintptr_t)loads[i].dst % 256, 0);
	}
	if (hct_load_device(b, shared.r, loads, count, layers, NULL, &diag))
		fail_msg("%s", diag.text);
	for (size_t i = 0; i < count; i++) {
		const struct hct_tensor *t = &st->tensors[loads[i].tensor];
		uint64_t bytes = hct_load_bytes(shared.r, &loads[i]);
		uint64_t row =
			rows_of(t) ? hct_tensor_bytes(t) * loads[i].first_row / rows_of(t) : 0;
		uint8_t *found = malloc(bytes + 1);

		assert_int_equal(hct_backend_copy(b, found, loads[i].dst, bytes, NULL), HCT_OK);
		if (memcmp(found, shared.expected[layers] + st->header_len + t->begin + row, bytes))
			fail_msg("tensor %s, %llu rows from row %llu", t->name,
				 (unsigned long long)loads[i].rows,
				 (unsigned long long)loads[i].first_row);
		free(found);
		hct_backend_free(b, loads[i].dst);
	}
}

static void expect_all_rows(const char *gpu)
{
	struct hct_load loads[COUNT];
	struct lines lines;
	hct_backend *b = open_backend(gpu, 2, &lines);

	for (size_t i = 0; i < COUNT; i++)
		loads[i] = (struct hct_load){
			.tensor = i,
			.rows = rows_of(&hct_reader_safetensors(shared.r)->tensors[i])};
	expect_rows(b, loads, COUNT, 0);
	for (uint32_t seed = 1; seed <= 6; seed++)
		expect_rows(b, loads, choose_rows(loads, seed), seed % 4);
	for (size_t i = choose_rows(loads, 7); i-- > 0;)
		expect_rows(b, &loads[i], 1, 0);
	if (lines.count)
		fail_msg("%s", lines.last);
	hct_backend_close(b);
}

static void test_rows_cpu(void **state)
{
	(void)state;
	expect_all_rows("off");
}

static void test_rows_gpu(void **state)
{
	(void)state;
	if (!have_plugin())
		skip();
	expect_all_rows("0");
}

/* What a load is not. */
static void test_no_such_rows(void **state)
{
	static const struct {
		const char *tensor;
		uint64_t first, rows;
		const char *line;
	} cases[] = {
		{"split", 301, 0, "model: tensor split, 0 rows from row 301 of 300: no such rows"},
		{"split", 1, 300, "model: tensor split, 300 rows from row 1 of 300: no such rows"},
		{"split", 1, UINT64_MAX,
		 "model: tensor split, 18446744073709551615 rows from row 1 of 300: no such rows"},
		{"scalar", 0, 2, "model: tensor scalar, 2 rows from row 0 of 1: no such rows"},
		{"half", 1, 1,
		 "model: tensor half, 1 rows from row 1 of 4: these rows do not begin and end with "
		 "a "
		 "whole byte"},
		{NULL, 0, 0, "model: no tensor 21"},
	};
	const struct hct_safetensors *st = hct_reader_safetensors(shared.r);
	struct lines lines;
	hct_backend *b = open_backend("off", 1, &lines);
	uint8_t dst[16];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct hct_load load = {
			.tensor = cases[i].tensor ? hct_safetensors_find(st, cases[i].tensor)
						  : st->count,
			.first_row = cases[i].first,
			.rows = cases[i].rows,
			.dst = dst};
		struct hct_diag diag = {""};

		assert_int_equal(hct_load_bytes(shared.r, &load), 0);
		assert_int_equal(hct_load_device(b, shared.r, &load, 1, 0, NULL, &diag),
				 HCT_ERR_ARGUMENT);
		assert_string_equal(diag.text, cases[i].line);
	}
	hct_backend_close(b);
}

/* Many callers -------------------------------------------------------------------------- */

static void *decode_in_thread(void *backend)
{
	for (int i = 0; i < 3; i++)
		expect_all(backend, (unsigned)i, 1);
	return NULL;
}

static void expect_many(const char *gpu)
{
	pthread_t threads[4];
	struct lines lines;
	hct_backend *b = open_backend(gpu, 2, &lines);

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, decode_in_thread, b), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(lines.count, 0);
	hct_backend_close(b);
}

static void test_many_callers(void **state)
{
	(void)state;
	expect_many("off");
	if (have_plugin())
		expect_many("0");
}

/* Another file by the same backend, whose tables are others. */
static void expect_two_files(const char *gpu)
{
	static const struct model_tensor one = {"split", "BF16", "[300,512]", 307200, WEIGHTS};
	struct lines lines;
	hct_backend *b = open_backend(gpu, 2, &lines);

	for (uint32_t seed = 5; seed < 9; seed++) {
		struct model m;
		hct_reader *r;
		struct hct_load load = {.rows = 300};
		uint8_t *found = malloc(one.bytes);

		model_make(&one, 1, seed, &m);
		r = open_reader(model_compress(&m), "other");
		assert_int_equal(hct_backend_alloc(b, one.bytes, &load.dst, NULL), HCT_OK);
		assert_int_equal(hct_load_device(b, r, &load, 1, 0, NULL, NULL), HCT_OK);
		assert_int_equal(hct_backend_copy(b, found, load.dst, one.bytes, NULL), HCT_OK);
		assert_memory_equal(found, m.file + m.st.header_len, one.bytes);
		hct_backend_free(b, load.dst);
		free(found);
		hct_reader_close(r);
		model_free(&m);
	}
	assert_int_equal(lines.count, 0);
	hct_backend_close(b);
}

static void test_two_files(void **state)
{
	(void)state;
	expect_two_files("off");
	if (have_plugin())
		expect_two_files("0");
}

/* Damage -------------------------------------------------------------------------------- */

#define VICTIMS      24
#define VICTIM_BYTES 40960 /* segments enough that one is listed before a bad one */

/* Tensors of a chunk each, one bit of whose payload is wrong: so that the checksum says it, or
 * (with_sum) so that only decoding can. */
static hct_reader *open_damaged(uint32_t seed, int with_sum)
{
	struct model_tensor tensors[VICTIMS];
	struct hct_source source = {0};
	char names[VICTIMS][16];
	hct_appender *a;
	hct_encoder *e;
	struct model m;
	int fd = memfd_create("damaged", MFD_CLOEXEC);

	for (int i = 0; i < VICTIMS; i++) {
		snprintf(names[i], sizeof names[i], "t%02d", i);
		tensors[i] =
			(struct model_tensor){names[i], "BF16", "[40,512]", VICTIM_BYTES, WEIGHTS};
	}
	model_make(tensors, VICTIMS, seed, &m);
	source.size = m.size;
	assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &e), HCT_OK);
	assert_int_equal(hct_appender_create(fd, "damaged", &m.st, &a, NULL), HCT_OK);
	for (size_t i = 0; i < VICTIMS; i++) {
		const struct hct_goal lossy = {.relative_squared_error = .01};
		const uint8_t *data = m.file + m.st.header_len + m.st.tensors[i].begin;
		struct hct_encoded c;
		uint8_t *payload;
		hct_plan *p;
		size_t at;

		assert_int_equal(
			hct_plan_create(e, &m.st.tensors[i], data, i % 2 ? &lossy : NULL, &p, NULL),
			HCT_OK);
		assert_int_equal(hct_appender_tensor(a, i, p, NULL), HCT_OK);
		assert_int_equal(hct_encode_chunk(e, p, 0, data, &c, NULL), HCT_OK);
		payload = malloc(c.layers[0].length);
		memcpy(payload, c.layers[0].payload, c.layers[0].length);
		seed = seed * 1664525 + 1013904223;
		/* the first two stay good; others have it in the lengths that come first */
		at = (seed >> 4) % (i % 3 ? c.layers[0].length : 32);
		if (i > 1)
			payload[at] ^= (uint8_t)(1u << seed % 8);
		c.layers[0].payload = payload;
		if (with_sum)
			c.layers[0].checksum = hct_checksum(payload, c.layers[0].length);
		assert_int_equal(hct_appender_chunk(a, &c, NULL), HCT_OK);
		free(payload);
		hct_plan_free(p);
	}
	assert_int_equal(hct_appender_finish(a, &source, "{}", NULL, NULL), HCT_OK);
	hct_appender_free(a);
	hct_encoder_free(e);
	model_free(&m);
	return open_reader(fd, "damaged");
}

/* Each chunk has the error, or the bytes, that a decoder finds, and the first one's line. */
static void expect_as_decoder(hct_backend *b, const hct_reader *r, int verified)
{
	uint64_t size = hct_reader_safetensors(r)->file_size;
	uint8_t *file = malloc(size), *chunk = malloc(size);
	struct hct_diag diag = {""}, first = {""};
	struct hct_wanted wanted[VICTIMS];
	hct_error e = decode_all(b, r, 0, verified, file, wanted, &diag), expected = HCT_OK;
	hct_decoder *d;

	assert_int_equal(hct_decoder_create(HCT_SIMD_AUTO, &d), HCT_OK);
	for (int i = 0; i < VICTIMS; i++) {
		struct hct_diag why = {""};
		struct hct_chunk c;
		hct_error found = (verified ? hct_reader_decode_verified : hct_reader_decode)(
			r, d, wanted[i].number, chunk, &why);

		hct_reader_chunk(r, wanted[i].number, &c);
		assert_int_equal(wanted[i].error, found);
		if (!found)
			assert_memory_equal(file + c.offset, chunk, c.length);
		if (found && !expected) {
			expected = found;
			first = why;
		}
	}
	assert_int_equal(e, expected);
	assert_string_equal(diag.text, first.text);
	hct_decoder_free(d);
	free(file);
	free(chunk);
}

static void expect_damage(const char *gpu)
{
	struct lines lines;
	hct_backend *b = open_backend(gpu, 2, &lines);
	int on_gpu = hct_backend_gpu(b);

	for (uint32_t seed = 1; seed <= 8; seed++) {
		hct_reader *r = open_damaged(seed, seed % 4 != 0);
		struct hct_load load = {.tensor = 5, .rows = 40};
		hct_decoder *d;
		static uint8_t row[VICTIM_BYTES];
		struct hct_chunk c;

		expect_as_decoder(b, r, 0);
		expect_as_decoder(b, r, 1);
		assert_int_equal(hct_decoder_create(HCT_SIMD_AUTO, &d), HCT_OK);
		assert_int_equal(hct_backend_alloc(b, sizeof row, &load.dst, NULL), HCT_OK);
		hct_reader_chunk(r, 5, &c);
		assert_int_equal(hct_load_device(b, r, &load, 1, 0, NULL, NULL),
				 hct_reader_decode(r, d, 5, row, NULL));
		hct_backend_free(b, load.dst);
		hct_decoder_free(d);
		hct_reader_close(r);
	}
	/* a damaged file is not the device's fault */
	if (lines.count)
		fail_msg("%s", lines.last);
	assert_int_equal(hct_backend_gpu(b), on_gpu);
	hct_backend_close(b);
}

static void test_damage(void **state)
{
	(void)state;
	expect_damage("off");
	if (have_plugin())
		expect_damage("0");
}

static void test_no_such_chunk(void **state)
{
	struct hct_wanted wanted = {.number = shared.chunks};
	struct hct_diag diag = {""};
	struct lines lines;
	hct_backend *b = open_backend("off", 1, &lines);

	(void)state;
	assert_int_equal(hct_backend_decode(b, shared.r, 0, 0, &wanted, 1, &diag),
			 HCT_ERR_ARGUMENT);
	assert_non_null(strstr(diag.text, "model: no chunk "));
	hct_backend_close(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chunks_cpu),   cmocka_unit_test(test_chunks_gpu),
		cmocka_unit_test(test_rows_cpu),     cmocka_unit_test(test_rows_gpu),
		cmocka_unit_test(test_no_such_rows), cmocka_unit_test(test_no_such_chunk),
		cmocka_unit_test(test_many_callers), cmocka_unit_test(test_two_files),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, make_fixture, free_fixture);
}
