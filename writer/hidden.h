/* Internal to output.c: the hidden folder of a bundle that is being made, with its lock. */
#ifndef MKHCT_HIDDEN_H
#define MKHCT_HIDDEN_H

#include <stddef.h>

#include "codec/error.h"
#include "writer/output.h"

/* Locked by whoever looks around whether it may begin, until others can see that it has; and by
 * whoever takes away what they would see. */
#define MKHCT_HIDDEN_GATE MKHCT_META_FOLDER "/lock-begin"

/* ".hct/lock", or ".hct/lock-2-of-4" of a part, and ".hct/7.ledger" of entry 7: relative to the
 * bundle, malloc'ed, or NULL without memory. */
char *mkhct_hidden_lock_name(const struct mkhct_output *o);
char *mkhct_hidden_ledger_name(size_t i);
/* ".hct/measured", or ".hct/measured-2-of-4" of a part. */
char *mkhct_hidden_measured_name(unsigned part, unsigned parts);

/* Takes the lock of the bundle, unless it is taken already; make: makes its file, which is
 * otherwise locked when it is there.  Where the file system has no locks, nothing is locked.
 * Errors: HCT_ERR_EXISTS when another mkhct has it, HCT_ERR_IO, HCT_ERR_NOMEM. */
hct_error mkhct_hidden_lock(struct mkhct_output *o, int make, struct hct_diag *diag);

/* 1 when somebody else, which may be another descriptor of this process, has locked the file of
 * that name, relative to the bundle. */
int mkhct_hidden_is_locked(const struct mkhct_output *o, const char *name);

/* Takes the gate, unless it is taken already: waits for whoever has it.  Errors: HCT_ERR_NOT_FOUND
 * when the hidden folder is gone, HCT_ERR_EXISTS when nobody gives it back, HCT_ERR_INTERRUPTED,
 * HCT_ERR_IO. */
hct_error mkhct_hidden_enter(struct mkhct_output *o, struct hct_diag *diag);
/* Gives it back, and removes its file.  Returns 0 when that cannot be removed. */
int mkhct_hidden_leave(struct mkhct_output *o);

/* In the gate: removes it, ledgers, locks, measurements and checkpoints, those of all parts; last,
 * when all else is gone for good, the checkpoint that says what the bundle is.  Errors: HCT_ERR_IO,
 * HCT_ERR_NOMEM. */
hct_error mkhct_hidden_remove(struct mkhct_output *o, struct hct_diag *diag);

#endif
