/* Writing an .hct file.  The caller decides how each tensor is coded
 * (encoder.h), appends chunks in order, and finishes; a file that was not
 * finished has no trailer, and every reader says so.
 *
 * An appender belongs to one thread.  It writes through the descriptor that it
 * was given, at increasing offsets, and neither renames nor syncs: the name of
 * the file is the caller's. */
#ifndef HCT_APPENDER_H
#define HCT_APPENDER_H

#include <stddef.h>
#include <stdint.h>

#include "encoder.h"
#include "error.h"
#include "reader.h"
#include "safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hct_appender hct_appender;

/* fd: open for writing, at offset 0, owned by the caller; name is for messages;
 * st must outlive the appender. */
hct_error hct_appender_create(int fd, const char *name, const struct hct_safetensors *st,
			      hct_appender **out, struct hct_diag *diag);

/* Declares how tensor i is coded; once per tensor, in order i = 0, 1, 2 ...,
 * before its chunks.  The plan's tables are copied.  Errors: HCT_ERR_ARGUMENT (out of
 * turn, or the plan of a tensor of another size), HCT_ERR_LIMIT (tables of all tensors
 * beyond 256 MiB), HCT_ERR_NOMEM. */
hct_error hct_appender_tensor(hct_appender *a, size_t i, const hct_plan *plan,
			      struct hct_diag *diag);

/* Appends the next chunk of the tensor declared last.  Errors: HCT_ERR_IO,
 * HCT_ERR_NO_SPACE, HCT_ERR_ARGUMENT (too many chunks), HCT_ERR_NOMEM.  After an error of
 * writing, chunk and finish give the same error again. */
hct_error hct_appender_chunk(hct_appender *a, const struct hct_encoded *chunk,
			     struct hct_diag *diag);

/* Writes index and trailer; provenance is JSON text.  All tensors and chunks must
 * have been appended (HCT_ERR_ARGUMENT), provenance is at most 16 MiB.  *file_bytes, when not NULL:
 * whole size. */
hct_error hct_appender_finish(hct_appender *a, const struct hct_source *source,
			      const char *provenance, uint64_t *file_bytes, struct hct_diag *diag);

/* NULL is allowed; before or after finish. */
void hct_appender_free(hct_appender *a);

#ifdef __cplusplus
}
#endif
#endif
