/* The list of shards of a model that is split over several files. */
#ifndef MKHCT_SHARDS_H
#define MKHCT_SHARDS_H

#include "codec/error.h"
#include "writer/select.h"
#include "writer/source.h"

/* PREFIX-00001-of-00003SUFFIX */
struct mkhct_shard_name {
	size_t prefix; /* its length, with the '-' behind it */
	int digits;    /* of the number */
	unsigned number, total;
};

/* Takes such a name apart.  0 when it is none: also with a number above the total.  Pure. */
int mkhct_shards_parse(const char *name, const char *suffix, struct mkhct_shard_name *out);

/* Part of the scan: sets missing_shard of the entries, which are sorted.  What the selections
 * leave out is not missing, whether it is there or not.  Errors: HCT_ERR_NOMEM. */
hct_error mkhct_shards_find_missing(struct mkhct_source *source, struct mkhct_select *select,
				    struct hct_diag *diag);

/* Checks that every file that an index of the source (*.safetensors.index.json) names is in the
 * source, and of shards that no index names that none is missing.  note, unless NULL: the shards'
 * headers are read, and *note gets a line when one of the indexes does not agree with its shards,
 * or shards without an index hold tensors of the same name (twins.h), and otherwise ""; files that
 * seem to be copies of one model get a note of the source.  Errors: HCT_ERR_NOT_FOUND with the
 * first file that is missing, HCT_ERR_ARGUMENT with one that was left out, HCT_ERR_SAFETENSORS for
 * an index that is none, HCT_ERR_LIMIT for one too big, HCT_ERR_IO, HCT_ERR_NOMEM; with a note also
 * those of mkhct_model_open. */
hct_error mkhct_shards_check(struct mkhct_source *source, struct hct_diag *note,
			     struct hct_diag *diag);

#endif
