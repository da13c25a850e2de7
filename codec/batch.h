/* Internal: a batch of pieces for a device, from the reading of their chunks to the last look at
 * what the device has made of them. */
#ifndef HCT_BATCH_H
#define HCT_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "flat_cache.h"
#include "work.h"

#define HCT_BATCH_ITEMS 1024 /* most pieces of one */

enum hct_batch_state {
	HCT_BATCH_DONE,   /* decoded, or found to be damaged */
	HCT_BATCH_LISTED, /* for the device */
	HCT_BATCH_CPU     /* for the CPU, from what is loaded */
};

struct hct_batch_item {
	enum hct_batch_state state;
	uint32_t number; /* of the device's items */
	struct hct_loaded loaded;
};

struct hct_batch {
	struct hct_batch *next; /* for its owner */
	uint8_t *in;            /* the owner's, pinned; at least hct_batch_room of the pieces */
	size_t capacity;
	struct hct_device_batch device;
	struct hct_flat_list list;
	size_t first, count; /* pieces of the work */
	int small;           /* made when memory was short */
	int submitted;
	struct hct_batch_item items[HCT_BATCH_ITEMS];
	uint32_t bad[HCT_BATCH_ITEMS], tables_of[HCT_BATCH_ITEMS];
	struct hct_device_tables tables[HCT_BATCH_ITEMS];
	const struct hct_device_tables *held[HCT_BATCH_ITEMS]; /* the cache's, of tables */
	size_t held_count;
	struct hct_device_copy copies[HCT_BATCH_ITEMS];
};

/* Bytes that `in` must have for these pieces. */
size_t hct_batch_room(const struct hct_work *w, size_t first, size_t count);

/* Reads and verifies the chunks of count pieces of w and lists them for the device; notes those
 * that are damaged.  count is at most HCT_BATCH_ITEMS. */
void hct_batch_fill(struct hct_batch *batch, struct hct_work *w, hct_decoder *d,
		    struct hct_flat_cache *cache, size_t first, size_t count);

/* Gives the tables back to the cache, which the device has when submit has returned. */
void hct_batch_release_tables(struct hct_batch *batch, struct hct_flat_cache *cache);

/* Whether the device has decoded an item to what it should be, as far as that is asked. */
int hct_batch_is_good(const struct hct_batch *batch, const struct hct_work *w, size_t i);

#endif
