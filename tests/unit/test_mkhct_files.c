/* model.h, hasher.h, carry.h: reading files of the source that change under our feet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/checksum.h"
#include "codec/meter.h"
#include "writer/carry.h"
#include "writer/hasher.h"
#include "writer/model.h"

#define DATA (1u << 20)

struct place {
	char folder[32], path[64], copy[64];
	struct mkhct_entry entry;
};

/* A safetensors file with one tensor of DATA bytes. */
static void write_model(const char *path)
{
	char text[128], *data = malloc(DATA);
	uint64_t n;
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_non_null(data);
	for (size_t i = 0; i < DATA; i++)
		data[i] = (char)(i * 7 + i / 251);
	n = (uint64_t)snprintf(text, sizeof(text),
			       "{\"t\":{\"dtype\":\"U8\",\"shape\":[%u],\"data_offsets\":[0,%u]}}",
			       DATA, DATA);
	assert_int_equal(fwrite(&n, 8, 1, f), 1);
	assert_int_equal(fwrite(text, 1, n, f), n);
	assert_int_equal(fwrite(data, 1, DATA, f), DATA);
	assert_int_equal(fclose(f), 0);
	free(data);
}

static void look(struct place *p)
{
	struct stat sb;

	assert_int_equal(stat(p->path, &sb), 0);
	p->entry = (struct mkhct_entry){.kind = MKHCT_MODEL,
					.name = p->path,
					.path = p->path,
					.size = (uint64_t)sb.st_size,
					.mtime = sb.st_mtim,
					.mode = sb.st_mode & 0777,
					.dev = sb.st_dev,
					.ino = sb.st_ino,
					.disk_size = (uint64_t)sb.st_size,
					.disk_mtime = sb.st_mtim};
}

static int enter(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	strcpy(p->folder, "/tmp/hct-files-XXXXXX");
	if (!mkdtemp(p->folder))
		return -1;
	snprintf(p->path, sizeof(p->path), "%s/m.safetensors", p->folder);
	snprintf(p->copy, sizeof(p->copy), "%s/copy", p->folder);
	write_model(p->path);
	look(p);
	*state = p;
	return 0;
}

static int leave(void **state)
{
	struct place *p = *state;

	unlink(p->path);
	unlink(p->copy);
	int rc = rmdir(p->folder);
	free(p);
	return rc;
}

static hct_error sum_map(void *arg)
{
	const struct mkhct_model *m = arg;
	volatile unsigned sum = 0;

	for (uint64_t i = 0; i < m->entry->size; i++)
		sum += m->map[i];
	return sum == 0 ? HCT_ERR_ARGUMENT : HCT_OK;
}

static void *sum_in_thread(void *arg)
{
	struct hct_diag diag;

	return (void *)(intptr_t)mkhct_model_guard(arg, sum_map, arg, &diag);
}

static void test_truncated_map_is_an_error(void **state)
{
	struct place *p = *state;
	struct mkhct_model m;
	struct hct_diag diag = {""};
	pthread_t threads[4];

	mkhct_model_catch_faults();
	assert_int_equal(mkhct_model_open(&p->entry, &m, &diag), HCT_OK);
	assert_int_equal(m.st.count, 1);
	assert_int_equal(mkhct_model_map(&m, &diag), HCT_OK);
	assert_int_equal(mkhct_model_guard(&m, sum_map, &m, &diag), HCT_OK);
	assert_int_equal(truncate(p->path, 4096), 0);
	for (int round = 0; round < 3; round++) /* not only the first time */
		assert_int_equal(mkhct_model_guard(&m, sum_map, &m, &diag), HCT_ERR_CHANGED);
	assert_non_null(strstr(diag.text, "truncated"));
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, sum_in_thread, &m), 0);
	for (int i = 0; i < 4; i++) {
		void *result;

		pthread_join(threads[i], &result);
		assert_int_equal((intptr_t)result, HCT_ERR_CHANGED);
	}
	mkhct_model_close(&m);
	mkhct_model_close(&m);
}

static void test_changes_are_noticed(void **state)
{
	struct place *p = *state;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, p->entry.mtime};
	struct mkhct_model m;
	struct hct_diag diag;

	assert_int_equal(mkhct_model_open(&p->entry, &m, &diag), HCT_OK);
	assert_int_equal(mkhct_model_unchanged(&m, &diag), HCT_OK);
	times[1].tv_nsec = (times[1].tv_nsec + 1) % 1000000000;
	assert_int_equal(utimensat(AT_FDCWD, p->path, times, 0), 0);
	assert_int_equal(mkhct_model_unchanged(&m, &diag), HCT_ERR_CHANGED);
	mkhct_model_close(&m);
	assert_int_equal(mkhct_model_open(&p->entry, &m, &diag), HCT_ERR_CHANGED);
	look(p);
	assert_int_equal(mkhct_model_open(&p->entry, &m, &diag), HCT_OK);
	mkhct_model_close(&m);

	/* Another file in its place. */
	assert_int_equal(rename(p->path, p->copy), 0);
	assert_int_equal(mkhct_model_open(&p->entry, &m, &diag), HCT_ERR_NOT_FOUND);
	assert_int_equal(mkfifo(p->path, 0600), 0);
	assert_int_equal(mkhct_model_open(&p->entry, &m, &diag), HCT_ERR_CHANGED);
}

static void hex(const uint8_t sha256[32], char text[65])
{
	for (int i = 0; i < 32; i++)
		sprintf(text + 2 * i, "%02x", sha256[i]);
}

static void test_hasher(void **state)
{
	struct place *p = *state;
	struct mkhct_hasher *h;
	uint8_t sha256[32];
	char text[65];
	FILE *f = fopen(p->path, "w");
	int fd = open(p->path, O_RDONLY);

	assert_non_null(f);
	fputs("abc", f);
	fclose(f);
	assert_int_equal(mkhct_hasher_start(fd, "m", 3, &h, NULL), HCT_OK);
	assert_int_equal(mkhct_hasher_finish(h, sha256, NULL), HCT_OK);
	hex(sha256, text);
	assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223"
				  "b00361a396177a9cb410ff61f20015ad");
	assert_int_equal(mkhct_hasher_start(fd, "m", 0, &h, NULL), HCT_OK);
	assert_int_equal(mkhct_hasher_finish(h, sha256, NULL), HCT_OK);
	hex(sha256, text);
	assert_string_equal(text, "e3b0c44298fc1c149afbf4c8996fb924"
				  "27ae41e4649b934ca495991b7852b855");
	close(fd);
}

/* A file far longer than the distance between hasher and encoder: neither waits for ever,
 * whichever is ahead. */
static void test_hasher_keeps_step(void **state)
{
	struct place *p = *state;
	uint64_t size = UINT64_C(300) << 20;
	struct mkhct_hasher *h;
	uint8_t one[32], two[32];
	struct hct_diag diag;
	int fd = open(p->path, O_RDONLY);

	assert_int_equal(truncate(p->path, (off_t)size), 0);
	assert_int_equal(mkhct_hasher_start(fd, "m", size, &h, NULL), HCT_OK);
	assert_int_equal(mkhct_hasher_finish(h, one, NULL), HCT_OK);
	assert_int_equal(mkhct_hasher_start(fd, "m", size, &h, NULL), HCT_OK);
	for (uint64_t at = 0; at < size; at += 1 << 20)
		mkhct_hasher_advance(h, at);
	assert_int_equal(mkhct_hasher_finish(h, two, NULL), HCT_OK);
	assert_memory_equal(one, two, 32);
	assert_int_equal(mkhct_hasher_start(fd, "m", size, &h, NULL), HCT_OK);
	mkhct_hasher_cancel(h); /* while it waits for the encoder, or before */
	mkhct_hasher_cancel(NULL);
	assert_int_equal(mkhct_hasher_start(fd, "m", size + 1, &h, NULL), HCT_OK);
	assert_int_equal(mkhct_hasher_finish(h, two, &diag), HCT_ERR_CHANGED);
	assert_non_null(strstr(diag.text, "m: was truncated"));
	close(fd);
}

static int same_contents(const char *a, const char *b)
{
	FILE *f = fopen(a, "r"), *g = fopen(b, "r");
	int c, d;

	assert_non_null(f);
	assert_non_null(g);
	do {
		c = getc(f);
		d = getc(g);
	} while (c == d && c != EOF);
	fclose(f);
	fclose(g);
	return c == d;
}

static uint64_t checksum_of(const char *path)
{
	static uint8_t data[2 * DATA];
	FILE *f = fopen(path, "r");
	size_t n;

	assert_non_null(f);
	n = fread(data, 1, sizeof(data), f);
	fclose(f);
	return hct_checksum(data, n);
}

static void count_ticks(void *arg, const char *what)
{
	(void)what;
	++*(int *)arg;
}

static void test_carry(void **state)
{
	struct place *p = *state;
	struct hct_meter meter;
	struct stat sb;
	struct hct_diag diag;
	int out = open(p->copy, O_RDWR | O_CREAT | O_EXCL, 0600);
	uint64_t sum;
	int ticks = 0;

	assert_true(out >= 0);
	chmod(p->path, 04751);
	look(p);
	hct_meter_start(&meter, p->entry.size);
	assert_int_equal(
		mkhct_carry(&p->entry, out, "copy", &meter, count_ticks, &ticks, &sum, &diag),
		HCT_OK);
	assert_true(same_contents(p->path, p->copy));
	assert_int_equal(sum, checksum_of(p->copy));
	assert_int_equal(meter.done, p->entry.size);
	assert_true(ticks > 0);
	assert_int_equal(fstat(out, &sb), 0);
	assert_int_equal(sb.st_mode & 07777, 0751);
	assert_int_equal(sb.st_mtim.tv_sec, p->entry.mtime.tv_sec);
	assert_int_equal(sb.st_mtim.tv_nsec, p->entry.mtime.tv_nsec);

	assert_int_equal(ftruncate(out, 0), 0);
	assert_int_equal(truncate(p->path, 100), 0);
	assert_int_equal(mkhct_carry(&p->entry, out, "copy", &meter, NULL, NULL, &sum, &diag),
			 HCT_ERR_CHANGED);
	close(out);
}

/* A descriptor that appends refuses copy_file_range, so the copy is by hand. */
static void test_carry_by_hand(void **state)
{
	struct place *p = *state;
	struct hct_meter meter;
	uint64_t sum;
	int out = open(p->copy, O_WRONLY | O_CREAT | O_EXCL | O_APPEND, 0600);

	assert_true(out >= 0);
	hct_meter_start(&meter, p->entry.size);
	assert_int_equal(mkhct_carry(&p->entry, out, "copy", &meter, NULL, NULL, &sum, NULL),
			 HCT_OK);
	assert_true(same_contents(p->path, p->copy));
	assert_int_equal(sum, checksum_of(p->copy));
	close(out);
	out = open("/dev/full", O_WRONLY);
	if (out >= 0) {
		struct hct_diag diag;

		assert_int_equal(
			mkhct_carry(&p->entry, out, "full", &meter, NULL, NULL, &sum, &diag),
			HCT_ERR_NO_SPACE);
		close(out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_truncated_map_is_an_error, enter, leave),
		cmocka_unit_test_setup_teardown(test_changes_are_noticed, enter, leave),
		cmocka_unit_test_setup_teardown(test_hasher, enter, leave),
		cmocka_unit_test_setup_teardown(test_hasher_keeps_step, enter, leave),
		cmocka_unit_test_setup_teardown(test_carry, enter, leave),
		cmocka_unit_test_setup_teardown(test_carry_by_hand, enter, leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
