/* The list of shards of a model that is split over several files. */
#ifndef MKHCT_SHARDS_H
#define MKHCT_SHARDS_H

#include "codec/error.h"
#include "writer/source.h"

/* Checks that every file that an index of the source (*.safetensors.index.json) names is in the
 * source.  note, unless NULL: the shards' headers are read, and *note gets a line when one of the
 * indexes does not agree with its shards, and otherwise "".  Errors: HCT_ERR_NOT_FOUND with the
 * first file that is missing, HCT_ERR_ARGUMENT with one that was left out, HCT_ERR_SAFETENSORS for
 * an index that is none, HCT_ERR_LIMIT for one too big, HCT_ERR_IO, HCT_ERR_NOMEM; with a note also
 * those of mkhct_model_open. */
hct_error mkhct_shards_check(const struct mkhct_source *source, struct hct_diag *note,
			     struct hct_diag *diag);

#endif
