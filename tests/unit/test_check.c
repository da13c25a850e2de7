/* hct_check_chunk and hct_check_appended: chunks as they were made are found right, and others are
 * not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/check.h"
#include "model.h"

static const struct model_tensor tensors[] = {
	{"w", "BF16", "[600,512]", 614400, WEIGHTS},
	{"n", "U8", "[1000]", 1000, NOISE},
	{"z", "I32", "[70000]", 280000, COUNTERS},
};

#define COUNT (sizeof tensors / sizeof *tensors)

/* A copy of a chunk, with the bytes behind it that the check may read. */
struct copy {
	struct hct_encoded chunk;
	uint8_t *bytes;
	size_t length;
};

static void keep(struct copy *c)
{
	size_t at = 0;

	c->length = 0;
	for (unsigned l = 0; l < c->chunk.layer_count; l++)
		c->length += c->chunk.layers[l].length;
	c->bytes = calloc(c->length + HCT_CHECK_PAD, 1);
	assert_non_null(c->bytes);
	for (unsigned l = 0; l < c->chunk.layer_count; l++) {
		memcpy(c->bytes + at, c->chunk.layers[l].payload, c->chunk.layers[l].length);
		c->chunk.layers[l].payload = c->bytes + at;
		at += c->chunk.layers[l].length;
	}
}

static int is_found(hct_error err)
{
	return err == HCT_ERR_DIGEST || err == HCT_ERR_CORRUPT;
}

static void check(hct_encoder *e, const hct_plan *p, uint64_t n, struct copy *c)
{
	struct hct_diag d = {""};
	uint32_t length = c->chunk.layers[0].length;
	size_t step = c->length / 211 + 1;

	if (hct_check_chunk(e, p, n, &c->chunk, &d) != HCT_OK)
		fail_msg("%s", d.text);
	for (size_t i = 0; i < c->length; i += step) {
		c->bytes[i] ^= (uint8_t)(1u << i % 8);
		assert_true(is_found(hct_check_chunk(e, p, n, &c->chunk, &d)));
		assert_true(*d.text);
		c->bytes[i] ^= (uint8_t)(1u << i % 8);
	}
	for (unsigned l = 0; l < c->chunk.layer_count; l++) {
		c->chunk.layers[l].digest ^= 1;
		assert_true(is_found(hct_check_chunk(e, p, n, &c->chunk, &d)));
		c->chunk.layers[l].digest ^= 1;
	}
	c->chunk.layers[0].length = length / 2;
	assert_true(is_found(hct_check_chunk(e, p, n, &c->chunk, &d)));
	c->chunk.layers[0].length = length;
	assert_int_equal(hct_check_chunk(e, p, n, &c->chunk, &d), HCT_OK);
}

static void check_all(const struct hct_goal *goal)
{
	hct_encoder *e;
	struct model m;

	model_make(tensors, COUNT, 1, &m);
	assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &e), HCT_OK);
	for (size_t i = 0; i < COUNT; i++) {
		const uint8_t *data = m.file + m.st.header_len + m.st.tensors[i].begin;
		hct_plan *p;

		assert_int_equal(hct_plan_create(e, &m.st.tensors[i], data, goal, &p, NULL),
				 HCT_OK);
		for (uint64_t n = 0; n < hct_plan_chunk_count(p); n++) {
			struct copy c;

			assert_int_equal(hct_encode_chunk(e, p, n,
							  data + n * hct_plan_chunk_bytes(p),
							  &c.chunk, NULL),
					 HCT_OK);
			keep(&c);
			check(e, p, n, &c);
			free(c.bytes);
		}
		hct_plan_free(p);
	}
	hct_encoder_free(e);
	model_free(&m);
}

static void test_lossless(void **state)
{
	(void)state;
	check_all(NULL);
}

static void test_lossy(void **state)
{
	const struct hct_goal goal = {.relative_squared_error = .01};

	(void)state;
	check_all(&goal);
}

static void test_layers(void **state)
{
	const struct hct_goal goal = {.relative_squared_error = .005, .layers = 3};

	(void)state;
	check_all(&goal);
}

/* Chunks in a file, of which only what the appender has of them is known. */
static void check_appended(hct_encoder *e, int fd, const struct hct_tensor *t,
			   const struct hct_appended *a)
{
	struct hct_diag d = {""};

	for (uint64_t n = 0; n < a->chunks; n++) {
		uint64_t offset;
		uint32_t length;
		uint8_t *bytes;

		assert_int_equal(hct_appended_place(t, a, n, &offset, &length), HCT_OK);
		bytes = calloc(length + HCT_CHECK_PAD, 1);
		assert_non_null(bytes);
		assert_int_equal(pread(fd, bytes, length, (off_t)offset), length);
		if (hct_check_appended(e, t, a, n, bytes, &d) != HCT_OK)
			fail_msg("%s", d.text);
		for (size_t i = 0; i < length; i += length / 31 + 1) {
			bytes[i] ^= 8;
			assert_true(is_found(hct_check_appended(e, t, a, n, bytes, &d)));
			bytes[i] ^= 8;
		}
		free(bytes);
	}
}

/* Descriptions that cannot be of the tensor; nothing of them may be followed. */
static void check_places(const struct hct_tensor *t, const struct hct_appended *good)
{
	struct hct_appended a = *good;
	uint8_t extents[HCT_APPENDED_EXTENT * HCT_GOAL_MAX_LAYERS];
	uint64_t offset;
	uint32_t length;

	assert_int_equal(hct_appended_place(t, &a, a.chunks, &offset, &length), HCT_ERR_CORRUPT);
	a.layers = HCT_GOAL_MAX_LAYERS + 1;
	assert_int_equal(hct_appended_place(t, &a, 0, &offset, &length), HCT_ERR_CORRUPT);
	a.layers = good->layers;
	a.chunk_bytes = 0;
	assert_int_equal(hct_appended_place(t, &a, 0, &offset, &length), HCT_ERR_CORRUPT);
	a.chunk_bytes = good->chunk_bytes;
	a.chunks = UINT64_MAX;
	assert_int_equal(hct_appended_place(t, &a, good->chunks, &offset, &length),
			 HCT_ERR_CORRUPT);
	memcpy(extents, good->extents, (size_t)HCT_APPENDED_EXTENT * a.layers);
	a.extents = extents;
	assert_int_equal(hct_appended_place(t, &a, 0, &offset, &length), HCT_OK);
	extents[12] = 0xee; /* the codec */
	assert_int_equal(hct_appended_place(t, &a, 0, &offset, &length), HCT_ERR_CORRUPT);
	memcpy(extents, good->extents, (size_t)HCT_APPENDED_EXTENT * a.layers);
	extents[11] = 0xff; /* the length */
	assert_int_equal(hct_appended_place(t, &a, 0, &offset, &length), HCT_ERR_CORRUPT);
}

static void append(hct_encoder *e, hct_appender *appender, const struct model *m, size_t i,
		   const struct hct_goal *goal)
{
	const uint8_t *data = m->file + m->st.header_len + m->st.tensors[i].begin;
	struct hct_encoded c;
	hct_plan *p;

	assert_int_equal(hct_plan_create(e, &m->st.tensors[i], data, goal, &p, NULL), HCT_OK);
	assert_int_equal(hct_appender_tensor(appender, i, p, NULL), HCT_OK);
	for (uint64_t n = 0; n < hct_plan_chunk_count(p); n++) {
		const uint8_t *chunk = data + n * hct_plan_chunk_bytes(p);

		assert_int_equal(hct_encode_chunk(e, p, n, chunk, &c, NULL), HCT_OK);
		assert_int_equal(hct_appender_chunk(appender, &c, NULL), HCT_OK);
	}
	hct_plan_free(p);
}

static void test_appended(void **state)
{
	const struct hct_goal goal = {.relative_squared_error = .005, .layers = 3};
	int fd = memfd_create("appended", MFD_CLOEXEC);
	hct_appender *appender;
	hct_encoder *e;
	struct model m;

	(void)state;
	model_make(tensors, COUNT, 1, &m);
	assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &e), HCT_OK);
	assert_int_equal(hct_appender_create(fd, "f", &m.st, &appender, NULL), HCT_OK);
	for (size_t i = 0; i < COUNT; i++) {
		struct hct_appended a;

		append(e, appender, &m, i, &goal);
		hct_appender_describe(appender, i, &a);
		check_appended(e, fd, &m.st.tensors[i], &a);
		check_places(&m.st.tensors[i], &a);
	}
	hct_appender_free(appender);
	hct_encoder_free(e);
	model_free(&m);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lossless),
		cmocka_unit_test(test_lossy),
		cmocka_unit_test(test_layers),
		cmocka_unit_test(test_appended),
	};

	return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
