#include "encoder.h"

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "checksum.h"
#include "codec.h"
#include "format.h"
#include "plan.h"
#include "split.h"

/* A chunk holds this many elements, or the whole rows nearest below. */
#define CHUNK_ELEMENTS (128u * 1024u)
/* Bytes of the tensor's middle with which codecs are compared. */
#define TRIAL_BYTES (256u * 1024u)

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
	e->cctx = ZSTD_createCCtx();
	if (!e->cctx) {
		free(e);
		return HCT_ERR_NOMEM;
	}
	*out = e;
	return HCT_OK;
}

void hct_encoder_free(hct_encoder *e)
{
	if (!e)
		return;
	ZSTD_freeCCtx(e->cctx);
	free(e->payload);
	free(e->work);
	free(e);
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

/* Bytes of a chunk: whole rows of the last dimension where these are short. */
static uint32_t choose_chunk(const struct hct_tensor *t)
{
	size_t unit = hct_dtype_unit(t->dtype);
	uint64_t row = t->rank ? t->shape[t->rank - 1] : 1, rows;

	if (hct_dtype_bits(t->dtype) != unit * 8 || row == 0 || row > CHUNK_ELEMENTS)
		return CHUNK_ELEMENTS * (uint32_t)unit;
	rows = CHUNK_ELEMENTS / row;
	return (uint32_t)(rows * row * unit);
}

/* Keeps the tables of the split codec if that was chosen. */
static int keep_tables(hct_plan *p)
{
	const struct hct_split_tables *t;

	if (p->codec != HCT_CODEC_SPLIT) {
		hct_split_plan_free(p->split);
		p->split = NULL;
		return 1;
	}
	t = hct_split_plan_tables(p->split);
	p->params_length = (uint32_t)hct_split_tables_length(t);
	p->params = malloc(p->params_length);
	if (p->params)
		hct_split_tables_pack(t, p->params);
	return p->params != NULL;
}

/* Compares codecs on a piece of the tensor. */
static void choose_codec(hct_encoder *e, hct_plan *p, const uint8_t *data)
{
	size_t unit = hct_dtype_unit(p->tensor->dtype);
	uint64_t n = p->bytes < TRIAL_BYTES ? p->bytes : TRIAL_BYTES;
	const uint8_t *piece = data + (p->bytes - n) / 2 / unit * unit;
	const unsigned strides[] = {1, (unsigned)unit};
	size_t best = n, length;

	n = n / unit * unit;
	p->codec = HCT_CODEC_RAW;
	if (p->split && n) {
		const struct hct_layout *l = hct_layout_find(p->tensor->dtype);

		length = hct_split_encode(e, p->split, piece, n / l->unit,
					  (uint64_t)(piece - data) / l->unit, best);
		if (length) {
			best = length;
			p->codec = HCT_CODEC_SPLIT;
		}
	}
	for (size_t i = 0; n && i < (unit > 1 ? 2 : 1); i++) {
		length = hct_zstd_encode(e, piece, n, strides[i], p->level, best);
		if (length) {
			best = length;
			p->codec = HCT_CODEC_ZSTD;
			p->stride = strides[i];
		}
	}
}

hct_error hct_plan_create(hct_encoder *e, const struct hct_tensor *tensor, const void *data,
			  hct_plan **out, struct hct_diag *diag)
{
	const struct hct_layout *layout = hct_layout_find(tensor->dtype);
	hct_plan *p = calloc(1, sizeof *p);
	int ok = 1;

	*out = NULL;
	if (!p)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", tensor->name);
	p->tensor = tensor;
	p->bytes = hct_tensor_bytes(tensor);
	p->level = p->bytes < (1u << 20) ? 12 : 3;
	p->stride = 1;
	if (p->bytes) {
		p->chunk_bytes = choose_chunk(tensor);
		p->chunk_count = (p->bytes + p->chunk_bytes - 1) / p->chunk_bytes;
		if (layout) {
			p->split = hct_split_plan_create(tensor, layout, data);
			ok = p->split != NULL;
		}
		if (ok) {
			choose_codec(e, p, data);
			ok = keep_tables(p);
		}
	}
	if (!ok) {
		hct_plan_free(p);
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", tensor->name);
	}
	*out = p;
	return HCT_OK;
}

void hct_plan_free(hct_plan *p)
{
	if (!p)
		return;
	hct_split_plan_free(p->split);
	free(p->params);
	free(p);
}

uint32_t hct_plan_chunk_bytes(const hct_plan *p)
{
	return p->chunk_bytes;
}

uint64_t hct_plan_chunk_count(const hct_plan *p)
{
	return p->chunk_count;
}

uint32_t hct_plan_chunk_length(const hct_plan *p, uint64_t n)
{
	uint64_t left = p->bytes - n * p->chunk_bytes;

	return left < p->chunk_bytes ? (uint32_t)left : p->chunk_bytes;
}

hct_error hct_encode_chunk(hct_encoder *e, const hct_plan *p, uint64_t n, const void *data,
			   struct hct_encoded *out, struct hct_diag *diag)
{
	size_t length = hct_plan_chunk_length(p, n), coded = 0;

	out->codec = p->codec;
	if (p->codec == HCT_CODEC_ZSTD)
		coded = hct_zstd_encode(e, data, length, length % p->stride ? 1 : p->stride,
					p->level, length);
	if (p->codec == HCT_CODEC_SPLIT) {
		size_t unit = hct_layout_find(p->tensor->dtype)->unit;

		coded = hct_split_encode(e, p->split, data, length / unit,
					 n * p->chunk_bytes / unit, length);
	}
	if (!coded) {
		if (!hct_buffer_reserve(&e->payload, &e->payload_capacity, length))
			return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", p->tensor->name);
		memcpy(e->payload, data, length);
		coded = length;
		out->codec = HCT_CODEC_RAW;
	}
	out->payload = e->payload;
	out->length = (uint32_t)coded;
	out->checksum = hct_checksum(e->payload, coded);
	out->digest = hct_checksum(data, length);
	return HCT_OK;
}
