/* The options that decide about the bytes of a bundle, as JSON: for the provenance of each file
 * and for the report. */
#ifndef MKHCT_RECIPE_H
#define MKHCT_RECIPE_H

#include <stdint.h>

#include "writer/options.h"

/* 1 when the options leave no tensor but lossless. */
int mkhct_recipe_is_lossless(const struct mkhct_options *o);

/* {"mode":"lossless"}, or "lossy" and all that the result depends on.  importance: checksum of
 * the importance file, 0 without one.  To be freed with cJSON_free; NULL when out of memory. */
char *mkhct_recipe_text(const struct mkhct_options *o, uint64_t importance);

#endif
