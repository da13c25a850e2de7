/* transcode.h, and compressed files in scan and model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/sha.h>

#include "codec/hct.h"
#include "codec/hctenc.h"
#include "folder.h"
#include "make_hct.h"
#include "writer/model.h"
#include "writer/source.h"
#include "writer/transcode.h"

static const unsigned counts[] = {70000, 1, 300000, 5};

/* Writes path and returns the file that it decodes to. */
static uint8_t *make(const char *path, size_t *size, int right_digest)
{
	uint8_t *file = make_safetensors(counts, sizeof(counts) / sizeof(*counts), size);
	struct hct_source source = {.size = *size, .mtime_sec = 1234567890, .mtime_nsec = 987};

	SHA256(file, *size, source.sha256);
	source.sha256[7] ^= !right_digest;
	make_hct(path, file, *size, &source);
	return file;
}

static hct_error same(void *arg)
{
	void **both = arg;
	const struct mkhct_model *m = both[0];

	return memcmp(m->map, both[1], m->entry->size) == 0 ? HCT_OK : HCT_ERR_DIGEST;
}

static void assert_decodes_to(const struct mkhct_entry *e, uint8_t *file, size_t size)
{
	struct hct_diag diag = {""};
	struct mkhct_model m;
	void *both[] = {&m, file};

	assert_int_equal(e->kind, MKHCT_MODEL);
	assert_int_equal(e->size, size);
	assert_int_equal(e->mtime.tv_sec, 1234567890);
	assert_int_equal(e->mtime.tv_nsec, 987);
	assert_int_equal(mkhct_model_open(e, &m, &diag), HCT_OK);
	assert_int_equal(m.st.count, sizeof(counts) / sizeof(*counts));
	assert_int_equal(m.fd, -1); /* nothing has been decoded yet */
	if (mkhct_model_map(&m, &diag) != HCT_OK)
		fail_msg("%s", diag.text);
	assert_int_equal(mkhct_model_guard(&m, same, both, &diag), HCT_OK);
	assert_int_equal(mkhct_model_unchanged(&m, &diag), HCT_OK);
	mkhct_model_close(&m);
	mkhct_model_close(&m);
}

static void test_bundle(void **state)
{
	struct mkhct_source s;
	uint8_t *file;
	size_t size;

	(void)state;
	mkdir("old", 0755);
	mkdir("old/.hct", 0755);
	mkdir("old/sub", 0755);
	folder_write_text("old/.hct/report.json", "{}");
	folder_write_text("old/config.json", "{}");
	file = make("old/sub/m.safetensors.hct", &size, 1);
	assert_int_equal(chmod("old/sub/m.safetensors.hct", 0640), 0);
	assert_int_equal(mkhct_source_scan("old", NULL, 0, &s, NULL), HCT_OK);
	assert_int_equal(s.count, 3);
	assert_string_equal(s.entries[0].name, "config.json");
	assert_string_equal(s.entries[2].name, "sub/m.safetensors");
	assert_int_equal(s.entries[2].mode, 0640);
	assert_int_equal(s.model_bytes, size);
	assert_int_equal(s.packed_count, 1);
	assert_int_equal(s.lossy_count, 0);
	assert_int_equal(mkhct_source_decode_at(&s, NULL, 1, NULL), HCT_OK);
	assert_decodes_to(&s.entries[2], file, size);
	assert_int_equal(mkhct_source_decode_at(&s, "old//", 3, NULL), HCT_OK);
	assert_decodes_to(&s.entries[2], file, size);
	assert_int_equal(mkhct_source_decode_at(&s, "not/there", 200, NULL), HCT_OK);
	assert_decodes_to(&s.entries[2], file, size);
	mkhct_source_free(&s);
	free(file);
}

/* Nothing is lost, so there is nothing to be summed. */
static void test_look(void **state)
{
	struct mkhct_look look;
	size_t size;

	(void)state;
	free(make("m.hct", &size, 1));
	assert_int_equal(mkhct_transcode_look("m.hct", &look, NULL), HCT_OK);
	assert_int_equal(look.size, size);
	assert_int_equal(look.lossless, 1);
	assert_true(look.weights == 0 && look.error == 0);
}

static void test_one_file(void **state)
{
	static const char *const names[][2] = {{"m.safetensors.hct", "m.safetensors"},
					       {"m.hct", "m.safetensors"}};
	struct mkhct_source s;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		size_t size;
		uint8_t *file = make(names[i][0], &size, 1);

		assert_int_equal(mkhct_source_scan(names[i][0], NULL, 0, &s, NULL), HCT_OK);
		assert_int_equal(s.count, 1);
		assert_string_equal(s.entries[0].name, names[i][1]);
		assert_decodes_to(&s.entries[0], file, size);
		mkhct_source_free(&s);
		free(file);
	}
}

static void assert_map_fails(const char *path, hct_error expected, const char *word)
{
	struct hct_diag diag = {""};
	struct mkhct_source s;
	struct mkhct_model m;

	assert_int_equal(mkhct_source_scan(path, NULL, 0, &s, &diag), HCT_OK);
	assert_int_equal(mkhct_source_decode_at(&s, "out", 2, NULL), HCT_OK);
	assert_int_equal(mkhct_model_open(&s.entries[0], &m, &diag), HCT_OK);
	assert_int_equal(mkhct_model_map(&m, &diag), expected);
	if (!strstr(diag.text, word))
		fail_msg("'%s' is not in: %s", word, diag.text);
	mkhct_model_close(&m);
	mkhct_source_free(&s);
}

static void test_wrong_digest(void **state)
{
	size_t size;

	(void)state;
	free(make("m.safetensors.hct", &size, 0));
	assert_map_fails("m.safetensors.hct", HCT_ERR_DIGEST, "has not the sha256 of its source");
}

static void test_damaged_chunk(void **state)
{
	size_t size;
	FILE *f;

	(void)state;
	free(make("m.safetensors.hct", &size, 1));
	f = fopen("m.safetensors.hct", "r+");
	assert_int_equal(fseek(f, 5000, SEEK_SET), 0);
	assert_int_equal(fputc(fgetc(f) ^ 1, f) == EOF, 0);
	assert_int_equal(fclose(f), 0);
	assert_map_fails("m.safetensors.hct", HCT_ERR_CHECKSUM, "m.safetensors.hct: ");
}

static void test_no_place(void **state)
{
	char *before = getenv("TMPDIR") ? strdup(getenv("TMPDIR")) : NULL;
	struct mkhct_source s;
	struct mkhct_model m;
	struct hct_diag diag;
	size_t size;

	(void)state;
	free(make("m.safetensors.hct", &size, 1));
	setenv("TMPDIR", "/not/there", 1);
	assert_int_equal(mkhct_source_scan("m.safetensors.hct", NULL, 0, &s, &diag), HCT_OK);
	assert_int_equal(mkhct_source_decode_at(&s, "/not/there/out", 2, NULL), HCT_OK);
	assert_int_equal(mkhct_model_open(&s.entries[0], &m, &diag), HCT_OK);
	assert_int_equal(mkhct_model_map(&m, &diag), HCT_ERR_NOT_FOUND);
	assert_non_null(strstr(diag.text, "/not/there: no file to decode m.safetensors.hct into"));
	mkhct_model_close(&m);
	mkhct_source_free(&s);
	if (before)
		setenv("TMPDIR", before, 1);
	else
		unsetenv("TMPDIR");
	free(before);
}

/* The bundle that is being read is written anew meanwhile. */
static void test_replaced_file(void **state)
{
	struct timespec times[2];
	struct hct_diag diag = {""};
	struct mkhct_source s;
	struct mkhct_model m;
	size_t size;

	(void)state;
	free(make("m.safetensors.hct", &size, 1));
	assert_int_equal(mkhct_source_scan("m.safetensors.hct", NULL, 0, &s, &diag), HCT_OK);
	assert_int_equal(rename("m.safetensors.hct", "old"), 0);
	free(make("m.safetensors.hct", &size, 1));
	times[0] = times[1] = s.entries[0].disk_mtime;
	assert_int_equal(utimensat(AT_FDCWD, "m.safetensors.hct", times, 0), 0);
	assert_int_equal(mkhct_model_open(&s.entries[0], &m, &diag), HCT_ERR_CHANGED);
	mkhct_source_free(&s);
}

static void test_twins(void **state)
{
	struct hct_diag diag = {""};
	struct mkhct_source s;
	size_t size;

	(void)state;
	mkdir("old", 0755);
	free(make("old/m.safetensors.hct", &size, 1));
	folder_write_text("old/m.safetensors", "x");
	assert_int_equal(mkhct_source_scan("old", NULL, 0, &s, &diag), HCT_ERR_EXISTS);
	assert_non_null(strstr(diag.text, "is there twice, as it is and compressed"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bundle, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_look, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_one_file, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_wrong_digest, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_damaged_chunk, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_no_place, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_replaced_file, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_twins, folder_enter, folder_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
