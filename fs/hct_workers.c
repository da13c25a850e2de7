#include "hct_workers.h"

#include <stdlib.h>
#include <string.h>

hct_error hct_workers_create(unsigned threads, struct hct_workers *out)
{
	hct_error err = HCT_ERR_NOMEM;

	memset(out, 0, sizeof(*out));
	out->count = threads ? threads : hct_pool_default_threads();
	out->each = calloc(out->count, sizeof(*out->each));
	if (!out->each)
		goto fail;
	for (unsigned i = 0; i < out->count; i++) {
		err = hct_decoder_create(HCT_SIMD_AUTO, &out->each[i].decoder);
		if (err)
			goto fail;
	}
	err = hct_pool_create(out->count, 8 * (size_t)out->count, &out->pool);
	if (err)
		goto fail;
	return HCT_OK;
fail:
	hct_workers_free(out);
	return err;
}

void hct_workers_free(struct hct_workers *w)
{
	hct_pool_free(w->pool);
	for (unsigned i = 0; w->each && i < w->count; i++) {
		hct_decoder_free(w->each[i].decoder);
		free(w->each[i].buffer[0]);
		free(w->each[i].buffer[1]);
	}
	free(w->each);
	memset(w, 0, sizeof(*w));
}

void *hct_worker_buffer(struct hct_worker *w, unsigned which, size_t size)
{
	if (size > w->size[which] || !w->buffer[which]) {
		uint8_t *buffer = malloc(size ? size : 1);

		if (!buffer)
			return NULL;
		free(w->buffer[which]);
		w->buffer[which] = buffer;
		w->size[which] = size;
	}
	return w->buffer[which];
}
