/* checkpoint.h: what is written is read again, and told from what does not fit. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "folder.h"
#include "writer/checkpoint.h"
#include "writer/match.h"
#include "writer/names.h"

static struct mkhct_entry entries[] = {
	{.kind = MKHCT_MODEL, .name = "a.safetensors", .size = 100, .mtime = {7, 8}, .mode = 0640},
	{.kind = MKHCT_MODEL, .name = "caf\xe9.safetensors", .size = 1, .mtime = {-7, 8}},
	{.kind = MKHCT_FOLDER, .name = "sub", .mode = 0755},
	{.kind = MKHCT_CARRIED,
	 .name = "sub/x.txt",
	 .size = UINT64_C(1) << 52,
	 .mtime = {1, 999999999}},
};

#define COUNT (sizeof entries / sizeof *entries)

static char *words[] = {"--retention=.6", "--keep=*\n*"};

static struct mkhct_source source = {
	.label = "model", .is_folder = 1, .entries = entries, .count = COUNT};

static const struct mkhct_checkpoint_of of = {.source = &source,
					      .options = "{\"mode\":\"lossy\",\"retention\":0.6}",
					      .words = words,
					      .word_count = 2};

static int is_mine(const struct mkhct_checkpoint_of *o, size_t entry)
{
	return !o->parts || entry % o->parts == o->part - 1;
}

static struct mkhct_checkpoint *create(const struct mkhct_checkpoint_of *o)
{
	struct mkhct_checkpoint *c;

	assert_int_equal(mkhct_checkpoint_create(o, is_mine, &c, NULL), HCT_OK);
	return c;
}

static hct_error read_one(struct mkhct_checkpoint **c, struct hct_diag *diag)
{
	return mkhct_checkpoint_read(AT_FDCWD, "c.json", "shown", c, diag);
}

/* Through a file. */
static struct mkhct_checkpoint *again(struct mkhct_checkpoint *c)
{
	struct hct_diag d = {""};
	struct mkhct_checkpoint *read;
	char *text = mkhct_checkpoint_text(c);

	assert_non_null(text);
	assert_int_equal(mkhct_checkpoint_put(text, AT_FDCWD, "c.json", "shown", &d), HCT_OK);
	cJSON_free(text);
	assert_int_not_equal(access("c.json.part", F_OK), 0);
	mkhct_checkpoint_free(c);
	if (read_one(&read, &d))
		fail_msg("%s", d.text);
	return read;
}

static enum mkhct_status status(const struct mkhct_checkpoint *c, size_t i)
{
	struct mkhct_state s;

	mkhct_checkpoint_state(c, i, &s);
	return s.status;
}

static void test_written_and_read(void **state)
{
	const struct mkhct_standing standing = {2, 3, 1000, UINT64_C(1) << 40};
	struct mkhct_checkpoint *c = again(create(&of));
	const char *const *read_words;
	struct mkhct_state s;

	(void)state;
	assert_int_equal(mkhct_checkpoint_entries(c), COUNT);
	assert_int_equal(mkhct_checkpoint_words(c, &read_words), 2);
	assert_string_equal(read_words[0], words[0]);
	assert_string_equal(read_words[1], words[1]);
	assert_int_equal(mkhct_checkpoint_match(c, &of, "out", NULL), HCT_OK);
	for (size_t i = 0; i < COUNT; i++)
		assert_int_equal(status(c, i), i == 2 ? MKHCT_COMPLETED : MKHCT_PENDING);
	assert_int_equal(mkhct_checkpoint_set_progress(c, 0, &standing), 0);
	assert_int_equal(mkhct_checkpoint_set_tensors(c, 0, "[{\"name\":\"t\"}]"), 0);
	assert_int_equal(mkhct_checkpoint_set_completed(c, 1, 55, "{\"name\":\"r\"}"), 0);
	assert_int_equal(mkhct_checkpoint_count(c, "sessions", 1), 0);
	assert_int_equal(mkhct_checkpoint_count(c, "sessions", 1), 0);
	assert_false(mkhct_checkpoint_is_naming(c));
	assert_int_equal(mkhct_checkpoint_set_naming(c), 0);
	c = again(c);
	assert_true(mkhct_checkpoint_is_naming(c));
	assert_true(mkhct_checkpoint_counted(c, "sessions") == 2);
	assert_true(mkhct_checkpoint_counted(c, "more") == 0);
	mkhct_checkpoint_state(c, 0, &s);
	assert_int_equal(s.status, MKHCT_IN_PROGRESS);
	assert_int_equal(s.bytes, 1000);
	assert_int_equal(s.ledger_bytes, UINT64_C(1) << 40);
	mkhct_checkpoint_state(c, 1, &s);
	assert_int_equal(s.status, MKHCT_COMPLETED);
	assert_int_equal(s.bytes, 55);
	assert_true(cJSON_IsObject(s.report));
	assert_int_equal(mkhct_checkpoint_match(c, &of, "out", NULL), HCT_OK);
	assert_int_equal(mkhct_checkpoint_set_pending(c, 0), 0);
	mkhct_checkpoint_state(c, 0, &s);
	assert_int_equal(s.status, MKHCT_PENDING);
	assert_int_equal(s.bytes + s.ledger_bytes, 0);
	mkhct_checkpoint_free(c);
	mkhct_checkpoint_free(NULL);
}

static void test_copy_that_is_in_progress(void **state)
{
	struct mkhct_checkpoint *c = create(&of);
	struct mkhct_state s;

	(void)state;
	assert_int_equal(mkhct_checkpoint_set_copied(c, 3, 1 << 24, UINT64_MAX - 1), 0);
	c = again(c);
	mkhct_checkpoint_state(c, 3, &s);
	assert_int_equal(s.status, MKHCT_IN_PROGRESS);
	assert_int_equal(s.bytes, 1 << 24);
	assert_true(s.checksum == UINT64_MAX - 1);
	assert_int_equal(mkhct_checkpoint_set_completed(c, 3, 1 << 25, NULL), 0);
	mkhct_checkpoint_state(c, 3, &s);
	assert_true(s.bytes == 1 << 25 && s.checksum == 0);
	assert_int_equal(mkhct_checkpoint_set_copied(c, 3, 1 << 24, 5), 0);
	assert_int_equal(mkhct_checkpoint_set_pending(c, 3), 0);
	mkhct_checkpoint_state(c, 3, &s);
	assert_true(s.status == MKHCT_PENDING && s.bytes == 0 && s.checksum == 0);
	mkhct_checkpoint_free(c);
}

static void refuse(const struct mkhct_checkpoint *c, const struct mkhct_checkpoint_of *o,
		   const char *what)
{
	struct hct_diag d = {""};

	assert_int_equal(mkhct_checkpoint_match(c, o, "out", &d), HCT_ERR_EXISTS);
	if (!strstr(d.text, what) || !strstr(d.text, "--restart"))
		fail_msg("%s: %s", what, d.text);
}

static void test_what_differs(void **state)
{
	struct mkhct_checkpoint *c = again(create(&of));
	struct mkhct_entry saved = entries[0];
	struct mkhct_checkpoint_of other = of;

	(void)state;
	other.options = "{\"mode\":\"lossy\",\"retention\":0.7}";
	refuse(c, &other, "retention was 0.6 and is 0.7 now");
	other.options = "{\"mode\":\"lossy\",\"retention\":0.6,\"x\":[1]}";
	refuse(c, &other, "x was not given and is [1] now");
	other.options = "{\"mode\":\"lossy\"}";
	refuse(c, &other, "retention was 0.6 and is not given now");
	other.options = "{\"retention\":0.6,\"mode\":\"lossy\"}"; /* in another order */
	assert_int_equal(mkhct_checkpoint_match(c, &other, "out", NULL), HCT_OK);
	entries[0].size++;
	refuse(c, &of, "a.safetensors has another size");
	entries[0] = saved;
	entries[0].mtime.tv_nsec++;
	refuse(c, &of, "a.safetensors was written to");
	entries[0] = saved;
	entries[0].packed = 1;
	refuse(c, &of, "a.safetensors was written to");
	entries[0] = saved;
	entries[0].kind = MKHCT_CARRIED;
	refuse(c, &of, "a.safetensors is of another kind");
	entries[0] = saved;
	entries[0].name = "b.safetensors";
	refuse(c, &of, "a.safetensors is no longer");
	entries[0].name = "Z.safetensors";
	refuse(c, &of, "Z.safetensors is new");
	entries[0] = saved;
	source.count--;
	refuse(c, &of, "sub/x.txt is no longer");
	mkhct_checkpoint_free(c);
	c = again(create(&of));
	source.count++;
	refuse(c, &of, "sub/x.txt is new");
	mkhct_checkpoint_free(c);
}

static void test_parts_are_merged(void **state)
{
	struct mkhct_checkpoint_of part = of;
	struct mkhct_checkpoint *a, *b;
	char line[MKHCT_MATCH_LINE];

	(void)state;
	part.parts = 2;
	part.part = 1;
	a = again(create(&part));
	assert_int_equal(status(a, 1), MKHCT_SKIPPED);
	assert_int_equal(mkhct_checkpoint_set_completed(a, 0, 10, "{\"n\":0}"), 0);
	mkhct_checkpoint_count(a, "seconds", 1.5);
	part.part = 2;
	b = again(create(&part));
	assert_int_equal(status(b, 0), MKHCT_SKIPPED);
	assert_int_equal(mkhct_checkpoint_set_completed(b, 1, 11, "{\"n\":1}"), 0);
	mkhct_checkpoint_count(b, "seconds", 2);
	assert_int_equal(mkhct_checkpoint_merge(a, b, line), 0);
	assert_int_equal(status(a, 0), MKHCT_COMPLETED);
	assert_int_equal(status(a, 1), MKHCT_COMPLETED);
	assert_int_equal(status(a, 3), MKHCT_SKIPPED); /* b's, which has not done it */
	assert_true(mkhct_checkpoint_counted(a, "seconds") == 3.5);
	/* Once more, as a second --finish does: the same, and what the part has counted since. */
	a = again(a);
	assert_int_equal(mkhct_checkpoint_merge(a, b, line), 0);
	assert_true(mkhct_checkpoint_counted(a, "seconds") == 3.5);
	mkhct_checkpoint_count(a, "seconds", 1);
	mkhct_checkpoint_count(b, "seconds", 2);
	assert_int_equal(mkhct_checkpoint_merge(a, b, line), 0);
	assert_true(mkhct_checkpoint_counted(a, "seconds") == 6.5);
	mkhct_checkpoint_free(b);
	entries[1].packed = 1;
	b = again(create(&part));
	entries[1].packed = 0;
	assert_int_equal(mkhct_checkpoint_merge(a, b, line), 1);
	assert_non_null(strstr(line, "is another file"));
	mkhct_checkpoint_free(b);
	entries[1].size++;
	b = again(create(&part));
	entries[1].size--;
	assert_int_equal(mkhct_checkpoint_merge(a, b, line), 1);
	mkhct_checkpoint_free(b);
	part.options = "{}";
	b = again(create(&part));
	assert_int_equal(mkhct_checkpoint_merge(a, b, line), 1);
	mkhct_checkpoint_free(b);
	mkhct_checkpoint_free(a);
}

static void test_source_of_it(void **state)
{
	struct mkhct_checkpoint *c = again(create(&of));
	struct mkhct_source s;

	(void)state;
	assert_int_equal(mkhct_checkpoint_source(c, &s, NULL), HCT_OK);
	assert_int_equal(s.count, COUNT);
	assert_int_equal(s.model_count, 2);
	assert_int_equal(s.model_bytes, 101);
	assert_int_equal(s.carried_bytes, UINT64_C(1) << 52);
	for (size_t i = 0; i < COUNT; i++) {
		assert_string_equal(s.entries[i].name, entries[i].name);
		assert_int_equal(s.entries[i].kind, entries[i].kind);
		assert_int_equal(s.entries[i].mode, entries[i].mode);
	}
	mkhct_source_free(&s);
	mkhct_checkpoint_free(c);
}

static void test_sources_that_lead_outside(void **state)
{
	static const char *const names[] = {
		"../x", "/x", "sub/../../x", "", "other/x", "a.safetensors", "a.safetensors/x"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct mkhct_checkpoint *c = create(&of);
		cJSON *last = mkhct_checkpoint_entry(c, COUNT - 1);
		struct mkhct_source s;

		cJSON_DeleteItemFromObjectCaseSensitive(last, "name");
		assert_int_equal(mkhct_name_to_json(last, names[i]), 0);
		assert_int_equal(mkhct_checkpoint_source(c, &s, NULL), HCT_ERR_CORRUPT);
		mkhct_checkpoint_free(c);
	}
}

static void test_what_is_none(void **state)
{
	static const char *const texts[] = {"",
					    "{",
					    "null",
					    "[]",
					    "{}",
					    "{\"shards\":1,\"words\":[]}",
					    "{\"shards\":[1],\"words\":[]}",
					    "{\"shards\":[],\"words\":[1]}",
					    "{\"shards\":[]}",
					    "{\"words\":[]}"};
	struct mkhct_checkpoint *c;
	struct hct_diag d = {""};

	(void)state;
	assert_int_equal(read_one(&c, &d), HCT_OK);
	assert_null(c);
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		folder_write_text("c.json", texts[i]);
		assert_int_equal(read_one(&c, &d), HCT_ERR_CORRUPT);
		assert_null(c);
		assert_non_null(strstr(d.text, "shown: "));
	}
	folder_write_text("c.json", "{\"version\":2,\"shards\":[],\"words\":[]}");
	assert_int_equal(read_one(&c, &d), HCT_ERR_EXISTS);
	folder_write_text("c.json",
			  "{\"version\":1,\"tool_version\":\"0.0.0\",\"shards\":[],\"words\":[]}");
	assert_int_equal(read_one(&c, &d), HCT_OK);
	mkhct_checkpoint_free(c);
	assert_int_equal(unlink("c.json"), 0);
	assert_int_equal(mkdir("c.json", 0777), 0);
	assert_int_equal(read_one(&c, &d), HCT_ERR_CORRUPT);
	assert_null(c);
}

static void test_errors_that_were_measured(void **state)
{
	struct hct_goal goals[2] = {{.relative_squared_error = .125},
				    {.relative_squared_error = 0}};
	static struct mkhct_decision decisions[2];
	struct mkhct_checkpoint *c = create(&of);

	(void)state;
	strcpy(decisions[0].reason, "budget");
	assert_int_equal(mkhct_checkpoint_errors(c, 0, NULL, decisions, 2), 0);
	assert_int_equal(mkhct_checkpoint_set_errors(c, 0, goals, decisions, 2), 0);
	c = again(c);
	memset(goals, 0, sizeof(goals));
	memset(decisions, 0, sizeof(decisions));
	assert_int_equal(mkhct_checkpoint_errors(c, 0, goals, decisions, 1), 0);
	assert_int_equal(mkhct_checkpoint_errors(c, 0, NULL, decisions, 2), 1);
	assert_true(goals[0].relative_squared_error == 0);
	assert_int_equal(mkhct_checkpoint_errors(c, 0, goals, decisions, 2), 1);
	assert_true(goals[0].relative_squared_error == .125);
	assert_string_equal(decisions[0].reason, "budget");
	assert_int_equal(mkhct_checkpoint_errors(c, 1, goals, decisions, 2), 0);
	mkhct_checkpoint_free(c);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, folder_enter, folder_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_written_and_read),          TEST(test_what_differs),
		TEST(test_parts_are_merged),          TEST(test_source_of_it),
		TEST(test_sources_that_lead_outside), TEST(test_what_is_none),
		TEST(test_errors_that_were_measured), TEST(test_copy_that_is_in_progress),
	};

	return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
