/* Internal to checkpoint.c: a file or folder of the source, as a checkpoint lists it: what
 * checkpoint.h calls a shard. */
#ifndef MKHCT_ITEM_H
#define MKHCT_ITEM_H

#include <cjson/cJSON.h>

#include "writer/goals.h"
#include "writer/source.h"

#define MKHCT_ITEM_STATUS "status"

/* Adds an entry to the list; goals: of its source, or NULL.  0, or -1 when out of memory. */
int mkhct_item_add(cJSON *list, const struct mkhct_entry *e, const struct mkhct_goals *goals,
		   const char *status);

/* NULL, or how an entry of that name is not what it was: "has another size now"; a literal. */
const char *mkhct_item_differs(const cJSON *item, const struct mkhct_entry *e,
			       const struct mkhct_goals *goals);

/* 1 when both are of the same file, whatever became of it. */
int mkhct_item_is_same(const cJSON *a, const cJSON *b);

/* Adds the entry to a source that has room for it, with its sums.  -1 when it is damaged, leads out
 * of its folder or does not come behind those before it, or out of memory. */
int mkhct_item_read(const cJSON *item, struct mkhct_source *s);

#endif
