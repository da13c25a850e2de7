/* stream.h: what is asked for ahead of readers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "fs/stream.h"

#define KIB   ((uint64_t)1024)
#define MIB   (1024 * KIB)
#define PIECE (256 * KIB)
#define SIZE  (400 * MIB)

/* Counts how often each piece of the file was asked for. */
struct asked {
	unsigned char pieces[SIZE / PIECE];
	unsigned total;
	unsigned allowed; /* that many more are accepted */
};

static uint64_t want(void *arg, uint64_t offset)
{
	struct asked *a = arg;

	assert_true(offset < SIZE);
	if (!a->allowed)
		return 0;
	a->allowed--;
	a->pieces[offset / PIECE]++;
	a->total++;
	return (offset / PIECE + 1) * PIECE;
}

struct fixture {
	struct hct_streams streams;
	struct asked asked;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	hct_streams_init(&f->streams);
	f->asked.allowed = UINT32_MAX;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	hct_streams_destroy(&f->streams);
	free(f);
	return 0;
}

static void note(struct fixture *f, uint64_t offset, uint64_t length)
{
	hct_streams_note(&f->streams, offset, length, SIZE, 4 * MIB, 0, want, &f->asked);
}

static void test_one_stream(void **state)
{
	struct fixture *f = *state;

	note(f, 0, 128 * KIB);
	assert_int_equal(f->asked.total, 0);
	for (uint64_t at = 128 * KIB; at < SIZE; at += 128 * KIB) {
		note(f, at, 128 * KIB);
		/* Everything within reach was asked for before it is read. */
		if (at > 8 * MIB && at + 4 * MIB < SIZE)
			assert_int_equal(f->asked.pieces[(at + 4 * MIB) / PIECE - 1], 1);
		/* and not much more */
		if (at + 5 * MIB < SIZE)
			assert_int_equal(f->asked.pieces[(at + 5 * MIB) / PIECE], 0);
	}
	for (size_t i = 2; i < SIZE / PIECE; i++)
		assert_int_equal(f->asked.pieces[i], 1);
}

static void test_random_reads_ask_for_little(void **state)
{
	struct fixture *f = *state;
	uint64_t seed = 1;

	for (int i = 0; i < 10000; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		note(f, (seed >> 33) % (SIZE / (4 * KIB)) * (4 * KIB), 4 * KIB);
	}
	assert_true(f->asked.total < 200);
}

static void test_interleaved_streams(void **state)
{
	struct fixture *f = *state;
	uint64_t apart = SIZE / HCT_STREAMS;

	for (uint64_t at = 0; at < 8 * MIB; at += 128 * KIB)
		for (uint64_t s = 0; s < HCT_STREAMS; s++)
			note(f, s * apart + at, 128 * KIB);
	for (uint64_t s = 0; s < HCT_STREAMS; s++)
		for (uint64_t i = 2; i < 11 * MIB / PIECE; i++)
			assert_int_equal(f->asked.pieces[s * apart / PIECE + i], 1);
}

/* The kernel has several requests of 1 MiB in flight, taken by several threads. */
static void test_out_of_order(void **state)
{
	struct fixture *f = *state;
	static const unsigned order[] = {2, 0, 3, 1};

	for (uint64_t at = 0; at < 64 * MIB; at += 4 * MIB)
		for (int k = 0; k < 4; k++)
			note(f, at + order[k] * MIB, MIB);
	for (size_t i = 5 * MIB / PIECE; i < 67 * MIB / PIECE; i++)
		assert_int_equal(f->asked.pieces[i], 1);
}

static void test_refusal_is_tried_again(void **state)
{
	struct fixture *f = *state;

	f->asked.allowed = 3;
	note(f, 0, MIB);
	note(f, MIB, MIB);
	assert_int_equal(f->asked.total, 3);
	f->asked.allowed = UINT32_MAX;
	note(f, 2 * MIB, MIB);
	for (size_t i = 3 * MIB / PIECE; i < 6 * MIB / PIECE; i++)
		assert_int_equal(f->asked.pieces[i], 1);
}

static void test_end_of_file(void **state)
{
	struct fixture *f = *state;

	/* want checks that nothing behind the end is asked for. */
	note(f, SIZE - 3 * MIB, MIB);
	note(f, SIZE - 2 * MIB, MIB);
	note(f, SIZE - 1 * MIB, MIB);
	note(f, SIZE - 1, 1);
	assert_int_equal(f->asked.pieces[SIZE / PIECE - 1], 1);
}

/* A seventeenth reader takes the place of the one that has been silent for longest. */
static void test_more_readers_than_places(void **state)
{
	struct fixture *f = *state;
	unsigned before;

	for (uint64_t s = 0; s <= HCT_STREAMS; s++)
		note(f, s * 16 * MIB, 128 * KIB);
	before = f->asked.total;
	note(f, HCT_STREAMS * 16 * MIB + 128 * KIB, 128 * KIB);
	assert_true(f->asked.total > before);
	before = f->asked.total;
	note(f, 128 * KIB, 128 * KIB);
	assert_int_equal(f->asked.total, before);
}

/* Much is asked for at a time, and never less is ahead than half of what may be. */
static void test_in_halves(void **state)
{
	struct fixture *f = *state;
	unsigned least = UINT32_MAX, calls = 0;

	for (uint64_t at = 0; at + MIB <= SIZE; at += MIB) {
		unsigned before = f->asked.total;
		uint64_t ahead, end = at + MIB;

		hct_streams_note(&f->streams, at, MIB, SIZE, 32 * MIB, 1, want, &f->asked);
		ahead = at ? f->streams.streams[0].ahead : end;
		if (at >= 64 * MIB && end + 32 * MIB <= SIZE) {
			assert_true(ahead - end >= 16 * MIB && ahead - end <= 32 * MIB);
			if (f->asked.total > before) {
				calls++;
				if (f->asked.total - before < least)
					least = f->asked.total - before;
			}
		}
	}
	assert_true(calls > 10);
	assert_true(least * PIECE >= 16 * MIB);
	for (unsigned i = 8; i < SIZE / PIECE; i++)
		assert_int_equal(f->asked.pieces[i], 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_one_stream),
		TEST(test_in_halves),
		TEST(test_random_reads_ask_for_little),
		TEST(test_interleaved_streams),
		TEST(test_out_of_order),
		TEST(test_refusal_is_tried_again),
		TEST(test_end_of_file),
		TEST(test_more_readers_than_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
