/* hidden.h: a lock is on the file that has the name, and on no other. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "folder.h"
#include "writer/hidden.h"
#include "writer/place.h"

#define LOCK ".hct/lock"

static struct mkhct_output output(void)
{
	return (struct mkhct_output){
		.path = "out", .root = open(".", O_RDONLY | O_DIRECTORY), .lock = -1, .gate = -1};
}

static void end(struct mkhct_output *o)
{
	if (o->lock >= 0)
		close(o->lock);
	close(o->root);
}

static int has_lock(const struct mkhct_output *o)
{
	struct stat ours, there;

	return o->lock >= 0 && fstat(o->lock, &ours) == 0 && stat(LOCK, &there) == 0 &&
	       ours.st_ino == there.st_ino;
}

static void test_one_at_a_time(void **state)
{
	struct mkhct_output a = output(), b = output();
	struct hct_diag d = {""};

	(void)state;
	assert_int_equal(mkdir(".hct", 0700), 0);
	assert_int_equal(mkhct_hidden_lock(&a, 0, &d), HCT_OK); /* nothing there to lock */
	assert_int_equal(a.lock, -1);
	assert_int_equal(mkhct_hidden_lock(&a, 1, &d), HCT_OK);
	assert_true(has_lock(&a));
	assert_int_equal(mkhct_hidden_lock(&a, 1, &d), HCT_OK);
	assert_int_equal(mkhct_hidden_lock(&b, 0, &d), HCT_ERR_EXISTS);
	assert_int_equal(mkhct_hidden_lock(&b, 1, &d), HCT_ERR_EXISTS);
	assert_non_null(strstr(d.text, "another mkhct"));
	assert_int_equal(b.lock, -1);
	end(&a);
	assert_int_equal(mkhct_hidden_lock(&b, 1, &d), HCT_OK);
	assert_true(has_lock(&b));
	end(&b);
}

/* kept: what was locked has another name by now, as where a network file system keeps it. */
static void replace_and_lock(int kept, int taken)
{
	struct mkhct_output a = output(), b = output();
	struct hct_diag d = {""};

	assert_int_equal(mkdir(".hct", 0700), 0);
	folder_write_text(LOCK, "");
	assert_int_equal(mkhct_hidden_lock(&a, 0, &d), HCT_OK);
	assert_true(has_lock(&a));
	if (kept)
		assert_int_equal(link(LOCK, ".hct/.nfs1"), 0);
	assert_int_equal(unlink(LOCK), 0);
	if (taken)
		assert_int_equal(mkhct_hidden_lock(&b, 1, &d), HCT_OK);
	assert_int_equal(mkhct_hidden_lock(&a, 1, &d), taken ? HCT_ERR_EXISTS : HCT_OK);
	assert_int_equal(has_lock(&a), !taken);
	end(&a);
	end(&b);
}

static void test_file_that_was_removed(void **state)
{
	(void)state;
	replace_and_lock(0, 0);
}

static void test_file_that_another_made_anew(void **state)
{
	(void)state;
	replace_and_lock(0, 1);
}

static void test_file_that_has_another_name(void **state)
{
	(void)state;
	replace_and_lock(1, 0);
}

static void test_file_that_has_another_name_and_was_made_anew(void **state)
{
	(void)state;
	replace_and_lock(1, 1);
}

static void *leave_later(void *output)
{
	struct mkhct_output *o = output;

	usleep(50 * 1000);
	assert_int_equal(access(MKHCT_HIDDEN_GATE, F_OK), 0);
	mkhct_hidden_leave(o);
	return NULL;
}

/* One after the other is in it, and nothing is left. */
static void test_gate(void **state)
{
	struct mkhct_output a = output(), b = output();
	struct hct_diag d = {""};
	pthread_t other;

	(void)state;
	assert_int_equal(mkhct_hidden_enter(&a, &d), HCT_ERR_NOT_FOUND);
	assert_int_equal(mkdir(".hct", 0700), 0);
	assert_int_equal(mkhct_hidden_enter(&a, &d), HCT_OK);
	assert_int_equal(mkhct_hidden_enter(&a, &d), HCT_OK);
	assert_true(mkhct_hidden_is_locked(&b, MKHCT_HIDDEN_GATE));
	assert_int_equal(pthread_create(&other, NULL, leave_later, &a), 0);
	assert_int_equal(mkhct_hidden_enter(&b, &d), HCT_OK); /* waits */
	assert_int_equal(pthread_join(other, NULL), 0);
	assert_int_equal(a.gate, -1);
	assert_true(mkhct_hidden_is_locked(&a, MKHCT_HIDDEN_GATE));
	assert_true(mkhct_hidden_leave(&b));
	assert_int_equal(access(MKHCT_HIDDEN_GATE, F_OK), -1);
	assert_false(mkhct_hidden_is_locked(&a, MKHCT_HIDDEN_GATE));
	assert_int_equal(rmdir(".hct"), 0);
	end(&a);
	end(&b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, folder_enter, folder_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_one_at_a_time),
		TEST(test_file_that_was_removed),
		TEST(test_file_that_another_made_anew),
		TEST(test_file_that_has_another_name),
		TEST(test_file_that_has_another_name_and_was_made_anew),
		TEST(test_gate),
	};

	return cmocka_run_group_tests_name("lock", tests, NULL, NULL);
}
