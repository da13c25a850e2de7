#include "appender.h"

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "bytes.h"
#include "checksum.h"
#include "codec.h"
#include "format.h"
#include "io.h"
#include "plan.h"

/* Level for the sections of the index. */
#define INDEX_LEVEL 6

_Static_assert(HCT_APPENDED_EXTENT == HCT_EXTENT_BYTES, "the header promises it");

struct hct_appender {
	int fd;
	char *name;
	const struct hct_safetensors *st;
	uint64_t offset; /* bytes written so far */
	struct hct_tensor_record *tensors;
	size_t tensor_count;  /* declared so far */
	double energy, error; /* of the chunks of the tensor declared last */
	uint64_t chunks_due;  /* of the tensor declared last */
	uint8_t *extents;
	size_t extent_count, extent_capacity;
	uint8_t *params;
	size_t params_length, params_capacity;
	int finished;
	hct_error failed; /* of the first write that did not succeed */
};

static hct_error put(hct_appender *a, const void *data, size_t length, struct hct_diag *diag)
{
	hct_error e;

	/* After a write that failed half-way nobody knows where the descriptor stands. */
	if (a->failed)
		return hct_fail(diag, a->failed, "%s: an earlier write failed", a->name);
	e = hct_write_all(a->fd, a->name, data, length, diag);
	a->failed = e;
	if (!e)
		a->offset += length;
	return e;
}

static hct_error no_memory(const hct_appender *a, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", a->name);
}

hct_error hct_appender_create(int fd, const char *name, const struct hct_safetensors *st,
			      hct_appender **out, struct hct_diag *diag)
{
	struct hct_superblock super = {.major = HCT_FORMAT_MAJOR,
				       .minor = HCT_FORMAT_MINOR,
				       .source_size = st->file_size,
				       .header_len = st->header_len};
	uint8_t buf[HCT_SUPERBLOCK_BYTES];
	hct_appender *a = calloc(1, sizeof *a);
	hct_error e;

	*out = NULL;
	if (!a)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", name);
	a->fd = fd;
	a->st = st;
	a->name = strdup(name);
	a->tensors = calloc(st->count + 1, sizeof *a->tensors);
	hct_superblock_pack(&super, buf);
	e = a->name && a->tensors ? put(a, buf, sizeof buf, diag)
				  : hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", name);
	if (e)
		hct_appender_free(a);
	else
		*out = a;
	return e;
}

void hct_appender_free(hct_appender *a)
{
	if (!a)
		return;
	free(a->name);
	free(a->tensors);
	free(a->extents);
	free(a->params);
	free(a);
}

/* Doubles a buffer until need bytes fit; 0 without memory. */
static int grow(uint8_t **buf, size_t *capacity, size_t need)
{
	size_t size = *capacity ? *capacity : 4096;
	uint8_t *p;

	if (need <= *capacity)
		return 1;
	while (size < need)
		size *= 2;
	p = realloc(*buf, size);
	if (!p)
		return 0;
	*buf = p;
	*capacity = size;
	return 1;
}

/* Declares the next tensor. */
static hct_error declare(hct_appender *a, size_t i, const struct hct_appended *t,
			 struct hct_diag *diag)
{
	if (i != a->tensor_count || i >= a->st->count || a->chunks_due)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: tensor %zu declared out of turn",
				a->name, i);
	if (t->params_length > HCT_MAX_PARAMS - a->params_length)
		return hct_fail(diag, HCT_ERR_LIMIT, "%s: the tensors' tables exceed %u bytes",
				a->name, HCT_MAX_PARAMS);
	if (!grow(&a->params, &a->params_capacity, a->params_length + t->params_length))
		return no_memory(a, diag);
	a->tensors[i] = (struct hct_tensor_record){.codec = t->codec,
						   .layers = (uint8_t)t->layers,
						   .chunk_bytes = t->chunk_bytes,
						   .chunk_count = t->chunk_count,
						   .first_extent = a->extent_count,
						   .params_offset = a->params_length,
						   .params_length = t->params_length};
	if (t->params_length)
		memcpy(a->params + a->params_length, t->params, t->params_length);
	a->params_length += t->params_length;
	a->chunks_due = t->chunk_count;
	a->energy = a->error = 0;
	a->tensor_count++;
	return HCT_OK;
}

/* A tensor that is to be coded so, before its first chunk. */
static struct hct_appended appended_of(const hct_plan *plan)
{
	return (struct hct_appended){.codec = plan->params_length ? plan->codec : 0,
				     .layers = plan->layers,
				     .chunk_bytes = plan->chunk_bytes,
				     .chunk_count = plan->chunk_count,
				     .params = plan->params,
				     .params_length = plan->params_length};
}

hct_error hct_appender_tensor(hct_appender *a, size_t i, const hct_plan *plan,
			      struct hct_diag *diag)
{
	struct hct_appended t = appended_of(plan);

	if (i < a->st->count && plan->bytes != hct_tensor_bytes(&a->st->tensors[i]))
		return hct_fail(diag, HCT_ERR_ARGUMENT,
				"%s: tensor %zu declared with another one's plan", a->name, i);
	return declare(a, i, &t, diag);
}

/* Appends one layer of a chunk. */
static hct_error append_layer(hct_appender *a, const struct hct_encoded_layer *layer,
			      uint16_t codec, struct hct_diag *diag)
{
	struct hct_extent ext = {.offset = a->offset,
				 .length = layer->length,
				 .codec = codec,
				 .checksum = layer->checksum,
				 .digest = layer->digest};
	hct_error e;

	if (!grow(&a->extents, &a->extent_capacity, (a->extent_count + 1) * HCT_EXTENT_BYTES))
		return no_memory(a, diag);
	e = put(a, layer->payload, layer->length, diag);
	if (e)
		return e;
	hct_extent_pack(&ext, a->extents + a->extent_count * HCT_EXTENT_BYTES);
	a->extent_count++;
	return HCT_OK;
}

hct_error hct_appender_chunk(hct_appender *a, const struct hct_encoded *chunk,
			     struct hct_diag *diag)
{
	struct hct_tensor_record *t = &a->tensors[a->tensor_count - (a->tensor_count > 0)];

	if (!a->chunks_due || chunk->layer_count != t->layers)
		return hct_fail(diag, HCT_ERR_ARGUMENT,
				"%s: a chunk too many, or of other layers than its tensor",
				a->name);
	for (unsigned l = 0; l < chunk->layer_count; l++) {
		hct_error e = append_layer(a, &chunk->layers[l], chunk->codec, diag);

		if (e)
			return e;
	}
	a->chunks_due--;
	a->energy += chunk->energy;
	a->error += chunk->error;
	t->relative_squared_error = a->energy > 0 ? a->error / a->energy : 0;
	return HCT_OK;
}

size_t hct_appender_count(const hct_appender *a)
{
	return a->tensor_count;
}

/* Chunks of tensor i that are there with all their layers. */
static uint64_t whole_chunks(const hct_appender *a, size_t i)
{
	return a->tensors[i].chunk_count - (i + 1 == a->tensor_count ? a->chunks_due : 0);
}

uint64_t hct_appender_bytes(const hct_appender *a)
{
	const struct hct_tensor_record *t = &a->tensors[a->tensor_count - (a->tensor_count > 0)];
	uint64_t extents =
		a->tensor_count ? t->first_extent + whole_chunks(a, a->tensor_count - 1) * t->layers
				: 0;
	struct hct_extent last;

	if (!extents)
		return HCT_SUPERBLOCK_BYTES;
	hct_extent_unpack(a->extents + (extents - 1) * HCT_EXTENT_BYTES, &last);
	return last.offset + last.length;
}

void hct_appender_describe(const hct_appender *a, size_t i, struct hct_appended *out)
{
	const struct hct_tensor_record *t = &a->tensors[i];
	int last = i + 1 == a->tensor_count;

	*out = (struct hct_appended){.codec = t->codec,
				     .layers = t->layers,
				     .chunk_bytes = t->chunk_bytes,
				     .chunk_count = t->chunk_count,
				     .chunks = whole_chunks(a, i),
				     .energy = last ? a->energy : 0,
				     .error = last ? a->error : 0,
				     .params = a->params + t->params_offset,
				     .params_length = t->params_length,
				     .extents = a->extents + t->first_extent * HCT_EXTENT_BYTES};
}

uint64_t hct_appended_bytes(const struct hct_appended *t)
{
	uint64_t bytes = t->params_length;

	for (uint64_t i = 0; i < t->chunks * t->layers; i++) {
		struct hct_extent ext;

		hct_extent_unpack(t->extents + i * HCT_EXTENT_BYTES, &ext);
		bytes += ext.length;
	}
	return bytes;
}

int hct_appended_matches(const struct hct_appended *t, const hct_plan *plan)
{
	struct hct_appended p = appended_of(plan);

	return t->codec == p.codec && t->layers == p.layers && t->chunk_bytes == p.chunk_bytes &&
	       t->chunk_count == p.chunk_count && t->params_length == p.params_length &&
	       (!p.params_length || memcmp(t->params, p.params, p.params_length) == 0);
}

/* Takes extents over that begin where the file has ended so far. */
static hct_error restore_extents(hct_appender *a, const struct hct_appended *t,
				 struct hct_diag *diag)
{
	size_t count = (size_t)t->chunks * t->layers;

	if (!grow(&a->extents, &a->extent_capacity, (a->extent_count + count) * HCT_EXTENT_BYTES))
		return no_memory(a, diag);
	for (size_t i = 0; i < count; i++) {
		const uint8_t *bytes = t->extents + i * HCT_EXTENT_BYTES;
		struct hct_extent ext;

		hct_extent_unpack(bytes, &ext);
		if (ext.offset != a->offset || ext.length > HCT_MAX_CHUNK * 2 ||
		    !hct_codec_find(ext.codec))
			return hct_fail(diag, HCT_ERR_ARGUMENT,
					"%s: an extent that is not next to the one before it",
					a->name);
		memcpy(a->extents + a->extent_count * HCT_EXTENT_BYTES, bytes, HCT_EXTENT_BYTES);
		a->extent_count++;
		a->offset += ext.length;
	}
	return HCT_OK;
}

hct_error hct_appender_restore(hct_appender *a, size_t i, const struct hct_appended *t,
			       struct hct_diag *diag)
{
	uint64_t bytes = i < a->st->count ? hct_tensor_bytes(&a->st->tensors[i]) : 0;
	uint64_t count = t->chunk_bytes ? bytes / t->chunk_bytes + (bytes % t->chunk_bytes > 0) : 0;
	hct_error e;

	if (t->chunk_count != count || t->chunks > count || t->layers < 1 ||
	    t->layers > HCT_GOAL_MAX_LAYERS)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: tensor %zu restored as another one",
				a->name, i);
	e = declare(a, i, t, diag);
	if (!e)
		e = restore_extents(a, t, diag);
	if (e)
		return e;
	a->chunks_due -= t->chunks;
	a->energy = t->energy;
	a->error = t->error;
	a->tensors[i].relative_squared_error = t->energy > 0 ? t->error / t->energy : 0;
	return HCT_OK;
}

hct_error hct_appender_rewind(hct_appender *a, struct hct_diag *diag)
{
	const struct hct_tensor_record *t;

	if (!a->tensor_count)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: no tensor to take back", a->name);
	t = &a->tensors[--a->tensor_count];
	a->extent_count = t->first_extent;
	a->params_length = t->params_offset;
	a->chunks_due = 0;
	a->energy = a->error = 0;
	a->failed = HCT_OK;
	a->offset = hct_appender_bytes(a);
	return HCT_OK;
}

/* The index while it is put together: head, then sections. */
struct builder {
	hct_appender *a;
	uint8_t head[HCT_INDEX_HEADER_BYTES + (HCT_SECTION_COUNT - 1) * HCT_SECTION_BYTES];
	unsigned count;
	uint8_t *body;
	size_t length, capacity;
};

/* Adds a section, compressed where that is allowed and helps. */
static int add_section(struct builder *b, uint32_t id, const void *data, size_t length)
{
	size_t bound = ZSTD_compressBound(length), stored = length;
	struct hct_section s = {.id = id, .length = length, .flags = HCT_SECTION_REQUIRED};

	if (!grow(&b->body, &b->capacity, b->length + bound))
		return 0;
	if (id != HCT_SECTION_EXTENTS && length) {
		size_t n = ZSTD_compress(b->body + b->length, bound, data, length, INDEX_LEVEL);

		if (!ZSTD_isError(n) && n < length) {
			s.encoding = HCT_ENCODING_ZSTD;
			stored = n;
		}
	}
	if (s.encoding == HCT_ENCODING_STORED && length)
		memcpy(b->body + b->length, data, length);
	s.offset = sizeof b->head + b->length;
	s.stored_length = stored;
	s.checksum = hct_checksum(b->body + b->length, stored);
	hct_section_pack(&s, b->head + HCT_INDEX_HEADER_BYTES + b->count * HCT_SECTION_BYTES);
	b->length += stored;
	b->count++;
	return 1;
}

static int add_tensors(struct builder *b)
{
	hct_appender *a = b->a;
	uint8_t *raw = malloc(a->st->count * HCT_TENSOR_BYTES + 1);
	int ok;

	if (!raw)
		return 0;
	for (size_t i = 0; i < a->st->count; i++)
		hct_tensor_record_pack(&a->tensors[i], raw + i * HCT_TENSOR_BYTES);
	ok = add_section(b, HCT_SECTION_TENSORS, raw, a->st->count * HCT_TENSOR_BYTES);
	free(raw);
	return ok;
}

static int add_source(struct builder *b, const struct hct_source *source)
{
	uint8_t raw[HCT_SOURCE_BYTES] = {0};

	hct_store64(raw, source->size);
	hct_store64(raw + 8, (uint64_t)source->mtime_sec);
	hct_store32(raw + 16, source->mtime_nsec);
	memcpy(raw + 24, source->sha256, 32);
	return add_section(b, HCT_SECTION_SOURCE, raw, sizeof raw);
}

/* Writes the index and the trailer. */
static hct_error write_index(struct builder *b, struct hct_diag *diag)
{
	hct_appender *a = b->a;
	struct hct_trailer t = {.index_offset = a->offset,
				.index_length = sizeof b->head + b->length,
				.major = HCT_FORMAT_MAJOR,
				.minor = HCT_FORMAT_MINOR};
	uint8_t buf[HCT_TRAILER_BYTES];
	hct_error e;

	memcpy(b->head, HCT_INDEX_MAGIC, 8);
	hct_store32(b->head + 8, b->count);
	hct_store64(b->head + 16, t.index_length);
	t.index_checksum = hct_checksum(b->head, sizeof b->head);
	t.file_length = t.index_offset + t.index_length + HCT_TRAILER_BYTES;
	hct_trailer_pack(&t, buf);
	e = put(a, b->head, sizeof b->head, diag);
	if (!e)
		e = put(a, b->body, b->length, diag);
	if (!e)
		e = put(a, buf, sizeof buf, diag);
	return e;
}

hct_error hct_appender_finish(hct_appender *a, const struct hct_source *source,
			      const char *provenance, uint64_t *file_bytes, struct hct_diag *diag)
{
	struct builder b = {.a = a};
	hct_error e;

	if (a->finished || a->tensor_count != a->st->count || a->chunks_due ||
	    source->size != a->st->file_size)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: finished before it was complete",
				a->name);
	if (source->mtime_nsec >= 1000000000 || strlen(provenance) > HCT_MAX_PROVENANCE)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: an impossible time or provenance",
				a->name);
	if (add_section(&b, HCT_SECTION_HEADER, a->st->header, a->st->header_len) &&
	    add_tensors(&b) &&
	    add_section(&b, HCT_SECTION_EXTENTS, a->extents, a->extent_count * HCT_EXTENT_BYTES) &&
	    add_section(&b, HCT_SECTION_PARAMS, a->params, a->params_length) &&
	    add_source(&b, source) &&
	    add_section(&b, HCT_SECTION_PROVENANCE, provenance, strlen(provenance)))
		e = write_index(&b, diag);
	else
		e = no_memory(a, diag);
	free(b.body);
	if (!e) {
		a->finished = 1;
		if (file_bytes)
			*file_bytes = a->offset;
	}
	return e;
}
