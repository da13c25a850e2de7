/* select.h, and what a scan makes of it: --include and --exclude. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "folder.h"
#include "writer/select.h"
#include "writer/source.h"

#define MOST 8

struct patterns {
	struct mkhct_selection all[MOST];
	size_t count;
};

/* Words "-PATTERN" (exclude) and "+PATTERN" (include). */
static struct patterns patterns_of(const char *words)
{
	static char text[512];
	struct patterns p = {.count = 0};

	snprintf(text, sizeof(text), "%s", words);
	for (char *w = strtok(text, " "); w; w = strtok(NULL, " ")) {
		assert_true(p.count < MOST);
		p.all[p.count++] = (struct mkhct_selection){w + 1, *w == '+'};
	}
	return p;
}

static void make_source(void)
{
	mkdir("src", 0755);
	mkdir("src/onnx", 0755);
	mkdir("src/onnx/deep", 0755);
	mkdir("src/empty", 0755);
	folder_write_text("src/a.safetensors", "x");
	folder_write_text("src/b.bin", "x");
	folder_write_text("src/config.json", "x");
	folder_write_text("src/onnx/b.bin", "x");
	folder_write_text("src/onnx/config.json", "x");
	folder_write_text("src/onnx/deep/a.safetensors", "x");
}

/* What a scan takes, its names joined by spaces; or, when it fails, its line. */
static const char *taken(const char *words)
{
	static char names[1024];
	struct patterns p = patterns_of(words);
	struct mkhct_source s;
	struct hct_diag diag = {""};

	*names = '\0';
	if (mkhct_source_scan("src", p.all, p.count, &s, &diag) != HCT_OK)
		return strcpy(names, diag.text);
	for (size_t i = 0; i < s.count; i++)
		strcat(strcat(names, i ? " " : ""), s.entries[i].name);
	mkhct_source_free(&s);
	return names;
}

#define ALL                                                                                        \
	"a.safetensors b.bin config.json empty onnx onnx/b.bin onnx/config.json onnx/deep "        \
	"onnx/deep/a.safetensors"

static void test_what_is_taken(void **state)
{
	static const struct {
		const char *words, *expected;
	} cases[] = {
		{"", ALL},
		/* Without a '/' also the last component, with one the whole name. */
		{"-b.bin", "a.safetensors config.json empty onnx onnx/config.json onnx/deep "
			   "onnx/deep/a.safetensors"},
		{"-onnx/b.bin", "a.safetensors b.bin config.json empty onnx onnx/config.json "
				"onnx/deep onnx/deep/a.safetensors"},
		{"-onnx/*.bin", "a.safetensors b.bin config.json empty onnx onnx/config.json "
				"onnx/deep onnx/deep/a.safetensors"},
		/* A folder with all in it; a '/' at the end is passed over. */
		{"-onnx", "a.safetensors b.bin config.json empty"},
		{"-onnx/", "a.safetensors b.bin config.json empty"},
		{"-deep", "a.safetensors b.bin config.json empty onnx onnx/b.bin "
			  "onnx/config.json"},
		/* What becomes empty is made, unless it is left out itself. */
		{"-onnx/*", "a.safetensors b.bin config.json empty onnx"},
		{"-empty", "a.safetensors b.bin config.json onnx onnx/b.bin onnx/config.json "
			   "onnx/deep onnx/deep/a.safetensors"},
		/* The last that matches counts, also within a folder that is left out. */
		{"-*.bin +onnx/b.bin", "a.safetensors config.json empty onnx onnx/b.bin "
				       "onnx/config.json onnx/deep onnx/deep/a.safetensors"},
		{"-onnx +b.bin", "a.safetensors b.bin config.json empty onnx onnx/b.bin"},
		{"-b.bin +onnx -config.json", "a.safetensors empty onnx onnx/b.bin onnx/deep "
					      "onnx/deep/a.safetensors"},
		{"+b.bin -onnx +a.safetensors", "a.safetensors b.bin onnx onnx/deep "
						"onnx/deep/a.safetensors"},
		{"-* +*.safetensors", "a.safetensors onnx onnx/deep onnx/deep/a.safetensors"},
		/* An --include at first: nothing else. */
		{"+*.safetensors", "a.safetensors onnx onnx/deep onnx/deep/a.safetensors"},
		{"+*.safetensors -onnx", "a.safetensors"},
		{"+onnx", "onnx onnx/b.bin onnx/config.json onnx/deep onnx/deep/a.safetensors"},
		{"+a.safetensors +/config.json +config.json -onnx/*",
		 "--include /config.json: matches no file of src; see what names it has, or leave "
		 "the option out"},
		{"-*.safetensors", "src: --include and --exclude leave no .safetensors file of it; "
				   "take one"},
		/* A typo; but what is meant may lie where nobody looked. */
		{"-*.bim", "--exclude *.bim: matches no file of src; see what names it has, or "
			   "leave the option out"},
		{"-onnx -deep", "a.safetensors b.bin config.json empty"},
		{"+*.bim -onnx", "--include *.bim: matches no file of src; see what names it has, "
				 "or leave the option out"},
	};

	(void)state;
	make_source();
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *found = taken(cases[i].words);

		if (strcmp(found, cases[i].expected) != 0)
			fail_msg("'%s' takes: %s\nand not: %s", cases[i].words, found,
				 cases[i].expected);
	}
}

/* What is left out may be broken: it is not looked at. */
static void test_what_is_left_out_is_not_looked_at(void **state)
{
	(void)state;
	make_source();
	assert_int_equal(symlink("missing", "src/broken.bin"), 0);
	assert_int_equal(symlink("..", "src/onnx/loop"), 0);
	mkfifo("src/pipe", 0600);
	assert_non_null(strstr(taken("-*.bin -loop"), "src/pipe: neither"));
	assert_non_null(strstr(taken("-*.bin -pipe"), "src/onnx/loop: a symlink to a folder"));
	assert_non_null(strstr(taken("-loop -pipe"), "src/broken.bin: a symlink to a file"));
	assert_string_equal(taken("-*.bin -pipe -onnx"), "a.safetensors config.json empty");
}

static void test_sums_are_of_what_is_taken(void **state)
{
	struct patterns p = patterns_of("-*.bin -onnx/deep");
	struct mkhct_source s;

	(void)state;
	make_source();
	assert_int_equal(mkhct_source_scan("src", p.all, p.count, &s, NULL), HCT_OK);
	assert_int_equal(s.model_count, 1);
	assert_int_equal(s.carried_count, 2);
	assert_int_equal(s.carried_bytes, 2);
	mkhct_source_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_is_taken, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_what_is_left_out_is_not_looked_at,
						folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_sums_are_of_what_is_taken, folder_enter,
						folder_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
