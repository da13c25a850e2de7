/* --quality-sample: reading back what was written, and measuring it; and --verify of files that an
 * earlier run has completed.  Both first put the file on the disk and ask the kernel to forget its
 * pages, so that they read what the disk has, as far as the kernel does as it is asked. */
#ifndef MKHCT_VERIFY_H
#define MKHCT_VERIFY_H

#include "codec/error.h"
#include "codec/reader.h"
#include "writer/carry.h"
#include "writer/compress.h"
#include "writer/model.h"

/* reader is open on fd, which belongs to the caller; out_name is for messages.  Chooses the tensors
 * whose names' XXH3-64 lies in the lowest `fraction` of its range, and at least one when fraction
 * is above 0; decodes them from the written file and measures them against the open, mapped model.
 * With fraction 0 does nothing.  Those that agree with their results to rounding (lossless ones: to
 * the bit) get results[i].verified.  Errors: HCT_ERR_DIGEST when one does not agree, those of
 * hct_reader_decode, HCT_ERR_IO, HCT_ERR_NO_SPACE, HCT_ERR_NOMEM, HCT_ERR_INTERRUPTED,
 * HCT_ERR_CHANGED. */
hct_error mkhct_verify(struct mkhct_compressor *c, const struct mkhct_model *model,
		       const hct_reader *reader, int fd, const char *out_name, double fraction,
		       struct mkhct_result *results, mkhct_tick tick, void *tick_arg,
		       struct hct_diag *diag);

/* Decodes every chunk of the .hct file that fd is open on, for which its checksums and digests must
 * be right.  Errors: those of hct_reader_open and hct_reader_decode_verified, HCT_ERR_IO,
 * HCT_ERR_NO_SPACE, HCT_ERR_NOMEM, HCT_ERR_INTERRUPTED. */
hct_error mkhct_verify_file(struct mkhct_compressor *c, int fd, const char *name, mkhct_tick tick,
			    void *tick_arg, struct hct_diag *diag);

#endif
