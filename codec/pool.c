#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

struct job {
	hct_job run;
	void *arg;
};

struct worker {
	hct_pool *pool;
	pthread_t thread;
	unsigned number;
	uint64_t ticket; /* of the job that it runs, or IDLE */
};

#define IDLE UINT64_MAX

struct hct_pool {
	pthread_mutex_t lock; /* over all that follows */
	pthread_cond_t not_empty, not_full, ended;
	struct job *ring;
	size_t capacity;
	/* Jobs are numbered; those in the queue are [taken, given). */
	uint64_t taken, given;
	unsigned waiters; /* threads in hct_pool_wait */
	int stop;
	unsigned threads;
	struct worker workers[];
};

unsigned hct_pool_default_threads(void)
{
	/* The kernel refuses a set that is smaller than its own. */
	for (int cpus = 1024; cpus <= 1 << 20; cpus *= 4) {
		cpu_set_t *set = CPU_ALLOC(cpus);
		size_t size = CPU_ALLOC_SIZE(cpus);
		int count = 0;

		if (!set)
			break;
		if (sched_getaffinity(0, size, set) == 0)
			count = CPU_COUNT_S(size, set);
		CPU_FREE(set);
		if (count > 0)
			return (unsigned)count;
	}
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	return online > 0 ? (unsigned)online : 1;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	hct_pool *p = w->pool;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		while (p->taken == p->given && !p->stop)
			pthread_cond_wait(&p->not_empty, &p->lock);
		if (p->taken == p->given)
			break;
		struct job job = p->ring[p->taken % p->capacity];
		w->ticket = p->taken++;
		pthread_cond_signal(&p->not_full);
		pthread_mutex_unlock(&p->lock);

		job.run(job.arg, w->number);

		pthread_mutex_lock(&p->lock);
		w->ticket = IDLE;
		if (p->waiters > 0)
			pthread_cond_broadcast(&p->ended);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* Starts the threads with every signal blocked that is sent from outside, so that
 * SIGINT and its like reach the threads of the program; faults stay with the thread
 * that caused them.  Returns how many were started. */
static unsigned start_threads(hct_pool *p)
{
	sigset_t blocked, before;
	unsigned i;

	sigfillset(&blocked);
	sigdelset(&blocked, SIGBUS);
	sigdelset(&blocked, SIGSEGV);
	sigdelset(&blocked, SIGFPE);
	sigdelset(&blocked, SIGILL);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	for (i = 0; i < p->threads; i++) {
		struct worker *w = &p->workers[i];

		w->pool = p;
		w->number = i;
		w->ticket = IDLE;
		if (pthread_create(&w->thread, NULL, work, w) != 0)
			break;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return i;
}

hct_error hct_pool_create(unsigned threads, size_t queue, hct_pool **out)
{
	*out = NULL;
	if (threads == 0 || queue == 0)
		return HCT_ERR_ARGUMENT;

	hct_pool *p = calloc(1, sizeof(*p) + threads * sizeof(p->workers[0]));
	if (!p)
		return HCT_ERR_NOMEM;
	p->ring = calloc(queue, sizeof(p->ring[0]));
	if (!p->ring) {
		free(p);
		return HCT_ERR_NOMEM;
	}
	p->capacity = queue;
	p->threads = threads;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->not_empty, NULL);
	pthread_cond_init(&p->not_full, NULL);
	pthread_cond_init(&p->ended, NULL);

	unsigned started = start_threads(p);
	if (started < threads) {
		p->threads = started;
		hct_pool_free(p);
		return HCT_ERR_NOMEM;
	}
	*out = p;
	return HCT_OK;
}

void hct_pool_free(hct_pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = 1;
	pthread_cond_broadcast(&p->not_empty);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->threads; i++)
		pthread_join(p->workers[i].thread, NULL);
	pthread_cond_destroy(&p->ended);
	pthread_cond_destroy(&p->not_full);
	pthread_cond_destroy(&p->not_empty);
	pthread_mutex_destroy(&p->lock);
	free(p->ring);
	free(p);
}

unsigned hct_pool_threads(const hct_pool *p)
{
	return p->threads;
}

static int full(const hct_pool *p)
{
	return p->given - p->taken == p->capacity;
}

static void push(hct_pool *p, hct_job job, void *arg)
{
	p->ring[p->given++ % p->capacity] = (struct job){job, arg};
	pthread_cond_signal(&p->not_empty);
}

void hct_pool_submit(hct_pool *p, hct_job job, void *arg)
{
	pthread_mutex_lock(&p->lock);
	while (full(p))
		pthread_cond_wait(&p->not_full, &p->lock);
	push(p, job, arg);
	pthread_mutex_unlock(&p->lock);
}

int hct_pool_try_submit(hct_pool *p, hct_job job, void *arg)
{
	pthread_mutex_lock(&p->lock);
	int fits = !full(p);
	if (fits)
		push(p, job, arg);
	pthread_mutex_unlock(&p->lock);
	return fits;
}

/* Jobs start in order, so what has not ended before job `end` is in the queue or in
 * the hands of a worker. */
static int ended_before(const hct_pool *p, uint64_t end)
{
	if (p->taken < end)
		return 0;
	for (unsigned i = 0; i < p->threads; i++) {
		if (p->workers[i].ticket < end)
			return 0;
	}
	return 1;
}

void hct_pool_wait(hct_pool *p)
{
	pthread_mutex_lock(&p->lock);
	uint64_t end = p->given;
	p->waiters++;
	while (!ended_before(p, end))
		pthread_cond_wait(&p->ended, &p->lock);
	p->waiters--;
	pthread_mutex_unlock(&p->lock);
}
