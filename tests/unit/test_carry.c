/* carry.h: a copy that was stopped goes on where it was saved, and never with what is not its own.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "codec/checksum.h"
#include "folder.h"
#include "writer/carry.h"

#define MIB  ((size_t)1 << 20)
#define SIZE (40 * MIB + 123)

struct saves {
	unsigned count;
	uint64_t bytes, checksum;
};

static hct_error save(void *arg, uint64_t bytes, uint64_t checksum, struct hct_diag *diag)
{
	struct saves *s = arg;

	(void)diag;
	assert_true(bytes > s->bytes && bytes % MKHCT_CARRY_MARK == 0);
	*s = (struct saves){s->count + 1, bytes, checksum};
	return HCT_OK;
}

static uint8_t *contents(const char *path)
{
	uint8_t *data = malloc(SIZE + 1);
	FILE *f = fopen(path, "r");

	assert_non_null(data);
	assert_non_null(f);
	assert_int_equal(fread(data, 1, SIZE + 1, f), SIZE);
	fclose(f);
	return data;
}

/* Changes a byte, and not the time. */
static void change(const char *path, off_t at)
{
	int fd = open(path, O_RDWR);
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
	struct stat sb;
	uint8_t byte;

	assert_int_equal(fstat(fd, &sb), 0);
	times[1] = sb.st_mtim;
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	assert_int_equal(futimens(fd, times), 0);
	close(fd);
}

static struct mkhct_entry make_source(void)
{
	struct mkhct_entry entry = {.kind = MKHCT_CARRIED, .path = "from", .name = "from"};
	int fd = open("from", O_RDWR | O_CREAT, 0600);
	struct stat sb;

	assert_int_equal(ftruncate(fd, (off_t)SIZE), 0);
	for (size_t i = 0; i < SIZE / MIB; i++)
		assert_int_equal(pwrite(fd, &i, sizeof(i), (off_t)(i * MIB + i)), sizeof(i));
	assert_int_equal(fstat(fd, &sb), 0);
	close(fd);
	entry.size = entry.disk_size = SIZE;
	entry.mtime = entry.disk_mtime = sb.st_mtim;
	entry.dev = sb.st_dev;
	entry.ino = sb.st_ino;
	entry.mode = 0600;
	return entry;
}

/* Copies, where no file may grow beyond `most` bytes; by_hand: the kernel does not do it. */
static hct_error carry(const struct mkhct_entry *entry, const struct mkhct_carry_log *log,
		       size_t most, int by_hand)
{
	int out = open("to", O_RDWR | O_CREAT | (by_hand ? O_APPEND : 0), 0600);
	struct rlimit before, limit;
	struct hct_meter meter;
	uint64_t checksum;
	uint8_t *data;
	hct_error err;

	assert_true(out >= 0);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	limit = before;
	limit.rlim_cur = most;
	setrlimit(RLIMIT_FSIZE, &limit);
	hct_meter_start(&meter, SIZE);
	err = mkhct_carry_on(entry, out, "to", log, &meter, NULL, NULL, &checksum, NULL);
	setrlimit(RLIMIT_FSIZE, &before);
	close(out);
	if (err)
		return err;
	assert_int_equal(meter.done, SIZE);
	data = contents("to");
	assert_int_equal(checksum, hct_checksum(data, SIZE));
	free(data);
	return HCT_OK;
}

static void stop_and_go_on(int by_hand)
{
	struct mkhct_entry entry = make_source();
	struct saves saves = {0};
	struct mkhct_carry_log log = {.every_seconds = 1e9, .save = save, .arg = &saves};
	uint8_t *from, *to;

	assert_int_not_equal(carry(&entry, &log, 35 * MIB, by_hand), HCT_OK);
	assert_int_equal(saves.count, 1);
	assert_int_equal(saves.bytes, 32 * MIB);
	/* What is copied is not read from the source again. */
	change("from", 5);
	log.bytes = saves.bytes;
	log.checksum = saves.checksum;
	assert_int_equal(carry(&entry, &log, 2 * SIZE, by_hand), HCT_OK);
	assert_int_equal(saves.count, 1);
	from = contents("from");
	to = contents("to");
	assert_int_equal(from[5] ^ to[5], 1);
	to[5] ^= 1;
	assert_memory_equal(from, to, SIZE);
	free(from);
	free(to);
}

static void test_goes_on(void **state)
{
	(void)state;
	stop_and_go_on(0);
}

static void test_goes_on_by_hand(void **state)
{
	(void)state;
	stop_and_go_on(1);
}

static void same_as_source(void)
{
	uint8_t *from = contents("from"), *to = contents("to");

	assert_memory_equal(from, to, SIZE);
	free(from);
	free(to);
}

static void test_what_is_not_the_same_is_copied_anew(void **state)
{
	struct mkhct_entry entry = make_source();
	struct saves saves = {0};
	struct mkhct_carry_log log = {.every_seconds = 0, .save = save, .arg = &saves}, bad;

	(void)state;
	assert_int_equal(carry(&entry, &log, 2 * SIZE, 0), HCT_OK);
	assert_int_equal(saves.count, 2); /* at each mark */
	assert_int_equal(saves.bytes, 32 * MIB);
	same_as_source();
	log.save = NULL;
	log.every_seconds = 1e9;
	log.bytes = saves.bytes;
	log.checksum = saves.checksum;
	for (int i = 0; i < 5; i++) {
		bad = log;
		change("to", 20 << 20);
		if (i == 1)
			bad.bytes -= MKHCT_CARRY_MARK;
		else if (i == 2)
			bad.bytes++;
		else if (i == 3)
			bad.bytes = UINT64_MAX / MKHCT_CARRY_MARK * MKHCT_CARRY_MARK;
		else if (i == 4)
			assert_int_equal(truncate("to", 20 << 20), 0);
		assert_int_equal(carry(&entry, &bad, 2 * SIZE, 0), HCT_OK);
		same_as_source();
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, folder_enter, folder_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_goes_on),
		TEST(test_goes_on_by_hand),
		TEST(test_what_is_not_the_same_is_copied_anew),
	};

	return cmocka_run_group_tests_name("carry", tests, NULL, NULL);
}
