/* table.h: text in aligned columns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "fs/table.h"

static void expect_table(struct hct_table *t, const char *expected)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	assert_int_equal(hct_table_print(t, out), HCT_OK);
	fclose(out);
	assert_string_equal(text, expected);
	free(text);
	hct_table_free(t);
}

static void columns_are_aligned(void **state)
{
	struct hct_table *t = hct_table_create("lrl");

	(void)state;
	for (int i = 0; i < 3; i++) {
		static const char *const left[] = {"DTYPE", "F32", "BF16"};
		static const char *const last[] = {"NAME", "a.weight", "b"};

		hct_table_cell(t, "%s", left[i]);
		hct_table_cell(t, "%d", i * i * 1000);
		hct_table_cell(t, "%s", last[i]);
	}
	expect_table(t, "  DTYPE     0  NAME\n"
			"  F32    1000  a.weight\n"
			"  BF16   4000  b\n");
}

static void nothing_trails(void **state)
{
	struct hct_table *t = hct_table_create("llr");

	(void)state;
	hct_table_cell(t, "a");
	hct_table_end_row(t);
	hct_table_cell(t, "long");
	hct_table_cell(t, "%s", "");
	hct_table_cell(t, "%s", "");
	hct_table_cell(t, "%s", "");
	hct_table_cell(t, "%s", "");
	hct_table_cell(t, "7");
	expect_table(t, "  a\n  long\n          7\n");
}

static void lines_widen_no_column(void **state)
{
	struct hct_table *t = hct_table_create("lr");

	(void)state;
	hct_table_line(t, "a heading that is longer than all else: %d", 3);
	hct_table_cell(t, "x");
	hct_table_cell(t, "1");
	hct_table_cell(t, "row that is cut short by a line");
	hct_table_line(t, "%s", "");
	hct_table_cell(t, "y");
	hct_table_cell(t, "22");
	expect_table(t, "a heading that is longer than all else: 3\n"
			"  x                                 1\n"
			"  row that is cut short by a line\n"
			"\n"
			"  y                                22\n");
}

static void names_cannot_break_it(void **state)
{
	struct hct_table *t = hct_table_create("ll");

	(void)state;
	setlocale(LC_CTYPE, "C.UTF-8");
	hct_table_cell(t, "a\nb\033[2J");
	hct_table_cell(t, "1");
	hct_table_cell(t, "ä");
	hct_table_cell(t, "2");
	hct_table_line(t, "x\ny");
	expect_table(t, "  a\\nb\\x1b[2J  1\n"
			"  ä            2\n"
			"x\\ny\n");
}

static void many_rows(void **state)
{
	struct hct_table *t = hct_table_create("r");
	char *expected = malloc(7 * 1000 + 1);

	(void)state;
	assert_non_null(expected);
	for (int i = 0; i < 1000; i++) {
		hct_table_cell(t, "%d", 1000 + i);
		sprintf(expected + 7 * (size_t)i, "  %d\n", 1000 + i);
	}
	expect_table(t, expected);
	free(expected);
}

static void no_memory_is_reported(void **state)
{
	(void)state;
	hct_table_cell(NULL, "x");
	hct_table_line(NULL, "x");
	hct_table_end_row(NULL);
	assert_int_equal(hct_table_print(NULL, stdout), HCT_ERR_NOMEM);
	hct_table_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(columns_are_aligned),
		cmocka_unit_test(nothing_trails),
		cmocka_unit_test(lines_widen_no_column),
		cmocka_unit_test(names_cannot_break_it),
		cmocka_unit_test(many_rows),
		cmocka_unit_test(no_memory_is_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
