/* What the kernels decode is what the scalar decoder does, to the byte, and they refuse the same
 * payloads.  All memory is of just the size that it may be used to. */
#include <dirent.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zstd.h>

#include "codec/device.h"
#include "codec/encoder.h"
#include "codec/load.h"
#include "codec/plan.h"
#include "tests/unit/lossy.h"
#include "tests/unit/tcq_make.h"

#define MOST_ITEMS 32

typedef int emulated_decode(const struct hct_device_batch *batch, size_t shared,
			    unsigned multiprocessors);
static emulated_decode *device;

/* A chunk, and what the scalar decoder makes of it. */
struct item {
	const struct hct_codec *codec;
	struct hct_task task; /* payloads and tables are its own */
	struct hct_tensor tensor;
	void *tables; /* that are freed with it, or NULL */
	uint8_t *expected;
	hct_error error;
	hct_error listed; /* what list() said */
	uint64_t in, out; /* of the batch */
};

/* Chunks that a device decodes together. */
struct batch {
	struct item items[MOST_ITEMS];
	size_t count;
	struct hct_flat_list list;
	struct hct_device_tables tables[MOST_ITEMS];
	uint32_t tables_of[MOST_ITEMS], bad[MOST_ITEMS];
	size_t in_bytes, out_bytes, values_bytes;
	uint8_t *in, *out;
	unsigned refused, decoded, left; /* left: to the CPU */
};

static void scalar(struct item *x)
{
	struct hct_scratch scratch = {.simd = HCT_SIMD_SCALAR, .dctx = ZSTD_createDCtx()};
	const char *why = NULL;

	x->task.scratch = &scratch;
	x->expected = malloc(x->task.length);
	x->error = x->codec->decode(&x->task, x->expected, &why);
	free(scratch.bytes);
	ZSTD_freeDCtx(scratch.dctx);
}

/* Adds a chunk.  The payloads of the task are copied; its tables stay until the batch has run. */
static void add(struct batch *b, const struct hct_codec *codec, const struct hct_task *task)
{
	struct item *x = &b->items[b->count++];

	assert_true(b->count <= MOST_ITEMS);
	*x = (struct item){.codec = codec, .task = *task, .tensor = *task->tensor};
	x->task.tensor = &x->tensor;
	for (unsigned l = 0; l < task->layer_count; l++) {
		size_t n = task->layers[l].length + HCT_PAYLOAD_PAD;
		uint8_t *p = malloc(n);

		memcpy(p, task->layers[l].data, task->layers[l].length);
		memset(p + task->layers[l].length, 0xff, HCT_PAYLOAD_PAD);
		x->task.layers[l].data = p;
	}
	scalar(x);
}

/* The same, with the tables of its tensor as they lie in a file. */
static void add_with_tables(struct batch *b, const struct hct_codec *codec, const uint8_t *params,
			    size_t length, struct hct_task *task)
{
	const char *why = NULL;
	void *tables;

	assert_int_equal(codec->open_tables(task->tensor, params, length, &tables, &why), HCT_OK);
	task->tables = tables;
	add(b, codec, task);
	b->items[b->count - 1].tables = tables;
}

/* Where the payloads and elements of an item go; payloads have any alignment. */
static void place(struct batch *b, uint32_t item)
{
	struct item *x = &b->items[item];

	for (unsigned l = 0; l < x->task.layer_count; l++) {
		b->in_bytes += tcq_below(7);
		b->list.in[l] = b->in_bytes;
		b->in_bytes += x->task.layers[l].length + HCT_PAYLOAD_PAD;
	}
	x->in = b->list.in[0];
	x->out = b->list.out = b->out_bytes;
	b->out_bytes += (x->task.length + 7) & ~(size_t)7;
	b->list.values = b->values_bytes;
	b->values_bytes += x->task.length / hct_dtype_unit(x->tensor.dtype) * sizeof(float);
	b->list.item = item;
}

static void list_item(struct batch *b, uint32_t i)
{
	struct item *x = &b->items[i];
	size_t split = b->list.split_count, tcq = b->list.tcq_count, tiles = b->list.tiles_count;
	uint64_t in[HCT_MAX_LAYERS];
	const char *why = NULL;
	void *flat;

	place(b, i);
	memcpy(in, b->list.in, sizeof in);
	x->listed = x->codec->list(&x->task, &b->list, &why);
	if (x->listed) {
		assert_true(x->listed == HCT_ERR_UNSUPPORTED ||
			    (x->listed == HCT_ERR_CORRUPT && why && x->error == x->listed));
		assert_true(b->list.split_count == split && b->list.tcq_count == tcq &&
			    b->list.tiles_count == tiles);
	}
	b->tables_of[i] = i;
	b->tables[i].key = i;
	b->tables[i].bytes = x->codec->flat_bytes(x->task.tables);
	b->tables[i].flat = flat = malloc(b->tables[i].bytes);
	x->codec->flatten(x->task.tables, flat);
	b->in = realloc(b->in, b->in_bytes);
	for (unsigned l = 0; l < x->task.layer_count; l++)
		memcpy(b->in + in[l], x->task.layers[l].data,
		       x->task.layers[l].length + HCT_PAYLOAD_PAD);
}

/* What has become of an item. */
static void compare(struct batch *b, uint32_t i, const char *what)
{
	struct item *x = &b->items[i];

	if (x->listed == HCT_ERR_UNSUPPORTED) {
		b->left++;
		return;
	}
	if (b->bad[i] != (x->error && !x->listed))
		fail_msg("%s, item %u: the device says %u, the CPU %s", what, i, b->bad[i],
			 hct_error_string(x->error));
	b->refused += x->error != HCT_OK;
	if (x->error)
		return;
	b->decoded++;
	for (size_t k = 0; k < x->task.length; k++)
		if (b->out[x->out + k] != x->expected[k])
			fail_msg("%s, item %u, %s: byte %zu of %zu is %02x, not %02x", what, i,
				 hct_dtype_name(x->tensor.dtype), k, x->task.length,
				 b->out[x->out + k], x->expected[k]);
}

/* Decodes all that was added, compares, and empties the batch.  shared, multiprocessors: of the
 * device. */
static void run(struct batch *b, size_t shared, unsigned multiprocessors, const char *what)
{
	struct hct_device_batch batch = {
		.list = &b->list, .tables_of = b->tables_of, .tables = b->tables, .bad = b->bad};

	memset(b->bad, 0, sizeof b->bad);
	for (uint32_t i = 0; i < b->count; i++)
		list_item(b, i);
	batch.items = (uint32_t)b->count;
	batch.table_count = b->count;
	batch.in = b->in;
	batch.in_bytes = b->in_bytes;
	batch.out_bytes = b->out_bytes;
	batch.values_bytes = b->values_bytes;
	batch.out = b->out = malloc(b->out_bytes);
	assert_int_equal(device(&batch, shared, multiprocessors), 0);
	for (uint32_t i = 0; i < b->count; i++)
		compare(b, i, what);
	for (uint32_t i = 0; i < b->count; i++) {
		struct item *x = &b->items[i];

		for (unsigned l = 0; l < x->task.layer_count; l++)
			free((void *)x->task.layers[l].data);
		free(x->expected);
		free((void *)b->tables[i].flat);
		if (x->tables)
			x->codec->free_tables(x->tables);
	}
	free(b->out);
	free(b->in);
	hct_flat_list_free(&b->list);
	*b = (struct batch){.refused = b->refused, .decoded = b->decoded, .left = b->left};
}

/* The memory of a block on an H100, and the least there is. */
#define LARGE (227u << 10)
#define SMALL (64u << 10)

/* ---- the tcq codec ---- */

static const hct_dtype dtypes[] = {HCT_DTYPE_BF16,        HCT_DTYPE_F16,        HCT_DTYPE_F32,
				   HCT_DTYPE_F64,         HCT_DTYPE_F8_E4M3,    HCT_DTYPE_F8_E5M2,
				   HCT_DTYPE_F8_E4M3FNUZ, HCT_DTYPE_F8_E5M2FNUZ};

/* Adds the chunk that m describes, with its first `layers` layers, and frees m. */
static void add_made(struct batch *b, struct tcq_made *m, hct_dtype dtype, unsigned layers)
{
	size_t unit = hct_dtype_unit(dtype);
	struct hct_tensor tensor = {.name = "w", .dtype = dtype};
	struct hct_task task = {.tensor = &tensor,
				.offset = m->first * unit,
				.length = m->elements * unit,
				.end = m->elements * unit,
				.layer_count = layers,
				.layers_stored = m->t.layer_count};

	for (unsigned l = 0; l < layers; l++)
		task.layers[l] = (struct hct_payload){m->payload[l], m->length[l]};
	add_with_tables(b, &hct_codec_tcq, m->params, m->params_length, &task);
	tcq_free(m);
}

static void make(struct tcq_made *m, uint64_t first, size_t n)
{
	tcq_make_tables(m);
	tcq_make_chunk(m, first, n);
}

static void test_plain(void **state)
{
	static const size_t sizes[] = {1, 63, 64, 65, 1024, 2048, 2049, 5000};
	static const uint32_t columns[] = {1, 7, 64, 100, 192, 1000};
	struct batch b = {.count = 0};

	(void)state;
	for (unsigned kind = 0; kind < 240; kind++) {
		struct tcq_made m = tcq_model(1, columns[kind % 6], kind);

		tcq_seed = kind;
		m.exceptions = kind % 3 ? kind % 60 : 0;
		m.t.segment_log2 = 10 + kind % 3;
		make(&m, kind % 5 ? tcq_next() % 100000 : 0, sizes[kind / 8 % 8]);
		add_made(&b, &m, dtypes[kind % 8], 1);
		if (b.count == 8)
			run(&b, kind % 16 < 8 ? LARGE : SMALL, 1 + kind % 20, "plain");
	}
	assert_int_equal(b.refused, 0);
	assert_int_equal(b.decoded, 240);
}

/* All numbers of raw bits; steps that go beyond the dtypes. */
static void test_raw(void **state)
{
	static const float steps[] = {0.0123f, 0x1p-100f, 0x1.8f3c2ap9f, 0x1p100f, 0x1.23p-20f};
	struct batch b = {.count = 0};

	(void)state;
	for (unsigned kind = 0; kind < 7 * 8 * 2; kind++) {
		struct tcq_made m = tcq_model(1, 100 + kind % 2 * 28, kind);

		tcq_seed = kind;
		m.t.layers[0].raw_bits = 1 + kind % 7;
		m.t.layers[0].step = steps[kind % 5];
		m.exceptions = kind / 56 * 25;
		make(&m, tcq_below(1000), 1000 + tcq_below(4000));
		add_made(&b, &m, dtypes[kind / 7 % 8], 1);
		if (b.count == 8)
			run(&b, LARGE, 8, "raw");
	}
	assert_int_equal(b.decoded, 7 * 8 * 2);
}

static void test_layers(void **state)
{
	struct batch b = {.count = 0};

	(void)state;
	for (unsigned kind = 0; kind < 96; kind++) {
		unsigned layers = 1 + kind % 4;
		struct tcq_made m = tcq_model(layers, 96, kind);

		tcq_seed = kind;
		m.exceptions = 1 + kind % 200;
		make(&m, 0, 100 + tcq_below(5000));
		add_made(&b, &m, dtypes[kind / 4 % 8], kind % 8 < 4 ? layers : 1 + layers / 2);
		if (b.count == 8)
			run(&b, kind % 16 < 8 ? LARGE : SMALL, 4, "layers");
	}
	assert_int_equal(b.decoded, 96);
}

static void test_tiles(void **state)
{
	struct batch b = {.count = 0};
	unsigned count = 0;

	(void)state;
	for (unsigned kind = 1; kind < 7 * 7 * 3; kind++) {
		unsigned rows = kind % 7, columns = kind / 7 % 7;
		uint32_t width = (uint32_t)((kind / 49 + 1) * 3 % 4 + 1) << columns;
		size_t whole = rows ? (size_t)width << rows : 1u << columns;
		struct tcq_made m = tcq_model(1 + kind % 2, width, kind);

		tcq_seed = kind;
		m.t.tile_rows_log2 = rows;
		m.t.tile_columns_log2 = columns;
		m.exceptions = 40;
		if (kind % 9 == 0) /* sums beyond the largest float */
			m.t.layers[0].step = 0x1p100f;
		make(&m, whole * tcq_below(50),
		     whole * (1 + tcq_below((unsigned)(4000 / whole + 2))));
		add_made(&b, &m, dtypes[kind % 8], 1 + kind % 2);
		count++;
		if (b.count == 12 || kind == 7 * 7 * 3 - 1)
			run(&b, kind % 24 < 12 ? LARGE : SMALL, 8, "tiles");
	}
	assert_int_equal(b.decoded, count);
}

/* Segments of many groups, panels of many tiles, and parts of them. */
static void test_large(void **state)
{
	static const struct {
		unsigned rows, columns;
		uint32_t width;
		size_t n;
	} shapes[] = {{0, 0, 1000, 70000},       {6, 6, 192, 192 * 128}, {0, 6, 4096, 64 * 301},
		      {6, 0, 250, 250 * 64 * 2}, {3, 3, 328, 328 * 64},  {1, 1, 1002, 1002 * 20}};
	struct batch b = {.count = 0};

	(void)state;
	for (unsigned i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		struct tcq_made m = tcq_model(1 + i % 2, shapes[i].width, 3 * i);

		tcq_seed = i;
		m.t.segment_log2 = 13 + i % 5;
		m.t.tile_rows_log2 = shapes[i].rows;
		m.t.tile_columns_log2 = shapes[i].columns;
		m.exceptions = 500;
		make(&m, 0, shapes[i].n);
		add_made(&b, &m, dtypes[i % 3], 1 + i % 2);
	}
	run(&b, LARGE, 2, "large");
	assert_int_equal(b.decoded, sizeof shapes / sizeof *shapes);
}

/* ---- damage ---- */

/* Changes one of the lengths of a payload, whose segments' lengths begin at `entries` and whose
 * first segment at `first`, or bytes anywhere. */
static void spoil(uint8_t *p, size_t length, size_t entries, size_t first)
{
	switch (tcq_below(6)) {
	case 0: /* a length */
		p[tcq_below((unsigned)first)] ^= (uint8_t)(1u << tcq_below(8));
		break;
	case 1: /* bytes move from B to the exceptions, or back */
		hct_store32(p + entries + 4, hct_load32(p + entries + 4) + 3);
		hct_store32(p + entries + 8, hct_load32(p + entries + 8) - 3);
		break;
	case 2: /* a state */
		p[first + tcq_below(128)] ^= (uint8_t)(1 + tcq_below(255));
		break;
	case 3: /* what follows them, mostly the class map */
		p[(first + 128 + tcq_below(8)) % length] ^= (uint8_t)(1 + tcq_below(255));
		break;
	default:
		for (unsigned k = 0; k <= tcq_below(4); k++)
			p[tcq_below((unsigned)length)] ^= (uint8_t)(1 + tcq_below(255));
	}
}

static void test_damaged_tcq(void **state)
{
	struct batch b = {.count = 0};
	unsigned rounds = 400;

	(void)state;
	for (unsigned kind = 0; kind < rounds; kind++) {
		struct tcq_made m = tcq_model(1 + kind % 2, 64 + kind % 3, kind / 3);
		unsigned layer, n = 1 + kind * 37 % 4000;

		tcq_seed = kind;
		m.exceptions = 30;
		make(&m, 0, n);
		layer = tcq_below(m.t.layer_count);
		spoil(m.payload[layer], m.length[layer], 0, 12 * ((n + 1023) / 1024));
		add_made(&b, &m, dtypes[kind / 2 % 8], 1 + kind % 2);
		if (b.count == 8)
			run(&b, kind % 16 < 8 ? LARGE : SMALL, 8, "damaged tcq");
	}
	/* what is left are raw bits and values of exceptions, mostly */
	assert_true(b.refused > rounds * 8 / 10 && b.decoded > rounds / 40);
}

/* ---- the split codec, and what encoders make ---- */

/* Encodes a matrix and adds its chunks of codecs that a device decodes; damage: spoils them. */
static void add_coded(struct batch *b, struct lossy_matrix *m, const struct hct_goal *goal,
		      int damage)
{
	struct hct_encoded c;
	hct_encoder *e;
	hct_plan *p;

	m->tensor.shape = m->shape;
	assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &e), HCT_OK);
	assert_int_equal(hct_plan_create(e, &m->tensor, m->data, goal, &p, NULL), HCT_OK);
	for (uint64_t i = 0; i < hct_plan_chunk_count(p); i++) {
		size_t length = hct_plan_chunk_length(p, i);
		uint64_t at = i * hct_plan_chunk_bytes(p);
		struct hct_task task = {
			.tensor = &m->tensor, .offset = at, .length = length, .end = length};
		const struct hct_codec *codec;

		assert_int_equal(hct_encode_chunk(e, p, i, m->data + at, &c, NULL), HCT_OK);
		codec = hct_codec_find(c.codec);
		if (!codec->list || b->count == MOST_ITEMS)
			continue;
		task.layer_count = task.layers_stored = c.layer_count;
		for (unsigned l = 0; l < c.layer_count; l++)
			task.layers[l] =
				(struct hct_payload){c.layers[l].payload, c.layers[l].length};
		if (damage) {
			size_t segments = (length / hct_dtype_unit(m->tensor.dtype) + 65535) >> 16;

			spoil((uint8_t *)c.layers[0].payload, c.layers[0].length, 8,
			      8 + 12 * segments);
		}
		add_with_tables(b, codec, p->params, p->params_length, &task);
	}
	hct_plan_free(p);
	hct_encoder_free(e);
}

/* Elements that have exceptions, by kinds of numbers of their own in some places. */
static struct lossy_matrix odd_matrix(hct_dtype dtype, uint32_t rows, uint32_t columns)
{
	struct lossy_matrix m = lossy_gaussian(dtype, rows, columns);

	for (size_t i = 0; i < m.tensor.elements; i++) {
		m.values[i] *= (float)ldexp(.02, (int)(i % columns % 5));
		if (lossy_below(200) == 0)
			m.values[i] = (float)ldexp(m.values[i], (int)lossy_below(40) - 20);
	}
	lossy_narrow(&m);
	if (dtype == HCT_DTYPE_F64) /* more digits than a float has */
		for (size_t i = 0; i < m.tensor.elements; i++)
			for (unsigned k = 0; k < 4; k++)
				m.data[8 * i + k] = (uint8_t)lossy_next();
	return m;
}

static void test_split(void **state)
{
	static const uint32_t shapes[][2] = {{300, 301}, {1, 70001}, {70, 64}, {4097, 3}};
	struct batch b = {.count = 0};

	(void)state;
	for (unsigned i = 0; i < 8 * 4; i++) {
		struct lossy_matrix m =
			odd_matrix(dtypes[i / 4], shapes[i % 4][0], shapes[i % 4][1]);

		add_coded(&b, &m, NULL, 0);
		lossy_free(&m);
		if (i % 4 == 3)
			run(&b, LARGE, 1 + i, "split");
	}
	assert_int_equal(b.refused, 0);
	assert_true(b.decoded >= 8 * 3);
}

static void test_damaged_split(void **state)
{
	struct batch b = {.count = 0};

	(void)state;
	for (unsigned i = 0; i < 8 * 24; i++) {
		struct lossy_matrix m = odd_matrix(dtypes[i % 8], 41 + i, 103);

		tcq_seed = i;
		add_coded(&b, &m, NULL, 1);
		lossy_free(&m);
		if (i % 8 == 7)
			run(&b, LARGE, 8, "damaged split");
	}
	assert_true(b.refused > 100 && b.decoded > 10);
}

static void test_coded_with_loss(void **state)
{
	struct batch b = {.count = 0};

	(void)state;
	for (unsigned i = 0; i < 24; i++) {
		struct hct_goal goal = {.relative_squared_error = i % 2 ? .01 : .001,
					.effort = 1 + i % 5,
					.transform = i % 3 ? HCT_TRANSFORM_DCT : HCT_TRANSFORM_NONE,
					.method = HCT_METHOD_TCQ,
					.layers = 1 + i % 3};
		struct lossy_matrix m = odd_matrix(dtypes[i % 8], 128, 192);

		add_coded(&b, &m, &goal, 0);
		lossy_free(&m);
		if (i % 8 == 7)
			run(&b, LARGE, 8, "coded with loss");
	}
	assert_int_equal(b.refused, 0);
	assert_true(b.decoded >= 20);
}

/* ---- golden files ---- */

/* Adds the chunks of a file that a device decodes and whose payloads are whole; runs them. */
static void run_file(struct batch *b, const char *path)
{
	hct_decoder *d;
	hct_reader *r;

	if (hct_reader_open(path, &r, NULL))
		return;
	assert_int_equal(hct_decoder_create(HCT_SIMD_SCALAR, &d), HCT_OK);
	for (uint64_t i = 0; i < hct_reader_chunk_count(r); i++) {
		struct hct_loaded loaded;
		struct hct_task task;
		struct hct_chunk c;
		uint8_t *payload;

		hct_reader_chunk(r, i, &c);
		payload = malloc(hct_loaded_bytes(&c));
		if (!hct_loaded_read(r, d, i, payload, &loaded, NULL) && loaded.codec->list &&
		    !hct_loaded_task(r, d, &loaded, &task, NULL)) {
			task.begin = 0;
			task.end = task.length;
			add(b, loaded.codec, &task);
			run(b, LARGE, 1, path);
		}
		free(payload);
	}
	hct_decoder_free(d);
	hct_reader_close(r);
}

static void test_golden(void **state)
{
	DIR *dir = opendir("tests/golden");
	struct batch b = {.count = 0};
	struct dirent *entry;

	(void)state;
	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		char path[512];

		snprintf(path, sizeof path, "tests/golden/%s", entry->d_name);
		if (strstr(entry->d_name, ".hct"))
			run_file(&b, path);
	}
	closedir(dir);
	assert_true(b.decoded > 120 && b.refused > 4 && b.left > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),           cmocka_unit_test(test_raw),
		cmocka_unit_test(test_layers),          cmocka_unit_test(test_tiles),
		cmocka_unit_test(test_large),           cmocka_unit_test(test_damaged_tcq),
		cmocka_unit_test(test_split),           cmocka_unit_test(test_damaged_split),
		cmocka_unit_test(test_coded_with_loss), cmocka_unit_test(test_golden),
	};
	const char *path = getenv("HCT_TEST_PLUGIN");
	void *plugin = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;

	if (!plugin) {
		fprintf(stderr, "HCT_TEST_PLUGIN names no plug-in: %s\n",
			path ? dlerror() : "unset");
		return 1;
	}
	*(void **)&device = dlsym(plugin, "hct_emulated_decode");
	if (!device) {
		fprintf(stderr, "%s is not one for tests\n", path);
		return 1;
	}
	return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
