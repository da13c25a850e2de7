/* Decoding chunks of a file that is being written, after another program has begun it: without a
 * plan, from what appender.h describes.  hct_check_chunk (encoder.h) is for one's own. */
#ifndef HCT_CHECK_H
#define HCT_CHECK_H

#include <stdint.h>

#include "appender.h"
#include "encoder.h"
#include "error.h"
#include "safetensors.h"

/* Of which tensor a chunk is, and the tables that it has. */
struct hct_origin {
	const struct hct_tensor *tensor;
	uint16_t codec; /* of the tables */
	const uint8_t *params;
	uint32_t params_length;
	uint64_t offset; /* of the chunk in the tensor, decoded */
	uint32_t length;
};

/* hct_check_chunk for chunk number n (for messages) of that origin. */
hct_error hct_check_origin(hct_encoder *e, const struct hct_origin *o, uint64_t n,
			   const struct hct_encoded *chunk, struct hct_diag *diag);

/* Where chunk n < a->chunks lies: its layers, one after the other.  The description may be
 * anybody's: HCT_ERR_CORRUPT when it cannot be of this tensor. */
hct_error hct_appended_place(const struct hct_tensor *t, const struct hct_appended *a, uint64_t n,
			     uint64_t *offset, uint32_t *length);

/* Decodes such a chunk from its bytes, which HCT_CHECK_PAD readable ones follow.  HCT_ERR_DIGEST or
 * HCT_ERR_CORRUPT when they do not decode, layer by layer, to what the description says;
 * HCT_ERR_NOMEM. */
hct_error hct_check_appended(hct_encoder *e, const struct hct_tensor *t,
			     const struct hct_appended *a, uint64_t n, const uint8_t *bytes,
			     struct hct_diag *diag);

#endif
