/* mkhct --finish: one bundle of the parts that mkhct --shards has made. */
#ifndef MKHCT_FINISH_H
#define MKHCT_FINISH_H

#include "codec/error.h"
#include "writer/events.h"
#include "writer/options.h"

/* Checks that all parts of options->out are done, writes the reports and names the files; says so
 * when it is finished already.  events: or NULL.  Errors: HCT_ERR_NOT_FOUND with a line that says
 * which part is missing; HCT_ERR_EXISTS when there is nothing to finish, a part is being made, or
 * one is not of the same source and options; those of mkhct_bundle_finish.  The line says that what
 * the parts have done is kept, and how to go on. */
hct_error mkhct_finish(const struct mkhct_options *options, struct mkhct_events *events,
		       struct hct_diag *diag);

#endif
