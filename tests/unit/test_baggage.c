/* baggage.h: what a bundle takes along that few want. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "folder.h"
#include "writer/baggage.h"

#define MIB (1 << 20)

static void make(const char *path, long size)
{
	folder_write_text(path, "");
	assert_int_equal(truncate(path, size), 0);
}

static void assert_line(unsigned i, const char *expected)
{
	struct mkhct_source s;
	struct hct_diag line;
	int there;

	assert_int_equal(mkhct_source_scan("src", NULL, 0, &s, NULL), HCT_OK);
	there = mkhct_baggage_note(&s, i, &line);
	mkhct_source_free(&s);
	assert_int_equal(there, expected != NULL);
	if (expected)
		assert_string_equal(line.text, expected);
}

static void test_a_line_for_each_kind(void **state)
{
	(void)state;
	mkdir("src", 0755);
	mkdir("src/onnx", 0755);
	mkdir("src/.git", 0755);
	mkdir("src/.github", 0755);
	make("src/model.safetensors", 8 * MIB);
	make("src/pytorch_model.bin", MIB);
	make("src/.github/small.pt", 3);
	make("src/model.txt", 8 * MIB);
	assert_line(0, NULL);
	make("src/onnx/model.bin", 1);
	make("src/onnx/model.onnx", 3 * MIB);
	make("src/.git/object.bin", 5 * MIB); /* counts for the folder alone */
	assert_line(0, "the bundle takes along .git (5.00 MiB); --exclude .git leaves it out");
	assert_line(1, "the bundle takes along 2 .bin files as they are (1.00 MiB); "
		       "--exclude '*.bin' leaves them out");
	assert_line(2, "the bundle takes along 1 .onnx file as it is (3.00 MiB); "
		       "--exclude '*.onnx' leaves it out");
	assert_line(3, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_line_for_each_kind, folder_enter,
						folder_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
