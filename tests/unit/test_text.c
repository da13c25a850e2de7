/* text.h: names from outside made safe to show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "fs/text.h"

static void expect_printable(const char *text, const char *expected)
{
	char *once = hct_text_printable(text), *twice;

	assert_non_null(once);
	assert_string_equal(once, expected);
	twice = hct_text_printable(once);
	assert_non_null(twice);
	assert_string_equal(twice, expected);
	free(once);
	free(twice);
}

static void ordinary_text_stays(void **state)
{
	(void)state;
	expect_printable("", "");
	expect_printable("encoder/layer.0 \\ \"x\"", "encoder/layer.0 \\ \"x\"");
	expect_printable("слой.重み.🙂é", "слой.重み.🙂é");
	expect_printable("\xf4\x8f\xbf\xbd", "\xf4\x8f\xbf\xbd");
}

static void control_characters_are_escaped(void **state)
{
	(void)state;
	expect_printable("a\nb\tc\rd", "a\\nb\\tc\\rd");
	expect_printable("\033[31mred\a\x7f", "\\x1b[31mred\\x07\\x7f");
	/* C1: a CSI of one character. */
	expect_printable("\xc2\x9b"
			 "2J",
			 "\\u{9b}2J");
	/* Right-to-left override, zero width space, byte order mark, tags, line separator. */
	expect_printable("\u202egpj", "\\u{202e}gpj");
	expect_printable("a\u200bb\ufeff", "a\\u{200b}b\\u{feff}");
	expect_printable("\U000e0041\u2028", "\\u{e0041}\\u{2028}");
}

static void broken_utf8_is_escaped(void **state)
{
	(void)state;
	expect_printable("\x80", "\\x80");
	expect_printable("\xff\xfe", "\\xff\\xfe");
	expect_printable("\xc0\xaf", "\\xc0\\xaf");          /* overlong '/' */
	expect_printable("\xe0\x80\xaf", "\\xe0\\x80\\xaf"); /* the same, longer */
	expect_printable("\xed\xa0\x80", "\\xed\\xa0\\x80"); /* a surrogate */
	expect_printable("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80");
	expect_printable("\xf8\x88\x80\x80\x80", "\\xf8\\x88\\x80\\x80\\x80");
	/* Cut off at the end of the string. */
	expect_printable("a\xc3", "a\\xc3");
	expect_printable("a\xe2\x82", "a\\xe2\\x82");
	expect_printable("a\xf0\x9f\x99", "a\\xf0\\x9f\\x99");
	/* The next character survives. */
	expect_printable("\xe2\x82z", "\\xe2\\x82z");
}

static void utf8_is_made_valid(void **state)
{
	static const struct {
		const char *text, *expected;
	} cases[] = {
		{"", ""},
		{"plain \n ü 🙂", "plain \n ü 🙂"},
		{"\xff", "\ufffd"},
		{"a\xe2\x82z", "a\ufffd\ufffdz"},
		{"\xed\xa0\x80", "\ufffd\ufffd\ufffd"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *valid = hct_text_utf8(cases[i].text);

		assert_non_null(valid);
		assert_string_equal(valid, cases[i].expected);
		free(valid);
	}
}

static void columns_are_counted(void **state)
{
	(void)state;
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		skip();
	assert_int_equal(hct_text_columns(""), 0);
	assert_int_equal(hct_text_columns("abc"), 3);
	assert_int_equal(hct_text_columns("äöü"), 3);
	assert_int_equal(hct_text_columns("重み"), 4);
	assert_int_equal(hct_text_columns("e\u0301"), 1); /* combining accent */
	assert_int_equal(hct_text_columns("\xff"), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ordinary_text_stays),
		cmocka_unit_test(control_characters_are_escaped),
		cmocka_unit_test(broken_utf8_is_escaped),
		cmocka_unit_test(utf8_is_made_valid),
		cmocka_unit_test(columns_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
