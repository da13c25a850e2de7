/* Internal to output.c: the end of a file, while the next one is begun.
 *
 * A thread syncs the file, and then puts the checkpoint on the disk that says so.  Nothing else may
 * write the checkpoint until mkhct_landing_wait has returned. */
#ifndef MKHCT_LANDING_H
#define MKHCT_LANDING_H

#include <stddef.h>

#include "codec/error.h"

struct mkhct_output;
struct mkhct_landing;

/* fd: of the file of slot i; text: the checkpoint that is then to be written, of cJSON's memory.
 * Both are the landing's from here on, also after an error.  new_names: the folders have yet to be
 * synced in which the file and its ledger were made.  Errors: HCT_ERR_NOMEM, also when there is no
 * thread to be had. */
hct_error mkhct_landing_start(const struct mkhct_output *o, size_t i, int fd, char *text,
			      int new_names, struct mkhct_landing **out, struct hct_diag *diag);

/* Waits for it and frees it.  *synced: 0 when the file is not on the disk; then the checkpoint was
 * not touched.  Errors: of a sync, and those of mkhct_checkpoint_put. */
hct_error mkhct_landing_wait(struct mkhct_landing *l, int *synced, struct hct_diag *diag);

#endif
