/* What a mount decodes and caches at a time: blocks, each a row of whole chunks.
 *
 * A chunk of usual length is a block of its own; small ones - norms, biases, scalars -
 * that lie side by side share one, so that a request touches few blocks whatever the
 * tensors are.  The header of the file is in none. */
#ifndef HCTFS_BLOCKS_H
#define HCTFS_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#include "codec/error.h"
#include "codec/reader.h"

/* Chunks are put together up to this many bytes, so any two neighbours have more. */
#define HCT_BLOCK_BYTES (256u << 10)

struct hct_blocks;

struct hct_block {
	uint64_t offset; /* of its first byte in the virtual file */
	size_t length;
	uint64_t first_chunk; /* number in its file */
	uint64_t chunk_count;
};

hct_error hct_blocks_create(const hct_reader *r, struct hct_blocks **out);
/* NULL is allowed. */
void hct_blocks_free(struct hct_blocks *b);

size_t hct_blocks_count(const struct hct_blocks *b);
/* Length of the longest block; 0 without blocks. */
size_t hct_blocks_longest(const struct hct_blocks *b);

/* index < hct_blocks_count(). */
void hct_blocks_get(const struct hct_blocks *b, size_t index, struct hct_block *out);

/* The block that holds a byte of the virtual file, which must lie behind the header and
 * before the end. */
size_t hct_blocks_find(const struct hct_blocks *b, uint64_t offset);

#endif
