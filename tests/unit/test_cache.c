/* cache.h: single flight, the bound, order of eviction, errors, waiting for room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/cache.h"

#define KIB 1024u
#define LEN ((size_t)64 * KIB)

/* Fills with a pattern of the key; fails for keys in `bad`. */
struct filler {
	atomic_uint fills, running, most_running;
	uint64_t bad;
	unsigned delay_us;
};

static hct_error fill(void *arg, uint64_t key, void *dst, size_t length)
{
	struct filler *f = arg;
	unsigned now = atomic_fetch_add(&f->running, 1) + 1, most = atomic_load(&f->most_running);

	while (now > most && !atomic_compare_exchange_weak(&f->most_running, &most, now))
		;
	atomic_fetch_add(&f->fills, 1);
	if (f->delay_us)
		usleep(f->delay_us);
	memset(dst, (int)(key & 0xFF), length);
	atomic_fetch_sub(&f->running, 1);
	return f->bad && key == f->bad ? HCT_ERR_CHECKSUM : HCT_OK;
}

static void expect(const struct hct_cache_pin *p, uint64_t key, size_t length)
{
	const uint8_t *data = p->data;

	assert_int_equal(p->length, length);
	assert_int_equal(data[0], key & 0xFF);
	assert_int_equal(data[length - 1], key & 0xFF);
	assert_int_equal(data[length / 2], key & 0xFF);
}

static void touch(hct_cache *c, struct filler *f, uint64_t key, size_t length)
{
	const struct hct_cache_pin *p;

	assert_int_equal(hct_cache_get(c, key, length, fill, f, &p), HCT_OK);
	expect(p, key, length);
	hct_cache_put(c, p);
}

static hct_cache *cache_of(uint64_t bytes)
{
	hct_cache *c;

	assert_int_equal(hct_cache_create(bytes, &c), HCT_OK);
	return c;
}

static void test_charge(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	(void)state;
	assert_int_equal(hct_cache_charge(1), page);
	for (size_t n = page; n < 64u << 20; n += n / 7 + 1) {
		assert_true(hct_cache_charge(n) >= n);
		assert_true(hct_cache_charge(n) - n < n / 4 + page);
	}
	assert_int_equal(hct_cache_charge(SIZE_MAX), SIZE_MAX);
}

static void test_oldest_goes_first(void **state)
{
	struct filler f = {0};
	hct_cache *c = cache_of(4 * LEN);
	struct hct_cache_stats s;

	(void)state;
	for (uint64_t k = 1; k <= 4; k++)
		touch(c, &f, k, LEN);
	touch(c, &f, 1, LEN);
	assert_int_equal(f.fills, 4);
	touch(c, &f, 5, LEN);
	assert_true(hct_cache_has(c, 1));
	assert_false(hct_cache_has(c, 2));
	assert_true(hct_cache_has(c, 3));
	touch(c, &f, 6, LEN);
	assert_false(hct_cache_has(c, 3));
	assert_true(hct_cache_has(c, 4));
	hct_cache_get_stats(c, &s);
	assert_int_equal(s.entries, 4);
	assert_int_equal(s.evictions, 2);
	assert_int_equal(s.hits, 1);
	assert_int_equal(s.bytes, 4 * LEN);
	hct_cache_free(c);
}

/* What was passed is used again before the cache grows, and before what was not. */
static void test_passed_goes_before_others(void **state)
{
	struct filler f = {0};
	uint64_t keep = HCT_CACHE_PASSED / LEN, bound = 8 * (uint64_t)HCT_CACHE_PASSED;
	hct_cache *c = cache_of(bound);
	const struct hct_cache_pin *p;
	struct hct_cache_stats s;

	(void)state;
	touch(c, &f, 1, LEN);
	for (uint64_t k = 100; k < 100 + 10 * keep; k++) {
		assert_int_equal(hct_cache_get(c, k, LEN, fill, &f, &p), HCT_OK);
		hct_cache_pass(c, p);
	}
	hct_cache_get_stats(c, &s);
	assert_true(s.peak_bytes <= HCT_CACHE_PASSED + 4 * LEN);
	assert_true(hct_cache_has(c, 1));
	assert_true(hct_cache_has(c, 100 + 10 * keep - keep));
	assert_false(hct_cache_has(c, 100));
	/* Who asks again takes it back. */
	touch(c, &f, 100 + 10 * keep - 1, LEN);
	for (uint64_t k = 5000; k < 5000 + 2 * keep; k++) {
		assert_int_equal(hct_cache_get(c, k, LEN, fill, &f, &p), HCT_OK);
		hct_cache_pass(c, p);
	}
	assert_true(hct_cache_has(c, 100 + 10 * keep - 1));
	hct_cache_free(c);
}

static void test_peek_and_try(void **state)
{
	struct filler f = {0};
	hct_cache *c = cache_of(2 * LEN);
	const struct hct_cache_pin *a, *b, *p;

	(void)state;
	assert_null(hct_cache_peek(c, 1));
	assert_int_equal(hct_cache_try_get(c, 1, LEN, fill, &f, &a), HCT_OK);
	b = hct_cache_peek(c, 1);
	assert_ptr_equal(a, b);
	hct_cache_put(c, b);
	assert_int_equal(hct_cache_try_get(c, 2, LEN, fill, &f, &b), HCT_OK);
	/* Both pinned: no room. */
	assert_int_equal(hct_cache_try_get(c, 3, LEN, fill, &f, &p), HCT_OK);
	assert_null(p);
	hct_cache_put(c, a);
	assert_int_equal(hct_cache_try_get(c, 3, LEN, fill, &f, &p), HCT_OK);
	expect(p, 3, LEN);
	assert_null(hct_cache_peek(c, 1));
	hct_cache_put(c, p);
	hct_cache_put(c, b);
	assert_int_equal(hct_cache_get(c, 9, 3 * LEN, fill, &f, &p), HCT_ERR_LIMIT);
	assert_null(p);
	hct_cache_free(c);
}

/* Sizes that differ: the bound is of what is mapped. */
static void test_bound_with_mixed_sizes(void **state)
{
	struct filler f = {0};
	uint64_t bound = 40 * LEN, seed = 1;
	hct_cache *c = cache_of(bound);
	struct hct_cache_stats s;

	(void)state;
	for (int i = 0; i < 5000; i++) {
		size_t length;
		uint64_t key;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		key = (seed >> 40) % 300;
		length = 1 + (size_t)(key * key * 37 % (8 * LEN));
		touch(c, &f, key, length);
		hct_cache_get_stats(c, &s);
		assert_true(s.bytes <= bound);
	}
	assert_true(s.peak_bytes <= bound);
	assert_true(s.evictions > 100);
	hct_cache_free(c);
}

struct crowd {
	hct_cache *c;
	struct filler *f;
	pthread_barrier_t start;
	uint64_t keys, bound;
	unsigned rounds, span;
	atomic_uint errors, wrong, over;
};

static void *ask_together(void *arg)
{
	struct crowd *w = arg;

	for (uint64_t key = 1; key <= w->keys; key++) {
		const struct hct_cache_pin *p;

		pthread_barrier_wait(&w->start);
		if (hct_cache_get(w->c, key, LEN, fill, w->f, &p) != HCT_OK) {
			atomic_fetch_add(&w->errors, 1);
			continue;
		}
		if (((const uint8_t *)p->data)[LEN - 1] != (key & 0xFF))
			atomic_fetch_add(&w->wrong, 1);
		hct_cache_put(w->c, p);
	}
	return NULL;
}

#define CROWD 8

static void run_crowd(struct crowd *w, void *(*body)(void *))
{
	pthread_t threads[CROWD];

	pthread_barrier_init(&w->start, NULL, CROWD);
	for (int i = 0; i < CROWD; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, body, w), 0);
	for (int i = 0; i < CROWD; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&w->start);
}

static void test_single_flight(void **state)
{
	struct filler f = {.delay_us = 500};
	struct crowd w = {.c = cache_of(64 * LEN), .f = &f, .keys = 50};

	(void)state;
	run_crowd(&w, ask_together);
	assert_int_equal(f.fills, 50);
	assert_int_equal(w.errors, 0);
	assert_int_equal(w.wrong, 0);
	hct_cache_free(w.c);
}

/* Those who wait get the error; it is not kept. */
static void test_failure_reaches_all(void **state)
{
	struct filler f = {.delay_us = 100000, .bad = 1};
	struct crowd w = {.c = cache_of(64 * LEN), .f = &f, .keys = 1};
	struct hct_cache_stats s;
	const struct hct_cache_pin *p;
	unsigned fills;

	(void)state;
	run_crowd(&w, ask_together);
	assert_int_equal(w.errors, CROWD);
	fills = f.fills;
	assert_true(fills < CROWD);
	assert_false(hct_cache_has(w.c, 1));
	assert_int_equal(hct_cache_get(w.c, 1, LEN, fill, &f, &p), HCT_ERR_CHECKSUM);
	assert_null(p);
	assert_int_equal(f.fills, fills + 1);
	f.bad = 0;
	touch(w.c, &f, 1, LEN);
	hct_cache_get_stats(w.c, &s);
	assert_int_equal(s.failures, fills + 1);
	assert_int_equal(s.entries, 1);
	hct_cache_free(w.c);
}

/* Each thread holds `span` entries at a time, of a cache that all of them together fill. */
static void *hold_some(void *arg)
{
	struct crowd *w = arg;
	uint64_t seed = (uint64_t)(uintptr_t)&seed;

	for (unsigned i = 0; i < w->rounds; i++) {
		const struct hct_cache_pin *pins[4];
		struct hct_cache_stats s;
		uint64_t first;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		first = (seed >> 40) % w->keys;
		for (unsigned k = 0; k < w->span; k++)
			if (hct_cache_get(w->c, first + k, LEN, fill, w->f, &pins[k]) != HCT_OK)
				abort();
		for (unsigned k = 0; k < w->span; k++) {
			if (((const uint8_t *)pins[k]->data)[7] != ((first + k) & 0xFF))
				atomic_fetch_add(&w->wrong, 1);
			(i + k) % 3 ? hct_cache_put(w->c, pins[k]) : hct_cache_pass(w->c, pins[k]);
		}
		hct_cache_get_stats(w->c, &s);
		if (s.peak_bytes > w->bound)
			atomic_fetch_add(&w->over, 1);
	}
	return NULL;
}

static void test_bound_under_load(void **state)
{
	struct filler f = {0};
	uint64_t bound = (uint64_t)CROWD * 4 * LEN;
	struct crowd w = {.c = cache_of(bound),
			  .f = &f,
			  .keys = 100,
			  .rounds = 1000,
			  .span = 4,
			  .bound = bound};

	(void)state;
	run_crowd(&w, hold_some);
	assert_int_equal(w.wrong, 0);
	assert_int_equal(w.over, 0);
	assert_true(f.most_running > 1);
	hct_cache_free(w.c);
}

static void *get_one(void *arg)
{
	struct crowd *w = arg;
	const struct hct_cache_pin *p;

	if (hct_cache_get(w->c, 3, LEN, fill, w->f, &p) != HCT_OK)
		abort();
	hct_cache_put(w->c, p);
	atomic_store(&w->over, 1);
	return NULL;
}

static void test_waits_for_room(void **state)
{
	struct filler f = {0};
	struct crowd w = {.c = cache_of(2 * LEN), .f = &f};
	const struct hct_cache_pin *a, *b;
	pthread_t thread;

	(void)state;
	assert_int_equal(hct_cache_get(w.c, 1, LEN, fill, &f, &a), HCT_OK);
	assert_int_equal(hct_cache_get(w.c, 2, LEN, fill, &f, &b), HCT_OK);
	assert_int_equal(pthread_create(&thread, NULL, get_one, &w), 0);
	usleep(50000);
	assert_int_equal(w.over, 0);
	expect(a, 1, LEN);
	hct_cache_put(w.c, a);
	pthread_join(thread, NULL);
	assert_int_equal(w.over, 1);
	hct_cache_put(w.c, b);
	hct_cache_free(w.c);
}

static void *get_seven(void *cache)
{
	struct filler f = {0};
	const struct hct_cache_pin *p;
	hct_error e = hct_cache_get(cache, 7, LEN, fill, &f, &p);

	if (e)
		return (void *)(uintptr_t)e;
	expect(p, 7, LEN);
	hct_cache_put(cache, p);
	return (void *)(uintptr_t)(f.fills ? 1000 : 0);
}

/* One thread fills several entries; others wait for them, and get what came of it. */
static void test_begin_and_end(void **state)
{
	const struct hct_cache_pin *p[4], *none;
	hct_cache *c = cache_of(4 * LEN);
	struct filler f = {0};
	struct hct_cache_stats s;
	void *dst[4], *other, *result;
	pthread_t waiter;

	(void)state;
	for (int round = 0; round < 2; round++) {
		hct_error outcome = round ? HCT_OK : HCT_ERR_CHECKSUM;

		for (uint64_t k = 0; k < 4; k++) {
			p[k] = hct_cache_begin(c, 7 + k, LEN, &dst[k]);
			assert_non_null(p[k]);
			assert_null(hct_cache_begin(c, 7 + k, LEN, &other));
			assert_true(hct_cache_has(c, 7 + k));
			assert_null(hct_cache_peek(c, 7 + k));
			assert_int_equal(hct_cache_try_get(c, 7 + k, LEN, fill, &f, &none), HCT_OK);
			assert_null(none);
		}
		/* no room, whatever is asked for */
		assert_null(hct_cache_begin(c, 99, LEN, &other));
		assert_null(hct_cache_begin(c, 99, 8 * LEN, &other));
		assert_false(hct_cache_has(c, 99));
		assert_int_equal(pthread_create(&waiter, NULL, get_seven, c), 0);
		usleep(20000);
		for (uint64_t k = 0; k < 4; k++) {
			memset(dst[k], (int)(7 + k), LEN);
			hct_cache_end(c, p[k], k ? HCT_OK : outcome);
		}
		pthread_join(waiter, &result);
		/* who comes after a failure tries again */
		assert_true((uintptr_t)result == outcome || (uintptr_t)result == 1000);
		for (uint64_t k = 1; k < 4; k++)
			touch(c, &f, 7 + k, LEN);
		assert_int_equal(f.fills, 0);
		if (!round) {
			touch(c, &f, 7, LEN);
			for (uint64_t k = 20; k < 24; k++)
				touch(c, &f, k, LEN);
			assert_int_equal(f.fills, 5);
			f.fills = 0;
		}
	}
	hct_cache_get_stats(c, &s);
	assert_true(s.failures == 1 && s.peak_bytes == 4 * LEN && s.entries == 4);
	hct_cache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_begin_and_end),
		cmocka_unit_test(test_charge),
		cmocka_unit_test(test_oldest_goes_first),
		cmocka_unit_test(test_passed_goes_before_others),
		cmocka_unit_test(test_peek_and_try),
		cmocka_unit_test(test_bound_with_mixed_sizes),
		cmocka_unit_test(test_single_flight),
		cmocka_unit_test(test_failure_reaches_all),
		cmocka_unit_test(test_bound_under_load),
		cmocka_unit_test(test_waits_for_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
