/* Singular value decompositions against LAPACK's full one, and what they promise. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/svd.h"
#include "lossy.h"

extern void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda,
		    double *s, double *u, const int *ldu, double *vt, const int *ldvt, double *work,
		    const int *lwork, int *iwork, int *info, size_t);

/* All singular values, in double. */
static double *full_svd(const float *a, size_t rows, size_t columns)
{
	const int m = (int)columns, n = (int)rows;
	size_t least = rows < columns ? rows : columns;
	double *copy = malloc(rows * columns * sizeof *copy), *s = malloc(least * sizeof *s);
	double *work, wish, none;
	int length = -1, info, one = 1, *iwork = malloc(8 * least * sizeof *iwork);

	for (size_t i = 0; i < rows * columns; i++)
		copy[i] = a[i];
	dgesdd_("N", &m, &n, copy, &m, s, &none, &one, &none, &one, &wish, &length, iwork, &info,
		1);
	length = (int)wish;
	work = malloc((size_t)length * sizeof *work);
	dgesdd_("N", &m, &n, copy, &m, s, &none, &one, &none, &one, work, &length, iwork, &info, 1);
	assert_int_equal(info, 0);
	free(copy);
	free(work);
	free(iwork);
	return s;
}

static hct_error create(hct_dtype dtype, const uint8_t *data, size_t rows, size_t columns,
			size_t rank, struct hct_svd *out)
{
	struct hct_matrix a = {.dtype = dtype, .data = data, .rows = rows, .columns = columns};

	return hct_svd_create(&a, rank, 1, out);
}

/* A matrix of which the singular values fall by `fall` each, about, down to noise. */
static struct lossy_matrix falling(hct_dtype dtype, uint32_t rows, uint32_t columns, double fall,
				   double noise)
{
	struct lossy_matrix m = lossy_gaussian(dtype, rows, columns);
	double scale = 1, *u = malloc(rows * sizeof *u), *v = malloc(columns * sizeof *v);

	for (size_t i = 0; i < m.tensor.elements; i++)
		m.values[i] *= (float)noise;
	for (unsigned k = 0; k < 60 && scale > 1e-6; k++, scale *= fall) {
		for (uint32_t i = 0; i < rows; i++)
			u[i] = scale * lossy_gauss();
		for (uint32_t i = 0; i < columns; i++)
			v[i] = lossy_gauss();
		for (size_t i = 0; i < m.tensor.elements; i++)
			m.values[i] += (float)(u[i / columns] * v[i % columns]);
	}
	lossy_narrow(&m);
	hct_widen(dtype, m.data, m.tensor.elements, m.values);
	free(u);
	free(v);
	return m;
}

/* The largest that a^T a differs from identity: count vectors of n. */
static double skew(const float *a, size_t n, size_t count)
{
	double worst = 0;

	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j <= i; j++) {
			double sum = i == j ? -1 : 0;

			for (size_t k = 0; k < n; k++)
				sum += (double)a[i * n + k] * a[j * n + k];
			worst = fmax(worst, fabs(sum));
		}
	return worst;
}

/* sum (A - U S V)^2. */
static double residual(const struct lossy_matrix *m, const struct hct_svd *s)
{
	double sum = 0;

	for (size_t i = 0; i < s->rows; i++)
		for (size_t j = 0; j < s->columns; j++) {
			double d = m->values[i * s->columns + j];

			for (size_t k = 0; k < s->rank; k++)
				d -= (double)s->u[k * s->rows + i] * s->s[k] *
				     s->v[k * s->columns + j];
			sum += d * d;
		}
	return sum;
}

/* What stops a decomposition after so many calls. */
struct stop {
	unsigned calls, after;
	uint64_t last;
};

static int stop(void *arg, uint64_t done)
{
	struct stop *s = arg;

	s->last = done;
	return ++s->calls == s->after;
}

/* Without U the rest is the same, the watch sees the whole matrix six times, and can end it. */
static void check_right_only(const struct lossy_matrix *m, const struct hct_svd *both)
{
	struct stop s = {0};
	struct hct_matrix a = {.dtype = m->tensor.dtype,
			       .data = m->data,
			       .rows = both->rows,
			       .columns = both->columns,
			       .watch = stop,
			       .watch_arg = &s};
	struct hct_svd right;
	unsigned passes;

	assert_int_equal(hct_svd_create(&a, both->rank, 0, &right), HCT_OK);
	assert_null(right.u);
	assert_memory_equal(right.s, both->s, both->rank * sizeof *right.s);
	assert_memory_equal(right.v, both->v, both->rank * both->columns * sizeof *right.v);
	hct_svd_free(&right);
	assert_int_equal(s.calls % 6, 0);
	assert_int_equal(s.last, m->tensor.end);
	passes = s.calls;
	for (s.after = 1; s.after <= passes; s.after++) {
		s.calls = 0;
		assert_int_equal(hct_svd_create(&a, both->rank, 0, &right), HCT_ERR_INTERRUPTED);
		assert_null(right.v);
	}
}

static void check(hct_dtype dtype, uint32_t rows, uint32_t columns, size_t rank, double fall,
		  double noise)
{
	struct lossy_matrix m = falling(dtype, rows, columns, fall, noise);
	size_t least = rows < columns ? rows : columns;
	double *exact = full_svd(m.values, rows, columns), best = 0;
	struct hct_svd s;

	assert_int_equal(create(dtype, m.data, rows, columns, rank, &s), HCT_OK);
	assert_int_equal(s.rank, rank < least ? rank : least);
	assert_true(skew(s.u, rows, s.rank) < 1e-4);
	assert_true(skew(s.v, columns, s.rank) < 1e-4);
	for (size_t k = 0; k < s.rank; k++) {
		assert_true(k == 0 || s.s[k] <= s.s[k - 1]);
		/* never too large, and with two power iterations hardly too small */
		assert_true(s.s[k] <= exact[k] + 1e-4 * exact[0]);
		assert_true(s.s[k] >= .93 * exact[k] - 1e-4 * exact[0]);
	}
	assert_true(fall > .9 || fabs(s.s[0] / exact[0] - 1) < 1e-4);
	for (size_t k = s.rank; k < least; k++)
		best += exact[k] * exact[k];
	assert_true(residual(&m, &s) <= 1.05 * best + 1e-7 * exact[0] * exact[0]);
	check_right_only(&m, &s);
	hct_svd_free(&s);
	assert_null(s.u);
	free(exact);
	lossy_free(&m);
}

static void test_against_full(void **state)
{
	(void)state;
	lossy_seed = 1;
	check(HCT_DTYPE_F32, 200, 120, 20, .8, .01);
	check(HCT_DTYPE_F32, 120, 200, 20, .8, .01);
	check(HCT_DTYPE_BF16, 150, 150, 40, .95, .1);
	check(HCT_DTYPE_F64, 90, 130, 5, .5, 0);
	check(HCT_DTYPE_F16, 100, 60, 12, 1, 1);
	check(HCT_DTYPE_F32, 64, 64, 64, .9, .1);
	check(HCT_DTYPE_F32, 40, 300, 100, .9, .1);
	check(HCT_DTYPE_F32, 3000, 500, 10, .7, .01); /* several blocks */
}

static void test_odd_shapes(void **state)
{
	(void)state;
	lossy_seed = 2;
	check(HCT_DTYPE_F32, 1, 50, 3, 1, 1);
	check(HCT_DTYPE_F32, 50, 1, 3, 1, 1);
	check(HCT_DTYPE_F32, 1, 1, 1, 1, 1);
	for (unsigned i = 0; i < 30; i++)
		check(HCT_DTYPE_F32, 1 + lossy_below(60), 1 + lossy_below(60), 1 + lossy_below(70),
		      .6 + .1 * lossy_below(4), .01);
}

static void test_zero(void **state)
{
	struct lossy_matrix m = lossy_gaussian(HCT_DTYPE_F32, 30, 40);
	struct hct_svd s;

	(void)state;
	memset(m.values, 0, 30 * 40 * sizeof *m.values);
	lossy_narrow(&m);
	assert_int_equal(create(HCT_DTYPE_F32, m.data, 30, 40, 4, &s), HCT_OK);
	for (unsigned k = 0; k < 4; k++)
		assert_true(s.s[k] == 0);
	hct_svd_free(&s);
	assert_int_equal(create(HCT_DTYPE_F32, m.data, 30, 0, 4, &s), HCT_ERR_LIMIT);
	assert_int_equal(create(HCT_DTYPE_F32, m.data, (size_t)1 << 31, 40, 4, &s), HCT_ERR_LIMIT);
	lossy_free(&m);
}

/* The same bits from any thread, whatever the others do. */
struct shared {
	struct lossy_matrix m;
	uint64_t hash[4];
};

struct one {
	struct shared *shared;
	unsigned i;
};

static void *decompose(void *arg)
{
	struct one *o = arg;
	struct hct_svd s;

	if (!create(HCT_DTYPE_F32, o->shared->m.data, 300, 400, 30, &s))
		o->shared->hash[o->i] = XXH3_64bits(s.u, 300 * 30 * sizeof(float)) ^
					XXH3_64bits_withSeed(s.v, 30 * 400 * sizeof(float), 1) ^
					XXH3_64bits_withSeed(s.s, 30 * sizeof(float), 2);
	hct_svd_free(&s);
	return NULL;
}

static void test_threads(void **state)
{
	struct shared shared = {.m = falling(HCT_DTYPE_F32, 300, 400, .9, .1)};
	struct one ones[4];
	pthread_t threads[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		ones[i] = (struct one){&shared, i};
		assert_int_equal(pthread_create(&threads[i], NULL, decompose, &ones[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_true(shared.hash[0] != 0);
	for (unsigned i = 1; i < 4; i++)
		assert_true(shared.hash[i] == shared.hash[0]);
	lossy_free(&shared.m);
}

static void test_squares(void **state)
{
	static const struct {
		uint32_t rows, columns;
	} shapes[] = {{40, 90}, {90, 40}, {1, 7}, {7, 1}, {64, 64}};

	(void)state;
	lossy_seed = 3;
	for (size_t i = 0; i < 5; i++) {
		struct lossy_matrix m =
			falling(HCT_DTYPE_F32, shapes[i].rows, shapes[i].columns, .8, .1);
		double *exact = full_svd(m.values, shapes[i].rows, shapes[i].columns);
		float *gram = malloc(64 * 64 * sizeof *gram), square[64];
		size_t n = hct_svd_gram(m.values, shapes[i].rows, shapes[i].columns, gram);

		assert_int_equal(n, shapes[i].rows < shapes[i].columns ? shapes[i].rows
								       : shapes[i].columns);
		assert_int_equal(hct_svd_squares(gram, n, square), HCT_OK);
		for (size_t k = 0; k < n; k++)
			assert_true(fabs(square[k] - exact[k] * exact[k]) <
				    1e-5 * exact[0] * exact[0]);
		free(gram);
		free(exact);
		lossy_free(&m);
	}
}

/* A P V is A's projection: what is left is orthogonal to every row of V, and rows of zeros do no
 * harm. */
static void test_projector(void **state)
{
	enum { RANK = 7, COLUMNS = 50, ROWS = 9 };
	float v[RANK * COLUMNS], p[COLUMNS * RANK], gram[RANK * RANK], a[ROWS * COLUMNS],
		u[ROWS * RANK];

	(void)state;
	lossy_seed = 4;
	for (size_t i = 0; i < sizeof v / sizeof *v; i++)
		v[i] = (float)lossy_gauss() * (i / COLUMNS == 3 ? 0 : 1);
	for (size_t i = 0; i < sizeof a / sizeof *a; i++)
		a[i] = (float)lossy_gauss();
	assert_int_equal(hct_svd_projector(v, RANK, COLUMNS, p, gram), HCT_OK);
	hct_svd_project(a, ROWS, COLUMNS, p, RANK, u);
	for (unsigned r = 0; r < ROWS; r++) {
		float left[COLUMNS];

		assert_true(u[r * RANK + 3] == 0);
		for (unsigned c = 0; c < COLUMNS; c++) {
			left[c] = a[r * COLUMNS + c];
			for (unsigned k = 0; k < RANK; k++)
				left[c] -= u[r * RANK + k] * v[k * COLUMNS + c];
		}
		for (unsigned k = 0; k < RANK; k++) {
			double sum = 0;

			for (unsigned c = 0; c < COLUMNS; c++)
				sum += left[c] * v[k * COLUMNS + c];
			assert_true(fabs(sum) < 1e-3);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_full), cmocka_unit_test(test_odd_shapes),
		cmocka_unit_test(test_zero),         cmocka_unit_test(test_threads),
		cmocka_unit_test(test_squares),      cmocka_unit_test(test_projector),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
