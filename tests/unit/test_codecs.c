/* From tensors to an .hct file and back: every dtype, shape and kind of data, every variant. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "codec/codec.h"
#include "codec/hct.h"

static uint64_t seed;

static uint32_t next(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33);
}

static double gauss(void)
{
	double sum = 0;

	for (int i = 0; i < 12; i++)
		sum += next() / 2147483648.0;
	return sum - 6;
}

enum data {
	ZEROS,
	EQUAL,
	NOISE, /* random bits: NaN payloads, infinities, subnormals, all of them */
	WEIGHTS,
	SCALED,  /* weights whose rows and columns differ in scale */
	SPARSE,  /* mostly zero, both signs of it */
	WIDE,    /* exponents all over the range */
	CORNERS, /* a few special values, mixed */
	NANS,    /* nothing else, both signs */
	DATA_COUNT
};

/* F32 to the bits of F16, rounded to nearest even. */
static uint16_t half_bits(float f)
{
	uint32_t u, sign;
	float a;

	memcpy(&u, &f, 4);
	sign = u >> 16 & 0x8000;
	u &= 0x7fffffff;
	if (u > 0x7f800000) /* NaN */
		return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x1ff));
	if (u >= 0x477ff000) /* 65520 and above */
		return (uint16_t)(sign | 0x7c00);
	if (u >= 0x38800000) /* normal */
		return (uint16_t)(sign | ((u + 0xfff + (u >> 13 & 1) - (112u << 23)) >> 13));
	memcpy(&a, &u, 4);
	a += 0.5f; /* whose last place is that of the subnormals */
	memcpy(&u, &a, 4);
	return (uint16_t)(sign | (u - 0x3f000000));
}
/* An F32 value as the bits of another type. */
static uint64_t narrow(hct_dtype t, float f)
{
	uint32_t u;
	uint16_t v = half_bits(f);
	double d = f;
	uint64_t w;

	memcpy(&u, &f, 4);
	memcpy(&w, &d, 8);
	switch (t) {
	case HCT_DTYPE_BF16:
		return (u + 0x7fff + (u >> 16 & 1)) >> 16;
	case HCT_DTYPE_F16:
		return v;
	case HCT_DTYPE_F64:
		return w ^ (next() & 0x1fffffff);
	case HCT_DTYPE_F8_E5M2:
	case HCT_DTYPE_F8_E5M2FNUZ:
		return v >> 8;
	case HCT_DTYPE_F8_E4M3:
	case HCT_DTYPE_F8_E4M3FNUZ:
		return (u >> 24 & 0x80) | ((u >> 20) & 0x7f);
	case HCT_DTYPE_C64:
		return u | narrow(HCT_DTYPE_F32, (float)gauss()) << 32;
	default:
		return u;
	}
}

static void fill(uint8_t *p, size_t bytes, hct_dtype t, enum data kind, uint64_t columns)
{
	static const float corners[] = {0.0f, -0.0f, 1e-45f, -1e-38f, 1e38f, 3.4e38f, 1.0f, -2.5f};
	size_t unit = hct_dtype_unit(t);

	for (size_t i = 0; i < bytes / unit; i++) {
		double col = columns ? (double)(i % columns) : 0;
		double row = columns ? (double)(i / columns) : 0;
		uint64_t v = 0;

		switch (kind) {
		case ZEROS:
			break;
		case EQUAL:
			v = narrow(t, 0.3f);
			if (t == HCT_DTYPE_F64)
				v = 0x3fd3333333333333;
			break;
		case NOISE:
			v = next() | (uint64_t)next() << 31 | (uint64_t)next() << 62;
			break;
		case WEIGHTS:
			v = narrow(t, (float)(0.02 * gauss()));
			break;
		case SCALED:
			v = narrow(t, (float)(gauss() * (0.01 + 0.4 * (col - 8 * (int)(col / 8))) *
					      (row > 40 ? 0.1 : 1)));
			break;
		case SPARSE:
			v = narrow(t, next() % 10 ? (next() % 2 ? 0.0f : -0.0f) : (float)gauss());
			break;
		case WIDE: {
			uint32_t u = next() % 0x7f000000;
			float f;

			memcpy(&f, &u, 4);
			v = narrow(t, next() % 2 ? f : -f);
			break;
		}
		case NANS:
			v = ~(uint64_t)(next() % 2);
			v ^= next() % 2 ? (uint64_t)1 << (8 * unit - 1) : 0;
			break;
		default:
			v = narrow(t, corners[next() % 8]);
		}
		memcpy(p + i * unit, &v, unit);
	}
}

/* A header for one tensor of rows x columns. */
static void make_header(const char *dtype, const char *shape, uint64_t bytes,
			struct hct_safetensors *st)
{
	char text[600];
	struct hct_diag d;
	int n = snprintf(text + 8, sizeof text - 8,
			 "{\"w\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[0,%llu]}}", dtype,
			 shape, (unsigned long long)bytes);
	uint64_t length = (uint64_t)n;

	memcpy(text, &length, 8);
	if (hct_safetensors_parse(text, 8 + (size_t)n, 8 + (uint64_t)n + bytes, st, &d))
		fail_msg("%s", d.text);
}

/* Compresses; returns a descriptor and, in *codec, how the first chunk was coded. */
static int compress(const struct hct_safetensors *st, const uint8_t *data, hct_simd simd,
		    uint16_t *codec)
{
	struct hct_source source = {.size = st->file_size};
	struct hct_encoded chunk;
	hct_appender *a;
	hct_encoder *e;
	hct_plan *p;
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_int_equal(hct_encoder_create(simd, &e), HCT_OK);
	assert_int_equal(hct_appender_create(fd, "test", st, &a, NULL), HCT_OK);
	assert_int_equal(hct_plan_create(e, &st->tensors[0], data, NULL, &p, NULL), HCT_OK);
	assert_int_equal(hct_appender_tensor(a, 0, p, NULL), HCT_OK);
	for (uint64_t k = 0; k < hct_plan_chunk_count(p); k++) {
		assert_int_equal(
			hct_encode_chunk(e, p, k, data + k * hct_plan_chunk_bytes(p), &chunk, NULL),
			HCT_OK);
		/* never larger than raw */
		assert_true(chunk.layers[0].length <= hct_plan_chunk_length(p, k));
		if (!k)
			*codec = chunk.codec;
		assert_int_equal(hct_appender_chunk(a, &chunk, NULL), HCT_OK);
	}
	assert_int_equal(hct_appender_finish(a, &source, "{}", NULL, NULL), HCT_OK);
	hct_plan_free(p);
	hct_appender_free(a);
	hct_encoder_free(e);
	return fd;
}

static void check_decode(int fd, const struct hct_safetensors *st, const uint8_t *data,
			 hct_simd simd, const char *what)
{
	struct hct_diag d = {""};
	uint64_t size = st->file_size - st->header_len;
	uint8_t *out = malloc(size + HCT_MAX_CHUNK);
	hct_decoder *dec;
	hct_reader *r;

	assert_int_equal(hct_decoder_create(simd, &dec), HCT_OK);
	if (hct_reader_open_fd(dup(fd), "test", &r, &d))
		fail_msg("%s: %s", what, d.text);
	for (uint64_t k = 0; k < hct_reader_chunk_count(r); k++) {
		struct hct_chunk c;

		hct_reader_chunk(r, k, &c);
		if (hct_reader_decode_verified(r, dec, k, out, &d))
			fail_msg("%s: %s", what, d.text);
		if (memcmp(out, data + c.offset - st->header_len, c.length))
			fail_msg("%s: chunk %llu differs", what, (unsigned long long)k);
	}
	/* ranges: within a group, across segments and chunks, unaligned */
	for (int i = 0; size && i < 40; i++) {
		uint64_t at = next() % size, n = 1 + (i % 4 ? next() % 5000 : next() % size);

		n = n < size - at ? n : size - at;
		if (hct_reader_pread(r, dec, st->header_len + at, out, n, &d))
			fail_msg("%s: range: %s", what, d.text);
		if (memcmp(out, data + at, n))
			fail_msg("%s: range %llu+%llu differs", what, (unsigned long long)at,
				 (unsigned long long)n);
	}
	hct_reader_close(r);
	hct_decoder_free(dec);
	free(out);
}

static int same_bytes(int a, int b)
{
	size_t n = (size_t)lseek(a, 0, SEEK_END);
	uint8_t *p = malloc(2 * n);
	int same = n == (size_t)lseek(b, 0, SEEK_END);

	assert_int_equal(pread(a, p, n, 0), n);
	same = same && pread(b, p + n, n, 0) == (ssize_t)n && !memcmp(p, p + n, n);
	free(p);
	return same;
}

/* A tensor through every variant; returns whether the split codec was used. */
static unsigned check_tensor(const char *dtype, const char *shape, const uint8_t *data,
			     uint64_t bytes, const char *name)
{
	struct hct_safetensors st;
	uint16_t codec = 99, other_codec;
	char what[256];
	int fd;

	make_header(dtype, shape, bytes, &st);
	fd = compress(&st, data, HCT_SIMD_SCALAR, &codec);
	for (int simd = HCT_SIMD_SCALAR; simd <= HCT_SIMD_AVX512; simd++) {
		int other;

		if (!hct_simd_supported((hct_simd)simd))
			continue;
		snprintf(what, sizeof what, "%s %s %s, %s", name, dtype, shape,
			 hct_simd_name((hct_simd)simd));
		check_decode(fd, &st, data, (hct_simd)simd, what);
		other = compress(&st, data, (hct_simd)simd, &other_codec);
		if (!same_bytes(fd, other))
			fail_msg("%s: the encoder gives another file than scalar", what);
		close(other);
	}
	close(fd);
	hct_safetensors_free(&st);
	return codec == HCT_CODEC_SPLIT;
}

static void round_trip_shape(const char *dtype, const char *shape, uint64_t elements,
			     uint64_t columns, enum data kind, unsigned *split)
{
	hct_dtype t = hct_dtype_from_name(dtype);
	uint64_t bytes = elements * hct_dtype_unit(t);
	uint8_t *data = malloc(bytes + 64);
	char what[32];

	fill(data, bytes, t, kind, columns);
	snprintf(what, sizeof what, "data %d", kind);
	*split += check_tensor(dtype, shape, data, bytes, what);
	free(data);
}

static void round_trip(const char *dtype, uint64_t rows, uint64_t columns, enum data kind,
		       unsigned *split)
{
	char shape[64];

	snprintf(shape, sizeof shape, "[%llu,%llu]", (unsigned long long)rows,
		 (unsigned long long)columns);
	round_trip_shape(dtype, shape, rows * columns, columns, kind, split);
}

/* The larger tensors of a model, up to a limit; returns how many used the split codec. */
static unsigned real_model(FILE *f)
{
	const uint64_t most = 600000;
	struct hct_safetensors st;
	unsigned split = 0, taken = 0;
	uint8_t first[8], *header;
	size_t length;

	assert_int_equal(fread(first, 1, 8, f), 8);
	fseek(f, 0, SEEK_END);
	assert_int_equal(hct_safetensors_header_len(first, (uint64_t)ftell(f), &length, NULL),
			 HCT_OK);
	header = malloc(length);
	rewind(f);
	assert_int_equal(fread(header, 1, length, f), length);
	fseek(f, 0, SEEK_END);
	assert_int_equal(hct_safetensors_parse(header, length, (uint64_t)ftell(f), &st, NULL),
			 HCT_OK);
	for (size_t i = 0; i < st.count && taken < 3; i++) {
		const struct hct_tensor *t = &st.tensors[i];
		uint64_t bytes = hct_tensor_bytes(t);
		uint8_t *data;
		char shape[64];

		if (t->dtype != HCT_DTYPE_F32 || t->rank != 2 || t->elements > most ||
		    t->elements < 4096)
			continue;
		taken++;
		snprintf(shape, sizeof shape, "[%llu,%llu]", (unsigned long long)t->shape[0],
			 (unsigned long long)t->shape[1]);
		data = malloc(bytes);
		fseek(f, (long)(st.header_len + t->begin), SEEK_SET);
		assert_int_equal(fread(data, 1, bytes, f), bytes);
		split += check_tensor("F32", shape, data, bytes, t->name);
		for (uint64_t k = 0; k < t->elements; k++) {
			float v;
			uint64_t h;

			memcpy(&v, data + 4 * k, 4);
			h = narrow(HCT_DTYPE_BF16, v);
			memcpy(data + 2 * k, &h, 2);
		}
		split += check_tensor("BF16", shape, data, bytes / 2, t->name);
		free(data);
	}
	free(header);
	hct_safetensors_free(&st);
	return split;
}

static void test_floats(void **state)
{
	static const char *const dtypes[] = {"BF16",    "F16",         "F32",
					     "F64",     "C64",         "F8_E4M3",
					     "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"};
	static const uint64_t shapes[][2] = {{1, 1},     {7, 9},    {64, 64},
					     {200, 130}, {3, 4099}, {550, 257}};

	(void)state;
	for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
		unsigned split = 0;

		for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
			for (int kind = 0; kind < DATA_COUNT; kind++) {
				/* the last shape has several segments and chunks */
				if (shapes[s][0] == 550 && kind != NOISE && kind != SCALED)
					continue;
				seed = d * 1000 + s * 10 + (unsigned)kind;
				round_trip(dtypes[d], shapes[s][0], shapes[s][1], (enum data)kind,
					   &split);
			}
		/* the codec under test was really used */
		if (split < 3)
			fail_msg("only %u models of %s used the split codec", split, dtypes[d]);
	}
}

static void test_others(void **state)
{
	static const char *const dtypes[] = {"BOOL", "U8",  "I8",  "I16", "U16",
					     "I32",  "U32", "I64", "U64", "F8_E8M0"};
	unsigned split = 0;

	(void)state;
	for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
		for (int kind = 0; kind < DATA_COUNT; kind++) {
			seed = d * 10 + (unsigned)kind;
			round_trip(dtypes[d], 301, 77, (enum data)kind, &split);
			round_trip(dtypes[d], 3, 70001, (enum data)kind, &split);
		}
	assert_int_equal(split, 0);
}

/* Tensors of the models in HCT_MODELS or ../shared/models, as F32 and rounded to BF16: every
 * variant gives the same file and the same bytes back. */
static void test_real_weights(void **state)
{
	static const char *const models[] = {"stories260k", "gpt2-attn", "use-lite-en"};
	const char *root = getenv("HCT_MODELS");
	unsigned seen = 0, split = 0;

	(void)state;
	for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
		char path[4096];
		FILE *f;

		snprintf(path, sizeof path, "%s/%s/model.safetensors",
			 root ? root : "../shared/models", models[m]);
		f = fopen(path, "rb");
		if (!f)
			continue;
		seen++;
		split += real_model(f);
		fclose(f);
	}
	if (!seen) {
		print_message("no real weights here: set HCT_MODELS\n");
		skip();
	}
	assert_true(split > seen);
}

/* Any rank; rows shorter than a group and longer than a chunk; chunks that begin in the middle
 * of a period of the shifts. */
static void test_shapes(void **state)
{
	static const struct {
		const char *dtype, *shape;
		uint64_t elements, columns;
	} cases[] = {
		{"BF16", "[]", 1, 1},
		{"F64", "[1,1,1,1]", 1, 1},
		{"F32", "[64,3,7,7]", 9408, 49},
		{"BF16", "[3000,3,7,7]", 441000, 49},
		{"F16", "[8,96,256]", 196608, 256},
		{"C64", "[3000,17]", 51000, 17},
		{"BF16", "[5000,4,9]", 180000, 36},
		{"F8_E4M3", "[70000,2]", 140000, 2},
		{"BF16", "[200001]", 200001, 1},
		{"F32", "[140001,1]", 140001, 1},
		{"F16", "[1,140001]", 140001, 140001},
		{"BF16", "[2,150001]", 300002, 150001},
	};
	unsigned split = 0;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		seed = i;
		round_trip_shape(cases[i].dtype, cases[i].shape, cases[i].elements,
				 cases[i].columns, SCALED, &split);
		round_trip_shape(cases[i].dtype, cases[i].shape, cases[i].elements,
				 cases[i].columns, NANS, &split);
	}
	assert_true(split > 8);
}

/* Weights of the usual kind get near their entropy. */
static void test_ratio(void **state)
{
	static const struct {
		const char *dtype;
		double most; /* bits an element */
	} cases[] = {
		{"BF16", 10.85}, {"F16", 13.9}, {"F32", 26.9}, {"F64", 57.5}, {"F8_E4M3", 6.9}};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		hct_dtype t = hct_dtype_from_name(cases[i].dtype);
		uint64_t n = 1024 * 512, bytes = n * hct_dtype_unit(t);
		uint8_t *data = malloc(bytes);
		struct hct_safetensors st;
		uint16_t codec;
		double bits;
		int fd;

		seed = i;
		fill(data, bytes, t, WEIGHTS, 512);
		make_header(cases[i].dtype, "[1024,512]", bytes, &st);
		fd = compress(&st, data, HCT_SIMD_AUTO, &codec);
		bits = 8.0 * (double)lseek(fd, 0, SEEK_END) / (double)n;
		if (bits > cases[i].most)
			fail_msg("%s takes %.3f bits, more than %.3f", cases[i].dtype, bits,
				 cases[i].most);
		close(fd);
		hct_safetensors_free(&st);
		free(data);
	}
}

static void test_no_bytes(void **state)
{
	static const char *const shapes[] = {"[0]", "[4,0]", "[0,0,3]"};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct hct_safetensors st;
		uint8_t data[1] = {0};
		uint16_t codec;
		int fd;

		make_header("BF16", shapes[i], 0, &st);
		fd = compress(&st, data, HCT_SIMD_AUTO, &codec);
		check_decode(fd, &st, data, HCT_SIMD_AUTO, shapes[i]);
		close(fd);
		hct_safetensors_free(&st);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_floats), cmocka_unit_test(test_others),
		cmocka_unit_test(test_shapes), cmocka_unit_test(test_real_weights),
		cmocka_unit_test(test_ratio),  cmocka_unit_test(test_no_bytes),
	};

	return cmocka_run_group_tests_name("codecs", tests, NULL, NULL);
}
