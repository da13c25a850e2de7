/* Turning the bytes of a tensor into chunks.
 *
 * Two steps: hct_plan_create looks at a tensor (a bounded sample of it) and fixes
 * its coding and shared tables; hct_encode_chunk then codes any of its chunks,
 * from any thread, and depends on nothing but the plan and the chunk's bytes, so a
 * file is the same whatever the number of threads. */
#ifndef HCT_ENCODER_H
#define HCT_ENCODER_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "reader.h"
#include "safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hct_plan hct_plan;       /* immutable; shared by threads */
typedef struct hct_encoder hct_encoder; /* scratch memory of one encoding thread */

/* One coded chunk.  The payload belongs to the encoder that made it and is valid
 * until its next call. */
struct hct_encoded {
	const uint8_t *payload;
	uint32_t length;
	uint16_t codec;    /* as FORMAT.md numbers them */
	uint64_t checksum; /* XXH3-64 of the payload */
	uint64_t digest;   /* XXH3-64 of the decoded bytes */
};

/* simd chooses the variant of the encoder's loops; the output is the same. */
hct_error hct_encoder_create(hct_simd simd, hct_encoder **out);
void hct_encoder_free(hct_encoder *e);

/* Plans the lossless coding of one tensor.  data: its hct_tensor_bytes() bytes,
 * which are read here and there, not as a whole. */
hct_error hct_plan_create(hct_encoder *e, const struct hct_tensor *tensor, const void *data,
			  hct_plan **out, struct hct_diag *diag);
void hct_plan_free(hct_plan *p);

uint32_t hct_plan_chunk_bytes(const hct_plan *p);
uint64_t hct_plan_chunk_count(const hct_plan *p);
/* Decoded length of chunk number n of this tensor, n < hct_plan_chunk_count(). */
uint32_t hct_plan_chunk_length(const hct_plan *p, uint64_t n);

/* Codes chunk number n of the tensor, whose bytes (hct_plan_chunk_length of them,
 * not the tensor's first byte) lie at data.  Never larger than raw. */
hct_error hct_encode_chunk(hct_encoder *e, const hct_plan *p, uint64_t n, const void *data,
			   struct hct_encoded *out, struct hct_diag *diag);

#ifdef __cplusplus
}
#endif
#endif
