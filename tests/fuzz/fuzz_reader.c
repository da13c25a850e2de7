/* Whole .hct files.  A mutated file would be stopped by its checksums, so the mutator makes
 * most of them right again; what comes behind them is then tested, too.  All variants of the
 * decoder must agree on every chunk, and every range with the whole. */
#include <sys/mman.h>
#include <unistd.h>

#include "codec/checksum.h"
#include "codec/format.h"
#include "fuzz.h"

/* Decoded bytes for one input, so that no input takes long. */
#define BUDGET (4u << 20)

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static int inside(uint64_t offset, uint64_t length, uint64_t size)
{
	return offset <= size && length <= size - offset;
}

/* Checksums of the payloads, in the stored EXTENTS section at records. */
static void seal_extents(uint8_t *data, size_t size, uint8_t *records, uint64_t length)
{
	for (uint64_t i = 0; i + HCT_EXTENT_BYTES <= length; i += HCT_EXTENT_BYTES) {
		uint64_t at = hct_load64(records + i), n = hct_load32(records + i + 8);

		if (inside(at, n, size))
			hct_store64(records + i + 16, hct_checksum(data + at, n));
	}
}

/* Makes lengths of the file and all checksums right that can be found. */
static void seal(uint8_t *data, size_t size)
{
	uint8_t *trailer = data + size - HCT_TRAILER_BYTES, *index, *section;
	uint64_t at = hct_load64(trailer), head;

	hct_store64(data + 56, hct_checksum(data, 56));
	hct_store64(trailer + 24, size);
	if (inside(at, HCT_INDEX_HEADER_BYTES, size - HCT_TRAILER_BYTES)) {
		hct_store64(trailer + 8, size - HCT_TRAILER_BYTES - at);
		index = data + at;
		hct_store64(index + 16, hct_load64(trailer + 8));
		head = HCT_INDEX_HEADER_BYTES + (uint64_t)HCT_SECTION_BYTES * hct_load32(index + 8);
		if (hct_load32(index + 8) <= HCT_MAX_SECTIONS && inside(at, head, size)) {
			for (section = index + HCT_INDEX_HEADER_BYTES; section < index + head;
			     section += HCT_SECTION_BYTES) {
				uint64_t offset = hct_load64(section + 8),
					 n = hct_load64(section + 16);

				if (!inside(offset, n, size - at))
					continue;
				if (hct_load32(section) == HCT_SECTION_EXTENTS)
					seal_extents(data, size, index + offset, n);
				hct_store64(section + 32, hct_checksum(index + offset, n));
			}
			hct_store64(trailer + 16, hct_checksum(index, head));
		}
	}
	hct_store64(trailer + 48, hct_checksum(trailer, 48));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	size = LLVMFuzzerMutate(data, size, max_size);
	if (seed % 8 && size >= HCT_SUPERBLOCK_BYTES + HCT_TRAILER_BYTES)
		seal(data, size);
	return size;
}

/* What every caller of a reader counts on. */
static void check_map(const hct_reader *r)
{
	const struct hct_safetensors *st = hct_reader_safetensors(r);
	uint64_t at = st->header_len, number;

	for (uint64_t n = 0; n < hct_reader_chunk_count(r); n++) {
		struct hct_coding coding;
		struct hct_chunk c;

		hct_reader_chunk(r, n, &c);
		FUZZ_CHECK(c.number == n && c.offset == at && c.length > 0);
		FUZZ_CHECK(c.length <= HCT_MAX_CHUNK && c.tensor < st->count);
		FUZZ_CHECK(inside(c.stored_offset, c.stored_bytes, hct_reader_file_bytes(r)));
		hct_reader_coding(r, c.tensor, &coding);
		FUZZ_CHECK(n - coding.first_chunk < coding.chunk_count);
		FUZZ_CHECK(hct_reader_locate(r, at + c.length - 1, &number) && number == n);
		at += c.length;
	}
	FUZZ_CHECK(at == st->file_size && hct_reader_source(r)->size == at);
	FUZZ_CHECK(!hct_reader_locate(r, at, &number) && !hct_reader_locate(r, 0, &number));
	FUZZ_CHECK(hct_reader_provenance(r));
}

/* Any range of a chunk that decodes is what the whole chunk has there. */
static void check_range(const hct_reader *r, hct_decoder *d, const struct hct_chunk *c,
			const uint8_t *whole)
{
	size_t begin, end;
	uint8_t *part;

	fuzz_range((uint32_t)hct_checksum(whole, c->length), c->length, &begin, &end);
	part = fuzz_alloc(end - begin);
	FUZZ_CHECK(!hct_reader_pread(r, d, c->offset + begin, part, end - begin, NULL));
	FUZZ_CHECK(!memcmp(part, whole + begin, end - begin));
	free(part);
}

/* Decodes a chunk with every variant: the same error, or the same bytes. */
static void check_chunk(const hct_reader *r, const struct hct_chunk *c, hct_decoder *const *d)
{
	uint8_t *first = fuzz_alloc(c->length), *other = fuzz_alloc(c->length);
	hct_error expected = hct_reader_decode(r, d[0], c->number, first, NULL);

	if (!expected)
		check_range(r, d[0], c, first);
	for (int s = 1; s < 3; s++) {
		struct hct_diag diag = {{0}};
		hct_error err;

		if (!d[s])
			continue;
		err = hct_reader_decode(r, d[s], c->number, other, &diag);
		FUZZ_CHECK(err == expected && !err == !diag.text[0]);
		if (err)
			continue;
		FUZZ_CHECK(!memcmp(first, other, c->length));
		check_range(r, d[s], c, first);
		err = hct_reader_decode_verified(r, d[s], c->number, other, NULL);
		FUZZ_CHECK(!err || err == HCT_ERR_DIGEST);
	}
	free(first);
	free(other);
}

static void check_chunks(const hct_reader *r)
{
	hct_decoder *d[3] = {NULL};
	uint64_t spent = 0;

	for (hct_simd s = HCT_SIMD_SCALAR; s <= HCT_SIMD_AVX512; s++)
		if (hct_simd_supported(s))
			FUZZ_CHECK(!hct_decoder_create(s, &d[s - HCT_SIMD_SCALAR]));
	for (uint64_t n = 0; n < hct_reader_chunk_count(r) && spent < BUDGET; n++) {
		struct hct_chunk c;

		hct_reader_chunk(r, n, &c);
		check_chunk(r, &c, d);
		spent += c.length;
	}
	for (int s = 0; s < 3; s++)
		hct_decoder_free(d[s]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hct_diag diag = {{0}};
	hct_reader *r = NULL;
	hct_error err;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	err = hct_reader_open_fd(fd, "fuzz", &r, &diag);
	FUZZ_CHECK(!err == (r != NULL) && !err == !diag.text[0]);
	if (err)
		return 0;
	if (hct_reader_chunk_count(r) <= 65536)
		check_map(r);
	check_chunks(r);
	hct_reader_close(r);
	return 0;
}
