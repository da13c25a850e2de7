/* The lowrank codec: tables, the order of sums, chunks through every variant, whole, in parts and
 * damaged; and when the encoder takes it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/lowrank.h"
#include "lossy.h"

/* ---- tables ---- */

static int refuses(const uint8_t *params, size_t length)
{
	uint8_t *copy = malloc(length ? length : 1); /* of just that size */
	struct hct_lowrank_tables t;
	const char *why = NULL;
	hct_error e;

	memcpy(copy, params, length);
	e = hct_lowrank_tables_unpack(copy, length, &t, &why);
	free(copy);
	assert_true(e == HCT_OK || (e == HCT_ERR_CORRUPT && why));
	return e != HCT_OK;
}

static void store_float(uint8_t *p, float v)
{
	memcpy(p, &v, sizeof v);
}

static void test_tables(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
	} bad[] = {{0, 0},          {0, 8},          {0, 1025},       {0, 0xffffffff},
		   {0, 2},          {4, 0},          {4, 2},          {4, (1u << 22) / 3 + 1},
		   {4, 0xffffffff}, {8, 6},          {8, 0xffffffff}, {12, 0x80000000},
		   {16, 12},        {16, 0xfffffff7}};
	uint8_t good[20 + 12 + 5 + 7 + 11 + 1] = {0}, p[sizeof good], again[sizeof good];
	size_t length = sizeof good - 1;
	struct hct_lowrank_tables t;
	const char *why;

	(void)state;
	hct_store32(good, 3);
	hct_store32(good + 4, 7);
	hct_store32(good + 8, 5);
	hct_store32(good + 12, 7);
	hct_store32(good + 16, 11);
	for (unsigned i = 0; i < 3; i++)
		store_float(good + 20 + 4 * (size_t)i, 1.5f - (float)i);
	assert_int_equal(hct_lowrank_tables_unpack(good, length, &t, &why), HCT_OK);
	assert_ptr_equal(t.v_tables, good + 32);
	assert_ptr_equal(t.u_tables, good + 37);
	assert_ptr_equal(t.v_payload, good + 44);
	assert_int_equal(hct_lowrank_tables_length(&t), length);
	hct_lowrank_tables_pack(&t, again);
	assert_memory_equal(again, good, length);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		memcpy(p, good, sizeof p);
		hct_store32(p + bad[i].at, bad[i].value);
		if (!refuses(p, length))
			fail_msg("field %zu may not be %u", bad[i].at, bad[i].value);
	}
	for (unsigned i = 0; i < 3; i++) {
		memcpy(p, good, sizeof p);
		store_float(p + 20 + 4 * (size_t)i, i ? INFINITY : NAN);
		assert_true(refuses(p, length));
	}
	for (size_t n = 0; n <= sizeof good; n++)
		assert_true(n == length || n > sizeof good - 0 || refuses(good, n));
}

/* The largest V that is allowed, and one more. */
static void test_limits(void **state)
{
	static uint8_t p[20 + 4 * 1024];

	(void)state;
	hct_store32(p, 1024);
	hct_store32(p + 4, 4096);
	assert_false(refuses(p, sizeof p));
	hct_store32(p + 4, 4097);
	assert_true(refuses(p, sizeof p));
	hct_store32(p, 1);
	hct_store32(p + 4, 1u << 22);
	assert_false(refuses(p, 24));
	hct_store32(p + 4, (1u << 22) + 1);
	assert_true(refuses(p, 24));
}

/* ---- sums ---- */

/* One number, the way that the specification has it. */
static float element(const float *u, const float *v, size_t rank, size_t pitch)
{
	volatile float sum = u[0] * v[0];

	for (size_t k = 1; k < rank; k++) {
		volatile float product = u[k] * v[k * pitch];

		sum = sum + product;
	}
	return sum;
}

static void test_multiply(void **state)
{
	static const struct {
		size_t rows, rank, columns;
	} cases[] = {{1, 1, 1},   {3, 1, 5},     {4, 2, 1024}, {5, 3, 1025},
		     {9, 17, 33}, {2, 40, 2500}, {7, 100, 70}};

	(void)state;
	lossy_seed = 1;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t m = cases[i].rows, r = cases[i].rank, n = cases[i].columns, pitch = n + i;
		float *u = malloc(m * r * sizeof *u), *v = malloc(r * pitch * sizeof *v);
		float *w = malloc(m * n * sizeof *w);

		for (size_t j = 0; j < m * r; j++)
			u[j] = (float)lossy_gauss() * ldexpf(1, (int)lossy_below(30));
		for (size_t j = 0; j < r * pitch; j++)
			v[j] = (float)lossy_gauss();
		for (hct_simd simd = HCT_SIMD_SCALAR; simd <= HCT_SIMD_AVX512; simd++) {
			if (!hct_simd_supported(simd))
				continue;
			memset(w, 0xff, m * n * sizeof *w);
			hct_lowrank_find(simd)(u, m, r, v, pitch, n, w);
			for (size_t j = 0; j < m * n; j++)
				assert_true(w[j] == element(u + j / n * r, v + j % n, r, pitch));
		}
		free(u);
		free(v);
		free(w);
	}
}

/* ---- chunks ---- */

static struct lossy_matrix low_rank(hct_dtype dtype, uint32_t rows, uint32_t columns, unsigned rank,
				    double noise)
{
	struct lossy_matrix m = lossy_gaussian(dtype, rows, columns);
	float *u = malloc(rows * sizeof *u), *v = malloc(columns * sizeof *v);

	for (size_t i = 0; i < m.tensor.elements; i++)
		m.values[i] *= (float)noise;
	for (unsigned k = 0; k < rank; k++) {
		for (uint32_t i = 0; i < rows; i++)
			u[i] = (float)(lossy_gauss() / (1 + k));
		for (uint32_t i = 0; i < columns; i++)
			v[i] = (float)lossy_gauss();
		for (size_t i = 0; i < m.tensor.elements; i++)
			m.values[i] += u[i / columns] * v[i % columns];
	}
	lossy_narrow(&m);
	free(u);
	free(v);
	return m;
}

/* A chunk of the codec as the encoder makes it. */
struct subject {
	struct lossy_matrix m;
	hct_encoder *e;
	hct_plan *p;
	uint8_t *params, *payload, *elements;
	size_t params_length, payload_length, length;
	uint64_t offset;
};

static void subject_open(struct subject *s, hct_dtype dtype, uint64_t chunk)
{
	struct hct_goal goal = {.relative_squared_error = .01, .method = HCT_METHOD_SVD};
	struct hct_encoded c;

	lossy_seed = 11 + (unsigned)dtype;
	s->m = low_rank(dtype, 500, 700, 5, .01);
	s->m.tensor.shape = s->m.shape;
	assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &s->e), HCT_OK);
	assert_int_equal(hct_plan_create(s->e, &s->m.tensor, s->m.data, &goal, &s->p, NULL),
			 HCT_OK);
	assert_int_equal(s->p->codec, HCT_CODEC_LOWRANK);
	assert_true(hct_plan_chunk_count(s->p) == 2);
	s->params_length = s->p->params_length;
	s->params = malloc(s->params_length);
	memcpy(s->params, s->p->params, s->params_length);
	s->offset = chunk * hct_plan_chunk_bytes(s->p);
	s->length = hct_plan_chunk_length(s->p, chunk);
	assert_int_equal(hct_encode_chunk(s->e, s->p, chunk, s->m.data + s->offset, &c, NULL),
			 HCT_OK);
	assert_int_equal(c.codec, HCT_CODEC_LOWRANK);
	s->payload_length = c.layers[0].length;
	s->payload = malloc(s->payload_length);
	memcpy(s->payload, c.layers[0].payload, s->payload_length);
	s->elements = malloc(s->length);
	memcpy(s->elements, s->e->decoded, s->length);
}

static void subject_close(struct subject *s)
{
	hct_plan_free(s->p);
	hct_encoder_free(s->e);
	lossy_free(&s->m);
	free(s->params);
	free(s->payload);
	free(s->elements);
}

/* Decodes bytes [begin, end); free *out. */
static hct_error decode(const struct subject *s, hct_simd simd, size_t begin, size_t end, int pad,
			uint8_t **out, const char **why)
{
	struct hct_scratch scratch = {.simd = simd};
	uint8_t *payload = malloc(s->payload_length + HCT_PAYLOAD_PAD);
	struct hct_task task = {.tensor = &s->m.tensor,
				.offset = s->offset,
				.length = s->length,
				.begin = begin,
				.end = end,
				.layers = {{payload, s->payload_length}},
				.layer_count = 1,
				.layers_stored = 1,
				.scratch = &scratch};
	void *tables = NULL;
	hct_error e;

	*why = NULL;
	*out = malloc(end - begin);
	memcpy(payload, s->payload, s->payload_length);
	memset(payload + s->payload_length, pad, HCT_PAYLOAD_PAD);
	e = hct_codec_lowrank.open_tables(&s->m.tensor, s->params, s->params_length, &tables, why);
	assert_true(!e == (tables != NULL));
	task.tables = tables;
	if (!e)
		e = hct_codec_lowrank.decode(&task, *out, why);
	if (tables)
		hct_codec_lowrank.free_tables(tables);
	free(scratch.bytes);
	free(payload);
	assert_true(!e || *why);
	return e;
}

/* What every variant makes of it, which must be the same; compared with `expected` if not NULL. */
static hct_error verdict(const struct subject *s, size_t begin, size_t end, const uint8_t *expected,
			 const char **why)
{
	uint8_t *first = NULL, *out;
	hct_error result = HCT_OK;

	for (int simd = HCT_SIMD_SCALAR; simd <= HCT_SIMD_AVX512; simd++) {
		hct_error e;

		if (!hct_simd_supported((hct_simd)simd))
			continue;
		e = decode(s, (hct_simd)simd, begin, end, 0x55 * simd, &out, why);
		if (first) {
			assert_int_equal(e, result);
			if (!e)
				assert_memory_equal(out, first, end - begin);
			free(out);
			continue;
		}
		first = out;
		result = e;
	}
	if (!result && expected)
		assert_memory_equal(first, expected + begin, end - begin);
	free(first);
	assert_true(result == HCT_OK || result == HCT_ERR_CORRUPT);
	return result;
}

static const hct_dtype dtypes[] = {HCT_DTYPE_F32,        HCT_DTYPE_BF16,    HCT_DTYPE_F16,
				   HCT_DTYPE_F64,        HCT_DTYPE_F8_E4M3, HCT_DTYPE_F8_E5M2,
				   HCT_DTYPE_F8_E4M3FNUZ};

static void test_ranges(void **state)
{
	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct subject s;
		const char *why;

		subject_open(&s, dtypes[i], i % 2);
		assert_int_equal(verdict(&s, 0, s.length, s.elements, &why), HCT_OK);
		for (unsigned j = 0; j < 40; j++) {
			size_t begin = lossy_next() % s.length;
			size_t n = 1 + lossy_next() % (j % 2 ? 5000 : s.length);

			n = n < s.length - begin ? n : s.length - begin;
			assert_int_equal(verdict(&s, begin, begin + n, s.elements, &why), HCT_OK);
		}
		subject_close(&s);
	}
}

/* The element that a chunk holds is what the factors, decoded by themselves, say. */
static void test_value(void **state)
{
	struct hct_tensor factor = {.name = "u", .dtype = HCT_DTYPE_F32};
	struct hct_scratch scratch = {.simd = HCT_SIMD_SCALAR};
	struct hct_task task = {
		.tensor = &factor, .layer_count = 1, .layers_stored = 1, .scratch = &scratch};
	struct hct_lowrank_tables t;
	struct subject s;
	const char *why;
	uint8_t *v_payload, *u_payload;
	void *tables;
	size_t rows;
	float *u, *v;

	(void)state;
	subject_open(&s, HCT_DTYPE_F32, 1);
	assert_int_equal(hct_lowrank_tables_unpack(s.params, s.params_length, &t, &why), HCT_OK);
	rows = s.length / 4 / t.columns;
	v = malloc(4ul * t.rank * t.columns);
	u = malloc(4ul * t.rank * rows);
	v_payload = calloc(1, t.v_length + 128ul);
	memcpy(v_payload, t.v_payload, t.v_length);
	u_payload = calloc(1, s.payload_length + 128);
	memcpy(u_payload, s.payload, s.payload_length);
	assert_int_equal(
		hct_codec_tcq.open_tables(&factor, t.v_tables, t.v_tables_length, &tables, &why),
		HCT_OK);
	task.tables = tables;
	task.length = task.end = 4ul * t.rank * t.columns;
	task.layers[0] = (struct hct_payload){v_payload, t.v_length};
	assert_int_equal(hct_codec_tcq.decode(&task, (uint8_t *)v, &why), HCT_OK);
	hct_codec_tcq.free_tables(tables);
	assert_int_equal(
		hct_codec_tcq.open_tables(&factor, t.u_tables, t.u_tables_length, &tables, &why),
		HCT_OK);
	task.tables = tables;
	task.offset = s.offset / t.columns * t.rank;
	task.length = task.end = 4ul * t.rank * rows;
	task.layers[0] = (struct hct_payload){u_payload, s.payload_length};
	assert_int_equal(hct_codec_tcq.decode(&task, (uint8_t *)u, &why), HCT_OK);
	hct_codec_tcq.free_tables(tables);
	for (size_t k = 0; k < t.rank; k++)
		for (size_t c = 0; c < t.columns; c++) {
			float scale;

			memcpy(&scale, t.scales + 4 * k, 4);
			v[k * t.columns + c] *= scale;
		}
	for (size_t i = 0; i < rows; i++)
		for (size_t c = 0; c < t.columns; c++) {
			float w = element(u + i * t.rank, v + c, t.rank, t.columns);

			assert_memory_equal(s.elements + 4 * (i * t.columns + c), &w, 4);
		}
	free(scratch.bytes);
	free(u);
	free(v);
	free(u_payload);
	free(v_payload);
	subject_close(&s);
}

/* ---- damage ---- */

static void test_chunk_errors(void **state)
{
	struct subject s;
	const char *why;
	size_t length;

	(void)state;
	subject_open(&s, HCT_DTYPE_F32, 0);
	length = s.length;
	s.length = length - 4;
	assert_int_equal(verdict(&s, 0, 100, NULL, &why), HCT_ERR_CORRUPT);
	assert_string_equal(why, "a chunk that is not whole rows");
	s.length = length;
	s.offset = 4;
	assert_int_equal(verdict(&s, 0, 100, NULL, &why), HCT_ERR_CORRUPT);
	assert_string_equal(why, "a chunk that is not whole rows");
	s.offset = 0;
	s.length = length - 700 * 4 * 20; /* 20 rows less than are coded */
	assert_int_equal(verdict(&s, 0, s.length, NULL, &why), HCT_ERR_CORRUPT);
	s.length = length;
	s.m.tensor.dtype = HCT_DTYPE_I32;
	assert_int_equal(verdict(&s, 0, 100, NULL, &why), HCT_ERR_CORRUPT);
	s.m.tensor.dtype = HCT_DTYPE_F32;
	s.payload_length--;
	assert_int_equal(verdict(&s, 0, length, NULL, &why), HCT_ERR_CORRUPT);
	s.payload_length++;
	/* several layers in the tables of U, then of V */
	s.params[20 + 4 * hct_load32(s.params) + hct_load32(s.params + 8)] = 2;
	assert_int_equal(verdict(&s, 0, 100, NULL, &why), HCT_ERR_CORRUPT);
	s.params[20 + 4 * hct_load32(s.params) + hct_load32(s.params + 8)] = 1;
	s.params[20 + 4 * hct_load32(s.params)] = 2;
	assert_int_equal(verdict(&s, 0, 100, NULL, &why), HCT_ERR_CORRUPT);
	s.params[20 + 4 * hct_load32(s.params)] = 1;
	assert_int_equal(verdict(&s, 0, length, s.elements, &why), HCT_OK);
	/* V cut short, with lengths that agree */
	hct_store32(s.params + 16, hct_load32(s.params + 16) - 1);
	s.params_length--;
	assert_int_equal(verdict(&s, 0, length, NULL, &why), HCT_ERR_CORRUPT);
	s.params_length++;
	subject_close(&s);
}

static void test_damage(void **state)
{
	struct subject s;
	const char *why;

	(void)state;
	subject_open(&s, HCT_DTYPE_BF16, 1);
	for (unsigned kind = 0; kind < 400; kind++) {
		uint8_t *params = malloc(s.params_length), *payload = malloc(s.payload_length);

		memcpy(params, s.params, s.params_length);
		memcpy(payload, s.payload, s.payload_length);
		if (kind % 2)
			s.params[lossy_next() % (kind % 4 == 1 ? 60 : s.params_length)] =
				(uint8_t)lossy_next();
		else
			s.payload[lossy_next() % s.payload_length] = (uint8_t)lossy_next();
		verdict(&s, 0, s.length, NULL, &why);
		memcpy(s.params, params, s.params_length);
		memcpy(s.payload, payload, s.payload_length);
		free(params);
		free(payload);
	}
	subject_close(&s);
}

/* ---- encoder ---- */

static struct lossy_result code(struct lossy_matrix *m, double error, enum hct_method method)
{
	struct hct_goal goal = {.relative_squared_error = error, .method = method};

	return lossy_code(m, &goal, HCT_SIMD_AUTO);
}

/* Low-rank matrices reach every error with far fewer bits than tcq, and AUTO finds that. */
static void test_low_rank(void **state)
{
	static const struct {
		unsigned rank;
		double noise;
	} cases[] = {{1, 0}, {1, .01}, {3, .02}, {9, .02}, {20, .01}};
	static const double errors[] = {.0353, .0146, .001, .0001};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct lossy_matrix m;

		lossy_seed = i + 1;
		m = low_rank(HCT_DTYPE_F32, 600, 512, cases[i].rank, cases[i].noise);
		for (size_t j = 0; j < 4; j++) {
			struct lossy_result svd, direct, chosen;

			/* noise alone is more */
			if (cases[i].noise * cases[i].noise > .5 * errors[j])
				continue;
			svd = code(&m, errors[j], HCT_METHOD_SVD);
			direct = code(&m, errors[j], HCT_METHOD_TCQ);
			chosen = code(&m, errors[j], HCT_METHOD_AUTO);
			assert_string_equal(svd.info.codec, "lowrank");
			assert_string_equal(direct.info.codec, "tcq");
			assert_string_equal(chosen.info.codec, "lowrank");
			assert_true(chosen.hash == svd.hash);
			assert_true(svd.error < 1.03 * errors[j]);
			assert_true(svd.error > .5 * errors[j]);
			assert_true(svd.bits < (cases[i].rank < 5 ? .15 : .4) * direct.bits);
			assert_true(fabs(svd.info.relative_squared_error / svd.error - 1) < .03);
			assert_true(fabs(svd.info.bits - svd.bits) < .02);
		}
		lossy_free(&m);
	}
}

/* Others are left to tcq. */
static void test_not_low_rank(void **state)
{
	struct lossy_matrix m = lossy_gaussian(HCT_DTYPE_F32, 400, 300);
	struct hct_goal goal = {.relative_squared_error = .01, .method = HCT_METHOD_SVD};

	(void)state;
	assert_string_equal(code(&m, .01, HCT_METHOD_SVD).info.codec, "tcq");
	assert_string_equal(code(&m, .01, HCT_METHOD_AUTO).info.codec, "tcq");
	assert_true(code(&m, .01, HCT_METHOD_AUTO).hash == code(&m, .01, HCT_METHOD_TCQ).hash);
	lossy_free(&m);
	/* several layers are given up for it, and only for it */
	goal.layers = 2;
	m = lossy_gaussian(HCT_DTYPE_F32, 400, 300);
	assert_int_equal(lossy_code(&m, &goal, HCT_SIMD_AUTO).info.layers, 2);
	lossy_free(&m);
	m = low_rank(HCT_DTYPE_F32, 400, 300, 1, 0);
	assert_string_equal(lossy_code(&m, &goal, HCT_SIMD_AUTO).info.codec, "lowrank");
	assert_int_equal(lossy_code(&m, &goal, HCT_SIMD_AUTO).info.layers, 1);
	/* errors that float32 cannot tell */
	assert_string_equal(code(&m, 1e-6, HCT_METHOD_SVD).info.codec, "tcq");
	lossy_free(&m);
	/* narrow ones */
	m = low_rank(HCT_DTYPE_F32, 20000, 7, 1, 0);
	m.shape[1] = 1;
	m.shape[0] = 140000;
	assert_string_not_equal(code(&m, .01, HCT_METHOD_SVD).info.codec, "lowrank");
	lossy_free(&m);
}

/* Odd shapes and dtypes, last chunks of a few rows. */
static void test_any(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 24; kind++) {
		struct lossy_matrix m;
		struct lossy_result out;
		double error = kind % 7 < 4 ? .01 : .02;

		lossy_seed = kind;
		m = low_rank(dtypes[kind % 7], 70 + lossy_below(900), 40 + lossy_below(900),
			     1 + kind % 4, .01);
		out = code(&m, error, HCT_METHOD_SVD);
		assert_string_equal(out.info.codec, "lowrank");
		if (!(out.error < 1.05 * error))
			fail_msg("%u: error %g, not %g, expected %g", kind, out.error, error,
				 out.info.relative_squared_error);
		lossy_free(&m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),       cmocka_unit_test(test_limits),
		cmocka_unit_test(test_multiply),     cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_value),        cmocka_unit_test(test_chunk_errors),
		cmocka_unit_test(test_damage),       cmocka_unit_test(test_low_rank),
		cmocka_unit_test(test_not_low_rank), cmocka_unit_test(test_any),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
