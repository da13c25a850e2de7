/* What a device is given: tables and segments without pointers, checked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/bytes.h"
#include "codec/dequant.h"
#include "codec/encoder.h"
#include "codec/flat.h"
#include "codec/narrow.h"
#include "codec/plan.h"
#include "codec/tcq_decode.h"
#include "lossy.h"
#include "tcq_make.h"

/* ---- what both sides share ---- */

static void test_gather(void **state)
{
	uint32_t words[8];
	uint8_t *bytes = (uint8_t *)words;

	(void)state;
	for (unsigned i = 0; i < sizeof words; i++)
		bytes[i] = (uint8_t)(37 * i + 11);
	for (unsigned i = 0; i < 20; i++)
		assert_true(hct_gather64(bytes + i) == hct_load64(bytes + i));
}

static void test_counts(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(hct_ctz64(UINT64_C(5) << i), i);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(hct_clz32(1u << i | 1), 31 - i);
}

/* ---- lists ---- */

static void test_list_grows(void **state)
{
	struct hct_flat_list l = {.in = {7}};

	(void)state;
	for (uint32_t i = 0; i < 1000; i++) {
		hct_flat_add_split(&l)->item = i;
		hct_flat_add_tcq(&l)->item = i;
		hct_flat_add_tiles(&l)->rows = i;
		assert_int_equal(l.tcq[i].elements, 0);
	}
	for (uint32_t i = 0; i < 1000; i++)
		assert_true(l.split[i].item == i && l.tcq[i].item == i && l.tiles[i].rows == i);
	assert_true(l.split_count == 1000 && l.tcq_count == 1000 && l.tiles_count == 1000);
	hct_flat_list_free(&l);
	assert_true(!l.split && !l.tcq_count && !l.in[0]);
}

/* ---- the tcq codec ---- */

/* A chunk with its tables open. */
struct subject {
	struct tcq_made made;
	struct hct_tensor tensor;
	void *tables;
	struct hct_task task;
};

static void subject_open(struct subject *s, hct_dtype dtype, uint64_t first, size_t n)
{
	size_t unit = hct_dtype_unit(dtype);
	const char *why;

	s->tensor = (struct hct_tensor){.name = "w", .dtype = dtype};
	tcq_make_tables(&s->made);
	tcq_make_chunk(&s->made, first, n);
	assert_int_equal(hct_codec_tcq.open_tables(&s->tensor, s->made.params,
						   s->made.params_length, &s->tables, &why),
			 HCT_OK);
	s->task = (struct hct_task){.tensor = &s->tensor,
				    .tables = s->tables,
				    .offset = first * unit,
				    .length = n * unit,
				    .end = n * unit,
				    .layer_count = s->made.t.layer_count,
				    .layers_stored = s->made.t.layer_count};
	for (unsigned l = 0; l < s->made.t.layer_count; l++)
		s->task.layers[l] = (struct hct_payload){s->made.payload[l], s->made.length[l]};
}

static void subject_close(struct subject *s)
{
	hct_codec_tcq.free_tables(s->tables);
	tcq_free(&s->made);
}

/* Tables of a layer, made anew. */
static void check_layer(const struct subject *s, unsigned layer, const uint8_t *flat)
{
	const struct hct_flat_tcq *f = (const void *)flat;
	const struct hct_flat_layer *g = &f->layers[layer];
	const struct hct_tcq_layer *l = &s->made.t.layers[layer];
	size_t wide = sizeof(uint32_t) * 512 * l->column_classes * l->row_classes;
	struct hct_tcq_stage stage;
	struct hct_dequant q;

	assert_int_equal(hct_tcq_stage_init(&stage, l, f->columns, 2), 0);
	hct_dequant_init(&q, l);
	assert_true(g->column_classes == l->column_classes && g->row_classes == l->row_classes);
	assert_true(g->run_log2 == l->run_log2 && g->raw_bits == l->raw_bits);
	assert_true(g->odd == stage.odd << HCT_FLAT_STATE && g->step == l->step);
	assert_memory_equal(g->point, q.point, sizeof g->point);
	assert_true(g->wide_at % 4 == 0 && g->wide_at + wide <= f->bytes);
	for (size_t i = 0; i < wide / sizeof(uint32_t); i++) {
		uint32_t w = stage.wide[i], v = hct_load32(flat + g->wide_at + 4 * i);

		assert_true((v & 255) == (w & 255) && v >> 24 == (w >> 8 & 255));
		assert_int_equal(v >> HCT_FLAT_STATE & 31, w >> 24);
		assert_int_equal(v >> 16 & 63, 32 * (i / 256 % 2) + (w >> 16 & 31));
	}
	assert_int_equal(!g->columns_at, !stage.columns);
	if (g->columns_at) {
		assert_true(g->columns_at + f->columns + HCT_GROUP <= f->bytes);
		assert_memory_equal(flat + g->columns_at, stage.columns, f->columns + HCT_GROUP);
	}
	hct_tcq_stage_free(&stage);
}

static void test_tcq_tables(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 24; kind++) {
		struct subject s = {.made = tcq_model(1 + kind % 4, 96 + kind / 2, kind)};
		size_t bytes;
		uint8_t *flat;

		tcq_seed = kind;
		subject_open(&s, HCT_DTYPE_F16, 0, 100);
		bytes = hct_codec_tcq.flat_bytes(s.tables);
		flat = malloc(bytes);
		hct_codec_tcq.flatten(s.tables, flat);
		assert_int_equal(((struct hct_flat_tcq *)(void *)flat)->bytes, bytes);
		assert_int_equal(((struct hct_flat_tcq *)(void *)flat)->dtype, HCT_DTYPE_F16);
		assert_int_equal(bytes % 16, 0);
		for (unsigned l = 0; l < s.made.t.layer_count; l++)
			check_layer(&s, l, flat);
		free(flat);
		subject_close(&s);
	}
}

/* Segments lie one behind the other in the payload of each layer, and in the output. */
static void test_tcq_list(void **state)
{
	struct subject s = {.made = tcq_model(3, 96, 5)};
	struct hct_flat_list list = {
		.in = {1000, 50000, 90000}, .out = 512, .values = 64, .item = 9};
	size_t n = 96 * 41 + 5, segments = (n + 1023) / 1024, left = n;
	const char *why;
	uint64_t at[3];

	(void)state;
	tcq_seed = 1;
	s.made.exceptions = 20;
	subject_open(&s, HCT_DTYPE_F64, 960 + 7, n);
	s.task.layer_count = 2;
	assert_int_equal(hct_codec_tcq.list(&s.task, &list, &why), HCT_OK);
	assert_true(list.tcq_count == segments && !list.tiles_count && !list.split_count);
	for (unsigned l = 0; l < 2; l++)
		at[l] = list.in[l] + 12 * segments;
	for (size_t i = 0; i < segments; i++) {
		const struct hct_flat_tcq_segment *f = &list.tcq[i];

		for (unsigned l = 0; l < 2; l++) {
			const struct hct_tcq_layer *t = &s.made.t.layers[l];
			const uint8_t *entry = s.made.payload[l] + 12 * i;
			size_t groups = (f->elements + 63) / 64;

			assert_true(f->parts[l].at == at[l]);
			assert_true(f->parts[l].a == hct_load32(entry) &&
				    f->parts[l].b == hct_load32(entry + 4) &&
				    f->parts[l].x == hct_load32(entry + 8));
			at[l] += HCT_TCQ_STATE_BYTES + hct_tcq_map_bytes(t, groups) +
				 f->parts[l].a + f->parts[l].b + f->parts[l].x +
				 8 * groups * t->raw_bits;
		}
		assert_true(f->out == 512 + 8 * 1024 * i && f->item == 9 && f->layers == 2);
		assert_true(f->elements == (left < 1024 ? left : 1024));
		assert_int_equal(f->column, (960 + 7 + 1024 * i) % 96);
		left -= f->elements;
	}
	for (unsigned l = 0; l < 2; l++)
		assert_true(at[l] == list.in[l] + s.made.length[l]);
	/* a part of a chunk is not a device's */
	s.task.end--;
	assert_int_equal(hct_codec_tcq.list(&s.task, &list, &why), HCT_ERR_UNSUPPORTED);
	assert_int_equal(list.tcq_count, segments);
	hct_flat_list_free(&list);
	subject_close(&s);
}

static void test_tcq_tiles(void **state)
{
	static const unsigned shapes[][2] = {{3, 4}, {0, 4}, {5, 0}};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct subject s = {.made = tcq_model(1, 48, i)};
		struct hct_flat_list list = {.out = 256, .values = 1024};
		const struct hct_flat_tiles *t;
		const char *why;

		tcq_seed = i;
		s.made.t.tile_rows_log2 = shapes[i][0];
		s.made.t.tile_columns_log2 = shapes[i][1];
		subject_open(&s, HCT_DTYPE_BF16, 0, 48 * 64);
		assert_int_equal(hct_codec_tcq.list(&s.task, &list, &why), HCT_OK);
		assert_true(list.tcq_count == 3 && list.tiles_count == 1);
		assert_true(list.tcq[2].out == 1024 + 2 * 4096);
		t = &list.tiles[0];
		assert_true(t->values == 1024 && t->out == 256 && t->dtype == HCT_DTYPE_BF16);
		assert_true(t->tile_rows_log2 == shapes[i][0] &&
			    t->tile_columns_log2 == shapes[i][1]);
		/* with tiles of one row, rows do not matter */
		assert_int_equal(t->columns, shapes[i][0] ? 48 : 48 * 64);
		assert_int_equal(t->rows, shapes[i][0] ? 64 : 1);
		hct_flat_list_free(&list);
		subject_close(&s);
	}
}

/* A payload of any length and with any lengths of segments: what is listed lies within it, and
 * nothing is when it is refused, as the CPU refuses it. */
static void test_tcq_hostile(void **state)
{
	struct subject s = {.made = tcq_model(2, 48, 1)};
	struct hct_scratch scratch = {.simd = HCT_SIMD_SCALAR};
	size_t whole;
	uint8_t *out = malloc(3000 * 2);

	(void)state;
	tcq_seed = 2;
	subject_open(&s, HCT_DTYPE_BF16, 0, 3000);
	s.task.scratch = &scratch;
	whole = s.made.length[1];
	for (size_t n = 0; n <= whole + 1 + 36 * 8; n++) {
		struct hct_flat_list list = {.split_count = 0};
		unsigned bit = n > whole + 1 ? (unsigned)(n - whole - 2) : 0;
		uint8_t *entry = s.made.payload[1] + bit / 8;
		const char *why = NULL, *same = NULL;
		hct_error e;

		s.task.layers[1].length = n > whole + 1 ? whole : n;
		if (n > whole + 1)
			*entry ^= (uint8_t)(1u << bit % 8);
		e = hct_codec_tcq.list(&s.task, &list, &why);
		assert_int_equal(e, n == whole ? HCT_OK : HCT_ERR_CORRUPT);
		assert_int_equal(list.tcq_count, e ? 0 : 3);
		if (e) {
			assert_int_equal(hct_codec_tcq.decode(&s.task, out, &same), e);
			assert_true(n > whole || !strcmp(why, same));
		}
		if (n > whole + 1)
			*entry ^= (uint8_t)(1u << bit % 8);
		hct_flat_list_free(&list);
	}
	s.task.layers[1].length = whole;
	s.task.layers_stored = 3;
	{
		struct hct_flat_list list = {.split_count = 0};
		const char *why;

		assert_int_equal(hct_codec_tcq.list(&s.task, &list, &why), HCT_ERR_CORRUPT);
		assert_string_equal(why, "layers that its tables do not have");
	}
	free(out);
	free(scratch.bytes);
	subject_close(&s);
}

/* ---- the split codec ---- */

/* One encoded chunk of noise, with its tables. */
struct coded {
	struct lossy_matrix m;
	hct_encoder *e;
	hct_plan *p;
	struct hct_encoded c;
	void *tables;
	uint8_t *payload;
	struct hct_task task;
};

static void coded_open(struct coded *x, hct_dtype dtype, uint32_t rows, uint32_t columns)
{
	const char *why;
	size_t length;

	x->m = lossy_gaussian(dtype, rows, columns);
	x->m.tensor.shape = x->m.shape;
	assert_int_equal(hct_encoder_create(HCT_SIMD_SCALAR, &x->e), HCT_OK);
	assert_int_equal(hct_plan_create(x->e, &x->m.tensor, x->m.data, NULL, &x->p, NULL), HCT_OK);
	assert_int_equal(hct_encode_chunk(x->e, x->p, 0, x->m.data, &x->c, NULL), HCT_OK);
	assert_int_equal(x->c.codec, HCT_CODEC_SPLIT);
	assert_int_equal(hct_codec_split.open_tables(&x->m.tensor, x->p->params,
						     x->p->params_length, &x->tables, &why),
			 HCT_OK);
	length = x->c.layers[0].length;
	x->payload = calloc(1, length + HCT_PAYLOAD_PAD);
	memcpy(x->payload, x->c.layers[0].payload, length);
	x->task = (struct hct_task){.tensor = &x->m.tensor,
				    .tables = x->tables,
				    .length = hct_plan_chunk_length(x->p, 0),
				    .end = hct_plan_chunk_length(x->p, 0),
				    .layers = {{x->payload, length}},
				    .layer_count = 1,
				    .layers_stored = 1};
}

static void coded_close(struct coded *x)
{
	free(x->payload);
	hct_codec_split.free_tables(x->tables);
	hct_plan_free(x->p);
	hct_encoder_free(x->e);
	lossy_free(&x->m);
}

static void test_split_tables(void **state)
{
	struct coded x;
	struct hct_split_tables t;
	struct hct_flat_split *f;
	const uint16_t *shifts;
	const char *why;

	(void)state;
	coded_open(&x, HCT_DTYPE_BF16, 64, 515);
	f = malloc(hct_codec_split.flat_bytes(x.tables));
	hct_codec_split.flatten(x.tables, f);
	assert_int_equal(hct_split_tables_unpack(hct_layout_find(HCT_DTYPE_BF16), x.p->params,
						 x.p->params_length, &t, &why),
			 HCT_OK);
	assert_int_equal(f->bytes, hct_codec_split.flat_bytes(x.tables));
	assert_true(f->class_count == t.class_count && f->run_log2 == t.run_log2);
	assert_true(f->unit == 2 && f->exponent_bits == 8);
	assert_int_equal(f->period, t.period ? t.period : 1);
	assert_memory_equal(f->rare, t.rare, sizeof f->rare);
	for (unsigned k = 0; k < t.class_count; k++) {
		struct hct_rans_class c;

		hct_rans_class_init(&c, t.freq[k]);
		for (unsigned i = 0; i < 256; i++) {
			uint32_t w = c.wide[i], s = w >> 16;
			uint32_t v = hct_load32((uint8_t *)f + f->wide_at + 4 * (256 * k + i));

			assert_true((v & 255) == (w & 255) && v >> 24 == (w >> 8 & 255));
			assert_int_equal(v >> 8 & 0xffff, t.exponents[s >> 1] << 7 | (s & 1) << 6);
		}
	}
	shifts = (const uint16_t *)(void *)((uint8_t *)f + f->shifts_at);
	for (uint32_t i = 0; i < f->period + HCT_GROUP; i++) {
		int d = t.period ? t.shifts[i % t.period] : 0;

		assert_int_equal(shifts[i], (unsigned)(d & 255) << 7);
	}
	free(f);
	coded_close(&x);
}

static void test_split_list(void **state)
{
	struct coded x;
	struct hct_flat_list list = {.in = {400}, .out = 1 << 20, .item = 3};
	const char *why;
	size_t elements, tail, segments, at;

	(void)state;
	coded_open(&x, HCT_DTYPE_F32, 700, 301);
	elements = x.task.length / 4;
	segments = (elements + 65535) / 65536;
	tail = x.task.layers[0].length - 2 * elements;
	assert_int_equal(hct_codec_split.list(&x.task, &list, &why), HCT_OK);
	assert_int_equal(list.split_count, segments);
	at = 400 + 8 + 12 * segments;
	for (size_t i = 0; i < segments; i++) {
		const struct hct_flat_split_segment *f = &list.split[i];
		size_t left = elements - 65536 * i;

		assert_int_equal(f->part.at, at);
		assert_true(f->part.a == hct_load32(x.payload + 8 + 12 * i) &&
			    f->part.b == hct_load32(x.payload + 12 + 12 * i) &&
			    f->part.x == hct_load32(x.payload + 16 + 12 * i));
		assert_int_equal(f->elements, left < 65536 ? left : 65536);
		assert_int_equal(f->tail, 400 + tail + 2 * 65536 * i);
		assert_int_equal(f->out, (1 << 20) + 4 * 65536 * i);
		assert_int_equal(f->item, 3);
		at = i + 1 < segments ? list.split[i + 1].part.at : 0;
	}
	/* compressed tails, and parts, are the CPU's */
	x.payload[0] = HCT_TAIL_ZSTD;
	assert_int_equal(hct_codec_split.list(&x.task, &list, &why), HCT_ERR_UNSUPPORTED);
	x.payload[0] = 2;
	assert_int_equal(hct_codec_split.list(&x.task, &list, &why), HCT_ERR_CORRUPT);
	assert_string_equal(why, "an unknown encoding of the tail");
	x.payload[0] = HCT_TAIL_STORED;
	x.task.begin = 4;
	assert_int_equal(hct_codec_split.list(&x.task, &list, &why), HCT_ERR_UNSUPPORTED);
	assert_int_equal(list.split_count, segments);
	hct_flat_list_free(&list);
	coded_close(&x);
}

static void test_split_hostile(void **state)
{
	struct hct_scratch scratch = {.simd = HCT_SIMD_SCALAR};
	struct coded x;
	uint8_t *out;
	size_t whole;

	(void)state;
	coded_open(&x, HCT_DTYPE_BF16, 20, 301);
	x.task.scratch = &scratch;
	whole = x.task.layers[0].length;
	out = malloc(x.task.length);
	for (size_t n = 0; n <= whole + 1 + 16 * 8; n++) {
		struct hct_flat_list list = {.split_count = 0};
		/* the length of the tail, and those of the segment */
		unsigned bit = n > whole + 1 ? 32 + (unsigned)(n - whole - 2) : 0;
		const char *why = NULL, *same = NULL;
		hct_error e;

		x.task.layers[0].length = n > whole + 1 ? whole : n;
		if (bit)
			x.payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
		e = hct_codec_split.list(&x.task, &list, &why);
		assert_int_equal(e, n == whole ? HCT_OK : HCT_ERR_CORRUPT);
		assert_int_equal(list.split_count, e ? 0 : 1);
		if (e) {
			assert_int_equal(hct_codec_split.decode(&x.task, out, &same), e);
			assert_string_equal(why, same);
		}
		if (bit)
			x.payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
		hct_flat_list_free(&list);
	}
	free(out);
	free(scratch.bytes);
	coded_close(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gather),      cmocka_unit_test(test_counts),
		cmocka_unit_test(test_list_grows),  cmocka_unit_test(test_tcq_tables),
		cmocka_unit_test(test_tcq_list),    cmocka_unit_test(test_tcq_tiles),
		cmocka_unit_test(test_tcq_hostile), cmocka_unit_test(test_split_tables),
		cmocka_unit_test(test_split_list),  cmocka_unit_test(test_split_hostile),
	};

	return cmocka_run_group_tests_name("flat", tests, NULL, NULL);
}
