#include "ordered.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TICK_NSEC 100000000L

struct run;

struct slot {
	struct run *run;
	uint64_t item;
	void *result;
	int done; /* under run->lock */
};

struct run {
	const struct hct_ordered *o;
	pthread_mutex_t lock;
	pthread_cond_t changed;
};

static void slot_job(void *arg, unsigned worker)
{
	struct slot *slot = arg;
	struct run *run = slot->run;

	run->o->work(run->o->arg, slot->item, slot->result, worker);
	/* Signalled under the lock: once the runner sees `done` it may free the run. */
	pthread_mutex_lock(&run->lock);
	slot->done = 1;
	pthread_cond_signal(&run->changed);
	pthread_mutex_unlock(&run->lock);
}

/* Waits for a slot for at most one tick; returns whether it is done. */
static int wait_done(struct run *run, struct slot *slot)
{
	struct timespec until;
	int done;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += TICK_NSEC;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	pthread_mutex_lock(&run->lock);
	while (!slot->done && pthread_cond_timedwait(&run->changed, &run->lock, &until) == 0)
		;
	done = slot->done;
	pthread_mutex_unlock(&run->lock);
	return done;
}

static void run_items(struct run *run, hct_pool *pool, struct slot *slots, size_t slot_count,
		      uint64_t count)
{
	const struct hct_ordered *o = run->o;
	uint64_t begun = 0, taken = 0;
	int stop = 0;

	while (taken < begun || (begun < count && !stop)) {
		if (o->tick && o->tick(o->arg))
			stop = 1;
		if (!stop && begun < count && begun - taken < slot_count) {
			struct slot *slot = &slots[begun % slot_count];

			slot->item = begun++;
			slot->done = 0;
			memset(slot->result, 0, o->result_size);
			hct_pool_submit(pool, slot_job, slot);
			continue;
		}
		if (taken == begun)
			break;
		struct slot *slot = &slots[taken % slot_count];
		if (wait_done(run, slot)) {
			if (o->take(o->arg, taken, slot->result, stop))
				stop = 1;
			taken++;
		}
	}
}

hct_error hct_ordered_run(const struct hct_ordered *o, hct_pool *pool, uint64_t count)
{
	/* Enough that an item which takes longer than others does not leave threads idle. */
	size_t slot_count = 8 * (size_t)hct_pool_threads(pool);
	size_t stride = (o->result_size + 63) / 64 * 64;
	struct slot *slots = calloc(slot_count, sizeof(*slots));
	char *results = calloc(slot_count, stride ? stride : 1);
	struct run run = {.o = o};
	pthread_condattr_t monotonic;
	hct_error err = HCT_ERR_NOMEM;

	if (slots && results) {
		pthread_mutex_init(&run.lock, NULL);
		pthread_condattr_init(&monotonic);
		pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
		pthread_cond_init(&run.changed, &monotonic);
		pthread_condattr_destroy(&monotonic);
		for (size_t i = 0; i < slot_count; i++) {
			slots[i].run = &run;
			slots[i].result = results + i * stride;
		}
		run_items(&run, pool, slots, slot_count, count);
		pthread_cond_destroy(&run.changed);
		pthread_mutex_destroy(&run.lock);
		err = HCT_OK;
	}
	free(results);
	free(slots);
	return err;
}
