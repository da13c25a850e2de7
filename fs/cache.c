#include "cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* One mutex guards everything; it is held for some hundred nanoseconds at a time, far
 * less than any fill takes. */

struct buffer {
	void *data;
	size_t size; /* as hct_cache_charge rounds it */
	struct buffer *next;
};

struct list {
	struct list *before, *after;
};

enum state { FILLING, READY, FAILED };

struct entry {
	struct hct_cache_pin pin; /* first: a pin is its entry */
	uint64_t key;
	struct entry *chain; /* of the hash table */
	struct list place;   /* in the LRU list when ready and not pinned */
	struct buffer *buffer;
	unsigned users; /* pins, the filler and those who wait for it */
	int passed;     /* by its last user */
	enum state state;
	hct_error error; /* FAILED: why */
	pthread_cond_t filled;
};

struct hct_cache {
	pthread_mutex_t lock; /* over all that follows */
	pthread_cond_t room;  /* signalled when an entry is no longer pinned */
	unsigned room_waiters;
	struct entry **table;
	size_t table_size;  /* a power of two */
	struct list lru;    /* .after: used longest ago */
	struct list passed; /* the same, of entries that were passed */
	uint64_t passed_bytes;
	struct buffer *spare;
	uint64_t bound;
	struct hct_cache_stats stats;
};

#define ENTRY_OF(p) ((struct entry *)((char *)(p)-offsetof(struct entry, place)))

static void list_remove(struct list *l)
{
	l->before->after = l->after;
	l->after->before = l->before;
}

static void list_append(struct list *head, struct list *l)
{
	l->before = head->before;
	l->after = head;
	head->before->after = l;
	head->before = l;
}

hct_error hct_cache_create(uint64_t bytes, hct_cache **out)
{
	hct_cache *c = calloc(1, sizeof *c);

	*out = NULL;
	if (!c)
		return HCT_ERR_NOMEM;
	c->table_size = 256;
	c->table = calloc(c->table_size, sizeof(struct entry *));
	if (!c->table) {
		free(c);
		return HCT_ERR_NOMEM;
	}
	c->bound = bytes;
	c->lru.before = c->lru.after = &c->lru;
	c->passed.before = c->passed.after = &c->passed;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->room, NULL);
	*out = c;
	return HCT_OK;
}

/* Buffers are mapped, not malloc'ed, so that what is given back leaves the process.
 * Sizes have four steps an octave, so that chunks of similar length can take over each
 * other's. */
size_t hct_cache_charge(size_t length)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), step = page;

	if (length > SIZE_MAX / 2)
		return SIZE_MAX;
	while (step * 8 < length)
		step *= 2;
	return length ? (length + step - 1) / step * step : step;
}

static void buffer_free(struct buffer *b)
{
	munmap(b->data, b->size);
	free(b);
}

static struct buffer *buffer_new(size_t size)
{
	struct buffer *b;
	/* cppcheck-suppress invalidFunctionArg */
	void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (data == MAP_FAILED)
		return NULL;
	b = malloc(sizeof *b);
	if (!b) {
		munmap(data, size);
		return NULL;
	}
	*b = (struct buffer){.data = data, .size = size};
	return b;
}

static size_t slot_of(const hct_cache *c, uint64_t key)
{
	return (size_t)(key * 0x9E3779B97F4A7C15u >> 32) & (c->table_size - 1);
}

static struct entry *find(const hct_cache *c, uint64_t key)
{
	struct entry *e = c->table[slot_of(c, key)];

	while (e && e->key != key)
		e = e->chain;
	return e;
}

/* A table that cannot grow is slower, not wrong. */
static void grow_table(hct_cache *c)
{
	size_t old_size = c->table_size;
	struct entry **old = c->table, **table = calloc(2 * old_size, sizeof(struct entry *));

	if (!table)
		return;
	c->table = table;
	c->table_size = 2 * old_size;
	for (size_t i = 0; i < old_size; i++) {
		while (old[i]) {
			struct entry *e = old[i];
			struct entry **slot = &table[slot_of(c, e->key)];

			old[i] = e->chain;
			e->chain = *slot;
			*slot = e;
		}
	}
	free(old);
}

static void table_insert(hct_cache *c, struct entry *e)
{
	struct entry **slot;

	if (c->stats.entries >= c->table_size)
		grow_table(c);
	slot = &c->table[slot_of(c, e->key)];
	e->chain = *slot;
	*slot = e;
	c->stats.entries++;
}

static void table_remove(hct_cache *c, struct entry *e)
{
	struct entry **at = &c->table[slot_of(c, e->key)];

	while (*at != e)
		at = &(*at)->chain;
	*at = e->chain;
	c->stats.entries--;
}

static struct entry *entry_new(uint64_t key, size_t length)
{
	struct entry *e = calloc(1, sizeof *e);

	if (!e)
		return NULL;
	e->key = key;
	e->pin.length = length;
	e->users = 1;
	e->state = FILLING;
	pthread_cond_init(&e->filled, NULL);
	return e;
}

static void entry_free(struct entry *e)
{
	pthread_cond_destroy(&e->filled);
	free(e);
}

static void free_list(struct list *head)
{
	for (struct list *l = head->after, *after; l != head; l = after) {
		struct entry *e = ENTRY_OF(l);

		after = l->after;
		buffer_free(e->buffer);
		entry_free(e);
	}
}

void hct_cache_free(hct_cache *c)
{
	if (!c)
		return;
	free_list(&c->lru);
	free_list(&c->passed);
	for (struct buffer *b = c->spare, *next; b; b = next) {
		next = b->next;
		buffer_free(b);
	}
	pthread_cond_destroy(&c->room);
	pthread_mutex_destroy(&c->lock);
	free(c->table);
	free(c);
}

/* An entry that nobody uses, into its list and out of it. */
static void shelve(hct_cache *c, struct entry *e)
{
	list_append(e->passed ? &c->passed : &c->lru, &e->place);
	if (e->passed)
		c->passed_bytes += e->buffer->size;
}

static void unshelve(hct_cache *c, struct entry *e)
{
	list_remove(&e->place);
	if (e->passed)
		c->passed_bytes -= e->buffer->size;
}

/* The buffer of the oldest entry of a list, which then is no longer there; NULL when the
 * list is empty. */
static struct buffer *evict_oldest(hct_cache *c, const struct list *head)
{
	struct entry *e;
	struct buffer *b;

	if (head->after == head)
		return NULL;
	e = ENTRY_OF(head->after);
	b = e->buffer;
	unshelve(c, e);
	table_remove(c, e);
	entry_free(e);
	c->stats.evictions++;
	return b;
}

static int suits(const struct buffer *b, size_t size)
{
	return b->size >= size && b->size / 2 <= size;
}

/* Takes a buffer of at least size bytes that is spare already. */
static struct buffer *take_spare(hct_cache *c, size_t size)
{
	for (struct buffer **at = &c->spare; *at; at = &(*at)->next) {
		struct buffer *b = *at;

		if (suits(b, size)) {
			*at = b->next;
			b->next = NULL;
			return b;
		}
	}
	return NULL;
}

/* A buffer that can be done without: spare, passed, or used longest ago. */
static struct buffer *give_up(hct_cache *c)
{
	struct buffer *b = c->spare;

	if (b)
		c->spare = b->next;
	if (!b)
		b = evict_oldest(c, &c->passed);
	if (!b)
		b = evict_oldest(c, &c->lru);
	return b;
}

/* Finds memory for size bytes within the bound.  Returns 1 with *got a buffer, or NULL
 * when the caller is to map one, which is charged already, after it has unmapped the row
 * *unmap.  Returns 0 when pinned entries leave no room.  Called with the lock. */
static int make_room(hct_cache *c, size_t size, struct buffer **got, struct buffer **unmap)
{
	uint64_t freed = 0,
		 grace = HCT_CACHE_PASSED < c->bound / 4 ? HCT_CACHE_PASSED : c->bound / 4;
	struct buffer *b;

	*unmap = NULL;
	*got = take_spare(c, size);
	while (!*got) {
		if (c->passed_bytes > grace)
			b = evict_oldest(c, &c->passed);
		else if (c->stats.bytes + size <= c->bound + freed)
			break;
		else
			b = give_up(c);
		if (!b)
			goto refuse;
		if (suits(b, size)) {
			*got = b;
			return 1;
		}
		b->next = *unmap;
		*unmap = b;
		freed += b->size;
	}
	if (!*got) {
		c->stats.bytes += size;
		if (c->stats.bytes - freed > c->stats.peak_bytes)
			c->stats.peak_bytes = c->stats.bytes - freed;
	}
	return 1;
refuse:
	while (*unmap) {
		b = *unmap;
		*unmap = b->next;
		b->next = c->spare;
		c->spare = b;
	}
	return 0;
}

/* What was unmapped leaves the account only now, so that the bound holds at each moment. */
static void unmap_row(hct_cache *c, struct buffer *row)
{
	uint64_t freed = 0;

	if (!row)
		return;
	while (row) {
		struct buffer *next = row->next;

		freed += row->size;
		buffer_free(row);
		row = next;
	}
	pthread_mutex_lock(&c->lock);
	c->stats.bytes -= freed;
	if (c->room_waiters)
		pthread_cond_broadcast(&c->room);
	pthread_mutex_unlock(&c->lock);
}

/* Ends one use of an entry; called with the lock. */
static void drop(hct_cache *c, struct entry *e)
{
	if (--e->users)
		return;
	if (e->state == FAILED) {
		entry_free(e);
		return;
	}
	shelve(c, e);
	if (c->room_waiters)
		pthread_cond_broadcast(&c->room);
}

/* Pins an entry that is ready; called with the lock. */
static void pin(hct_cache *c, struct entry *e)
{
	if (e->users++ == 0)
		unshelve(c, e);
	e->passed = 0;
	c->stats.hits++;
}

/* Gives an entry that this thread has put into the table its memory, of which `size` bytes are
 * charged; called without the lock. */
static hct_error provide(hct_cache *c, struct entry *e, size_t size, struct buffer *unmap)
{
	unmap_row(c, unmap);
	if (!e->buffer)
		e->buffer = buffer_new(size);
	if (e->buffer)
		return HCT_OK;
	pthread_mutex_lock(&c->lock);
	c->stats.bytes -= size;
	pthread_mutex_unlock(&c->lock);
	return HCT_ERR_NOMEM;
}

/* Lets others have an entry that this thread has filled, or the error.  Called with the lock. */
static void publish(hct_cache *c, struct entry *e, hct_error error)
{
	c->stats.fills++;
	if (error) {
		c->stats.failures++;
		table_remove(c, e);
		if (e->buffer) {
			e->buffer->next = c->spare;
			c->spare = e->buffer;
			e->buffer = NULL;
		}
		e->state = FAILED;
		e->error = error;
		if (c->room_waiters)
			pthread_cond_broadcast(&c->room);
	} else {
		e->pin.data = e->buffer->data;
		e->state = READY;
	}
	pthread_cond_broadcast(&e->filled);
}

/* Fills an entry that this thread has put into the table; called without the lock. */
static hct_error run_fill(hct_cache *c, struct entry *e, size_t size, struct buffer *unmap,
			  hct_cache_fill fill, void *arg)
{
	hct_error error = provide(c, e, size, unmap);

	if (!error)
		error = fill(arg, e->key, e->buffer->data, e->pin.length);
	pthread_mutex_lock(&c->lock);
	publish(c, e, error);
	if (error)
		drop(c, e);
	pthread_mutex_unlock(&c->lock);
	return error;
}

/* Waits until another thread has filled an entry; called with the lock.  Returns with
 * the entry pinned, or its error. */
static hct_error await_fill(hct_cache *c, struct entry *e)
{
	hct_error error;

	e->users++;
	while (e->state == FILLING)
		pthread_cond_wait(&e->filled, &c->lock);
	error = e->error;
	if (error)
		drop(c, e);
	else
		c->stats.hits++;
	return error;
}

static hct_error get(hct_cache *c, uint64_t key, size_t length, hct_cache_fill fill, void *arg,
		     int wait, const struct hct_cache_pin **out)
{
	size_t size = hct_cache_charge(length);
	struct buffer *got = NULL, *unmap = NULL;
	struct entry *e, *fresh = NULL;
	hct_error error = HCT_OK;

	*out = NULL;
	if (size > c->bound)
		return HCT_ERR_LIMIT;
	pthread_mutex_lock(&c->lock);
	/* What is found changes while this thread waits for room or memory. */
	while (!(e = find(c, key))) {
		if (!fresh) {
			pthread_mutex_unlock(&c->lock);
			fresh = entry_new(key, length);
			if (!fresh)
				return HCT_ERR_NOMEM;
			pthread_mutex_lock(&c->lock);
			continue;
		}
		if (make_room(c, size, &got, &unmap)) {
			fresh->buffer = got;
			table_insert(c, fresh);
			pthread_mutex_unlock(&c->lock);
			error = run_fill(c, fresh, size, unmap, fill, arg);
			if (!error)
				*out = &fresh->pin;
			return error;
		}
		if (!wait)
			goto out;
		c->room_waiters++;
		pthread_cond_wait(&c->room, &c->lock);
		c->room_waiters--;
	}
	if (e->state == READY)
		pin(c, e);
	else if (wait)
		error = await_fill(c, e);
	else
		goto out;
	if (!error)
		*out = &e->pin;
out:
	pthread_mutex_unlock(&c->lock);
	if (fresh)
		entry_free(fresh);
	return error;
}

hct_error hct_cache_get(hct_cache *c, uint64_t key, size_t length, hct_cache_fill fill, void *arg,
			const struct hct_cache_pin **out)
{
	return get(c, key, length, fill, arg, 1, out);
}

hct_error hct_cache_try_get(hct_cache *c, uint64_t key, size_t length, hct_cache_fill fill,
			    void *arg, const struct hct_cache_pin **out)
{
	return get(c, key, length, fill, arg, 0, out);
}

const struct hct_cache_pin *hct_cache_begin(hct_cache *c, uint64_t key, size_t length, void **dst)
{
	size_t size = hct_cache_charge(length);
	struct buffer *unmap = NULL;
	struct entry *e;
	int begun;

	if (size > c->bound)
		return NULL;
	e = entry_new(key, length);
	if (!e)
		return NULL;
	pthread_mutex_lock(&c->lock);
	begun = !find(c, key) && make_room(c, size, &e->buffer, &unmap);
	if (begun)
		table_insert(c, e);
	pthread_mutex_unlock(&c->lock);
	if (!begun) {
		entry_free(e);
		return NULL;
	}
	if (provide(c, e, size, unmap)) {
		hct_cache_end(c, &e->pin, HCT_ERR_NOMEM);
		return NULL;
	}
	*dst = e->buffer->data;
	return &e->pin;
}

void hct_cache_end(hct_cache *c, const struct hct_cache_pin *p, hct_error error)
{
	struct entry *e = (struct entry *)(uintptr_t)p;

	pthread_mutex_lock(&c->lock);
	publish(c, e, error);
	drop(c, e);
	pthread_mutex_unlock(&c->lock);
}

const struct hct_cache_pin *hct_cache_peek(hct_cache *c, uint64_t key)
{
	struct entry *e;

	pthread_mutex_lock(&c->lock);
	e = find(c, key);
	if (e && e->state == READY)
		pin(c, e);
	else
		e = NULL;
	pthread_mutex_unlock(&c->lock);
	return e ? &e->pin : NULL;
}

int hct_cache_has(hct_cache *c, uint64_t key)
{
	int has;

	pthread_mutex_lock(&c->lock);
	has = find(c, key) != NULL;
	pthread_mutex_unlock(&c->lock);
	return has;
}

static void put(hct_cache *c, const struct hct_cache_pin *p, int passed)
{
	struct entry *e = (struct entry *)(uintptr_t)p;

	pthread_mutex_lock(&c->lock);
	e->passed |= passed;
	drop(c, e);
	pthread_mutex_unlock(&c->lock);
}

void hct_cache_put(hct_cache *c, const struct hct_cache_pin *p)
{
	put(c, p, 0);
}

void hct_cache_pass(hct_cache *c, const struct hct_cache_pin *p)
{
	put(c, p, 1);
}

void hct_cache_get_stats(hct_cache *c, struct hct_cache_stats *out)
{
	pthread_mutex_lock(&c->lock);
	*out = c->stats;
	pthread_mutex_unlock(&c->lock);
}
