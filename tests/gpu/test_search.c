/* The search on a device finds what the scalar one does, to the bit. */
#include <dlfcn.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/search.h"
#include "tests/unit/tcq_make.h"

#define MOST_GROUPS 1024
#define MOST_PERIOD 300

static const struct hct_device_search_class *device;
static hct_device_searcher *searcher;

/* Segments of one layer, and where the scalar search puts what it finds. */
struct subject {
	struct hct_tcq_layer layer;
	struct hct_viterbi v;
	uint8_t columns[MOST_PERIOD + HCT_GROUP];
	struct hct_viterbi_segment s[HCT_VITERBI_BATCH];
	size_t count;
};

static double uniform(void)
{
	return (tcq_next() + .5) / 2147483648.0;
}

static double gaussian(void)
{
	double sum = -6;

	for (unsigned i = 0; i < 12; i++)
		sum += uniform();
	return sum;
}

/* kind: all states, numbers of column classes, raw bits or none, in turns. */
static void make_layer(struct subject *u, unsigned kind)
{
	struct hct_tcq_layer *l = &u->layer;

	*l = (struct hct_tcq_layer){.states_log2 = 3 + kind % 3,
				    .column_classes = 1u << kind / 3 % 3,
				    .row_classes = kind % 5 ? 1 + tcq_below(HCT_TCQ_MAX_ROWS) : 16,
				    .run_log2 = tcq_below(4),
				    .raw_bits = kind % 2 ? kind / 2 % 8 : 0,
				    .step = (float)ldexp(.5 + uniform(), (int)tcq_below(40) - 20)};
	for (unsigned k = 0; k < l->row_classes; k++)
		for (unsigned q = 0; q < l->column_classes; q++)
			for (unsigned p = 0; p < 2; p++) {
				uint8_t *f = l->freq[k][q][p];

				tcq_random_freq(f, 2 + tcq_below(5));
				for (unsigned s = 15; s < 17; s++) /* an even and an odd one */
					for (unsigned t = 0; !f[s]; t++)
						if (f[t] > 1) {
							f[t]--;
							f[s]++;
						}
			}
	for (unsigned i = 0; i < HCT_TCQ_POINTS && !l->raw_bits; i++)
		l->offset[i] = (int8_t)((int)tcq_below(255) - 127);
}

static void add_segment(struct subject *u, size_t groups, uint32_t period, int choose)
{
	struct hct_viterbi_segment *s = &u->s[u->count++];
	float *x = malloc(groups * HCT_GROUP * sizeof *x);
	double width = ldexp(6, (int)u->layer.raw_bits) * u->layer.step;

	for (size_t i = 0; i < groups * HCT_GROUP; i++)
		x[i] = (float)(gaussian() * width * (i / 256 % 2 ? 1 : .3));
	*s = (struct hct_viterbi_segment){.x = x,
					  .groups = groups,
					  .column_classes = u->columns,
					  .column = tcq_below(period),
					  .period = period,
					  .map = malloc(groups),
					  .run_log2 = u->layer.run_log2,
					  .choose = choose};
	for (size_t r = 0; r < groups; r++)
		s->map[r] = (uint8_t)tcq_below(u->layer.row_classes);
}

static void make_columns(struct subject *u, uint32_t period)
{
	for (uint32_t i = 0; i < period; i++)
		u->columns[i] = (uint8_t)tcq_below(u->layer.column_classes);
	for (uint32_t i = 0; i < HCT_GROUP; i++)
		u->columns[period + i] = u->columns[i % period];
}

static void drop_segments(struct subject *u)
{
	for (size_t i = 0; i < u->count; i++) {
		free((void *)u->s[i].x);
		free(u->s[i].map);
	}
	u->count = 0;
}

static int by_element(const void *a, const void *b)
{
	const struct hct_tcq_exception *x = a, *y = b;

	return x->element < y->element ? -1 : x->element > y->element;
}

/* One segment by the scalar search, against what the device has found in `found`. */
static size_t compare(const struct subject *u, size_t number, struct hct_viterbi_segment *found)
{
	struct hct_viterbi_segment s = u->s[number];
	size_t n = s.groups * HCT_GROUP, runs = ((s.groups - 1) >> s.run_log2) + 1;
	void *scratch = aligned_alloc(64, (hct_viterbi_scratch(s.groups) + 63) / 64 * 64);

	s.codes = malloc(n);
	s.planes = malloc(s.groups * 8 * HCT_TCQ_MAX_RAW);
	s.exceptions = malloc(n * sizeof *s.exceptions);
	found->exceptions = malloc(n * sizeof *found->exceptions);
	hct_viterbi_search_scalar(&u->v, &s, scratch);
	qsort(s.exceptions, s.exception_count, sizeof *s.exceptions, by_element);
	hct_viterbi_list_exceptions(&u->v, found);
	assert_memory_equal(found->map, s.map, runs);
	assert_memory_equal(found->codes, s.codes, n);
	if (u->v.raw_bits)
		assert_memory_equal(found->planes, s.planes, s.groups * 8 * u->v.raw_bits);
	assert_int_equal(found->exception_count, s.exception_count);
	if (s.exception_count)
		assert_memory_equal(found->exceptions, s.exceptions,
				    s.exception_count * sizeof *s.exceptions);
	free(found->exceptions);
	free(s.exceptions);
	free(s.planes);
	free(s.codes);
	free(scratch);
	return s.exception_count;
}

/* Searches all segments at once.  Returns how many exceptions there are. */
static size_t search(struct subject *u)
{
	struct hct_viterbi_segment found[HCT_VITERBI_BATCH];
	struct hct_diag diag = {""};
	size_t exceptions = 0;

	memcpy(found, u->s, sizeof found);
	for (size_t i = 0; i < u->count; i++) {
		found[i].map = malloc(u->s[i].groups);
		memcpy(found[i].map, u->s[i].map, u->s[i].groups);
		if (u->s[i].choose)
			memset(found[i].map, 0xee, u->s[i].groups);
	}
	if (device->search(searcher, &u->v, found, u->count, &diag))
		fail_msg("%s", diag.text);
	for (size_t i = 0; i < u->count; i++) {
		exceptions += compare(u, i, &found[i]);
		free(found[i].map);
	}
	return exceptions;
}

static void finds_what_the_scalar_search_does(void **state)
{
	static const float lambdas[] = {.01f, .1f, .36f, .7f};
	static struct subject u;
	size_t exceptions = 0;

	(void)state;
	tcq_seed = 1;
	for (unsigned kind = 0; kind < 48; kind++) {
		uint32_t period = 1 + tcq_below(kind % 3 ? MOST_PERIOD : 63);

		make_layer(&u, kind);
		make_columns(&u, period);
		hct_viterbi_init(&u.v, &u.layer, lambdas[kind % 4]);
		for (unsigned i = 0; i < 1 + kind % 3; i++)
			add_segment(&u, kind % 5 ? 1 + tcq_below(70) : 1 + (kind / 5 + i) % 10,
				    period, kind % 11 != 0);
		exceptions += search(&u);
		drop_segments(&u);
	}
	assert_true(exceptions > 100);
}

/* A whole segment, and as many as there can be. */
static void large_batches(void **state)
{
	static struct subject u;

	(void)state;
	tcq_seed = 2;
	make_layer(&u, 4);
	make_columns(&u, MOST_PERIOD);
	hct_viterbi_init(&u.v, &u.layer, .36f);
	add_segment(&u, MOST_GROUPS, MOST_PERIOD, 1);
	add_segment(&u, 3, MOST_PERIOD, 1);
	search(&u);
	drop_segments(&u);
	for (unsigned i = 0; i < HCT_VITERBI_BATCH; i++)
		add_segment(&u, 1 + i, MOST_PERIOD, 1);
	search(&u);
	drop_segments(&u);
}

/* One class has two symbols, and every other element is an exception. */
static void outliers(void **state)
{
	static const float values[] = {0,        -0.f,     1e-45f,    -1e-40f, FLT_MIN,  FLT_MAX,
				       -FLT_MAX, INFINITY, -INFINITY, 1e30f,   -2.5e20f, 1e9f};
	static struct subject u;
	size_t exceptions = 0;

	(void)state;
	tcq_seed = 3;
	for (unsigned kind = 0; kind < 24; kind++) {
		make_layer(&u, kind);
		u.layer.step = kind % 3 == 0   ? HCT_TCQ_MIN_STEP
			       : kind % 3 == 1 ? HCT_TCQ_MAX_STEP
					       : u.layer.step;
		for (unsigned p = 0; p < 2; p++) {
			memset(u.layer.freq[0][0][p], 0, HCT_TCQ_SYMBOLS);
			u.layer.freq[0][0][p][15] = 255;
			u.layer.freq[0][0][p][16] = 1;
		}
		make_columns(&u, 77);
		hct_viterbi_init(&u.v, &u.layer, kind % 2 ? 100 : .36f);
		add_segment(&u, 20, 77, kind % 4 != 0);
		for (size_t i = 0; i < 20 * HCT_GROUP; i += 1 + tcq_below(5))
			((float *)u.s[0].x)[i] = values[tcq_below(sizeof values / sizeof *values)];
		exceptions += search(&u);
		drop_segments(&u);
	}
	assert_true(exceptions > 1000);
}

/* What a device that fails says; then it is of no use any more. */
static void failures_are_told(void **state)
{
	struct hct_diag diag = {""};
	static struct subject u;
	hct_device_searcher *other;

	(void)state;
	assert_int_equal(device->open(0, &other, &diag), HCT_OK);
	assert_true(*device->describe(other) != '\0');
	tcq_seed = 4;
	make_layer(&u, 1);
	make_columns(&u, 64);
	hct_viterbi_init(&u.v, &u.layer, .36f);
	add_segment(&u, 3, 64, 1);
	setenv("CUDA_EMULATOR_FAIL", "cudaMalloc:1", 1);
	assert_int_equal(device->search(other, &u.v, u.s, 1, &diag), HCT_ERR_NOMEM);
	assert_non_null(strstr(diag.text, "out of memory"));
	assert_null(u.s[0].marks);
	setenv("CUDA_EMULATOR_FAIL", "launch:1", 1);
	assert_int_equal(device->search(other, &u.v, u.s, 1, &diag), HCT_ERR_IO);
	assert_null(u.s[0].marks);
	unsetenv("CUDA_EMULATOR_FAIL");
	device->close(other);
	assert_int_not_equal(device->open(1000, &other, &diag), HCT_OK);
	assert_null(other);
	device->close(NULL);
	drop_segments(&u);
}

static int open_device(void **state)
{
	const char *path = getenv("HCT_TEST_PLUGIN");
	void *plugin = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
	const struct hct_device_class *class = plugin ? dlsym(plugin, HCT_DEVICE_SYMBOL) : NULL;
	struct hct_diag diag;

	(void)state;
	if (!class || !class->search)
		return -1;
	device = class->search;
	return device->open(0, &searcher, &diag) ? -1 : 0;
}

static int close_device(void **state)
{
	(void)state;
	device->close(searcher);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_what_the_scalar_search_does),
		cmocka_unit_test(large_batches),
		cmocka_unit_test(outliers),
		cmocka_unit_test(failures_are_told),
	};

	return cmocka_run_group_tests(tests, open_device, close_device);
}
