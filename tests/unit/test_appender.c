/* The appender: calls out of turn, and disks that refuse. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/checksum.h"
#include "model.h"

static const struct model_tensor tensors[] = {
	{"empty", "F32", "[0]", 0, NOISE},
	{"w", "BF16", "[300,512]", 307200, WEIGHTS},
	{"n", "U8", "[1000]", 1000, NOISE},
};

#define COUNT (sizeof tensors / sizeof *tensors)

struct work {
	struct model m;
	hct_encoder *e;
	hct_plan *plan[COUNT];
	const uint8_t *data[COUNT];
	int fd;
	hct_appender *a;
};

static void start(struct work *w)
{
	model_make(tensors, COUNT, 1, &w->m);
	assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &w->e), HCT_OK);
	for (size_t i = 0; i < COUNT; i++) {
		w->data[i] = w->m.file + w->m.st.header_len + w->m.st.tensors[i].begin;
		assert_int_equal(hct_plan_create(w->e, &w->m.st.tensors[i], w->data[i], NULL,
						 &w->plan[i], NULL),
				 HCT_OK);
	}
	w->fd = memfd_create("test", MFD_CLOEXEC);
	assert_int_equal(hct_appender_create(w->fd, "test", &w->m.st, &w->a, NULL), HCT_OK);
}

static void stop(struct work *w)
{
	hct_appender_free(w->a);
	for (size_t i = 0; i < COUNT; i++)
		hct_plan_free(w->plan[i]);
	hct_encoder_free(w->e);
	model_free(&w->m);
	close(w->fd);
}

static hct_error chunk(struct work *w, size_t i, uint64_t k)
{
	struct hct_encoded c;

	assert_int_equal(hct_encode_chunk(w->e, w->plan[i], k,
					  w->data[i] + k * hct_plan_chunk_bytes(w->plan[i]), &c,
					  NULL),
			 HCT_OK);
	return hct_appender_chunk(w->a, &c, NULL);
}

static hct_error finish(struct work *w, uint64_t *bytes)
{
	struct hct_source source = {.size = w->m.size};

	return hct_appender_finish(w->a, &source, "{}", bytes, NULL);
}

/* Makes every write through fd fail; returns what restore takes. */
static int break_fd(int fd)
{
	int saved = dup(fd), null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(saved >= 0 && null >= 0);
	assert_int_equal(dup2(null, fd), fd);
	close(null);
	return saved;
}

static void restore(int fd, int saved)
{
	assert_int_equal(dup2(saved, fd), fd);
	close(saved);
}

static void test_out_of_turn(void **state)
{
	struct hct_source wrong = {0}, late = {0};
	struct hct_diag d = {""};
	struct work w;
	uint64_t bytes = 0;

	(void)state;
	start(&w);
	assert_int_equal(finish(&w, NULL), HCT_ERR_ARGUMENT);
	assert_int_equal(chunk(&w, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_appender_tensor(w.a, 1, w.plan[1], &d), HCT_ERR_ARGUMENT);
	assert_non_null(strstr(d.text, "test: tensor 1"));
	assert_int_equal(hct_appender_tensor(w.a, SIZE_MAX, w.plan[1], &d), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_appender_tensor(w.a, 0, w.plan[1], &d), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_appender_tensor(w.a, 0, w.plan[0], &d), HCT_OK);
	assert_int_equal(hct_appender_tensor(w.a, 0, w.plan[0], &d), HCT_ERR_ARGUMENT);
	/* a tensor without bytes has no chunks */
	assert_int_equal(chunk(&w, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_appender_tensor(w.a, 1, w.plan[1], &d), HCT_OK);
	assert_int_equal(hct_plan_chunk_count(w.plan[1]), 2);
	assert_int_equal(chunk(&w, 1, 0), HCT_OK);
	/* one chunk is missing */
	assert_int_equal(hct_appender_tensor(w.a, 2, w.plan[2], &d), HCT_ERR_ARGUMENT);
	assert_int_equal(finish(&w, NULL), HCT_ERR_ARGUMENT);
	assert_int_equal(chunk(&w, 1, 1), HCT_OK);
	assert_int_equal(chunk(&w, 1, 1), HCT_ERR_ARGUMENT);
	assert_int_equal(finish(&w, NULL), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_appender_tensor(w.a, 2, w.plan[2], &d), HCT_OK);
	assert_int_equal(chunk(&w, 2, 0), HCT_OK);
	assert_int_equal(hct_appender_tensor(w.a, 3, w.plan[2], &d), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_appender_finish(w.a, &wrong, "{}", NULL, &d), HCT_ERR_ARGUMENT);
	late.size = w.m.size;
	late.mtime_nsec = 1000000000;
	assert_int_equal(hct_appender_finish(w.a, &late, "{}", NULL, &d), HCT_ERR_ARGUMENT);
	assert_int_equal(finish(&w, &bytes), HCT_OK);
	assert_int_equal(lseek(w.fd, 0, SEEK_END), bytes);
	assert_int_equal(finish(&w, NULL), HCT_ERR_ARGUMENT);
	assert_int_equal(chunk(&w, 2, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(lseek(w.fd, 0, SEEK_END), bytes);
	stop(&w);
	hct_appender_free(NULL);
}

/* Wrong calls in between leave no trace in the file. */
static void test_refused_calls_write_nothing(void **state)
{
	struct work w;
	uint8_t *mine, *plain;
	uint64_t bytes;
	int fd;

	(void)state;
	start(&w);
	for (size_t i = 0; i < COUNT; i++) {
		hct_appender_tensor(w.a, COUNT - i, w.plan[i], NULL);
		assert_int_equal(hct_appender_tensor(w.a, i, w.plan[i], NULL), HCT_OK);
		for (uint64_t k = 0; k < hct_plan_chunk_count(w.plan[i]); k++) {
			finish(&w, NULL);
			assert_int_equal(chunk(&w, i, k), HCT_OK);
		}
		assert_int_equal(chunk(&w, 2, 0), HCT_ERR_ARGUMENT);
	}
	assert_int_equal(finish(&w, &bytes), HCT_OK);
	fd = model_compress(&w.m);
	assert_int_equal(lseek(fd, 0, SEEK_END), bytes);
	mine = malloc(2 * bytes);
	plain = mine + bytes;
	assert_int_equal(pread(w.fd, mine, bytes, 0), bytes);
	assert_int_equal(pread(fd, plain, bytes, 0), bytes);
	assert_memory_equal(mine, plain, bytes);
	free(mine);
	close(fd);
	stop(&w);
}

static void test_no_space(void **state)
{
	struct hct_diag d = {""};
	struct work w;
	hct_appender *a = (hct_appender *)&w;
	int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	(void)state;
	if (fd < 0)
		skip();
	start(&w);
	assert_int_equal(hct_appender_create(fd, "full", &w.m.st, &a, &d), HCT_ERR_NO_SPACE);
	assert_null(a);
	assert_non_null(strstr(d.text, "full: "));
	assert_int_equal(hct_appender_create(-1, "none", &w.m.st, &a, &d), HCT_ERR_IO);
	close(fd);
	stop(&w);
}

/* After a write that failed the file is never called finished, whatever the disk does then. */
static void test_failure_stays(void **state)
{
	struct work w;
	int saved;

	(void)state;
	start(&w);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(hct_appender_tensor(w.a, i, w.plan[i], NULL), HCT_OK);
	assert_int_equal(chunk(&w, 1, 0), HCT_OK);
	saved = break_fd(w.fd);
	assert_int_equal(chunk(&w, 1, 1), HCT_ERR_IO);
	restore(w.fd, saved);
	assert_int_equal(chunk(&w, 1, 1), HCT_ERR_IO);
	assert_int_equal(hct_appender_tensor(w.a, 2, w.plan[2], NULL), HCT_ERR_ARGUMENT);
	assert_int_equal(finish(&w, NULL), HCT_ERR_ARGUMENT);
	stop(&w);
}

/* The same when it is the index that does not fit. */
static void test_failure_in_index(void **state)
{
	struct work w;
	int saved;

	(void)state;
	start(&w);
	for (size_t i = 0; i < COUNT; i++) {
		assert_int_equal(hct_appender_tensor(w.a, i, w.plan[i], NULL), HCT_OK);
		for (uint64_t k = 0; k < hct_plan_chunk_count(w.plan[i]); k++)
			assert_int_equal(chunk(&w, i, k), HCT_OK);
	}
	saved = break_fd(w.fd);
	assert_int_equal(finish(&w, NULL), HCT_ERR_IO);
	restore(w.fd, saved);
	assert_int_equal(finish(&w, NULL), HCT_ERR_IO);
	stop(&w);
}

/* Where the tables of other tensors leave no room. */
static void test_plan_without_tables(void **state)
{
	static const struct hct_goal lossy = {.relative_squared_error = 0.01};
	struct hct_plan_info info;
	struct work w;

	(void)state;
	start(&w);
	for (int pass = 0; pass < 2; pass++) {
		const struct hct_goal *goal = pass ? &lossy : NULL;
		struct hct_encoded c;
		hct_plan *p;

		assert_int_equal(
			hct_plan_create(w.e, &w.m.st.tensors[1], w.data[1], goal, &p, NULL),
			HCT_OK);
		assert_true(hct_plan_table_bytes(p) > 0);
		hct_plan_drop_tables(w.e, p, w.data[1]);
		assert_int_equal(hct_plan_table_bytes(p), 0);
		hct_plan_describe(p, &info);
		assert_true(info.relative_squared_error == 0);
		assert_int_equal(info.why != NULL, pass);
		assert_int_equal(hct_plan_chunk_count(p), 2);
		for (uint64_t k = 0; k < 2; k++) {
			const uint8_t *data = w.data[1] + k * hct_plan_chunk_bytes(p);
			uint32_t n = hct_plan_chunk_length(p, k);

			assert_int_equal(hct_encode_chunk(w.e, p, k, data, &c, NULL), HCT_OK);
			assert_true(c.layers[0].length <= n);
			assert_true(c.layers[0].digest == hct_checksum(data, n));
		}
		hct_plan_free(p);
	}
	stop(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plan_without_tables),
		cmocka_unit_test(test_out_of_turn),
		cmocka_unit_test(test_refused_calls_write_nothing),
		cmocka_unit_test(test_no_space),
		cmocka_unit_test(test_failure_stays),
		cmocka_unit_test(test_failure_in_index),
	};

	return cmocka_run_group_tests_name("appender", tests, NULL, NULL);
}
