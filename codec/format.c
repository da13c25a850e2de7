#include "format.h"

#include <string.h>

#include "bytes.h"
#include "checksum.h"

static const uint8_t superblock_magic[8] = {0x89, 'H', 'C', 'T', '\r', '\n', 0x1a, '\n'};
static const uint8_t trailer_magic[8] = {'H', 'C', 'T', 'E', 'N', 'D', '\r', '\n'};

void hct_superblock_pack(const struct hct_superblock *s, uint8_t out[HCT_SUPERBLOCK_BYTES])
{
	memset(out, 0, HCT_SUPERBLOCK_BYTES);
	memcpy(out, superblock_magic, 8);
	hct_store16(out + 8, s->major);
	hct_store16(out + 10, s->minor);
	hct_store32(out + 12, s->flags);
	hct_store64(out + 16, s->source_size);
	hct_store64(out + 24, s->header_len);
	hct_store64(out + 56, hct_checksum(out, 56));
}

static hct_error check_sum(uint64_t expected, uint64_t found, const char *what, const char *name,
			   struct hct_diag *diag)
{
	if (expected == found)
		return HCT_OK;
	return hct_fail(diag, HCT_ERR_CHECKSUM,
			"%s: %s is damaged: checksum %016llx expected, %016llx found; "
			"restore the file from a good copy",
			name, what, (unsigned long long)expected, (unsigned long long)found);
}

hct_error hct_superblock_unpack(const uint8_t in[HCT_SUPERBLOCK_BYTES], struct hct_superblock *s,
				const char *name, struct hct_diag *diag)
{
	hct_error e;

	if (memcmp(in, superblock_magic, 8))
		return hct_fail(diag, HCT_ERR_NOT_HCT, "%s: not an .hct file (wrong magic)", name);
	s->major = hct_load16(in + 8);
	s->minor = hct_load16(in + 10);
	s->flags = hct_load32(in + 12);
	s->source_size = hct_load64(in + 16);
	s->header_len = hct_load64(in + 24);
	e = check_sum(hct_load64(in + 56), hct_checksum(in, 56), "the superblock", name, diag);
	if (e)
		return e;
	if (s->major > HCT_FORMAT_MAJOR)
		return hct_fail(diag, HCT_ERR_VERSION,
				"%s: format version %u.%u is newer than this program reads (%d.x); "
				"update hctfs",
				name, s->major, s->minor, HCT_FORMAT_MAJOR);
	if (s->major == 0)
		return hct_fail(diag, HCT_ERR_CORRUPT, "%s: format version 0 does not exist", name);
	if (s->flags & 0xffff)
		return hct_fail(diag, HCT_ERR_UNSUPPORTED,
				"%s: needs features (flags %04x) of a newer version; update hctfs",
				name, s->flags & 0xffff);
	return HCT_OK;
}

void hct_trailer_pack(const struct hct_trailer *t, uint8_t out[HCT_TRAILER_BYTES])
{
	memset(out, 0, HCT_TRAILER_BYTES);
	hct_store64(out, t->index_offset);
	hct_store64(out + 8, t->index_length);
	hct_store64(out + 16, t->index_checksum);
	hct_store64(out + 24, t->file_length);
	hct_store16(out + 32, t->major);
	hct_store16(out + 34, t->minor);
	hct_store64(out + 48, hct_checksum(out, 48));
	memcpy(out + 56, trailer_magic, 8);
}

hct_error hct_trailer_unpack(const uint8_t in[HCT_TRAILER_BYTES], struct hct_trailer *t,
			     const char *name, struct hct_diag *diag)
{
	if (memcmp(in + 56, trailer_magic, 8))
		return hct_fail(diag, HCT_ERR_UNFINISHED,
				"%s: unfinished or cut short (no trailer); compress it again or "
				"copy it again",
				name);
	t->index_offset = hct_load64(in);
	t->index_length = hct_load64(in + 8);
	t->index_checksum = hct_load64(in + 16);
	t->file_length = hct_load64(in + 24);
	t->major = hct_load16(in + 32);
	t->minor = hct_load16(in + 34);
	return check_sum(hct_load64(in + 48), hct_checksum(in, 48), "the trailer", name, diag);
}

void hct_section_pack(const struct hct_section *s, uint8_t out[HCT_SECTION_BYTES])
{
	hct_store32(out, s->id);
	hct_store16(out + 4, s->encoding);
	hct_store16(out + 6, s->flags);
	hct_store64(out + 8, s->offset);
	hct_store64(out + 16, s->stored_length);
	hct_store64(out + 24, s->length);
	hct_store64(out + 32, s->checksum);
}

void hct_section_unpack(const uint8_t in[HCT_SECTION_BYTES], struct hct_section *s)
{
	s->id = hct_load32(in);
	s->encoding = hct_load16(in + 4);
	s->flags = hct_load16(in + 6);
	s->offset = hct_load64(in + 8);
	s->stored_length = hct_load64(in + 16);
	s->length = hct_load64(in + 24);
	s->checksum = hct_load64(in + 32);
}

void hct_tensor_record_pack(const struct hct_tensor_record *t, uint8_t out[HCT_TENSOR_BYTES])
{
	memset(out, 0, HCT_TENSOR_BYTES);
	hct_store16(out, t->codec);
	out[2] = t->layers;
	out[3] = t->flags;
	hct_store32(out + 4, t->chunk_bytes);
	hct_store64(out + 8, t->chunk_count);
	hct_store64(out + 16, t->first_extent);
	hct_store64(out + 24, t->params_offset);
	hct_store32(out + 32, t->params_length);
	hct_store_f64(out + 40, t->relative_squared_error);
}

void hct_tensor_record_unpack(const uint8_t in[HCT_TENSOR_BYTES], struct hct_tensor_record *t)
{
	t->codec = hct_load16(in);
	t->layers = in[2];
	t->flags = in[3];
	t->chunk_bytes = hct_load32(in + 4);
	t->chunk_count = hct_load64(in + 8);
	t->first_extent = hct_load64(in + 16);
	t->params_offset = hct_load64(in + 24);
	t->params_length = hct_load32(in + 32);
	t->relative_squared_error = hct_load_f64(in + 40);
}

void hct_extent_pack(const struct hct_extent *e, uint8_t out[HCT_EXTENT_BYTES])
{
	hct_store64(out, e->offset);
	hct_store32(out + 8, e->length);
	hct_store16(out + 12, e->codec);
	hct_store16(out + 14, e->flags);
	hct_store64(out + 16, e->checksum);
	hct_store64(out + 24, e->digest);
}

void hct_extent_unpack(const uint8_t in[HCT_EXTENT_BYTES], struct hct_extent *e)
{
	e->offset = hct_load64(in);
	e->length = hct_load32(in + 8);
	e->codec = hct_load16(in + 12);
	e->flags = hct_load16(in + 14);
	e->checksum = hct_load64(in + 16);
	e->digest = hct_load64(in + 24);
}
