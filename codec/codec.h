/* Internal: the table of chunk codecs.
 *
 * A codec turns the payload of a chunk back into its bytes.  It never trusts the
 * payload: it reads only [payload, payload + length + HCT_PAYLOAD_PAD), writes only the
 * bytes that it was asked for, and answers HCT_ERR_CORRUPT otherwise. */
#ifndef HCT_CODEC_H
#define HCT_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "format.h"
#include "reader.h"
#include "safetensors.h"

/* Bytes behind a payload that a decoder may read (and ignores): vector loads. */
#define HCT_PAYLOAD_PAD 128

enum hct_codec_id {
	HCT_CODEC_RAW = 0,
	HCT_CODEC_ZSTD = 1,
	HCT_CODEC_SPLIT = 2,
	HCT_CODEC_TCQ = 3,
	HCT_CODEC_COEF = 4,
	HCT_CODEC_LOWRANK = 5,
	HCT_CODEC_COUNT
};

struct ZSTD_DCtx_s;

/* Memory of one decoding thread that codecs use between calls. */
struct hct_scratch {
	hct_simd simd;
	struct ZSTD_DCtx_s *dctx;
	uint8_t *bytes; /* grown by hct_scratch_reserve */
	size_t capacity;
};

/* At least size bytes, 64-byte aligned, contents undefined; NULL without memory. */
uint8_t *hct_scratch_reserve(struct hct_scratch *s, size_t size);

struct hct_payload {
	const uint8_t *data; /* followed by HCT_PAYLOAD_PAD readable bytes */
	size_t length;
};

/* What to decode: bytes [begin, end) of a chunk of `length` bytes, which begins at byte
 * `offset` of its tensor. */
struct hct_task {
	const struct hct_tensor *tensor;
	const void *tables; /* of the tensor, from open_tables; NULL without */
	uint64_t offset;
	size_t length;
	size_t begin, end;
	struct hct_payload layers[HCT_MAX_LAYERS];
	unsigned layer_count;   /* that are there and wanted: the first of layers_stored */
	unsigned layers_stored; /* that the chunk has in its file; 0 when that is not known */
	struct hct_scratch *scratch;
};

struct hct_flat_list;

struct hct_codec {
	uint16_t id;
	const char *name;
	unsigned max_layers;
	/* Checks a tensor's tables and makes them fast to use; NULL for codecs without. */
	hct_error (*open_tables)(const struct hct_tensor *tensor, const uint8_t *params,
				 size_t length, void **tables, const char **why);
	void (*free_tables)(void *tables);
	/* Writes end - begin bytes to dst.  On error *why is a constant phrase. */
	hct_error (*decode)(const struct hct_task *task, uint8_t *dst, const char **why);
	/* For devices (flat.h); both NULL for codecs that these do not decode.  The tables to out,
	 * of flat_bytes; */
	size_t (*flat_bytes)(const void *tables);
	void (*flatten)(const void *tables, void *out);
	/* Appends the segments of a whole chunk to a list, which on error is as it was.
	 * HCT_ERR_UNSUPPORTED for chunks that only the CPU decodes. */
	hct_error (*list)(const struct hct_task *task, struct hct_flat_list *list,
			  const char **why);
};

/* NULL for an unknown id. */
const struct hct_codec *hct_codec_find(unsigned id);

/* 1 when src is one zstd frame, nothing before or behind it, that claims length bytes.  zstd
 * itself would take any number of frames in a row, and frames to be skipped. */
int hct_zstd_is_frame(const void *src, size_t src_length, uint64_t length);

/* Decodes one zstd frame of exactly length bytes; 0 on success. */
int hct_zstd_decode(struct hct_scratch *s, const void *src, size_t src_length, void *dst,
		    size_t length);

extern const struct hct_codec hct_codec_raw;
extern const struct hct_codec hct_codec_zstd;
extern const struct hct_codec hct_codec_split;
extern const struct hct_codec hct_codec_tcq;
extern const struct hct_codec hct_codec_coef;
extern const struct hct_codec hct_codec_lowrank;

#endif
