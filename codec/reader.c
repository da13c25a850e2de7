#include "reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zstd.h>

#include "checksum.h"
#include "codec.h"
#include "format.h"
#include "index.h"
#include "io.h"
#include "load.h"

struct hct_reader {
	int fd;
	char *name;
	unsigned most_layers; /* of the tensor that has most */
	struct hct_index x;
};

/* Tables of the tensors that a thread decoded last; interleaved readers use a few. */
#define TABLE_SLOTS 8

/* Where the kernel is kept from reading ahead: how many chunks before it is wanted one is named to
 * it.  A chunk that is no further than that behind the last one is read in sequence. */
#define CHUNKS_AHEAD 16

struct table_slot {
	const hct_reader *reader; /* with checksum: which file, also when memory is reused */
	uint64_t checksum;
	size_t tensor;
	uint64_t used;
	const struct hct_codec *codec;
	void *tables;
};

struct hct_decoder {
	struct hct_scratch scratch;
	unsigned layers;  /* that are wanted; 0 for all */
	uint8_t *payload; /* stored bytes of one chunk, all wanted layers, each padded */
	size_t payload_capacity;
	struct table_slot slots[TABLE_SLOTS];
	uint64_t clock;
	const hct_reader *reader; /* of the chunk that was read last */
	uint64_t number;          /* of it */
};

hct_error hct_reader_open_fd(int fd, const char *name, hct_reader **out, struct hct_diag *diag)
{
	hct_reader *r = calloc(1, sizeof *r);
	hct_error e = HCT_ERR_NOMEM;

	*out = NULL;
	if (r)
		r->name = strdup(name);
	if (!r || !r->name) {
		hct_fail(diag, e, "%s: out of memory", name);
		close(fd);
		free(r);
		return e;
	}
	r->fd = fd;
	/* Read-ahead from the first page on would not end with the advice against it: the
	 * kernel goes on from pages that it has marked. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	e = hct_index_read(fd, name, &r->x, diag);
	posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL);
	if (e) {
		hct_reader_close(r);
		return e;
	}
	for (size_t i = 0; i < r->x.st.count; i++)
		if (r->x.tensors[i].layers > r->most_layers)
			r->most_layers = r->x.tensors[i].layers;
	*out = r;
	return HCT_OK;
}

hct_error hct_reader_open(const char *path, hct_reader **out, struct hct_diag *diag)
{
	/* O_NONBLOCK: a FIFO of that name is refused and not waited for. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	*out = NULL;
	if (fd < 0)
		return hct_fail_errno(diag, errno, "%s: cannot open", path);
	return hct_reader_open_fd(fd, path, out, diag);
}

void hct_reader_close(hct_reader *r)
{
	if (!r)
		return;
	hct_index_free(&r->x);
	close(r->fd);
	free(r->name);
	free(r);
}

const char *hct_reader_name(const hct_reader *r)
{
	return r->name;
}

const struct hct_safetensors *hct_reader_safetensors(const hct_reader *r)
{
	return &r->x.st;
}

const struct hct_source *hct_reader_source(const hct_reader *r)
{
	return &r->x.source;
}

const char *hct_reader_provenance(const hct_reader *r)
{
	return r->x.provenance;
}

uint64_t hct_reader_file_bytes(const hct_reader *r)
{
	return r->x.file_length;
}

unsigned hct_reader_version(const hct_reader *r)
{
	return (unsigned)r->x.major << 16 | r->x.minor;
}

uint64_t hct_reader_chunk_count(const hct_reader *r)
{
	return r->x.chunk_count;
}

int hct_reader_is_lossless(const hct_reader *r)
{
	for (size_t i = 0; i < r->x.st.count; i++)
		if (r->x.tensors[i].relative_squared_error != 0)
			return 0;
	return 1;
}

/* The tables of all tensors are compressed together; a tensor's share goes by its length,
 * rounded down, so that the shares never exceed the section. */
static uint64_t stored_tables(const struct hct_index *x, const struct hct_tensor_record *t)
{
	if (!x->params_length)
		return 0;
	return (uint64_t)((double)t->params_length * (double)x->params_stored /
			  (double)x->params_length);
}

void hct_reader_coding(const hct_reader *r, size_t i, struct hct_coding *out)
{
	const struct hct_tensor_record *t = &r->x.tensors[i];
	uint64_t votes[HCT_CODEC_COUNT + 1] = {0}, extents = t->chunk_count * t->layers;
	unsigned best = 0;

	*out = (struct hct_coding){.codec = "empty",
				   .first_chunk = r->x.first_chunk[i],
				   .chunk_count = t->chunk_count,
				   .chunk_bytes = t->chunk_bytes,
				   .layers = t->layers,
				   .stored_bytes = stored_tables(&r->x, t),
				   .relative_squared_error = t->relative_squared_error};
	for (uint64_t k = 0; k < extents; k++) {
		struct hct_extent ext;

		hct_extent_unpack(r->x.extents + (t->first_extent + k) * HCT_EXTENT_BYTES, &ext);
		out->stored_bytes += ext.length;
		votes[ext.codec < HCT_CODEC_COUNT ? ext.codec : HCT_CODEC_COUNT]++;
	}
	if (!extents)
		return;
	for (unsigned id = 1; id <= HCT_CODEC_COUNT; id++)
		if (votes[id] > votes[best])
			best = id;
	out->codec = best < HCT_CODEC_COUNT ? hct_codec_find(best)->name : "unknown";
}

/* How many of its layers are read: no more than `layers`, where 0 stands for all. */
static unsigned wanted_layers(const struct hct_tensor_record *t, unsigned layers)
{
	return layers && layers < t->layers ? layers : t->layers;
}

uint64_t hct_reader_layer_bytes(const hct_reader *r, size_t i, unsigned layers)
{
	const struct hct_tensor_record *t = &r->x.tensors[i];
	unsigned wanted = wanted_layers(t, layers);
	uint64_t bytes = 0;

	for (uint64_t k = 0; k < t->chunk_count; k++) {
		for (unsigned l = 0; l < wanted; l++) {
			struct hct_extent ext;

			hct_index_extent(&r->x, i, k, l, &ext);
			bytes += ext.length;
		}
	}
	return bytes;
}

/* The last i with first_chunk[i] <= number among tensors that have chunks. */
static size_t tensor_of_chunk(const struct hct_index *x, uint64_t number)
{
	size_t low = 0, high = x->st.count;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (x->first_chunk[mid] <= number)
			low = mid;
		else
			high = mid;
	}
	return low;
}

void hct_reader_chunk(const hct_reader *r, uint64_t number, struct hct_chunk *out)
{
	const struct hct_index *x = &r->x;
	size_t i = tensor_of_chunk(x, number);
	const struct hct_tensor_record *t = &x->tensors[i];
	uint64_t k = number - x->first_chunk[i], begin = k * t->chunk_bytes;
	uint64_t left = hct_tensor_bytes(&x->st.tensors[i]) - begin;
	struct hct_extent ext;

	*out = (struct hct_chunk){.tensor = i,
				  .number = number,
				  .offset = x->st.header_len + x->st.tensors[i].begin + begin,
				  .length = left < t->chunk_bytes ? (uint32_t)left : t->chunk_bytes,
				  .layers = t->layers};
	for (unsigned l = 0; l < t->layers; l++) {
		hct_index_extent(x, i, k, l, &ext);
		if (l == 0)
			out->stored_offset = ext.offset;
		out->stored_bytes += ext.length;
	}
}

int hct_reader_locate(const hct_reader *r, uint64_t offset, uint64_t *number)
{
	const struct hct_index *x = &r->x;
	size_t low = 0, high = x->st.count;

	if (offset < x->st.header_len || offset >= x->st.file_size)
		return 0;
	offset -= x->st.header_len;
	/* The last tensor that begins at or before the offset and, since tensors are sorted by
	 * begin and then end, has bytes there. */
	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (x->st.tensors[mid].begin <= offset)
			low = mid;
		else
			high = mid;
	}
	*number = x->first_chunk[low] +
		  (offset - x->st.tensors[low].begin) / x->tensors[low].chunk_bytes;
	return 1;
}

hct_error hct_decoder_create(hct_simd simd, hct_decoder **out)
{
	hct_decoder *d;

	*out = NULL;
	if (simd == HCT_SIMD_AUTO)
		simd = hct_simd_best();
	if (!hct_simd_supported(simd))
		return HCT_ERR_UNSUPPORTED;
	d = calloc(1, sizeof *d);
	if (!d)
		return HCT_ERR_NOMEM;
	d->scratch.simd = simd;
	d->scratch.dctx = ZSTD_createDCtx();
	if (!d->scratch.dctx) {
		free(d);
		return HCT_ERR_NOMEM;
	}
	*out = d;
	return HCT_OK;
}

static void slot_clear(struct table_slot *s)
{
	if (s->tables)
		s->codec->free_tables(s->tables);
	memset(s, 0, sizeof *s);
}

void hct_decoder_free(hct_decoder *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < TABLE_SLOTS; i++)
		slot_clear(&d->slots[i]);
	ZSTD_freeDCtx(d->scratch.dctx);
	free(d->scratch.bytes);
	free(d->payload);
	free(d);
}

void hct_decoder_set_layers(hct_decoder *d, unsigned layers)
{
	d->layers = layers;
}

/* Finds or opens the tables of a tensor. */
static hct_error find_tables(const hct_reader *r, hct_decoder *d, size_t tensor,
			     const struct hct_codec *codec, const void **tables, const char **why)
{
	const struct hct_tensor_record *t = &r->x.tensors[tensor];
	struct table_slot *s = &d->slots[0];
	hct_error e;

	for (size_t i = 0; i < TABLE_SLOTS; i++) {
		struct table_slot *c = &d->slots[i];

		if (c->tables && c->reader == r && c->checksum == r->x.checksum &&
		    c->tensor == tensor) {
			c->used = ++d->clock;
			*tables = c->tables;
			return HCT_OK;
		}
		if (c->used < s->used)
			s = c;
	}
	slot_clear(s);
	e = codec->open_tables(&r->x.st.tensors[tensor], r->x.params + t->params_offset,
			       t->params_length, &s->tables, why);
	if (e)
		return e;
	s->reader = r;
	s->checksum = r->x.checksum;
	s->tensor = tensor;
	s->codec = codec;
	s->used = ++d->clock;
	*tables = s->tables;
	return HCT_OK;
}

/* A line that names file, tensor and chunk. */
static hct_error chunk_fail(const hct_reader *r, const struct hct_chunk *c, hct_error e,
			    struct hct_diag *diag, const char *why)
{
	return hct_fail(diag, e, "%s: tensor %s, chunk %llu (bytes %llu to %llu): %s", r->name,
			r->x.st.tensors[c->tensor].name,
			(unsigned long long)(c->number - r->x.first_chunk[c->tensor]),
			(unsigned long long)c->offset,
			(unsigned long long)(c->offset + c->length - 1),
			why ? why : hct_error_string(e));
}

static hct_error sum_fail(const hct_reader *r, const struct hct_chunk *c, hct_error e,
			  struct hct_diag *diag, uint64_t expected, uint64_t found)
{
	char why[128];

	snprintf(why, sizeof why, "%s %016llx expected, %016llx found",
		 e == HCT_ERR_DIGEST ? "decoded digest" : "checksum", (unsigned long long)expected,
		 (unsigned long long)found);
	return chunk_fail(r, c, e, diag, why);
}

/* Lets the kernel begin to read the wanted extents of a chunk. */
static void begin_to_read(const hct_reader *r, const hct_decoder *d, uint64_t number)
{
	size_t i = tensor_of_chunk(&r->x, number);
	unsigned wanted = wanted_layers(&r->x.tensors[i], d->layers);
	struct hct_extent ext;

	for (unsigned l = 0; l < wanted; l++) {
		hct_index_extent(&r->x, i, number - r->x.first_chunk[i], l, &ext);
		posix_fadvise(r->fd, (off_t)ext.offset, ext.length, POSIX_FADV_WILLNEED);
	}
}

/* The kernel's read-ahead would bring in the layers that are left out; also from a tensor without
 * any into the next one.  So it has none in such a file, and learns here what comes next. */
static void advise(const hct_reader *r, hct_decoder *d, uint64_t number)
{
	uint64_t step = d->reader == r ? number - d->number : UINT64_MAX;

	d->reader = r;
	d->number = number;
	if (!d->layers || d->layers >= r->most_layers)
		return;
	posix_fadvise(r->fd, 0, 0, POSIX_FADV_RANDOM);
	if (step > CHUNKS_AHEAD)
		begin_to_read(r, d, number);
	else if (step && number + CHUNKS_AHEAD < r->x.chunk_count)
		begin_to_read(r, d, number + CHUNKS_AHEAD);
}

uint64_t hct_reader_identity(const hct_reader *r)
{
	return r->x.checksum;
}

size_t hct_loaded_bytes(const struct hct_chunk *c)
{
	return c->stored_bytes + c->layers * (size_t)HCT_PAYLOAD_PAD;
}

/* Reads the wanted extents of a chunk one behind the other and verifies them. */
static hct_error read_extents(const hct_reader *r, unsigned wanted, uint8_t *payload,
			      struct hct_loaded *out, uint16_t *codec, struct hct_diag *diag)
{
	const struct hct_chunk *c = &out->chunk;
	int mixed = 0;

	out->layer_count = wanted;
	for (unsigned l = 0; l < wanted; l++) {
		struct hct_extent ext;
		uint64_t sum;
		hct_error e;

		hct_index_extent(&r->x, c->tensor, c->number - r->x.first_chunk[c->tensor], l,
				 &ext);
		if (ext.flags)
			return chunk_fail(r, c, HCT_ERR_UNSUPPORTED, diag,
					  "an extent flag of a newer version; update hctfs");
		e = hct_read_at(r->fd, r->name, payload, ext.length, ext.offset, diag);
		if (e)
			return chunk_fail(r, c, e, diag, diag ? diag->text : NULL);
		memset(payload + ext.length, 0, HCT_PAYLOAD_PAD);
		sum = hct_checksum(payload, ext.length);
		if (sum != ext.checksum)
			return sum_fail(r, c, HCT_ERR_CHECKSUM, diag, ext.checksum, sum);
		out->layers[l] = (struct hct_payload){payload, ext.length};
		mixed |= l && ext.codec != *codec;
		*codec = ext.codec;
		out->digest = ext.digest;
		payload += ext.length + HCT_PAYLOAD_PAD;
	}
	if (mixed)
		return chunk_fail(r, c, HCT_ERR_UNSUPPORTED, diag,
				  "layers of several codecs need a newer version; update hctfs");
	return HCT_OK;
}

hct_error hct_loaded_read(const hct_reader *r, hct_decoder *d, uint64_t number, uint8_t *payload,
			  struct hct_loaded *out, struct hct_diag *diag)
{
	const struct hct_chunk *c = &out->chunk;
	const struct hct_tensor_record *t;
	uint16_t id = 0;
	hct_error e;

	hct_reader_chunk(r, number, &out->chunk);
	t = &r->x.tensors[c->tensor];
	if (t->flags)
		return chunk_fail(r, c, HCT_ERR_UNSUPPORTED, diag,
				  "a tensor flag of a newer version; update hctfs");
	advise(r, d, number);
	e = read_extents(r, wanted_layers(t, d->layers), payload, out, &id, diag);
	if (e)
		return e;
	out->codec = hct_codec_find(id);
	if (!out->codec || t->layers > out->codec->max_layers)
		return chunk_fail(r, c, HCT_ERR_UNSUPPORTED, diag,
				  "a codec of a newer version; update hctfs");
	if (out->codec->open_tables && t->codec != id)
		return chunk_fail(r, c, HCT_ERR_CORRUPT, diag, "no tables for its codec");
	return HCT_OK;
}

hct_error hct_loaded_task(const hct_reader *r, hct_decoder *d, const struct hct_loaded *c,
			  struct hct_task *task, struct hct_diag *diag)
{
	size_t i = c->chunk.tensor;
	const char *why = NULL;
	hct_error e;

	*task = (struct hct_task){.tensor = &r->x.st.tensors[i],
				  .offset = (c->chunk.number - r->x.first_chunk[i]) *
					    r->x.tensors[i].chunk_bytes,
				  .length = c->chunk.length,
				  .end = c->chunk.length,
				  .layer_count = c->layer_count,
				  .layers_stored = c->chunk.layers,
				  .scratch = &d->scratch};
	memcpy(task->layers, c->layers, c->layer_count * sizeof *c->layers);
	if (!c->codec->open_tables)
		return HCT_OK;
	e = find_tables(r, d, i, c->codec, &task->tables, &why);
	return e ? chunk_fail(r, &c->chunk, e, diag, why) : HCT_OK;
}

hct_error hct_loaded_decode(const hct_reader *r, hct_decoder *d, const struct hct_loaded *c,
			    size_t begin, size_t end, void *dst, struct hct_diag *diag)
{
	const char *why = NULL;
	struct hct_task task;
	hct_error e = hct_loaded_task(r, d, c, &task, diag);

	if (e)
		return e;
	task.begin = begin;
	task.end = end;
	e = c->codec->decode(&task, dst, &why);
	return e ? chunk_fail(r, &c->chunk, e, diag, why) : HCT_OK;
}

hct_error hct_loaded_check(const hct_reader *r, const struct hct_loaded *c, const void *src,
			   struct hct_diag *diag)
{
	uint64_t found = hct_checksum(src, c->chunk.length);

	return found == c->digest ? HCT_OK
				  : sum_fail(r, &c->chunk, HCT_ERR_DIGEST, diag, c->digest, found);
}

/* Reads a chunk into the decoder's own memory. */
static hct_error load_chunk(const hct_reader *r, hct_decoder *d, uint64_t number,
			    struct hct_loaded *out, struct hct_diag *diag)
{
	size_t need;

	hct_reader_chunk(r, number, &out->chunk);
	need = hct_loaded_bytes(&out->chunk);
	if (d->payload_capacity < need) {
		free(d->payload);
		d->payload = malloc(need);
		d->payload_capacity = d->payload ? need : 0;
		if (!d->payload)
			return chunk_fail(r, &out->chunk, HCT_ERR_NOMEM, diag, NULL);
	}
	return hct_loaded_read(r, d, number, d->payload, out, diag);
}

static hct_error decode_chunk(const hct_reader *r, hct_decoder *d, uint64_t number, int verified,
			      void *dst, struct hct_diag *diag)
{
	struct hct_loaded c;
	hct_error e;

	if (number >= r->x.chunk_count)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: no chunk %llu", r->name,
				(unsigned long long)number);
	e = load_chunk(r, d, number, &c, diag);
	if (!e)
		e = hct_loaded_decode(r, d, &c, 0, c.chunk.length, dst, diag);
	if (!e && verified)
		e = hct_loaded_check(r, &c, dst, diag);
	return e;
}

hct_error hct_reader_decode(const hct_reader *r, hct_decoder *d, uint64_t number, void *dst,
			    struct hct_diag *diag)
{
	return decode_chunk(r, d, number, 0, dst, diag);
}

hct_error hct_reader_decode_verified(const hct_reader *r, hct_decoder *d, uint64_t number,
				     void *dst, struct hct_diag *diag)
{
	return decode_chunk(r, d, number, 1, dst, diag);
}

hct_error hct_reader_pread(const hct_reader *r, hct_decoder *d, uint64_t offset, void *dst,
			   size_t length, struct hct_diag *diag)
{
	const struct hct_safetensors *st = &r->x.st;
	uint8_t *out = dst;
	hct_error e = HCT_OK;

	if (offset > st->file_size || length > st->file_size - offset)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: no bytes %llu to %llu", r->name,
				(unsigned long long)offset, (unsigned long long)(offset + length));
	while (length && !e) {
		uint64_t number;
		size_t n;

		if (offset < st->header_len) {
			n = st->header_len - offset < length ? st->header_len - offset : length;
			memcpy(out, st->header + offset, n);
		} else {
			struct hct_loaded c;
			size_t begin;

			hct_reader_locate(r, offset, &number);
			e = load_chunk(r, d, number, &c, diag);
			begin = offset - c.chunk.offset;
			n = c.chunk.length - begin < length ? c.chunk.length - begin : length;
			if (!e)
				e = hct_loaded_decode(r, d, &c, begin, begin + n, out, diag);
		}
		out += n;
		offset += n;
		length -= n;
	}
	return e;
}
