/* Internal: how one tensor is coded, as the encoder and the appender see it. */
#ifndef HCT_PLAN_H
#define HCT_PLAN_H

#include <stdint.h>

#include "accelerator.h"
#include "codec.h"
#include "dct.h"
#include "encoder.h"

struct hct_coef_plan;
struct hct_lowrank_plan;
struct hct_split_plan;
struct hct_tcq_plan;

struct hct_plan {
	const struct hct_tensor *tensor;
	uint64_t bytes;
	uint32_t chunk_bytes;
	uint64_t chunk_count;
	uint16_t codec;  /* that chunks are tried with first */
	unsigned stride; /* of the zstd codec */
	int level;       /* of zstd */
	uint8_t *params; /* the tensor's tables as they go into PARAMS */
	uint32_t params_length;
	unsigned layers;
	int mixed;        /* chunks of a lossy plan are zstd where that is no larger; one layer */
	const char *why;  /* it is lossless although the goal was not, or NULL */
	const char *note; /* what was not tried, or NULL */
	double bits;      /* expected, of an element, tables included */
	double error;     /* expected, relative squared */
	struct hct_split_plan *split; /* the tables for encoding; NULL for other codecs */
	struct hct_tcq_plan *tcq;
	struct hct_coef_plan *coef;
	struct hct_lowrank_plan *lowrank;
};

/* Share of a table's bytes that is left when PARAMS is compressed, about: for forecasts. */
#define HCT_TABLE_SHARE 0.7

/* 1 when chunks are tried with a lossy codec first. */
static inline int hct_plan_is_lossy(const struct hct_plan *p)
{
	return p->tcq || p->coef || p->lowrank;
}

/* zstd and buffers of one encoding thread. */
struct ZSTD_CCtx_s;

struct hct_encoder {
	hct_simd simd;
	struct hct_searcher searcher;
	struct ZSTD_CCtx_s *cctx;
	uint8_t *payload; /* of the chunk coded last */
	size_t payload_capacity;
	uint8_t *work; /* scratch of the codecs */
	size_t work_capacity;
	hct_dct *dct;
	int (*watch)(void *arg, uint64_t done); /* NULL, or as for hct_encoder_watch */
	void *watch_arg;
	struct hct_scratch decoding;
	uint8_t *decoded; /* of the chunk coded last, when it was coded with loss */
	size_t decoded_capacity;
};

/* Grows a buffer to at least size bytes, aligned to 64; contents are lost.  Returns 0
 * without memory. */
int hct_buffer_reserve(uint8_t **buf, size_t *capacity, size_t size);

/* Tells the watch that `done` bytes of the tensor have been looked at; 1 when it wants to stop. */
static inline int hct_encoder_watched(const struct hct_encoder *e, uint64_t done)
{
	return e->watch && e->watch(e->watch_arg, done);
}

/* Frees buffers that are larger than chunks need; contents are lost. */
void hct_buffers_shrink(struct hct_encoder *e);

/* Codes n bytes as the payload of the zstd codec into the encoder's payload buffer.
 * Returns its length, or 0 when that would not be below limit. */
size_t hct_zstd_encode(struct hct_encoder *e, const uint8_t *src, size_t n, unsigned stride,
		       int level, size_t limit);

#endif
