/* Whether a checkpoint is of what is asked for now, and what differs. */
#ifndef MKHCT_MATCH_H
#define MKHCT_MATCH_H

#include <stddef.h>

#include <cjson/cJSON.h>

#include "codec/error.h"
#include "writer/checkpoint.h"

#define MKHCT_MATCH_LINE 640

/* 0 when these two objects are the same options; otherwise 1, and in line the first that differs:
 * "its option bpw was 3 and is 4 now"; when: " now", or "". */
int mkhct_match_options(const cJSON *then, const cJSON *now, const char *when,
			char line[MKHCT_MATCH_LINE]);

/* The same for the files of the source: "a.safetensors has another size now"; entries: count items
 * (item.h), in the order of names. */
int mkhct_match_source(cJSON *const *entries, size_t count, const struct mkhct_checkpoint_of *of,
		       char line[MKHCT_MATCH_LINE]);

/* The same for two lists of items: "a.safetensors is another file". */
int mkhct_match_items(cJSON *const *a, size_t a_count, cJSON *const *b, size_t b_count,
		      char line[MKHCT_MATCH_LINE]);

#endif
