/* --quality-sample: reading back what was written, and measuring it. */
#ifndef MKHCT_VERIFY_H
#define MKHCT_VERIFY_H

#include "codec/error.h"
#include "codec/reader.h"
#include "writer/carry.h"
#include "writer/compress.h"
#include "writer/model.h"

/* Chooses the tensors whose names' XXH3-64 lies in the lowest `fraction` of its range, and at
 * least one when fraction is above 0; decodes them from the written file and measures them
 * against the open, mapped model.  Those that agree with their results to rounding (lossless
 * ones: to the bit) get results[i].verified.  Errors: HCT_ERR_DIGEST when one does not agree,
 * those of hct_reader_decode, HCT_ERR_NOMEM, HCT_ERR_INTERRUPTED, HCT_ERR_CHANGED. */
hct_error mkhct_verify(struct mkhct_compressor *c, const struct mkhct_model *model,
		       const hct_reader *reader, double fraction, struct mkhct_result *results,
		       mkhct_tick tick, void *tick_arg, struct hct_diag *diag);

#endif
