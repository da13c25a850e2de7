/* blocks.h: the blocks cover all chunks, whole, in order, and small chunks share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/blocks.h"
#include "make_hct.h"

static hct_reader *open_model(const unsigned *counts, size_t tensors)
{
	char path[] = "/tmp/test_blocks.XXXXXX";
	int fd = mkstemp(path);
	size_t size;
	uint8_t *file = make_safetensors(counts, tensors, &size);
	struct hct_source source = {.size = size};
	hct_reader *r;

	assert_true(fd >= 0);
	close(fd);
	make_hct(path, file, size, &source);
	assert_int_equal(hct_reader_open(path, &r, NULL), HCT_OK);
	remove(path);
	free(file);
	return r;
}

/* Checks everything that must hold for any file; returns the number of blocks. */
static size_t check(const unsigned *counts, size_t tensors)
{
	hct_reader *r = open_model(counts, tensors);
	const struct hct_safetensors *st = hct_reader_safetensors(r);
	uint64_t offset = st->header_len, chunk = 0;
	size_t longest = 0, before = HCT_BLOCK_BYTES, count;
	struct hct_blocks *b;

	assert_int_equal(hct_blocks_create(r, &b), HCT_OK);
	count = hct_blocks_count(b);
	for (size_t i = 0; i < count; i++) {
		struct hct_block block;
		uint64_t length = 0;

		hct_blocks_get(b, i, &block);
		assert_int_equal(block.offset, offset);
		assert_int_equal(block.first_chunk, chunk);
		assert_true(block.chunk_count > 0);
		for (uint64_t k = 0; k < block.chunk_count; k++) {
			struct hct_chunk c;

			hct_reader_chunk(r, chunk + k, &c);
			assert_int_equal(c.offset, offset + length);
			length += c.length;
		}
		assert_int_equal(block.length, length);
		assert_true(length <= HCT_BLOCK_BYTES || block.chunk_count == 1);
		assert_true(before + length > HCT_BLOCK_BYTES);
		assert_int_equal(hct_blocks_find(b, offset), i);
		assert_int_equal(hct_blocks_find(b, offset + length - 1), i);
		before = length;
		longest = length > longest ? length : longest;
		offset += length;
		chunk += block.chunk_count;
	}
	assert_int_equal(offset, st->file_size);
	assert_int_equal(chunk, hct_reader_chunk_count(r));
	assert_int_equal(hct_blocks_longest(b), longest);
	hct_blocks_free(b);
	hct_reader_close(r);
	return count;
}

static void test_small_tensors_share(void **state)
{
	unsigned counts[300];

	(void)state;
	for (unsigned i = 0; i < 300; i++)
		counts[i] = i % 7; /* some of them empty */
	assert_int_equal(check(counts, 300), 1);
}

static void test_large_tensors(void **state)
{
	static const unsigned counts[] = {2000000, 10, 1, 700000, 0, 65536, 3};

	(void)state;
	assert_true(check(counts, 7) >= 5);
}

static void test_nothing(void **state)
{
	static const unsigned counts[] = {0, 0};

	(void)state;
	assert_int_equal(check(counts, 0), 0);
	assert_int_equal(check(counts, 2), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_tensors_share),
		cmocka_unit_test(test_large_tensors),
		cmocka_unit_test(test_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
