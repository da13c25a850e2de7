#include "encoder.h"

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "checksum.h"
#include "codec.h"
#include "coef_plan.h"
#include "lowrank_plan.h"
#include "plan.h"
#include "split.h"
#include "tcq_plan.h"
#include "widen.h"

/* What hct_encoder_memory says: the largest that was measured is 57 MiB, in low-rank factors, and
 * with a GPU there are up to 4 MiB more. */
#define ENCODER_BYTES ((size_t)64 << 20)
/* Buffers up to that are kept. */
#define BUFFER_BYTES (4u << 20)
/* No lossy codec takes less of a chunk: the start states of a segment's lanes. */
#define LEAST_BYTES 128u

hct_error hct_encoder_create(hct_simd simd, hct_encoder **out)
{
	hct_encoder *e;

	*out = NULL;
	if (simd == HCT_SIMD_AUTO)
		simd = hct_simd_best();
	if (!hct_simd_supported(simd))
		return HCT_ERR_UNSUPPORTED;
	e = calloc(1, sizeof *e);
	if (!e)
		return HCT_ERR_NOMEM;
	e->simd = simd;
	e->decoding.simd = simd;
	e->searcher.simd = simd;
	e->cctx = ZSTD_createCCtx();
	e->decoding.dctx = ZSTD_createDCtx();
	if (!e->cctx || !e->decoding.dctx || hct_dct_create(simd, &e->dct)) {
		hct_encoder_free(e);
		return HCT_ERR_NOMEM;
	}
	*out = e;
	return HCT_OK;
}

void hct_encoder_free(hct_encoder *e)
{
	if (!e)
		return;
	hct_searcher_close(&e->searcher);
	ZSTD_freeCCtx(e->cctx);
	ZSTD_freeDCtx(e->decoding.dctx);
	hct_dct_free(e->dct);
	free(e->decoding.bytes);
	free(e->payload);
	free(e->work);
	free(e->decoded);
	free(e);
}

size_t hct_encoder_memory(void)
{
	return ENCODER_BYTES;
}

void hct_encoder_accelerate(hct_encoder *e, hct_accelerator *a)
{
	hct_searcher_close(&e->searcher);
	e->searcher.gpu = a;
}

void hct_encoder_watch(hct_encoder *e, int (*watch)(void *arg, uint64_t done), void *arg)
{
	e->watch = watch;
	e->watch_arg = arg;
}

int hct_buffer_reserve(uint8_t **buf, size_t *capacity, size_t size)
{
	if (*capacity < size) {
		free(*buf);
		size = (size + 4095) & ~(size_t)4095;
		*buf = aligned_alloc(64, size);
		*capacity = *buf ? size : 0;
	}
	return *buf != NULL;
}

void hct_buffers_shrink(struct hct_encoder *e)
{
	struct {
		uint8_t **buffer;
		size_t *capacity;
	} all[] = {{&e->payload, &e->payload_capacity},
		   {&e->work, &e->work_capacity},
		   {&e->decoded, &e->decoded_capacity},
		   {&e->decoding.bytes, &e->decoding.capacity}};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (*all[i].capacity > BUFFER_BYTES) {
			free(*all[i].buffer);
			*all[i].buffer = NULL;
			*all[i].capacity = 0;
		}
}

static void transpose(const uint8_t *src, size_t n, unsigned stride, uint8_t *dst)
{
	for (unsigned j = 0; j < stride; j++)
		for (size_t i = 0; i < n / stride; i++)
			*dst++ = src[i * stride + j];
}

size_t hct_zstd_encode(struct hct_encoder *e, const uint8_t *src, size_t n, unsigned stride,
		       int level, size_t limit)
{
	size_t bound = ZSTD_compressBound(n), length;

	if (!hct_buffer_reserve(&e->payload, &e->payload_capacity, bound + 1))
		return 0;
	if (stride > 1) {
		if (!hct_buffer_reserve(&e->work, &e->work_capacity, n))
			return 0;
		transpose(src, n, stride, e->work);
		src = e->work;
	}
	e->payload[0] = (uint8_t)stride;
	length = ZSTD_compressCCtx(e->cctx, e->payload + 1, bound, src, n, level);
	return ZSTD_isError(length) || length + 1 >= limit ? 0 : length + 1;
}

/* Codes a chunk without loss; stride: of the zstd codec. */
static hct_error encode_lossless(hct_encoder *e, const hct_plan *p, uint64_t n, const void *data,
				 size_t length, unsigned stride, struct hct_encoded *out)
{
	size_t coded = 0;

	out->codec = p->codec;
	if (p->codec == HCT_CODEC_ZSTD || hct_plan_is_lossy(p)) {
		out->codec = HCT_CODEC_ZSTD;
		coded = hct_zstd_encode(e, data, length, length % stride ? 1 : stride, p->level,
					length);
	}
	if (p->codec == HCT_CODEC_SPLIT) {
		size_t unit = hct_layout_find(p->tensor->dtype)->unit;

		coded = hct_split_encode(e, p->split, data, length / unit,
					 n * p->chunk_bytes / unit, length);
	}
	if (!coded) {
		if (!hct_buffer_reserve(&e->payload, &e->payload_capacity, length))
			return HCT_ERR_NOMEM;
		memcpy(e->payload, data, length);
		coded = length;
		out->codec = HCT_CODEC_RAW;
	}
	out->layer_count = 1;
	out->layers[0] = (struct hct_encoded_layer){.payload = e->payload,
						    .length = (uint32_t)coded,
						    .checksum = hct_checksum(e->payload, coded),
						    .digest = hct_checksum(data, length)};
	return HCT_OK;
}

/* Codes n elements, the first of which is element `first` of the tensor, with loss.
 * HCT_ERR_LIMIT when that is no smaller. */
static hct_error encode_lossy(hct_encoder *e, const hct_plan *p, const void *data, size_t n,
			      uint64_t first, struct hct_encoded *out)
{
	out->codec = p->codec;
	if (p->coef)
		return hct_coef_encode(e, p->coef, data, n, first, out);
	if (p->lowrank)
		return hct_lowrank_encode(e, p->lowrank, data, n, first, out);
	return hct_tcq_encode(e, p->tcq, data, n, first, out);
}

/* The same; for a mixed plan HCT_ERR_LIMIT, too, when zstd with *stride, which it sets, is no
 * larger. */
static hct_error encode_smaller(hct_encoder *e, const hct_plan *p, const void *data, size_t length,
				uint64_t first, unsigned *stride, struct hct_encoded *out)
{
	size_t unit = hct_dtype_unit(p->tensor->dtype), least = SIZE_MAX;
	hct_error err;

	for (unsigned i = 0; p->mixed && i < (unit > 1 ? 2 : 1); i++) {
		unsigned s = i ? (unsigned)unit : 1;
		size_t n = hct_zstd_encode(e, data, length, s, p->level,
					   least < length ? least : length);

		if (n) {
			least = n;
			*stride = s;
		}
	}
	if (least <= LEAST_BYTES)
		return HCT_ERR_LIMIT;
	err = encode_lossy(e, p, data, length / unit, first, out);
	return !err && out->layers[0].length >= least ? HCT_ERR_LIMIT : err;
}

hct_error hct_encode_chunk(hct_encoder *e, const hct_plan *p, uint64_t n, const void *data,
			   struct hct_encoded *out, struct hct_diag *diag)
{
	size_t length = hct_plan_chunk_length(p, n), unit = hct_dtype_unit(p->tensor->dtype);
	unsigned stride = p->stride;
	hct_error err = HCT_ERR_LIMIT;

	memset(out, 0, sizeof *out);
	if (hct_plan_is_lossy(p))
		err = encode_smaller(e, p, data, length, n * p->chunk_bytes / unit, &stride, out);
	if (err == HCT_ERR_LIMIT) {
		memset(out, 0, sizeof *out);
		err = encode_lossless(e, p, n, data, length, stride, out);
		if (!err && hct_plan_is_lossy(p)) {
			struct hct_distance d = {0};

			hct_distance_add(&d, p->tensor->dtype, data, data, length / unit);
			out->energy = out->decoded_energy = d.aa;
		}
	}
	return err ? hct_fail(diag, err, "%s: %s", p->tensor->name, hct_error_string(err)) : HCT_OK;
}
