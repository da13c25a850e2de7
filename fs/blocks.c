#include "blocks.h"

#include <stdlib.h>

struct start {
	uint64_t offset;
	uint64_t first_chunk;
};

struct hct_blocks {
	struct start *starts; /* count of them, and one that marks the end */
	size_t count, capacity;
	size_t longest;
};

static hct_error add(struct hct_blocks *b, uint64_t offset, uint64_t chunk)
{
	if (b->count == b->capacity) {
		size_t capacity = b->capacity ? 2 * b->capacity : 64;
		struct start *starts = realloc(b->starts, capacity * sizeof *starts);

		if (!starts)
			return HCT_ERR_NOMEM;
		b->starts = starts;
		b->capacity = capacity;
	}
	b->starts[b->count++] = (struct start){offset, chunk};
	return HCT_OK;
}

/* Goes on by one chunk: into the last block when it stays short, or a new one. */
static hct_error add_chunk(struct hct_blocks *b, uint64_t offset, uint64_t chunk, uint64_t length)
{
	if (b->count && offset + length - b->starts[b->count - 1].offset <= HCT_BLOCK_BYTES)
		return HCT_OK;
	return add(b, offset, chunk);
}

hct_error hct_blocks_create(const hct_reader *r, struct hct_blocks **out)
{
	const struct hct_safetensors *st = hct_reader_safetensors(r);
	struct hct_blocks *b = calloc(1, sizeof *b);
	struct start *trimmed;
	hct_error e = HCT_OK;

	*out = NULL;
	if (!b)
		return HCT_ERR_NOMEM;
	for (size_t i = 0; i < st->count && !e; i++) {
		const struct hct_tensor *t = &st->tensors[i];
		struct hct_coding coding;

		hct_reader_coding(r, i, &coding);
		for (uint64_t k = 0; k < coding.chunk_count && !e; k++) {
			uint64_t at = t->begin + k * coding.chunk_bytes, left = t->end - at;

			e = add_chunk(b, st->header_len + at, coding.first_chunk + k,
				      left < coding.chunk_bytes ? left : coding.chunk_bytes);
		}
	}
	if (!e)
		e = add(b, st->file_size, hct_reader_chunk_count(r));
	if (e) {
		hct_blocks_free(b);
		return e;
	}
	trimmed = realloc(b->starts, b->count * sizeof *trimmed);
	if (trimmed)
		b->starts = trimmed;
	b->count--;
	for (size_t i = 0; i < b->count; i++) {
		size_t length = (size_t)(b->starts[i + 1].offset - b->starts[i].offset);

		if (length > b->longest)
			b->longest = length;
	}
	*out = b;
	return HCT_OK;
}

void hct_blocks_free(struct hct_blocks *b)
{
	if (!b)
		return;
	free(b->starts);
	free(b);
}

size_t hct_blocks_count(const struct hct_blocks *b)
{
	return b->count;
}

size_t hct_blocks_longest(const struct hct_blocks *b)
{
	return b->longest;
}

void hct_blocks_get(const struct hct_blocks *b, size_t index, struct hct_block *out)
{
	const struct start *s = &b->starts[index];

	*out = (struct hct_block){.offset = s->offset,
				  .length = (size_t)(s[1].offset - s->offset),
				  .first_chunk = s->first_chunk,
				  .chunk_count = s[1].first_chunk - s->first_chunk};
}

size_t hct_blocks_find(const struct hct_blocks *b, uint64_t offset)
{
	size_t low = 0, high = b->count;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (b->starts[mid].offset <= offset)
			low = mid;
		else
			high = mid;
	}
	return low;
}
