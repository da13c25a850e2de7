/* meter.h: the line of progress, its rate and its width. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "codec/meter.h"

/* As if the meter had been started so many seconds ago. */
static void started_ago(struct hct_meter *m, uint64_t total, double seconds)
{
	hct_meter_start(m, total);
	m->start -= seconds;
	m->last_time -= seconds;
}

static void shows_share_rate_and_time_left(void **state)
{
	struct hct_meter m;
	char line[256];

	(void)state;
	/* Of so long a time ago that a slow machine does not change what is compared. */
	started_ago(&m, 10ull << 40, 100010);
	hct_meter_add(&m, 5ull << 40);
	hct_meter_line(&m, "model.safetensors", 200, line, sizeof(line));
	char *seconds = strstr(line, "46:5");
	assert_non_null(seconds);
	seconds[4] = '*';
	assert_string_equal(line, "[#####-----]  50% 5.0/10.0 TiB  52.4 MiB/s  ETA 27:46:5*  "
				  "model.safetensors");
}

static void shows_all_and_nothing(void **state)
{
	struct hct_meter m;
	char line[256];

	(void)state;
	started_ago(&m, 2 << 10, 1);
	hct_meter_line(&m, "x", 200, line, sizeof(line));
	assert_string_equal(line, "[----------]   0% 0.00/2.00 KiB  0 B/s  ETA -:--  x");
	hct_meter_add(&m, 2 << 10);
	m.last_time = m.start;
	hct_meter_line(&m, "x", 200, line, sizeof(line));
	assert_non_null(strstr(line, "[##########] 100% 2.00/2.00 KiB  "));
	assert_non_null(strstr(line, "  ETA 0:00  x"));
}

static void just_before_the_end_is_not_all(void **state)
{
	struct hct_meter m;
	char line[256];

	(void)state;
	started_ago(&m, 1000000, 1);
	hct_meter_add(&m, 999999);
	hct_meter_line(&m, "", 200, line, sizeof(line));
	assert_non_null(strstr(line, "[#########-]  99% "));
}

static void more_than_all_is_all(void **state)
{
	struct hct_meter m;
	char line[256];

	(void)state;
	started_ago(&m, 100, 1);
	hct_meter_add(&m, 5000);
	hct_meter_line(&m, "", 200, line, sizeof(line));
	assert_non_null(strstr(line, "[##########] 100% 100/100 B  "));
	assert_non_null(strstr(line, "ETA 0:00"));
}

static void no_work_at_all(void **state)
{
	struct hct_meter m;
	char line[256];

	(void)state;
	hct_meter_start(&m, 0);
	hct_meter_line(&m, "", 200, line, sizeof(line));
	assert_non_null(strstr(line, "[##########] 100% 0/0 B  0 B/s  ETA 0:00"));
}

/* The largest numbers neither overflow a buffer nor show nonsense. */
static void huge_numbers(void **state)
{
	struct hct_meter m;
	char line[256];

	(void)state;
	started_ago(&m, UINT64_MAX, 1e9);
	hct_meter_add(&m, 1);
	hct_meter_line(&m, "", 200, line, sizeof(line));
	assert_non_null(strstr(line, "   0% 0.0/16.0 EiB  0 B/s  ETA -:--"));
	started_ago(&m, UINT64_MAX, 1e-9);
	hct_meter_add(&m, UINT64_MAX);
	hct_meter_line(&m, "", 200, line, sizeof(line));
	assert_non_null(strstr(line, " 100% 16.0/16.0 EiB  "));
}

static void rate_follows_the_last_seconds(void **state)
{
	struct hct_meter m;
	char line[256];

	(void)state;
	/* 100 MB/s for a minute in steps of a second, then 10 MB/s. */
	hct_meter_start(&m, UINT64_MAX);
	for (int i = 0; i < 90; i++) {
		m.start -= 1;
		m.last_time = hct_meter_now() - 1;
		hct_meter_add(&m, i < 60 ? 100000000 : 10000000);
		hct_meter_line(&m, "", 200, line, sizeof(line));
		double expected = i < 60 ? 1e8 : 1e7 + 9e7 * exp((59 - i) / 3.0);
		/* A slow machine makes each second longer. */
		assert_true(m.rate > 0.5 * expected && m.rate < 1.02 * expected);
	}
}

static unsigned columns(const char *s)
{
	unsigned n = 0;

	for (; *s != '\0'; s++)
		n += ((unsigned char)*s & 0xC0) != 0x80;
	return n;
}

static void cut_to_the_width(void **state)
{
	struct hct_meter m;
	char line[256], whole[256];

	(void)state;
	started_ago(&m, 1000u << 20, 10);
	hct_meter_line(&m, "h\xc3\xa9\xc3\xa9", 200, whole, sizeof(whole));
	for (unsigned width = 0; width <= columns(whole) + 3; width++) {
		unsigned all = columns(whole);

		started_ago(&m, 1000u << 20, 10);
		hct_meter_line(&m, "h\xc3\xa9\xc3\xa9", width, line, sizeof(line));
		assert_true(columns(line) <= width);
		if (line[0] != '[')
			continue;
		/* Only the name is cut, and between characters. */
		assert_true(width + 3 + 2 >= all);
		assert_memory_equal(line, whole, strlen(line));
		assert_true(((unsigned char)whole[strlen(line)] & 0xC0) != 0x80);
	}
}

/* No field is cut: the bar goes first, the percentage last. */
static void narrow_lines_drop_whole_fields(void **state)
{
	static const struct {
		unsigned width;
		const char *line;
	} lines[] = {
		{200, "[----------]   0% 0/999 MiB  0 B/s  ETA -:--  name"},
		{48, "[----------]   0% 0/999 MiB  0 B/s  ETA -:--  na"},
		{46, "[----------]   0% 0/999 MiB  0 B/s  ETA -:--"},
		{44, "[----------]   0% 0/999 MiB  0 B/s  ETA -:--"},
		{43, "  0% 0/999 MiB  0 B/s  ETA -:--  name"},
		{31, "  0% 0/999 MiB  0 B/s  ETA -:--"},
		{30, "  0% 0/999 MiB  ETA -:--  name"},
		{24, "  0% 0/999 MiB  ETA -:--"},
		{23, "  0%  ETA -:--  name"},
		{14, "  0%  ETA -:--"},
		{13, "  0%  name"},
		{4, "  0%"},
		{3, ""},
		{0, ""},
	};
	struct hct_meter m;
	char line[256];

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		started_ago(&m, 999u << 20, 10);
		hct_meter_line(&m, "name", lines[i].width, line, sizeof(line));
		assert_string_equal(line, lines[i].line);
	}
}

static void cut_to_the_buffer(void **state)
{
	struct hct_meter m;
	char line[256], whole[256];

	(void)state;
	started_ago(&m, 1000u << 20, 10);
	hct_meter_line(&m, "h\xe6\x97\xa5\xe6\x9c\xac", 200, whole, sizeof(whole));
	for (size_t size = 0; size <= strlen(whole) + 3; size++) {
		memset(line, '!', sizeof(line));
		started_ago(&m, 1000u << 20, 10);
		hct_meter_line(&m, "h\xe6\x97\xa5\xe6\x9c\xac", 200, line, size);
		assert_int_equal(line[size], '!');
		if (size == 0)
			continue;
		assert_true(strlen(line) < size);
		if (line[0] != '[')
			continue;
		assert_memory_equal(line, whole, strlen(line));
		assert_true(((unsigned char)whole[strlen(line)] & 0xC0) != 0x80);
	}
}

static void wide_characters_count_twice(void **state)
{
	struct hct_meter m;
	char line[256];

	(void)state;
	hct_meter_start(&m, 0);
	hct_meter_line(&m, "", 200, line, sizeof(line));
	unsigned before = columns(line);
	hct_meter_line(&m, "\xe6\x97\xa5\xe6\x9c\xac", before + 3, line, sizeof(line));
	assert_string_equal(line + before, "\xe6\x97\xa5");
}

static void names_cannot_talk_to_the_terminal(void **state)
{
	struct hct_meter m;
	char line[256];

	(void)state;
	hct_meter_start(&m, 0);
	hct_meter_line(&m, "a\x1b[2J\nb\xc2\x9b\xff\xc3z\xe6\x97", 200, line, sizeof(line));
	assert_string_equal(strstr(line, "  a") + 2, "a?[2J?b????z??");
}

static void *add_many(void *arg)
{
	for (int i = 0; i < 1000000; i++)
		hct_meter_add(arg, 3);
	return NULL;
}

static void threads_add(void **state)
{
	struct hct_meter m;
	pthread_t threads[4];
	char line[256];

	(void)state;
	hct_meter_start(&m, 12000000);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_many, &m), 0);
	for (int i = 0; i < 1000; i++)
		hct_meter_line(&m, "", 80, line, sizeof(line));
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&m.done), 12000000);
}

static void the_clock_runs_forward(void **state)
{
	double last = hct_meter_now();

	(void)state;
	for (int i = 0; i < 1000; i++) {
		double now = hct_meter_now();

		assert_true(now >= last);
		last = now;
	}
}

/* As if all looks at the kinds had been so many seconds earlier. */
static void age(struct hct_meter *m, double seconds)
{
	m->start -= seconds;
	m->look -= seconds;
}

/* Bytes of an earlier run are done, and not in the rate. */
static void skipped_bytes_are_not_in_the_rate(void **state)
{
	struct hct_meter m;
	char line[256];

	(void)state;
	started_ago(&m, 4000u << 20, 100010);
	hct_meter_skip(&m, 3000u << 20);
	hct_meter_add(&m, 500u << 20);
	hct_meter_line(&m, "", 200, line, sizeof(line));
	assert_non_null(strstr(line, " 87% 3.42/3.91 GiB  "));
	assert_true(m.rate > 5200 && m.rate < 5300);
	assert_true(hct_meter_left(&m) > 0.99e5 && hct_meter_left(&m) < 1.01e5);
}

/* Cheap work first, dear work behind it: two threads, 10 and 90 seconds of each. */
static void kinds_of_work_weigh_what_is_left(void **state)
{
	struct hct_meter m;

	(void)state;
	hct_meter_start(&m, 2000);
	hct_meter_expect(&m, 0, 1000, 1, 0);
	hct_meter_expect(&m, 1, 1000, 9, 0);
	assert_true(hct_meter_left(&m) < 0);
	age(&m, 5);
	hct_meter_work(&m, 0, 500, 5);
	assert_true(hct_meter_left(&m) < 0); /* most of the rest was never measured */
	age(&m, 5);
	hct_meter_work(&m, 1, 20, 5);
	/* 500 * .01 + 980 * .25 seconds of one thread at a time */
	assert_true(fabs(hct_meter_left(&m) - 250) < 3);
	age(&m, 5);
	hct_meter_work(&m, 1, 40, 10); /* two threads now: the pace is a mean of late */
	double left = hct_meter_left(&m);
	assert_true(left > 235 / 2. && left < 240);
	hct_meter_work(&m, 0, 500, 0);
	hct_meter_work(&m, 1, 940, 0);
	assert_true(hct_meter_left(&m) == 0);
}

static void serial_work_is_not_shared(void **state)
{
	struct hct_meter m;

	(void)state;
	hct_meter_start(&m, 0);
	hct_meter_expect(&m, 0, 100, 1, 0);
	hct_meter_expect(&m, 1, 100, 1, 1);
	age(&m, 10);
	hct_meter_work(&m, 0, 40, 20); /* four threads for five seconds ... */
	hct_meter_work(&m, 1, 50, 5);  /* ... and five seconds of one */
	/* 60 * .5 / 4 and 50 * .1 */
	assert_true(fabs(hct_meter_left(&m) - 12.5) < .2);
	hct_meter_expect(&m, 0, -60, 1, 0);
	assert_true(fabs(hct_meter_left(&m) - 5) < .1);
}

/* Copying, hashing and whatever else goes on beside the threads is in the price of a kind. */
static void the_price_has_what_goes_on_beside(void **state)
{
	struct hct_meter m;

	(void)state;
	hct_meter_start(&m, 0);
	hct_meter_expect(&m, 0, 1000, 1, 0);
	hct_meter_expect(&m, 1, 1000, 1, 0);
	age(&m, 10);
	hct_meter_work(&m, 0, 100, 2); /* threads: 2 seconds of 10 */
	assert_true(hct_meter_left(&m) < 0);
	age(&m, 10);
	hct_meter_work(&m, 1, 200, 9);
	/* 900 * .1 and 800 * .05 */
	assert_true(fabs(hct_meter_left(&m) - 130) < 2);
	/* Nothing was noted: the clock waits for what comes next. */
	age(&m, 10);
	assert_true(fabs(hct_meter_left(&m) - 130) < 2);
	hct_meter_work(&m, 1, 800, 9);
	assert_true(fabs(hct_meter_left(&m) - 90) < 2);
}

static void kinds_that_are_alike(void **state)
{
	struct hct_meter m;

	(void)state;
	hct_meter_start(&m, 0);
	for (unsigned i = 0; i < 3; i++)
		hct_meter_expect(&m, i, 100, 1, 0);
	age(&m, 10);
	hct_meter_work(&m, 0, 100, 10);
	age(&m, 30);
	hct_meter_work(&m, 1, 100, 30);
	assert_true(hct_meter_left(&m) < 0);
	hct_meter_liken(&m, 2, 1); /* and not as both are, on average */
	assert_true(fabs(hct_meter_left(&m) - 30) < 1);
	age(&m, 10);
	hct_meter_work(&m, 2, 50, 10);
	assert_true(fabs(hct_meter_left(&m) - 10) < 1);
}

/* What was only guessed makes no difference where it is little. */
static void a_second_of_guesses_is_sound(void **state)
{
	struct hct_meter m;

	(void)state;
	hct_meter_start(&m, 0);
	hct_meter_expect(&m, 0, 100, 1, 0);
	hct_meter_expect(&m, 1, 1, .5, 1);
	age(&m, 100);
	hct_meter_work(&m, 0, 100, 100);
	assert_true(fabs(hct_meter_left(&m) - .5) < .05);
}

static void steps_have_a_line_of_their_own(void **state)
{
	static const struct {
		unsigned width;
		const char *line;
	} lines[] = {
		{200, "[##--------] pass 2: measuring 3/12  name"},
		{40, "[##--------] pass 2: measuring 3/12  nam"},
		{36, "[##--------] pass 2: measuring 3/12"},
		{34, "pass 2: measuring 3/12  name"},
		{22, "pass 2: measuring 3/12"},
		{21, ""},
	};
	struct hct_meter m;
	char line[256];

	(void)state;
	hct_meter_start(&m, 12);
	hct_meter_count(&m, "pass 2: measuring");
	hct_meter_add(&m, 3);
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		hct_meter_line(&m, "name", lines[i].width, line, sizeof(line));
		assert_string_equal(line, lines[i].line);
	}
	/* A time left only where there are kinds of work, and never the rate of steps. */
	hct_meter_expect(&m, 0, 100, 1, 0);
	age(&m, 10);
	hct_meter_work(&m, 0, 10, 10);
	hct_meter_line(&m, "name", 46, line, sizeof(line));
	assert_string_equal(line, "[##--------] pass 2: measuring 3/12  ETA 1:30");
	hct_meter_line(&m, "name", 32, line, sizeof(line));
	assert_string_equal(line, "pass 2: measuring 3/12  ETA 1:30");
	hct_meter_line(&m, "name", 31, line, sizeof(line));
	assert_string_equal(line, "pass 2: measuring 3/12  name");
	hct_meter_start(&m, 12);
	hct_meter_line(&m, "", 200, line, sizeof(line));
	assert_null(strstr(line, "measuring"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shows_share_rate_and_time_left),
		cmocka_unit_test(shows_all_and_nothing),
		cmocka_unit_test(just_before_the_end_is_not_all),
		cmocka_unit_test(more_than_all_is_all),
		cmocka_unit_test(no_work_at_all),
		cmocka_unit_test(huge_numbers),
		cmocka_unit_test(rate_follows_the_last_seconds),
		cmocka_unit_test(cut_to_the_width),
		cmocka_unit_test(narrow_lines_drop_whole_fields),
		cmocka_unit_test(cut_to_the_buffer),
		cmocka_unit_test(wide_characters_count_twice),
		cmocka_unit_test(names_cannot_talk_to_the_terminal),
		cmocka_unit_test(skipped_bytes_are_not_in_the_rate),
		cmocka_unit_test(kinds_of_work_weigh_what_is_left),
		cmocka_unit_test(serial_work_is_not_shared),
		cmocka_unit_test(the_price_has_what_goes_on_beside),
		cmocka_unit_test(kinds_that_are_alike),
		cmocka_unit_test(a_second_of_guesses_is_sound),
		cmocka_unit_test(steps_have_a_line_of_their_own),
		cmocka_unit_test(threads_add),
		cmocka_unit_test(the_clock_runs_forward),
	};

	return cmocka_run_group_tests_name("meter", tests, NULL, NULL);
}
