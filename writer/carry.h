/* Copying a file that is not compressed. */
#ifndef MKHCT_CARRY_H
#define MKHCT_CARRY_H

#include "codec/error.h"
#include "codec/meter.h"
#include "writer/source.h"

/* Called between steps with what is being worked on, to redraw a progress line. */
typedef void (*mkhct_tick)(void *arg, const char *what);

/* Copies the contents, the mtime and the permission bits of from into the file open at
 * out (empty, at offset 0); out_name is for messages.  Adds the bytes to the meter and
 * puts the checksum of the contents (hct_checksum) into *checksum.
 * Errors: HCT_ERR_IO, HCT_ERR_NOT_FOUND, HCT_ERR_NO_SPACE, HCT_ERR_INTERRUPTED,
 * HCT_ERR_CHANGED when the source is no longer what the scan saw. */
hct_error mkhct_carry(const struct mkhct_entry *from, int out, const char *out_name,
		      struct hct_meter *meter, mkhct_tick tick, void *tick_arg, uint64_t *checksum,
		      struct hct_diag *diag);

#endif
