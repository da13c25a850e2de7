/* The transforms by themselves. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/hctenc.h"
#include "codec/idct.h"
#include "groups.h"
#include "noise.h"

#define ELEMENTS ((size_t)1 << 20)

/* What is timed: n numbers from in to out, in vectors of `length` or squares of that side. */
struct task {
	hct_dct *dct;
	const void *in;
	void *out;
	size_t length, count;
};

typedef hct_error transform(struct task *t);

static hct_error forward_1d(struct task *t)
{
	return hct_dct_forward_1d(t->dct, t->in, t->out, t->length, 1, t->count, t->length);
}

static hct_error inverse_1d(struct task *t)
{
	return hct_dct_inverse_1d(t->dct, t->in, t->out, t->length, 1, t->count, t->length);
}

static hct_error forward_1d_f64(struct task *t)
{
	return hct_dct_forward_1d_f64(t->dct, t->in, t->out, t->length, 1, t->count, t->length);
}

static hct_error inverse_1d_f64(struct task *t)
{
	return hct_dct_inverse_1d_f64(t->dct, t->in, t->out, t->length, 1, t->count, t->length);
}

static hct_error forward_2d(struct task *t)
{
	return hct_dct_forward_2d(t->dct, t->in, t->out, t->length, t->length, t->length, t->count,
				  t->length * t->length);
}

static hct_error inverse_2d(struct task *t)
{
	return hct_dct_inverse_2d(t->dct, t->in, t->out, t->length, t->length, t->length, t->count,
				  t->length * t->length);
}

static hct_error forward_2d_f64(struct task *t)
{
	return hct_dct_forward_2d_f64(t->dct, t->in, t->out, t->length, t->length, t->length,
				      t->count, t->length * t->length);
}

static hct_error inverse_2d_f64(struct task *t)
{
	return hct_dct_inverse_2d_f64(t->dct, t->in, t->out, t->length, t->length, t->length,
				      t->count, t->length * t->length);
}

/* Million numbers a second. */
static double rate_of(transform *f, struct task *t, size_t n, int rounds)
{
	double best = INFINITY;

	for (int i = 0; i <= rounds; i++) { /* the first one plans */
		double start = bench_now();

		if (f(t))
			bench_die("transform", NULL);
		start = bench_now() - start;
		best = i && start < best ? start : best;
	}
	return 1e-6 * (double)n / best;
}

/* Root of the mean square of the differences, relative. */
static double distance(const float *a, const double *b, size_t n)
{
	double dd = 0, bb = 0;

	for (size_t i = 0; i < n; i++) {
		dd += (a[i] - b[i]) * (a[i] - b[i]);
		bb += b[i] * b[i];
	}
	return sqrt(dd / bb);
}

static void add_row(struct bench *b, const char *name, const char *const *what, const double *rates,
		    size_t count)
{
	cJSON *row = cJSON_CreateObject();

	cJSON_AddStringToObject(row, "name", name);
	cJSON_AddNullToObject(row, "bits");
	cJSON_AddNullToObject(row, "relative_squared_error");
	for (size_t i = 0; i < count; i++)
		cJSON_AddNumberToObject(row, what[i], rates[i]);
	cJSON_AddStringToObject(row, "note", "million numbers a second");
	cJSON_AddItemToArray(b->rows, row);
}

/* Lengths or sides from 64 on, times 4, up to the last. */
static void time_lengths(struct bench *b, int squares, size_t last)
{
	static transform *const line[] = {forward_1d, inverse_1d, forward_1d_f64, inverse_1d_f64};
	static transform *const square[] = {forward_2d, inverse_2d, forward_2d_f64, inverse_2d_f64};
	static const char *const what[] = {"forward_f32", "inverse_f32", "forward_f64",
					   "inverse_f64"};
	size_t most = squares && last * last > ELEMENTS ? last * last : ELEMENTS;
	float *x = noise_white(1, most), *y = bench_alloc(most, sizeof *y);
	double *xd = bench_alloc(most, sizeof *xd), *yd = bench_alloc(most, sizeof *yd);
	struct task t = {0};

	for (size_t i = 0; i < most; i++)
		xd[i] = x[i];
	if (hct_dct_create(HCT_SIMD_AUTO, &t.dct))
		bench_die("out of memory", NULL);
	for (t.length = 64; t.length <= last; t.length *= 4) {
		size_t vector = squares ? t.length * t.length : t.length;
		size_t n = vector > ELEMENTS ? vector : ELEMENTS;
		double rates[4];
		char name[64];

		t.count = n / vector;
		snprintf(name, sizeof name, squares ? "%zu x %zu" : "%zu", t.length, t.length);
		for (unsigned i = 0; i < 4; i++) {
			t.in = i < 2 ? (void *)x : (void *)xd;
			t.out = i < 2 ? (void *)y : (void *)yd;
			rates[i] = rate_of((squares ? square : line)[i], &t, n, b->quick ? 1 : 3);
		}
		/* both outputs are of the inverse */
		printf("  %-28s %8.0f %8.0f %8.0f %8.0f %11.1e\n", name, rates[0], rates[1],
		       rates[2], rates[3], distance(y, yd, n));
		fflush(stdout);
		add_row(b, name, what, rates, 4);
	}
	hct_dct_free(t.dct);
	free(x);
	free(y);
	free(xd);
	free(yd);
}

/* One band after the other, over and over, as decoding does; of a size that stays in cache. */
static double time_inverse_tiles(hct_simd simd, unsigned rows, unsigned columns, int rounds)
{
	size_t width = 32768 / rows, stride = rows > 1 ? width + 16 : width;
	float *band = noise_white(rows, stride), *work = bench_alloc(rows * stride, sizeof *work);
	hct_idct *f = hct_idct_find(simd);
	double best = INFINITY;

	for (int i = 0; i < 20 * rounds; i++) {
		double start;

		memcpy(work, band, rows * stride * sizeof *work);
		start = bench_now();
		f(work, stride, width, rows, columns);
		start = bench_now() - start;
		best = start < best ? start : best;
	}
	free(band);
	free(work);
	return 1e-6 * (double)(rows * width) / best;
}

static double time_forward_tiles(hct_simd simd, unsigned rows, unsigned columns, int rounds)
{
	float *x = noise_white(64, 512), *y = bench_alloc(64 * 512, sizeof *y);
	double best = INFINITY;
	hct_dct *dct;

	if (hct_dct_create(simd, &dct))
		bench_die("out of memory", NULL);
	for (int i = 0; i < 20 * rounds; i++) {
		double start = bench_now();

		if (hct_dct_tiles(dct, x, 64, 512, rows, columns, y))
			bench_die("transform", NULL);
		start = bench_now() - start;
		best = start < best ? start : best;
	}
	hct_dct_free(dct);
	free(x);
	free(y);
	return 1e-6 * 64 * 512 / best;
}

static void time_tiles(struct bench *b)
{
	static const unsigned sides[][2] = {{64, 1}, {1, 64}, {8, 8}, {16, 16}, {32, 32}, {64, 64}};
	static const char *const what[] = {"forward_avx512", "inverse_avx512", "forward_avx2",
					   "inverse_avx2",   "forward_scalar", "inverse_scalar"};

	printf("  %-28s", "tiles of 32 Ki numbers");
	for (int s = HCT_SIMD_AVX512; s >= HCT_SIMD_SCALAR; s--)
		printf(" %10s %10s", hct_simd_name((hct_simd)s), "inverse");
	printf("\n");
	for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
		double rates[6] = {0};
		char name[64];
		size_t k = 0;

		snprintf(name, sizeof name, "%u x %u", sides[i][0], sides[i][1]);
		printf("  %-28s", name);
		for (int s = HCT_SIMD_AVX512; s >= HCT_SIMD_SCALAR; s--, k += 2) {
			if (!hct_simd_supported((hct_simd)s)) {
				printf(" %10s %10s", "-", "-");
				continue;
			}
			rates[k] = time_forward_tiles((hct_simd)s, sides[i][0], sides[i][1],
						      b->rounds);
			rates[k + 1] = time_inverse_tiles((hct_simd)s, sides[i][0], sides[i][1],
							  b->rounds);
			printf(" %10.0f %10.0f", rates[k], rates[k + 1]);
		}
		printf("\n");
		add_row(b, name, what, rates, 6);
	}
}

void group_dct(struct bench *b)
{
	printf("DCT primitives, million numbers a second; error of F32 against F64\n");
	printf("  %-28s %8s %8s %8s %8s %11s\n", "lengths, FFTW", "f32", "inverse", "f64",
	       "inverse", "error");
	time_lengths(b, 0, 16384);
	printf("  %-28s %8s %8s %8s %8s %11s\n", "squares, FFTW", "f32", "inverse", "f64",
	       "inverse", "error");
	time_lengths(b, 1, b->quick ? 1024 : 4096);
	time_tiles(b);
}
