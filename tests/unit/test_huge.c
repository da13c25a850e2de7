/* A tensor beyond 4 GiB and 2^31 elements, of which only some chunks are coded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/codec.h"
#include "codec/plan.h"
#include "model.h"

static void make_header(const char *shape, uint64_t bytes, struct hct_safetensors *st)
{
	char text[300];
	struct hct_diag d;
	int n = snprintf(text + 8, sizeof text - 8,
			 "{\"w\":{\"dtype\":\"BF16\",\"shape\":%s,\"data_offsets\":[0,%llu]}}",
			 shape, (unsigned long long)bytes);
	uint64_t length = (uint64_t)n;

	memcpy(text, &length, 8);
	if (hct_safetensors_parse(text, 8 + (size_t)n, 8 + (uint64_t)n + bytes, st, &d))
		fail_msg("%s", d.text);
}

/* Codes a chunk and decodes it with every variant; returns its coded length. */
static size_t one_chunk(hct_encoder *e, const hct_plan *p, const struct hct_tensor *t, uint64_t k,
			const uint8_t *tensor)
{
	const uint8_t *data = tensor + k * hct_plan_chunk_bytes(p);
	size_t length = hct_plan_chunk_length(p, k);
	uint8_t *out = malloc(length), *payload;
	struct hct_encoded coded;
	const char *why = "";

	assert_int_equal(hct_encode_chunk(e, p, k, data, &coded, NULL), HCT_OK);
	assert_int_equal(coded.codec, HCT_CODEC_SPLIT);
	payload = calloc(coded.layers[0].length + HCT_PAYLOAD_PAD, 1);
	memcpy(payload, coded.layers[0].payload, coded.layers[0].length);
	for (int simd = HCT_SIMD_SCALAR; simd <= HCT_SIMD_AVX512; simd++) {
		struct hct_scratch scratch = {.simd = (hct_simd)simd};
		struct hct_task task = {.tensor = t,
					.offset = k * hct_plan_chunk_bytes(p),
					.length = length,
					.end = length,
					.layers = {{payload, coded.layers[0].length}},
					.layer_count = 1,
					.scratch = &scratch};
		void *tables;

		if (!hct_simd_supported((hct_simd)simd))
			continue;
		assert_int_equal(
			hct_codec_split.open_tables(t, p->params, p->params_length, &tables, &why),
			HCT_OK);
		task.tables = tables;
		assert_int_equal(hct_codec_split.decode(&task, out, &why), HCT_OK);
		assert_memory_equal(out, data, length);
		hct_codec_split.free_tables(tables);
		free(scratch.bytes);
	}
	free(payload);
	free(out);
	return coded.layers[0].length;
}

/* One piece of data, mapped again and again, whose columns of 49
 * differ in scale.  A column that is computed in 32 bits would be another one. */
static void test_huge(void **state)
{
	enum { PIECE = 49 * 65536, TIMES = 1700 };
	uint64_t bytes = (uint64_t)PIECE * TIMES, last;
	int fd = memfd_create("piece", MFD_CLOEXEC);
	uint8_t *data = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, fd, 0);
	struct hct_safetensors st;
	uint32_t seed = 1;
	size_t first;
	char shape[64];
	hct_encoder *e;
	hct_plan *p;

	(void)state;
	if (data == MAP_FAILED)
		skip();
	assert_int_equal(ftruncate(fd, PIECE), 0);
	for (size_t i = 0; i < TIMES; i++) {
		uint8_t *at = data + i * PIECE;
		void *got = mmap(at, PIECE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);

		assert_ptr_equal(got, at);
	}
	for (size_t i = 0; i < PIECE / 2; i++) {
		uint16_t v = model_weight(&seed, (unsigned)(i % 49 / 5));

		memcpy(data + 2 * i, &v, 2);
	}
	snprintf(shape, sizeof shape, "[%llu,2,7,7]", (unsigned long long)(bytes / 196));
	make_header(shape, bytes, &st);
	assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &e), HCT_OK);
	assert_int_equal(hct_plan_create(e, st.tensors, data, NULL, &p, NULL), HCT_OK);
	last = hct_plan_chunk_count(p) - 1;
	assert_true(last * hct_plan_chunk_bytes(p) < bytes);
	assert_int_equal(hct_plan_chunk_length(p, last), bytes - last * hct_plan_chunk_bytes(p));
	/* chunks begin at any column */
	assert_true(hct_plan_chunk_bytes(p) / 2 % 49 != 0);
	first = one_chunk(e, p, st.tensors, 0, data);
	for (uint64_t k = last - 3; k <= last; k++) {
		size_t coded = one_chunk(e, p, st.tensors, k, data);
		size_t length = hct_plan_chunk_length(p, k);

		assert_true(coded * 100 < first * length / hct_plan_chunk_bytes(p) * 101 + 100000);
	}
	hct_plan_free(p);
	hct_encoder_free(e);
	hct_safetensors_free(&st);
	munmap(data, bytes);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_huge)};

	return cmocka_run_group_tests_name("huge", tests, NULL, NULL);
}
