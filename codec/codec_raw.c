/* The codec of chunks that do not get smaller. */
#include <string.h>

#include "codec.h"

static hct_error decode(const struct hct_task *task, uint8_t *dst, const char **why)
{
	if (task->layers[0].length != task->length) {
		*why = "a raw payload of the wrong length";
		return HCT_ERR_CORRUPT;
	}
	memcpy(dst, task->layers[0].data + task->begin, task->end - task->begin);
	return HCT_OK;
}

const struct hct_codec hct_codec_raw = {
	.id = HCT_CODEC_RAW, .name = "raw", .max_layers = 1, .decode = decode};
