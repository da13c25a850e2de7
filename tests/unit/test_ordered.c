/* ordered.h: work by many threads, results taken in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <time.h>

#include "fs/ordered.h"

struct job {
	atomic_ulong begun;
	uint64_t taken, stopped; /* results; those that came after a stop */
	uint64_t stop_at;        /* take asks to stop at this item */
	uint64_t tick_stop_at;   /* tick does, when this many are taken */
	uint64_t slow;           /* this item takes long */
	uint64_t most_ahead;     /* of what was taken */
	unsigned ticks, threads;
	int failed;
};

struct result {
	uint64_t item, was;
	char filler[100];
};

static void work(void *arg, uint64_t item, void *result, unsigned worker)
{
	struct job *j = arg;
	struct result *r = result;

	atomic_fetch_add(&j->begun, 1);
	if (worker >= j->threads)
		j->failed = 1;
	if (item == j->slow)
		nanosleep(&(struct timespec){.tv_nsec = 350000000}, NULL);
	r->was = r->item; /* zero */
	r->item = item + 1;
	r->filler[99] = 1;
}

static int take(void *arg, uint64_t item, void *result, int stop)
{
	struct job *j = arg;
	struct result *r = result;
	uint64_t ahead = atomic_load(&j->begun) - j->taken;

	if (ahead > j->most_ahead)
		j->most_ahead = ahead;
	if (item != j->taken || r->item != item + 1 || r->was != 0 || r->filler[99] != 1)
		j->failed = 1;
	j->taken++;
	j->stopped += stop != 0;
	return item == j->stop_at;
}

static int tick(void *arg)
{
	struct job *j = arg;

	j->ticks++;
	return j->taken >= j->tick_stop_at;
}

#define NEVER UINT64_MAX

static void run(struct job *j, unsigned threads, uint64_t count)
{
	struct hct_ordered o = {work, take, tick, j, sizeof(struct result)};
	hct_pool *pool;

	j->threads = threads;
	assert_int_equal(hct_pool_create(threads, 3, &pool), HCT_OK);
	assert_int_equal(hct_ordered_run(&o, pool, count), HCT_OK);
	hct_pool_free(pool);
	assert_false(j->failed);
}

static void results_come_in_order(void **state)
{
	(void)state;
	for (unsigned threads = 1; threads <= 8; threads *= 2) {
		struct job j = {.stop_at = NEVER, .tick_stop_at = NEVER, .slow = 7};

		run(&j, threads, 5000);
		assert_int_equal(j.taken, 5000);
		assert_int_equal(j.stopped, 0);
		assert_true(j.most_ahead <= 8 * threads);
		/* It goes on ticking while the slow item keeps it waiting. */
		assert_true(j.ticks >= 3);
	}
}

static void nothing_to_do(void **state)
{
	struct job j = {.stop_at = NEVER, .tick_stop_at = NEVER, .slow = NEVER};

	(void)state;
	run(&j, 2, 0);
	assert_int_equal(j.taken, 0);
}

static void take_stops_it(void **state)
{
	struct job j = {.stop_at = 100, .tick_stop_at = NEVER, .slow = NEVER};

	(void)state;
	run(&j, 4, 1000000);
	assert_int_equal(j.taken, atomic_load(&j.begun));
	assert_int_equal(j.stopped, j.taken - 101);
	assert_true(j.taken <= 101 + 32);
}

static void tick_stops_it(void **state)
{
	struct job j = {.stop_at = NEVER, .tick_stop_at = 50, .slow = NEVER};

	(void)state;
	run(&j, 4, 1000000);
	assert_int_equal(j.taken, atomic_load(&j.begun));
	assert_true(j.stopped > 0);
	assert_true(j.taken <= 50 + 33);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(results_come_in_order),
		cmocka_unit_test(nothing_to_do),
		cmocka_unit_test(take_stops_it),
		cmocka_unit_test(tick_stops_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
