/* The sha256 of a file, computed by a thread of its own beside the encoder and in step
 * with it, so that a file bigger than memory is read from disk once. */
#ifndef MKHCT_HASHER_H
#define MKHCT_HASHER_H

#include <stdint.h>

#include "codec/error.h"

struct mkhct_hasher;

/* Starts on the size bytes of fd, which the caller keeps open and whose position is not
 * used; name is for messages and must live as long. */
hct_error mkhct_hasher_start(int fd, const char *name, uint64_t size, struct mkhct_hasher **out,
			     struct hct_diag *diag);

/* Says that the encoder is done with everything below offset.  Blocks while the hasher
 * is far behind; the hasher in turn never runs far ahead. */
void mkhct_hasher_advance(struct mkhct_hasher *h, uint64_t offset);

/* Lets the hasher run to the end, waits for it and frees it.  Errors: HCT_ERR_IO,
 * HCT_ERR_CHANGED. */
hct_error mkhct_hasher_finish(struct mkhct_hasher *h, uint8_t sha256[32], struct hct_diag *diag);

/* Stops it where it is and frees it.  NULL is allowed. */
void mkhct_hasher_cancel(struct mkhct_hasher *h);

#endif
