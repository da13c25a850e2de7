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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_index_that_does_not_agree, folder_enter,
						folder_leave),
		cmocka_unit_test_setup_teardown(test_shard_that_is_left_out, folder_enter,
						folder_leave),
		cmocka_unit_test_setup_teardown(test_bad_shard, folder_enter, folder_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
