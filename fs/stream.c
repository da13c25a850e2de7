#include "stream.h"

#include <string.h>

/* Requests of one reader that are in flight together: one that comes this many of its own
 * lengths too early or too late still continues the stream. */
#define REORDER 8

void hct_streams_init(struct hct_streams *s)
{
	memset(s, 0, sizeof *s);
	pthread_mutex_init(&s->lock, NULL);
}

void hct_streams_destroy(struct hct_streams *s)
{
	pthread_mutex_destroy(&s->lock);
}

static uint64_t distance_of(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

/* The nearest stream that a request at offset may continue, or NULL. */
static struct hct_stream *find(struct hct_streams *s, uint64_t offset, uint64_t slack)
{
	struct hct_stream *best = NULL;

	for (unsigned i = 0; i < HCT_STREAMS; i++) {
		struct hct_stream *t = &s->streams[i];

		if (!t->used || distance_of(offset, t->next) > slack)
			continue;
		if (!best || distance_of(offset, t->next) < distance_of(offset, best->next))
			best = t;
	}
	return best;
}

static struct hct_stream *oldest(struct hct_streams *s)
{
	struct hct_stream *t = &s->streams[0];

	for (unsigned i = 1; i < HCT_STREAMS; i++)
		if (s->streams[i].used < t->used)
			t = &s->streams[i];
	return t;
}

void hct_streams_note(struct hct_streams *s, uint64_t offset, uint64_t length, uint64_t size,
		      uint64_t distance, int in_halves, hct_stream_want want, void *arg)
{
	uint64_t end = offset + length, reach;
	struct hct_stream *t;

	pthread_mutex_lock(&s->lock);
	t = find(s, offset, length * REORDER);
	if (!t) {
		t = oldest(s);
		*t = (struct hct_stream){
			.next = end, .bytes = length, .ahead = end, .used = ++s->clock};
		goto out;
	}
	t->used = ++s->clock;
	t->bytes += length;
	if (end > t->next)
		t->next = end;
	if (t->ahead < t->next)
		t->ahead = t->next;
	reach = t->bytes < distance ? t->bytes : distance;
	reach = reach < size - t->next ? t->next + reach : size;
	if (in_halves && t->ahead - t->next > (reach - t->next) / 2)
		goto out;
	while (t->ahead < reach) {
		uint64_t begin = want(arg, t->ahead);

		if (begin <= t->ahead)
			break;
		t->ahead = begin;
	}
out:
	pthread_mutex_unlock(&s->lock);
}
