/* What was measured: it is found again bit by bit, and what is torn, damaged or of something else
 * is not. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "codec/bytes.h"
#include "codec/checksum.h"
#include "writer/measured.h"

#define FINGERPRINT 0x0123456789ABCDEF
#define BEGIN       24 /* of the file, and of a record: measured.h */
#define FRAME       12
#define KEY         64

/* More digits than any text of a few would keep. */
static const struct mkhct_forecast whole = {
	.result = {.plan = {.codec = "split",
			    .layers = 1,
			    .tile_rows = 1,
			    .tile_columns = 1,
			    .bits = 10.9 / 3},
		   .energy = 1 / 3.,
		   .decoded_energy = 5e-324,
		   .error = 0},
	.extent_bytes = 12345,
	.extents = 1,
	.record = {.codec = 0, .layers = 1, .chunk_bytes = 1 << 20, .chunk_count = 1},
	.exact = 1};
static const uint8_t table[] = {1, 2, 3, 4, 5, 6, 7};
static const struct mkhct_forecast sampled = {
	.result = {.plan = {.codec = "tcq",
			    .layers = 2,
			    .tile_rows = 64,
			    .tile_columns = 32,
			    .bits = .1,
			    .relative_squared_error = 1e-3 / 7},
		   .energy = 1e300 / 3,
		   .decoded_energy = 1e300 / 7,
		   .error = 1e297 / 9},
	.extent_bytes = 1e5 / 3,
	.extents = 34,
	.record = {.codec = 3,
		   .layers = 2,
		   .chunk_bytes = 4096,
		   .chunk_count = 17,
		   .params_length = sizeof(table)},
	.lossy = 1};
static const struct mkhct_forecast refused = {
	.result = {.plan = {.codec = "raw", .why = "too small", .layers = 1}},
	.extent_bytes = 10,
	.extents = 1,
	.record = {.layers = 1, .chunk_bytes = 10, .chunk_count = 1},
	.exact = 1};

static const struct hct_goal lossless = {.effort = 5};
static const struct hct_goal lossy = {.relative_squared_error = .01 / 3,
				      .effort = 7,
				      .transform = 1,
				      .method = 1,
				      .retention = 1 / 3.,
				      .fp16_ratio = .2,
				      .layers = 2};
static const struct hct_tensor tensor = {.dtype = HCT_DTYPE_BF16, .begin = 0, .end = 100000};

static struct mkhct_measured *open_at(int fd, uint64_t fingerprint)
{
	const struct mkhct_measured_pace pace = {.seconds = 1000};
	struct hct_diag d = {""};
	struct mkhct_measured *m = NULL;

	if (mkhct_measured_open(fd, "test", fingerprint, &pace, &m, &d))
		fail_msg("%s", d.text);
	return m;
}

static size_t size_of(int fd)
{
	struct stat sb;

	assert_int_equal(fstat(fd, &sb), 0);
	return (size_t)sb.st_size;
}

/* A file with four records, of which the first ends at ends[0]. */
static int make(size_t ends[4])
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	struct mkhct_measured *m = open_at(fd, FINGERPRINT);

	assert_int_equal(size_of(fd), BEGIN);
	assert_int_equal(mkhct_measured_count(m), 0);
	assert_int_equal(mkhct_measured_add_forecast(m, "a", 0, &lossless, &whole, NULL, NULL),
			 HCT_OK);
	ends[0] = size_of(fd);
	assert_int_equal(mkhct_measured_add_forecast(m, "a", 1, &lossy, &sampled, table, NULL),
			 HCT_OK);
	ends[1] = size_of(fd);
	assert_int_equal(mkhct_measured_add_retention(m, "a", 1, .9, 1 / 7., NULL), HCT_OK);
	ends[2] = size_of(fd);
	assert_int_equal(mkhct_measured_add_forecast(m, "b", 0, &lossy, &refused, NULL, NULL),
			 HCT_OK);
	ends[3] = size_of(fd);
	mkhct_measured_free(m);
	return fd;
}

static void assert_same_bits(double a, double b)
{
	assert_memory_equal(&a, &b, sizeof(a));
}

static int has(const struct mkhct_measured *m, const char *model, size_t i,
	       const struct hct_goal *goal, const struct mkhct_forecast *wanted)
{
	struct mkhct_forecast f;
	uint8_t *tables;

	if (!mkhct_measured_forecast(m, model, i, &tensor, goal, &f, &tables)) {
		assert_null(tables);
		return 0;
	}
	assert_same_bits(f.result.energy, wanted->result.energy);
	assert_same_bits(f.result.decoded_energy, wanted->result.decoded_energy);
	assert_same_bits(f.result.error, wanted->result.error);
	assert_same_bits(f.result.plan.bits, wanted->result.plan.bits);
	assert_same_bits(f.result.plan.relative_squared_error,
			 wanted->result.plan.relative_squared_error);
	assert_same_bits(f.extent_bytes, wanted->extent_bytes);
	assert_int_equal(f.extents, wanted->extents);
	assert_string_equal(f.result.plan.codec, wanted->result.plan.codec);
	assert_int_equal(f.result.plan.why != NULL, wanted->result.plan.why != NULL);
	assert_int_equal(f.result.plan.layers, wanted->result.plan.layers);
	assert_int_equal(f.result.plan.tile_rows, wanted->result.plan.tile_rows);
	assert_int_equal(f.result.plan.tile_columns, wanted->result.plan.tile_columns);
	assert_int_equal(f.record.codec, wanted->record.codec);
	assert_int_equal(f.record.layers, wanted->record.layers);
	assert_int_equal(f.record.chunk_bytes, wanted->record.chunk_bytes);
	assert_int_equal(f.record.chunk_count, wanted->record.chunk_count);
	assert_int_equal(f.record.params_length, wanted->record.params_length);
	assert_int_equal(f.lossy, wanted->lossy);
	assert_int_equal(f.exact, wanted->exact);
	assert_int_equal(tables != NULL, wanted->record.params_length != 0);
	if (tables)
		assert_memory_equal(tables, table, sizeof(table));
	free(tables);
	return 1;
}

/* The first `count` of make's records are there, and no other. */
static void assert_has(const struct mkhct_measured *m, size_t count)
{
	double retention = mkhct_measured_retention(m, "a", 1, .9);

	assert_int_equal(mkhct_measured_count(m), count);
	assert_int_equal(mkhct_measured_is_kept(m), count > 0);
	assert_int_equal(has(m, "a", 0, &lossless, &whole), count > 0);
	assert_int_equal(has(m, "a", 1, &lossy, &sampled), count > 1);
	assert_same_bits(retention, count > 2 ? 1 / 7. : 0);
	assert_int_equal(has(m, "b", 0, &lossy, &refused), count > 3);
}

static void test_found_again(void **state)
{
	size_t ends[4];
	int fd = make(ends);
	struct mkhct_measured *m = open_at(fd, FINGERPRINT);

	(void)state;
	assert_has(m, 4);
	mkhct_measured_free(m);
	assert_int_equal(size_of(fd), ends[3]);
	close(fd);
}

/* Whatever is in the key counts. */
static void test_of_something_else(void **state)
{
	struct hct_goal goals[7];
	size_t ends[4];
	int fd = make(ends);
	struct mkhct_measured *m = open_at(fd, FINGERPRINT);

	(void)state;
	for (size_t i = 0; i < 7; i++)
		goals[i] = lossy;
	goals[0].relative_squared_error = nextafter(lossy.relative_squared_error, 1);
	goals[1].effort++;
	goals[2].transform = 0;
	goals[3].method = 0;
	goals[4].retention = nextafter(lossy.retention, 1);
	goals[5].fp16_ratio = nextafter(lossy.fp16_ratio, 1);
	goals[6].layers++;
	for (size_t i = 0; i < 7; i++)
		assert_false(has(m, "a", 1, &goals[i], &sampled));
	assert_false(has(m, "b", 1, &lossy, &sampled));
	assert_false(has(m, "a", 2, &lossy, &sampled));
	assert_true(mkhct_measured_retention(m, "a", 1, nextafter(.9, 1)) == 0);
	assert_true(mkhct_measured_retention(m, "a", 0, .9) == 0);
	assert_true(mkhct_measured_retention(m, "b", 1, .9) == 0);
	mkhct_measured_free(m);
	close(fd);
}

static void test_other_fingerprint(void **state)
{
	size_t ends[4];
	int fd = make(ends);
	struct mkhct_measured *m = open_at(fd, FINGERPRINT + 1);

	(void)state;
	assert_has(m, 0);
	assert_int_equal(size_of(fd), BEGIN);
	assert_int_equal(mkhct_measured_add_forecast(m, "a", 0, &lossless, &whole, NULL, NULL),
			 HCT_OK);
	mkhct_measured_free(m);
	m = open_at(fd, FINGERPRINT + 1);
	assert_has(m, 1);
	mkhct_measured_free(m);
	close(fd);
}

/* What is whole stays, and the file goes on behind it. */
static void test_torn(void **state)
{
	size_t ends[4];
	int fd = make(ends);

	(void)state;
	for (size_t cut = ends[3]; cut-- > 0;) {
		size_t count = 0, end = BEGIN;
		struct mkhct_measured *m;

		while (count < 4 && ends[count] <= cut)
			end = ends[count++];
		close(fd);
		fd = make(ends);
		assert_int_equal(ftruncate(fd, (off_t)cut), 0);
		m = open_at(fd, FINGERPRINT);
		assert_has(m, count);
		assert_int_equal(size_of(fd), end);
		assert_int_equal(
			mkhct_measured_add_forecast(m, "c", 5, &lossy, &sampled, table, NULL),
			HCT_OK);
		mkhct_measured_free(m);
		m = open_at(fd, FINGERPRINT);
		assert_int_equal(mkhct_measured_count(m), count + 1);
		assert_true(has(m, "c", 5, &lossy, &sampled));
		mkhct_measured_free(m);
	}
	close(fd);
}

static void test_damaged(void **state)
{
	size_t ends[4];
	int fd = make(ends);

	(void)state;
	for (size_t at = 0; at < ends[3]; at++) {
		size_t count = 0;
		struct mkhct_measured *m;
		uint8_t byte;

		while (at >= BEGIN && count < 4 && ends[count] <= at)
			count++;
		close(fd);
		fd = make(ends);
		assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
		byte ^= 0x40;
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
		m = open_at(fd, FINGERPRINT);
		assert_has(m, count);
		mkhct_measured_free(m);
	}
	close(fd);
}

/* Two of the same: the first counts, whatever the other one says. */
static void test_twice(void **state)
{
	size_t ends[4];
	int fd = make(ends);
	struct mkhct_measured *m = open_at(fd, FINGERPRINT);

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(
			mkhct_measured_add_forecast(m, "a", 0, &lossless, &refused, NULL, NULL),
			HCT_OK);
	assert_int_equal(mkhct_measured_add_forecast(m, "a", 9, &lossless, &whole, NULL, NULL),
			 HCT_OK);
	mkhct_measured_free(m);
	m = open_at(fd, FINGERPRINT);
	assert_int_equal(mkhct_measured_count(m), 8);
	assert_true(has(m, "a", 0, &lossless, &whole));
	assert_true(has(m, "a", 9, &lossless, &whole));
	mkhct_measured_free(m);
	close(fd);
}

/* Puts a right checksum on the record at `at`. */
static void seal(int fd, size_t at, size_t end)
{
	uint8_t *p = malloc(end - at);

	assert_non_null(p);
	assert_int_equal(pread(fd, p, end - at, (off_t)at), (ssize_t)(end - at));
	hct_store64(p + 4, hct_checksum(p + FRAME, end - at - FRAME));
	assert_int_equal(pwrite(fd, p, end - at, (off_t)at), (ssize_t)(end - at));
	free(p);
}

/* A value at an offset of sampled's record, behind its key, that no measurement gives. */
static void assert_refused(const void *value, size_t bytes, size_t offset)
{
	size_t ends[4];
	int fd = make(ends);
	struct mkhct_measured *m;

	assert_int_equal(pwrite(fd, value, bytes, (off_t)(ends[0] + FRAME + KEY + offset)),
			 (ssize_t)bytes);
	seal(fd, ends[0], ends[1]);
	m = open_at(fd, FINGERPRINT);
	assert_int_equal(mkhct_measured_count(m), 4);
	assert_false(has(m, "a", 1, &lossy, &sampled));
	assert_true(has(m, "a", 0, &lossless, &whole));
	mkhct_measured_free(m);
	close(fd);
}

static void test_forged(void **state)
{
	static const double doubles[] = {NAN, INFINITY, -1};
	static const size_t of_double[] = {0, 8, 16, 24};
	static const size_t of_number[] = {56, 72, 76, 80, 96};
	const uint64_t wide = UINT64_MAX;
	const double wide_bytes = 1e15;
	const uint32_t number = 70000;

	(void)state;
	for (size_t i = 0; i < 3; i++)
		for (size_t k = 0; k < 4; k++)
			assert_refused(&doubles[i], 8, of_double[k]);
	for (size_t k = 0; k < 5; k++)
		assert_refused(&number, 4, of_number[k]);
	assert_refused(&doubles[0], 8, 40);
	assert_refused(&doubles[1], 8, 48);
	assert_refused(&wide, 8, 32);
	assert_refused(&wide, 8, 88);
	assert_refused(&wide_bytes, 8, 24);
}

static void test_forged_retention(void **state)
{
	static const double wrong[] = {NAN, INFINITY, -1, 0, 1.0000001};

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		size_t ends[4];
		int fd = make(ends);
		struct mkhct_measured *m;

		assert_int_equal(pwrite(fd, &wrong[i], 8, (off_t)(ends[2] - 8)), 8);
		seal(fd, ends[1], ends[2]);
		m = open_at(fd, FINGERPRINT);
		assert_int_equal(mkhct_measured_count(m), 4);
		assert_true(mkhct_measured_retention(m, "a", 1, .9) == 0);
		mkhct_measured_free(m);
		close(fd);
	}
}

/* Records whose length is not theirs, but whose checksum is right. */
static void test_lengths(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < 300; n++) {
		uint8_t record[FRAME + 300] = {0};
		size_t ends[4];
		int fd = make(ends);
		struct mkhct_measured *m;

		assert_int_equal(pread(fd, record + FRAME, KEY, BEGIN + FRAME), KEY);
		record[FRAME + 8] = 7; /* tensor 7 */
		hct_store32(record, n);
		hct_store64(record + 4, hct_checksum(record + FRAME, n));
		assert_int_equal(pwrite(fd, record, FRAME + n, (off_t)ends[3]), FRAME + n);
		m = open_at(fd, FINGERPRINT);
		assert_int_equal(mkhct_measured_count(m), n < KEY ? 4 : 5);
		if (n != KEY + 104)
			assert_false(has(m, "a", 7, &lossless, &whole));
		mkhct_measured_free(m);
		close(fd);
	}
}

static void test_pace(void **state)
{
	struct mkhct_measured_pace pace = {.every = 2};
	int fd = memfd_create("test", MFD_CLOEXEC);
	struct mkhct_measured *m;

	(void)state;
	assert_int_equal(mkhct_measured_open(fd, "test", 1, &pace, &m, NULL), HCT_OK);
	assert_int_equal(mkhct_measured_add_retention(m, "a", 0, .5, .5, NULL), HCT_OK);
	assert_int_equal(mkhct_measured_tick(m, NULL), HCT_OK);
	assert_false(mkhct_measured_is_kept(m));
	assert_int_equal(mkhct_measured_add_retention(m, "a", 1, .5, .5, NULL), HCT_OK);
	assert_true(mkhct_measured_is_kept(m));
	mkhct_measured_free(m);
	pace = (struct mkhct_measured_pace){.seconds = .05};
	assert_int_equal(mkhct_measured_open(fd, "test", 2, &pace, &m, NULL), HCT_OK);
	assert_int_equal(mkhct_measured_add_retention(m, "a", 0, .5, .5, NULL), HCT_OK);
	usleep(60000);
	assert_int_equal(mkhct_measured_tick(m, NULL), HCT_OK);
	assert_true(mkhct_measured_is_kept(m));
	mkhct_measured_free(m);
	m = open_at(fd, 3);
	assert_int_equal(mkhct_measured_sync(m, NULL), HCT_OK); /* of nothing */
	assert_false(mkhct_measured_is_kept(m));
	assert_int_equal(mkhct_measured_add_retention(m, "a", 0, .5, .5, NULL), HCT_OK);
	assert_false(mkhct_measured_is_kept(m));
	assert_int_equal(mkhct_measured_sync(m, NULL), HCT_OK);
	assert_true(mkhct_measured_is_kept(m));
	mkhct_measured_free(m);
	close(fd);
}

/* What was noted before stays good, and it goes on behind that when there is room again. */
static void test_write_that_fails(void **state)
{
	struct hct_diag d = {""};
	size_t ends[4];
	int fd = make(ends), saved = dup(fd), full = open("/dev/full", O_RDWR | O_CLOEXEC);
	struct mkhct_measured *m = open_at(fd, FINGERPRINT);

	(void)state;
	assert_true(saved >= 0 && full >= 0);
	assert_int_equal(dup2(full, fd), fd);
	assert_int_equal(mkhct_measured_add_forecast(m, "c", 0, &lossless, &whole, NULL, &d),
			 HCT_ERR_NO_SPACE);
	assert_non_null(strstr(d.text, "test: "));
	assert_int_equal(dup2(saved, fd), fd);
	close(saved);
	close(full);
	assert_int_equal(mkhct_measured_add_forecast(m, "d", 0, &lossless, &whole, NULL, &d),
			 HCT_OK);
	mkhct_measured_free(m);
	m = open_at(fd, FINGERPRINT);
	assert_int_equal(mkhct_measured_count(m), 5);
	assert_false(has(m, "c", 0, &lossless, &whole));
	assert_true(has(m, "d", 0, &lossless, &whole));
	mkhct_measured_free(m);
	close(fd);
}

/* Without a file nothing is found, and nothing fails. */
static void test_none(void **state)
{
	(void)state;
	assert_false(has(NULL, "a", 0, &lossless, &whole));
	assert_true(mkhct_measured_retention(NULL, "a", 0, .9) == 0);
	assert_int_equal(mkhct_measured_add_forecast(NULL, "a", 0, &lossless, &whole, NULL, NULL),
			 HCT_OK);
	assert_int_equal(mkhct_measured_add_retention(NULL, "a", 0, .9, .5, NULL), HCT_OK);
	assert_int_equal(mkhct_measured_tick(NULL, NULL), HCT_OK);
	assert_int_equal(mkhct_measured_sync(NULL, NULL), HCT_OK);
	assert_int_equal(mkhct_measured_count(NULL), 0);
	assert_false(mkhct_measured_is_kept(NULL));
	mkhct_measured_free(NULL);
}

static uint64_t fingerprint(const struct mkhct_source *source, const char *options)
{
	const struct mkhct_checkpoint_of of = {.source = source, .options = options};
	uint64_t sum;

	assert_int_equal(mkhct_measured_fingerprint(&of, &sum, NULL), HCT_OK);
	return sum;
}

/* Of what a checkpoint asks of its source and options; who may read a file is not among it. */
static void test_fingerprint(void **state)
{
	struct mkhct_entry entry = {
		.kind = MKHCT_MODEL, .name = (char[]){"a"}, .size = 5, .mode = 0644};
	struct mkhct_source source = {.entries = &entry, .count = 1};
	uint64_t first = fingerprint(&source, "{}");

	(void)state;
	entry.mode = 0600;
	assert_true(fingerprint(&source, "{}") == first);
	assert_true(fingerprint(&source, "{\"bpw\":3}") != first);
	entry.size++;
	assert_true(fingerprint(&source, "{}") != first);
	entry.size--;
	entry.mtime.tv_nsec++;
	assert_true(fingerprint(&source, "{}") != first);
	entry.mtime.tv_nsec--;
	entry.name[0] = 'b';
	assert_true(fingerprint(&source, "{}") != first);
	source.count = 0;
	assert_true(fingerprint(&source, "{}") != first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found_again),
		cmocka_unit_test(test_of_something_else),
		cmocka_unit_test(test_other_fingerprint),
		cmocka_unit_test(test_torn),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_twice),
		cmocka_unit_test(test_forged),
		cmocka_unit_test(test_forged_retention),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_pace),
		cmocka_unit_test(test_write_that_fails),
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_fingerprint),
	};

	return cmocka_run_group_tests_name("measured", tests, NULL, NULL);
}
