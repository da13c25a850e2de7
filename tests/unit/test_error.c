/* error.h: every code has a phrase, an errno and an exit code; lines stay lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "codec/error.h"

static void every_code_has_its_own_phrase(void **state)
{
	(void)state;
	for (int i = 0; i < HCT_ERR_COUNT; i++) {
		const char *text = hct_error_string((hct_error)i);

		assert_non_null(text);
		assert_true(strlen(text) > 3);
		assert_string_not_equal(text, "unknown error");
		for (int j = 0; j < i; j++)
			assert_string_not_equal(text, hct_error_string((hct_error)j));
	}
	assert_string_equal(hct_error_string(HCT_ERR_COUNT), "unknown error");
	assert_string_equal(hct_error_string((hct_error)-1), "unknown error");
	assert_string_equal(hct_error_string((hct_error)100000), "unknown error");
}

static void errno_of_each_code(void **state)
{
	(void)state;
	assert_int_equal(hct_error_errno(HCT_OK), 0);
	assert_int_equal(hct_error_errno(HCT_ERR_NOMEM), ENOMEM);
	assert_int_equal(hct_error_errno(HCT_ERR_NOT_FOUND), ENOENT);
	assert_int_equal(hct_error_errno(HCT_ERR_EXISTS), EEXIST);
	assert_int_equal(hct_error_errno(HCT_ERR_NO_SPACE), ENOSPC);
	assert_int_equal(hct_error_errno(HCT_ERR_INTERRUPTED), EINTR);
	assert_int_equal(hct_error_errno(HCT_ERR_ARGUMENT), EINVAL);
	/* A damaged file is EIO to whoever reads it through a mount. */
	for (hct_error e = HCT_ERR_NOT_HCT; e <= HCT_ERR_SAFETENSORS; e++)
		assert_int_equal(hct_error_errno(e), EIO);
	assert_int_equal(hct_error_errno((hct_error)1000), EIO);
}

static void exit_code_of_each_code(void **state)
{
	(void)state;
	assert_int_equal(hct_error_exit_code(HCT_OK), HCT_EXIT_OK);
	for (hct_error e = HCT_ERR_NOT_HCT; e <= HCT_ERR_SAFETENSORS; e++)
		assert_int_equal(hct_error_exit_code(e), HCT_EXIT_BAD_DATA);
	assert_int_equal(hct_error_exit_code(HCT_ERR_ARGUMENT), HCT_EXIT_USAGE);
	assert_int_equal(hct_error_exit_code(HCT_ERR_INTERRUPTED), HCT_EXIT_INTERRUPTED);
	static const hct_error system[] = {HCT_ERR_NOMEM, HCT_ERR_IO, HCT_ERR_NOT_FOUND,
					   HCT_ERR_NO_SPACE};
	for (size_t i = 0; i < sizeof(system) / sizeof(*system); i++)
		assert_int_equal(hct_error_exit_code(system[i]), HCT_EXIT_SYSTEM);
	/* No failure may ever look like success. */
	for (int i = 1; i < HCT_ERR_COUNT + 5; i++)
		assert_int_not_equal(hct_error_exit_code((hct_error)i), HCT_EXIT_OK);
}

static void code_of_each_errno(void **state)
{
	(void)state;
	assert_int_equal(hct_error_from_errno(0), HCT_OK);
	assert_int_equal(hct_error_from_errno(ENOMEM), HCT_ERR_NOMEM);
	assert_int_equal(hct_error_from_errno(ENOENT), HCT_ERR_NOT_FOUND);
	assert_int_equal(hct_error_from_errno(ENOTDIR), HCT_ERR_NOT_FOUND);
	assert_int_equal(hct_error_from_errno(EEXIST), HCT_ERR_EXISTS);
	assert_int_equal(hct_error_from_errno(ENOSPC), HCT_ERR_NO_SPACE);
	assert_int_equal(hct_error_from_errno(EDQUOT), HCT_ERR_NO_SPACE);
	assert_int_equal(hct_error_from_errno(EINTR), HCT_ERR_INTERRUPTED);
	assert_int_equal(hct_error_from_errno(EIO), HCT_ERR_IO);
	assert_int_equal(hct_error_from_errno(EACCES), HCT_ERR_IO);
	assert_int_equal(hct_error_from_errno(99999), HCT_ERR_IO);
}

static void fail_writes_the_line(void **state)
{
	struct hct_diag diag;

	(void)state;
	assert_int_equal(hct_fail(NULL, HCT_ERR_LIMIT, "%s", "lost"), HCT_ERR_LIMIT);
	assert_int_equal(hct_fail(&diag, HCT_ERR_CORRUPT, "chunk %d of %s", 7, "w"),
			 HCT_ERR_CORRUPT);
	assert_string_equal(diag.text, "chunk 7 of w");
	/* A caller wraps the line that it got. */
	hct_fail(&diag, HCT_ERR_CORRUPT, "%s: %s", "model.hct", diag.text);
	assert_string_equal(diag.text, "model.hct: chunk 7 of w");
}

static void a_line_has_no_control_characters(void **state)
{
	struct hct_diag diag;

	(void)state;
	hct_fail(&diag, HCT_ERR_IO, "a%sb", "\n\r\t\x1b\x7f");
	assert_string_equal(diag.text, "a?????b");
	hct_fail(&diag, HCT_ERR_IO, "\xc3\xa9\xe6\x97\xa5");
	assert_string_equal(diag.text, "\xc3\xa9\xe6\x97\xa5");
}

static void a_long_line_is_cut_between_characters(void **state)
{
	struct hct_diag diag;
	char text[2000];

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	hct_fail(&diag, HCT_ERR_IO, "%s", text);
	assert_int_equal(strlen(diag.text), sizeof(diag.text) - 1);

	/* Each length of character at each distance from the cut. */
	static const char *const characters[] = {"\xc3\xa9", "\xe6\x97\xa5", "\xf0\x9f\x98\x80"};
	for (size_t c = 0; c < 3; c++) {
		size_t len = strlen(characters[c]);

		for (size_t before = 1016; before <= 1024; before++) {
			memset(text, 'x', before);
			strcpy(text + before, characters[c]);
			strcpy(text + before + len, "yyyyyyyyyyyyyyyy");
			hct_fail(&diag, HCT_ERR_IO, "%s", text);
			size_t expected = 1023;
			if (before < 1023 && before + len > 1023)
				expected = before;
			assert_int_equal(strlen(diag.text), expected);
			assert_memory_equal(diag.text, text, expected);
		}
	}
}

static void fail_errno_adds_the_reason(void **state)
{
	struct hct_diag diag, small;
	char text[2000];

	(void)state;
	errno = EBADF;
	assert_int_equal(hct_fail_errno(&diag, ENOSPC, "cannot write %s", "out.hct"),
			 HCT_ERR_NO_SPACE);
	assert_int_equal(errno, EBADF);
	snprintf(text, sizeof(text), "cannot write out.hct: %s", strerror(ENOSPC));
	assert_string_equal(diag.text, text);
	assert_int_equal(hct_fail_errno(NULL, ENOENT, "x"), HCT_ERR_NOT_FOUND);

	hct_fail_errno(&small, EACCES, "%s", "");
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	hct_fail_errno(&diag, EACCES, "%s", text);
	assert_true(strlen(diag.text) < sizeof(diag.text));
	assert_true(strlen(diag.text) >= sizeof(diag.text) - 2);
	/* However long the line, the reason is whole. */
	assert_string_equal(diag.text + strlen(diag.text) - strlen(small.text), small.text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_code_has_its_own_phrase),
		cmocka_unit_test(errno_of_each_code),
		cmocka_unit_test(exit_code_of_each_code),
		cmocka_unit_test(code_of_each_errno),
		cmocka_unit_test(fail_writes_the_line),
		cmocka_unit_test(a_line_has_no_control_characters),
		cmocka_unit_test(a_long_line_is_cut_between_characters),
		cmocka_unit_test(fail_errno_adds_the_reason),
	};

	return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
