/* The list of shards of a model that is split over several files. */
#ifndef MKHCT_SHARDS_H
#define MKHCT_SHARDS_H

#include "codec/error.h"
#include "writer/source.h"

/* Checks that every file that an index of the source (*.safetensors.index.json) names is
 * in the source.  Errors: HCT_ERR_NOT_FOUND with the first that is missing,
 * HCT_ERR_SAFETENSORS for an index that is none, HCT_ERR_IO, HCT_ERR_NOMEM. */
hct_error mkhct_shards_check(const struct mkhct_source *source, struct hct_diag *diag);

#endif
