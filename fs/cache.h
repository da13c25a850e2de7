/* A cache of decoded data: key -> buffer, filled by a callback.
 *
 * One least-recently-used list bounded in bytes.  Any number of threads may use it.
 * One fill runs for a key at a time however many threads ask, and no lock is held while
 * it runs.  Knows neither FUSE nor files.
 *
 * The bound is of all memory that the cache has mapped for buffers, also of those that
 * are being filled, are pinned, or wait to be used again; an untouched page of a buffer
 * is not resident.  Beside it there are about 150 bytes for each entry. */
#ifndef HCTFS_CACHE_H
#define HCTFS_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "codec/error.h"

/* Enough for requests that come out of order, and little enough for a CPU's own cache. */
#define HCT_CACHE_PASSED (16u << 20)

typedef struct hct_cache hct_cache;

/* An entry that is pinned: data stays as it is until hct_cache_put. */
struct hct_cache_pin {
	const void *data;
	size_t length;
};

/* Fills dst, or returns an error, which everybody gets who waits for this fill; it is
 * not kept, so that the next one who asks makes another attempt.  Must not use the cache. */
typedef hct_error (*hct_cache_fill)(void *arg, uint64_t key, void *dst, size_t length);

struct hct_cache_stats {
	uint64_t hits, fills, failures, evictions;
	uint64_t bytes, peak_bytes; /* of buffers, now and at most */
	uint64_t entries;           /* that can be found, also those being filled */
};

hct_error hct_cache_create(uint64_t bytes, hct_cache **out);
/* NULL is allowed.  Nothing may be pinned. */
void hct_cache_free(hct_cache *c);

/* What a buffer for length bytes takes of the bound, or more. */
size_t hct_cache_charge(size_t length);

/* The entry if it is there and filled, or NULL; never blocks for long. */
const struct hct_cache_pin *hct_cache_peek(hct_cache *c, uint64_t key);

/* 1 when the entry is there or being filled; pins and moves nothing. */
int hct_cache_has(hct_cache *c, uint64_t key);

/* The entry, filled by this thread when it is not there, after waiting when another one
 * fills it.  length is the same at each call for the key.
 * Waits for room when the pinned entries leave none: a thread that gets several entries
 * before it puts them must know that all who do so fit into the bound together.
 * Errors: those of fill; HCT_ERR_NOMEM; HCT_ERR_LIMIT when length alone is over the bound. */
hct_error hct_cache_get(hct_cache *c, uint64_t key, size_t length, hct_cache_fill fill, void *arg,
			const struct hct_cache_pin **out);

/* The same without waiting: HCT_OK and *out NULL when another thread is filling the entry
 * or there is no room. */
hct_error hct_cache_try_get(hct_cache *c, uint64_t key, size_t length, hct_cache_fill fill,
			    void *arg, const struct hct_cache_pin **out);

/* For threads that fill several entries together: begins to fill one, as hct_cache_try_get does,
 * but leaves it to the caller to fill its `length` bytes at *dst, and then to end it.  Returns NULL
 * when it is there or another thread is filling it, or there is no room or memory. */
const struct hct_cache_pin *hct_cache_begin(hct_cache *c, uint64_t key, size_t length, void **dst);
/* error: what came of it.  The entry is no longer the caller's. */
void hct_cache_end(hct_cache *c, const struct hct_cache_pin *pin, hct_error error);

/* Ends one pin. */
void hct_cache_put(hct_cache *c, const struct hct_cache_pin *pin);

/* The same for data that will hardly be asked for again, as when somebody has read it to
 * its end in sequence: once there are HCT_CACHE_PASSED bytes of such, the memory of the oldest
 * is used again before more is taken, so that a long sequential read neither pushes out
 * everything else nor makes the process grow. */
void hct_cache_pass(hct_cache *c, const struct hct_cache_pin *pin);

void hct_cache_get_stats(hct_cache *c, struct hct_cache_stats *out);

#endif
