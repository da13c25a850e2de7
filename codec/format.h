/* The on-disk structures of FORMAT.md as C structs, and their bytes.
 *
 * Each unpack function checks what can be checked with the structure alone:
 * magic, checksum, versions and flags. */
#ifndef HCT_FORMAT_H
#define HCT_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define HCT_FORMAT_MAJOR 1
#define HCT_FORMAT_MINOR 0

#define HCT_SUPERBLOCK_BYTES   64
#define HCT_TRAILER_BYTES      64
#define HCT_INDEX_HEADER_BYTES 32
#define HCT_SECTION_BYTES      40
#define HCT_TENSOR_BYTES       48
#define HCT_EXTENT_BYTES       32
#define HCT_SOURCE_BYTES       64

#define HCT_MAX_SECTIONS   64u
#define HCT_MAX_CHUNK      (8u << 20)
#define HCT_MAX_LAYERS     8u
#define HCT_MAX_PARAMS     (256u << 20)
#define HCT_MAX_PROVENANCE (16u << 20)

enum hct_section_id {
	HCT_SECTION_HEADER = 1,
	HCT_SECTION_TENSORS = 2,
	HCT_SECTION_EXTENTS = 3,
	HCT_SECTION_PARAMS = 4,
	HCT_SECTION_SOURCE = 5,
	HCT_SECTION_PROVENANCE = 6,
	HCT_SECTION_COUNT
};

enum { HCT_ENCODING_STORED = 0, HCT_ENCODING_ZSTD = 1 };
enum { HCT_SECTION_REQUIRED = 1 };

struct hct_superblock {
	uint16_t major, minor;
	uint32_t flags;
	uint64_t source_size;
	uint64_t header_len;
};

struct hct_trailer {
	uint64_t index_offset, index_length;
	uint64_t index_checksum;
	uint64_t file_length;
	uint16_t major, minor;
};

struct hct_section {
	uint32_t id;
	uint16_t encoding, flags;
	uint64_t offset, stored_length, length;
	uint64_t checksum;
};

struct hct_tensor_record {
	uint16_t codec;
	uint8_t layers, flags;
	uint32_t chunk_bytes;
	uint64_t chunk_count, first_extent;
	uint64_t params_offset;
	uint32_t params_length;
	double relative_squared_error;
};

struct hct_extent {
	uint64_t offset;
	uint32_t length;
	uint16_t codec, flags;
	uint64_t checksum, digest;
};

void hct_superblock_pack(const struct hct_superblock *s, uint8_t out[HCT_SUPERBLOCK_BYTES]);
hct_error hct_superblock_unpack(const uint8_t in[HCT_SUPERBLOCK_BYTES], struct hct_superblock *s,
				const char *name, struct hct_diag *diag);

void hct_trailer_pack(const struct hct_trailer *t, uint8_t out[HCT_TRAILER_BYTES]);
hct_error hct_trailer_unpack(const uint8_t in[HCT_TRAILER_BYTES], struct hct_trailer *t,
			     const char *name, struct hct_diag *diag);

void hct_section_pack(const struct hct_section *s, uint8_t out[HCT_SECTION_BYTES]);
void hct_section_unpack(const uint8_t in[HCT_SECTION_BYTES], struct hct_section *s);

void hct_tensor_record_pack(const struct hct_tensor_record *t, uint8_t out[HCT_TENSOR_BYTES]);
void hct_tensor_record_unpack(const uint8_t in[HCT_TENSOR_BYTES], struct hct_tensor_record *t);

void hct_extent_pack(const struct hct_extent *e, uint8_t out[HCT_EXTENT_BYTES]);
void hct_extent_unpack(const uint8_t in[HCT_EXTENT_BYTES], struct hct_extent *e);

#define HCT_INDEX_MAGIC "HCTINDEX"

#endif
