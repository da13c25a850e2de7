/* The cosine transforms of the plug-in, against the sum that defines them, or FFTW's in double
 * precision.  On the emulator, which does everything as late as it may, with FFTW for cuFFT; or on
 * a GPU, when HCT_TEST_PLUGIN names the real plug-in, and then without failing calls. */
#include <dlfcn.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/dct.h"
#include "codec/device.h"
#include "gpu/hct_gpu.h"

#define THREADS   4
#define UNTOUCHED 12345.0f
#define BETWEEN   (1 << 20) /* numbers that are tested at a time, about */

/* The plug-in's. */
static hct_error (*create)(const struct hct_gpu_dct_options *options, hct_gpu_dct **out,
			   struct hct_diag *diag);
static void (*destroy)(hct_gpu_dct *d);
static void *(*stream_of)(const hct_gpu_dct *d);
static hct_error (*wait)(hct_gpu_dct *d, struct hct_diag *diag);
typedef hct_error vectors_function(hct_gpu_dct *d, const float *in, float *out, size_t n,
				   size_t count, size_t distance, struct hct_diag *diag);
typedef hct_error matrices_function(hct_gpu_dct *d, const float *in, float *out, size_t rows,
				    size_t columns, size_t stride, size_t count, size_t distance,
				    struct hct_diag *diag);
typedef hct_error tiles_function(hct_gpu_dct *d, const float *in, float *out, size_t rows,
				 size_t columns, size_t stride, unsigned tile_rows,
				 unsigned tile_columns, struct hct_diag *diag);
static vectors_function *vectors[2][2]; /* [inverse][host] */
static matrices_function *matrices[2][2];
static tiles_function *tiles[2];
static size_t (*held)(void); /* the emulator's, or NULL on a GPU */

static const struct hct_device_class *class;
static hct_device *device; /* for its memory */
static hct_dct *reference;
static hct_gpu_dct *d; /* that most tests use */
static double worst;   /* error, in parts of the bound */

static void *find(void *plugin, const char *name)
{
	void *p = dlsym(plugin, name);

	if (!p)
		fail_msg("the plug-in has no %s", name);
	return p;
}

static int open_plugin(void **state)
{
	const char *path = getenv("HCT_TEST_PLUGIN");
	void *plugin = dlopen(path ? path : "", RTLD_NOW | RTLD_LOCAL);

	(void)state;
	if (!plugin)
		fail_msg("HCT_TEST_PLUGIN: %s", dlerror());
	*(void **)&create = find(plugin, "hct_gpu_dct_create");
	*(void **)&destroy = find(plugin, "hct_gpu_dct_free");
	*(void **)&stream_of = find(plugin, "hct_gpu_dct_stream");
	*(void **)&wait = find(plugin, "hct_gpu_dct_wait");
	*(void **)&vectors[0][0] = find(plugin, "hct_gpu_dct_1d");
	*(void **)&vectors[0][1] = find(plugin, "hct_gpu_dct_1d_host");
	*(void **)&vectors[1][0] = find(plugin, "hct_gpu_idct_1d");
	*(void **)&vectors[1][1] = find(plugin, "hct_gpu_idct_1d_host");
	*(void **)&matrices[0][0] = find(plugin, "hct_gpu_dct_2d");
	*(void **)&matrices[0][1] = find(plugin, "hct_gpu_dct_2d_host");
	*(void **)&matrices[1][0] = find(plugin, "hct_gpu_idct_2d");
	*(void **)&matrices[1][1] = find(plugin, "hct_gpu_idct_2d_host");
	*(void **)&tiles[0] = find(plugin, "hct_gpu_dct_tiles");
	*(void **)&tiles[1] = find(plugin, "hct_gpu_idct_tiles");
	*(void **)&held = dlsym(plugin, "emulator_held");
	class = find(plugin, HCT_DEVICE_SYMBOL);
	if (held) {
		setenv("CUDA_EMULATOR_LATE", "1", 1);
		setenv("HCT_CUFFT", "/nowhere", 1);
	}
	assert_int_equal(
		class->open(&(struct hct_device_options){.memory = 1 << 20}, &device, NULL),
		HCT_OK);
	assert_int_equal(hct_dct_create(HCT_SIMD_SCALAR, &reference), HCT_OK);
	assert_int_equal(create(NULL, &d, NULL), HCT_OK);
	return 0;
}

static int close_plugin(void **state)
{
	(void)state;
	destroy(d);
	destroy(NULL);
	hct_dct_free(reference);
	class->close(device);
	print_message("worst error: %.2f of the bound\n", worst);
	if (held)
		assert_int_equal(held(), 0);
	return 0;
}

/* Numbers ------------------------------------------------------------------------------- */

static void *room(size_t bytes)
{
	void *p = malloc(bytes ? bytes : 1);

	assert_non_null(p);
	return p;
}

static float uniform(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return (float)(int32_t)*seed / 2147483648.0f;
}

/* Vectors of n numbers: noise of many sizes, and what is hard for a recursion. */
static float hard(uint32_t *seed, size_t vector, size_t i, size_t n)
{
	float u = uniform(seed);

	switch (vector % 8) {
	case 3:
		return 1 + u / 1024;
	case 4:
		return (float)i / (float)n;
	case 5:
		return i == n - 1;
	case 6:
		return i % 2 ? 1e15f : -1e15f;
	case 7:
		return u * 1e-12f;
	default:
		return u;
	}
}

/* One vector by its definition. */
static void direct(const float *x, double *y, size_t n, int inverse)
{
	for (size_t a = 0; a < n; a++) {
		y[a] = 0;
		for (size_t b = 0; b < n; b++) {
			size_t i = inverse ? a : b, k = inverse ? b : a;

			y[a] += (double)x[b] * sqrt((k ? 2. : 1.) / (double)n) *
				cos(M_PI * (double)((2 * i + 1) * k % (4 * n)) / (2 * (double)n));
		}
	}
}

/* A matrix that lies without gaps; FFTW's transforms have tests of their own. */
static void refer(const float *x, double *y, size_t rows, size_t columns, int inverse)
{
	size_t n = rows * columns;

	if (rows == 1 && columns <= 40) {
		direct(x, y, columns, inverse);
		return;
	}
	for (size_t i = 0; i < n; i++)
		y[i] = (double)x[i];
	assert_int_equal((inverse ? hct_dct_inverse_2d_f64 : hct_dct_forward_2d_f64)(
				 reference, y, y, rows, columns, columns, 1, n),
			 HCT_OK);
}

/* Where matrices lie: matrix j of across in a row of down at j * near + i * far. */
struct shape {
	size_t rows, columns, stride, down, across, near, far;
};

static size_t place(const struct shape *s, size_t matrix, size_t row)
{
	return matrix / s->across * s->far + matrix % s->across * s->near + row * s->stride;
}

/* Numbers from the first to the last of all matrices. */
static size_t extent(const struct shape *s)
{
	return place(s, s->down * s->across - 1, s->rows - 1) + s->columns;
}

static void copy_matrix(const struct shape *s, size_t matrix, const float *all, float *one)
{
	for (size_t i = 0; i < s->rows; i++)
		memcpy(one + i * s->columns, all + place(s, matrix, i), s->columns * sizeof *one);
}

static float *make_numbers(const struct shape *s, uint32_t seed)
{
	size_t n = s->rows * s->columns;
	float *x = room(extent(s) * sizeof *x);

	for (size_t i = 0; i < extent(s); i++)
		x[i] = UNTOUCHED;
	for (size_t j = 0; j < s->down * s->across; j++)
		for (size_t i = 0; i < n; i++)
			x[place(s, j, i / s->columns) + i % s->columns] = hard(&seed, j, i, n);
	return x;
}

/* y, which was all UNTOUCHED or x before, is the transform of x within the bound, and nothing else
 * was written to.  some: so many matrices are compared; 0: all. */
static void check_numbers(const struct shape *s, const float *x, const float *y, int inverse,
			  size_t some)
{
	size_t n = s->rows * s->columns, count = s->down * s->across, inside = 0, kept = 0;
	size_t step = some && some < count ? count / some : 1;
	float *one = room(n * sizeof *one), *got = room(n * sizeof *got);
	double *wanted = room(n * sizeof *wanted);

	for (size_t j = 0; j < count; j += step) {
		double error = 0, norm = 0, part;

		copy_matrix(s, j, x, one);
		copy_matrix(s, j, y, got);
		refer(one, wanted, s->rows, s->columns, inverse);
		for (size_t i = 0; i < n; i++) {
			double e = (double)got[i] - wanted[i];

			error += e * e;
			norm += wanted[i] * wanted[i];
		}
		part = norm > 0 ? sqrt(error / norm) / HCT_GPU_DCT_ERROR(n) : error > 0;
		worst = part > worst ? part : worst;
		if (!(part < 1))
			fail_msg("%zu x %zu, %s, number %zu of %zu: an error of %g, %.2f of the "
				 "bound",
				 s->rows, s->columns, inverse ? "inverse" : "forward", j, count,
				 sqrt(error / norm), part);
	}
	for (size_t i = 0; i < extent(s); i++) {
		kept += y[i] == UNTOUCHED;
		inside += x[i] == UNTOUCHED;
	}
	assert_int_equal(kept, inside);
	free(one);
	free(got);
	free(wanted);
}

/* Calls ----------------------------------------------------------------------------------- */

static void *on_device(const void *from, size_t bytes)
{
	void *p;

	assert_int_equal(class->alloc(device, bytes, &p, NULL), HCT_OK);
	assert_int_equal(class->copy(device, p, from, bytes, NULL, NULL), HCT_OK);
	return p;
}

enum way { DEVICE, HOST, DEVICE_IN_PLACE, HOST_IN_PLACE, WAYS };

static hct_error call(hct_gpu_dct *c, const struct shape *s, const float *in, float *out,
		      int inverse, int host, struct hct_diag *diag)
{
	if (s->down > 1)
		return tiles[inverse](c, in, out, s->rows * s->down, s->columns * s->across,
				      s->stride, (unsigned)s->rows, (unsigned)s->columns, diag);
	if (s->rows == 1)
		return vectors[inverse][host](c, in, out, s->columns, s->across, s->near, diag);
	return matrices[inverse][host](c, in, out, s->rows, s->columns, s->stride, s->across,
				       s->near, diag);
}

static hct_error transform(hct_gpu_dct *c, const struct shape *s, const float *x, float *y,
			   int inverse, enum way way, struct hct_diag *diag)
{
	size_t bytes = extent(s) * sizeof *x;
	void *in, *out;
	hct_error e;

	for (size_t i = 0; i < extent(s); i++)
		y[i] = UNTOUCHED;
	if (way == HOST)
		return call(c, s, x, y, inverse, 1, diag);
	if (way == HOST_IN_PLACE) {
		memcpy(y, x, bytes);
		return call(c, s, y, y, inverse, 1, diag);
	}
	in = on_device(x, bytes);
	out = way == DEVICE ? on_device(y, bytes) : in;
	e = call(c, s, in, out, inverse, 0, diag);
	if (!e)
		e = wait(c, diag);
	if (!e)
		e = class->copy(device, y, out, bytes, NULL, diag);
	class->free(device, in);
	if (out != in)
		class->free(device, out);
	return e;
}

static void try_with(hct_gpu_dct *c, const struct shape *s, int inverse, enum way way, size_t some)
{
	struct hct_diag diag = {{0}};
	float *x = make_numbers(s, (uint32_t)(s->rows * 1000 + s->columns)), *y;

	y = room(extent(s) * sizeof *y);
	if (transform(c, s, x, y, inverse, way, &diag))
		fail_msg("%zu x %zu: %s", s->rows, s->columns, diag.text);
	check_numbers(s, x, y, inverse, some);
	free(x);
	free(y);
}

static void try(size_t rows, size_t columns, size_t count, enum way way, size_t some)
{
	const struct shape s = {rows, columns, columns, 1, count, rows * columns, 0};

	for (int inverse = 0; inverse < 2; inverse++)
		try_with(d, &s, inverse, way, some);
}

/* Tests ----------------------------------------------------------------------------------- */

/* The first test: nothing has loaded cuFFT yet. */
static void test_without_cufft(void **state)
{
	struct hct_diag diag = {{0}};
	float x[25] = {1}, y[25];

	(void)state;
	if (!held)
		skip();
	assert_int_equal(matrices[0][1](d, x, y, 5, 5, 5, 1, 25, &diag), HCT_ERR_UNSUPPORTED);
	assert_non_null(strstr(diag.text, "HCT_CUFFT"));
	assert_non_null(strstr(diag.text, "/nowhere"));
	try(4, 4, 3, HOST, 0);
	unsetenv("HCT_CUFFT");
	diag.text[0] = 0;
	if (vectors[1][1](d, x, y, 25, 1, 25, &diag) == HCT_ERR_UNSUPPORTED)
		assert_non_null(strstr(diag.text, "libcufft"));
	setenv("HCT_CUFFT", getenv("HCT_TEST_PLUGIN"), 1);
}

static void test_vectors(void **state)
{
	static const size_t odd[] = {97,   100,  127,  129,  251,  255,  256,   257,  512,
				     1000, 1009, 1024, 4095, 4096, 8192, 16383, 16384};

	(void)state;
	for (size_t n = 1; n <= 40; n++)
		try(1, n, 9 + n % 3, n % 2 ? DEVICE : DEVICE_IN_PLACE, 0);
	for (size_t n = 64; n <= 128; n *= 2)
		try(1, n, 300, DEVICE, 40);
	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
		try(1, odd[i], 8, i % 2 ? HOST : DEVICE, 0);
}

/* Every shape that the fused kernel has. */
static void test_small_matrices(void **state)
{
	(void)state;
	for (size_t rows = 1; rows <= 128; rows *= 2)
		for (size_t columns = 1; columns <= 128; columns *= 2) {
			size_t per = 128 / rows,
			       count = rows * columns < 4096 ? per + per / 2 + 1 : 2;

			try(rows, columns, count, rows < columns ? DEVICE : DEVICE_IN_PLACE, 9);
		}
}

static void test_matrices(void **state)
{
	static const size_t sides[][2] = {{2, 3},   {3, 2},   {3, 5},     {7, 1},     {200, 1},
					  {1, 9},   {5, 256}, {130, 6},   {37, 53},   {100, 100},
					  {64, 96}, {96, 64}, {129, 128}, {256, 256}, {31, 1000}};

	(void)state;
	for (size_t i = 0; i < sizeof sides / sizeof *sides; i++)
		try(sides[i][0], sides[i][1], 9, (enum way)(i % WAYS), 0);
	/* plans are for so many */
	try(3, 5, 2, DEVICE, 0);
	try(3, 5, 40, DEVICE, 0);
}

/* Gaps between rows and matrices, and matrices side by side. */
static void test_places(void **state)
{
	static const struct shape shapes[] = {
		{1, 8, 8, 1, 50, 11, 0},     {1, 7, 7, 1, 50, 11, 0},
		{1, 100, 100, 1, 7, 103, 0}, {8, 16, 19, 1, 5, 200, 0},
		{9, 5, 7, 1, 5, 70, 0},      {16, 8, 50, 1, 5, 9, 0},
		{6, 10, 64, 1, 5, 12, 0},    {128, 128, 131, 1, 2, 17000, 0},
		{50, 1, 3, 1, 4, 151, 0},    {32, 1, 3, 1, 4, 100, 0},
		{50, 1, 9, 1, 4, 2, 0},      {4, 4, 4, 1, 1, 0, 0},
		{5, 4, 4, 1, 1, 0, 0},       {128, 4, 6, 1, 3, 768, 0}};

	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (int inverse = 0; inverse < 2; inverse++)
			for (enum way way = DEVICE; way < WAYS; way++)
				try_with(d, &shapes[i], inverse, way, 0);
}

static void test_tiles(void **state)
{
	static const struct shape shapes[] = {
		{8, 8, 83, 3, 10, 8, 8 * 83},     {8, 8, 8, 20, 1, 8, 64},
		{16, 4, 300, 2, 70, 4, 16 * 300}, {128, 128, 260, 2, 2, 128, 128 * 260},
		{1, 64, 130, 5, 2, 64, 130},      {32, 1, 9, 2, 9, 1, 32 * 9},
		{64, 64, 193, 2, 3, 64, 64 * 193}};

	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (int inverse = 0; inverse < 2; inverse++)
			try_with(d, &shapes[i], inverse, i % 2 ? DEVICE : DEVICE_IN_PLACE, 0);
}

/* More rows than a grid is high. */
static void test_many(void **state)
{
	(void)state;
	try(1, 4, 70001, DEVICE, 3000);
	try(1, 5, 66001, DEVICE_IN_PLACE, 3000);
	try(2, 2, 70001, DEVICE, 3000);
	try(2, 3, 66001, DEVICE, 3000);
}

/* So many that they are done in parts, by device and host. */
static void test_parts(void **state)
{
	const struct hct_gpu_dct_options small = {.memory = 4 << 20};
	hct_gpu_dct *mine = d;
	struct shape gaps = {1, 1200, 1200, 1, 700, 1201, 0};

	(void)state;
	assert_int_equal(create(&small, &d, NULL), HCT_OK);
	try(1, 1100, 700, DEVICE, 20);
	try(1, 1100, 700, DEVICE_IN_PLACE, 20);
	try(1, 16, 40000, HOST, 20);
	try(10, 11, 5000, HOST_IN_PLACE, 20);
	try_with(d, &gaps, 0, HOST, 20);
	try_with(d, &gaps, 1, HOST, 20);
	destroy(d);
	d = mine;
	/* more than one pinned buffer */
	try(1, 9000, 150, HOST, 9);
}

/* The default stream of a device is the context's own; another context's is shared. */
static void test_stream(void **state)
{
	struct hct_gpu_dct_options options = {.stream = stream_of(d)};
	hct_gpu_dct *mine = d, *other;
	float x[48], y[48] = {0}, *on;
	uint32_t seed = 1;

	(void)state;
	for (size_t i = 0; i < 48; i++)
		x[i] = uniform(&seed);
	assert_int_equal(create(&options, &other, NULL), HCT_OK);
	assert_ptr_equal(stream_of(other), stream_of(d));
	on = on_device(x, sizeof x);
	/* there and back: the second waits for the first without being told */
	for (int i = 0; i < 4; i++) {
		assert_int_equal(vectors[i % 2][0](i % 2 ? mine : other, on, on, 48, 1, 48, NULL),
				 HCT_OK);
	}
	assert_int_equal(wait(mine, NULL), HCT_OK);
	assert_int_equal(class->copy(device, y, on, sizeof y, NULL, NULL), HCT_OK);
	for (size_t i = 0; i < 48; i++)
		assert_float_equal(x[i], y[i], 1e-5);
	class->free(device, on);
	destroy(other);
	try(1, 33, 3, DEVICE, 0);
}

static void *worker(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	size_t bad = 0;

	for (unsigned i = 0; i < 24; i++) {
		unsigned kind = (seed + i) % 6;
		const struct shape s = {kind % 2 ? 6 : 8,
					kind / 2 ? 5 + kind : 16,
					kind / 2 ? 5 + kind : 16,
					1,
					7 + seed,
					300,
					0};
		float *x = make_numbers(&s, seed + i), *y = room(extent(&s) * sizeof *y);
		float *z = room(extent(&s) * sizeof *z);

		bad += transform(d, &s, x, y, 0, (enum way)(i % WAYS), NULL) != HCT_OK;
		bad += transform(d, &s, y, z, 1, (enum way)((i + seed) % WAYS), NULL) != HCT_OK;
		for (size_t j = 0; j < 3; j++)
			for (size_t k = 0; k < s.rows * s.columns; k++) {
				size_t at = place(&s, j, k / s.columns) + k % s.columns;

				bad += !(fabsf(z[at] - x[at]) < 1e-4f);
			}
		free(x);
		free(y);
		free(z);
	}
	return (void *)bad;
}

static void test_threads(void **state)
{
	pthread_t threads[THREADS];
	void *bad;

	(void)state;
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, worker, (void *)i), 0);
	for (size_t i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], &bad), 0);
		assert_null(bad);
	}
}

static void test_wrong(void **state)
{
	const struct hct_gpu_dct_options nowhere = {.device = 99}, small = {.memory = 1 << 16};
	const size_t huge = (size_t)1 << 31;
	hct_gpu_dct *none = d, *little;
	struct hct_diag diag;
	float x[64] = {0};

	(void)state;
#define IS(error, ...)                                                                             \
	do {                                                                                       \
		diag.text[0] = 0;                                                                  \
		assert_int_equal(__VA_ARGS__, error);                                              \
		assert_true(error == HCT_OK || diag.text[0]);                                      \
	} while (0)
	IS(HCT_ERR_UNSUPPORTED, create(&nowhere, &none, &diag));
	assert_null(none);
	for (int i = 0; i < 2; i++)
		for (int host = 0; host < 2; host++) {
			IS(HCT_ERR_ARGUMENT, vectors[i][host](NULL, x, x, 8, 1, 8, &diag));
			IS(HCT_ERR_ARGUMENT, vectors[i][host](d, NULL, x, 8, 1, 8, &diag));
			IS(HCT_ERR_ARGUMENT, vectors[i][host](d, x, NULL, 8, 1, 8, &diag));
			IS(HCT_ERR_ARGUMENT, vectors[i][host](d, x, x, 0, 1, 8, &diag));
			IS(HCT_ERR_ARGUMENT, vectors[i][host](d, x, x, 8, 2, 7, &diag));
			IS(HCT_ERR_ARGUMENT, vectors[i][host](d, x, x, 8, SIZE_MAX, 8, &diag));
			IS(HCT_ERR_LIMIT, vectors[i][host](d, x, x, huge, 1, huge, &diag));
			IS(HCT_OK, vectors[i][host](d, NULL, NULL, 8, 0, 0, &diag));
			IS(HCT_OK, vectors[i][host](d, NULL, NULL, 7, 0, 0, &diag));
			IS(HCT_ERR_ARGUMENT, matrices[i][host](d, x, x, 4, 4, 3, 1, 16, &diag));
			IS(HCT_ERR_ARGUMENT, matrices[i][host](d, x, x, 4, 4, 4, 2, 15, &diag));
			IS(HCT_ERR_ARGUMENT, matrices[i][host](d, x, x, 4, 4, 7, 2, 4, &diag));
			IS(HCT_ERR_ARGUMENT, matrices[i][host](d, x, x, 0, 4, 4, 1, 16, &diag));
			IS(HCT_ERR_ARGUMENT,
			   matrices[i][host](d, x, x, 4, 4, SIZE_MAX / 2, 1, 16, &diag));
			IS(HCT_ERR_LIMIT,
			   matrices[i][host](d, x, x, 1 << 16, 1 << 15, 1 << 15, 1, 0, &diag));
		}
	for (int i = 0; i < 2; i++) {
		IS(HCT_ERR_ARGUMENT, tiles[i](d, x, x, 8, 8, 8, 3, 4, &diag));
		IS(HCT_ERR_ARGUMENT, tiles[i](d, x, x, 256, 8, 8, 256, 4, &diag));
		IS(HCT_ERR_ARGUMENT, tiles[i](d, x, x, 8, 8, 8, 0, 4, &diag));
		IS(HCT_ERR_ARGUMENT, tiles[i](d, x, x, 8, 10, 10, 4, 4, &diag));
		IS(HCT_ERR_ARGUMENT, tiles[i](d, x, x, 8, 8, 7, 4, 4, &diag));
		IS(HCT_ERR_ARGUMENT, tiles[i](d, NULL, x, 8, 8, 8, 4, 4, &diag));
		IS(HCT_OK, tiles[i](d, x, x, 0, 8, 8, 4, 4, &diag));
	}
	/* no more memory than was allowed; what does fit still works */
	assert_int_equal(create(&small, &little, NULL), HCT_OK);
	{
		float *big = room((1 << 16) * sizeof *big);

		memset(big, 0, (1 << 16) * sizeof *big);
		IS(HCT_ERR_NOMEM, vectors[0][1](little, big, big, 50000, 1, 50000, &diag));
		IS(HCT_OK, vectors[0][1](little, big, big, 100, 30, 100, &diag));
		free(big);
	}
	destroy(little);
#undef IS
}

/* Transforms with calls that fail; returns whether one did.  Afterwards the context works. */
static int fail_with(const char *text, const struct shape *s, const float *x, float *y)
{
	struct hct_diag diag = {{0}};
	size_t before = held();
	hct_gpu_dct *c = NULL;
	hct_error e;

	setenv("CUDA_EMULATOR_FAIL", text, 1);
	e = create(NULL, &c, &diag);
	for (int i = 0; i < 2 && !e; i++)
		e = call(c, s, x, y, i, 1, &diag);
	unsetenv("CUDA_EMULATOR_FAIL");
	assert_true(!e || e == HCT_ERR_NOMEM || e == HCT_ERR_IO);
	assert_int_equal(e != HCT_OK, diag.text[0] != 0);
	if (c) {
		if (e)
			if (call(c, s, x, y, 1, 1, &diag))
				fail_msg("after %s: %s", text, diag.text);
		check_numbers(s, x, y, 1, 0);
	}
	destroy(c);
	assert_int_equal(held(), before);
	return e != HCT_OK;
}

/* Each call of CUDA or cuFFT fails, it alone or it and all that follow. */
static void test_failing(void **state)
{
	static const char *const names[] = {"cufft",          "launch", "cudaMalloc",
					    "cudaMallocHost", "any",    "cudaMemcpyAsync"};
	const struct shape s = {6, 10, 10, 1, 9, 60, 0};
	float *x, *y;
	char text[64];

	(void)state;
	if (!held)
		skip();
	x = make_numbers(&s, 1);
	y = room(extent(&s) * sizeof *y);
	memcpy(y, x, extent(&s) * sizeof *y);
	for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
		unsigned n = 0;

		do {
			assert_true(++n < 300);
			if (strcmp(names[k], "cufft") != 0) {
				snprintf(text, sizeof text, "%s:%u:1", names[k], n);
				fail_with(text, &s, x, y);
			}
			snprintf(text, sizeof text, "%s:%u", names[k], n);
		} while (fail_with(text, &s, x, y));
		assert_true(n > 1);
	}
	free(x);
	free(y);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_cufft),  cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_small_matrices), cmocka_unit_test(test_matrices),
		cmocka_unit_test(test_places),         cmocka_unit_test(test_tiles),
		cmocka_unit_test(test_many),           cmocka_unit_test(test_parts),
		cmocka_unit_test(test_stream),         cmocka_unit_test(test_threads),
		cmocka_unit_test(test_wrong),          cmocka_unit_test(test_failing),
	};

	return cmocka_run_group_tests(tests, open_plugin, close_plugin);
}
