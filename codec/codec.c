#include "codec.h"

#include <stdlib.h>

#include <zstd.h>

#include "bytes.h"

static const struct hct_codec *const codecs[] = {&hct_codec_raw,   &hct_codec_zstd,
						 &hct_codec_split, &hct_codec_tcq,
						 &hct_codec_coef,  &hct_codec_lowrank};

const struct hct_codec *hct_codec_find(unsigned id)
{
	for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++)
		if (codecs[i]->id == id)
			return codecs[i];
	return NULL;
}

uint8_t *hct_scratch_reserve(struct hct_scratch *s, size_t size)
{
	if (s->capacity < size) {
		free(s->bytes);
		size = (size + 4095) & ~(size_t)4095;
		s->bytes = aligned_alloc(64, size);
		s->capacity = s->bytes ? size : 0;
	}
	return s->bytes;
}

int hct_zstd_is_frame(const void *src, size_t src_length, uint64_t length)
{
	return src_length >= 4 && hct_load32(src) == ZSTD_MAGICNUMBER &&
	       ZSTD_getFrameContentSize(src, src_length) == length &&
	       ZSTD_findFrameCompressedSize(src, src_length) == src_length;
}

int hct_zstd_decode(struct hct_scratch *s, const void *src, size_t src_length, void *dst,
		    size_t length)
{
	if (!hct_zstd_is_frame(src, src_length, length))
		return -1;
	return ZSTD_decompressDCtx(s->dctx, dst, length, src, src_length) == length ? 0 : -1;
}
