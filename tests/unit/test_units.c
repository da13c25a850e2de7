/* units.h: sizes and times as people write and read them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "codec/units.h"

static void sizes_that_parse(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{"0", 0},
		{"123", 123},
		{"123B", 123},
		{"0007", 7},
		{"64K", 64 << 10},
		{"64k", 64 << 10},
		{"64KB", 64 << 10},
		{"64KiB", 64 << 10},
		{"64kib", 64 << 10},
		{"10MB", 10 << 20},
		{"1.5G", 3ull << 29},
		{"2GiB", 2ull << 30},
		{"3T", 3ull << 40},
		{"0.5K", 512},
		{"0.1M", 104857},
		{"1.25000000000000000000000000K", 1280},
		{"0.0000001T", 109951},
		{"18446744073709551615", UINT64_MAX},
		{"16777215.9999999T", 18446744073709441664u},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		uint64_t bytes = 42;

		if (hct_units_parse_size(good[i].text, &bytes) != 0)
			fail_msg("%s is refused", good[i].text);
		if (bytes != good[i].bytes)
			fail_msg("%s gives %llu", good[i].text, (unsigned long long)bytes);
	}
}

static void sizes_that_do_not_parse(void **state)
{
	static const char *const bad[] = {
		"",
		" ",
		"K",
		"B",
		"-1",
		"+1",
		" 1",
		"1 ",
		"1 K",
		"1x",
		"1KK",
		"1Ki",
		"1KiBB",
		"1iB",
		"1Bi",
		"1P",
		"1.",
		"1.K",
		".5G",
		"1.5",
		"1.5B",
		"1..5K",
		"1,5K",
		"0x10",
		"1e3",
		"nan",
		"inf",
		"1K\n",
		"18446744073709551616",
		"99999999999999999999999999",
		"16777216T",
		"18446744073709551615K",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		uint64_t bytes = 42;

		if (hct_units_parse_size(bad[i], &bytes) != -1)
			fail_msg("\"%s\" is accepted", bad[i]);
		assert_int_equal(bytes, 42);
	}
}

static void sizes_have_three_digits(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} sizes[] = {
		{0, "0 B"},
		{1, "1 B"},
		{517, "517 B"},
		{999, "999 B"},
		{1000, "0.98 KiB"},
		{1024, "1.00 KiB"},
		{1536, "1.50 KiB"},
		{10239, "10.0 KiB"},
		{10240, "10.0 KiB"},
		{102348, "99.9 KiB"},
		{102399, "100 KiB"},
		{1023487, "999 KiB"},
		{1023488, "0.98 MiB"},
		{91540685, "87.3 MiB"},
		{1ull << 30, "1.00 GiB"},
		{1ull << 40, "1.00 TiB"},
		{1ull << 50, "1.00 PiB"},
		{UINT64_MAX, "16.0 EiB"},
	};
	char buf[HCT_UNITS_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		assert_ptr_equal(hct_units_size(sizes[i].bytes, buf), buf);
		assert_string_equal(buf, sizes[i].text);
	}
}

static void durations(void **state)
{
	static const struct {
		double seconds;
		const char *text;
	} times[] = {
		{0, "0.0 s"},        {0.04, "0.0 s"},    {4.2, "4.2 s"},        {59.94, "59.9 s"},
		{59.96, "1:00"},     {60, "1:00"},       {187, "3:07"},         {3599.4, "59:59"},
		{3599.6, "1:00:00"}, {7384, "2:03:04"},  {360000, "100:00:00"}, {-1, "-:--"},
		{1e300, "-:--"},     {INFINITY, "-:--"}, {NAN, "-:--"},
	};
	char buf[HCT_UNITS_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(times) / sizeof(*times); i++) {
		assert_ptr_equal(hct_units_duration(times[i].seconds, buf), buf);
		assert_string_equal(buf, times[i].text);
	}
	assert_true(strlen(hct_units_duration(9e14, buf)) < HCT_UNITS_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_that_parse),
		cmocka_unit_test(sizes_that_do_not_parse),
		cmocka_unit_test(sizes_have_three_digits),
		cmocka_unit_test(durations),
	};

	return cmocka_run_group_tests_name("units", tests, NULL, NULL);
}
