/* importance.h: the formula, the table of kinds, and files that are malformed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "writer/importance.h"

static void test_formula(void **state)
{
	static const struct {
		double importance;
		enum mkhct_sensitivity sensitivity;
		double base, retention;
	} cases[] = {
		{1, MKHCT_SENSITIVITY_MEDIUM, .7, .7},  {1, MKHCT_SENSITIVITY_NORMAL, .7, .7},
		{0, MKHCT_SENSITIVITY_MEDIUM, .7, .35}, {.5, MKHCT_SENSITIVITY_VERY_LOW, .8, .3},
		{.5, MKHCT_SENSITIVITY_LOW, .8, .42},   {.5, MKHCT_SENSITIVITY_HIGH, .8, .72},
		{.2, MKHCT_SENSITIVITY_FULL, .8, .72},  {.2, MKHCT_SENSITIVITY_CRITICAL, .8, .72},
		{1, MKHCT_SENSITIVITY_FULL, .7, .95},   {0, MKHCT_SENSITIVITY_VERY_LOW, .1, .10},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct mkhct_importance x = {cases[i].importance, cases[i].sensitivity};

		assert_true(fabs(mkhct_importance_retention(&x, cases[i].base) -
				 cases[i].retention) < 1e-12);
	}
}

static void test_kinds(void **state)
{
	static const struct {
		enum mkhct_tensor_kind kind;
		double importance;
		const char *sensitivity;
	} cases[] = {
		{MKHCT_KIND_NORM, 1, "full"},        {MKHCT_KIND_BIAS, 1, "full"},
		{MKHCT_KIND_EMBEDDING, .95, "full"}, {MKHCT_KIND_POSITION, .95, "full"},
		{MKHCT_KIND_HEAD, .90, "high"},      {MKHCT_KIND_V, .80, "high"},
		{MKHCT_KIND_O, .80, "high"},         {MKHCT_KIND_Q, .75, "medium"},
		{MKHCT_KIND_K, .75, "medium"},       {MKHCT_KIND_QKV, .75, "medium"},
		{MKHCT_KIND_UP, .50, "low"},         {MKHCT_KIND_DOWN, .50, "low"},
		{MKHCT_KIND_GATE, .50, "low"},       {MKHCT_KIND_GATE_UP, .50, "low"},
		{MKHCT_KIND_ROUTER, .50, "medium"},  {MKHCT_KIND_OTHER, .50, "medium"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct mkhct_importance x = mkhct_importance_of_kind(cases[i].kind);

		assert_true(x.importance == cases[i].importance);
		assert_string_equal(mkhct_sensitivity_name(x.sensitivity), cases[i].sensitivity);
	}
}

static void test_file(void **state)
{
	static const char text[] =
		"\xEF\xBB\xBF{\"version\": 1, \"source\": \"gradients\", \"extra\": [1, {}],\n"
		" \"tensors\": {\n"
		"  \"z\": {\"importance\": 0.25, \"sensitivity\": \"very_low\"},\n"
		"  \"a\\\"},{.b\": {\"sensitivity\": \"critical\", \"importance\": 1, \"x\": 2},\n"
		"  \"m\": {\"importance\": 0}\n"
		" }}\n";
	struct mkhct_importances *f;
	struct mkhct_importance x;
	size_t at;

	(void)state;
	assert_int_equal(mkhct_importances_parse("i.json", text, strlen(text), &f, NULL), HCT_OK);
	assert_int_equal(mkhct_importances_count(f), 3);
	assert_string_equal(mkhct_importances_name(f, 1), "m");
	assert_true(mkhct_importances_find(f, "z", &x, &at));
	assert_int_equal(at, 2);
	assert_true(x.importance == .25);
	assert_int_equal(x.sensitivity, MKHCT_SENSITIVITY_VERY_LOW);
	assert_true(mkhct_importances_find(f, "a\"},{.b", &x, NULL));
	assert_int_equal(x.sensitivity, MKHCT_SENSITIVITY_CRITICAL);
	assert_true(mkhct_importances_find(f, "m", &x, NULL));
	assert_int_equal(x.sensitivity, MKHCT_SENSITIVITY_MEDIUM);
	assert_false(mkhct_importances_find(f, "b", &x, NULL));
	assert_false(mkhct_importances_find(f, "", NULL, NULL));
	mkhct_importances_free(f);
	mkhct_importances_free(NULL);
}

static void test_empty_list(void **state)
{
	static const char text[] = "{\"version\":1,\"tensors\":{}}";
	struct mkhct_importances *f;
	struct hct_diag line;

	(void)state;
	assert_int_equal(mkhct_importances_parse("i", text, strlen(text), &f, NULL), HCT_OK);
	assert_int_equal(mkhct_importances_count(f), 0);
	assert_false(mkhct_importances_find(f, "a", NULL, NULL));
	assert_true(mkhct_importances_note(f, 0, &line));
	assert_string_equal(line.text,
			    "i: has no tensors; each goes by its role, as without a file");
	assert_false(mkhct_importances_note(f, 1, &line));
	mkhct_importances_free(f);
}

static void test_unknown_members(void **state)
{
	static const char text[] = "{\"version\":1,\"extra\":1,\"tensors\":{\n"
				   "\"a\":{\"importance\":1},\n\"b\":{\"importance\":1,\n"
				   "\"sensitvity\":\"high\",\"x\":0}}}";
	struct mkhct_importances *f;
	struct hct_diag line;

	(void)state;
	assert_int_equal(mkhct_importances_parse("i", text, strlen(text), &f, NULL), HCT_OK);
	assert_true(mkhct_importances_note(f, 0, &line));
	assert_string_equal(line.text, "i: line 4: b: sensitvity: has no effect, only importance "
				       "and sensitivity have (2 such members)");
	assert_false(mkhct_importances_note(f, 1, &line));
	mkhct_importances_free(f);
}

#define HEAD "{\"version\": 1,\n\"tensors\": {\n"

static void test_malformed(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{"", "i.json: line 1: is no JSON"},
		{"\n\n  nonsense", "i.json: line 3: is no JSON"},
		{"{\"version\": 1,\n\"tensors\": {\n\"a\": {\"importance\": 1,}\n}}",
		 "i.json: line 3: is no JSON"},
		{"{\"version\": 1,\n\"tensors\": {}}\n\n}", "i.json: line 4: is no JSON"},
		{"{\"version\": 1,\n\"tensors\": {}", "i.json: line 2: is no JSON"},
		{"\n[1]", "i.json: line 2: is no JSON object"},
		{"{\n\"tensors\": {}}", "i.json: line 1: version is missing"},
		{"{\"version\":\n1}", "i.json: line 1: tensors is missing"},
		{"{\"tensors\": {},\n\"version\":\n2}", "i.json: line 3: the version is not 1"},
		{"{\"tensors\": {},\n\"version\": \"1\"}", "i.json: line 2: the version is not 1"},
		{"{\"tensors\": {},\n\n\"source\": 1, \"version\": 1}",
		 "i.json: line 3: the source is no string"},
		{"{\"version\": 1,\n\"tensors\": []}", "i.json: line 2: tensors is no object"},
		{HEAD "\"a\": 1}}", "i.json: line 3: a: is no object"},
		{HEAD "\"a\": {\"importance\": 1},\n\"b\": {}}}",
		 "i.json: line 4: b: is no object"},
		{HEAD "\"a\": {\n\"importance\": 1.5}}}", "i.json: line 4: a: the importance"},
		{HEAD "\"a\": {\n\"importance\": -0.1}}}", "i.json: line 4: a: the importance"},
		{HEAD "\"a\": {\n\"importance\": 1e999}}}", "i.json: line 4: a: the importance"},
		{HEAD "\"a\": {\n\"importance\": \"1\"}}}", "i.json: line 4: a: the importance"},
		{HEAD "\"a\": {\"importance\": 1,\n\n\"sensitivity\": \"huge\"}}}",
		 "i.json: line 5: a: the sensitivity"},
		{HEAD "\"a\": {\"importance\": 1,\n\"sensitivity\": 1}}}",
		 "i.json: line 4: a: the sensitivity"},
		{HEAD "\"x\": {\"importance\": 1, \"l\": [{\"\\\"}\": 1},\n2]},\n"
		      "\"a\": {\"o\": {\"importance\": 1},\n\"importance\": 2}}}",
		 "i.json: line 6: a: the importance"},
		{HEAD "\"a\": {\"importance\": 1},\n\"b\": {\"importance\": 1},\n"
		      "\"a\": {\"importance\": 0}}}",
		 "i.json: line 5: a: is there twice"},
		{HEAD "\"a\x1b[2J\": 1}}", "i.json: line 3: a?[2J: is no object"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct mkhct_importances *f = NULL;
		struct hct_diag diag = {""};
		hct_error err = mkhct_importances_parse("i.json", cases[i].text,
							strlen(cases[i].text), &f, &diag);

		assert_int_equal(err, HCT_ERR_ARGUMENT);
		assert_null(f);
		if (strncmp(diag.text, cases[i].message, strlen(cases[i].message)) != 0)
			fail_msg("'%s' is not: %s", diag.text, cases[i].message);
	}
}

static void assert_refused(const char *text, size_t n, hct_error expected, const char *message)
{
	struct mkhct_importances *f = NULL;
	struct hct_diag diag = {""};

	assert_int_equal(mkhct_importances_parse("i.json", text, n, &f, &diag), expected);
	if (!strstr(diag.text, message))
		fail_msg("'%s' is not in: %s", message, diag.text);
}

static void test_hostile(void **state)
{
	static const char nul[] =
		"{\"version\": 1,\n \"tensors\": {\"a\0b\": {\"importance\": 1}}}";
	size_t n = 5000000;
	char *text = malloc(n);

	(void)state;
	assert_refused(nul, sizeof(nul) - 1, HCT_ERR_ARGUMENT, "line 2: a NUL is no JSON");
	memset(text, '[', n);
	assert_refused(text, n, HCT_ERR_ARGUMENT, "more than 2000000 values; leave out");
	assert_refused(text, 100000, HCT_ERR_ARGUMENT, "line 1: is no JSON");
	memset(text, '"', n);
	assert_refused(text, n, HCT_ERR_ARGUMENT, "line 1: is no JSON");
	memset(text, ' ', n);
	assert_refused(text, n, HCT_ERR_ARGUMENT, "is no JSON");
	free(text);
}

/* A file cut anywhere is refused, whatever is read of it. */
static void test_cut_anywhere(void **state)
{
	static const char text[] = HEAD "\"a\\u0041\\\"\": {\"importance\": 1e-1, \"sensitivity\": "
					"\"low\", \"x\": [true, null]}}}";

	(void)state;
	for (size_t n = 0; n + 1 < sizeof(text); n++) {
		struct mkhct_importances *f;
		char *copy = malloc(n ? n : 1); /* its end is watched by ASan */

		memcpy(copy, text, n);
		assert_int_equal(mkhct_importances_parse("i", copy, n, &f, NULL), HCT_ERR_ARGUMENT);
		free(copy);
	}
}

/* Any byte changed: an answer, and no read outside. */
static void test_changed_anywhere(void **state)
{
	static const char text[] = HEAD "\"a\": {\"importance\": 1, \"sensitivity\": \"low\"},\n"
					"\"b\": {\"importance\": .5}}}";
	static const char bytes[] = "\"{}[],:\\ 9-\n\x80";
	char copy[sizeof(text)];

	(void)state;
	for (size_t i = 0; i + 1 < sizeof(text); i++) {
		for (size_t b = 0; b + 1 < sizeof(bytes); b++) {
			struct mkhct_importances *f;

			memcpy(copy, text, sizeof(text));
			copy[i] = bytes[b];
			if (mkhct_importances_parse("i", copy, sizeof(text) - 1, &f, NULL) ==
			    HCT_OK)
				mkhct_importances_free(f);
		}
	}
}

static void test_reading(void **state)
{
	char folder[] = "/tmp/hct-importance-XXXXXX", path[64];
	struct mkhct_importances *f;
	struct hct_diag diag;
	FILE *out;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/i.json", folder);
	assert_int_equal(mkhct_importances_read(path, &f, &diag), HCT_ERR_NOT_FOUND);
	assert_non_null(strstr(diag.text, path));
	out = fopen(path, "w");
	fputs("{\"version\":1,\"tensors\":{\"a\":{\"importance\":1}}}", out);
	fclose(out);
	assert_int_equal(mkhct_importances_read(path, &f, &diag), HCT_OK);
	assert_int_equal(mkhct_importances_count(f), 1);
	mkhct_importances_free(f);
	assert_int_equal(truncate(path, (off_t)MKHCT_IMPORTANCE_MAX_BYTES + 1), 0);
	assert_int_equal(mkhct_importances_read(path, &f, &diag), HCT_ERR_ARGUMENT);
	assert_non_null(strstr(diag.text, "is larger than 64 MiB; leave out"));
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(mkhct_importances_read(path, &f, &diag), HCT_ERR_ARGUMENT);
	unlink(path);
	assert_int_equal(mkhct_importances_read(folder, &f, &diag), HCT_ERR_ARGUMENT);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formula),      cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_file),         cmocka_unit_test(test_empty_list),
		cmocka_unit_test(test_malformed),    cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_cut_anywhere), cmocka_unit_test(test_changed_anywhere),
		cmocka_unit_test(test_reading),      cmocka_unit_test(test_unknown_members),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
