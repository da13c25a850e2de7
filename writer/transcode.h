/* A compressed file as a source: what it says of itself, and its bytes decoded.
 *
 * Decoding writes into a file without a name, in the folder of the new bundle, or where that is
 * not there yet beside it, or where neither can be written to in $TMPDIR (/tmp): room for one
 * file of the old bundle at a time.  It vanishes with its descriptor, also when the process is
 * killed. */
#ifndef MKHCT_TRANSCODE_H
#define MKHCT_TRANSCODE_H

#include <stdint.h>
#include <time.h>

#include "codec/error.h"
#include "codec/reader.h"

/* Where and how files are decoded; of a whole source. */
struct mkhct_scratch {
	char *out;        /* the new bundle, malloc'ed; NULL when there is none: $TMPDIR */
	unsigned threads; /* 0 counts as 1 */
};

struct mkhct_look {
	uint64_t size; /* of the decoded file */
	struct timespec mtime;
	int lossless;
	double weights, error; /* of tensors with loss: their elements, and the sum of these times
				* the relative squared error of each */
};

/* Reads the index of the .hct file at path.  Errors: those of hct_reader_open. */
hct_error mkhct_transcode_look(const char *path, struct mkhct_look *out, struct hct_diag *diag);

/* Whether the bundle whose hidden folder this is has been finished: HCT_ERR_UNFINISHED when not,
 * without a line; HCT_ERR_IO ... when that cannot be told. */
hct_error mkhct_transcode_finished(const char *hidden_folder, struct hct_diag *diag);

/* Decodes the whole file; *fd is then open for reading and the caller's.  A file that says that it
 * is lossless has the sha256 that its index names, or it is HCT_ERR_DIGEST.  Memory: a chunk for
 * each thread.  Errors: those of hct_reader_decode_verified; HCT_ERR_NO_SPACE, HCT_ERR_IO of the
 * scratch file; HCT_ERR_INTERRUPTED. */
hct_error mkhct_transcode_decode(const hct_reader *r, const struct mkhct_scratch *scratch, int *fd,
				 struct hct_diag *diag);

#endif
