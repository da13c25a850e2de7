/* safetensors.h: what is accepted, and what is refused with which words. */
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

static void an_ordinary_header(void **state)
{
	static const char json[] =
		"{\"__metadata__\":{\"format\":\"pt\",\"\\u00e9\":\"x\"},"
		"\"model/b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
		"\"a\":{\"shape\":[],\"data_offsets\":[0,4],\"dtype\":\"F32\"},"
		"\"\\u00e9t\\u00e9\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[16,24]}}  "
		" ";
	struct hct_safetensors st;

	(void)state;
	accept(json, 24, &st);
	assert_int_equal(st.header_len, 8 + strlen(json));
	assert_int_equal(st.file_size, 8 + strlen(json) + 24);
	assert_memory_equal(st.header + 8, json, strlen(json));
	assert_int_equal(st.header[0], strlen(json) & 255);
	assert_int_equal(st.count, 3);

	const struct hct_tensor *t = st.tensors;
	assert_string_equal(t[0].name, "a");
	assert_int_equal(t[0].dtype, HCT_DTYPE_F32);
	assert_string_equal(t[0].dtype_name, "F32");
	assert_int_equal(t[0].rank, 0);
	assert_int_equal(t[0].elements, 1);
	assert_int_equal(t[0].begin, 0);
	assert_int_equal(t[0].end, 4);
	assert_int_equal(hct_tensor_bytes(&t[0]), 4);
	assert_string_equal(t[1].name, "model/b");
	assert_int_equal(t[1].dtype, HCT_DTYPE_BF16);
	assert_int_equal(t[1].rank, 2);
	assert_int_equal(t[1].shape[0], 2);
	assert_int_equal(t[1].shape[1], 3);
	assert_int_equal(t[1].elements, 6);
	assert_int_equal(t[1].begin, 4);
	assert_int_equal(t[1].end, 16);
	assert_string_equal(t[2].name, "\xc3\xa9t\xc3\xa9");
	assert_int_equal(t[2].shape[0], 1);

	assert_int_equal(hct_safetensors_find(&st, "a"), 0);
	assert_int_equal(hct_safetensors_find(&st, "model/b"), 1);
	assert_int_equal(hct_safetensors_find(&st, "\xc3\xa9t\xc3\xa9"), 2);
	assert_int_equal(hct_safetensors_find(&st, "__metadata__"), SIZE_MAX);
	assert_int_equal(hct_safetensors_find(&st, ""), SIZE_MAX);
	assert_int_equal(hct_safetensors_find(&st, "model"), SIZE_MAX);
	hct_safetensors_free(&st);
	assert_null(st.tensors);
	hct_safetensors_free(&st);
}

static void free_of_nothing(void **state)
{
	struct hct_safetensors st = {0};

	(void)state;
	hct_safetensors_free(&st);
	assert_int_equal(hct_safetensors_find(&st, "a"), SIZE_MAX);
}

/* Odd, but as good as any. */
static void odd_headers_are_accepted(void **state)
{
	static const struct {
		const char *json;
		uint64_t data;
		size_t count;
	} good[] = {
		{"{}", 0, 0},
		{"{}          ", 0, 0},
		{"{ \n\t\r }\n", 0, 0},
		{"{\"__metadata__\":{}}", 0, 0},
		{"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, 0},
		{"{\"__metadata__\":{\"a\":\"\\u0000\\u0001\",\"b\\u0000\":\"\"}," T(
			 "x", "U8", "[1]", 0, 1) "}",
		 1, 1},
		{"{" T("", "U8", "[1]", 0, 1) "}", 1, 1},
		{"{" T("a\\\"b\\\\\\/\\n\\u0001", "U8", "[1]", 0, 1) "}", 1, 1},
		/* A backslash, then letters and digits: no NUL. */
		{"{" T("\\\\u0000", "U8", "[1]", 0, 1) "}", 1, 1},
		{"{" T("__metadata__ ", "U8", "[1]", 0, 1) "}", 1, 1},
		/* Empty tensors: at the begin, between others, at the end. */
		{"{" T("e", "F32", "[0]", 0, 0) "}", 0, 1},
		{"{" T("a", "U8", "[4]", 0, 4) "," T("e", "F32", "[0,5]", 4, 4) "," T(
			 "b", "U8", "[4]", 4, 8) "," T("f", "F64", "[3,0]", 8,
						       8) "," T("g", "F16", "[0]", 0, 0) "}",
		 8, 5},
		/* Sub-byte types that fill their bytes. */
		{"{" T("a", "F4", "[3,2]", 0, 3) "," T("b", "F6_E2M3", "[4]", 3, 6) "}", 6, 2},
		{"{" T("a", "C64", "[2]", 0, 16) "}", 16, 1},
		/* A type of a later version: opaque, whatever its size. */
		{"{" T("a", "X99", "[1000]", 0, 3) "," T("b", "U8", "[1]", 3, 4) "}", 4, 2},
		/* Members that mean nothing to us, nested or not. */
		{"{\"a\":{\"x\":[[{}]],\"dtype\":\"U8\",\"shape\":[1],\"y\":null,\"data_"
		 "offsets\":[0,1],\"Dtype\":3}}",
		 1, 1},
		/* The same number, written otherwise. */
		{"{" T("a", "U8", "[1e1, 1.0]", 0, 10) "}", 10, 1},
		/* A dimension at the limit of exact doubles. */
		{"{" T("a", "U8", "[9007199254740992,0]", 0, 0) "}", 0, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		struct hct_safetensors st;

		accept(good[i].json, good[i].data, &st);
		assert_int_equal(st.count, good[i].count);
		for (size_t k = 0; k < st.count; k++)
			assert_int_equal(hct_safetensors_find(&st, st.tensors[k].name), k);
		hct_safetensors_free(&st);
	}
}

static void every_dtype(void **state)
{
	(void)state;
	for (int d = 1; d < HCT_DTYPE_COUNT; d++) {
		hct_dtype dtype = (hct_dtype)d;
		unsigned bytes = hct_dtype_bits(dtype) * 8 / 8;
		struct hct_safetensors st;
		struct hct_diag diag;
		char json[200];

		/* Eight elements are as many bytes as one has bits. */
		snprintf(json, sizeof(json),
			 "{\"t\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%u]}}",
			 hct_dtype_name(dtype), bytes);
		accept(json, bytes, &st);
		assert_int_equal(st.tensors[0].dtype, dtype);
		assert_string_equal(st.tensors[0].dtype_name, hct_dtype_name(dtype));
		hct_safetensors_free(&st);
		snprintf(json, sizeof(json),
			 "{\"t\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%u]}}",
			 hct_dtype_name(dtype), bytes + 1);
		assert_int_equal(parse(json, bytes + 1, &st, &diag), HCT_ERR_SAFETENSORS);
	}
}

static void equal_ranges_keep_the_order_of_the_header(void **state)
{
	struct hct_safetensors st;

	(void)state;
	accept("{" T("z", "U8", "[0]", 0, 0) "," T("m", "U8", "[0]", 0, 0) "," T(
		       "a", "U8", "[0]", 0, 0) "," T("k", "U8", "[1]", 0, 1) "}",
	       1, &st);
	assert_string_equal(st.tensors[0].name, "z");
	assert_string_equal(st.tensors[1].name, "m");
	assert_string_equal(st.tensors[2].name, "a");
	assert_string_equal(st.tensors[3].name, "k");
	assert_int_equal(hct_safetensors_find(&st, "a"), 2);
	hct_safetensors_free(&st);
}

#define R8  "1,1,1,1,1,1,1,1,"
#define R64 R8 R8 R8 R8 R8 R8 R8 R8

static const struct {
	const char *json;
	uint64_t data;
	hct_error error;
	const char *message;
} bad[] = {
	/* JSON */
	{"  ", 0, HCT_ERR_SAFETENSORS, "does not begin with '{'"},
	{" {}", 0, HCT_ERR_SAFETENSORS, "does not begin with '{'"},
	{"[]", 0, HCT_ERR_SAFETENSORS, "does not begin with '{'"},
	{"{ ", 0, HCT_ERR_SAFETENSORS, "not valid JSON"},
	{"{,}", 0, HCT_ERR_SAFETENSORS, "not valid JSON"},
	{"{\"a\"}", 0, HCT_ERR_SAFETENSORS, "not valid JSON"},
	{"{\"a\":}", 0, HCT_ERR_SAFETENSORS, "not valid JSON"},
	{"{\"a\":1,", 0, HCT_ERR_SAFETENSORS, "not valid JSON"},
	{"{\"a\":[1", 0, HCT_ERR_SAFETENSORS, "not valid JSON"},
	{"{\"a\":\"\\", 0, HCT_ERR_SAFETENSORS, "not valid JSON"},
	{"{\"a\":\"\\u00", 0, HCT_ERR_SAFETENSORS, "not valid JSON"},
	{"{\"a\":\"\\ud800\"}", 0, HCT_ERR_SAFETENSORS, "not valid JSON near byte"},
	{"{}x", 0, HCT_ERR_SAFETENSORS, "behind its JSON at byte 10 of the file"},
	{"{}{}", 0, HCT_ERR_SAFETENSORS, "behind its JSON at byte 10"},
	{"{\"a\xff\":1}", 0, HCT_ERR_SAFETENSORS, "not UTF-8 at byte 11 of the file"},
	{"{\"\xc0\x80\":1}", 0, HCT_ERR_SAFETENSORS, "not UTF-8"},
	{"{\"\xe0\x80\x80\":1}", 0, HCT_ERR_SAFETENSORS, "not UTF-8"},
	{"{\"\xed\xa0\x80\":1}", 0, HCT_ERR_SAFETENSORS, "not UTF-8"},
	{"{\"\xf0\x80\x80\x80\":1}", 0, HCT_ERR_SAFETENSORS, "not UTF-8"},
	{"{\"\xf4\x90\x80\x80\":1}", 0, HCT_ERR_SAFETENSORS, "not UTF-8"},
	{"{\"a\xe6\x97", 0, HCT_ERR_SAFETENSORS, "not UTF-8"},
	{"{\"a\n\":1}", 0, HCT_ERR_SAFETENSORS, "control character at byte 11"},
	{"{\x01}", 0, HCT_ERR_SAFETENSORS, "control character at byte 9"},
	/* Names */
	{"{" T("a\\u0000b", "U8", "[1]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS, "NUL character"},
	{"{" T("a\\\"\\u0000b", "U8", "[1]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS, "NUL character"},
	{"{" T("a", "U8\\u0000", "[1]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS, "NUL character"},
	{"{\"__metadata__\":{}," T("\\u0000", "U8", "[1]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS,
	 "NUL character"},
	{"{" T("a", "U8", "[1]", 0, 1) "," T("a", "U8", "[1]", 1, 2) "}", 2, HCT_ERR_SAFETENSORS,
	 "tensor \"a\" is in the header twice"},
	{"{" T("a", "U8", "[1]", 0, 1) "," T("b", "U8", "[1]", 1, 2) "," T("\\u0061", "U8", "[1]",
									   2, 3) "}",
	 3, HCT_ERR_SAFETENSORS, "tensor \"a\" is in the header twice"},
	/* __metadata__ */
	{"{\"__metadata__\":3}", 0, HCT_ERR_SAFETENSORS, "__metadata__ is not an object"},
	{"{\"__metadata__\":[]}", 0, HCT_ERR_SAFETENSORS, "__metadata__ is not an object"},
	{"{\"__metadata__\":null}", 0, HCT_ERR_SAFETENSORS, "__metadata__ is not an object"},
	{"{\"__metadata__\":{\"k\":1}}", 0, HCT_ERR_SAFETENSORS, "entry \"k\" is not a string"},
	{"{\"__metadata__\":{},\"__metadata__\":{}}", 0, HCT_ERR_SAFETENSORS, "there twice"},
	/* Members */
	{"{\"a\":1}", 0, HCT_ERR_SAFETENSORS, "tensor \"a\" is not an object"},
	{"{\"a\":[]}", 0, HCT_ERR_SAFETENSORS, "tensor \"a\" is not an object"},
	{"{\"a\":{}}", 0, HCT_ERR_SAFETENSORS, "tensor \"a\" has no dtype"},
	{"{\"a\":{\"dtype\":3}}", 0, HCT_ERR_SAFETENSORS, "tensor \"a\" has no dtype"},
	{"{\"a\":{\"dtype\":\"U8\"}}", 0, HCT_ERR_SAFETENSORS, "tensor \"a\" has no shape"},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":{}}}", 0, HCT_ERR_SAFETENSORS, "has no shape"},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":[]}}", 0, HCT_ERR_SAFETENSORS, "no data_offsets"},
	{"{\"a\":{\"dtype\":\"U8\",\"DTYPE\":\"U8\",\"shape\":[],\"Data_offsets\":[0,1]}}", 1,
	 HCT_ERR_SAFETENSORS, "no data_offsets"},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"dtype\":\"I8\",\"data_offsets\":[0,1]}}", 1,
	 HCT_ERR_SAFETENSORS, "tensor \"a\" has dtype twice"},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1],\"data_offsets\":[0,1]}}", 1,
	 HCT_ERR_SAFETENSORS, "tensor \"a\" has data_offsets twice"},
	/* Shapes */
	{"{" T("a", "U8", "[-1]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS, "dimension 0 is not"},
	{"{" T("a", "U8", "[1,1.5]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS, "dimension 1 is not"},
	{"{" T("a", "U8", "[\"1\"]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS, "dimension 0 is not"},
	{"{" T("a", "U8", "[null]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS, "dimension 0 is not"},
	{"{" T("a", "U8", "[[1]]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS, "dimension 0 is not"},
	{"{" T("a", "U8", "[true]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS, "dimension 0 is not"},
	{"{" T("a", "U8", "[1e400]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS, "dimension 0 is not"},
	{"{" T("a", "U8", "[9007199254740994]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS,
	 "dimension 0 is not a whole number from 0 to 2^53"},
	{"{" T("a", "U8", "[4294967296,4294967296]", 0, 0) "}", 0, HCT_ERR_SAFETENSORS,
	 "more elements than 64 bits count"},
	{"{" T("a", "X9", "[4294967296,4294967296]", 0, 0) "}", 0, HCT_ERR_SAFETENSORS,
	 "more elements than 64 bits count"},
	{"{" T("a", "F64", "[4294967296,268435456]", 0, 0) "}", 0, HCT_ERR_SAFETENSORS,
	 "more bits than 64 bits count"},
	{"{" T("a", "U8", "[" R64 "1]", 0, 1) "}", 1, HCT_ERR_LIMIT, "more than 64 dimensions"},
	/* Offsets */
	{"{" T("a", "U8", "[2]", 2, 0) "}", 2, HCT_ERR_SAFETENSORS,
	 "data_offsets end at 0, before they begin at 2"},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[]}}", 1, HCT_ERR_SAFETENSORS,
	 "data_offsets are not two"},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0]}}", 1, HCT_ERR_SAFETENSORS,
	 "data_offsets are not two"},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1,1]}}", 1, HCT_ERR_SAFETENSORS,
	 "data_offsets are not two"},
	{"{" T("a", "U8", "[]", -1, 0) "}", 1, HCT_ERR_SAFETENSORS, "data_offsets are not two"},
	{"{" T("a", "U8", "[]", 0, 0.5) "}", 1, HCT_ERR_SAFETENSORS, "data_offsets are not two"},
	{"{" T("a", "U8", "[]", 0, 1e17) "}", 1, HCT_ERR_SAFETENSORS, "data_offsets are not two"},
	{"{" T("a", "U8", "[]", 18446744073709551615, 0) "}", 1, HCT_ERR_SAFETENSORS,
	 "data_offsets are not two"},
	/* Sizes */
	{"{" T("a", "F32", "[3]", 0, 8) "}", 8, HCT_ERR_SAFETENSORS,
	 "tensor \"a\": dtype F32 and shape need 12 bytes but data_offsets hold 8"},
	{"{" T("a", "F32", "[]", 0, 0) "}", 0, HCT_ERR_SAFETENSORS, "need 4 bytes"},
	{"{" T("a", "F32", "[0]", 0, 4) "}", 4, HCT_ERR_SAFETENSORS, "need 0 bytes"},
	{"{" T("a", "F4", "[3]", 0, 1) "}", 1, HCT_ERR_SAFETENSORS,
	 "3 elements of F4 do not fill whole bytes"},
	{"{" T("a", "F6_E3M2", "[5]", 0, 4) "}", 4, HCT_ERR_SAFETENSORS, "do not fill whole"},
	/* Cover */
	{"{" T("a", "U8", "[4]", 4, 8) "}", 8, HCT_ERR_SAFETENSORS,
	 "hole in the data: bytes 0 to 4 before tensor \"a\""},
	{"{" T("b", "U8", "[4]", 8, 12) "," T("a", "U8", "[4]", 0, 4) "}", 12, HCT_ERR_SAFETENSORS,
	 "hole in the data: bytes 4 to 8 before tensor \"b\""},
	{"{" T("b", "U8", "[4]", 3, 7) "," T("a", "U8", "[4]", 0, 4) "}", 7, HCT_ERR_SAFETENSORS,
	 "tensor \"b\" begins at byte 3 of the data and overlaps \"a\", which ends at 4"},
	{"{" T("a", "U8", "[4]", 0, 4) "," T("b", "U8", "[4]", 0, 4) "}", 4, HCT_ERR_SAFETENSORS,
	 "tensor \"b\" begins at byte 0 of the data and overlaps \"a\""},
	{"{" T("a", "U8", "[4]", 0, 4) "," T("e", "U8", "[0]", 2, 2) "}", 4, HCT_ERR_SAFETENSORS,
	 "tensor \"e\" begins at byte 2 of the data and overlaps \"a\""},
	{"{" T("a", "U8", "[4]", 0, 4) "}", 3, HCT_ERR_SAFETENSORS,
	 "tensor \"a\" ends at byte 4 of the data but the file has only 3: a truncated"},
	{"{" T("a", "U8", "[4]", 0, 4) "}", 5, HCT_ERR_SAFETENSORS,
	 "the tensors end at byte 4 of the data but the file has 5"},
	{"{}", 1, HCT_ERR_SAFETENSORS, "the tensors end at byte 0 of the data but the file has 1"},
	{"{" T("a", "U8", "[9007199254740992]", 0, 9007199254740992) "}", 9, HCT_ERR_SAFETENSORS,
	 "tensor \"a\" ends at byte 9007199254740992 of the data but the file has only 9"},
};

static void malformed_headers_are_refused_with_reasons(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct hct_safetensors st;
		struct hct_diag diag = {""};

		memset(&st, 0xA5, sizeof(st));
		hct_error e = parse(bad[i].json, bad[i].data, &st, &diag);
		if (e != bad[i].error || !strstr(diag.text, bad[i].message))
			fail_msg("%s: error %d, \"%s\"; expected %d, \"%s\"", bad[i].json, e,
				 diag.text, bad[i].error, bad[i].message);
		/* Nothing is left to free, and freeing it is harmless. */
		assert_null(st.header);
		assert_null(st.tensors);
		hct_safetensors_free(&st);
		assert_int_equal(parse(bad[i].json, bad[i].data, &st, NULL), bad[i].error);
	}
}

static void a_nul_byte_is_refused(void **state)
{
	static const char json[] = "{\"a\0b\":{}}";
	static const char behind[] = "{}\0";
	struct hct_safetensors st;
	struct hct_diag diag;

	(void)state;
	assert_int_equal(parse_bytes(json, sizeof(json) - 1, 0, &st, &diag), HCT_ERR_SAFETENSORS);
	assert_non_null(strstr(diag.text, "control character"));
	assert_int_equal(parse_bytes(behind, 3, 0, &st, &diag), HCT_ERR_SAFETENSORS);
}

static void names_in_messages_are_harmless(void **state)
{
	char json[2000], name[600];
	struct hct_safetensors st;
	struct hct_diag diag;

	(void)state;
	snprintf(json, sizeof(json), "{\"%s\":1}", "a\\n\\u001b[2J\\u009b\x7f\xc3\xa9");
	assert_int_equal(parse(json, 0, &st, &diag), HCT_ERR_SAFETENSORS);
	assert_non_null(strstr(diag.text, "tensor \"a\\x0a\\x1b[2J\\x9b\\x7f\xc3\xa9\" is not"));

	/* Names of all lengths around the cut, of characters of each length. */
	static const char *const characters[] = {
		"x", "\xc3\xa9", "\xe6\x97\xa5", "\xf0\x9f\x98\x80", "\\n", "\\u009b"};
	for (size_t c = 0; c < sizeof(characters) / sizeof(*characters); c++) {
		for (size_t shift = 0; shift < 8; shift++) {
			memset(name, 'a', shift);
			for (size_t used = shift; used < 500; used += strlen(characters[c]))
				strcpy(name + used, characters[c]);
			snprintf(json, sizeof(json), "{\"%s\":1}", name);
			assert_int_equal(parse(json, 0, &st, &diag), HCT_ERR_SAFETENSORS);
			assert_non_null(strstr(diag.text, "...\" is not an object"));
			assert_true(strlen(diag.text) < 240);
			/* What is shown is whole characters: it parses as a name again. */
			char *begin = strchr(diag.text, '"') + 1;
			snprintf(json, sizeof(json), "{\"%.*s\":1}",
				 (int)(strstr(begin, "...\"") - begin), begin);
			for (char *p = json; (p = strstr(p, "\\x")); p++)
				p[0] = p[1] = '_';
			assert_int_equal(parse(json, 0, &st, &diag), HCT_ERR_SAFETENSORS);
			assert_non_null(strstr(diag.text, "is not an object"));
		}
	}
}

static hct_error header_len(uint64_t n, uint64_t file_size, size_t *len, struct hct_diag *diag)
{
	uint8_t first[8];

	for (int i = 0; i < 8; i++)
		first[i] = (uint8_t)(n >> 8 * i);
	return hct_safetensors_header_len(first, file_size, len, diag);
}

static void length_of_the_header(void **state)
{
	struct hct_diag diag;
	size_t len = 0;

	(void)state;
	assert_int_equal(header_len(2, 10, &len, &diag), HCT_OK);
	assert_int_equal(len, 10);
	assert_int_equal(header_len(1000, 1u << 30, &len, &diag), HCT_OK);
	assert_int_equal(len, 1008);
	assert_int_equal(header_len(100000000, UINT64_MAX, &len, &diag), HCT_OK);
	assert_int_equal(len, 100000008);

	static const struct {
		uint64_t n, file_size;
		const char *message;
	} wrong[] = {
		{0, 0, "file is 0 bytes, too short for a safetensors header"},
		{2, 7, "file is 7 bytes, too short"},
		{0, 8, "file is 8 bytes, too short"},
		{2, 9, "file is 9 bytes, too short"},
		{0, 100, "header claims 0 bytes, which is too few"},
		{1, 100, "header claims 1 bytes, which is too few"},
		{93, 100,
		 "header claims 93 bytes but only 92 follow: not a safetensors "
		 "file, or a truncated download"},
		{UINT64_MAX, 100, "header claims 18446744073709551615 bytes but only 92 follow"},
		{UINT64_MAX - 7, UINT64_MAX, "only 18446744073709551607 follow"},
		{100000001, UINT64_MAX, "more than the 100000000 that safetensors allows"},
	};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		len = 42;
		assert_int_equal(header_len(wrong[i].n, wrong[i].file_size, &len, &diag),
				 HCT_ERR_SAFETENSORS);
		if (!strstr(diag.text, wrong[i].message))
			fail_msg("\"%s\", expected \"%s\"", diag.text, wrong[i].message);
		assert_int_equal(len, 42);
		assert_int_equal(header_len(wrong[i].n, wrong[i].file_size, &len, NULL),
				 HCT_ERR_SAFETENSORS);
	}
}

static void a_git_lfs_pointer_is_recognised(void **state)
{
	static const uint8_t pointer[] = "version https://git-lfs.github.com/spec/v1\n";
	struct hct_diag diag;
	size_t len;

	(void)state;
	assert_int_equal(hct_safetensors_header_len(pointer, 134, &len, &diag),
			 HCT_ERR_SAFETENSORS);
	assert_non_null(strstr(diag.text, "Git LFS pointer"));
	assert_non_null(strstr(diag.text, "git lfs pull"));
}

static void a_header_of_another_length_is_refused(void **state)
{
	struct hct_safetensors st;
	struct hct_diag diag;
	size_t len;
	uint8_t *header = make("{}  ", 4, &len);

	(void)state;
	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *part = malloc(cut ? cut : 1);

		assert_non_null(part);
		memcpy(part, header, cut);
		assert_int_equal(hct_safetensors_parse(part, cut, len, &st, &diag),
				 HCT_ERR_SAFETENSORS);
		assert_int_equal(hct_safetensors_parse(part, cut, cut, &st, &diag),
				 HCT_ERR_SAFETENSORS);
		free(part);
	}
	assert_int_equal(hct_safetensors_parse(header, len, len - 1, &st, &diag),
			 HCT_ERR_SAFETENSORS);
	header[0] = 3;
	assert_int_equal(hct_safetensors_parse(header, len, len, &st, &diag), HCT_ERR_SAFETENSORS);
	assert_non_null(strstr(diag.text, "header claims 3 bytes but 4 are there"));
	free(header);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_ordinary_header),
		cmocka_unit_test(free_of_nothing),
		cmocka_unit_test(odd_headers_are_accepted),
		cmocka_unit_test(every_dtype),
		cmocka_unit_test(equal_ranges_keep_the_order_of_the_header),
		cmocka_unit_test(malformed_headers_are_refused_with_reasons),
		cmocka_unit_test(a_nul_byte_is_refused),
		cmocka_unit_test(names_in_messages_are_harmless),
		cmocka_unit_test(length_of_the_header),
		cmocka_unit_test(a_git_lfs_pointer_is_recognised),
		cmocka_unit_test(a_header_of_another_length_is_refused),
	};

	return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
