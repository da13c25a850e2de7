/* The cosine transforms of the encoder: against the sum that defines them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <sys/resource.h>

#include "codec/dct.h"

#define THREADS 6

static uint32_t seed = 1;

/* Uniform in [-1, 1). */
static float uniform(void)
{
	seed = seed * 1664525 + 1013904223;
	return (float)(int32_t)seed / 2147483648.0f;
}

static void *room(size_t bytes)
{
	void *p = malloc(bytes ? bytes : 1);

	assert_non_null(p);
	return p;
}

static float *noise(size_t n)
{
	float *x = room(n * sizeof *x);

	for (size_t i = 0; i < n; i++)
		x[i] = uniform();
	return x;
}

static double *widen(const float *x, size_t n)
{
	double *wide = room(n * sizeof *wide);

	for (size_t i = 0; i < n; i++)
		wide[i] = (double)x[i];
	return wide;
}

/* The defining sums; x and y are stride apart. */
static void direct(const double *x, double *y, size_t n, size_t stride, int inverse)
{
	double *cosine = room(4 * n * sizeof *cosine);

	for (size_t m = 0; m < 4 * n; m++)
		cosine[m] = cos(M_PI * (double)m / (2 * (double)n));
	for (size_t a = 0; a < n; a++) {
		double sum = 0;

		for (size_t b = 0; b < n; b++) {
			size_t i = inverse ? a : b, k = inverse ? b : a;
			double scale = inverse ? sqrt((k ? 2. : 1.) / (double)n) : 1;

			sum += scale * x[b * stride] * cosine[(2 * i + 1) * k % (4 * n)];
		}
		y[a * stride] = inverse ? sum : sum * sqrt((a ? 2. : 1.) / (double)n);
	}
	free(cosine);
}

static void direct_2d(double *x, size_t rows, size_t columns, int inverse)
{
	double *y = room(rows * columns * sizeof *y);

	for (size_t i = 0; i < rows; i++)
		direct(x + i * columns, y + i * columns, columns, 1, inverse);
	for (size_t j = 0; j < columns; j++)
		direct(y + j, x + j, rows, columns, inverse);
	free(y);
}

/* Relative: the root of the sum of squares of the differences. */
static void assert_near(const double *got, const double *want, size_t n, double bound)
{
	double error = 0, norm = 0;

	for (size_t i = 0; i < n; i++) {
		error += (got[i] - want[i]) * (got[i] - want[i]);
		norm += want[i] * want[i];
	}
	if (!(error <= bound * bound * norm))
		fail_msg("relative error %g at length %zu", sqrt(error / norm), n);
}

static void assert_near_f32(const float *got, const double *want, size_t n, double bound)
{
	double *wide = widen(got, n);

	assert_near(wide, want, n, bound);
	free(wide);
}

static int make_context(void **state)
{
	return hct_dct_create(HCT_SIMD_AUTO, (hct_dct **)state) == HCT_OK ? 0 : -1;
}

static int free_context(void **state)
{
	hct_dct_free(*state);
	return 0;
}

static void check_length(hct_dct *d, size_t n)
{
	float *x = noise(n), *y = room(n * sizeof *y);
	double *wide = widen(x, n), *want = room(n * sizeof *want), *got = room(n * sizeof *got);

	for (int inverse = 0; inverse < 2; inverse++) {
		direct(wide, want, n, 1, inverse);
		assert_int_equal(
			(inverse ? hct_dct_inverse_1d : hct_dct_forward_1d)(d, x, y, n, 1, 1, 0),
			HCT_OK);
		assert_near_f32(y, want, n, 1e-6);
		assert_int_equal((inverse ? hct_dct_inverse_1d_f64
					  : hct_dct_forward_1d_f64)(d, wide, got, n, 1, 1, 0),
				 HCT_OK);
		assert_near(got, want, n, 1e-13);
	}
	/* The input was left alone, and the way back leads to it. */
	assert_int_equal(hct_dct_forward_1d_f64(d, wide, got, n, 1, 1, 0), HCT_OK);
	assert_int_equal(hct_dct_inverse_1d_f64(d, got, got, n, 1, 1, 0), HCT_OK);
	assert_near(got, wide, n, 1e-14 * 4);
	assert_near_f32(x, wide, n, 0);
	free(got);
	free(want);
	free(wide);
	free(y);
	free(x);
}

static void test_defining_sum(void **state)
{
	static const size_t more[] = {211, 257, 509, 997, 1000, 1009, 1024, 4096};

	for (size_t n = 1; n <= 130; n++)
		check_length(*state, n);
	for (size_t i = 0; i < sizeof more / sizeof *more; i++)
		check_length(*state, more[i]);
}

/* The transform of the unit matrix, times its own transpose, is the unit matrix. */
static void test_orthonormal(void **state)
{
	static const size_t lengths[] = {1, 2, 3, 7, 16, 31, 64, 100};

	for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
		size_t n = lengths[l];
		double *c = calloc(n * n, sizeof *c);

		assert_non_null(c);
		for (size_t i = 0; i < n; i++)
			c[i * n + i] = 1;
		assert_int_equal(hct_dct_forward_1d_f64(*state, c, c, n, 1, n, n), HCT_OK);
		for (size_t i = 0; i < n; i++)
			for (size_t j = 0; j <= i; j++) {
				double sum = 0;

				for (size_t k = 0; k < n; k++)
					sum += c[i * n + k] * c[j * n + k];
				assert_true(fabs(sum - (i == j)) < 1e-13);
			}
		free(c);
	}
}

/* A vector's result is that which it has alone, to the bit: at any place in memory, stride and
 * batch, in place or not; and what lies between the vectors is left alone. */
static void test_strides(void **state)
{
	static const struct {
		size_t n, stride, count, distance;
	} shapes[] = {{64, 1, 300, 64}, {64, 300, 300, 1}, {64, 3, 7, 200},    {7, 5, 1000, 37},
		      {1, 1, 9, 2},     {5, 9, 3, 3},      {1009, 2, 20, 2020}};

	for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
		size_t n = shapes[s].n, stride = shapes[s].stride;
		size_t count = shapes[s].count, distance = shapes[s].distance;
		size_t total = (n - 1) * stride + (count - 1) * distance + 1;
		float *in = noise(total + 3), *got = noise(total + 3), *x = room(n * sizeof *x);
		float *want = room((total + 3) * sizeof *want);

		for (size_t offset = 0; offset < 3; offset++) {
			memcpy(want, got, (total + 3) * sizeof *want);
			for (size_t j = 0; j < count; j++) {
				for (size_t i = 0; i < n; i++)
					x[i] = in[offset + j * distance + i * stride];
				assert_int_equal(hct_dct_inverse_1d(*state, x, x, n, 1, 1, 0), 0);
				for (size_t i = 0; i < n; i++)
					want[offset + j * distance + i * stride] = x[i];
			}
			assert_int_equal(hct_dct_inverse_1d(*state, in + offset, got + offset, n,
							    stride, count, distance),
					 HCT_OK);
			assert_memory_equal(got, want, (total + 3) * sizeof *want);
		}
		memcpy(got, in, (total + 3) * sizeof *got);
		assert_int_equal(
			hct_dct_inverse_1d(*state, in + 2, in + 2, n, stride, count, distance),
			HCT_OK);
		for (size_t j = 0; j < count; j++)
			for (size_t i = 0; i < n; i++)
				got[2 + j * distance + i * stride] =
					want[2 + j * distance + i * stride];
		assert_memory_equal(got, in, (total + 3) * sizeof *got);
		free(want);
		free(x);
		free(got);
		free(in);
	}
}

static void check_matrices(hct_dct *d, size_t rows, size_t columns, size_t stride, size_t count)
{
	size_t distance = rows * stride + 5, total = count * distance;
	size_t numbers = rows * columns;
	float *in = noise(total), *out = noise(total), *kept = room(total * sizeof *kept);
	double *wide = widen(in, total), *got = widen(in, total);
	double *want = room(numbers * sizeof *want), *x = room(numbers * sizeof *x);

	for (int inverse = 0; inverse < 2; inverse++) {
		memcpy(kept, out, total * sizeof *kept);
		assert_int_equal((inverse ? hct_dct_inverse_2d : hct_dct_forward_2d)(
					 d, in, out, rows, columns, stride, count, distance),
				 HCT_OK);
		memcpy(got, wide, total * sizeof *got);
		assert_int_equal((inverse ? hct_dct_inverse_2d_f64 : hct_dct_forward_2d_f64)(
					 d, got, got, rows, columns, stride, count, distance),
				 HCT_OK);
		for (size_t m = 0; m < count; m++) {
			for (size_t i = 0; i < numbers; i++)
				want[i] = wide[m * distance + i / columns * stride + i % columns];
			direct_2d(want, rows, columns, inverse);
			for (int single = 0; single < 2; single++) {
				for (size_t i = 0; i < numbers; i++) {
					size_t at =
						m * distance + i / columns * stride + i % columns;

					x[i] = single ? (double)out[at] : got[at];
					kept[at] = out[at];
				}
				assert_near(x, want, numbers, single ? 1e-6 : 1e-13);
			}
		}
		assert_memory_equal(kept, out, total * sizeof *kept);
	}
	free(x);
	free(want);
	free(got);
	free(wide);
	free(kept);
	free(out);
	free(in);
}

static void test_matrices(void **state)
{
	check_matrices(*state, 1, 1, 1, 3);
	check_matrices(*state, 1, 40, 40, 2);
	check_matrices(*state, 40, 1, 3, 2);
	check_matrices(*state, 8, 8, 8, 50);
	check_matrices(*state, 13, 64, 70, 3);
	check_matrices(*state, 200, 37, 37, 2);
	check_matrices(*state, 64, 64, 64, 1);
}

/* Every shape of tile, in bands that end within a block of the kernel. */
static void test_tiles(void **state)
{
	hct_dct *each[4] = {NULL};

	for (hct_simd s = HCT_SIMD_SCALAR; s <= HCT_SIMD_AVX512; s++)
		if (hct_simd_supported(s))
			assert_int_equal(hct_dct_create(s, &each[s]), HCT_OK);
	for (unsigned shape = 0; shape < 49 * 2; shape++) {
		unsigned tr = 1u << shape % 7, tc = 1u << shape / 7 % 7;
		size_t rows = (shape < 49 ? 1 : 3) * tr, columns = (shape < 49 ? 1 : 5) * tc;
		size_t n = rows * columns, across = columns / tc;
		float *in = noise(n), *out = room((n + 2) * sizeof *out);
		float *first = room(n * sizeof *first);
		double *wide = widen(in, n), *got = room(tr * tc * sizeof *got);
		double *want = room(tr * tc * sizeof *want);

		out[0] = out[n + 1] = 7;
		assert_int_equal(hct_dct_tiles(each[1], in, rows, columns, tr, tc, first), HCT_OK);
		for (size_t t = 0; t < n / (tr * tc); t++) {
			size_t at = t / across * tr * columns + t % across * tc;

			assert_int_equal(hct_dct_forward_2d_f64(*state, wide + at, wide + at, tr,
								tc, columns, 1, 0),
					 HCT_OK);
			for (size_t i = 0; i < tr * tc; i++) {
				got[i] = (double)first[at + i / tc * columns + i % tc];
				want[i] = wide[at + i / tc * columns + i % tc];
			}
			assert_near(got, want, tr * tc, 2e-6);
		}
		for (unsigned s = 1; s < 4; s++) {
			if (!each[s])
				continue;
			assert_int_equal(hct_dct_tiles(each[s], in, rows, columns, tr, tc, out + 1),
					 HCT_OK);
			assert_memory_equal(out + 1, first, n * sizeof *out);
			assert_true(out[0] == 7 && out[n + 1] == 7);
			memcpy(out + 1, in, n * sizeof *out);
			assert_int_equal(
				hct_dct_tiles(each[s], out + 1, rows, columns, tr, tc, out + 1),
				HCT_OK);
			assert_memory_equal(out + 1, first, n * sizeof *out);
		}
		if (tr == 1 && tc == 1)
			assert_memory_equal(first, in, n * sizeof *in);
		free(want);
		free(got);
		free(wide);
		free(first);
		free(out);
		free(in);
	}
	for (unsigned s = 0; s < 4; s++)
		hct_dct_free(each[s]);
}

/* The tables of the kernel: what a long average of tiles would hide shows in single columns. */
static void test_tiles_of_units(void **state)
{
	float unit[64], got[64];

	for (unsigned n = 2; n <= 64; n *= 2)
		for (unsigned i = 0; i < n; i++) {
			memset(unit, 0, sizeof unit);
			unit[i] = 1;
			assert_int_equal(hct_dct_tiles(*state, unit, 1, n, 1, n, got), HCT_OK);
			for (unsigned k = 0; k < n; k++) {
				double want = sqrt((k ? 2. : 1.) / n) *
					      cos(M_PI * (2 * i + 1) * k / (2. * n));

				assert_true(fabs((double)got[k] - want) < 5e-7);
			}
		}
}

struct worker {
	hct_dct *dct;
	const float *in;
	const float *const *want;
	unsigned from;
	size_t wrong;
};

#define LENGTHS 150 /* more than there are plans */

static void *work(void *arg)
{
	struct worker *w = arg;
	float out[LENGTHS];

	for (unsigned round = 0; round < 10 * LENGTHS; round++) {
		size_t n = 1 + (w->from + round * 7) % LENGTHS;

		if (hct_dct_forward_1d(w->dct, w->in, out, n, 1, 1, 0) != HCT_OK ||
		    memcmp(out, w->want[n - 1], n * sizeof *out) != 0)
			w->wrong++;
	}
	return NULL;
}

/* Many threads on two contexts, which forget plans and make them again all the time, both with
 * FFTW's one planner. */
static void test_threads(void **state)
{
	hct_dct *contexts[2] = {*state, NULL};
	float *in = noise(LENGTHS), *want[LENGTHS];
	struct worker workers[THREADS];
	pthread_t threads[THREADS];

	for (size_t n = 1; n <= LENGTHS; n++) {
		want[n - 1] = room(n * sizeof *in);
		assert_int_equal(hct_dct_forward_1d(*state, in, want[n - 1], n, 1, 1, 0), HCT_OK);
	}
	assert_int_equal(hct_dct_create(HCT_SIMD_AUTO, &contexts[1]), HCT_OK);
	for (unsigned t = 0; t < THREADS; t++) {
		workers[t] =
			(struct worker){contexts[t % 2], in, (const float *const *)want, 29 * t, 0};
		assert_int_equal(pthread_create(&threads[t], NULL, work, &workers[t]), 0);
	}
	for (unsigned t = 0; t < THREADS; t++) {
		pthread_join(threads[t], NULL);
		assert_int_equal(workers[t].wrong, 0);
	}
	hct_dct_free(contexts[1]);
	for (size_t n = 1; n <= LENGTHS; n++)
		free(want[n - 1]);
	free(in);
}

static void test_bad_arguments(void **state)
{
	const size_t far = SIZE_MAX / 8, most = HCT_DCT_MAX_LENGTH;
	hct_dct *d = *state, *none;
	double w[4] = {0};
	float x[4] = {0};

	assert_int_equal(hct_dct_create((hct_simd)99, &none), HCT_ERR_UNSUPPORTED);
	assert_null(none);
	hct_dct_free(NULL);
	assert_int_equal(hct_dct_forward_1d(NULL, x, x, 4, 1, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_forward_1d(d, NULL, x, 4, 1, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_forward_1d(d, x, NULL, 4, 1, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_forward_1d(d, x, x, 0, 1, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_forward_1d(d, x, x, 2, 0, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_forward_1d(d, x, x, 2, 1, 2, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_inverse_1d(d, x, x, 3, far, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_inverse_1d(d, x, x, 2, 1, far, far), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_inverse_1d_f64(d, w, w, 2, far / 2, 2, far), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_forward_1d(d, x, x, most + 1, 1, 1, 0), HCT_ERR_LIMIT);
	assert_int_equal(hct_dct_forward_1d(d, NULL, NULL, 4, 1, 0, 4), HCT_OK);
	assert_int_equal(hct_dct_forward_2d(d, x, x, 0, 2, 2, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_forward_2d(d, x, x, 2, 0, 2, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_forward_2d(d, x, x, 2, 2, 1, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_inverse_2d(d, x, x, 2, 2, 2, 2, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_inverse_2d_f64(d, w, w, most, most, far, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_inverse_2d(NULL, x, x, 2, 2, 2, 1, 0), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_inverse_2d(d, NULL, NULL, 2, 2, 2, 0, 0), HCT_OK);
	assert_int_equal(hct_dct_tiles(NULL, x, 2, 2, 2, 2, x), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_tiles(d, NULL, 2, 2, 2, 2, x), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_tiles(d, x, 2, 2, 2, 2, NULL), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_tiles(d, x, 2, 2, 0, 2, x), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_tiles(d, x, 3, 1, 3, 1, x), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_tiles(d, x, 128, 1, 128, 1, x), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_tiles(d, x, 3, 1, 2, 1, x), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_tiles(d, x, 1, 6, 1, 4, x), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_tiles(d, x, far & ~(size_t)63, 64, 2, 2, x), HCT_ERR_ARGUMENT);
	assert_int_equal(hct_dct_tiles(d, NULL, 0, 64, 8, 8, NULL), HCT_OK);
	assert_int_equal(hct_dct_tiles(d, NULL, SIZE_MAX / 2 + 1, 0, 8, 8, NULL), HCT_OK);
}

/* Said before FFTW is asked, which would end the process. */
static void test_no_memory(void **state)
{
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
	(void)state;
	skip();
#else
	struct rlimit before, little = {.rlim_cur = (rlim_t)1 << 30};
	float x[1] = {0};
	hct_error e;

	assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
	little.rlim_max = before.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_AS, &little), 0);
	e = hct_dct_forward_1d(*state, x, x, HCT_DCT_MAX_LENGTH, 1, 1, 0);
	assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
	assert_int_equal(e, HCT_ERR_NOMEM);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defining_sum), cmocka_unit_test(test_orthonormal),
		cmocka_unit_test(test_strides),      cmocka_unit_test(test_matrices),
		cmocka_unit_test(test_tiles),        cmocka_unit_test(test_tiles_of_units),
		cmocka_unit_test(test_threads),      cmocka_unit_test(test_bad_arguments),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests_name("dct", tests, make_context, free_context);
}
