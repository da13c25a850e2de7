/* names.h and manifest.h: hostile names, and a manifest that cannot lead outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "writer/manifest.h"
#include "writer/names.h"

#define BAD "\xEF\xBF\xBD"

static void test_suffix(void **state)
{
	(void)state;
	assert_true(mkhct_name_has_suffix("a.safetensors", ".safetensors"));
	assert_true(mkhct_name_has_suffix("x/y/a.safetensors", ".safetensors"));
	assert_false(mkhct_name_has_suffix(".safetensors", ".safetensors"));
	assert_false(mkhct_name_has_suffix("x/.safetensors", ".safetensors"));
	assert_false(mkhct_name_has_suffix("a.safetensors/b", ".safetensors"));
	assert_false(mkhct_name_has_suffix("", ".hct"));
}

static void test_printable(void **state)
{
	static const char *const cases[][2] = {
		{"plain", "plain"},
		{"ünï 重み 🙂", "ünï 重み 🙂"},
		{"a\x1b[31m\n\x7f", "a" BAD "[31m" BAD BAD},
		{"\xC2\x9B"
		 "31m",
		 BAD "31m"},              /* CSI in one character */
		{"\xC2\xA0", "\xC2\xA0"}, /* the first behind the C1 controls */
		{"lat\xE9in", "lat" BAD "in"},
		{"\xC0\xAF", BAD BAD}, /* overlong */
		{"\xE0\x80\xAF", BAD BAD BAD},
		{"\xED\xA0\x80", BAD BAD BAD}, /* a surrogate */
		{"\xF4\x90\x80\x80", BAD BAD BAD BAD},
		{"cut \xF0\x9F\x99", "cut " BAD BAD BAD},
	};
	char buf[64];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_string_equal(mkhct_name_printable(cases[i][0], buf, sizeof(buf)),
				    cases[i][1]);
	assert_string_equal(mkhct_name_printable("ab🙂", buf, 6), "ab");
	assert_string_equal(mkhct_name_printable("ab🙂", buf, 7), "ab🙂");
	assert_string_equal(mkhct_name_printable("abc", buf, 1), "");
}

static void test_json_keeps_every_name(void **state)
{
	static const char *const names[] = {"plain", "tab\there", "ünï", "lat\xE9in", "\xFF\x01"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		cJSON *object = cJSON_CreateObject(), *parsed;
		char *text, *back;

		assert_int_equal(mkhct_name_to_json(object, names[i]), 0);
		text = cJSON_PrintUnformatted(object);
		parsed = cJSON_Parse(text);
		back = mkhct_name_from_json(parsed);
		assert_string_equal(back, names[i]);
		assert_int_equal(cJSON_HasObjectItem(parsed, "name_hex"), i >= 3);
		free(back);
		cJSON_Delete(parsed);
		cJSON_free(text);
		cJSON_Delete(object);
	}
}

static void test_json_numbers_are_exact(void **state)
{
	cJSON *object = cJSON_CreateObject();
	char *text;

	(void)state;
	assert_int_equal(mkhct_json_add_u64(object, "n", UINT64_MAX), 0);
	text = cJSON_PrintUnformatted(object);
	assert_string_equal(text, "{\"n\":18446744073709551615}");
	cJSON_free(text);
	cJSON_Delete(object);
}

static void test_safe(void **state)
{
	static const char *const unsafe[] = {"",     ".",    "..",     "/",    "/a",  "a/",
					     "a//b", "../a", "a/../b", "a/..", "./a", "a/."};

	(void)state;
	assert_true(mkhct_name_is_safe("a"));
	assert_true(mkhct_name_is_safe("a/b.c/..d"));
	assert_true(mkhct_name_is_safe("..."));
	for (size_t i = 0; i < sizeof(unsafe) / sizeof(*unsafe); i++)
		assert_false(mkhct_name_is_safe(unsafe[i]));
}

static int keep_two(const char *name, void *arg)
{
	(void)arg;
	return strcmp(name, "keep") == 0 || strcmp(name, "sub/keep") == 0;
}

static void touch(int root, const char *name)
{
	int fd = openat(root, name, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static int there(int root, const char *name)
{
	struct stat sb;

	return fstatat(root, name, &sb, AT_SYMLINK_NOFOLLOW) == 0;
}

static void write_json(int root, const char *name, cJSON *json)
{
	char *text = cJSON_Print(json);
	int fd = openat(root, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	cJSON_free(text);
}

static void test_manifest(void **state)
{
	char path[] = "/tmp/hct-manifest-XXXXXX";
	struct mkhct_manifest m = {0};
	cJSON *json = mkhct_manifest_create(), *item;
	int root;

	(void)state;
	assert_non_null(mkdtemp(path));
	root = open(path, O_RDONLY | O_DIRECTORY);
	assert_int_equal(mkdirat(root, "sub", 0700), 0);
	assert_int_equal(mkdirat(root, "full", 0700), 0);
	touch(root, "keep");
	touch(root, "sub/keep");
	touch(root, "sub/old");
	touch(root, "old.safetensors.hct");
	touch(root, ".old.part");
	touch(root, "full/other");
	assert_int_equal(mkhct_manifest_add(json, MKHCT_MANIFEST_FILE, "keep"), 0);
	assert_int_equal(mkhct_manifest_add(json, MKHCT_MANIFEST_FILE, "sub/keep"), 0);
	assert_int_equal(mkhct_manifest_add(json, MKHCT_MANIFEST_FILE, "sub/old"), 0);
	assert_int_equal(mkhct_manifest_add(json, MKHCT_MANIFEST_FILE, "../old"), 0);
	assert_int_equal(mkhct_manifest_add(json, MKHCT_MANIFEST_FOLDER, "sub"), 0);
	assert_int_equal(mkhct_manifest_add(json, MKHCT_MANIFEST_FOLDER, "full"), 0);
	assert_int_equal(mkhct_manifest_add(json, MKHCT_MANIFEST_PART, ".old.part"), 0);
	item = cJSON_CreateObject();
	cJSON_AddStringToObject(item, "name", "old.safetensors");
	cJSON_AddStringToObject(item, "kind", "model");
	cJSON_AddItemToArray(cJSON_GetObjectItem(json, "files"), item);
	write_json(root, "manifest", json);
	cJSON_Delete(json);

	assert_int_equal(mkhct_manifest_read(&m, root, "missing", NULL), HCT_OK);
	assert_int_equal(m.count, 0);
	assert_int_equal(mkhct_manifest_read(&m, root, "keep", NULL), HCT_OK); /* no JSON */
	assert_int_equal(m.count, 0);
	assert_int_equal(mkhct_manifest_read(&m, root, "manifest", NULL), HCT_OK);
	mkhct_manifest_sort(&m);
	assert_int_equal(m.count, 7); /* all but ../old */
	assert_int_equal(mkhct_manifest_find(&m, "sub"), MKHCT_MANIFEST_FOLDER);
	assert_int_equal(mkhct_manifest_find(&m, ".old.part"), MKHCT_MANIFEST_PART);
	assert_int_equal(mkhct_manifest_find(&m, "old.safetensors.hct"), MKHCT_MANIFEST_FILE);
	assert_int_equal(mkhct_manifest_find(&m, "old.safetensors"), MKHCT_MANIFEST_NONE);

	assert_int_equal(mkhct_manifest_remove_parts(&m, root, NULL), HCT_OK);
	assert_false(there(root, ".old.part"));
	assert_true(there(root, "old.safetensors.hct"));
	assert_int_equal(mkhct_manifest_remove_old(&m, root, keep_two, NULL, NULL), HCT_OK);
	assert_true(there(root, "keep") && there(root, "sub/keep") && there(root, "full/other"));
	assert_false(there(root, "sub/old") || there(root, "old.safetensors.hct"));

	mkhct_manifest_free(&m);
	unlinkat(root, "keep", 0);
	unlinkat(root, "manifest", 0);
	unlinkat(root, "sub/keep", 0);
	unlinkat(root, "full/other", 0);
	unlinkat(root, "sub", AT_REMOVEDIR);
	unlinkat(root, "full", AT_REMOVEDIR);
	close(root);
	assert_int_equal(rmdir(path), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_suffix),
		cmocka_unit_test(test_printable),
		cmocka_unit_test(test_json_keeps_every_name),
		cmocka_unit_test(test_json_numbers_are_exact),
		cmocka_unit_test(test_safe),
		cmocka_unit_test(test_manifest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
