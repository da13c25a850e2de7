/* layers.h: the names of the qualities, and what they make of a file in layers; and what the kernel
 * is told when layers are left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "codec/hctenc.h"
#include "codec/index.h"
#include "fs/layers.h"
#include "make_hct.h"

#define COUNT 24

/* Elements of the tensors, and how many layers they are to have; 0 for lossless.  Most are there to
 * make chunks. */
static const unsigned counts[COUNT] = {70000, 1000, 300000, 9, 9, 9, 9, 9, 9, 9, 9, 9,
				       9,     9,    9,      9, 9, 9, 9, 9, 9, 9, 9, 9},
		      wanted[COUNT] = {2, 0, 4};

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
	hct_reader *r;

	assert_int_equal(hct_reader_open(f->path, &r, NULL), HCT_OK);
	for (size_t i = 0; i < COUNT; i++)
		for (unsigned l = 0; l < HCT_GOAL_MAX_LAYERS; l++)
			stored += f->bytes[i][l];
	for (unsigned layers = 0; layers <= 8; layers++) {
		struct hct_layers_share sum = {0};
		uint64_t read = 0, cut = 0;

		for (size_t i = 0; i < COUNT; i++) {
			uint64_t bytes = 0;

			cut += layers && wanted[i] > layers;
			for (unsigned l = 0; l < HCT_GOAL_MAX_LAYERS; l++)
				if (!layers || l < layers)
					bytes += f->bytes[i][l];
			assert_int_equal(hct_reader_layer_bytes(r, i, layers), bytes);
			read += bytes;
		}
		for (unsigned times = 1; times <= 2; times++) {
			hct_layers_weigh(r, layers, &sum);
			assert_int_equal(sum.most, 4);
			assert_int_equal(sum.tensors, times * COUNT);
			assert_int_equal(sum.cut, times * cut);
			assert_int_equal(sum.stored_bytes, times * stored);
			assert_int_equal(sum.read_bytes, times * read);
		}
	}
	hct_reader_close(r);
}

/* What the kernel was told, in place of telling it. */
static struct {
	off_t offset, length;
	int advice;
} told[400];
static size_t told_count;

int posix_fadvise(int fd, off_t offset, off_t length, int advice)
{
	(void)fd;
	assert_true(told_count < sizeof told / sizeof told[0]);
	told[told_count].offset = offset;
	told[told_count].length = length;
	told[told_count++].advice = advice;
	return 0;
}

/* Whether the kernel was told to read that extent. */
static int was_announced(const struct hct_extent *ext)
{
	for (size_t i = 0; i < told_count; i++)
		if (told[i].advice == POSIX_FADV_WILLNEED && told[i].offset == (off_t)ext->offset &&
		    told[i].length == (off_t)ext->length)
			return 1;
	return 0;
}

/* Decodes all chunks in order, with no more than that many layers; the kernel may
 * be told of nothing else, and must know in time of those that are some way behind. */
static void decode_cut(const hct_reader *r, const struct hct_index *x, unsigned layers)
{
	size_t announced = 0;
	hct_decoder *d;

	told_count = 0;
	assert_int_equal(hct_decoder_create(HCT_SIMD_AUTO, &d), HCT_OK);
	hct_decoder_set_layers(d, layers);
	for (size_t i = 0; i < COUNT; i++) {
		unsigned stored = x->tensors[i].layers;

		for (uint64_t k = 0; k < x->tensors[i].chunk_count; k++) {
			uint64_t number = x->first_chunk[i] + k;
			static uint8_t dst[8 << 20];

			for (unsigned l = 0; number > 16 && l < stored && l < layers; l++) {
				struct hct_extent ext;

				hct_index_extent(x, i, k, l, &ext);
				assert_true(was_announced(&ext));
			}
			assert_int_equal(hct_reader_decode(r, d, number, dst, NULL), HCT_OK);
			assert_int_equal(told[0].advice, POSIX_FADV_RANDOM);
		}
	}
	for (size_t i = 0; i < COUNT; i++) {
		for (uint64_t k = 0; k < x->tensors[i].chunk_count; k++) {
			for (unsigned l = 0; l < x->tensors[i].layers; l++) {
				struct hct_extent ext;

				hct_index_extent(x, i, k, l, &ext);
				if (l >= layers)
					assert_false(was_announced(&ext));
				announced += was_announced(&ext) != 0;
			}
		}
	}
	/* Each once, and nothing that is no extent. */
	for (size_t i = 0; i < told_count; i++)
		announced -= told[i].advice == POSIX_FADV_WILLNEED;
	assert_int_equal(announced, 0);
	for (size_t i = 0; i < told_count; i++)
		assert_int_not_equal(told[i].advice, POSIX_FADV_NORMAL);
	hct_decoder_free(d);
}

/* Who reads all layers has the kernel's own read-ahead. */
static void decode_full(const hct_reader *r, unsigned layers)
{
	static uint8_t dst[8 << 20];
	hct_decoder *d;

	told_count = 0;
	assert_int_equal(hct_decoder_create(HCT_SIMD_AUTO, &d), HCT_OK);
	hct_decoder_set_layers(d, layers);
	for (uint64_t n = 0; n < hct_reader_chunk_count(r); n++)
		assert_int_equal(hct_reader_decode(r, d, n, dst, NULL), HCT_OK);
	assert_int_equal(told_count, 0);
	hct_decoder_free(d);
}

static void test_advice(void **state)
{
	const struct layered *f = *state;
	struct hct_index x;
	hct_reader *r;
	int fd = open(f->path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(hct_index_read(fd, f->path, &x, NULL), HCT_OK);
	close(fd);
	assert_true(x.chunk_count > 20);
	told_count = 0;
	assert_int_equal(hct_reader_open(f->path, &r, NULL), HCT_OK);
	assert_int_equal(told_count, 2);
	assert_int_equal(told[0].advice, POSIX_FADV_RANDOM);
	assert_int_equal(told[1].advice, POSIX_FADV_NORMAL);
	decode_full(r, 0);
	decode_full(r, 4);
	for (unsigned layers = 1; layers < 4; layers++)
		decode_cut(r, &x, layers);
	hct_reader_close(r);
	hct_index_free(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_most),
		cmocka_unit_test(test_weigh),
		cmocka_unit_test(test_advice),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
