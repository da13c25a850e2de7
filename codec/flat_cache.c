#include "flat_cache.h"

#include <pthread.h>
#include <stdlib.h>

#define BOUND (64u << 20) /* bytes of tables */

struct entry {
	struct hct_device_tables tables; /* first: tables are their entry */
	const hct_reader *reader;        /* with identity: which file, also when memory is reused */
	uint64_t identity;
	size_t tensor;
	unsigned users;
	struct entry *next; /* those used lately come first */
};

struct hct_flat_cache {
	pthread_mutex_t lock; /* over all that follows */
	struct entry *first;
	size_t bytes;
	uint64_t key; /* that was given last */
};

struct hct_flat_cache *hct_flat_cache_create(void)
{
	struct hct_flat_cache *c = calloc(1, sizeof *c);

	if (c)
		pthread_mutex_init(&c->lock, NULL);
	return c;
}

static void entry_free(struct entry *e)
{
	free((void *)(uintptr_t)e->tables.flat);
	free(e);
}

void hct_flat_cache_free(struct hct_flat_cache *c)
{
	if (!c)
		return;
	for (struct entry *e = c->first, *next; e; e = next) {
		next = e->next;
		entry_free(e);
	}
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* Takes the entry out of the list, or returns NULL.  Called with the lock. */
static struct entry *take(struct hct_flat_cache *c, const hct_reader *r, size_t tensor)
{
	uint64_t identity = hct_reader_identity(r);

	for (struct entry **at = &c->first, *e; (e = *at) != NULL; at = &e->next) {
		if (e->reader == r && e->identity == identity && e->tensor == tensor) {
			*at = e->next;
			return e;
		}
	}
	return NULL;
}

/* Frees what was used longest ago until the rest is within the bound.  Called with the lock. */
static void shrink(struct hct_flat_cache *c)
{
	while (c->bytes > BOUND) {
		struct entry **oldest = NULL, *e;

		for (struct entry **at = &c->first; *at; at = &(*at)->next)
			if (!(*at)->users)
				oldest = at;
		if (!oldest)
			return;
		e = *oldest;
		*oldest = e->next;
		c->bytes -= e->tables.bytes;
		entry_free(e);
	}
}

static struct entry *make(const hct_reader *r, const struct hct_loaded *chunk,
			  const struct hct_task *task)
{
	size_t bytes = chunk->codec->flat_bytes(task->tables);
	struct entry *e = calloc(1, sizeof *e);
	void *flat = malloc(bytes);

	if (!e || !flat) {
		free(e);
		free(flat);
		return NULL;
	}
	chunk->codec->flatten(task->tables, flat);
	*e = (struct entry){.tables = {.flat = flat, .bytes = bytes},
			    .reader = r,
			    .identity = hct_reader_identity(r),
			    .tensor = chunk->chunk.tensor};
	return e;
}

const struct hct_device_tables *hct_flat_cache_get(struct hct_flat_cache *c, const hct_reader *r,
						   const struct hct_loaded *chunk,
						   const struct hct_task *task)
{
	struct entry *e, *fresh = NULL;

	pthread_mutex_lock(&c->lock);
	e = take(c, r, chunk->chunk.tensor);
	if (!e) {
		/* Another thread may make the same meanwhile, and then one is thrown away. */
		pthread_mutex_unlock(&c->lock);
		fresh = make(r, chunk, task);
		if (!fresh)
			return NULL;
		pthread_mutex_lock(&c->lock);
		e = take(c, r, chunk->chunk.tensor);
	}
	if (!e) {
		e = fresh;
		fresh = NULL;
		e->tables.key = ++c->key;
		c->bytes += e->tables.bytes;
	}
	e->users++;
	e->next = c->first;
	c->first = e;
	shrink(c);
	pthread_mutex_unlock(&c->lock);
	if (fresh)
		entry_free(fresh);
	return &e->tables;
}

void hct_flat_cache_put(struct hct_flat_cache *c, const struct hct_device_tables *tables)
{
	struct entry *e = (struct entry *)(uintptr_t)tables;

	pthread_mutex_lock(&c->lock);
	e->users--;
	pthread_mutex_unlock(&c->lock);
}
