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

/* What has been appended of one tensor: all that another appender needs to go on with the file. */
struct hct_appended {
	uint16_t codec;        /* of the tables, 0 without */
	unsigned layers;       /* of each chunk */
	uint32_t chunk_bytes;  /* decoded, of all chunks but the last */
	uint64_t chunk_count;  /* that the tensor has */
	uint64_t chunks;       /* that were appended */
	double energy, error;  /* their sums; struct hct_encoded */
	const uint8_t *params; /* the tables */
	uint32_t params_length;
	const uint8_t *extents; /* layers * chunks entries of HCT_APPENDED_EXTENT bytes, as
				 * FORMAT.md has them */
};

#define HCT_APPENDED_EXTENT 32

/* Tensors that were declared. */
size_t hct_appender_count(const hct_appender *a);

/* Bytes of the file up to the end of the last whole chunk. */
uint64_t hct_appender_bytes(const hct_appender *a);

/* What was appended of tensor i < hct_appender_count(); the pointers are valid until the next call
 * that is no question.  energy and error are those of the tensor declared last, otherwise 0. */
void hct_appender_describe(const hct_appender *a, size_t i, struct hct_appended *out);

/* Bytes that its chunks and its tables take. */
uint64_t hct_appended_bytes(const struct hct_appended *t);

/* 1 when the plan would be declared just as t was. */
int hct_appended_matches(const struct hct_appended *t, const hct_plan *plan);

/* In place of hct_appender_tensor and hct_appender_chunk: takes tensor i, the next one, from what
 * another appender has described, the bytes of its chunks being in the file already; the caller
 * puts the descriptor behind them, at hct_appender_bytes(), before anything else is appended.
 * Errors: HCT_ERR_ARGUMENT (out of turn, another tensor, an extent that is not next to the one
 * before it), HCT_ERR_LIMIT, HCT_ERR_NOMEM. */
hct_error hct_appender_restore(hct_appender *a, size_t i, const struct hct_appended *t,
			       struct hct_diag *diag);

/* Takes back the tensor declared last with all its chunks, also after an error of writing: the
 * caller cuts the file to hct_appender_bytes() and puts the descriptor there.  HCT_ERR_ARGUMENT
 * when none is declared. */
hct_error hct_appender_rewind(hct_appender *a, struct hct_diag *diag);

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
