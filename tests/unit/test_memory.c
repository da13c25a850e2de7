/* What planning and encoding may take, whatever the tensor: hct_encoder_memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "codec/hctenc.h"

#define WINDOW ((size_t)32 << 20) /* bytes of numbers, which the tensors below repeat */

#if defined __SANITIZE_ADDRESS__
#define SANITIZED 1 /* whose own memory counts, too */
#else
#define SANITIZED 0
#endif

static uint64_t state64 = 7;

static uint32_t draw(void)
{
	state64 = state64 * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(state64 >> 33);
}

/* BF16 numbers about Gaussian, one in 64 of them 30 times as large with peaky. */
static void fill(uint16_t *x, size_t n, int peaky)
{
	for (size_t i = 0; i < n; i++) {
		float v = 0;
		uint32_t u;

		for (unsigned k = 0; k < 4; k++)
			v += (float)(draw() & 65535) / 65536 - .5f;
		if (peaky)
			v *= i % 64 ? .001f : 30;
		memcpy(&u, &v, 4);
		x[i] = (uint16_t)(u >> 16);
	}
}

/* Numbers over and over, `times` windows; shared, so that no limit on memory counts them. */
static uint8_t *map_window(size_t times, int peaky)
{
	int fd = memfd_create("tensor", 0);
	uint8_t *at = mmap(NULL, times * WINDOW, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_int_equal(ftruncate(fd, WINDOW), 0);
	assert_true(at != MAP_FAILED);
	for (size_t i = 0; i < times; i++)
		assert_true(mmap(at + i * WINDOW, WINDOW, PROT_READ | (i ? 0 : PROT_WRITE),
				 MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED);
	close(fd);
	fill((uint16_t *)(void *)at, WINDOW / 2, peaky);
	return at;
}

static struct hct_tensor matrix(uint64_t *shape)
{
	uint64_t n = shape[0] * shape[1];

	return (struct hct_tensor){.name = "w",
				   .dtype = HCT_DTYPE_BF16,
				   .rank = 2,
				   .shape = shape,
				   .end = 2 * n,
				   .elements = n};
}

/* Bytes of data that this process has mapped. */
static size_t data_bytes(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[200];
	size_t n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof line, f))
		if (!strncmp(line, "VmData:", 7))
			n = strtoul(line + 7, NULL, 10) << 10;
	fclose(f);
	return n;
}

/* Plans it, and codes its first and last chunk. */
static hct_error code(hct_encoder *e, const struct hct_tensor *t, const uint8_t *data,
		      const struct hct_goal *goal, struct hct_plan_info *info, size_t *held)
{
	hct_plan *p;
	hct_error err = hct_plan_create(e, t, data, goal, &p, NULL);

	if (err)
		return err;
	for (uint64_t i = 0; i < 2 && !err; i++) {
		uint64_t n = i * (hct_plan_chunk_count(p) - 1);
		struct hct_encoded coded;

		err = hct_encode_chunk(e, p, n, data + n * hct_plan_chunk_bytes(p), &coded, NULL);
	}
	hct_plan_describe(p, info);
	*held = hct_plan_memory(p);
	hct_plan_free(p);
	return err;
}

static void large_tensors(void **state)
{
	static const struct {
		uint64_t rows, columns;
		int peaky;
		struct hct_goal goal;
	} cases[] = {
		{1, (uint64_t)1 << 27, 0, {.relative_squared_error = .0146}},
		{128, 1 << 20, 0, {.relative_squared_error = .0146}},
		{(uint64_t)1 << 22, 32, 0, {.relative_squared_error = .0146}},
		{8192, 16384, 0, {.relative_squared_error = 0}},
		{8192, 16384, 0, {.relative_squared_error = .0146, .layers = 4}},
		{8192, 16384, 0, {.relative_squared_error = .0146, .method = HCT_METHOD_SVD}},
		{8192, 16384, 0, {.relative_squared_error = .01, .method = HCT_METHOD_INT4}},
		{8192,
		 16384,
		 0,
		 {.relative_squared_error = .01, .method = HCT_METHOD_TOPK, .retention = .5}},
		{8192, 16384, 1, {.relative_squared_error = .0146, .effort = 9}},
		{128, 1 << 20, 1, {.relative_squared_error = .0146, .effort = 9}},
	};
	uint8_t *data[2];
	struct rlimit old, limit;

	(void)state;
	if (SANITIZED)
		skip();
	data[0] = map_window(8, 0);
	data[1] = map_window(8, 1);
	assert_int_equal(getrlimit(RLIMIT_DATA, &old), 0);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint64_t shape[2] = {cases[i].rows, cases[i].columns}, few[2] = {512, 512};
		struct hct_tensor t = matrix(shape), small = matrix(few);
		struct hct_plan_info info;
		hct_encoder *e;
		hct_error err;
		size_t held;

		/* BLAS allocates its buffers once. */
		assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &e), HCT_OK);
		assert_int_equal(code(e, &small, data[0], &cases[5].goal, &info, &held), HCT_OK);
		limit = old;
		limit.rlim_cur = data_bytes() + hct_encoder_memory();
		assert_int_equal(setrlimit(RLIMIT_DATA, &limit), 0);
		err = code(e, &t, data[cases[i].peaky], &cases[i].goal, &info, &held);
		assert_int_equal(setrlimit(RLIMIT_DATA, &old), 0);
		hct_encoder_free(e);
		if (err)
			fail_msg("case %zu: %s", i, hct_error_string(err));
		assert_true(held > 0 && held < (size_t)20 << 20);
	}
	munmap(data[0], 8 * WINDOW);
	munmap(data[1], 8 * WINDOW);
}

/* A matrix of rank 1, but so tall that bases of its columns would take too much: it is coded
 * otherwise, and says so. */
static void too_tall_for_factors(void **state)
{
	uint64_t shape[2] = {800000, 32};
	struct hct_tensor t = matrix(shape);
	uint16_t *x = malloc(t.end);
	struct hct_goal goal = {.relative_squared_error = .0146, .method = HCT_METHOD_SVD};
	struct hct_plan_info info;
	hct_encoder *e;
	size_t held;

	(void)state;
	assert_non_null(x);
	fill(x, shape[0] * 32, 0);
	for (size_t i = 0; i < shape[0]; i++)
		for (size_t c = 1; c < 32; c++)
			x[32 * i + c] = x[32 * i];
	assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &e), HCT_OK);
	assert_int_equal(code(e, &t, (uint8_t *)x, &goal, &info, &held), HCT_OK);
	assert_string_equal(info.codec, "tcq");
	assert_non_null(info.note);
	shape[0] = 80000;
	t = matrix(shape);
	assert_int_equal(code(e, &t, (uint8_t *)x, &goal, &info, &held), HCT_OK);
	assert_string_equal(info.codec, "lowrank");
	assert_null(info.note);
	hct_encoder_free(e);
	free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(large_tensors),
		cmocka_unit_test(too_tall_for_factors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
