/* Internal to output.c, with its mkhct_output_commit: the way back. */
#ifndef MKHCT_COMMIT_H
#define MKHCT_COMMIT_H

#include "writer/output.h"

/* Removes everything that this run created, and nothing that others have made meanwhile.  Returns 0
 * when something of it could not be removed. */
int mkhct_commit_undo(struct mkhct_output *o);

#endif
