/* svg.h: text from outside stays text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/svg.h"

static void assert_escaped(const char *text, const char *expected)
{
	char *out = NULL;
	size_t size;
	FILE *f = open_memstream(&out, &size);

	assert_non_null(f);
	hct_svg_escape(f, text);
	fclose(f);
	assert_string_equal(out, expected);
	free(out);
}

static void test_markup_is_escaped(void **state)
{
	(void)state;
	assert_escaped("a.b_c-1", "a.b_c-1");
	assert_escaped("<script>\"&'", "&lt;script&gt;&quot;&amp;&#39;");
	assert_escaped("]]>", "]]&gt;");
	assert_escaped("重み", "重み");
}

static void test_what_xml_forbids_is_replaced(void **state)
{
	(void)state;
	assert_escaped("\x1b[31m\n", "\\x1b[31m\\n");
	assert_escaped("\xff", "\\xff");
	assert_escaped("a\xef\xbf\xbfz", "a\xef\xbf\xbdz");
	assert_escaped("\xef\xbf\xbe", "\xef\xbf\xbd");
}

static void test_shapes(void **state)
{
	char *out = NULL;
	size_t size;
	FILE *f = open_memstream(&out, &size);

	(void)state;
	assert_non_null(f);
	hct_svg_begin(f, 100, 50, "a<b");
	hct_svg_rect(f, 1, 2, 3, 4, "#fff", "x & y");
	hct_svg_text(f, 1, 2, 12, HCT_SVG_END, -90, "#000", "t");
	hct_svg_end(f);
	fclose(f);
	assert_non_null(strstr(out, "width=\"100\" height=\"50\""));
	assert_non_null(strstr(out, "<title>a&lt;b</title>"));
	assert_non_null(strstr(out, "fill=\"#fff\"><title>x &amp; y</title></rect>"));
	assert_non_null(strstr(out, "text-anchor=\"end\""));
	assert_non_null(strstr(out, "rotate(-90 1.00 2.00)"));
	assert_true(size > 7 && strcmp(out + size - 7, "</svg>\n") == 0);
	free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_markup_is_escaped),
		cmocka_unit_test(test_what_xml_forbids_is_replaced),
		cmocka_unit_test(test_shapes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
