/* shards.h: indexes of shards, and whether they agree with these. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "folder.h"
#include "writer/shards.h"

#define INDEX "src/model.safetensors.index.json"

/* A safetensors file of one-byte tensors with these one-letter names. */
static void write_shard(const char *path, const char *names)
{
	char file[1024];
	size_t at = 8;
	uint64_t n;

	for (size_t i = 0; names[i]; i++)
		at += (size_t)sprintf(file + at,
				      "%s\"%c\":{\"dtype\":\"U8\",\"shape\":[1],"
				      "\"data_offsets\":[%zu,%zu]}",
				      i ? "," : "{", names[i], i, i + 1);
	at += (size_t)sprintf(file + at, "}");
	n = at - 8;
	memcpy(file, &n, 8);
	memset(file + at, 'x', strlen(names));
	folder_write(path, file, at + strlen(names));
}

static hct_error check(const char *index, const struct mkhct_selection *selections, size_t count,
		       struct hct_diag *note, struct hct_diag *diag)
{
	struct mkhct_source s;
	hct_error err;

	*diag = (struct hct_diag){""};
	folder_write_text(INDEX, index);
	assert_int_equal(mkhct_source_scan("src", selections, count, &s, diag), HCT_OK);
	err = mkhct_shards_check(&s, note, diag);
	mkhct_source_free(&s);
	return err;
}

static void assert_note(const char *index, const char *expected)
{
	struct hct_diag note, diag;

	if (check(index, NULL, 0, &note, &diag) != HCT_OK)
		fail_msg("%s", diag.text);
	assert_string_equal(note.text, expected);
}

static void test_index_that_does_not_agree(void **state)
{
	(void)state;
	mkdir("src", 0755);
	write_shard("src/1.safetensors", "ab");
	write_shard("src/2.safetensors", "bc");
	write_shard("src/other.safetensors", "z");
	assert_note("{\"weight_map\":{}}", "");
	assert_note("{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"2.safetensors\","
		    "\"b\":\"2.safetensors\"}}",
		    "model.safetensors.index.json: 1 tensor lies in a shard that it does not give "
		    "for it (b); all are kept, and loaders take those that it gives");
	assert_note("{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}}",
		    "model.safetensors.index.json: 3 tensors lie in a shard that it does not give "
		    "for them (first a); all are kept, and loaders take those that it gives");
	write_shard("src/1.safetensors", "a");
	assert_note("{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"2.safetensors\","
		    "\"b\":\"2.safetensors\"}}",
		    "");
	assert_note("{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"2.safetensors\","
		    "\"b\":\"2.safetensors\",\"tied\":\"1.safetensors\"}}",
		    "model.safetensors.index.json: names 1 tensor that the shards do not hold; "
		    "loaders may miss it");
}

static void test_shard_that_is_left_out(void **state)
{
	static const struct mkhct_selection one = {"2.safetensors", 0}, all = {"*.index.json", 0};
	struct hct_diag note, diag;
	const char *index = "{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"2.safetensors\"}}";

	(void)state;
	mkdir("src", 0755);
	write_shard("src/1.safetensors", "a");
	write_shard("src/2.safetensors", "c");
	assert_int_equal(check(index, &one, 1, &note, &diag), HCT_ERR_ARGUMENT);
	assert_string_equal(diag.text, INDEX ": names the shard 2.safetensors, which --exclude or "
					     "--include leave out; leave out the index, too, or "
					     "take both");
	assert_int_equal(check(index, &all, 1, &note, &diag), HCT_OK);
	unlink("src/2.safetensors");
	assert_int_equal(check(index, NULL, 0, &note, &diag), HCT_ERR_NOT_FOUND);
	assert_non_null(strstr(diag.text, "which is not there; finish the download"));
	/* A name that leads elsewhere is not looked for. */
	write_shard("3.safetensors", "c");
	assert_int_equal(
		check("{\"weight_map\":{\"a\":\"../3.safetensors\"}}", NULL, 0, &note, &diag),
		HCT_ERR_NOT_FOUND);
	assert_non_null(strstr(diag.text, "which is not there; finish the download"));
}

static void test_bad_shard(void **state)
{
	struct hct_diag note, diag;

	(void)state;
	mkdir("src", 0755);
	folder_write_text("src/1.safetensors", "nothing");
	assert_int_equal(check("{\"weight_map\":{\"a\":\"1.safetensors\"}}", NULL, 0, &note, &diag),
			 HCT_ERR_SAFETENSORS);
	assert_int_equal(check("{\"weight_map\":{\"a\":\"1.safetensors\"}}", NULL, 0, NULL, &diag),
			 HCT_OK);
}

/* Without an index -------------------------------------------------------------------- */

static void test_parse(void **state)
{
	static const char *const none[] = {
		"model.safetensors",
		"model-1-of.safetensors",
		"model-1-of-.safetensors",
		"model--of-2.safetensors",
		"model1-of-2.safetensors",
		"1-of-2.safetensors",
		"-of-2.safetensors",
		"of-2.safetensors",
		"model-00003-of-00002.safetensors",
		"model-1-of-9999999999.safetensors",
		"model-1234567890-of-999999999.safetensors",
		"model-1-of-2.bin",
		"model-1-of-2.safetensors.bak",
	};
	struct mkhct_shard_name s;

	(void)state;
	assert_true(mkhct_shards_parse("a/b-00012-of-00345.safetensors", ".safetensors", &s));
	assert_int_equal(s.prefix, 4);
	assert_int_equal(s.digits, 5);
	assert_int_equal(s.number, 12);
	assert_int_equal(s.total, 345);
	assert_true(mkhct_shards_parse("m-1-of-1.bin", ".bin", &s));
	for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++)
		if (mkhct_shards_parse(none[i], ".safetensors", &s))
			fail_msg("%s", none[i]);
}

/* Scans and checks src as it is; the source's first note in *more. */
static hct_error check_plain(const struct mkhct_selection *selections, size_t count,
			     struct hct_diag *note, struct hct_diag *more, struct hct_diag *diag)
{
	struct mkhct_source s;
	hct_error err;

	*diag = *more = (struct hct_diag){""};
	err = mkhct_source_scan("src", selections, count, &s, diag);
	if (err)
		return err;
	err = mkhct_shards_check(&s, note, diag);
	if (!mkhct_source_note(&s, 0, more))
		*more->text = '\0';
	mkhct_source_free(&s);
	return err;
}

static void assert_notes(const char *expected, const char *more_expected)
{
	struct hct_diag note, more, diag;

	if (check_plain(NULL, 0, &note, &more, &diag) != HCT_OK)
		fail_msg("%s", diag.text);
	assert_string_equal(note.text, expected);
	assert_string_equal(more.text, more_expected);
}

static void assert_missing(const char *expected)
{
	struct hct_diag note, more, diag;

	assert_int_equal(check_plain(NULL, 0, &note, &more, &diag), HCT_ERR_NOT_FOUND);
	assert_string_equal(diag.text, expected);
}

#define GOES " is not; finish the download, or give --exclude "

static void test_missing_without_an_index(void **state)
{
	static const struct mkhct_selection gone = {"m-00002-of-00003.safetensors", 0},
					    there = {"m-00003*", 0}, one = {"sub/*", 0};
	struct hct_diag note, more, diag;

	(void)state;
	mkdir("src", 0755);
	write_shard("src/m-00001-of-00003.safetensors", "a");
	write_shard("src/m-00002-of-00003.safetensors", "b");
	write_shard("src/m-00003-of-00003.safetensors", "c");
	write_shard("src/m-1-of-1.safetensors", "x");
	assert_notes("", "");
	/* Left out on purpose. */
	assert_int_equal(check_plain(&there, 1, &note, &more, &diag), HCT_OK);
	unlink("src/m-00003-of-00003.safetensors");
	assert_missing("src/m-00002-of-00003.safetensors: is there, and its shard "
		       "m-00003-of-00003.safetensors" GOES
		       "m-00003-of-00003.safetensors to go without it");
	unlink("src/m-00002-of-00003.safetensors");
	write_shard("src/m-00003-of-00003.safetensors", "c");
	assert_missing("src/m-00001-of-00003.safetensors: is there, and its shard "
		       "m-00002-of-00003.safetensors" GOES
		       "m-00002-of-00003.safetensors to go without it");
	/* Its own advice helps. */
	assert_int_equal(check_plain(&gone, 1, &note, &more, &diag), HCT_OK);
	/* An index tells what there is to be. */
	folder_write_text(INDEX, "{\"weight_map\":{\"a\":\"m-00001-of-00003.safetensors\","
				 "\"c\":\"m-00003-of-00003.safetensors\"}}");
	assert_notes("", "");
	unlink(INDEX);
	unlink("src/m-00001-of-00003.safetensors");
	assert_missing("src/m-00003-of-00003.safetensors: is there, and its shard "
		       "m-00002-of-00003.safetensors" GOES
		       "m-00002-of-00003.safetensors to go without it");
	unlink("src/m-00003-of-00003.safetensors");
	/* Some count from 0. */
	write_shard("src/z-0-of-2.safetensors", "d");
	write_shard("src/z-1-of-2.safetensors", "e");
	assert_notes("", "");
	mkdir("src/sub", 0755);
	write_shard("src/sub/m-00001-of-00002.safetensors", "a");
	assert_missing("src/sub/m-00001-of-00002.safetensors: is there, and its shard "
		       "m-00002-of-00002.safetensors" GOES
		       "m-00002-of-00002.safetensors to go without it");
	assert_int_equal(check_plain(&one, 1, &note, &more, &diag), HCT_OK);
}

static void test_twins(void **state)
{
	(void)state;
	mkdir("src", 0755);
	mkdir("src/sub", 0755);
	write_shard("src/m-1-of-2.safetensors", "abcd");
	write_shard("src/m-2-of-2.safetensors", "efgh");
	write_shard("src/sub/m.safetensors", "abcd"); /* another model */
	assert_notes("", "");
	write_shard("src/m-2-of-2.safetensors", "ebgh");
	assert_notes("1 tensor lies in two files without an index that tells which counts (b in "
		     "m-1-of-2.safetensors and m-2-of-2.safetensors); all are kept, and loaders "
		     "take one of them",
		     "");
	write_shard("src/m-2-of-2.safetensors", "abcd"); /* also all of them */
	assert_true(check_plain(NULL, 0, &(struct hct_diag){""}, &(struct hct_diag){""},
				&(struct hct_diag){""}) == HCT_OK);
	write_shard("src/m-2-of-2.safetensors", "efgh");
	/* Files by any other names, of which less than half is shared. */
	write_shard("src/extra.safetensors", "dxyz");
	assert_notes("1 tensor lies in two files without an index that tells which counts (d in "
		     "extra.safetensors and m-1-of-2.safetensors); all are kept, and loaders take "
		     "one of them",
		     "");
}

static void test_copies(void **state)
{
	(void)state;
	mkdir("src", 0755);
	mkdir("src/sub", 0755);
	write_shard("src/model.safetensors", "abcdefgh");
	write_shard("src/model.fp16.safetensors", "abcdefgh");
	assert_notes("", "model.fp16.safetensors seems to be another copy of the model in "
			 "model.safetensors, and is compressed as well; --exclude "
			 "'model.fp16.safetensors' leaves it out");
	write_shard("src/sub/model.safetensors", "abcdefgh");
	write_shard("src/sub/model-1-of-2.safetensors", "abcd");
	write_shard("src/sub/model-2-of-2.safetensors", "efgh");
	assert_notes("", "model.fp16.safetensors seems to be another copy of the model in "
			 "model.safetensors, and is compressed as well; --exclude "
			 "'model.fp16.safetensors' leaves it out; and 1 more such");
	unlink("src/model.fp16.safetensors");
	assert_notes("", "sub/model-*-of-2.safetensors seems to be another copy of the model in "
			 "sub/model.safetensors, and is compressed as well; --exclude "
			 "'sub/model-*-of-2.safetensors' leaves it out");
	unlink("src/sub/model.safetensors");
	/* Mistral's, with other names of tensors. */
	write_shard("src/consolidated.safetensors", "stuvwxyz");
	assert_notes("", "consolidated.safetensors seems to be another copy of the model in "
			 "model.safetensors, and is compressed as well; --exclude "
			 "'consolidated.safetensors' leaves it out");
	write_shard("src/consolidated.safetensors", "stu");
	assert_notes("", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_index_that_does_not_agree, folder_enter,
						folder_leave),
		cmocka_unit_test_setup_teardown(test_shard_that_is_left_out, folder_enter,
						folder_leave),
		cmocka_unit_test_setup_teardown(test_bad_shard, folder_enter, folder_leave),
		cmocka_unit_test(test_parse),
		cmocka_unit_test_setup_teardown(test_missing_without_an_index, folder_enter,
						folder_leave),
		cmocka_unit_test_setup_teardown(test_twins, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_copies, folder_enter, folder_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
