#include "work.h"

#include <stdarg.h>
#include <stdio.h>

void hct_backend_say(hct_backend *b, const char *format, ...)
{
	char line[sizeof(struct hct_diag) + 256];
	va_list args;

	if (!b->log)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	pthread_mutex_lock(&b->log_lock);
	b->log(b->log_arg, line);
	pthread_mutex_unlock(&b->log_lock);
}

struct run {
	struct hct_work *work;
	hct_job job;
};

static void run_job(void *arg, unsigned worker)
{
	const struct run *run = arg;
	struct hct_work *w = run->work;

	run->job(w, worker);
	/* Signalled under the lock: once the last one has ended the work may be gone. */
	pthread_mutex_lock(&w->lock);
	if (--w->running == 0)
		pthread_cond_signal(&w->ended);
	pthread_mutex_unlock(&w->lock);
}

void hct_work_run(struct hct_work *w, hct_job job, unsigned jobs)
{
	struct run run = {w, job};

	w->running = jobs;
	for (unsigned i = 0; i < jobs; i++)
		hct_pool_submit(w->b->pool, run_job, &run);
	pthread_mutex_lock(&w->lock);
	while (w->running)
		pthread_cond_wait(&w->ended, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

size_t hct_work_take(struct hct_work *w, uint64_t bytes, size_t most, size_t *first)
{
	uint64_t sum = 0;
	size_t n = 0;

	pthread_mutex_lock(&w->lock);
	*first = w->next;
	while (n < most && w->next < w->count) {
		const struct hct_piece *p = &w->pieces[w->next];

		sum += p->end - p->begin;
		if (n && sum > bytes)
			break;
		n++;
		w->next++;
	}
	pthread_mutex_unlock(&w->lock);
	return n;
}

void hct_work_fail(struct hct_work *w, size_t i, hct_error e, const struct hct_diag *diag)
{
	pthread_mutex_lock(&w->lock);
	w->pieces[i].error = e;
	if (i < w->first_bad) {
		w->first_bad = i;
		w->diag = *diag;
	}
	pthread_mutex_unlock(&w->lock);
}
