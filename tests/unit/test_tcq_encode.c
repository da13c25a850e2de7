/* Coding with given tables: what a decoder makes of it, and how long it can get. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/dequant.h"
#include "codec/idct.h"
#include "codec/tcq_encode.h"
#include "codec/tcq_exceptions.h"
#include "tcq_make.h"

#define CANARY 64

static double gaussian(void)
{
	double sum = -6;

	for (unsigned i = 0; i < 12; i++)
		sum += (tcq_next() + .5) / 2147483648.0;
	return sum;
}

/* Tables that tcq_make.h makes, but for this: an even and an odd symbol have frequencies, as the
 * search needs where there are no raw bits. */
static struct tcq_made make_tables(unsigned layers, uint32_t columns, unsigned kind, float step)
{
	struct tcq_made m = tcq_model(layers, columns, kind);

	for (unsigned i = 0; i < layers; i++)
		m.t.layers[i].step = ldexpf(step, -2 * (int)i);
	tcq_make_tables(&m);
	for (unsigned i = 0; i < layers; i++)
		for (unsigned k = 0; k < m.t.layers[i].row_classes; k++)
			for (unsigned q = 0; q < 2 * m.t.layers[i].column_classes; q++) {
				uint8_t *f = m.t.layers[i].freq[k][q / 2][q % 2];

				for (unsigned s = 15; s < 17; s++)
					for (unsigned t = 0; !f[s]; t++)
						if (f[t] > 1) {
							f[t]--;
							f[s]++;
						}
			}
	hct_tcq_tables_pack(&m.t, m.params);
	return m;
}

/* Entropy coding ------------------------------------------------------------------------- */

/* The codes of a segment as a decoder finds them, by the tables of tcq_make.h. */
static void expect_codes(const struct tcq_slots *slots, unsigned tables,
			 const struct hct_viterbi_segment *s, const uint8_t *p, const uint8_t *end,
			 const uint16_t start[HCT_LANES], unsigned sub)
{
	uint16_t x[HCT_LANES];

	memcpy(x, start, sizeof x);
	for (size_t g = 0; g < s->groups; g++)
		for (unsigned lane = 0; lane < HCT_LANES; lane++) {
			unsigned code = s->codes[g * HCT_GROUP + 2 * lane + sub];
			const struct tcq_slots *t =
				&slots[s->map[g >> s->run_log2] * tables + (code >> 5)];
			unsigned slot = x[lane] & 255, symbol = t->symbol[slot], rank = 0;

			assert_true(x[lane] >= 256);
			assert_int_equal(symbol, code & 31);
			while (t->slot[symbol][rank] != slot)
				rank++;
			x[lane] = (uint16_t)(t->freq[symbol] * (x[lane] >> 8) + rank);
			if (x[lane] < 256) {
				assert_true(p < end);
				x[lane] = (uint16_t)(x[lane] << 8 | *p++);
			}
		}
	assert_ptr_equal(p, end);
	for (unsigned lane = 0; lane < HCT_LANES; lane++)
		assert_int_equal(x[lane], 256);
}

static void entropy_variants_agree(void **state)
{
	static uint8_t codes[40 * HCT_GROUP], map[40], bytes[2][2][40 * 32 + 64];

	(void)state;
	tcq_seed = 1;
	for (unsigned kind = 0; kind < 90; kind++) {
		struct tcq_made m = make_tables(1, 100, kind, 1);
		const struct hct_tcq_layer *l = &m.t.layers[0];
		unsigned tables = 2 * l->column_classes;
		struct hct_tcq_layer_encoder *e = hct_tcq_layer_encoder_create(&m.t, 0, .3f);
		struct tcq_slots *slots = malloc(tables * l->row_classes * sizeof *slots);
		struct hct_viterbi_segment s = {.groups = 1 + kind % 40,
						.map = map,
						.run_log2 = l->run_log2,
						.codes = codes};
		uint16_t states[2][2][HCT_LANES];
		uint8_t *begin[2][2];

		assert_non_null(e);
		for (unsigned k = 0; k < l->row_classes; k++)
			for (unsigned t = 0; t < tables; t++)
				tcq_slots_init(&slots[k * tables + t], l->freq[k][t / 2][t % 2]);
		for (unsigned r = 0; r < 40; r++)
			map[r] = (uint8_t)tcq_below(l->row_classes);
		for (size_t i = 0; i < s.groups * HCT_GROUP; i++) {
			unsigned t = tcq_below(tables), symbol;
			const uint8_t *f = l->freq[map[i / HCT_GROUP >> l->run_log2]][t / 2][t % 2];

			do
				symbol = tcq_below(HCT_TCQ_SYMBOLS);
			while (!f[symbol]);
			codes[i] = (uint8_t)(t << 5 | symbol);
		}
		for (unsigned v = 0; v < 2; v++) {
			uint8_t *const end[2] = {bytes[v][0] + sizeof bytes[v][0],
						 bytes[v][1] + sizeof bytes[v][1]};

			if (v && !hct_simd_supported(HCT_SIMD_AVX512))
				continue;
			hct_tcq_entropy_find(v ? HCT_SIMD_AVX512 : HCT_SIMD_SCALAR)(
				e->coders, &s, end, begin[v], states[v]);
			for (unsigned sub = 0; sub < 2; sub++) {
				assert_true(end[sub] - begin[v][sub] <= (long)s.groups * 32);
				expect_codes(slots, tables, &s, begin[v][sub], end[sub],
					     states[v][sub], sub);
			}
			assert_memory_equal(states[v], states[0], sizeof states[0]);
		}
		free(slots);
		hct_tcq_layer_encoder_free(e);
		tcq_free(&m);
	}
}

/* Payloads ------------------------------------------------------------------------------- */

/* A chunk as it is coded, layer by layer. */
struct subject {
	struct tcq_made m; /* tables and, once coded, payloads */
	float *values;     /* whole groups; in the end what all layers have left */
	float *sum;        /* what a decoder finds, before any transform */
	struct hct_tcq_layer_encoder *encoder;
	uint8_t *scratch;
};

static size_t whole(size_t n)
{
	return (n + HCT_GROUP - 1) / HCT_GROUP * HCT_GROUP;
}

/* What the search finds in one segment, by itself. */
static void find_segment(const struct subject *u, unsigned layer, hct_simd simd, const float *x,
			 size_t n, uint64_t first, float *found)
{
	const struct hct_tcq_layer *l = &u->m.t.layers[layer];
	size_t groups = whole(n) / HCT_GROUP, room = whole(n);
	struct hct_viterbi_segment s = {.x = x,
					.groups = groups,
					.column_classes = u->encoder->column_classes,
					.column = (uint32_t)(first % u->m.t.columns),
					.period = u->m.t.columns,
					.map = malloc(groups),
					.run_log2 = l->run_log2,
					.choose = 1,
					.codes = malloc(room),
					.planes = malloc(groups * 8 * HCT_TCQ_MAX_RAW),
					.exceptions = malloc(room * sizeof *s.exceptions)};
	void *scratch = aligned_alloc(64, (hct_viterbi_scratch(groups) + 63) / 64 * 64);

	hct_viterbi_find(simd)(&u->encoder->search, &s, scratch);
	hct_tcq_reconstruct(&u->encoder->dequant, hct_dequant_find(simd), &s, found);
	free(s.map);
	free(s.codes);
	free(s.planes);
	free(s.exceptions);
	free(scratch);
}

/* Codes all layers of what lies in values, and checks what is left and that the room suffices. */
static void code(struct subject *u, hct_simd simd, size_t n, uint64_t first)
{
	struct hct_tcq_tables *t = &u->m.t;
	size_t segment = (size_t)1 << t->segment_log2;
	float *found = malloc(whole(n) * sizeof *found);
	struct hct_searcher searcher = {.simd = simd};

	u->m.elements = n;
	u->m.first = first;
	u->sum = calloc(whole(n), sizeof *u->sum);
	u->scratch = aligned_alloc(64, (hct_tcq_scratch(t) + 63) / 64 * 64);
	for (unsigned l = 0; l < t->layer_count; l++) {
		size_t room = hct_tcq_payload_bound(t, &t->layers[l], n);
		uint8_t *out = malloc(room + CANARY + HCT_PAYLOAD_PAD);

		u->encoder = hct_tcq_layer_encoder_create(t, l, .35f);
		assert_non_null(u->encoder);
		for (size_t i = 0; i < n; i += segment)
			find_segment(u, l, simd, u->values + i, n - i < segment ? n - i : segment,
				     first + i, found + i);
		for (size_t i = 0; i < whole(n); i++)
			found[i] = u->values[i] - found[i];
		memset(out + room, 0xa5, CANARY);
		u->m.length[l] = hct_tcq_encode_layer(t, l, u->encoder, &searcher, u->values, n,
						      first, 1, u->scratch, out);
		assert_true(u->m.length[l] <= room);
		for (unsigned i = 0; i < CANARY; i++)
			assert_int_equal(out[room + i], 0xa5);
		assert_memory_equal(found, u->values, n * sizeof *found);
		u->m.payload[l] = out;
		hct_tcq_layer_encoder_free(u->encoder);
	}
	free(u->scratch);
	free(found);
}

/* Decodes the first layers; out: elements. */
static void decode(const struct subject *u, hct_dtype dtype, unsigned layers, uint8_t *out)
{
	struct hct_tensor tensor = {.name = "w", .dtype = dtype};
	struct hct_scratch scratch = {.simd = HCT_SIMD_SCALAR};
	size_t unit = hct_dtype_unit(dtype);
	struct hct_task task = {.tensor = &tensor,
				.offset = u->m.first * unit,
				.length = u->m.elements * unit,
				.end = u->m.elements * unit,
				.layer_count = layers,
				.scratch = &scratch};
	const char *why = "";
	void *tables;

	assert_int_equal(
		hct_codec_tcq.open_tables(&tensor, u->m.params, u->m.params_length, &tables, &why),
		HCT_OK);
	task.tables = tables;
	for (unsigned l = 0; l < layers; l++)
		task.layers[l] = (struct hct_payload){u->m.payload[l], u->m.length[l]};
	if (hct_codec_tcq.decode(&task, out, &why))
		fail_msg("%s", why);
	hct_codec_tcq.free_tables(tables);
	free(scratch.bytes);
}

static void subject_free(struct subject *u)
{
	tcq_free(&u->m);
	free(u->values);
	free(u->sum);
}

/* The decoder's values are those that the encoder subtracts, layer by layer, bit for bit. */
static void decoder_finds_what_encoder_meant(void **state)
{
	static const hct_dtype dtypes[] = {
		HCT_DTYPE_F32,     HCT_DTYPE_BF16,    HCT_DTYPE_F16,         HCT_DTYPE_F64,
		HCT_DTYPE_F8_E4M3, HCT_DTYPE_F8_E5M2, HCT_DTYPE_F8_E4M3FNUZ, HCT_DTYPE_F8_E5M2FNUZ};

	(void)state;
	tcq_seed = 2;
	for (unsigned kind = 0; kind < 96; kind++) {
		unsigned layers = 1 + kind % 4;
		hct_simd simd = HCT_SIMD_SCALAR + kind % 3;
		struct subject u = {.m = make_tables(layers, kind % 5 ? 1 + tcq_below(200) : 2000,
						     kind, .125f)};
		size_t n = 1 + tcq_below(kind % 6 ? 5000 : 100);
		uint64_t first = kind % 3 ? tcq_next() : (uint64_t)1 << 40 | tcq_next();
		hct_dtype dtype = dtypes[kind / 4 % 8];
		uint8_t *out = malloc(n * 8), *expected = malloc(n * 8);
		float *x, *sum = calloc(whole(n), sizeof *sum);

		simd = hct_simd_supported(simd) ? simd : HCT_SIMD_SCALAR;
		u.values = malloc(whole(n) * sizeof *u.values);
		x = malloc(whole(n) * sizeof *x);
		for (size_t i = 0; i < whole(n); i++)
			x[i] = u.values[i] = i < n ? (float)gaussian() : 0;
		code(&u, simd, n, first);
		decode(&u, HCT_DTYPE_F32, layers, out);
		for (size_t i = 0; i < n; i++) { /* nothing of the last layer's error is large */
			float v;

			memcpy(&v, out + 4 * i, 4);
			assert_true(fabsf(v - x[i]) < 4.1f * u.m.t.layers[layers - 1].step + 1e-5f);
			assert_true(fabsf(v + u.values[i] - x[i]) < 1e-5f);
		}
		for (unsigned l = 1; l <= layers; l++) {
			decode(&u, HCT_DTYPE_F32, l, (uint8_t *)sum);
			decode(&u, dtype, l, out);
			hct_dequant_scalar.narrow[dtype](sum, n, expected);
			assert_memory_equal(out, expected, n * hct_dtype_unit(dtype));
		}
		free(sum);
		free(x);
		free(out);
		free(expected);
		subject_free(&u);
	}
}

/* Values that no symbol reaches, from a step or so up to the largest that can be written, at all
 * places that matter to the gaps. */
static void exceptions_come_back(void **state)
{
	(void)state;
	tcq_seed = 3;
	for (unsigned kind = 0; kind < 60; kind++) {
		struct subject u = {.m = make_tables(1, 1 + kind, kind, .5f)};
		size_t n = 3000, step = 1 + tcq_below(kind % 3 ? 900 : 30);
		float most = kind % 4 ? ldexpf(1, (int)(kind % 24)) : HCT_TCQ_MAX_EXCEPTION - 8192;
		float *out;

		u.values = calloc(whole(n), sizeof *u.values);
		out = malloc(n * sizeof *out);
		for (size_t i = 0; i < n; i++)
			u.values[i] = .3f * (float)gaussian();
		for (size_t i = kind % 2 ? 0 : tcq_below(64); i < n; i += step)
			u.values[i] = (i % 3 ? -.5f : .5f) * most * (i % 5 ? 1 : .01f);
		u.values[n - 1] = u.values[1023] = u.values[1024] = -.25f * most;
		memcpy(out, u.values, n * sizeof *out);
		code(&u, HCT_SIMD_SCALAR, n, kind);
		decode(&u, HCT_DTYPE_F32, 1, (uint8_t *)u.values);
		for (size_t i = 0; i < n; i++)
			assert_true(fabsf(u.values[i] - out[i]) <= 3.1f + fabsf(out[i]) * 1e-6f);
		for (size_t i = 0; i < n; i += step) /* and those that are large, to a step */
			if (fabsf(out[i]) > ldexpf(64, (int)u.m.t.layers[0].raw_bits))
				assert_true(fabsf(u.values[i] - out[i]) <=
					    .2501f + fabsf(out[i]) * 1e-6f);
		free(out);
		subject_free(&u);
	}
}

/* One magnitude at each limit of the codes' lengths, among many that are as small as can be. */
static void magnitudes_at_their_limits(void **state)
{
	(void)state;
	for (int top = 3; top < 1 << 23; top = top * 2 + 1)
		for (int e = top - 3; e <= top + 3; e++) {
			struct subject u = {.m = make_tables(1, 1, 0, 1)};
			struct hct_tcq_layer *l = &u.m.t.layers[0];
			float out[512];

			memset(l->offset, 0, sizeof l->offset);
			for (unsigned k = 0; k < l->row_classes; k++)
				for (unsigned p = 0; p < 2; p++) {
					memset(l->freq[k][0][p], 0, HCT_TCQ_SYMBOLS);
					memset(l->freq[k][0][p] + 15, 128, 2);
				}
			hct_tcq_tables_pack(&u.m.t, u.m.params);
			u.values = malloc(512 * sizeof *u.values);
			for (int i = 0; i < 512; i++)
				u.values[i] = i == 300 ? (float)e : 4.5f;
			code(&u, HCT_SIMD_SCALAR, 512, 0);
			decode(&u, HCT_DTYPE_F32, 1, (uint8_t *)out);
			for (int i = 0; i < 512; i++)
				assert_true(fabsf(out[i] - (i == 300 ? (float)e : 4.5f)) <= 4);
			assert_true(e < 10 || fabsf(out[300] - (float)e) <= .51f);
			subject_free(&u);
		}
}

/* Values beyond what an exception can say become the nearest that it can. */
static void beyond_the_largest_exception(void **state)
{
	struct subject u = {.m = make_tables(1, 10, 0, 1)};
	float out[128];

	(void)state;
	u.values = calloc(128, sizeof *u.values);
	u.values[5] = 1e30f;
	u.values[70] = -INFINITY;
	u.values[71] = 3e7f;
	code(&u, HCT_SIMD_AUTO == hct_simd_best() ? HCT_SIMD_SCALAR : hct_simd_best(), 128, 0);
	decode(&u, HCT_DTYPE_F32, 1, (uint8_t *)out);
	assert_true(fabsf(out[5] - HCT_TCQ_MAX_EXCEPTION) < 40);
	assert_true(fabsf(out[70] + HCT_TCQ_MAX_EXCEPTION) < 40);
	assert_true(fabsf(out[71] - HCT_TCQ_MAX_EXCEPTION) < 40);
	assert_true(fabsf(out[72]) < 2);
	subject_free(&u);
}

/* The bound holds for the longest of everything, and the longest code of an exception is what
 * FORMAT.md has: 24 + 17 for the gap, a sign, 9 + 8 + 15 for the magnitude. */
static void payloads_stay_within_their_bound(void **state)
{
	(void)state;
	for (unsigned raw = 0; raw <= HCT_TCQ_MAX_RAW; raw++)
		for (size_t n = 1; n < 400000; n = n * 3 + 1) {
			struct hct_tcq_tables t = {.layer_count = 1, .segment_log2 = 10 + raw};
			struct hct_tcq_layer l = {.row_classes = 16, .raw_bits = raw};
			size_t segment = (size_t)1 << t.segment_log2, longest = 0;

			for (size_t i = 0; i < n; i += segment) {
				size_t m = n - i < segment ? n - i : segment;
				size_t groups = (m + 63) / 64;

				longest += HCT_TCQ_SEGMENT_BYTES + HCT_TCQ_STATE_BYTES +
					   (groups * 4 + 7) / 8 + groups * 64 +
					   HCT_TCQ_EXCEPTION_HEAD +
					   hct_bits_bytes(m * (24 + 17 + 1 + 9 + 8 + 15)) +
					   groups * 8 * raw;
			}
			assert_true(hct_tcq_payload_bound(&t, &l, n) >= longest + 8);
		}
}

/* Nothing but exceptions, of symbols as rare as can be. */
static void nothing_but_exceptions(void **state)
{
	(void)state;
	tcq_seed = 4;
	for (unsigned kind = 0; kind < 16; kind++) {
		struct subject u = {.m = make_tables(1, 1, kind % 8, 1)};
		struct hct_tcq_layer *l = &u.m.t.layers[0];
		size_t n = 1 + tcq_below(4000);
		float *x;

		for (unsigned k = 0; k < l->row_classes; k++)
			for (unsigned q = 0; q < 2 * l->column_classes; q++) {
				memset(l->freq[k][q / 2][q % 2], 0, HCT_TCQ_SYMBOLS);
				l->freq[k][q / 2][q % 2][0] = 255;
				l->freq[k][q / 2][q % 2][31] = 1;
			}
		hct_tcq_tables_pack(&u.m.t, u.m.params);
		u.values = malloc(whole(n) * sizeof *u.values);
		x = malloc(n * sizeof *x);
		for (size_t i = 0; i < whole(n); i++)
			u.values[i] = (float)(1 + tcq_below(3)) * (i % 2 ? 5e6f : -5e6f);
		memcpy(x, u.values, n * sizeof *x);
		code(&u, HCT_SIMD_SCALAR, n, 0);
		decode(&u, HCT_DTYPE_F32, 1, (uint8_t *)u.values);
		for (size_t i = 0; i < n; i++)
			assert_true(fabsf(u.values[i] - x[i]) < 2);
		free(x);
		subject_free(&u);
	}
}

/* Transforms ----------------------------------------------------------------------------- */

static void transformed_values(void **state)
{
	static const uint8_t tiles[][2] = {{0, 6}, {6, 0}, {3, 3}, {1, 2}, {6, 6}, {0, 1}, {5, 0}};
	hct_dct *dct;

	(void)state;
	tcq_seed = 5;
	assert_int_equal(hct_dct_create(HCT_SIMD_SCALAR, &dct), HCT_OK);
	for (unsigned i = 0; i < sizeof tiles / sizeof *tiles; i++) {
		unsigned rows = 1u << tiles[i][0], columns = 1u << tiles[i][1];
		size_t n = 128 * 128;
		double factor = hct_idct_factor(rows, columns), sum = 0;
		struct subject u = {.m = make_tables(1, 128, 6, 0)};
		struct hct_tcq_layer *l = &u.m.t.layers[0];
		float *x = malloc(n * sizeof *x), *out = malloc(n * sizeof *out);

		u.m.t.tile_rows_log2 = tiles[i][0];
		u.m.t.tile_columns_log2 = tiles[i][1];
		l->step = .02f * (float)factor;
		l->raw_bits = 5;
		memset(l->offset, 0, sizeof l->offset);
		for (unsigned k = 0; k < l->row_classes; k++)
			for (unsigned q = 0; q < 2 * l->column_classes; q++)
				memset(l->freq[k][q / 2][q % 2], 8, HCT_TCQ_SYMBOLS);
		free(u.m.params);
		u.m.params_length = hct_tcq_tables_length(&u.m.t);
		u.m.params = malloc(u.m.params_length);
		hct_tcq_tables_pack(&u.m.t, u.m.params);
		u.values = malloc(n * sizeof *u.values);
		for (size_t j = 0; j < n; j++)
			x[j] = (float)gaussian();
		assert_int_equal(
			hct_tcq_values(&u.m.t, dct, HCT_DTYPE_F32, (uint8_t *)x, n, u.values),
			HCT_OK);
		code(&u, HCT_SIMD_SCALAR, n, 256);
		decode(&u, HCT_DTYPE_F32, 1, (uint8_t *)out);
		for (size_t j = 0; j < n; j++)
			sum += ((double)out[j] - x[j]) * ((double)out[j] - x[j]);
		sum /= (double)n * .02 * .02;
		assert_true(sum > .2 && sum < .35);
		free(x);
		free(out);
		subject_free(&u);
	}
	hct_dct_free(dct);
}

/* What fills up the last group is zero, whatever was there. */
static void values_of_a_last_group(void **state)
{
	struct hct_tcq_tables t = {.layer_count = 1, .columns = 70};
	uint8_t data[140];
	float values[128];

	(void)state;
	for (unsigned i = 0; i < 70; i++)
		memcpy(data + 2 * i, "\x80\x3f", 2);
	memset(values, 0xff, sizeof values);
	assert_int_equal(hct_tcq_values(&t, NULL, HCT_DTYPE_BF16, data, 70, values), HCT_OK);
	for (unsigned i = 0; i < 128; i++)
		assert_true(values[i] == (i < 70 ? 1 : 0));
}

static void columns_wrap(void **state)
{
	(void)state;
	tcq_seed = 6;
	for (unsigned kind = 0; kind < 27; kind++) {
		uint32_t columns = 1 + tcq_below(kind % 2 ? 300 : 70);
		struct tcq_made m = make_tables(1, columns, kind, 1);
		uint8_t *out = malloc(columns + HCT_GROUP);

		hct_tcq_spread_columns(&m.t, &m.t.layers[0], out);
		for (uint32_t c = 0; c < columns + HCT_GROUP; c++)
			assert_int_equal(out[c], hct_tcq_column_class(&m.t.layers[0], c % columns));
		free(out);
		tcq_free(&m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entropy_variants_agree),
		cmocka_unit_test(decoder_finds_what_encoder_meant),
		cmocka_unit_test(exceptions_come_back),
		cmocka_unit_test(magnitudes_at_their_limits),
		cmocka_unit_test(beyond_the_largest_exception),
		cmocka_unit_test(payloads_stay_within_their_bound),
		cmocka_unit_test(nothing_but_exceptions),
		cmocka_unit_test(transformed_values),
		cmocka_unit_test(values_of_a_last_group),
		cmocka_unit_test(columns_wrap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
