/* Decoding what was encoded, before anybody relies on it. */
#include "checksum.h"
#include "codec.h"
#include "encoder.h"
#include "plan.h"

_Static_assert(HCT_CHECK_PAD == HCT_PAYLOAD_PAD, "the header promises it");

/* Decodes the first `layers` layers into the encoder's buffer. */
static hct_error decode(hct_encoder *e, const struct hct_task *chunk, const struct hct_codec *codec,
			unsigned layers, uint64_t digest, const char **why)
{
	struct hct_task task = *chunk;
	hct_error err;

	task.layer_count = layers;
	err = codec->decode(&task, e->decoded, why);
	if (!err && hct_checksum(e->decoded, task.length) != digest) {
		*why = "it decodes to other bytes than it was made to";
		err = HCT_ERR_DIGEST;
	}
	return err;
}

static hct_error check(hct_encoder *e, const hct_plan *p, uint64_t n, const struct hct_encoded *c,
		       const char **why)
{
	const struct hct_codec *codec = hct_codec_find(c->codec);
	struct hct_task task = {.tensor = p->tensor,
				.offset = n * p->chunk_bytes,
				.length = hct_plan_chunk_length(p, n),
				.layers_stored = c->layer_count,
				.scratch = &e->decoding};
	void *tables = NULL;
	hct_error err = HCT_OK;

	for (unsigned l = 0; l < c->layer_count; l++) {
		const struct hct_encoded_layer *layer = &c->layers[l];

		task.layers[l] = (struct hct_payload){layer->payload, layer->length};
		if (hct_checksum(layer->payload, layer->length) != layer->checksum) {
			*why = "its bytes are not those that were written";
			return HCT_ERR_DIGEST;
		}
	}
	task.end = task.length;
	if (!hct_buffer_reserve(&e->decoded, &e->decoded_capacity, task.length))
		return HCT_ERR_NOMEM;
	if (codec->open_tables && p->codec == c->codec)
		err = codec->open_tables(p->tensor, p->params, p->params_length, &tables, why);
	task.tables = tables;
	for (unsigned l = 1; !err && l <= c->layer_count; l++)
		err = decode(e, &task, codec, l, c->layers[l - 1].digest, why);
	if (tables)
		codec->free_tables(tables);
	return err;
}

hct_error hct_check_chunk(hct_encoder *e, const hct_plan *p, uint64_t n,
			  const struct hct_encoded *chunk, struct hct_diag *diag)
{
	const char *why = NULL;
	hct_error err = check(e, p, n, chunk, &why);

	return err ? hct_fail(diag, err, "%s: chunk %llu: %s", p->tensor->name,
			      (unsigned long long)n, why ? why : hct_error_string(err))
		   : HCT_OK;
}
