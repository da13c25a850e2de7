/* What the lossy encoder makes of tensors of every kind, through the public interface: the error
 * that was asked for, and sizes as they were recorded when this was written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "tcq_measure.h"

/* Matrices ------------------------------------------------------------------------------ */

static void fill_laplacian(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, .02 * measure_laplacian());
}

static void fill_low_rank(struct tensor *t)
{
	size_t rows = t->shape[0], columns = t->shape[1], rank = 8;
	double *a = malloc(rows * rank * sizeof *a), *b = malloc(columns * rank * sizeof *b);

	for (size_t i = 0; i < rows * rank; i++)
		a[i] = measure_gaussian();
	for (size_t i = 0; i < columns * rank; i++)
		b[i] = measure_gaussian();
	for (size_t i = 0; i < t->n; i++) {
		double v = .02 * measure_gaussian();

		for (size_t k = 0; k < rank; k++)
			v += a[i / columns * rank + k] * b[i % columns * rank + k];
		tensor_set(t, i, v);
	}
	free(a);
	free(b);
}

static void fill_scaled(struct tensor *t, int rows)
{
	size_t count = rows ? t->shape[0] : t->shape[1];
	double *scale = malloc(count * sizeof *scale);

	for (size_t i = 0; i < count; i++)
		scale[i] = .02 * exp2(measure_gaussian());
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i,
			   scale[rows ? i / t->shape[1] : i % t->shape[1]] * measure_gaussian());
	free(scale);
}

static void fill_column_scaled(struct tensor *t)
{
	fill_scaled(t, 0);
}

static void fill_row_scaled(struct tensor *t)
{
	fill_scaled(t, 1);
}

/* Every number near those above and beside it. */
static void fill_smooth(struct tensor *t)
{
	size_t columns = t->shape[1];
	double *x = calloc(t->n, sizeof *x);

	for (size_t i = 0; i < t->n; i++) {
		double left = i % columns ? x[i - 1] : 0, up = i >= columns ? x[i - columns] : 0;
		double both = i % columns && i >= columns ? x[i - columns - 1] : 0;

		x[i] = .95 * left + .95 * up - .9025 * both + measure_gaussian();
		tensor_set(t, i, x[i]);
	}
	free(x);
}

static void fill_student(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, .02 * measure_student());
}

/* A few weights that are far larger than all others, as large language models have them. */
static void fill_giants(struct tensor *t)
{
	fill_gaussian(t);
	for (size_t i = 0; i < 20; i++) {
		size_t at = (size_t)(measure_uniform() * (double)t->n);

		tensor_set(t, at, 2 * measure_gaussian());
	}
}

static void fill_sparse(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, measure_uniform() < .01 ? measure_gaussian() : 0);
}

/* Quality ------------------------------------------------------------------------------- */

struct matrix {
	const char *name;
	void (*fill)(struct tensor *t);
	hct_dtype dtype;
	double error, bits, tolerance; /* bits: as recorded */
	int tiles;                     /* 1 when the DCT has to be chosen */
};

static const struct matrix matrices[] = {
	{"gaussian", fill_gaussian, HCT_DTYPE_BF16, .0713, 1.987, .01, 0},
	{"gaussian", fill_gaussian, HCT_DTYPE_BF16, D70, 3.136, .01, 0},
	{"gaussian", fill_gaussian, HCT_DTYPE_F32, .001, 5.087, .01, 0},
	{"laplacian", fill_laplacian, HCT_DTYPE_BF16, D70, 3.048, .01, 0},
	{"laplacian", fill_laplacian, HCT_DTYPE_F16, .001, 5.027, .01, 0},
	{"low rank", fill_low_rank, HCT_DTYPE_F32, D70, 2.994, .01, 0},
	{"columns scaled", fill_column_scaled, HCT_DTYPE_BF16, D70, 2.491, .01, 0},
	{"rows scaled", fill_row_scaled, HCT_DTYPE_BF16, D70, 2.712, .01, 0},
	{"smooth", fill_smooth, HCT_DTYPE_F32, D70, .656, .01, 1},
	{"smooth", fill_smooth, HCT_DTYPE_BF16, .0001, 4.277, .01, 1},
	{"student", fill_student, HCT_DTYPE_F32, D70, 2.251, .01, 0},
	{"giants", fill_giants, HCT_DTYPE_BF16, D70, 2.775, .01, 0},
	{"giants", fill_giants, HCT_DTYPE_F32, .0001, 6.421, .01, 0},
	{"sparse", fill_sparse, HCT_DTYPE_F32, D70, .134, .02, 0},
};

/* The error is what was asked for, and is what the file and the plan say. */
static int error_is(const struct outcome *o, double wanted, double tolerance)
{
	return !o->failed && fabs(o->error / wanted - 1) <= tolerance &&
	       fabs(o->recorded / o->error - 1) < 1e-5 &&
	       fabs(o->plan.relative_squared_error / wanted - 1) <= .02;
}

static void errors_and_sizes(void **state)
{
	unsigned bad = 0;

	(void)state;
	measure_seed = 11;
	for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
		const struct matrix *m = &matrices[i];
		struct tensor t = tensor_of(m->dtype, 512, 768);
		struct hct_goal goal = goal_of(m->error);
		struct outcome o;
		int good;

		m->fill(&t);
		o = measure(&t, &goal, HCT_SIMD_AUTO);
		good = error_is(&o, m->error, m->tolerance) && fabs(o.bits / m->bits - 1) < .02 &&
		       !strcmp(o.plan.codec, "tcq") && !strcmp(o.coding.codec, "tcq") &&
		       fabs(o.plan.bits - o.bits) < .06 + .01 * o.bits;
		good &= m->error > D70 || o.cosine >= .9925;
		good &= (o.plan.tile_rows * o.plan.tile_columns > 1) == m->tiles;
		if (!good)
			complain(m->name, &o, m->error);
		bad += !good;
		tensor_free(&t);
	}
	assert_int_equal(bad, 0);
}

/* Along a ladder of errors, bits rise as the error falls, and each is near to what was asked. */
static void bits_rise_as_errors_fall(void **state)
{
	static const double errors[] = {.5, .2, .0713, .0353, D70, .0043, .001, .0001, 1e-5};
	void (*const fills[])(struct tensor *) = {fill_gaussian, fill_laplacian, fill_student};

	(void)state;
	measure_seed = 12;
	for (unsigned f = 0; f < 3; f++) {
		struct tensor t = tensor_of(f == 2 ? HCT_DTYPE_F32 : HCT_DTYPE_BF16, 384, 512);
		double bits = 0, error = 1;

		fills[f](&t);
		for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
			struct hct_goal goal = goal_of(errors[i]);
			struct outcome o = measure(&t, &goal, HCT_SIMD_AUTO);
			/* Near the grain of BF16, values fall back onto the source's. */
			double least = errors[i] > .1 ? .97 : errors[i] < 5e-5 ? .75 : .99;
			int good = o.error > least * errors[i] && o.error < 1.01 * errors[i] &&
				   o.bits > bits && o.error < error;

			if (!good)
				complain("ladder", &o, errors[i]);
			assert_true(good);
			bits = o.bits;
			error = o.error;
		}
		tensor_free(&t);
	}
}

static void fill_spikes(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, measure_gaussian() * (measure_uniform() < .02 ? 1 : .02));
}

/* Every fifth number. */
static void fill_gaps(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, measure_uniform() < .2 ? measure_gaussian() : 0);
}

/* A few columns that are far larger, and few of their numbers: as attention's output has them. */
static void fill_columns_of_spikes(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i,
			   measure_student() * (i % t->shape[1] % 97 ? .02 : .6) *
				   (measure_uniform() < .1 ? 3 : 1));
}

/* Where most values are lost in the step, the error hardly follows it: it is 1% more than what was
 * asked for at most all the same, 2% where that takes less than half a bit, and 5% where a tenth of
 * a bit is enough, since what is left then are few numbers.  It may be less where many values are
 * lost together. */
static void heavy_tails_reach_every_error(void **state)
{
	static const double snrs[] = {3, 5, 7, 8, 9, 9.9, 10, 10.1, 11, 12, 14, 18.36, 25, 32, 40};
	void (*const fills[])(struct tensor *) = {fill_laplacian, fill_student,
						  fill_spikes,    fill_gaps,
						  fill_sparse,    fill_columns_of_spikes};
	unsigned bad = 0;

	(void)state;
	measure_seed = 30;
	for (unsigned f = 0; f < sizeof fills / sizeof *fills; f++) {
		struct tensor t = tensor_of(HCT_DTYPE_F32, 384, 768);

		fills[f](&t);
		for (unsigned i = 0; i < sizeof snrs / sizeof *snrs; i++) {
			double error = pow(10, -snrs[i] / 10);
			struct hct_goal goal = goal_of(error);
			struct outcome o;
			double most, least;

			goal.effort = i % 3 == 2 ? 9 : 3 + 2 * (i % 3);
			o = measure(&t, &goal, HCT_SIMD_AUTO);
			most = o.bits < .1 ? 1.05 : o.bits < .5 ? 1.02 : 1.01;
			least = o.bits < .1 ? 0 : o.bits < 1 ? .8 : .98;
			if (!(o.error < most * error && o.error > least * error)) {
				print_error("effort %u, matrix %u\n", goal.effort, f);
				complain("heavy tails", &o, error);
				bad++;
			}
		}
		tensor_free(&t);
	}
	assert_int_equal(bad, 0);
}

/* Bits at the error that was asked for, of a coder that is a little off. */
static double corrected(const struct outcome *o, double error)
{
	return o->bits + .5 * log2(o->error / error);
}

static void more_effort_is_never_larger(void **state)
{
	void (*const fills[])(struct tensor *) = {fill_gaussian, fill_row_scaled,
						  fill_column_scaled, fill_smooth};

	(void)state;
	measure_seed = 13;
	for (unsigned f = 0; f < 4; f++) {
		struct tensor t = tensor_of(HCT_DTYPE_BF16, 320, 768);
		double least = 1e9;

		fills[f](&t);
		for (unsigned effort = 1; effort <= 9; effort++) {
			struct hct_goal goal = goal_of(D70);
			struct outcome o;

			goal.effort = effort;
			o = measure(&t, &goal, HCT_SIMD_AUTO);
			if (corrected(&o, D70) > fmax(1.005 * least, least + .005) ||
			    fabs(o.error / D70 - 1) > (effort < 3 ? .02 : .01)) {
				print_error("effort %u of matrix %u\n", effort, f);
				complain("", &o, D70);
				fail();
			}
			if (corrected(&o, D70) < least)
				least = corrected(&o, D70);
		}
		tensor_free(&t);
	}
}

/* Shannon's bound for white Gaussian data: 1/2 log2 of 1 / D. */
static void near_to_the_bound(void **state)
{
	struct tensor t = tensor_of(HCT_DTYPE_F32, 768, 1024);

	(void)state;
	measure_seed = 14;
	fill_gaussian(&t);
	for (double rate = 2; rate <= 5; rate += .5) {
		struct hct_goal goal = goal_of(exp2(-2 * rate));
		struct outcome o = measure(&t, &goal, HCT_SIMD_AUTO);
		double gap = o.payload - .5 * log2(1 / o.error);

		if (gap > .125 || gap < .03) {
			print_error("%.1f bits: gap %.4f\n", rate, gap);
			fail();
		}
	}
	tensor_free(&t);
}

/* Layers -------------------------------------------------------------------------------- */

static void layers_refine(void **state)
{
	static const double errors[] = {D70, .001};

	(void)state;
	measure_seed = 15;
	for (unsigned d = 0; d < 2; d++)
		for (unsigned f = 0; f < 2; f++) {
			struct tensor t = tensor_of(f ? HCT_DTYPE_F32 : HCT_DTYPE_BF16, 512, 768);
			struct hct_goal goal = goal_of(errors[d]);
			double single;

			if (f)
				fill_laplacian(&t);
			else
				fill_gaussian(&t);
			goal.layers = 1;
			struct outcome one = measure(&t, &goal, HCT_SIMD_AUTO);

			single = corrected(&one, errors[d]);
			for (goal.layers = 2; goal.layers <= 4; goal.layers++) {
				struct outcome o = measure(&t, &goal, HCT_SIMD_AUTO);

				assert_int_equal(o.coding.layers, goal.layers);
				assert_int_equal(o.plan.layers, goal.layers);
				assert_true(fabs(o.error / errors[d] - 1) < .02);
				for (unsigned l = 1; l < goal.layers; l++)
					assert_true(o.prefix[l] < .9 * o.prefix[l - 1]);
				/* Of use by itself: 2 bits, or less where four layers share 3. */
				assert_true(o.prefix[0] < (goal.layers < 4 || d ? .075 : .12));
				if (corrected(&o, errors[d]) - single > .15 * (goal.layers - 1)) {
					print_error("%u layers cost %.4f bits more\n", goal.layers,
						    corrected(&o, errors[d]) - single);
					fail();
				}
			}
			tensor_free(&t);
		}
}

/* Transforms ---------------------------------------------------------------------------- */

static void transforms_are_honoured(void **state)
{
	struct tensor t = tensor_of(HCT_DTYPE_F32, 512, 768);
	struct hct_goal goal = goal_of(.001);
	struct outcome none, dct, chosen;

	(void)state;
	measure_seed = 16;
	fill_smooth(&t);
	chosen = measure(&t, &goal, HCT_SIMD_AUTO);
	goal.transform = HCT_TRANSFORM_NONE;
	none = measure(&t, &goal, HCT_SIMD_AUTO);
	goal.transform = HCT_TRANSFORM_DCT;
	dct = measure(&t, &goal, HCT_SIMD_AUTO);
	assert_int_equal(none.plan.tile_rows * none.plan.tile_columns, 1);
	assert_true(dct.plan.tile_rows * dct.plan.tile_columns > 1);
	assert_int_equal(chosen.digest, dct.digest);
	assert_true(chosen.bits < none.bits - 1.5);
	assert_true(fabs(none.error / .001 - 1) < .01 && fabs(dct.error / .001 - 1) < .01);
	fill_gaussian(&t);
	dct = measure(&t, &goal, HCT_SIMD_AUTO);
	assert_true(dct.plan.tile_rows * dct.plan.tile_columns > 1);
	assert_true(fabs(dct.error / .001 - 1) < .01);
	goal.transform = HCT_TRANSFORM_AUTO;
	chosen = measure(&t, &goal, HCT_SIMD_AUTO);
	assert_int_equal(chosen.plan.tile_rows * chosen.plan.tile_columns, 1);
	tensor_free(&t);
}

/* Sides that no tile divides, rows longer than a piece of the sample, and chunks that end within a
 * row or consist of one band. */
static void odd_shapes(void **state)
{
	static const struct {
		unsigned rank;
		uint64_t shape[8];
	} shapes[] = {
		{1, {50000}},        {2, {331, 211}},
		{2, {2, 200000}},    {2, {1, 70001}},
		{2, {70001, 1}},     {2, {30000, 3}},
		{4, {64, 32, 3, 3}}, {8, {2, 3, 1, 5, 7, 2, 9, 40}},
		{2, {64, 4096}},     {2, {128, 2048}},
		{3, {2, 300, 129}},  {2, {3, 131072}},
	};

	(void)state;
	measure_seed = 17;
	for (unsigned i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (unsigned smooth = 0; smooth < 2; smooth++) {
			struct tensor t =
				tensor_of_shape(HCT_DTYPE_F32, shapes[i].rank, shapes[i].shape);
			struct hct_goal goal = goal_of(D70);
			double v = 0;
			struct outcome o;

			for (size_t j = 0; j < t.n; j++) {
				v = (smooth ? .97 * v : 0) + measure_gaussian();
				tensor_set(&t, j, v);
			}
			o = measure(&t, &goal, HCT_SIMD_AUTO);
			if (!error_is(&o, D70, smooth ? .02 : .015)) {
				print_error("shape %u, smooth %u\n", i, smooth);
				complain("odd shape", &o, D70);
				fail();
			}
			assert_true(o.bits < (smooth ? 3.3 : 3.25));
			tensor_free(&t);
		}
}

/* The same everywhere ------------------------------------------------------------------- */

static void every_variant_makes_the_same_file(void **state)
{
	(void)state;
	measure_seed = 18;
	for (unsigned i = 0; i < 8; i++) {
		struct tensor t =
			tensor_of(i % 2 ? HCT_DTYPE_F16 : HCT_DTYPE_F32, 331, 64 << i % 3);
		struct hct_goal goal = goal_of(i % 4 ? D70 : 1e-5);
		uint64_t digest = 0;

		goal.layers = 1 + i % 3;
		goal.effort = 1 + i;
		goal.transform = i % 3 ? HCT_TRANSFORM_AUTO : HCT_TRANSFORM_DCT;
		(i == 5 ? fill_student : i % 2 ? fill_row_scaled : fill_column_scaled)(&t);
		for (int s = HCT_SIMD_SCALAR; s <= HCT_SIMD_AVX512; s++) {
			struct outcome o;

			if (!hct_simd_supported(s))
				continue;
			o = measure(&t, &goal, s);
			if (s == HCT_SIMD_SCALAR)
				digest = o.digest;
			assert_int_equal(o.digest, digest);
		}
		tensor_free(&t);
	}
}

/* Chunks depend on nothing but the plan and their bytes. */
static void chunks_in_any_order(void **state)
{
	const uint64_t shape[2] = {700, 768};
	struct tensor t = tensor_of(HCT_DTYPE_BF16, 700, 768);
	struct hct_tensor tensor = {.name = "w",
				    .dtype = t.dtype,
				    .rank = 2,
				    .shape = shape,
				    .elements = t.n,
				    .end = 2 * t.n};
	struct hct_goal goal = goal_of(D70);
	hct_encoder *encoders[2];
	uint64_t digests[16], count;
	struct hct_encoded e;
	hct_plan *plan;

	(void)state;
	measure_seed = 19;
	fill_column_scaled(&t);
	goal.layers = 2;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &encoders[i]), HCT_OK);
	assert_int_equal(hct_plan_create(encoders[0], &tensor, t.data, &goal, &plan, NULL), HCT_OK);
	count = hct_plan_chunk_count(plan);
	assert_true(count > 2 && count <= 16);
	for (unsigned pass = 0; pass < 2; pass++)
		for (uint64_t i = 0; i < count; i++) {
			uint64_t n = pass ? (i * 2 + 1) % count : i, digest = 0;

			n = pass && count % 2 == 0 ? count - 1 - i : n;
			assert_int_equal(hct_encode_chunk(encoders[pass && i % 2], plan, n,
							  t.data + n * hct_plan_chunk_bytes(plan),
							  &e, NULL),
					 HCT_OK);
			for (unsigned l = 0; l < e.layer_count; l++) {
				assert_int_equal(
					hct_checksum(e.layers[l].payload, e.layers[l].length),
					e.layers[l].checksum);
				digest = digest * 31 + e.layers[l].checksum + e.layers[l].digest;
			}
			if (pass)
				assert_int_equal(digest, digests[n]);
			digests[n] = digest;
		}
	hct_plan_free(plan);
	hct_encoder_free(encoders[0]);
	hct_encoder_free(encoders[1]);
	tensor_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_and_sizes),
		cmocka_unit_test(bits_rise_as_errors_fall),
		cmocka_unit_test(heavy_tails_reach_every_error),
		cmocka_unit_test(more_effort_is_never_larger),
		cmocka_unit_test(near_to_the_bound),
		cmocka_unit_test(layers_refine),
		cmocka_unit_test(transforms_are_honoured),
		cmocka_unit_test(odd_shapes),
		cmocka_unit_test(every_variant_makes_the_same_file),
		cmocka_unit_test(chunks_in_any_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
