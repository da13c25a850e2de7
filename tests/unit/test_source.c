/* source.h: what a scan lists, and what it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "writer/shards.h"
#include "writer/source.h"

/* Each test works in an empty directory of its own, which is the current one. */
static char top[] = "/tmp/hct-source-XXXXXX";

static int remove_one(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
	(void)sb;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int enter(void **state)
{
	(void)state;
	strcpy(top + strlen(top) - 6, "XXXXXX");
	return mkdtemp(top) && chdir(top) == 0 ? 0 : -1;
}

static int leave(void **state)
{
	(void)state;
	return chdir("/") == 0 ? nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS) : -1;
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void assert_refused(const char *path, hct_error expected, const char *word)
{
	struct hct_diag diag = {""};
	struct mkhct_source source;

	assert_int_equal(mkhct_source_scan(path, NULL, 0, &source, &diag), expected);
	if (!strstr(diag.text, word))
		fail_msg("'%s' is not in: %s", word, diag.text);
	assert_null(source.entries);
	mkhct_source_free(&source);
}

static void test_lists_everything_sorted(void **state)
{
	static const struct {
		const char *name;
		enum mkhct_kind kind;
		uint64_t size;
	} expected[] = {
		{".hidden", MKHCT_CARRIED, 1},
		{".safetensors", MKHCT_CARRIED, 0}, /* a suffix is no name */
		{"a", MKHCT_FOLDER, 0},
		{"a-b", MKHCT_CARRIED, 2},
		{"a/m.safetensors", MKHCT_MODEL, 5},
		{"empty", MKHCT_FOLDER, 0},
		{"m.safetensors.bak", MKHCT_CARRIED, 3},
		{"z.safetensors", MKHCT_MODEL, 4},
	};
	struct mkhct_source s;

	(void)state;
	mkdir("src", 0755);
	mkdir("src/a", 0750);
	mkdir("src/empty", 0755);
	write_file("src/.hidden", "1");
	write_file("src/.safetensors", "");
	write_file("src/a-b", "12");
	write_file("src/a/m.safetensors", "12345");
	write_file("src/m.safetensors.bak", "123");
	write_file("src/z.safetensors", "1234");
	assert_int_equal(mkhct_source_scan("src//", NULL, 0, &s, NULL), HCT_OK);
	assert_int_equal(s.count, sizeof(expected) / sizeof(*expected));
	for (size_t i = 0; i < s.count; i++) {
		assert_string_equal(s.entries[i].name, expected[i].name);
		assert_int_equal(s.entries[i].kind, expected[i].kind);
		assert_int_equal(s.entries[i].size, expected[i].size);
		assert_ptr_equal(mkhct_source_find(&s, expected[i].name), &s.entries[i]);
	}
	assert_null(mkhct_source_find(&s, "a/m"));
	assert_null(mkhct_source_find(&s, ""));
	assert_string_equal(s.path, "src");
	assert_string_equal(s.label, "src");
	assert_string_equal(s.entries[4].path, "src/a/m.safetensors");
	assert_int_equal(s.entries[2].mode, 0750);
	assert_int_equal(s.is_folder, 1);
	assert_int_equal(s.model_count, 2);
	assert_int_equal(s.model_bytes, 9);
	assert_int_equal(s.carried_count, 4);
	assert_int_equal(s.carried_bytes, 6);
	mkhct_source_free(&s);
	mkhct_source_free(&s);
}

static void test_single_file_keeps_the_name_of_its_link(void **state)
{
	struct mkhct_source s;

	(void)state;
	write_file("0123abc", "12345678");
	assert_int_equal(symlink("0123abc", "model.safetensors"), 0);
	assert_int_equal(mkhct_source_scan("./model.safetensors", NULL, 0, &s, NULL), HCT_OK);
	assert_int_equal(s.count, 1);
	assert_int_equal(s.is_folder, 0);
	assert_string_equal(s.entries[0].name, "model.safetensors");
	assert_string_equal(s.label, "model.safetensors");
	assert_int_equal(s.entries[0].size, 8);
	mkhct_source_free(&s);
	assert_refused("0123abc", HCT_ERR_UNSUPPORTED, "neither a folder nor a .safetensors");
}

static void test_links_to_folders_are_followed_but_not_in_circles(void **state)
{
	struct mkhct_source s;

	(void)state;
	mkdir("src", 0755);
	mkdir("src/a", 0755);
	mkdir("other", 0755);
	write_file("other/m.safetensors", "x");
	assert_int_equal(symlink("../other", "src/one"), 0);
	assert_int_equal(symlink("../../other", "src/a/two"), 0); /* twice is no circle */
	assert_int_equal(mkhct_source_scan("src", NULL, 0, &s, NULL), HCT_OK);
	assert_int_equal(s.model_count, 2);
	assert_non_null(mkhct_source_find(&s, "a/two/m.safetensors"));
	mkhct_source_free(&s);
	assert_int_equal(symlink("../src/a", "other/back"), 0);
	assert_refused("src", HCT_ERR_UNSUPPORTED, "a symlink to a folder that holds it");
}

static void test_depth_is_bounded(void **state)
{
	char path[600] = "src";

	(void)state;
	mkdir(path, 0755);
	for (int i = 0; i < 70; i++) {
		strcat(path, "/d");
		assert_int_equal(mkdir(path, 0755), 0);
	}
	assert_refused("src", HCT_ERR_LIMIT, "nested more than");
}

static void test_refusals(void **state)
{
	(void)state;
	assert_refused("nothing", HCT_ERR_NOT_FOUND, "nothing: ");
	mkdir("src", 0755);
	assert_refused("src", HCT_ERR_UNSUPPORTED, "no .safetensors file in it (0 other files)");
	write_file("src/m.safetensors.hct", "x");
	assert_refused("src", HCT_ERR_NOT_HCT, "src/m.safetensors.hct: ");
	assert_refused("src/m.safetensors.hct", HCT_ERR_NOT_HCT, "src/m.safetensors.hct: ");
	assert_int_equal(rename("src/m.safetensors.hct", "src/m.hct"), 0);
	assert_refused("src", HCT_ERR_UNSUPPORTED, "(1 other file)");
	write_file("src/.hct", "");
	assert_refused("src", HCT_ERR_UNSUPPORTED,
		       "src/.hct: a file where a bundle has its hidden");
	unlink("src/.hct");
	mkdir("src/.hct", 0755);
	assert_refused("src", HCT_ERR_UNSUPPORTED, "(1 other file)");
	write_file("src/.hct/unfinished.json", "");
	assert_refused("src", HCT_ERR_UNFINISHED, "src: mkhct has not finished this bundle");
	unlink("src/.hct/unfinished.json");
	write_file("src/.hct/checkpoint-1-of-2.json", "");
	assert_refused("src", HCT_ERR_UNFINISHED, "src: mkhct has not finished this bundle");
	unlink("src/.hct/checkpoint-1-of-2.json");
	rmdir("src/.hct");
	mkdir("src/sub", 0755);
	write_file("src/m.safetensors", "x");
	assert_int_equal(symlink("missing", "src/broken"), 0);
	assert_refused("src", HCT_ERR_NOT_FOUND, "src/broken: a symlink to a file that is not");
	unlink("src/broken");
	mkfifo("src/pipe", 0600);
	assert_refused("src", HCT_ERR_UNSUPPORTED, "src/pipe: neither a file nor a folder");
	unlink("src/pipe");
	struct mkhct_source s;
	assert_int_equal(mkhct_source_scan("src", NULL, 0, &s, NULL), HCT_OK);
	mkhct_source_free(&s);
}

static void test_links_to_themselves(void **state)
{
	(void)state;
	mkdir("src", 0755);
	assert_int_equal(symlink("odd", "src/odd"), 0);
	assert_refused("src", HCT_ERR_IO,
		       "src/odd: a symlink that leads back to itself; remove the link, or");
}

static void assert_source_note(const char *path, const struct mkhct_selection *selections,
			       size_t count, const char *expected)
{
	struct hct_diag diag = {""}, line = {""};
	struct mkhct_source s;

	if (mkhct_source_scan(path, selections, count, &s, &diag) != HCT_OK)
		fail_msg("%s", diag.text);
	for (size_t i = 0; i < s.count; i++)
		assert_null(strstr(s.entries[i].name, ".hct/"));
	assert_int_equal(mkhct_source_note(&s, 0, &line), expected != NULL);
	if (expected)
		assert_string_equal(line.text, expected);
	assert_int_equal(mkhct_source_note(&s, 1, &line), 0);
	mkhct_source_free(&s);
}

static void test_bundle_in_the_source(void **state)
{
	static const struct mkhct_selection no_b = {"b", 0}, no_m = {"*.txt", 0};

	(void)state;
	mkdir("src", 0755);
	mkdir("src/b", 0755);
	mkdir("src/b/.hct", 0755);
	mkdir("src/c", 0755);
	write_file("src/m.safetensors", "x");
	write_file("src/b/a.txt", "x");
	write_file("src/b/.hct/report.json", "{}");
	write_file("src/c/.hct", "a file, and no bundle");
	assert_source_note("src", NULL, 0,
			   "b is a bundle itself: its files are compressed anew as part of this "
			   "one, without its .hct; to keep it as it is, --exclude it and copy it");
	assert_source_note("src", &no_b, 1, NULL);
	write_file("src/b/.hct/checkpoint.json", "{}");
	assert_refused("src", HCT_ERR_UNFINISHED,
		       "src/b: mkhct has not finished this bundle; finish it first, or leave it "
		       "out with --exclude b");
	assert_source_note("src", &no_b, 1, NULL);
	unlink("src/b/.hct/checkpoint.json");
	mkdir("src/a", 0755);
	mkdir("src/a/.hct", 0755);
	assert_source_note("src", &no_m, 1,
			   "a and 1 more folders are bundles themselves: their files are "
			   "compressed anew as part of this one, without their .hct; to keep them "
			   "as they are, --exclude and copy them");
}

static void test_folder_of_a_cache(void **state)
{
	static const struct mkhct_selection no_blobs = {"blobs", 0};

	(void)state;
	mkdir("models--org--name", 0755);
	mkdir("models--org--name/blobs", 0755);
	mkdir("models--org--name/refs", 0755);
	mkdir("models--org--name/snapshots", 0755);
	mkdir("models--org--name/snapshots/ab12", 0755);
	write_file("models--org--name/blobs/00", "x");
	symlink("../../blobs/00", "models--org--name/snapshots/ab12/m.safetensors");
	assert_refused("models--org--name/", HCT_ERR_UNSUPPORTED,
		       "models--org--name: a model's whole folder in the cache of Hugging Face, "
		       "which holds everything twice; give models--org--name/snapshots/ab12");
	mkdir("models--org--name/snapshots/cd34", 0755);
	assert_refused("models--org--name", HCT_ERR_UNSUPPORTED,
		       "give one of the 2 folders in models--org--name/snapshots");
	write_file("models--org--name/refs/main", "cd34\n");
	assert_refused("models--org--name", HCT_ERR_UNSUPPORTED,
		       "; give models--org--name/snapshots/cd34");
	write_file("models--org--name/refs/main", "../../../etc");
	assert_refused("models--org--name", HCT_ERR_UNSUPPORTED, "one of the 2 folders");
	assert_refused(".", HCT_ERR_UNSUPPORTED, "./models--org--name: a model's whole folder");
	assert_source_note("models--org--name", &no_blobs, 1, NULL);
	assert_source_note("models--org--name/snapshots/ab12", NULL, 0, NULL);
}

static void test_config_that_is_none(void **state)
{
	static const char *const good[] = {"{}", "{\"a\": \"\xc3\xa9\"}\n", " {\"a\":1} "};
	static const struct {
		const char *text, *why;
	} bad[] = {
		{"", "no JSON"},
		{"{\"a\":", "no JSON"},
		{"{} x", "no JSON"},
		{"[]", "no JSON object"},
		{"{\"a\": \"\xe9\"}", "not UTF-8"},
		{"{\"a\": \"\xc0\xaf\"}", "not UTF-8"},
		{"{\"a\": \"\xed\xa0\x80\"}", "not UTF-8"},
		{"{\"a\": \"\xf4\x90\x80\x80\"}", "not UTF-8"},
		{"{}\xf0\x9f", "not UTF-8"},
	};
	char line[256];

	(void)state;
	mkdir("src", 0755);
	mkdir("src/sub", 0755);
	write_file("src/m.safetensors", "x");
	write_file("src/sub/config.json", "not beside a model");
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		write_file("src/config.json", good[i]);
		assert_source_note("src", NULL, 0, NULL);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		write_file("src/config.json", bad[i].text);
		snprintf(line, sizeof(line),
			 "config.json: is %s, so loaders cannot read it, and how many layers "
			 "there are is told from the names of tensors alone; download it again",
			 bad[i].why);
		assert_source_note("src", NULL, 0, line);
	}
	truncate("src/config.json", (16 << 20) + 1);
	assert_source_note("src", NULL, 0,
			   "config.json: is larger than 16 MiB, so loaders cannot read it, and "
			   "how many layers there are is told from the names of tensors alone; "
			   "download it again");
}

/* Other formats: what is said depends on the names, and on what config.json says. */
static void assert_advice(const char *config, const char *name, const char *expected)
{
	char path[128];

	if (config)
		write_file("src/config.json", config);
	snprintf(path, sizeof(path), "src/%s", name);
	write_file(path, "x");
	assert_refused("src", HCT_ERR_UNSUPPORTED, expected);
	unlink(path);
	unlink("src/config.json");
}

static void test_advice(void **state)
{
	static const char llama[] = "{\"architectures\":[\"LlamaForCausalLM\"]}";

	(void)state;
	mkdir("src", 0755);
	write_file("src/training_args.bin", "x");
	assert_advice(llama, "pytorch_model.bin",
		      "from transformers import LlamaForCausalLM as M;M.from_pretrained('DIR',"
		      "torch_dtype='auto').save_pretrained('NEW')");
	assert_advice(llama, "pytorch_model-00001-of-00002.bin", "import LlamaForCausalLM as M");
	assert_advice(NULL, "pytorch_model.bin", "import sys,torch,safetensors.torch as s");
	assert_advice("{\"architectures\":[\"Evil;x\"]}", "pytorch_model.bin", "import sys,torch");
	assert_advice("{\"architectures\":[\"Own\"],\"auto_map\":{}}", "pytorch_model.bin",
		      "import sys,torch");
	assert_advice("{\"architectures\":5}", "pytorch_model.bin", "import sys,torch");
	assert_advice("{\"arch", "pytorch_model.bin", "import sys,torch");
	assert_advice(llama, "consolidated.00.pth",
		      "FILE DIR/model.safetensors; then --exclude '*.pth'");
	assert_advice(NULL, "x-1-of-2.pt", "for f in DIR/*.pt; do python3 -c");
	assert_advice("{\"architectures\":[\"TFBertModel\"]}", "tf_model.h5",
		      "import BertModel as M;M.from_pretrained('DIR',from_tf=True)");
	assert_advice(NULL, "flax_model.msgpack",
		      "from_flax=True).save_pretrained('NEW')\", CLASS");
	assert_advice(NULL, "m.gguf", "gguf_file='NAME'");
	assert_advice(NULL, "w.npz", "import sys,numpy as n");
	assert_advice(llama, "m.onnx", "nothing converts it to safetensors and keeps the names");
	write_file("src/model_index.json", "{}");
	assert_advice(NULL, "unet.bin", "DiffusionPipeline as P;P.from_pretrained('DIR')");
}

static hct_error check_shards(const char *index, struct hct_diag *diag)
{
	struct mkhct_source s;
	hct_error err;

	write_file("src/sub/model.safetensors.index.json", index);
	assert_int_equal(mkhct_source_scan("src", NULL, 0, &s, diag), HCT_OK);
	err = mkhct_shards_check(&s, NULL, diag);
	mkhct_source_free(&s);
	return err;
}

static void test_shards(void **state)
{
	struct hct_diag diag;

	(void)state;
	mkdir("src", 0755);
	mkdir("src/sub", 0755);
	write_file("src/sub/1.safetensors", "x");
	write_file("src/sub/2.safetensors", "x");
	write_file("src/3.safetensors", "x"); /* not beside the index */
	assert_int_equal(check_shards("{\"weight_map\":{}}", &diag), HCT_OK);
	assert_int_equal(check_shards("{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":"
				      "\"2.safetensors\",\"c\":\"1.safetensors\"}}",
				      &diag),
			 HCT_OK);
	assert_int_equal(check_shards("{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":"
				      "\"3.safetensors\",\"c\":\"4.safetensors\"}}",
				      &diag),
			 HCT_ERR_NOT_FOUND);
	assert_non_null(strstr(diag.text, "the shard 3.safetensors, which is not there"));
	assert_int_equal(check_shards("{\"weight_map\":{\"a\":null}}", &diag), HCT_ERR_SAFETENSORS);
	assert_int_equal(check_shards("{\"weight_map\":[]}", &diag), HCT_ERR_SAFETENSORS);
	assert_int_equal(check_shards("{\"weight_map\":", &diag), HCT_ERR_SAFETENSORS);
	assert_int_equal(check_shards("", &diag), HCT_ERR_SAFETENSORS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_lists_everything_sorted, enter, leave),
		cmocka_unit_test_setup_teardown(test_single_file_keeps_the_name_of_its_link, enter,
						leave),
		cmocka_unit_test_setup_teardown(
			test_links_to_folders_are_followed_but_not_in_circles, enter, leave),
		cmocka_unit_test_setup_teardown(test_depth_is_bounded, enter, leave),
		cmocka_unit_test_setup_teardown(test_refusals, enter, leave),
		cmocka_unit_test_setup_teardown(test_links_to_themselves, enter, leave),
		cmocka_unit_test_setup_teardown(test_bundle_in_the_source, enter, leave),
		cmocka_unit_test_setup_teardown(test_folder_of_a_cache, enter, leave),
		cmocka_unit_test_setup_teardown(test_config_that_is_none, enter, leave),
		cmocka_unit_test_setup_teardown(test_advice, enter, leave),
		cmocka_unit_test_setup_teardown(test_shards, enter, leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
