/* events.h: JSON lines and log lines, and what happens when they cannot be written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "writer/events.h"

static int warnings;

static void warn(void *arg, const char *text)
{
	(void)arg;
	assert_non_null(strstr(text, "--log /dev/full: lines are missing: "));
	warnings++;
}

static void a_line_each(void **state)
{
	char path[] = "/tmp/test_events.XXXXXX", line[512];
	struct mkhct_events *e;
	char *text = NULL;
	size_t size;
	FILE *json = open_memstream(&text, &size), *log;
	int fd = mkstemp(path);

	(void)state;
	assert_int_equal(write(fd, "before\n", 7), 7);
	assert_int_equal(mkhct_events_open(json, path, NULL, NULL, &e, NULL), HCT_OK);
	mkhct_events_message(e, "note", "a\n\x1b[2J \"b\"");
	mkhct_events_carried(e, "x y", 12);
	mkhct_events_error(e, "no", 3);
	assert_int_equal(mkhct_events_check(e, NULL), HCT_OK);
	mkhct_events_close(e);
	fclose(json);
	assert_ptr_equal(strstr(text, "{\"event\":\"note\",\"time\":\"20"), text);
	assert_non_null(strstr(text, "\n{\"event\":\"carried\",\"time\":\""));
	assert_non_null(strstr(text, "\"name\":\"x y\",\"source_bytes\":12}\n{"));
	assert_non_null(strstr(text, "\"message\":\"no\",\"exit_code\":3}\n"));
	free(text);
	log = fdopen(fd, "r");
	rewind(log);
	assert_string_equal(fgets(line, sizeof(line), log), "before\n");
	fgets(line, sizeof(line), log);
	assert_int_equal(line[10], 'T');
	assert_string_equal(line + 23, "Z note: a\xef\xbf\xbd\xef\xbf\xbd[2J \"b\"\n");
	assert_string_equal(fgets(line, sizeof(line), log) + 24,
			    " carried name=\"x y\" source_bytes=12\n");
	assert_string_equal(fgets(line, sizeof(line), log) + 24, " error: no exit_code=3\n");
	assert_null(fgets(line, sizeof(line), log));
	fclose(log);
	unlink(path);
}

static void a_full_disk_warns_once(void **state)
{
	struct mkhct_events *e;
	FILE *json = fopen("/dev/full", "w");
	struct hct_diag diag;

	(void)state;
	assert_int_equal(mkhct_events_open(json, "/dev/full", warn, NULL, &e, NULL), HCT_OK);
	mkhct_events_message(e, "note", "a");
	mkhct_events_message(e, "note", "b");
	assert_int_equal(warnings, 1);
	assert_int_equal(mkhct_events_check(e, &diag), HCT_ERR_NO_SPACE);
	assert_non_null(strstr(diag.text, "standard output cannot be written: "));
	mkhct_events_close(e);
	fclose(json);
	assert_int_equal(mkhct_events_open(NULL, "/nowhere/log", warn, NULL, &e, &diag),
			 HCT_ERR_NOT_FOUND);
	mkhct_events_message(NULL, "note", "nobody listens");
	assert_int_equal(mkhct_events_check(NULL, NULL), HCT_OK);
}

/* Names are exact, and neither steer a terminal nor end a line in either form. */
static void what_steers_is_escaped(void **state)
{
	char path[] = "/tmp/test_events.XXXXXX", line[512];
	static const char escaped[] = "\"a\\u0085\\u009b\\u007f\\u2028\\u2029\\u001b "
				      "\xc2\xa0\xe2\x80\xa7\"";
	struct hct_tensor t = {.name = "a\xc2\x85\xc2\x9b\x7f\xe2\x80\xa8\xe2\x80\xa9\x1b "
				       "\xc2\xa0\xe2\x80\xa7",
			       .dtype_name = "F32"};
	struct mkhct_result result = {.energy = 0};
	struct mkhct_events *e;
	char *text = NULL;
	size_t size;
	FILE *json = open_memstream(&text, &size), *log;
	int fd = mkstemp(path);

	(void)state;
	assert_int_equal(mkhct_events_open(json, path, NULL, NULL, &e, NULL), HCT_OK);
	mkhct_events_tensor(e, "file", &t, &result, 1, 0);
	t.name = "\xc2\x9b";
	mkhct_events_tensor(e, "file", &t, &result, 1, 0);
	mkhct_events_close(e);
	fclose(json);
	assert_non_null(strstr(text, escaped));
	assert_non_null(strstr(text, "\"name\":\"\\u009b\""));
	free(text);
	log = fdopen(fd, "r");
	assert_non_null(fgets(line, sizeof(line), log));
	assert_non_null(strstr(line, escaped));
	assert_non_null(fgets(line, sizeof(line), log));
	assert_non_null(strstr(line, " name=\"\\u009b\" dtype=F32 "));
	fclose(log);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_each),
		cmocka_unit_test(a_full_disk_warns_once),
		cmocka_unit_test(what_steers_is_escaped),
	};

	return cmocka_run_group_tests_name("events", tests, NULL, NULL);
}
