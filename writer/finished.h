/* Whether a finished bundle is what is asked for now. */
#ifndef MKHCT_FINISHED_H
#define MKHCT_FINISHED_H

#include "codec/error.h"
#include "writer/source.h"

/* HCT_OK when the bundle at path has a report of these options, JSON text, and of this source: the
 * same files, by names, sizes and times.  Otherwise HCT_ERR_EXISTS and a line with what differs.
 * Errors besides: HCT_ERR_IO, HCT_ERR_NOMEM. */
hct_error mkhct_finished_match(const char *path, const struct mkhct_source *source,
			       const char *options, struct hct_diag *diag);

#endif
