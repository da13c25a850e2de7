/* The reader: places of chunks, ranges, decoders that outlive readers, and one thing wrong at
 * a time in each structure of a file. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <zstd.h>

#include "codec/bytes.h"
#include "codec/checksum.h"
#include "codec/format.h"
#include "model.h"

/* Every codec, tensors without bytes at the start, in the middle and at the end. */
static const struct model_tensor tensors[] = {
	{"e0", "F32", "[0]", 0, NOISE},
	{"w", "BF16", "[300,512]", 307200, WEIGHTS},
	{"e1", "I64", "[0,3]", 0, NOISE},
	{"e2", "BF16", "[4,0]", 0, NOISE},
	{"i", "I32", "[5000]", 20000, COUNTERS},
	{"n", "U8", "[1000]", 1000, NOISE},
	{"s", "F32", "[]", 4, NOISE},
	{"e3", "BOOL", "[0]", 0, NOISE},
};

#define COUNT  (sizeof tensors / sizeof *tensors)
#define CHUNKS 5 /* two of w */

enum { E0, W, E1, E2, I, N, S, E3 };

static hct_reader *open_reader(int fd)
{
	struct hct_diag d = {""};
	hct_reader *r;

	if (hct_reader_open_fd(fd, "test", &r, &d))
		fail_msg("%s", d.text);
	return r;
}

static hct_decoder *new_decoder(void)
{
	hct_decoder *d;

	assert_int_equal(hct_decoder_create(HCT_SIMD_AUTO, &d), HCT_OK);
	return d;
}

static void test_places(void **state)
{
	static const struct {
		const char *codec;
		uint64_t first, count;
	} expected[COUNT] = {{"empty", 0, 0}, {"split", 0, 2}, {"empty", 2, 0}, {"empty", 2, 0},
			     {"zstd", 2, 1},  {"raw", 3, 1},   {"raw", 4, 1},   {"empty", 5, 0}};
	uint64_t number = 77, stored = 0, at;
	struct model m;
	hct_reader *r;

	(void)state;
	model_make(tensors, COUNT, 1, &m);
	r = open_reader(model_compress(&m));
	assert_int_equal(hct_reader_chunk_count(r), CHUNKS);
	assert_int_equal(hct_reader_version(r), 1 << 16);
	assert_string_equal(hct_reader_name(r), "test");
	for (size_t i = 0; i < COUNT; i++) {
		struct hct_coding c;

		hct_reader_coding(r, i, &c);
		assert_string_equal(c.codec, expected[i].codec);
		assert_int_equal(c.first_chunk, expected[i].first);
		assert_int_equal(c.chunk_count, expected[i].count);
		assert_int_equal(c.layers, 1);
		assert_true(!c.stored_bytes == !c.chunk_count);
		stored += c.stored_bytes;
	}
	assert_true(stored < hct_reader_file_bytes(r));
	at = m.st.header_len;
	for (uint64_t k = 0; k < CHUNKS; k++) {
		struct hct_chunk c;

		hct_reader_chunk(r, k, &c);
		assert_int_equal(c.number, k);
		assert_int_equal(c.offset, at);
		assert_int_equal(c.tensor, k < 2 ? W : k == 2 ? I : k == 3 ? N : S);
		for (uint64_t b = 0; b<c.length; b += c.length> 1 ? c.length - 1 : 1) {
			assert_int_equal(hct_reader_locate(r, at + b, &number), 1);
			assert_int_equal(number, k);
		}
		at += c.length;
	}
	assert_int_equal(at, m.size);
	assert_int_equal(hct_reader_locate(r, 0, &number), 0);
	assert_int_equal(hct_reader_locate(r, m.st.header_len - 1, &number), 0);
	assert_int_equal(hct_reader_locate(r, m.size, &number), 0);
	assert_int_equal(hct_reader_locate(r, UINT64_MAX, &number), 0);
	hct_reader_close(r);
	model_free(&m);
}

static void test_no_tensors(void **state)
{
	hct_decoder *d = new_decoder();
	struct hct_diag diag;
	uint8_t out[64];
	uint64_t number;
	struct model m;
	hct_reader *r;

	(void)state;
	model_make(NULL, 0, 1, &m);
	r = open_reader(model_compress(&m));
	assert_int_equal(hct_reader_chunk_count(r), 0);
	assert_int_equal(hct_reader_locate(r, m.size, &number), 0);
	assert_int_equal(hct_reader_pread(r, d, 0, out, m.size, &diag), HCT_OK);
	assert_memory_equal(out, m.file, m.size);
	assert_int_equal(hct_reader_decode(r, d, 0, out, &diag), HCT_ERR_ARGUMENT);
	hct_reader_close(r);
	hct_decoder_free(d);
	model_free(&m);
}

static void test_pread(void **state)
{
	hct_decoder *d = new_decoder();
	struct hct_diag diag = {""};
	uint32_t seed = 5;
	struct model m;
	uint8_t *out;
	hct_reader *r;

	(void)state;
	model_make(tensors, COUNT, 1, &m);
	r = open_reader(model_compress(&m));
	out = malloc(m.size + 1);
	for (int i = 0; i < 300; i++) {
		uint64_t at, n;

		seed = seed * 1664525 + 1013904223;
		/* near the header's end, near the file's, anywhere; the whole first */
		at = i == 0       ? 0
		     : i % 3 == 0 ? m.st.header_len - 40 + (seed >> 8) % 80
		     : i % 3 == 1 ? m.size - 1 - (seed >> 8) % 22000
				  : (seed >> 8) % m.size;
		seed = seed * 1664525 + 1013904223;
		n = i == 0 ? m.size : (seed >> 8) % (i % 2 ? 300 : 200000);
		n = n < m.size - at ? n : m.size - at;
		out[n] = 0xa5;
		if (hct_reader_pread(r, d, at, out, n, &diag))
			fail_msg("%s", diag.text);
		assert_memory_equal(out, m.file + at, n);
		assert_int_equal(out[n], 0xa5);
	}
	assert_int_equal(hct_reader_pread(r, d, m.size, out, 0, &diag), HCT_OK);
	assert_int_equal(hct_reader_pread(r, d, m.size, out, 1, &diag), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_reader_pread(r, d, m.size + 1, out, 0, &diag), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_reader_pread(r, d, 8, out, m.size - 7, &diag), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_reader_pread(r, d, 8, out, SIZE_MAX, &diag), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_reader_pread(r, d, UINT64_MAX, out, 8, &diag), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_reader_decode(r, d, CHUNKS, out, &diag), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_reader_decode_verified(r, d, UINT64_MAX, out, &diag),
			 HCT_ERR_ARGUMENT);
	free(out);
	hct_reader_close(r);
	hct_decoder_free(d);
	model_free(&m);
}

static void check_chunk(const hct_reader *r, hct_decoder *d, const struct model *m, uint64_t k,
			uint8_t *out)
{
	struct hct_diag diag = {""};
	struct hct_chunk c;

	hct_reader_chunk(r, k, &c);
	if (hct_reader_decode_verified(r, d, k, out, &diag))
		fail_msg("%s", diag.text);
	assert_memory_equal(out, m->file + c.offset, c.length);
}

/* A decoder keeps tables.  Readers that come and go, mostly at the same address, with tensors
 * of the same names but other tables, must never be served those of their predecessors. */
static void test_decoder_outlives_readers(void **state)
{
	const struct model_tensor one = {"w", "BF16", "[200,300]", 120000, WEIGHTS};
	hct_decoder *d = new_decoder();
	uint8_t *out = malloc(one.bytes);

	(void)state;
	for (uint32_t i = 0; i < 20; i++) {
		struct model m;
		hct_reader *r;

		model_make(&one, 1, i % 7, &m);
		r = open_reader(model_compress(&m));
		check_chunk(r, d, &m, 0, out);
		hct_reader_close(r);
		model_free(&m);
	}
	free(out);
	hct_decoder_free(d);
}

/* More tensors in turn than a decoder keeps tables of, from two files at once. */
static void test_many_tables(void **state)
{
	enum { TENSORS = 13 };
	struct model_tensor t[TENSORS];
	char names[TENSORS][4];
	struct model m[2];
	hct_reader *r[2];
	hct_decoder *d = new_decoder();
	uint8_t *out = malloc(6400);

	(void)state;
	for (unsigned i = 0; i < TENSORS; i++) {
		snprintf(names[i], sizeof names[i], "%u", i);
		t[i] = (struct model_tensor){names[i], "BF16", "[40,80]", 6400, WEIGHTS};
	}
	for (unsigned f = 0; f < 2; f++) {
		struct hct_coding c;

		model_make(t, TENSORS, 30 * f, &m[f]);
		r[f] = open_reader(model_compress(&m[f]));
		hct_reader_coding(r[f], 0, &c);
		assert_string_equal(c.codec, "split");
	}
	for (unsigned i = 0; i < 40 * TENSORS; i++)
		check_chunk(r[i * 7 % 2], d, &m[i * 7 % 2], i * i % TENSORS, out);
	for (unsigned f = 0; f < 2; f++) {
		hct_reader_close(r[f]);
		model_free(&m[f]);
	}
	free(out);
	hct_decoder_free(d);
}

static void test_io_errors(void **state)
{
	hct_decoder *d = new_decoder();
	struct hct_diag diag = {""};
	struct model m;
	uint8_t *out;
	hct_reader *r;
	int fd;

	(void)state;
	model_make(tensors, COUNT, 1, &m);
	out = malloc(m.size);
	fd = model_compress(&m);
	r = open_reader(dup(fd));
	/* cut short while it is open: what is still there is still read */
	assert_int_equal(ftruncate(fd, 100000), 0);
	assert_int_equal(hct_reader_decode(r, d, 1, out, &diag), HCT_ERR_IO);
	assert_non_null(strstr(diag.text, "tensor w, chunk 1"));
	assert_int_equal(hct_reader_decode(r, d, 0, out, &diag), HCT_ERR_IO);
	assert_non_null(strstr(diag.text, "before byte 100000"));
	assert_int_equal(hct_reader_pread(r, d, 0, out, m.size, &diag), HCT_ERR_IO);
	assert_int_equal(hct_reader_pread(r, d, 0, out, m.st.header_len, &diag), HCT_OK);
	assert_memory_equal(out, m.file, m.st.header_len);
	/* and without a diag */
	assert_int_equal(hct_reader_decode(r, d, 1, out, NULL), HCT_ERR_IO);
	hct_reader_close(r);
	close(fd);
	assert_int_equal(hct_reader_open_fd(-1, "none", &r, &diag), HCT_ERR_IO);
	assert_null(r);
	free(out);
	hct_decoder_free(d);
	model_free(&m);
}

/* Things that are no files; a FIFO must not keep the caller waiting. */
static void test_not_files(void **state)
{
	char dir[] = "/tmp/test_reader.XXXXXX", path[64];
	struct hct_diag diag = {""};
	hct_reader *r;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/fifo", dir);
	assert_int_equal(hct_reader_open(path, &r, &diag), HCT_ERR_NOT_FOUND);
	assert_int_equal(hct_reader_open(dir, &r, &diag), HCT_ERR_NOT_HCT);
	assert_int_equal(mkfifo(path, 0600), 0);
	alarm(20);
	assert_int_equal(hct_reader_open(path, &r, &diag), HCT_ERR_NOT_HCT);
	alarm(0);
	assert_null(r);
	unlink(path);
	rmdir(dir);
}

/* One thing wrong ----------------------------------------------------------------------- */

/* A file taken apart: what lies before the index, and the decoded sections. */
struct image {
	uint8_t *body;
	size_t body_length;
	uint8_t *section[HCT_SECTION_COUNT];
	size_t length[HCT_SECTION_COUNT];
};

/* Where something is changed: a section by its id, or one of these. */
enum part { SUPER = 100, TRAILER, INDEX, ENTRY, RAW };

struct damage {
	const char *name;
	unsigned part;
	int64_t offset; /* in ENTRY: of the whole table; in RAW: from the file's end when < 0 */
	unsigned width; /* 0: the section gets `value` bytes longer, zeros */
	uint64_t value;
	hct_error open, decode; /* what they must answer */
};

#define AT_ENTRY(id)   (((id)-1) * HCT_SECTION_BYTES)
#define AT_TENSOR(i)   ((i)*HCT_TENSOR_BYTES)
#define AT_EXTENT(i)   ((i)*HCT_EXTENT_BYTES)
#define CORRUPT        HCT_ERR_CORRUPT, HCT_OK
#define LIMIT          HCT_ERR_LIMIT, HCT_OK
#define CHECKSUM       HCT_ERR_CHECKSUM, HCT_OK
#define UNSUPPORTED    HCT_ERR_UNSUPPORTED, HCT_OK
#define UNFINISHED     HCT_ERR_UNFINISHED, HCT_OK
#define IN_CHUNK(name) HCT_OK, HCT_ERR_##name

static const struct damage damages[] = {
	{"nothing", SUPER, 32, 1, 0, HCT_OK, HCT_OK},
	{"superblock magic", SUPER, 1, 1, 'h', HCT_ERR_NOT_HCT, HCT_OK},
	{"superblock checksum", RAW, 56, 8, 1, CHECKSUM},
	{"major 2", SUPER, 8, 2, 2, HCT_ERR_VERSION, HCT_OK},
	{"major 0", SUPER, 8, 2, 0, CORRUPT},
	{"minor differs", SUPER, 10, 2, 1, CORRUPT},
	{"flag 15", SUPER, 12, 4, 0x8000, UNSUPPORTED},
	{"flag 16", SUPER, 12, 4, 0x10000, HCT_OK, HCT_OK},
	{"source size", SUPER, 16, 8, 5000, HCT_ERR_SAFETENSORS, HCT_OK},
	{"header length", SUPER, 24, 8, 4000, CORRUPT},
	{"trailer magic", TRAILER, 56, 1, 'h', UNFINISHED},
	{"trailer checksum", RAW, -16, 8, 1, CHECKSUM},
	{"file length", TRAILER, 24, 8, 1, UNFINISHED},
	{"index offset 0", TRAILER, 0, 8, 0, CORRUPT},
	{"index offset huge", TRAILER, 0, 8, UINT64_MAX - 100, CORRUPT},
	{"index length", TRAILER, 8, 8, 32, CORRUPT},
	{"index checksum", TRAILER, 16, 8, 1, CHECKSUM},
	{"index magic", INDEX, 0, 1, 'h', CORRUPT},
	{"no sections", INDEX, 8, 4, 0, CORRUPT},
	{"a section less", INDEX, 8, 4, 5, CORRUPT},
	{"65 sections", INDEX, 8, 4, 65, LIMIT},
	{"4 Gi sections", INDEX, 8, 4, UINT32_MAX, LIMIT},
	{"index in two lengths", INDEX, 16, 8, 1, CORRUPT},
	{"section twice", ENTRY, AT_ENTRY(2), 4, 1, CORRUPT},
	{"required section", ENTRY, AT_ENTRY(6), 4, 99, UNSUPPORTED},
	{"encoding 2", ENTRY, AT_ENTRY(4) + 4, 2, 2, UNSUPPORTED},
	{"EXTENTS as zstd", ENTRY, AT_ENTRY(3) + 4, 2, 1, CORRUPT},
	{"PARAMS no frame", ENTRY, AT_ENTRY(4) + 4, 2, 1, CORRUPT},
	{"SOURCE shorter than stored", ENTRY, AT_ENTRY(5) + 24, 8, 3, CORRUPT},
	{"section in the head", ENTRY, AT_ENTRY(1) + 8, 8, 32, CORRUPT},
	{"section behind", ENTRY, AT_ENTRY(1) + 8, 8, UINT64_MAX - 7, CORRUPT},
	{"section too long", ENTRY, AT_ENTRY(1) + 16, 8, UINT64_MAX, CORRUPT},
	{"section two lengths", ENTRY, AT_ENTRY(4) + 24, 8, 3, CORRUPT},
	{"section checksum", ENTRY, AT_ENTRY(2) + 32, 8, 1, CHECKSUM},
	{"HEADER", HCT_SECTION_HEADER, 9, 1, '\\', HCT_ERR_SAFETENSORS, HCT_OK},
	{"HEADER longer", HCT_SECTION_HEADER, 0, 0, 1, CORRUPT},
	{"TENSORS longer", HCT_SECTION_TENSORS, 0, 0, HCT_TENSOR_BYTES, CORRUPT},
	{"TENSORS far longer", HCT_SECTION_TENSORS, 0, 0, 1 << 20, LIMIT},
	{"no layers", HCT_SECTION_TENSORS, AT_TENSOR(N) + 2, 1, 0, CORRUPT},
	{"9 layers", HCT_SECTION_TENSORS, AT_TENSOR(N) + 2, 1, 9, LIMIT},
	{"2 layers", HCT_SECTION_TENSORS, AT_TENSOR(N) + 2, 1, 2, CORRUPT},
	{"tensor flag", HCT_SECTION_TENSORS, AT_TENSOR(W) + 3, 1, 1, IN_CHUNK(UNSUPPORTED)},
	{"chunk size limit", HCT_SECTION_TENSORS, AT_TENSOR(N) + 4, 4, (8 << 20) + 1, LIMIT},
	{"chunk size 0", HCT_SECTION_TENSORS, AT_TENSOR(N) + 4, 4, 0, CORRUPT},
	{"chunk size odd", HCT_SECTION_TENSORS, AT_TENSOR(W) + 4, 4, 262145, CORRUPT},
	{"chunk size small", HCT_SECTION_TENSORS, AT_TENSOR(N) + 4, 4, 1, CORRUPT},
	{"chunk size of nothing", HCT_SECTION_TENSORS, AT_TENSOR(E1) + 4, 4, 8, CORRUPT},
	{"chunks", HCT_SECTION_TENSORS, AT_TENSOR(W) + 8, 8, 3, CORRUPT},
	{"first extent", HCT_SECTION_TENSORS, AT_TENSOR(I) + 16, 8, 1, CORRUPT},
	{"tables offset", HCT_SECTION_TENSORS, AT_TENSOR(W) + 24, 8, UINT64_MAX, CORRUPT},
	{"tables length", HCT_SECTION_TENSORS, AT_TENSOR(W) + 32, 4, UINT32_MAX, CORRUPT},
	{"no tables", HCT_SECTION_TENSORS, AT_TENSOR(W), 2, 0, IN_CHUNK(CORRUPT)},
	{"tables short", HCT_SECTION_TENSORS, AT_TENSOR(W) + 32, 4, 7, IN_CHUNK(CORRUPT)},
	{"tables", HCT_SECTION_PARAMS, 0, 1, 17, IN_CHUNK(CORRUPT)},
	{"EXTENTS longer", HCT_SECTION_EXTENTS, 0, 0, HCT_EXTENT_BYTES, CORRUPT},
	{"EXTENTS a bit longer", HCT_SECTION_EXTENTS, 0, 0, 1, CORRUPT},
	{"extent in superblock", HCT_SECTION_EXTENTS, AT_EXTENT(0), 8, 63, CORRUPT},
	{"extent overlaps", HCT_SECTION_EXTENTS, AT_EXTENT(1), 8, 64, CORRUPT},
	{"extent behind", HCT_SECTION_EXTENTS, AT_EXTENT(4), 8, UINT64_MAX, CORRUPT},
	{"extent empty", HCT_SECTION_EXTENTS, AT_EXTENT(4) + 8, 4, 0, CORRUPT},
	{"extent too long", HCT_SECTION_EXTENTS, AT_EXTENT(4) + 8, 4, UINT32_MAX, CORRUPT},
	{"extent limit", HCT_SECTION_EXTENTS, AT_EXTENT(4) + 8, 4, 2 * 4 + 4097, LIMIT},
	{"extent near limit", HCT_SECTION_EXTENTS, AT_EXTENT(4) + 8, 4, 2 * 4 + 4096,
	 IN_CHUNK(CHECKSUM)},
	{"unknown codec", HCT_SECTION_EXTENTS, AT_EXTENT(0) + 12, 2, 77, IN_CHUNK(UNSUPPORTED)},
	{"split without tables", HCT_SECTION_EXTENTS, AT_EXTENT(2) + 12, 2, 2, IN_CHUNK(CORRUPT)},
	{"extent flag", HCT_SECTION_EXTENTS, AT_EXTENT(2) + 14, 2, 1, IN_CHUNK(UNSUPPORTED)},
	{"payload checksum", HCT_SECTION_EXTENTS, AT_EXTENT(3) + 16, 8, 1, IN_CHUNK(CHECKSUM)},
	{"digest", HCT_SECTION_EXTENTS, AT_EXTENT(3) + 24, 8, 1, IN_CHUNK(DIGEST)},
	{"payload", RAW, 80, 8, 1, IN_CHUNK(CHECKSUM)},
	{"source size", HCT_SECTION_SOURCE, 0, 8, 1, CORRUPT},
	{"nanoseconds", HCT_SECTION_SOURCE, 16, 4, 1000000000, CORRUPT},
	{"SOURCE longer", HCT_SECTION_SOURCE, 0, 0, 1, LIMIT},
	{"PROVENANCE longer", HCT_SECTION_PROVENANCE, 0, 0, HCT_MAX_PROVENANCE, LIMIT},
};

static uint8_t *read_all(int fd, size_t *size)
{
	uint8_t *p;

	*size = (size_t)lseek(fd, 0, SEEK_END);
	p = malloc(*size);
	assert_int_equal(pread(fd, p, *size, 0), *size);
	return p;
}

static void image_load(int fd, struct image *m)
{
	size_t size;
	uint8_t *p = read_all(fd, &size), *index;
	struct hct_trailer t;

	memset(m, 0, sizeof *m);
	assert_int_equal(hct_trailer_unpack(p + size - HCT_TRAILER_BYTES, &t, "test", NULL), 0);
	index = p + t.index_offset;
	for (unsigned id = 1; id < HCT_SECTION_COUNT; id++) {
		struct hct_section s;

		hct_section_unpack(index + HCT_INDEX_HEADER_BYTES + AT_ENTRY(id), &s);
		assert_int_equal(s.id, id);
		m->length[id] = s.length;
		m->section[id] = malloc(s.length);
		if (s.encoding == HCT_ENCODING_ZSTD)
			assert_int_equal(ZSTD_decompress(m->section[id], s.length, index + s.offset,
							 s.stored_length),
					 s.length);
		else
			memcpy(m->section[id], index + s.offset, s.length);
	}
	/* room behind the last extent, so that one can be too long and within the file */
	m->body_length = t.index_offset + 8192;
	m->body = calloc(m->body_length, 1);
	memcpy(m->body, p, t.index_offset);
	/* and a small chunk, whose limit is within that room */
	hct_store32(m->section[HCT_SECTION_TENSORS] + AT_TENSOR(S) + 4, 4);
	free(p);
}

static void image_free(struct image *m)
{
	free(m->body);
	for (unsigned id = 1; id < HCT_SECTION_COUNT; id++)
		free(m->section[id]);
}

/* Puts the file together, one thing wrong, with the checksums that a clever enemy would make;
 * returns a memfd. */
static int image_build(const struct image *m, const struct damage *d)
{
	enum { HEAD = HCT_INDEX_HEADER_BYTES + AT_ENTRY(HCT_SECTION_COUNT) };
	size_t grown = d->width || d->part >= SUPER ? 0 : d->value, size,
	       at = m->body_length + HEAD;
	struct hct_trailer t = {.index_offset = m->body_length, .major = 1};
	int fd = memfd_create("damaged", MFD_CLOEXEC);
	uint8_t *p, *index, *end;
	uint64_t sections;

	size = at + grown + HCT_TRAILER_BYTES;
	for (unsigned id = 1; id < HCT_SECTION_COUNT; id++)
		size += m->length[id];
	p = calloc(size, 1);
	index = p + m->body_length;
	end = p + size - HCT_TRAILER_BYTES;
	memcpy(p, m->body, m->body_length);
	for (unsigned id = 1; id < HCT_SECTION_COUNT; id++) {
		struct hct_section s = {.id = id,
					.flags = HCT_SECTION_REQUIRED,
					.offset = at - m->body_length,
					.length = m->length[id] + (id == d->part ? grown : 0)};

		memcpy(p + at, m->section[id], m->length[id]);
		if (id == d->part)
			memcpy(p + at + d->offset, &d->value, d->width);
		s.stored_length = s.length;
		s.checksum = hct_checksum(p + at, s.length);
		hct_section_pack(&s, index + HCT_INDEX_HEADER_BYTES + AT_ENTRY(id));
		at += s.length;
	}
	memcpy(index, HCT_INDEX_MAGIC, 8);
	hct_store32(index + 8, HCT_SECTION_COUNT - 1);
	t.index_length = (uint64_t)(end - index);
	hct_store64(index + 16, t.index_length);
	if (d->part == INDEX || d->part == ENTRY)
		memcpy(index + (d->part == ENTRY ? HCT_INDEX_HEADER_BYTES : 0) + d->offset,
		       &d->value, d->width);
	sections = hct_load32(index + 8);
	sections = sections < HCT_SECTION_COUNT ? sections : 0; /* too many are never summed */
	t.index_checksum =
		hct_checksum(index, HCT_INDEX_HEADER_BYTES + sections * HCT_SECTION_BYTES);
	t.file_length = size;
	hct_trailer_pack(&t, end);
	if (d->part == TRAILER) {
		memcpy(end + d->offset, &d->value, d->width);
		hct_store64(end + 48, hct_checksum(end, 48));
	}
	if (d->part == SUPER) {
		memcpy(p + d->offset, &d->value, d->width);
		hct_store64(p + 56, hct_checksum(p, 56));
	}
	if (d->part == RAW)
		memcpy((d->offset < 0 ? p + size : p) + d->offset, &d->value, d->width);
	assert_int_equal(write(fd, p, size), size);
	free(p);
	return fd;
}

/* The first error among all chunks, or HCT_OK; ranges must not know better. */
static hct_error decode_all(const hct_reader *r, hct_decoder *d, struct hct_diag *diag)
{
	uint8_t *out = malloc(1 << 20);
	hct_error e = HCT_OK;

	for (uint64_t k = 0; k < hct_reader_chunk_count(r) && !e; k++) {
		struct hct_chunk c;

		hct_reader_chunk(r, k, &c);
		e = hct_reader_decode_verified(r, d, k, out, diag);
		if (e && e != HCT_ERR_DIGEST)
			assert_int_equal(hct_reader_pread(r, d, c.offset, out, 1, NULL), e);
	}
	free(out);
	return e;
}

static void test_damage(void **state)
{
	hct_decoder *d = new_decoder();
	struct image image;
	struct model m;
	int fd;

	(void)state;
	model_make(tensors, COUNT, 1, &m);
	fd = model_compress(&m);
	image_load(fd, &image);
	close(fd);
	for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
		const struct damage *x = &damages[i];
		struct hct_diag diag = {""};
		hct_reader *r = (hct_reader *)&image;
		hct_error e = hct_reader_open_fd(image_build(&image, x), "bad.hct", &r, &diag);

		if (e != x->open)
			fail_msg("%s: opening gives %s (%s)", x->name, hct_error_string(e),
				 diag.text);
		assert_true(!e == (r != NULL));
		if (!e) {
			e = decode_all(r, d, &diag);
			if (e != x->decode)
				fail_msg("%s: decoding gives %s (%s)", x->name, hct_error_string(e),
					 diag.text);
			assert_true(!e || strstr(diag.text, ": tensor "));
		}
		if (e && strncmp(diag.text, "bad.hct: ", 9))
			fail_msg("%s: no file in \"%s\"", x->name, diag.text);
		hct_reader_close(r);
	}
	image_free(&image);
	model_free(&m);
	hct_decoder_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_places),      cmocka_unit_test(test_no_tensors),
		cmocka_unit_test(test_pread),       cmocka_unit_test(test_decoder_outlives_readers),
		cmocka_unit_test(test_many_tables), cmocka_unit_test(test_io_errors),
		cmocka_unit_test(test_not_files),   cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests_name("reader", tests, NULL, NULL);
}
