/* Internal: chunks that are read and verified now, and decoded later or by a device. */
#ifndef HCT_LOAD_H
#define HCT_LOAD_H

#include <stddef.h>
#include <stdint.h>

#include "codec.h"
#include "error.h"
#include "reader.h"

/* The payloads of a chunk, in the caller's memory. */
struct hct_loaded {
	struct hct_chunk chunk;
	const struct hct_codec *codec;
	struct hct_payload layers[HCT_MAX_LAYERS];
	unsigned layer_count; /* that the decoder wants */
	uint64_t digest;      /* of the bytes that these decode to */
};

/* Bytes of memory that the payloads of a chunk need, with HCT_PAYLOAD_PAD behind each. */
size_t hct_loaded_bytes(const struct hct_chunk *c);

/* Reads the layers of chunk `number` that d wants into payload (hct_loaded_bytes) and verifies
 * their checksums.  Errors: those of hct_reader_decode. */
hct_error hct_loaded_read(const hct_reader *r, hct_decoder *d, uint64_t number, uint8_t *payload,
			  struct hct_loaded *out, struct hct_diag *diag);

/* What its codec is to do for all of the chunk.  The tables are the decoder's, and stay until it
 * turns to another tensor. */
hct_error hct_loaded_task(const hct_reader *r, hct_decoder *d, const struct hct_loaded *c,
			  struct hct_task *task, struct hct_diag *diag);

/* Decodes bytes [begin, end) of the chunk to dst. */
hct_error hct_loaded_decode(const hct_reader *r, hct_decoder *d, const struct hct_loaded *c,
			    size_t begin, size_t end, void *dst, struct hct_diag *diag);

/* HCT_ERR_DIGEST when the decoded chunk at src is not what the encoder has seen. */
hct_error hct_loaded_check(const hct_reader *r, const struct hct_loaded *c, const void *src,
			   struct hct_diag *diag);

/* Tells two files apart, also where a reader lies in memory that another one had. */
uint64_t hct_reader_identity(const hct_reader *r);

#endif
