/* The codec of integers, booleans and everything that is not a weight: zstd, after a
 * transposition by bytes where that helps. */
#include <string.h>

#include "codec.h"

/* Copies bytes [begin, end) of the chunk out of its transposed form. */
static void untranspose(const uint8_t *src, size_t stride, size_t n, size_t begin, size_t end,
			uint8_t *dst)
{
	for (size_t j = 0; j < stride; j++) {
		/* The first byte of plane j at or behind begin. */
		size_t first = begin + (j + stride - begin % stride) % stride;

		for (size_t at = first; at < end; at += stride)
			dst[at - begin] = src[j * n + at / stride];
	}
}

static hct_error decode(const struct hct_task *task, uint8_t *dst, const char **why)
{
	const struct hct_payload *in = &task->layers[0];
	unsigned stride = in->length ? in->data[0] : 0;
	int whole = task->begin == 0 && task->end == task->length;
	uint8_t *plain = dst;

	if (stride != 1 && stride != 2 && stride != 4 && stride != 8) {
		*why = "an impossible stride";
		return HCT_ERR_CORRUPT;
	}
	if (task->length % stride) {
		*why = "a stride that does not divide the chunk";
		return HCT_ERR_CORRUPT;
	}
	if (!whole || stride > 1) {
		plain = hct_scratch_reserve(task->scratch, task->length);
		if (!plain)
			return HCT_ERR_NOMEM;
	}
	if (hct_zstd_decode(task->scratch, in->data + 1, in->length - 1, plain, task->length)) {
		*why = "a damaged zstd frame or one of the wrong size";
		return HCT_ERR_CORRUPT;
	}
	if (stride > 1)
		untranspose(plain, stride, task->length / stride, task->begin, task->end, dst);
	else if (!whole)
		memcpy(dst, plain + task->begin, task->end - task->begin);
	return HCT_OK;
}

const struct hct_codec hct_codec_zstd = {
	.id = HCT_CODEC_ZSTD, .name = "zstd", .max_layers = 1, .decode = decode};
