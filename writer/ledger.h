/* What lies in the part file of a model so far: the entries of its index and the sums of its
 * errors, kept in a file of its own, so that a run that was killed can be gone on with.
 *
 *     records of  u32 length, u64 XXH3-64 of what follows, and `length` bytes
 *
 * A ledger only grows.  What counts is written elsewhere (checkpoint.h): so many of its bytes, of
 * which the chunks are known to be on the disk. */
#ifndef MKHCT_LEDGER_H
#define MKHCT_LEDGER_H

#include <stddef.h>
#include <stdint.h>

#include "codec/appender.h"
#include "codec/error.h"
#include "writer/compress.h"

struct mkhct_ledger;

/* fd: open for reading and writing, owned by the caller; name, for messages, is copied.  Reads the
 * first `bytes` of it, cuts off the rest, and goes on behind them.  Errors: HCT_ERR_CORRUPT when
 * these bytes are not what mkhct wrote, or are more than 2 GiB, HCT_ERR_IO, HCT_ERR_NOMEM. */
hct_error mkhct_ledger_open(int fd, const char *name, uint64_t bytes, struct mkhct_ledger **out,
			    struct hct_diag *diag);
/* NULL is allowed. */
void mkhct_ledger_free(struct mkhct_ledger *l);

/* Bytes that are written. */
uint64_t mkhct_ledger_bytes(const struct mkhct_ledger *l);

/* Tensors that were read by mkhct_ledger_open: the first ones of the model, of which the last may
 * lack chunks. */
size_t mkhct_ledger_count(const struct mkhct_ledger *l);

/* What was read of tensor i < mkhct_ledger_count().  What the results point to belongs to the
 * ledger. */
void mkhct_ledger_tensor(const struct mkhct_ledger *l, size_t i, struct hct_appended *appended,
			 struct mkhct_result *result);

/* Writes that tensor i, the last one that was saved or read, is to be coded anew, and forgets it;
 * nothing when it was not saved.  It must be synced, and the checkpoint saved, before its chunks
 * are written over.  Errors: as for mkhct_ledger_save. */
hct_error mkhct_ledger_drop(struct mkhct_ledger *l, size_t i, struct hct_diag *diag);

/* Adds what was appended since the last call, or since what was read; results: of all tensors.
 * Does not sync.  Errors: HCT_ERR_LIMIT beyond 2 GiB, HCT_ERR_IO, HCT_ERR_NO_SPACE, HCT_ERR_NOMEM;
 * then the ledger goes on from its last good byte. */
hct_error mkhct_ledger_save(struct mkhct_ledger *l, const hct_appender *a,
			    const struct mkhct_result *results, struct hct_diag *diag);

/* Errors: HCT_ERR_IO, HCT_ERR_NO_SPACE. */
hct_error mkhct_ledger_sync(struct mkhct_ledger *l, struct hct_diag *diag);

#endif
