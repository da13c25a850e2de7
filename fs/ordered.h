/* Work on many items by many threads, with the results taken in order.
 *
 * The results do not depend on the number of threads, and no more than a few of them
 * exist at a time. */
#ifndef HCTFS_ORDERED_H
#define HCTFS_ORDERED_H

#include <stddef.h>
#include <stdint.h>

#include "codec/error.h"
#include "codec/pool.h"

struct hct_ordered {
	/* Does item number `item` and fills its result, which is all zero bytes at the
	 * start.  Called by the pool's threads; worker is less than their number. */
	void (*work)(void *arg, uint64_t item, void *result, unsigned worker);
	/* Takes the result of one item, called in order 0, 1, 2 ... by the thread that runs;
	 * stop: that an earlier call, or tick, asked to stop, so the result is only to be
	 * cleaned up.  Returns non-zero to stop. */
	int (*take)(void *arg, uint64_t item, void *result, int stop);
	/* Called by the thread that runs, while it waits, ten times a second, and between
	 * items; NULL is allowed.  Returns non-zero to stop. */
	int (*tick)(void *arg);
	void *arg;
	size_t result_size;
};

/* Runs items 0 .. count-1, and returns when all of them, or after a stop all that were
 * begun, are taken.  Errors: HCT_ERR_NOMEM before anything was begun. */
hct_error hct_ordered_run(const struct hct_ordered *o, hct_pool *pool, uint64_t count);

#endif
