/* patience.h, and all that reads the source with it: disks that fail now and then.
 *
 * The functions of the C library that fail are put in the place of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <time.h>

#include "codec/meter.h"
#include "folder.h"
#include "writer/carry.h"
#include "writer/hasher.h"
#include "writer/model.h"
#include "writer/patience.h"

#define DATA (3u << 20)

static int failing_reads, failing_opens; /* how many of the next ones fail, */
static int failure;                      /* with this errno */
static int pauses;

ssize_t pread(int fd, void *buf, size_t count, off_t offset)
{
	if (failing_reads > 0) {
		failing_reads--;
		errno = failure;
		return -1;
	}
	return syscall(SYS_pread64, fd, buf, count, offset);
}

int open(const char *path, int flags, ...)
{
	if (failing_opens > 0) {
		failing_opens--;
		errno = failure;
		return -1;
	}
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600);
}

ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t length, unsigned flags)
{
	(void)in, (void)in_at, (void)out, (void)out_at, (void)length, (void)flags;
	errno = EIO;
	return -1;
}

int nanosleep(const struct timespec *time, struct timespec *left)
{
	(void)time;
	(void)left;
	pauses++;
	return 0;
}

static void fail_next(int reads, int opens, int errnum)
{
	failing_reads = reads;
	failing_opens = opens;
	failure = errnum;
	pauses = 0;
}

static void write_model(void)
{
	static uint8_t file[8 + 128 + DATA];
	int n = sprintf((char *)file + 8,
			"{\"t\":{\"dtype\":\"U8\",\"shape\":[%u],\"data_offsets\":[0,%u]}}", DATA,
			DATA);

	file[0] = (uint8_t)n;
	for (size_t i = 0; i < DATA; i++)
		file[8 + (size_t)n + i] = (uint8_t)(i * 7 + i / 251);
	folder_write("m.safetensors", file, 8 + (size_t)n + DATA);
}

static void scan(struct mkhct_source *s)
{
	write_model();
	assert_int_equal(mkhct_source_scan("m.safetensors", NULL, 0, s, NULL), HCT_OK);
}

static void test_three_times_and_no_more(void **state)
{
	char byte;
	int fd;

	(void)state;
	folder_write_text("f", "x");
	fail_next(0, 3, EIO);
	fd = mkhct_patient_open("f");
	assert_true(fd >= 0);
	assert_int_equal(pauses, 3);
	fail_next(3, 0, ESTALE);
	assert_int_equal(mkhct_patient_pread(fd, &byte, 1, 0), 1);
	assert_int_equal(byte, 'x');
	assert_int_equal(pauses, 3);
	fail_next(4, 0, EIO);
	assert_int_equal(mkhct_patient_pread(fd, &byte, 1, 0), -1);
	assert_int_equal(pauses, 3);
	fail_next(1, 0, EISDIR); /* will be so the next time as well */
	assert_int_equal(mkhct_patient_pread(fd, &byte, 1, 0), -1);
	assert_int_equal(pauses, 0);
	fail_next(7, 0, EINTR);
	assert_int_equal(mkhct_patient_pread(fd, &byte, 1, 0), 1);
	assert_int_equal(pauses, 0);
	fail_next(0, 1, ENOENT);
	assert_int_equal(mkhct_patient_open("f"), -1);
	assert_int_equal(pauses, 0);
	close(fd);
}

static void test_model(void **state)
{
	struct mkhct_source s;
	struct mkhct_model m;
	struct hct_diag diag;

	(void)state;
	scan(&s);
	fail_next(2, 2, EIO);
	assert_int_equal(mkhct_model_open(&s.entries[0], &m, &diag), HCT_OK);
	assert_int_equal(m.st.count, 1);
	mkhct_model_close(&m);
	fail_next(4, 0, EIO);
	assert_int_equal(mkhct_model_open(&s.entries[0], &m, &diag), HCT_ERR_IO);
	mkhct_source_free(&s);
}

static hct_error sum(struct mkhct_source *s, uint8_t sha256[32])
{
	struct mkhct_hasher *h;
	struct hct_diag diag;
	int fd = open("m.safetensors", O_RDONLY);

	assert_int_equal(mkhct_hasher_start(fd, "m", s->entries[0].size, &h, &diag), HCT_OK);
	hct_error err = mkhct_hasher_finish(h, sha256, &diag);
	close(fd);
	return err;
}

static void test_hasher(void **state)
{
	uint8_t before[32], after[32];
	struct mkhct_source s;

	(void)state;
	scan(&s);
	fail_next(0, 0, 0);
	assert_int_equal(sum(&s, before), HCT_OK);
	fail_next(3, 0, EIO);
	assert_int_equal(sum(&s, after), HCT_OK);
	assert_memory_equal(before, after, 32);
	assert_int_equal(pauses, 3);
	fail_next(4, 0, EIO);
	assert_int_equal(sum(&s, after), HCT_ERR_IO);
	mkhct_source_free(&s);
}

static hct_error carry(struct mkhct_source *s, uint64_t *checksum)
{
	int fd = open("copy", O_RDWR | O_CREAT | O_TRUNC);
	struct hct_meter meter;
	struct hct_diag diag;
	hct_error err;

	assert_true(fd >= 0);
	hct_meter_start(&meter, s->entries[0].size);
	err = mkhct_carry(&s->entries[0], fd, "copy", &meter, NULL, NULL, checksum, &diag);
	close(fd);
	return err;
}

/* Also when it is the kernel's copying that fails. */
static void test_carry(void **state)
{
	uint64_t before, after;
	struct mkhct_source s;
	struct stat sb;

	(void)state;
	scan(&s);
	fail_next(0, 0, 0);
	assert_int_equal(carry(&s, &before), HCT_OK);
	fail_next(3, 0, EIO);
	assert_int_equal(carry(&s, &after), HCT_OK);
	assert_int_equal(pauses, 3);
	assert_int_equal(before, after);
	assert_int_equal(stat("copy", &sb), 0);
	assert_int_equal(sb.st_size, s.entries[0].size);
	fail_next(4, 0, EIO);
	assert_int_equal(carry(&s, &after), HCT_ERR_IO);
	mkhct_source_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_three_times_and_no_more, folder_enter,
						folder_leave),
		cmocka_unit_test_setup_teardown(test_model, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_hasher, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_carry, folder_enter, folder_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
