/* layers.h: the names of the qualities, and what they make of a file in layers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/hctenc.h"
#include "fs/layers.h"
#include "make_hct.h"

#define COUNT 3

/* Elements of the tensors, and how many layers they are to have; 0 for lossless. */
static const unsigned counts[COUNT] = {70000, 1000, 300000}, wanted[COUNT] = {2, 0, 4};

/* Where the file lies, and the bytes of each layer of each tensor as the encoder gave them. */
struct layered {
	char path[32];
	uint64_t bytes[COUNT][HCT_GOAL_MAX_LAYERS];
};

static void append(struct layered *f, hct_appender *a, hct_encoder *enc,
		   const struct hct_safetensors *st, size_t i, const uint8_t *data)
{
	struct hct_goal goal = {.relative_squared_error = .001, .layers = wanted[i]};
	struct hct_plan_info info;
	hct_plan *plan;

	assert_int_equal(
		hct_plan_create(enc, &st->tensors[i], data, wanted[i] ? &goal : NULL, &plan, NULL),
		HCT_OK);
	hct_plan_describe(plan, &info);
	assert_int_equal(info.layers, wanted[i] ? wanted[i] : 1);
	assert_int_equal(hct_appender_tensor(a, i, plan, NULL), HCT_OK);
	for (uint64_t n = 0; n < hct_plan_chunk_count(plan); n++) {
		struct hct_encoded chunk;

		assert_int_equal(hct_encode_chunk(enc, plan, n, data, &chunk, NULL), HCT_OK);
		assert_int_equal(hct_appender_chunk(a, &chunk, NULL), HCT_OK);
		for (unsigned l = 0; l < chunk.layer_count; l++)
			f->bytes[i][l] += chunk.layers[l].length;
		data += hct_plan_chunk_length(plan, n);
	}
	hct_plan_free(plan);
}

/* What make_safetensors puts there are no numbers that anybody would quantise. */
static void fill(uint8_t *data, size_t length)
{
	uint32_t seed = 1;

	for (size_t i = 0; i + 4 <= length; i += 4) {
		float value = 0;

		for (int k = 0; k < 4; k++) {
			seed = seed * 1664525u + 1013904223u;
			value += (float)(int32_t)seed * 0x1p-31f;
		}
		memcpy(data + i, &value, 4);
	}
}

static int setup(void **state)
{
	static struct layered f = {.path = "/tmp/test_layers.XXXXXX"};
	struct hct_safetensors st;
	struct hct_source source = {0};
	uint8_t *file;
	size_t size, len;
	hct_appender *a;
	hct_encoder *enc;
	int fd = mkstemp(f.path);

	assert_true(fd >= 0);
	file = make_safetensors(counts, COUNT, &size);
	source.size = size;
	assert_int_equal(hct_safetensors_header_len(file, size, &len, NULL), HCT_OK);
	assert_int_equal(hct_safetensors_parse(file, len, size, &st, NULL), HCT_OK);
	fill(file + len, size - len);
	assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &enc), HCT_OK);
	assert_int_equal(hct_appender_create(fd, f.path, &st, &a, NULL), HCT_OK);
	for (size_t i = 0; i < COUNT; i++)
		append(&f, a, enc, &st, i, file + len + st.tensors[i].begin);
	assert_int_equal(hct_appender_finish(a, &source, "{}", NULL, NULL), HCT_OK);
	hct_appender_free(a);
	hct_encoder_free(enc);
	hct_safetensors_free(&st);
	close(fd);
	free(file);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	const struct layered *f = *state;

	return remove(f->path);
}

static void test_names(void **state)
{
	static const struct {
		const char *name;
		unsigned layers;
	} all[] = {{"essentials", 1}, {"quick", 2}, {"balanced", 3}, {"full", 0}};
	static const char *const none[] = {"", "Full", "quick ", "quic", "2", "fulll"};

	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		unsigned layers = 99;

		assert_int_equal(hct_layers_parse(all[i].name, &layers), 1);
		assert_int_equal(layers, all[i].layers);
		assert_string_equal(hct_layers_name(layers), all[i].name);
		assert_non_null(strstr(HCT_LAYERS_NAMES, all[i].name));
	}
	for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
		unsigned layers = 99;

		assert_int_equal(hct_layers_parse(none[i], &layers), 0);
		assert_int_equal(layers, 99);
	}
}

static void test_most(void **state)
{
	const struct layered *f = *state;
	uint8_t *file;
	char path[] = "/tmp/test_layers.XXXXXX";
	struct hct_source source = {0};
	size_t size;
	hct_reader *r;
	int fd = mkstemp(path);

	assert_int_equal(hct_reader_open(f->path, &r, NULL), HCT_OK);
	assert_int_equal(hct_layers_most(r), 4);
	hct_reader_close(r);
	/* No tensors, and tensors without bytes. */
	assert_true(fd >= 0);
	close(fd);
	for (size_t tensors = 0; tensors < 2; tensors++) {
		static const unsigned nothing[1] = {0};

		file = make_safetensors(nothing, tensors, &size);
		source.size = size;
		make_hct(path, file, size, &source);
		assert_int_equal(hct_reader_open(path, &r, NULL), HCT_OK);
		assert_int_equal(hct_layers_most(r), 1);
		hct_reader_close(r);
		free(file);
	}
	remove(path);
}

static void test_weigh(void **state)
{
	const struct layered *f = *state;
	uint64_t stored = 0;

	for (size_t i = 0; i < COUNT; i++)
		for (unsigned l = 0; l < HCT_GOAL_MAX_LAYERS; l++)
			stored += f->bytes[i][l];
	for (unsigned layers = 0; layers <= 8; layers++) {
		struct hct_layers_share sum = {0};
		uint64_t read = 0, cut = 0;

		for (size_t i = 0; i < COUNT; i++) {
			cut += layers && wanted[i] > layers;
			for (unsigned l = 0; l < HCT_GOAL_MAX_LAYERS; l++)
				if (!layers || l < layers)
					read += f->bytes[i][l];
		}
		for (unsigned times = 1; times <= 2; times++) {
			assert_int_equal(hct_layers_weigh(f->path, layers, &sum, NULL), HCT_OK);
			assert_int_equal(sum.most, 4);
			assert_int_equal(sum.tensors, times * COUNT);
			assert_int_equal(sum.cut, times * cut);
			assert_int_equal(sum.stored_bytes, times * stored);
			assert_int_equal(sum.read_bytes, times * read);
		}
	}
}

static void test_weigh_no_file(void **state)
{
	struct hct_layers_share sum = {.most = 2, .tensors = 3, .read_bytes = 4};
	struct hct_diag diag = {{0}};

	(void)state;
	assert_int_equal(hct_layers_weigh("/tmp/no/such/file.hct", 1, &sum, &diag),
			 HCT_ERR_NOT_FOUND);
	assert_non_null(strstr(diag.text, "/tmp/no/such/file.hct"));
	assert_int_equal(hct_layers_weigh("/dev/null", 1, &sum, &diag), HCT_ERR_NOT_HCT);
	assert_int_equal(sum.most, 2);
	assert_int_equal(sum.tensors, 3);
	assert_int_equal(sum.read_bytes, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_most),
		cmocka_unit_test(test_weigh),
		cmocka_unit_test(test_weigh_no_file),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
