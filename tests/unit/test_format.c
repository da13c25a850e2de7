/* The structures of the file as bytes: places and values as FORMAT.md has them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "codec/bits.h"
#include "codec/bytes.h"
#include "codec/checksum.h"
#include "codec/format.h"
#include "codec/reader.h"

static void test_superblock(void **state)
{
	static const uint8_t magic[8] = {0x89, 0x48, 0x43, 0x54, 0x0d, 0x0a, 0x1a, 0x0a};
	struct hct_superblock in = {1, 7, 0xabcd0000, 0x123456789abc, 0x55}, out;
	uint8_t raw[HCT_SUPERBLOCK_BYTES], bad[HCT_SUPERBLOCK_BYTES];

	(void)state;
	hct_superblock_pack(&in, raw);
	assert_memory_equal(raw, magic, 8);
	assert_int_equal(hct_load16(raw + 8), 1);
	assert_int_equal(hct_load16(raw + 10), 7);
	assert_int_equal(hct_load64(raw + 16), 0x123456789abc);
	assert_int_equal(hct_load64(raw + 24), 0x55);
	/* a newer minor version and optional flags are read */
	assert_int_equal(hct_superblock_unpack(raw, &out, "x", NULL), HCT_OK);
	assert_memory_equal(&in, &out, sizeof in);
	for (size_t i = 0; i < sizeof raw; i++) {
		memcpy(bad, raw, sizeof raw);
		bad[i] ^= 0x10;
		assert_int_equal(hct_superblock_unpack(bad, &out, "x", NULL),
				 i < 8 ? HCT_ERR_NOT_HCT : HCT_ERR_CHECKSUM);
	}
	in.major = 2;
	hct_superblock_pack(&in, raw);
	assert_int_equal(hct_superblock_unpack(raw, &out, "x", NULL), HCT_ERR_VERSION);
	in.major = 0;
	hct_superblock_pack(&in, raw);
	assert_int_equal(hct_superblock_unpack(raw, &out, "x", NULL), HCT_ERR_CORRUPT);
	in.major = 1;
	in.flags = 1;
	hct_superblock_pack(&in, raw);
	assert_int_equal(hct_superblock_unpack(raw, &out, "x", NULL), HCT_ERR_UNSUPPORTED);
}

static void test_trailer(void **state)
{
	struct hct_trailer in = {64, 1000, 0xfeed, 1128, 1, 0}, out;
	uint8_t raw[HCT_TRAILER_BYTES], bad[HCT_TRAILER_BYTES];

	(void)state;
	hct_trailer_pack(&in, raw);
	assert_memory_equal(raw + 56, "HCTEND\r\n", 8);
	assert_int_equal(hct_load64(raw + 24), 1128);
	assert_int_equal(hct_trailer_unpack(raw, &out, "x", NULL), HCT_OK);
	assert_int_equal(out.index_checksum, 0xfeed);
	assert_int_equal(out.index_length, 1000);
	for (size_t i = 0; i < sizeof raw; i++) {
		memcpy(bad, raw, sizeof raw);
		bad[i] ^= 0x10;
		assert_int_equal(hct_trailer_unpack(bad, &out, "x", NULL),
				 i < 56 ? HCT_ERR_CHECKSUM : HCT_ERR_UNFINISHED);
	}
}

static void test_records(void **state)
{
	struct hct_section s = {3, 1, 1, 11, 22, 33, 44}, s2;
	struct hct_tensor_record t = {2, 3, 0, 65536, 5, 6, 7, 8, 0.25}, t2;
	struct hct_extent e = {1ull << 40, 77, 2, 0, 88, 99}, e2;
	uint8_t raw[64];

	(void)state;
	hct_section_pack(&s, raw);
	assert_int_equal(hct_load64(raw + 24), 33);
	hct_section_unpack(raw, &s2);
	assert_memory_equal(&s, &s2, sizeof s);
	hct_tensor_record_pack(&t, raw);
	assert_int_equal(raw[2], 3);
	assert_int_equal(hct_load64(raw + 16), 6);
	memset(&t2, 0, sizeof t2);
	hct_tensor_record_unpack(raw, &t2);
	assert_int_equal(t2.chunk_bytes, 65536);
	assert_int_equal(t2.params_length, 8);
	assert_true(t2.relative_squared_error == 0.25);
	hct_extent_pack(&e, raw);
	assert_int_equal(hct_load64(raw), 1ull << 40);
	assert_int_equal(hct_load64(raw + 24), 99);
	hct_extent_unpack(raw, &e2);
	assert_memory_equal(&e, &e2, sizeof e);
}

/* Every variant of the checksum, and a value of xxHash 0.8's own test vectors. */
static void test_checksum(void **state)
{
	static uint8_t data[70000];

	(void)state;
	assert_int_equal(hct_checksum("", 0), 0x2d06800538d394c2);
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 167 >> 3);
	for (size_t n = 0; n < sizeof data; n = n * 5 / 4 + 1) {
		uint64_t sum = hct_checksum(data + 1, n);

#if defined __x86_64__
		if (hct_simd_supported(HCT_SIMD_AVX2))
			assert_int_equal(hct_checksum_avx2(data + 1, n), sum);
		if (hct_simd_supported(HCT_SIMD_AVX512))
			assert_int_equal(hct_checksum_avx512(data + 1, n), sum);
#endif
		data[1 + n / 2] ^= 1;
		if (n)
			assert_int_not_equal(hct_checksum(data + 1, n), sum);
		data[1 + n / 2] ^= 1;
	}
}

static void test_bits(void **state)
{
	uint8_t data[600] = {0};
	struct hct_bit_writer w = {data, 0};
	struct hct_bit_reader r = {data, 0, 0};

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		hct_bits_put(&w, i * 37 & ((1u << i % 18) - 1), i % 18);
		hct_bits_put_unary(&w, i % 25, 24);
	}
	r.end = w.at;
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(hct_bits_take(&r, i % 18), i * 37 & ((1u << i % 18) - 1));
		assert_int_equal(hct_bits_unary(&r, 24), i % 25);
	}
	assert_int_equal(r.at, r.end);
	assert_int_equal(hct_bits_bytes(0), 0);
	assert_int_equal(hct_bits_bytes(9), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_superblock), cmocka_unit_test(test_trailer),
		cmocka_unit_test(test_records),    cmocka_unit_test(test_checksum),
		cmocka_unit_test(test_bits),
	};

	return cmocka_run_group_tests_name("format", tests, NULL, NULL);
}
