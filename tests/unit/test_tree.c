/* tree.h: names, order, numbers and contents of what a bundle shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <sys/stat.h>

#include "fs/bundle_state.h"
#include "fs/tree.h"
#include "make_hct.h"

static char top[64];

static int setup(void **state)
{
	(void)state;
	strcpy(top, "/tmp/test_tree.XXXXXX");
	return mkdtemp(top) && chdir(top) == 0 ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	(void)state;
	return chdir("/") < 0 || nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void write_file(const char *path, const void *data, size_t length)
{
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, length, f), length);
	assert_int_equal(fclose(f), 0);
}

static void write_text(const char *path, const char *text)
{
	write_file(path, text, strlen(text));
}

static struct hct_source source_of(size_t size)
{
	return (struct hct_source){.size = size, .mtime_sec = -12345, .mtime_nsec = 999999999};
}

static void write_model(const char *path, unsigned elements)
{
	size_t size;
	uint8_t *file = make_safetensors(&elements, 1, &size);
	struct hct_source source = source_of(size);

	make_hct(path, file, size, &source);
	free(file);
}

static struct hct_tree *open_tree(const char *path)
{
	struct hct_tree *t = NULL;
	struct hct_diag diag = {{0}};

	if (hct_tree_open(path, 0, &t, &diag) != HCT_OK)
		fail_msg("%s: %s", path, diag.text);
	return t;
}

static void test_order_and_numbers(void **state)
{
	static const char *const expected[] = {
		"",      "B",     "B/x",           "a b\n",   "a.safetensors",
		"empty", "m.hct", "z.safetensors", "\xff\xfe"};
	struct hct_tree *t;
	uint64_t chunks;

	(void)state;
	mkdir("b", 0777);
	mkdir("b/.hct", 0777);
	mkdir("b/B", 0777);
	mkdir("b/empty", 0777);
	write_text("b/.hct/report.json", "{}");
	write_text("b/B/x", "x");
	write_text("b/a b\n", "1");
	write_text("b/\xff\xfe", "2");
	write_text("b/m.hct", "carried under this name");
	write_model("b/z.safetensors.hct", 1000);
	write_model("b/a.safetensors.hct", 3000000);
	t = open_tree("b");
	assert_int_equal(hct_tree_count(t), sizeof expected / sizeof *expected);
	for (size_t i = 0; i < hct_tree_count(t); i++) {
		const struct hct_node *n = hct_tree_node(t, i);
		char path[64];

		assert_int_equal(hct_node_path(n, path, sizeof path), strlen(expected[i]));
		assert_string_equal(path, expected[i]);
		assert_int_equal(n->ino, i + 1);
		if (i)
			assert_ptr_equal(hct_node_child(n->parent, n->name), n);
	}
	assert_null(hct_tree_node(t, hct_tree_count(t)));
	assert_ptr_equal(hct_tree_root(t), hct_tree_root(t)->parent);
	assert_null(hct_node_child(hct_tree_root(t), ".hct"));
	assert_null(hct_node_child(hct_tree_root(t), "a.safetensors.hct"));
	assert_int_equal(hct_tree_is_bundle(t), 1);
	chunks = hct_reader_chunk_count(hct_tree_node(t, 4)->reader);
	assert_true(chunks > 1);
	assert_int_equal(hct_tree_node(t, 4)->first_chunk, 0);
	assert_int_equal(hct_tree_node(t, 7)->first_chunk, chunks);
	assert_int_equal(hct_tree_chunk_count(t), chunks + 1);
	hct_tree_close(t);
}

static void test_what_a_model_shows(void **state)
{
	unsigned count = 5000;
	size_t size;
	uint8_t *file = make_safetensors(&count, 1, &size), *buf = malloc(size);
	struct hct_source source = source_of(size);
	struct hct_node *n;
	struct hct_tree *t;
	hct_decoder *d;
	struct stat st;

	(void)state;
	mkdir("b", 0777);
	make_hct("b/m.safetensors.hct", file, size, &source);
	t = open_tree("b");
	n = hct_node_child(hct_tree_root(t), "m.safetensors");
	assert_int_equal(stat("b/m.safetensors.hct", &st), 0);
	assert_int_equal(n->kind, HCT_NODE_MODEL);
	assert_int_equal(n->size, size);
	assert_int_equal(n->stored_bytes, st.st_size);
	assert_int_equal(n->mtime.tv_sec, -12345);
	assert_int_equal(n->mtime.tv_nsec, 999999999);
	assert_int_equal(hct_decoder_create(HCT_SIMD_AUTO, &d), HCT_OK);
	assert_int_equal(hct_node_pread(n, d, -1, 0, buf, size, NULL), HCT_OK);
	assert_memory_equal(buf, file, size);
	assert_int_equal(hct_node_pread(n, d, -1, size, buf, 1, NULL), HCT_ERR_ARGUMENT);
	hct_decoder_free(d);
	hct_tree_close(t);
	free(file);
	free(buf);
}

static void test_plain_files(void **state)
{
	struct hct_diag diag;
	struct hct_node *n;
	struct hct_tree *t;
	char buf[16];
	int fd;

	(void)state;
	mkdir("b", 0777);
	write_text("b/config.json", "0123456789");
	t = open_tree("b");
	assert_int_equal(hct_tree_is_bundle(t), 0);
	n = hct_node_child(hct_tree_root(t), "config.json");
	assert_int_equal(n->size, 10);
	assert_int_equal(hct_node_pread(n, NULL, -1, 2, buf, 8, &diag), HCT_OK);
	assert_memory_equal(buf, "23456789", 8);
	assert_int_equal(hct_node_pread(n, NULL, -1, 3, buf, 8, &diag), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_node_pread(n, NULL, -1, UINT64_MAX, buf, 2, &diag), HCT_ERR_ARGUMENT);
	fd = open("b/config.json", O_RDONLY);
	remove("b/config.json");
	assert_int_equal(hct_node_pread(n, NULL, fd, 0, buf, 1, &diag), HCT_OK);
	close(fd);
	assert_int_equal(hct_node_pread(n, NULL, -1, 0, buf, 1, &diag), HCT_ERR_NOT_FOUND);
	write_text("b/config.json", "cut");
	assert_int_equal(hct_node_pread(n, NULL, -1, 0, buf, 10, &diag), HCT_ERR_IO);
	hct_tree_close(t);
}

static void test_single_file(void **state)
{
	struct hct_tree *t;

	(void)state;
	write_model("store", 10);
	assert_int_equal(symlink("store", "name.safetensors.hct"), 0);
	t = open_tree("name.safetensors.hct");
	assert_int_equal(hct_tree_count(t), 2);
	assert_int_equal(hct_tree_is_bundle(t), 1);
	assert_int_equal(hct_tree_root(t)->kind, HCT_NODE_DIR);
	assert_int_equal(hct_tree_node(t, 1)->kind, HCT_NODE_MODEL);
	assert_string_equal(hct_tree_node(t, 1)->name, "name.safetensors");
	assert_int_equal(hct_tree_node(t, 1)->path[0], '/');
	hct_tree_close(t);

	write_text("plain", "text");
	t = open_tree("plain");
	assert_int_equal(hct_tree_is_bundle(t), 0);
	assert_int_equal(hct_tree_node(t, 1)->kind, HCT_NODE_PLAIN);
	assert_int_equal(hct_tree_node(t, 1)->size, 4);
	hct_tree_close(t);
}

/* A bundle in the cache of a hub is a folder of links. */
static void test_links(void **state)
{
	struct hct_tree *t = NULL;
	struct hct_diag diag;

	(void)state;
	mkdir("blobs", 0777);
	mkdir("snap", 0777);
	write_model("blobs/1234", 10);
	write_text("blobs/5678", "five");
	assert_int_equal(symlink("../blobs/1234", "snap/m.safetensors.hct"), 0);
	assert_int_equal(symlink("../blobs/5678", "snap/f"), 0);
	assert_int_equal(symlink("../blobs", "snap/sub"), 0);
	t = open_tree("snap/");
	assert_int_equal(hct_tree_count(t), 6);
	assert_int_equal(hct_node_child(hct_tree_root(t), "m.safetensors")->kind, HCT_NODE_MODEL);
	assert_int_equal(hct_node_child(hct_tree_root(t), "f")->size, 4);
	assert_int_equal(hct_node_child(hct_tree_root(t), "sub")->child_count, 2);
	hct_tree_close(t);

	assert_int_equal(symlink("../snap", "blobs/back"), 0);
	assert_int_equal(hct_tree_open("snap", 0, &t, &diag), HCT_ERR_UNSUPPORTED);
	assert_null(t);
	remove("blobs/back");
	assert_int_equal(symlink("nowhere", "snap/dangling"), 0);
	assert_int_equal(hct_tree_open("snap", 0, &t, &diag), HCT_ERR_NOT_FOUND);
	assert_non_null(strstr(diag.text, "snap/dangling"));
}

static void test_refused(void **state)
{
	struct hct_tree *t = NULL;
	struct hct_diag diag;

	(void)state;
	assert_int_equal(hct_tree_open("absent", 0, &t, &diag), HCT_ERR_NOT_FOUND);
	assert_non_null(strstr(diag.text, "absent"));
	mkdir("b", 0777);
	write_model("b/m.safetensors.hct", 10);
	write_text("b/m.safetensors", "the same name");
	assert_int_equal(hct_tree_open("b", 0, &t, &diag), HCT_ERR_CORRUPT);
	remove("b/m.safetensors");
	assert_int_equal(mkfifo("b/fifo", 0666), 0);
	assert_int_equal(hct_tree_open("b", 0, &t, &diag), HCT_ERR_UNSUPPORTED);
	assert_non_null(strstr(diag.text, "b/fifo"));
	assert_int_equal(hct_tree_open("b/fifo", 0, &t, &diag), HCT_ERR_ARGUMENT);
	assert_null(t);
}

static void test_too_deep(void **state)
{
	struct hct_tree *t = NULL;
	struct hct_diag diag;
	char path[512] = "b";

	(void)state;
	mkdir(path, 0777);
	for (int i = 0; i < 64; i++) {
		strcat(path, "/d");
		mkdir(path, 0777);
	}
	t = open_tree("b");
	assert_int_equal(hct_tree_count(t), 65);
	hct_tree_close(t);
	strcat(path, "/d");
	mkdir(path, 0777);
	assert_int_equal(hct_tree_open("b", 0, &t, &diag), HCT_ERR_LIMIT);
}

static void test_bad_models(void **state)
{
	struct hct_tree *t = NULL;
	struct hct_node *n;
	struct hct_diag diag;
	char byte;

	(void)state;
	mkdir("b", 0777);
	write_model("b/good.safetensors.hct", 10);
	write_text("b/bad.safetensors.hct", "this is not what it says");
	assert_int_equal(hct_tree_open("b", 0, &t, &diag), HCT_ERR_NOT_HCT);
	assert_non_null(strstr(diag.text, "bad.safetensors.hct"));
	assert_null(t);
	assert_int_equal(hct_tree_open("b", HCT_TREE_KEEP_BAD, &t, &diag), HCT_OK);
	n = hct_node_child(hct_tree_root(t), "bad.safetensors");
	assert_int_equal(n->error, HCT_ERR_NOT_HCT);
	assert_null(n->reader);
	assert_non_null(strstr(n->diag->text, "bad.safetensors.hct"));
	assert_int_equal(hct_node_pread(n, NULL, -1, 0, &byte, 0, &diag), HCT_ERR_NOT_HCT);
	assert_non_null(hct_node_child(hct_tree_root(t), "good.safetensors")->reader);
	hct_tree_close(t);
}

static void test_unfinished(void **state)
{
	static const char *const marks[] = {"b/.hct/checkpoint.json",
					    "b/.hct/checkpoint-1-of-1.json",
					    "b/.hct/checkpoint-12-of-3000.json"};
	struct hct_diag diag;

	(void)state;
	mkdir("b", 0777);
	mkdir("b/.hct", 0777);
	write_model("b/m.safetensors.hct", 10);
	for (size_t i = 0; i < sizeof(marks) / sizeof(*marks); i++) {
		struct hct_tree *t = NULL;

		write_text(marks[i], "{}");
		assert_int_equal(hct_tree_open("b", 0, &t, &diag), HCT_ERR_UNFINISHED);
		assert_non_null(strstr(diag.text, "b: mkhct has not finished this bundle"));
		assert_int_equal(hct_tree_open("b", HCT_TREE_KEEP_BAD, &t, &diag),
				 HCT_ERR_UNFINISHED);
		assert_null(t);
		assert_int_equal(unlink(marks[i]), 0);
	}
}

/* Reports, locks, and a checkpoint that never got its name say nothing against a bundle. */
static void test_other_hidden_files(void **state)
{
	struct hct_tree *t;

	(void)state;
	mkdir("b", 0777);
	mkdir("b/.hct", 0777);
	write_model("b/m.safetensors.hct", 10);
	write_text("b/.hct/report.json", "{}");
	write_text("b/.hct/lock", "");
	write_text("b/.hct/lock-begin", "");
	write_text("b/.hct/checkpoint.json.part", "{}");
	write_text("b/.hct/checkpoint-1-of-2.json.part", "{}");
	write_text("b/.hct/checkpoint-x-of-2.json", "{}");
	write_text("b/.hct/unfinished.json", "{}");
	t = open_tree("b");
	assert_int_equal(hct_tree_count(t), 2);
	hct_tree_close(t);
}

/* A bundle that is going to be replaced is whole as long as its report is there. */
static void test_old_bundle(void **state)
{
	static const char *const hidden[] = {"b/.m.safetensors.hct.part", "b/sub/.new.txt.part",
					     "b/.config.json.part-2"};
	static const char *const shown[] = {"b/x.part", "b/.part", "b/.y.part-", "b/.y.part-2x",
					    "b/.y.parts"};
	struct hct_diag diag;
	struct hct_tree *t;

	(void)state;
	mkdir("b", 0777);
	mkdir("b/.hct", 0777);
	mkdir("b/sub", 0777);
	write_model("b/m.safetensors.hct", 10);
	write_text("b/.hct/report.json", "{}");
	for (size_t i = 0; i < sizeof(hidden) / sizeof(*hidden); i++)
		write_text(hidden[i], "x");
	for (size_t i = 0; i < sizeof(shown) / sizeof(*shown); i++)
		write_text(shown[i], "x");
	/* Nobody makes another: then they are files like others. */
	t = open_tree("b");
	assert_int_equal(hct_tree_count(t), 3 + 3 + 5);
	hct_tree_close(t);
	write_text("b/.hct/checkpoint.json", "{}");
	t = open_tree("b");
	assert_int_equal(hct_tree_count(t), 3 + 5);
	assert_null(hct_node_child(hct_tree_root(t), ".m.safetensors.hct.part"));
	assert_non_null(hct_node_child(hct_tree_root(t), "m.safetensors"));
	hct_tree_close(t);
	assert_int_equal(unlink("b/.hct/report.json"), 0);
	assert_int_equal(hct_tree_open("b", 0, &t, &diag), HCT_ERR_UNFINISHED);
}

/* Between looking at a bundle and having all of it open, mkhct has replaced it. */
static void test_replaced_meanwhile(void **state)
{
	struct hct_bundle_state s;
	struct hct_diag diag;

	(void)state;
	mkdir("b", 0777);
	mkdir("b/.hct", 0777);
	assert_int_equal(hct_bundle_state_read("b", &s, &diag), HCT_OK);
	assert_int_equal(hct_bundle_state_check("b", &s, &diag), HCT_OK); /* no report, no word */
	write_text("b/.hct/report.json", "{}");
	assert_int_equal(hct_bundle_state_read("b", &s, &diag), HCT_OK);
	assert_int_equal(hct_bundle_state_check("b", &s, &diag), HCT_OK);
	write_text("b/.hct/new", "{}");
	assert_int_equal(rename("b/.hct/new", "b/.hct/report.json"), 0);
	assert_int_equal(hct_bundle_state_check("b", &s, &diag), HCT_ERR_UNFINISHED);
	assert_non_null(strstr(diag.text, "b: mkhct is replacing this bundle"));
	assert_int_equal(hct_bundle_state_read("b", &s, &diag), HCT_OK);
	assert_int_equal(unlink("b/.hct/report.json"), 0);
	assert_int_equal(hct_bundle_state_check("b", &s, &diag), HCT_ERR_UNFINISHED);
}

static void test_path_is_cut(void **state)
{
	struct hct_tree *t;
	const struct hct_node *n;
	char buf[8] = "xxxxxxx";

	(void)state;
	mkdir("b", 0777);
	mkdir("b/abc", 0777);
	write_text("b/abc/defg", "");
	t = open_tree("b");
	n = hct_tree_node(t, 2);
	assert_int_equal(hct_node_path(n, NULL, 0), 8);
	assert_int_equal(hct_node_path(n, buf, 3), 8);
	assert_string_equal(buf, "ab");
	assert_int_equal(hct_node_path(n, buf, 4), 8);
	assert_string_equal(buf, "abc");
	assert_int_equal(hct_node_path(n, buf, 8), 8);
	assert_string_equal(buf, "abc/def");
	hct_tree_close(t);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_order_and_numbers),
		TEST(test_what_a_model_shows),
		TEST(test_plain_files),
		TEST(test_single_file),
		TEST(test_links),
		TEST(test_refused),
		TEST(test_too_deep),
		TEST(test_bad_models),
		TEST(test_unfinished),
		TEST(test_other_hidden_files),
		TEST(test_old_bundle),
		TEST(test_replaced_meanwhile),
		TEST(test_path_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
