/* json.h: numbers and text go through JSON and back; what is something else is told. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "writer/json.h"

static cJSON *again(cJSON *object)
{
	char *text = cJSON_PrintUnformatted(object);
	cJSON *parsed = cJSON_Parse(text);

	assert_non_null(parsed);
	free(text);
	cJSON_Delete(object);
	return parsed;
}

static void test_there_and_back(void **state)
{
	cJSON *o = cJSON_CreateObject();
	const double third = 1 / 3., tiny = 0x1.fffffffffffffp-1022;
	uint64_t n;
	double d;

	(void)state;
	assert_int_equal(mkhct_json_put_number(o, "n", 1), 0);
	assert_int_equal(mkhct_json_put_number(o, "n", 1e15), 0); /* in its place */
	assert_int_equal(mkhct_json_put_number(o, "minus", -7), 0);
	assert_int_equal(mkhct_json_put_text(o, "t", "text"), 0);
	assert_int_equal(mkhct_json_put_hash(o, "h", UINT64_C(0x123456789abcdef)), 0);
	assert_int_equal(mkhct_json_put_hash(o, "most", UINT64_MAX), 0);
	assert_int_equal(mkhct_json_add_exact(o, "third", third), 0);
	assert_int_equal(mkhct_json_add_exact(o, "tiny", -tiny), 0);
	o = again(again(o));
	assert_int_equal(cJSON_GetArraySize(o), 7);
	assert_true(mkhct_json_whole(mkhct_json_get(o, "n")) == UINT64_C(1000000000000000));
	assert_int_equal(mkhct_json_get_count(o, "n", &n), 0);
	assert_true(n == UINT64_C(1000000000000000));
	assert_true(mkhct_json_is_number(mkhct_json_get(o, "minus"), -7));
	assert_string_equal(mkhct_json_text(o, "t"), "text");
	assert_string_equal(mkhct_json_text(o, "h"), "0123456789abcdef");
	assert_true(mkhct_json_hash(o, "h") == UINT64_C(0x123456789abcdef));
	assert_true(mkhct_json_hash(o, "most") == UINT64_MAX);
	assert_int_equal(mkhct_json_get_exact(o, "third", &d), 0);
	assert_true(d == third);
	assert_int_equal(mkhct_json_get_exact(o, "tiny", &d), 0);
	assert_true(d == -tiny);
	cJSON_Delete(o);
}

static void test_what_is_something_else(void **state)
{
	static const char *const texts[] = {
		"{\"x\":null}",
		"{\"x\":[1]}",
		"{\"x\":{}}",
		"{\"x\":-1}",
		"{\"x\":1e300}",
		"{\"x\":\"-1 \"}",
		"{\"x\":\"1e999\"}",
		"{\"x\":\"nan\"}",
		"{\"x\":true}",
		"{\"X\":1}",
		"{\"x\":\"0123456789abcdeg\"}",
		"[1]",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		cJSON *o = cJSON_Parse(texts[i]);
		uint64_t n;
		double d;

		assert_non_null(o);
		assert_true(mkhct_json_whole(mkhct_json_get(o, "x")) == 0);
		assert_int_equal(mkhct_json_get_count(o, "x", &n), -1);
		assert_int_equal(mkhct_json_get_exact(o, "x", &d), -1);
		assert_true(mkhct_json_hash(o, "x") == 0);
		assert_false(mkhct_json_is_number(mkhct_json_get(o, "x"), 0));
		assert_non_null(mkhct_json_text(o, "x"));
		cJSON_Delete(o);
	}
	assert_null(mkhct_json_get(NULL, "x"));
	assert_string_equal(mkhct_json_text(NULL, "x"), "");
	assert_true(mkhct_json_whole(NULL) == 0);
}

static void test_put_takes_the_item(void **state)
{
	cJSON *o = cJSON_CreateObject();

	(void)state;
	assert_int_equal(mkhct_json_put(o, "x", cJSON_CreateTrue()), 0);
	assert_int_equal(mkhct_json_put(o, "x", NULL), -1);
	assert_int_equal(mkhct_json_put(NULL, "x", cJSON_CreateTrue()), -1); /* and frees it */
	cJSON_Delete(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_what_is_something_else),
		cmocka_unit_test(test_put_takes_the_item),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
