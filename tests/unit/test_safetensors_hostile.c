/* safetensors.h: what long, deep and damaged headers do: nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/safetensors.h"
#include "make_safetensors.h"

static void a_hundred_thousand_tensors(void **state)
{
	enum { COUNT = 100000 };
	char *json = malloc(COUNT * 100);
	struct hct_safetensors st;
	size_t used = 0;

	(void)state;
	assert_non_null(json);
	/* Their data lies in the reverse order of the header. */
	for (int i = 0; i < COUNT; i++)
		used += (size_t)sprintf(
			json + used,
			"%c\"t.%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":"
			"[%d,%d]}",
			i ? ',' : '{', i, COUNT - 1 - i, COUNT - i);
	strcpy(json + used, "}");
	accept(json, COUNT, &st);
	assert_int_equal(st.count, COUNT);
	for (int i = 0; i < COUNT; i++) {
		char name[20];

		sprintf(name, "t.%d", i);
		assert_int_equal(hct_safetensors_find(&st, name), COUNT - 1 - i);
	}
	hct_safetensors_free(&st);
	free(json);
}

static void too_many_values_are_refused(void **state)
{
	size_t count = HCT_SAFETENSORS_MAX_VALUES + 1, len = 2 * count + 20;
	char *json = malloc(len);
	struct hct_safetensors st;
	struct hct_diag diag;
	size_t used;

	(void)state;
	assert_non_null(json);
	used = (size_t)sprintf(json, "{\"a\":[1");
	for (size_t i = 0; i < count; i++) {
		json[used++] = ',';
		json[used++] = '1';
	}
	used += (size_t)sprintf(json + used, "]}");
	assert_int_equal(parse_bytes(json, used, 0, &st, &diag), HCT_ERR_LIMIT);
	assert_non_null(strstr(diag.text, "more than 4000000 values"));
	free(json);
}

static void deep_nesting_is_refused(void **state)
{
	enum { DEPTH = 1000000 };
	char *json = malloc(DEPTH + 10);
	struct hct_safetensors st;
	struct hct_diag diag;

	(void)state;
	assert_non_null(json);
	memcpy(json, "{\"a\":", 5);
	memset(json + 5, '[', DEPTH);
	assert_int_equal(parse_bytes(json, DEPTH + 5, 0, &st, &diag), HCT_ERR_SAFETENSORS);
	free(json);
}

/* What must be true of anything that is accepted. */
static void check_invariants(const struct hct_safetensors *st)
{
	uint64_t covered = 0;

	for (size_t i = 0; i < st->count; i++) {
		const struct hct_tensor *t = &st->tensors[i];
		uint64_t elements = 1;

		assert_int_equal(t->begin, covered);
		assert_true(t->end >= t->begin);
		covered = t->end;
		assert_true(t->rank <= HCT_SAFETENSORS_MAX_RANK);
		for (unsigned d = 0; d < t->rank; d++)
			elements *= t->shape[d];
		assert_int_equal(t->elements, elements);
		if (t->dtype != HCT_DTYPE_UNKNOWN)
			assert_int_equal(elements * hct_dtype_bits(t->dtype),
					 hct_tensor_bytes(t) * 8);
		assert_int_equal(hct_safetensors_find(st, t->name), i);
	}
	assert_int_equal(covered, st->file_size - st->header_len);
}

static uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*seed >> 33);
}

/* One to four small damages: a byte changed, a piece removed, doubled, or put in. */
static size_t mutate(char *json, size_t len, uint64_t *seed)
{
	static const char *const pieces[] = {"\"",      "\\",       "{",         "}",
					     "[",       "]",        ",",         ":",
					     "0",       "9",        "-",         "e",
					     "\\u0000", "null",     "1e99",      "__metadata__",
					     "\xff",    "\xc3\xa9", "\"dtype\"", "4294967296",
					     "F64"};

	for (uint32_t times = 1 + next_random(seed) % 4; times > 0; times--) {
		size_t at = next_random(seed) % len;
		size_t size = 1 + next_random(seed) % 20;
		const char *piece = pieces[next_random(seed) % (sizeof(pieces) / sizeof(*pieces))];

		if (size > len - at)
			size = len - at;
		switch (next_random(seed) % 5) {
		case 0:
			json[at] = (char)next_random(seed);
			break;
		case 1:
			json[at] = (char)(json[at] ^ 1 << next_random(seed) % 8);
			break;
		case 2:
			if (len > size + 2) {
				memmove(json + at, json + at + size, len - at - size);
				len -= size;
			}
			break;
		case 3:
			memmove(json + at + size, json + at, len - at);
			len += size;
			break;
		default:
			size = strlen(piece);
			memmove(json + at + size, json + at, len - at);
			memcpy(json + at, piece, size);
			len += size;
			break;
		}
	}
	return len;
}

static void damaged_headers_do_no_harm(void **state)
{
	static const char whole[] =
		"{\"__metadata__\":{\"format\":\"pt\"}," T("model.w", "BF16", "[4,3]", 0, 24) "," T(
			"b", "F32", "[]", 24, 28) "," T("e", "F64", "[0,7]", 28,
							28) "," T("\xc3\xa9\\u00e9", "F4", "[2,2]",
								  28, 30) "," T("x", "NEW", "[1]",
										30, 40) "}  ";
	char json[sizeof(whole) + 200];
	uint64_t seed = 20;
	unsigned accepted = 0;

	(void)state;
	for (int i = 0; i < 40000; i++) {
		struct hct_safetensors st;
		struct hct_diag diag = {""};

		memcpy(json, whole, sizeof(whole) - 1);
		size_t len = mutate(json, sizeof(whole) - 1, &seed);
		hct_error e = parse_bytes(json, len, 40, &st, &diag);
		if (e == HCT_OK) {
			check_invariants(&st);
			hct_safetensors_free(&st);
			accepted++;
		} else {
			assert_true(e == HCT_ERR_SAFETENSORS || e == HCT_ERR_LIMIT);
			assert_true(diag.text[0] != '\0');
			assert_null(strchr(diag.text, '\n'));
		}
	}
	/* Some damages change names only: the loop reaches both ends. */
	assert_in_range(accepted, 100, 39000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_hundred_thousand_tensors),
		cmocka_unit_test(too_many_values_are_refused),
		cmocka_unit_test(deep_nesting_is_refused),
		cmocka_unit_test(damaged_headers_do_no_harm),
	};

	return cmocka_run_group_tests_name("safetensors_hostile", tests, NULL, NULL);
}
