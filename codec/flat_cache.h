/* Internal: the flattened tables of tensors, made once for many batches and all threads. */
#ifndef HCT_FLAT_CACHE_H
#define HCT_FLAT_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "device.h"
#include "load.h"

struct hct_flat_cache;

/* NULL without memory.  Holds some 64 MiB of tables that nobody uses. */
struct hct_flat_cache *hct_flat_cache_create(void);
/* NULL is allowed.  Nothing may be in use. */
void hct_flat_cache_free(struct hct_flat_cache *c);

/* The tables of the tensor of a chunk, flattened from those of its task.  They stay as they are
 * until hct_flat_cache_put; their key is of no other tables.  NULL without memory. */
const struct hct_device_tables *hct_flat_cache_get(struct hct_flat_cache *c, const hct_reader *r,
						   const struct hct_loaded *chunk,
						   const struct hct_task *task);
void hct_flat_cache_put(struct hct_flat_cache *c, const struct hct_device_tables *tables);

#endif
