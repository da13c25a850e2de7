/* A model of every codec, decoded by the scalar decoder, and backends that are held against it, for
 * unit tests.  Include cmocka.h first. */
#ifndef BACKEND_MODEL_H
#define BACKEND_MODEL_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/backend.h"
#include "model.h"

/* Every codec and layers, chunks that end anywhere, tensors of one row, one element and none. */
#define LOSSLESS                                                                                   \
	{                                                                                          \
		.relative_squared_error = 0                                                        \
	}
static const struct {
	struct model_tensor tensor;
	struct hct_goal goal;
} made[] = {
	{{"split", "BF16", "[300,512]", 307200, WEIGHTS}, LOSSLESS},
	{{"narrow", "BF16", "[30001,3]", 180006, WEIGHTS}, LOSSLESS},
	{{"f16", "F16", "[90,100]", 18000, WEIGHTS}, LOSSLESS},
	{{"f32", "F32", "[100,257]", 102800, WEIGHTS}, LOSSLESS},
	{{"f64", "F64", "[64,64]", 32768, WEIGHTS}, LOSSLESS},
	{{"f8", "F8_E4M3", "[200,100]", 20000, WEIGHTS}, LOSSLESS},
	{{"f8b", "F8_E5M2", "[200,100]", 20000, WEIGHTS}, LOSSLESS},
	{{"tcq", "BF16", "[200,512]", 204800, WEIGHTS}, {.relative_squared_error = .01}},
	{{"tcq32", "F32", "[130,250]", 130000, WEIGHTS}, {.relative_squared_error = .003}},
	{{"layers", "BF16", "[200,512]", 204800, WEIGHTS},
	 {.relative_squared_error = .002, .layers = 3}},
	{{"tiles", "BF16", "[512,512]", 524288, WEIGHTS},
	 {.relative_squared_error = .01, .transform = HCT_TRANSFORM_DCT}},
	{{"tiles32", "F32", "[1024,128]", 524288, WEIGHTS},
	 {.relative_squared_error = .001, .transform = HCT_TRANSFORM_DCT}},
	{{"topk", "BF16", "[64,256]", 32768, WEIGHTS},
	 {.relative_squared_error = .1, .method = HCT_METHOD_TOPK, .retention = .5}},
	{{"int4", "BF16", "[64,256]", 32768, WEIGHTS},
	 {.relative_squared_error = .1, .method = HCT_METHOD_INT4}},
	{{"counters", "I32", "[5000]", 20000, COUNTERS}, LOSSLESS},
	{{"noise", "U8", "[10,100]", 1000, NOISE}, LOSSLESS},
	{{"half", "F4", "[4,3]", 6, NOISE}, LOSSLESS},
	{{"scalar", "F32", "[]", 4, NOISE}, LOSSLESS},
	{{"none", "I64", "[0,3]", 0, NOISE}, LOSSLESS},
	{{"empty", "BF16", "[7,0]", 0, NOISE}, LOSSLESS},
	{{"norm", "BF16", "[512]", 1024, WEIGHTS}, LOSSLESS},
};
#define COUNT (sizeof made / sizeof *made)

/* A file of all of them, and what a scalar decoder makes of it. */
struct fixture {
	struct model model;
	hct_reader *r;
	uint64_t chunks;
	uint8_t *expected[4]; /* the virtual file, of all layers, of one, two, three */
};

static struct fixture shared;

static inline hct_reader *open_reader(int fd, const char *name)
{
	struct hct_diag d = {""};
	hct_reader *r;

	if (hct_reader_open_fd(fd, name, &r, &d))
		fail_msg("%s", d.text);
	return r;
}

static inline int make_fixture(void **state)
{
	struct model_tensor tensors[COUNT];
	struct hct_goal goals[COUNT];
	hct_decoder *d;

	(void)state;
	for (size_t i = 0; i < COUNT; i++) {
		tensors[i] = made[i].tensor;
		goals[i] = made[i].goal;
	}
	model_make(tensors, COUNT, 1, &shared.model);
	shared.r = open_reader(model_compress_for(&shared.model, goals), "model");
	shared.chunks = hct_reader_chunk_count(shared.r);
	assert_int_equal(hct_decoder_create(HCT_SIMD_SCALAR, &d), HCT_OK);
	for (unsigned layers = 0; layers < 4; layers++) {
		hct_decoder_set_layers(d, layers);
		shared.expected[layers] = malloc(shared.model.size);
		assert_int_equal(hct_reader_pread(shared.r, d, 0, shared.expected[layers],
						  shared.model.size, NULL),
				 HCT_OK);
	}
	hct_decoder_free(d);
	return 0;
}

static inline int free_fixture(void **state)
{
	(void)state;
	hct_reader_close(shared.r);
	model_free(&shared.model);
	for (unsigned layers = 0; layers < 4; layers++)
		free(shared.expected[layers]);
	return 0;
}

/* Lines of a backend's log. */
struct lines {
	unsigned count;
	char last[1280];
};

static inline void note(void *arg, const char *line)
{
	struct lines *l = arg;

	l->count++;
	snprintf(l->last, sizeof l->last, "%s", line);
}

static inline hct_backend *open_backend(const char *gpu, unsigned threads, struct lines *lines)
{
	struct hct_backend_options o = {
		.gpu = gpu, .threads = threads, .log = note, .log_arg = lines};
	struct hct_diag diag = {""};
	hct_backend *b;

	memset(lines, 0, sizeof *lines);
	if (hct_backend_open(&o, &b, &diag))
		fail_msg("%s", diag.text);
	return b;
}

static inline int have_plugin(void)
{
	const char *path = getenv("HCT_TEST_PLUGIN");

	if (!path || access(path, R_OK) != 0)
		return 0;
	setenv("HCT_CUDA_PLUGIN", path, 1);
	return 1;
}

/* Decodes all chunks of a reader, last ones first. */
static inline hct_error decode_all(hct_backend *b, const hct_reader *r, unsigned layers,
				   int verified, uint8_t *file, struct hct_wanted *wanted,
				   struct hct_diag *diag)
{
	uint64_t chunks = hct_reader_chunk_count(r);

	for (uint64_t i = 0; i < chunks; i++) {
		struct hct_chunk c;

		hct_reader_chunk(r, chunks - 1 - i, &c);
		wanted[i] = (struct hct_wanted){c.number, file + c.offset, HCT_ERR_COUNT};
	}
	return hct_backend_decode(b, r, layers, verified, wanted, chunks, diag);
}

/* Whether all chunks come out, as they should. */
static inline int all_right(hct_backend *b, unsigned layers, int verified, struct hct_diag *diag)
{
	const struct model *m = &shared.model;
	struct hct_wanted *wanted = calloc(shared.chunks, sizeof *wanted);
	uint8_t *file = malloc(m->size);
	int right;

	memcpy(file, m->file, m->st.header_len);
	memset(file + m->st.header_len, 0xdb, m->size - m->st.header_len);
	right = !decode_all(b, shared.r, layers, verified, file, wanted, diag) &&
		!memcmp(file, shared.expected[layers], m->size);
	for (uint64_t i = 0; i < shared.chunks; i++)
		right &= !wanted[i].error;
	free(wanted);
	free(file);
	return right;
}

#endif
