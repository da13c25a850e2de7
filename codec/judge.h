/* Internal: what lossy coding did to a chunk, found out by decoding it. */
#ifndef HCT_JUDGE_H
#define HCT_JUDGE_H

#include <stddef.h>
#include <stdint.h>

#include "codec.h"
#include "encoder.h"

/* Decodes what was coded of the n elements at data, as any reader will, after each layer; fills the
 * digests and the sums of out, whose payloads are there and padded.  first: the chunk's first
 * element in its tensor.  tables: from the codec's open_tables. */
hct_error hct_judge(hct_encoder *e, const struct hct_codec *codec, const void *tables,
		    hct_dtype dtype, const uint8_t *data, size_t n, uint64_t first,
		    struct hct_encoded *out);

#endif
