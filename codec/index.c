#include "index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <zstd.h>

#include "bytes.h"
#include "checksum.h"
#include "codec.h"
#include "io.h"

/* What is at hand while an index is read. */
struct loader {
	int fd;
	const char *name;
	struct hct_diag *diag;
	uint64_t file_length;
	struct hct_superblock super;
	struct hct_trailer trailer;
	struct hct_section sections[HCT_SECTION_COUNT]; /* by id; length 0 and id 0 when absent */
	struct hct_index *x;
};

static const char *const section_names[HCT_SECTION_COUNT] = {
	"", "HEADER", "TENSORS", "EXTENTS", "PARAMS", "SOURCE", "PROVENANCE"};

static hct_error corrupt(struct loader *l, const char *what)
{
	return hct_fail(l->diag, HCT_ERR_CORRUPT,
			"%s: the index is damaged: %s; restore the file from a good copy", l->name,
			what);
}

static hct_error read_ends(struct loader *l)
{
	uint8_t buf[HCT_SUPERBLOCK_BYTES];
	struct hct_trailer *t = &l->trailer;
	struct stat sb;
	hct_error e;

	if (fstat(l->fd, &sb))
		return hct_fail_errno(l->diag, errno, "%s: cannot stat", l->name);
	if (!S_ISREG(sb.st_mode))
		return hct_fail(l->diag, HCT_ERR_NOT_HCT, "%s: not a regular file", l->name);
	l->file_length = (uint64_t)sb.st_size;
	if (l->file_length < HCT_SUPERBLOCK_BYTES + HCT_TRAILER_BYTES)
		return hct_fail(l->diag, HCT_ERR_NOT_HCT, "%s: not an .hct file (only %llu bytes)",
				l->name, (unsigned long long)l->file_length);
	e = hct_read_at(l->fd, l->name, buf, sizeof buf, 0, l->diag);
	if (!e)
		e = hct_superblock_unpack(buf, &l->super, l->name, l->diag);
	if (!e)
		e = hct_read_at(l->fd, l->name, buf, sizeof buf, l->file_length - HCT_TRAILER_BYTES,
				l->diag);
	if (!e)
		e = hct_trailer_unpack(buf, t, l->name, l->diag);
	if (e)
		return e;
	if (t->file_length != l->file_length)
		return hct_fail(l->diag, HCT_ERR_UNFINISHED,
				"%s: is %llu bytes long but was written with %llu; copy it again",
				l->name, (unsigned long long)l->file_length,
				(unsigned long long)t->file_length);
	if (t->major != l->super.major || t->minor != l->super.minor)
		return corrupt(l, "superblock and trailer disagree about the version");
	if (t->index_offset < HCT_SUPERBLOCK_BYTES ||
	    t->index_offset > l->file_length - HCT_TRAILER_BYTES ||
	    t->index_length != l->file_length - HCT_TRAILER_BYTES - t->index_offset ||
	    t->index_length < HCT_INDEX_HEADER_BYTES)
		return corrupt(l, "the trailer points outside of the file");
	return HCT_OK;
}

/* Limits of the decoded length of a section; TENSORS and EXTENTS are checked against
 * the header once that is known. */
static uint64_t section_limit(const struct loader *l, uint32_t id)
{
	switch (id) {
	case HCT_SECTION_HEADER:
		return HCT_SAFETENSORS_MAX_HEADER + 8ull;
	case HCT_SECTION_TENSORS:
		/* A tensor takes far more than 20 bytes of header. */
		return (l->super.header_len / 20 + 1) * HCT_TENSOR_BYTES;
	case HCT_SECTION_PARAMS:
		return HCT_MAX_PARAMS;
	case HCT_SECTION_SOURCE:
		return HCT_SOURCE_BYTES;
	case HCT_SECTION_PROVENANCE:
		return HCT_MAX_PROVENANCE;
	default:
		return l->file_length;
	}
}

static hct_error accept_section(struct loader *l, const struct hct_section *s, uint64_t head)
{
	if (s->offset < head || s->offset > l->trailer.index_length ||
	    s->stored_length > l->trailer.index_length - s->offset)
		return corrupt(l, "a section lies outside of it");
	if (s->id == 0 || s->id >= HCT_SECTION_COUNT) {
		if (s->flags & HCT_SECTION_REQUIRED)
			return hct_fail(l->diag, HCT_ERR_UNSUPPORTED,
					"%s: needs section %u of a newer version; update hctfs",
					l->name, s->id);
		return HCT_OK;
	}
	if (l->sections[s->id].id)
		return corrupt(l, "a section occurs twice");
	if (s->encoding > HCT_ENCODING_ZSTD)
		return hct_fail(l->diag, HCT_ERR_UNSUPPORTED,
				"%s: section %s has encoding %u of a newer version; update hctfs",
				l->name, section_names[s->id], s->encoding);
	if (s->encoding == HCT_ENCODING_STORED && s->stored_length != s->length)
		return corrupt(l, "a stored section has two lengths");
	if (s->id == HCT_SECTION_EXTENTS && s->encoding != HCT_ENCODING_STORED)
		return corrupt(l, "section EXTENTS is compressed");
	if (s->length > section_limit(l, s->id))
		return hct_fail(l->diag, HCT_ERR_LIMIT,
				"%s: section %s claims %llu bytes, beyond "
				"the limit of %llu",
				l->name, section_names[s->id], (unsigned long long)s->length,
				(unsigned long long)section_limit(l, s->id));
	/* The decoded length alone would let a sparse file have any length read. */
	if (s->encoding == HCT_ENCODING_ZSTD && s->stored_length > 2 * s->length + 4096)
		return hct_fail(l->diag, HCT_ERR_LIMIT,
				"%s: section %s takes %llu bytes for %llu, beyond the limit",
				l->name, section_names[s->id], (unsigned long long)s->stored_length,
				(unsigned long long)s->length);
	l->sections[s->id] = *s;
	return HCT_OK;
}

static hct_error read_head(struct loader *l)
{
	uint8_t head[HCT_INDEX_HEADER_BYTES + HCT_MAX_SECTIONS * HCT_SECTION_BYTES];
	uint64_t length = HCT_INDEX_HEADER_BYTES;
	uint32_t n;
	hct_error e;

	e = hct_read_at(l->fd, l->name, head, length, l->trailer.index_offset, l->diag);
	if (e)
		return e;
	/* The checksum covers the table too, whose length is not yet trusted: bound it first. */
	n = hct_load32(head + 8);
	if (n > HCT_MAX_SECTIONS)
		return hct_fail(l->diag, HCT_ERR_LIMIT,
				"%s: the index claims %u sections, beyond "
				"the limit of %u",
				l->name, n, HCT_MAX_SECTIONS);
	length += (uint64_t)n * HCT_SECTION_BYTES;
	if (length > l->trailer.index_length)
		return corrupt(l, "the section table does not fit");
	e = hct_read_at(l->fd, l->name, head, length, l->trailer.index_offset, l->diag);
	if (e)
		return e;
	if (hct_checksum(head, length) != l->trailer.index_checksum)
		return hct_fail(l->diag, HCT_ERR_CHECKSUM,
				"%s: the index head is damaged: checksum %016llx expected, %016llx "
				"found; restore the file from a good copy",
				l->name, (unsigned long long)l->trailer.index_checksum,
				(unsigned long long)hct_checksum(head, length));
	if (memcmp(head, HCT_INDEX_MAGIC, 8))
		return corrupt(l, "wrong magic");
	if (hct_load64(head + 16) != l->trailer.index_length)
		return corrupt(l, "it has two lengths");
	for (uint32_t i = 0; i < n && !e; i++) {
		struct hct_section s;

		hct_section_unpack(head + HCT_INDEX_HEADER_BYTES + i * HCT_SECTION_BYTES, &s);
		e = accept_section(l, &s, length);
	}
	for (uint32_t id = 1; id < HCT_SECTION_COUNT && !e; id++)
		if (!l->sections[id].id)
			e = corrupt(l, "a section is missing");
	return e;
}

/* Reads, verifies and decodes a section into fresh memory with one zero byte behind. */
static hct_error read_section(struct loader *l, uint32_t id, uint8_t **out)
{
	const struct hct_section *s = &l->sections[id];
	uint8_t *stored = malloc(s->stored_length + 1), *plain = NULL;
	hct_error e = HCT_ERR_NOMEM;
	uint64_t sum;

	*out = NULL;
	if (!stored)
		goto out;
	e = hct_read_at(l->fd, l->name, stored, s->stored_length,
			l->trailer.index_offset + s->offset, l->diag);
	if (e)
		goto out;
	sum = hct_checksum(stored, s->stored_length);
	if (sum != s->checksum) {
		e = hct_fail(l->diag, HCT_ERR_CHECKSUM,
			     "%s: section %s is damaged: checksum %016llx expected, %016llx found; "
			     "restore the file from a good copy",
			     l->name, section_names[id], (unsigned long long)s->checksum,
			     (unsigned long long)sum);
		goto out;
	}
	if (s->encoding == HCT_ENCODING_STORED) {
		plain = stored;
		stored = NULL;
	} else {
		if (!hct_zstd_is_frame(stored, s->stored_length, s->length)) {
			e = corrupt(l, "a section is not one zstd frame of its length");
			goto out;
		}
		plain = malloc(s->length + 1);
		if (!plain) {
			e = HCT_ERR_NOMEM;
			goto out;
		}
		if (ZSTD_decompress(plain, s->length, stored, s->stored_length) != s->length) {
			e = corrupt(l, "a section does not decompress");
			goto out;
		}
	}
	plain[s->length] = 0;
	*out = plain;
	plain = NULL;
out:
	if (e == HCT_ERR_NOMEM)
		hct_fail(l->diag, e, "%s: out of memory for section %s (%llu bytes)", l->name,
			 section_names[id], (unsigned long long)s->length);
	free(stored);
	free(plain);
	return e;
}

static hct_error read_header(struct loader *l)
{
	uint64_t length = l->sections[HCT_SECTION_HEADER].length;
	uint8_t *header;
	hct_error e;

	if (length != l->super.header_len)
		return corrupt(l, "the header has two lengths");
	e = read_section(l, HCT_SECTION_HEADER, &header);
	if (e)
		return e;
	e = hct_safetensors_parse(header, length, l->super.source_size, &l->x->st, l->diag);
	if (e && l->diag)
		hct_fail(l->diag, e, "%s: the stored safetensors header: %.700s", l->name,
			 l->diag->text);
	free(header);
	return e;
}

/* Checks record i; *extent and *chunk run on over the tensors. */
static hct_error check_tensor(struct loader *l, size_t i, uint64_t *extent, uint64_t *chunk)
{
	const struct hct_tensor_record *t = &l->x->tensors[i];
	const struct hct_tensor *st = &l->x->st.tensors[i];
	uint64_t bytes = hct_tensor_bytes(st), count = 0;

	if (t->layers < 1)
		return corrupt(l, "a tensor without layers");
	if (t->layers > HCT_MAX_LAYERS || t->chunk_bytes > HCT_MAX_CHUNK)
		return hct_fail(l->diag, HCT_ERR_LIMIT,
				"%s: a tensor with %u layers in chunks of %u bytes, beyond the "
				"limits of %u and %u",
				l->name, t->layers, t->chunk_bytes, HCT_MAX_LAYERS, HCT_MAX_CHUNK);
	if (bytes) {
		if (!t->chunk_bytes || t->chunk_bytes % hct_dtype_unit(st->dtype))
			return corrupt(l, "an impossible chunk size");
		count = (bytes + t->chunk_bytes - 1) / t->chunk_bytes;
	} else if (t->chunk_bytes) {
		return corrupt(l, "a chunk size for a tensor without bytes");
	}
	if (t->chunk_count != count || t->first_extent != *extent)
		return corrupt(l, "a wrong number of chunks");
	if (t->params_offset > l->x->params_length ||
	    t->params_length > l->x->params_length - t->params_offset)
		return corrupt(l, "a tensor's tables lie outside of their section");
	/* Compared before they are multiplied: count may be near 2^53, extent_count cannot. */
	if (count > l->x->extent_count || count * t->layers > l->x->extent_count - *extent)
		return corrupt(l, "too few extents");
	l->x->first_chunk[i] = *chunk;
	*chunk += count;
	*extent += count * t->layers;
	return HCT_OK;
}

static hct_error read_tensors(struct loader *l)
{
	struct hct_index *x = l->x;
	uint64_t extent = 0;
	uint8_t *raw;
	hct_error e;

	if (l->sections[HCT_SECTION_TENSORS].length != (uint64_t)x->st.count * HCT_TENSOR_BYTES)
		return corrupt(l, "not one record for each tensor");
	if (l->sections[HCT_SECTION_EXTENTS].length % HCT_EXTENT_BYTES)
		return corrupt(l, "an incomplete extent record");
	x->extent_count = l->sections[HCT_SECTION_EXTENTS].length / HCT_EXTENT_BYTES;
	x->params_length = l->sections[HCT_SECTION_PARAMS].length;
	x->params_stored = l->sections[HCT_SECTION_PARAMS].stored_length;
	e = read_section(l, HCT_SECTION_TENSORS, &raw);
	if (e)
		return e;
	x->tensors = calloc(x->st.count + 1, sizeof *x->tensors);
	x->first_chunk = calloc(x->st.count + 1, sizeof *x->first_chunk);
	if (!x->tensors || !x->first_chunk)
		e = hct_fail(l->diag, HCT_ERR_NOMEM, "%s: out of memory", l->name);
	for (size_t i = 0; i < x->st.count && !e; i++) {
		hct_tensor_record_unpack(raw + i * HCT_TENSOR_BYTES, &x->tensors[i]);
		e = check_tensor(l, i, &extent, &x->chunk_count);
	}
	if (!e && extent != x->extent_count)
		e = corrupt(l, "too many extents");
	free(raw);
	return e;
}

static hct_error read_extents(struct loader *l)
{
	struct hct_index *x = l->x;
	uint64_t end = HCT_SUPERBLOCK_BYTES, i = 0;
	hct_error e = read_section(l, HCT_SECTION_EXTENTS, &x->extents);

	for (size_t t = 0; t < x->st.count && !e; t++) {
		const struct hct_tensor_record *rec = &x->tensors[t];
		uint64_t n = rec->chunk_count * rec->layers;

		for (uint64_t k = 0; k < n && !e; k++, i++) {
			struct hct_extent ext;

			hct_extent_unpack(x->extents + i * HCT_EXTENT_BYTES, &ext);
			if (ext.offset < end || ext.offset > l->trailer.index_offset ||
			    ext.length > l->trailer.index_offset - ext.offset || !ext.length)
				e = corrupt(l, "an extent that lies outside or overlaps another");
			else if (ext.length > 2ull * rec->chunk_bytes + 4096)
				e = hct_fail(l->diag, HCT_ERR_LIMIT,
					     "%s: an extent of %u bytes for a chunk of %u", l->name,
					     ext.length, rec->chunk_bytes);
			end = ext.offset + ext.length;
		}
	}
	return e;
}

static hct_error read_source(struct loader *l)
{
	struct hct_source *s = &l->x->source;
	uint8_t *raw;
	hct_error e;

	if (l->sections[HCT_SECTION_SOURCE].length != HCT_SOURCE_BYTES)
		return corrupt(l, "section SOURCE has the wrong length");
	e = read_section(l, HCT_SECTION_SOURCE, &raw);
	if (e)
		return e;
	s->size = hct_load64(raw);
	s->mtime_sec = (int64_t)hct_load64(raw + 8);
	s->mtime_nsec = hct_load32(raw + 16);
	memcpy(s->sha256, raw + 24, 32);
	free(raw);
	if (s->size != l->super.source_size || s->mtime_nsec >= 1000000000)
		return corrupt(l, "section SOURCE is impossible");
	return HCT_OK;
}

hct_error hct_index_read(int fd, const char *name, struct hct_index *out, struct hct_diag *diag)
{
	struct loader l = {.fd = fd, .name = name, .diag = diag, .x = out};
	hct_error e;

	memset(out, 0, sizeof *out);
	e = read_ends(&l);
	if (!e)
		e = read_head(&l);
	if (!e)
		e = read_header(&l);
	if (!e)
		e = read_tensors(&l);
	if (!e)
		e = read_extents(&l);
	if (!e)
		e = read_section(&l, HCT_SECTION_PARAMS, &out->params);
	if (!e)
		e = read_source(&l);
	if (!e)
		e = read_section(&l, HCT_SECTION_PROVENANCE, (uint8_t **)&out->provenance);
	out->major = l.super.major;
	out->minor = l.super.minor;
	out->file_length = l.file_length;
	out->checksum = l.trailer.index_checksum;
	if (e)
		hct_index_free(out);
	return e;
}

void hct_index_free(struct hct_index *x)
{
	hct_safetensors_free(&x->st);
	free(x->tensors);
	free(x->first_chunk);
	free(x->extents);
	free(x->params);
	free(x->provenance);
	memset(x, 0, sizeof *x);
}
