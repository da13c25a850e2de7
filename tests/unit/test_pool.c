/* pool.h: no job is lost, none runs twice, and waiting means what it says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "codec/pool.h"

static void count_up(void *arg, unsigned worker)
{
	(void)worker;
	atomic_fetch_add((atomic_int *)arg, 1);
}

/* A door that keeps a job from ending. */
struct door {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int open;
	int waiting;
};

#define DOOR                                                                                       \
	{                                                                                          \
		PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0                          \
	}

static void wait_at_door(void *arg, unsigned worker)
{
	struct door *d = arg;

	(void)worker;
	pthread_mutex_lock(&d->lock);
	d->waiting++;
	pthread_cond_broadcast(&d->changed);
	while (!d->open)
		pthread_cond_wait(&d->changed, &d->lock);
	pthread_mutex_unlock(&d->lock);
}

static void until_waiting(struct door *d, int count)
{
	pthread_mutex_lock(&d->lock);
	while (d->waiting < count)
		pthread_cond_wait(&d->changed, &d->lock);
	pthread_mutex_unlock(&d->lock);
}

static void open_door(struct door *d)
{
	pthread_mutex_lock(&d->lock);
	d->open = 1;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
}

static void default_threads_follow_the_affinity(void **state)
{
	cpu_set_t all, one;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	assert_int_equal(hct_pool_default_threads(), CPU_COUNT(&all));
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &all)) {
			CPU_SET(i, &one);
			break;
		}
	}
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	assert_int_equal(hct_pool_default_threads(), 1);
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

static void refuses_no_threads_and_no_queue(void **state)
{
	hct_pool *p = (hct_pool *)state;

	assert_int_equal(hct_pool_create(0, 1, &p), HCT_ERR_ARGUMENT);
	assert_null(p);
	p = (hct_pool *)state;
	assert_int_equal(hct_pool_create(1, 0, &p), HCT_ERR_ARGUMENT);
	assert_null(p);
	hct_pool_free(NULL);
}

static void every_job_runs_once(void **state)
{
	enum { JOBS = 20000 };
	static atomic_int done[JOBS];

	(void)state;
	for (unsigned threads = 1; threads <= 8; threads += 7) {
		for (size_t queue = 1; queue <= 64; queue *= 8) {
			hct_pool *p;

			assert_int_equal(hct_pool_create(threads, queue, &p), HCT_OK);
			assert_int_equal(hct_pool_threads(p), threads);
			for (int i = 0; i < JOBS; i++)
				atomic_store(&done[i], 0);
			for (int i = 0; i < JOBS; i++)
				hct_pool_submit(p, count_up, &done[i]);
			hct_pool_wait(p);
			for (int i = 0; i < JOBS; i++)
				assert_int_equal(atomic_load(&done[i]), 1);
			hct_pool_free(p);
		}
	}
}

static void free_runs_what_is_queued(void **state)
{
	(void)state;
	for (int round = 0; round < 50; round++) {
		atomic_int done = 0;
		hct_pool *p;

		assert_int_equal(hct_pool_create(3, 100, &p), HCT_OK);
		for (int i = 0; i < 100; i++)
			hct_pool_submit(p, count_up, &done);
		hct_pool_free(p);
		assert_int_equal(atomic_load(&done), 100);
	}
}

static void wait_without_jobs_returns(void **state)
{
	hct_pool *p;

	(void)state;
	assert_int_equal(hct_pool_create(2, 4, &p), HCT_OK);
	hct_pool_wait(p);
	hct_pool_wait(p);
	hct_pool_free(p);
}

struct order {
	int next;
	int wrong;
};
struct numbered {
	struct order *order;
	int number;
};

static void note_order(void *arg, unsigned worker)
{
	struct numbered *n = arg;

	if (n->order->next++ != n->number || worker != 0)
		n->order->wrong++;
}

/* One thread: so the jobs may share plain memory, and TSan would say otherwise. */
static void jobs_start_in_order(void **state)
{
	enum { JOBS = 1000 };
	static struct numbered jobs[JOBS];
	struct order order = {0};
	hct_pool *p;

	(void)state;
	assert_int_equal(hct_pool_create(1, 7, &p), HCT_OK);
	for (int i = 0; i < JOBS; i++) {
		jobs[i] = (struct numbered){&order, i};
		hct_pool_submit(p, note_order, &jobs[i]);
	}
	hct_pool_wait(p);
	assert_int_equal(order.next, JOBS);
	assert_int_equal(order.wrong, 0);
	hct_pool_free(p);
}

struct per_worker {
	unsigned threads;
	int jobs[4]; /* plain memory: each worker has its own */
	atomic_int outside;
};

static void use_own_memory(void *arg, unsigned worker)
{
	struct per_worker *w = arg;

	if (worker < w->threads)
		w->jobs[worker]++;
	else
		atomic_fetch_add(&w->outside, 1);
}

static void worker_numbers_are_exclusive(void **state)
{
	struct per_worker w = {.threads = 4};
	int sum = 0;
	hct_pool *p;

	(void)state;
	assert_int_equal(hct_pool_create(4, 16, &p), HCT_OK);
	for (int i = 0; i < 20000; i++)
		hct_pool_submit(p, use_own_memory, &w);
	hct_pool_wait(p);
	for (int i = 0; i < 4; i++)
		sum += w.jobs[i];
	assert_int_equal(sum, 20000);
	assert_int_equal(atomic_load(&w.outside), 0);
	hct_pool_free(p);
}

static void jobs_run_side_by_side(void **state)
{
	struct door door = DOOR;
	hct_pool *p;

	(void)state;
	assert_int_equal(hct_pool_create(3, 1, &p), HCT_OK);
	for (int i = 0; i < 3; i++)
		hct_pool_submit(p, wait_at_door, &door);
	until_waiting(&door, 3);
	open_door(&door);
	hct_pool_free(p);
}

static void a_full_queue_is_told(void **state)
{
	struct door door = DOOR;
	atomic_int done = 0;
	hct_pool *p;

	(void)state;
	assert_int_equal(hct_pool_create(1, 2, &p), HCT_OK);
	assert_int_equal(hct_pool_try_submit(p, wait_at_door, &door), 1);
	until_waiting(&door, 1);
	assert_int_equal(hct_pool_try_submit(p, count_up, &done), 1);
	assert_int_equal(hct_pool_try_submit(p, count_up, &done), 1);
	assert_int_equal(hct_pool_try_submit(p, count_up, &done), 0);
	assert_int_equal(hct_pool_try_submit(p, count_up, &done), 0);
	open_door(&door);
	hct_pool_wait(p);
	assert_int_equal(atomic_load(&done), 2);
	assert_int_equal(hct_pool_try_submit(p, count_up, &done), 1);
	hct_pool_free(p);
	assert_int_equal(atomic_load(&done), 3);
}

struct submitter {
	hct_pool *pool;
	atomic_int *done;
	atomic_int stop;
	atomic_int submitted;
};

static void *submit_three(void *arg)
{
	struct submitter *s = arg;

	for (int i = 0; i < 3; i++) {
		hct_pool_submit(s->pool, count_up, s->done);
		atomic_fetch_add(&s->submitted, 1);
	}
	return NULL;
}

static void submit_blocks_while_full(void **state)
{
	struct door door = DOOR;
	atomic_int done = 0;
	struct submitter s = {.done = &done};
	pthread_t thread;

	(void)state;
	assert_int_equal(hct_pool_create(1, 2, &s.pool), HCT_OK);
	hct_pool_submit(s.pool, wait_at_door, &door);
	until_waiting(&door, 1);
	assert_int_equal(pthread_create(&thread, NULL, submit_three, &s), 0);
	while (atomic_load(&s.submitted) < 2)
		sched_yield();
	usleep(20000);
	assert_int_equal(atomic_load(&s.submitted), 2);
	open_door(&door);
	pthread_join(thread, NULL);
	hct_pool_wait(s.pool);
	assert_int_equal(atomic_load(&done), 3);
	hct_pool_free(s.pool);
}

static void *submit_until_stopped(void *arg)
{
	struct submitter *s = arg;

	while (!atomic_load(&s->stop)) {
		hct_pool_submit(s->pool, count_up, s->done);
		atomic_fetch_add(&s->submitted, 1);
	}
	return NULL;
}

/* Somebody who never stops giving jobs does not keep a waiter from its return. */
static void wait_is_for_jobs_so_far(void **state)
{
	atomic_int done = 0, mine = 0;
	struct submitter s = {.done = &done};
	pthread_t threads[2];

	(void)state;
	assert_int_equal(hct_pool_create(2, 8, &s.pool), HCT_OK);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, submit_until_stopped, &s), 0);
	for (int i = 1; i <= 200; i++) {
		hct_pool_submit(s.pool, count_up, &mine);
		hct_pool_wait(s.pool);
		assert_int_equal(atomic_load(&mine), i);
	}
	atomic_store(&s.stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	hct_pool_wait(s.pool);
	assert_int_equal(atomic_load(&done), atomic_load(&s.submitted));
	hct_pool_free(s.pool);
}

struct waiter {
	hct_pool *pool;
	atomic_int returned;
};

static void *wait_for_pool(void *arg)
{
	struct waiter *w = arg;

	hct_pool_wait(w->pool);
	atomic_store(&w->returned, 1);
	return NULL;
}

/* A job that runs long is waited for although jobs given after it have ended. */
static void wait_is_for_slow_jobs_too(void **state)
{
	struct door door = DOOR;
	atomic_int done = 0;
	struct waiter w = {0};
	pthread_t thread;

	(void)state;
	assert_int_equal(hct_pool_create(2, 8, &w.pool), HCT_OK);
	hct_pool_submit(w.pool, wait_at_door, &door);
	until_waiting(&door, 1);
	assert_int_equal(pthread_create(&thread, NULL, wait_for_pool, &w), 0);
	for (int i = 0; i < 100; i++)
		hct_pool_submit(w.pool, count_up, &done);
	while (atomic_load(&done) < 100)
		sched_yield();
	usleep(20000);
	assert_int_equal(atomic_load(&w.returned), 0);
	open_door(&door);
	pthread_join(thread, NULL);
	assert_int_equal(atomic_load(&w.returned), 1);
	hct_pool_free(w.pool);
}

static void note_signals(void *arg, unsigned worker)
{
	sigset_t *set = arg;

	(void)worker;
	pthread_sigmask(SIG_BLOCK, NULL, set);
}

static void threads_leave_signals_to_the_program(void **state)
{
	sigset_t set, only, before, after;
	hct_pool *p;

	(void)state;
	sigemptyset(&only);
	sigaddset(&only, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &only, &before);
	assert_int_equal(hct_pool_create(1, 1, &p), HCT_OK);
	pthread_sigmask(SIG_BLOCK, NULL, &after);
	assert_false(sigismember(&after, SIGINT));
	assert_true(sigismember(&after, SIGUSR1));
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	hct_pool_submit(p, note_signals, &set);
	hct_pool_free(p);
	assert_true(sigismember(&set, SIGINT));
	assert_true(sigismember(&set, SIGTERM));
	assert_true(sigismember(&set, SIGALRM));
	assert_false(sigismember(&set, SIGBUS));
	assert_false(sigismember(&set, SIGSEGV));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(default_threads_follow_the_affinity),
		cmocka_unit_test(refuses_no_threads_and_no_queue),
		cmocka_unit_test(every_job_runs_once),
		cmocka_unit_test(free_runs_what_is_queued),
		cmocka_unit_test(wait_without_jobs_returns),
		cmocka_unit_test(jobs_start_in_order),
		cmocka_unit_test(worker_numbers_are_exclusive),
		cmocka_unit_test(jobs_run_side_by_side),
		cmocka_unit_test(a_full_queue_is_told),
		cmocka_unit_test(submit_blocks_while_full),
		cmocka_unit_test(wait_is_for_jobs_so_far),
		cmocka_unit_test(wait_is_for_slow_jobs_too),
		cmocka_unit_test(threads_leave_signals_to_the_program),
	};

	alarm(300); /* a job that is lost would be waited for without end */
	return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
