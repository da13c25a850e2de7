/* Decoding what was encoded, before anybody relies on it. */
#include "check.h"

#include "checksum.h"
#include "codec.h"
#include "format.h"
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

static hct_error check(hct_encoder *e, const struct hct_origin *o, const struct hct_encoded *c,
		       const char **why)
{
	const struct hct_codec *codec = hct_codec_find(c->codec);
	struct hct_task task = {.tensor = o->tensor,
				.offset = o->offset,
				.length = o->length,
				.layers_stored = c->layer_count,
				.scratch = &e->decoding};
	void *tables = NULL;
	hct_error err = HCT_OK;

	for (unsigned l = 0; l < c->layer_count; l++) {
		const struct hct_encoded_layer *layer = &c->layers[l];

		task.layers[l] = (struct hct_payload){layer->payload, layer->length};
		if (hct_checksum(layer->payload, layer->length) != layer->checksum) {
			*why = "the disk gave other bytes than were written";
			return HCT_ERR_DIGEST;
		}
	}
	task.end = task.length;
	if (!hct_buffer_reserve(&e->decoded, &e->decoded_capacity, task.length))
		return HCT_ERR_NOMEM;
	if (codec->open_tables && o->codec == c->codec)
		err = codec->open_tables(o->tensor, o->params, o->params_length, &tables, why);
	task.tables = tables;
	for (unsigned l = 1; !err && l <= c->layer_count; l++)
		err = decode(e, &task, codec, l, c->layers[l - 1].digest, why);
	if (tables)
		codec->free_tables(tables);
	return err;
}

hct_error hct_check_origin(hct_encoder *e, const struct hct_origin *o, uint64_t n,
			   const struct hct_encoded *chunk, struct hct_diag *diag)
{
	const char *why = NULL;
	hct_error err = check(e, o, chunk, &why);

	return err ? hct_fail(diag, err, "%s: chunk %llu: %s", o->tensor->name,
			      (unsigned long long)n, why ? why : hct_error_string(err))
		   : HCT_OK;
}

static const uint8_t *extents_of(const struct hct_appended *a, uint64_t n)
{
	return a->extents + n * a->layers * HCT_EXTENT_BYTES;
}

hct_error hct_appended_place(const struct hct_tensor *t, const struct hct_appended *a, uint64_t n,
			     uint64_t *offset, uint32_t *length)
{
	uint64_t bytes = hct_tensor_bytes(t);

	*length = 0;
	if (n >= a->chunks || a->layers < 1 || a->layers > HCT_GOAL_MAX_LAYERS || !a->chunk_bytes ||
	    a->chunk_bytes > HCT_MAX_CHUNK || n > bytes / a->chunk_bytes ||
	    n * a->chunk_bytes == bytes)
		return HCT_ERR_CORRUPT;
	for (unsigned l = 0; l < a->layers; l++) {
		struct hct_extent x;

		hct_extent_unpack(extents_of(a, n) + l * HCT_EXTENT_BYTES, &x);
		if (!l)
			*offset = x.offset;
		if (x.offset != *offset + *length || x.length > 2 * HCT_MAX_CHUNK ||
		    !hct_codec_find(x.codec))
			return HCT_ERR_CORRUPT;
		*length += x.length;
	}
	return HCT_OK;
}

hct_error hct_check_appended(hct_encoder *e, const struct hct_tensor *t,
			     const struct hct_appended *a, uint64_t n, const uint8_t *bytes,
			     struct hct_diag *diag)
{
	uint64_t left = hct_tensor_bytes(t) - n * a->chunk_bytes;
	const struct hct_origin o = {.tensor = t,
				     .codec = a->codec,
				     .params = a->params,
				     .params_length = a->params_length,
				     .offset = n * a->chunk_bytes,
				     .length = left < a->chunk_bytes ? (uint32_t)left
								     : a->chunk_bytes};
	struct hct_encoded chunk = {.layer_count = a->layers};

	for (unsigned l = 0; l < a->layers; l++) {
		struct hct_extent x;

		hct_extent_unpack(extents_of(a, n) + l * HCT_EXTENT_BYTES, &x);
		chunk.codec = x.codec;
		chunk.layers[l] = (struct hct_encoded_layer){bytes, x.length, x.checksum, x.digest};
		bytes += x.length;
	}
	return hct_check_origin(e, &o, n, &chunk, diag);
}
