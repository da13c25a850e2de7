/* The search through the trellis: every variant finds the same, and nothing costs less. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/dequant.h"
#include "codec/viterbi.h"
#include "tcq_make.h"

#define MAX_GROUPS 70
#define MAX_PERIOD 300

/* A layer with column classes, a segment, and what is found in it. */
struct subject {
	struct hct_tcq_layer layer;
	struct hct_viterbi v;
	uint8_t next[HCT_TCQ_MAX_STATES][2];
	uint8_t columns[MAX_PERIOD + HCT_GROUP];
	float x[MAX_GROUPS * HCT_GROUP];
	struct hct_viterbi_segment s;
	uint8_t map[MAX_GROUPS], codes[MAX_GROUPS * HCT_GROUP];
	uint64_t planes[MAX_GROUPS * HCT_TCQ_MAX_RAW];
	struct hct_tcq_exception exceptions[MAX_GROUPS * HCT_GROUP];
	void *scratch;
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

static void random_layer(struct subject *u, unsigned kind, float lambda, int offsets)
{
	struct hct_tcq_layer *l = &u->layer;

	*l = (struct hct_tcq_layer){.states_log2 = 3 + kind % 3,
				    .column_classes = 1u << kind / 3 % 3,
				    .row_classes = 1 + tcq_below(16),
				    .run_log2 = tcq_below(4),
				    .raw_bits = kind % 2 ? tcq_below(8) : 0,
				    .step = (float)ldexp(.5 + uniform(), (int)tcq_below(40) - 20)};
	for (unsigned k = 0; k < l->row_classes; k++)
		for (unsigned q = 0; q < l->column_classes; q++)
			for (unsigned p = 0; p < 2; p++) {
				uint8_t *f = l->freq[k][q][p];

				tcq_random_freq(f, 2 + tcq_below(5));
				/* An even and an odd symbol must exist. */
				for (unsigned s = 15; s < 17; s++)
					for (unsigned t = 0; !f[s]; t++)
						if (f[t] > 1) {
							f[t]--;
							f[s]++;
						}
			}
	for (unsigned i = 0; i < HCT_TCQ_POINTS && !l->raw_bits && offsets; i++)
		l->offset[i] = (int8_t)((int)tcq_below(2u * (unsigned)offsets + 1) - offsets);
	hct_viterbi_init(&u->v, l, lambda);
	hct_trellis_init(l->states_log2, u->next);
}

static void random_segment(struct subject *u, size_t groups, uint32_t period)
{
	struct hct_viterbi_segment *s = &u->s;
	double width = ldexp(6, (int)u->layer.raw_bits);

	for (uint32_t i = 0; i < period; i++)
		u->columns[i] = (uint8_t)tcq_below(u->layer.column_classes);
	for (uint32_t i = 0; i < HCT_GROUP; i++)
		u->columns[period + i] = u->columns[i % period];
	for (size_t i = 0; i < groups * HCT_GROUP; i++)
		u->x[i] = (float)(gaussian() * width * u->layer.step * (i / 256 % 2 ? 1 : .3));
	*s = (struct hct_viterbi_segment){.x = u->x,
					  .groups = groups,
					  .column_classes = u->columns,
					  .column = tcq_below(period),
					  .period = period,
					  .map = u->map,
					  .run_log2 = u->layer.run_log2,
					  .choose = 1,
					  .codes = u->codes,
					  .planes = u->planes,
					  .exceptions = u->exceptions};
}

static int by_element(const void *a, const void *b)
{
	const struct hct_tcq_exception *x = a, *y = b;

	return x->element < y->element ? -1 : x->element > y->element;
}

/* Exceptions come in any order, and are sorted. */
static void find(struct subject *u, hct_simd simd)
{
	memset(u->codes, 0xee, sizeof u->codes);
	memset(u->planes, 0xee, sizeof u->planes);
	memset(u->exceptions, 0xee, sizeof u->exceptions);
	memset(u->scratch, 0xee, hct_viterbi_scratch(MAX_GROUPS));
	hct_viterbi_find(simd)(&u->v, &u->s, u->scratch);
	assert_true(u->s.exception_count <= u->s.groups * HCT_GROUP);
	qsort(u->exceptions, u->s.exception_count, sizeof *u->exceptions, by_element);
}

static struct subject *create(void)
{
	struct subject *u = calloc(1, sizeof *u);

	u->scratch = aligned_alloc(64, (hct_viterbi_scratch(MAX_GROUPS) + 63) / 64 * 64);
	return u;
}

static void destroy(struct subject *u)
{
	free(u->scratch);
	free(u);
}

/* What every variant must find just as the scalar one. */
static void same_everywhere(struct subject *u)
{
	struct subject *v = malloc(sizeof *v);

	if (u->s.choose)
		memset(u->map, 0xee, sizeof u->map);
	find(u, HCT_SIMD_SCALAR);
	memcpy(v, u, sizeof *v);
	for (int simd = HCT_SIMD_AVX2; simd <= HCT_SIMD_AVX512; simd++) {
		if (!hct_simd_supported(simd))
			continue;
		if (u->s.choose)
			memset(u->map, 0xee, sizeof u->map);
		find(u, simd);
		assert_memory_equal(u->codes, v->codes, sizeof u->codes);
		assert_memory_equal(u->planes, v->planes, sizeof u->planes);
		assert_memory_equal(u->map, v->map, sizeof u->map);
		assert_int_equal(u->s.exception_count, v->s.exception_count);
		assert_memory_equal(u->exceptions, v->exceptions, sizeof u->exceptions);
	}
	free(v);
}

/* The value of an element in step / 64, as viterbi.h has it. */
static int rounded(const struct subject *u, size_t i)
{
	float y = u->x[i] * (64 / u->v.step);

	y = y > 0x1p21f ? 0x1p21f : y < -0x1p21f ? -0x1p21f : y;
	return (int)rintf(y);
}

static int point_of(const struct subject *u, unsigned parity, int code)
{
	int n = 64 * (2 * (code - (HCT_TCQ_ZERO << u->v.raw_bits)) + (int)parity);

	return u->v.raw_bits ? n : n + u->layer.offset[32 * parity + (unsigned)code];
}

/* Cost of a code for element i; NAN-like when it has no frequency. */
static long cost_of(const struct subject *u, size_t i, unsigned row, unsigned parity, int code)
{
	uint32_t column = (uint32_t)((u->s.column + i) % u->s.period);
	unsigned q = u->columns[column];
	long d = labs((long)rounded(u, i) - point_of(u, parity, code)), all;
	unsigned rate = u->v.rate[row][parity][q][code >> u->v.raw_bits];

	if (!u->layer.freq[row][q][parity][code >> u->v.raw_bits])
		return 1000000;
	d = d > 255 ? 255 : d;
	all = rate + (d * d >> 4);
	return all;
}

/* The cost of what was found for lane `lane`, every rule of the decoder checked on the way. */
static long found_cost(const struct subject *u, unsigned lane, const uint8_t *is_exception)
{
	unsigned state = 0, b = u->v.raw_bits;
	long total = 0;

	for (size_t g = 0; g < u->s.groups; g++) {
		size_t i = g * HCT_GROUP + lane;
		unsigned at = hct_position(lane), code = u->codes[g * HCT_GROUP + at], raw = 0;
		unsigned row = u->map[g >> u->s.run_log2], parity = state & 1;
		unsigned q = u->columns[(u->s.column + i) % u->s.period], c;

		for (unsigned j = 0; j < b; j++)
			raw |= (unsigned)(u->planes[g * b + j] >> at & 1) << j;
		c = (code & 31) << b | raw;
		assert_int_equal(code >> 6, q);
		assert_int_equal(code >> 5 & 1, parity);
		assert_true(row < u->layer.row_classes);
		assert_true(u->layer.freq[row][q][parity][code & 31] > 0);
		total += is_exception[i] ? u->v.exception : cost_of(u, i, row, parity, (int)c);
		state = u->next[state][c & 1];
	}
	return total;
}

static void mark_exceptions(const struct subject *u, uint8_t *is_exception)
{
	memset(is_exception, 0, MAX_GROUPS * HCT_GROUP);
	for (size_t j = 0; j < u->s.exception_count; j++) {
		const struct hct_tcq_exception *x = &u->exceptions[j];
		unsigned parity, at = hct_position(x->element % HCT_GROUP);
		size_t g = x->element / HCT_GROUP;
		unsigned code = u->codes[g * HCT_GROUP + at], raw = 0;
		double value, wanted = u->x[x->element] / (double)u->v.step;

		assert_true(x->element < u->s.groups * HCT_GROUP);
		assert_false(is_exception[x->element]);
		is_exception[x->element] = 1;
		for (unsigned k = 0; k < u->v.raw_bits; k++)
			raw |= (unsigned)(u->planes[g * u->v.raw_bits + k] >> at & 1) << k;
		parity = code >> 5 & 1;
		value = point_of(u, parity, (int)((code & 31) << u->v.raw_bits | raw)) / 64.;
		/* Its value ends half a step from the element at most, as far as can be. */
		assert_true(abs(x->value) <= HCT_TCQ_MAX_EXCEPTION);
		if (fabs(wanted) < HCT_TCQ_MAX_EXCEPTION / 2)
			assert_true(fabs(value + x->value - wanted) <= .5 + fabs(wanted) * 1e-6);
		else
			assert_true(x->value * wanted > 0);
	}
}

/* The least cost of element i on a branch, of all codes that come within 4 steps. */
static long branch_cost(const struct subject *u, size_t i, unsigned row, unsigned parity,
			unsigned z)
{
	unsigned b = u->v.raw_bits;
	int nearest = (int)floor(rounded(u, i) / 128.) + (HCT_TCQ_ZERO << b);
	long least = u->v.exception;

	for (int c = nearest - 3; c <= nearest + 3; c++) {
		int n = 64 * (2 * (c - (HCT_TCQ_ZERO << b)) + (int)parity);
		long cost;

		if (c < 0 || c >= HCT_TCQ_SYMBOLS << b || (unsigned)c % 2 != z ||
		    rounded(u, i) - n >= 256 || n - rounded(u, i) > 256)
			continue;
		cost = cost_of(u, i, row, parity, c);
		least = cost < least ? cost : least;
	}
	return least;
}

/* The least cost that any path of a lane has, in numbers that nothing overflows. */
static long least_cost(const struct subject *u, unsigned lane)
{
	long cost[HCT_TCQ_MAX_STATES], to[HCT_TCQ_MAX_STATES], least = 1000000000;
	unsigned states = 1u << u->v.states_log2;

	for (unsigned t = 0; t < states; t++)
		cost[t] = t ? 1000000000 : 0;
	for (size_t g = 0; g < u->s.groups; g++) {
		unsigned row = u->map[g >> u->s.run_log2];
		long branch[2][2];

		for (unsigned k = 0; k < 4; k++)
			branch[k >> 1][k & 1] =
				branch_cost(u, g * HCT_GROUP + lane, row, k >> 1, k & 1);
		for (unsigned t = 0; t < states; t++)
			to[t] = 1000000000;
		for (unsigned t = 0; t < states; t++)
			for (unsigned z = 0; z < 2; z++) {
				long c = cost[t] + branch[t & 1][z];
				unsigned n = u->next[t][z];

				to[n] = c < to[n] ? c : to[n];
			}
		memcpy(cost, to, sizeof cost);
	}
	for (unsigned t = 0; t < states; t++)
		least = cost[t] < least ? cost[t] : least;
	return least;
}

static void expect_least(const struct subject *u)
{
	static uint8_t is_exception[MAX_GROUPS * HCT_GROUP];

	mark_exceptions(u, is_exception);
	for (unsigned lane = 0; lane < HCT_GROUP; lane++)
		assert_int_equal(found_cost(u, lane, is_exception), least_cost(u, lane));
}

static void variants_agree_and_nothing_costs_less(void **state)
{
	static const float lambdas[] = {.01f, .1f, .36f, .7f};
	struct subject *u = create();

	(void)state;
	tcq_seed = 1;
	for (unsigned kind = 0; kind < 144; kind++) {
		size_t groups =
			kind % 5 ? 1 + tcq_below(kind % 2 ? MAX_GROUPS : 12) : 1 + kind / 5 % 6;
		uint32_t period = 1 + tcq_below(kind % 3 ? MAX_PERIOD : 63);

		random_layer(u, kind, lambdas[kind % 4], kind % 7 ? 127 : 0);
		random_segment(u, groups, period);
		u->s.choose = kind % 11 != 0;
		for (unsigned r = 0; r < MAX_GROUPS; r++)
			u->map[r] = (uint8_t)tcq_below(u->layer.row_classes);
		same_everywhere(u);
		expect_least(u);
	}
	destroy(u);
}

/* What a lane costs when all sequences of symbols are tried, by true distances. */
static long exhaust(const struct subject *u, unsigned lane, size_t g, unsigned state)
{
	size_t i = g * HCT_GROUP + lane;
	unsigned row = u->map[g >> u->s.run_log2], parity = state & 1;
	unsigned q = u->columns[(u->s.column + i) % u->s.period];
	long least = 1000000000, rest[2];

	if (g == u->s.groups)
		return 0;
	for (unsigned z = 0; z < 2; z++) {
		rest[z] = exhaust(u, lane, g + 1, u->next[state][z]);
		if (u->v.exception + rest[z] < least)
			least = u->v.exception + rest[z];
	}
	for (int c = 0; c < HCT_TCQ_SYMBOLS; c++) {
		long d = labs((long)rounded(u, i) - point_of(u, parity, c));
		long cost = u->v.rate[row][parity][q][c] + (d * d >> 4) + rest[c & 1];

		if (u->layer.freq[row][q][parity][c] && cost < least)
			least = cost;
	}
	return least;
}

static void no_sequence_of_symbols_costs_less(void **state)
{
	static uint8_t is_exception[MAX_GROUPS * HCT_GROUP];
	struct subject *u = create();

	(void)state;
	tcq_seed = 2;
	for (unsigned kind = 0; kind < 36; kind += 2) {
		random_layer(u, kind, .2f, 16);
		assert_true(u->v.exception < 3000);
		random_segment(u, 8, 100);
		find(u, HCT_SIMD_SCALAR);
		mark_exceptions(u, is_exception);
		for (unsigned lane = 0; lane < HCT_GROUP; lane++)
			assert_int_equal(found_cost(u, lane, is_exception), exhaust(u, lane, 0, 0));
	}
	destroy(u);
}

/* With the dearest exceptions that there can be, metrics of 16 bits are at their limit: tables that
 * have few symbols, and values that suit one branch and no other. */
static void dearest_exceptions(void **state)
{
	struct subject *u = create();

	(void)state;
	tcq_seed = 3;
	for (unsigned kind = 0; kind < 240; kind++) {
		struct hct_tcq_layer *l = &u->layer;

		random_layer(u, 2, 1, 0);
		*l = (struct hct_tcq_layer){.states_log2 = 3 + kind % 3,
					    .column_classes = 1,
					    .row_classes = 16,
					    .raw_bits = 0,
					    .step = 1};
		for (unsigned k = 0; k < 16; k++)
			for (unsigned p = 0; p < 2; p++) {
				unsigned z = kind % 2 ? tcq_below(2) : 0;

				memset(l->freq[k][0][p], 0, HCT_TCQ_SYMBOLS);
				l->freq[k][0][p][15 + z] = (uint8_t)(255 - tcq_below(2) * 127);
				l->freq[k][0][p][16 - z] =
					(uint8_t)(256 - l->freq[k][0][p][15 + z]);
			}
		hct_viterbi_init(&u->v, l, kind % 4 ? 100 : 3);
		hct_trellis_init(l->states_log2, u->next);
		random_segment(u, 1 + kind % MAX_GROUPS, 1);
		for (size_t i = 0; i < u->s.groups * HCT_GROUP; i++)
			u->x[i] = (float)tcq_below(3) * (kind % 3 ? 1 : 100) -
				  (float)tcq_below(2) * 2;
		u->s.choose = 0;
		u->s.run_log2 = 0;
		for (unsigned r = 0; r < MAX_GROUPS; r++)
			u->map[r] = (uint8_t)tcq_below(16);
		same_everywhere(u);
		expect_least(u);
	}
	destroy(u);
}

/* Costs that no exception may pass: 5 branches lead from any state to any other, so that states
 * differ by 5 exceptions at most, and sums that are compared by 6. */
static void exceptions_fit_16_bits(void **state)
{
	struct subject *u = create();

	(void)state;
	tcq_seed = 4;
	for (float lambda = 0x1p-20f; lambda < 0x1p20f; lambda *= 2) {
		random_layer(u, 2, lambda, 0);
		assert_true(6 * u->v.exception < 32768);
		assert_true(5 * u->v.exception < 30000); /* what cannot be */
	}
	destroy(u);
}

static void prev_is_next_backwards(void **state)
{
	(void)state;
	for (unsigned log2 = 3; log2 <= 5; log2++) {
		uint8_t next[HCT_TCQ_MAX_STATES][2];
		unsigned seen = 0;

		hct_trellis_init(log2, next);
		for (unsigned t = 0; t < 1u << log2; t++)
			for (unsigned z = 0; z < 2; z++) {
				unsigned p = hct_viterbi_prev(log2, t, z);

				assert_int_equal(p >> 5, z);
				assert_true((p & 31) < 1u << log2);
				assert_int_equal(next[p & 31][z], t);
				seen++;
			}
		assert_int_equal(seen, 2u << log2);
	}
}

/* From state 0 every state is reached in as many steps as it has bits. */
static void every_state_is_reached(void **state)
{
	(void)state;
	for (unsigned log2 = 3; log2 <= 5; log2++) {
		uint8_t next[HCT_TCQ_MAX_STATES][2];

		hct_trellis_init(log2, next);
		for (unsigned from = 0; from < 1u << log2; from++) {
			uint64_t set = (uint64_t)1 << from;

			for (unsigned g = 0; g < log2; g++) {
				uint64_t to = 0;

				for (unsigned t = 0; t < 1u << log2; t++)
					if (set >> t & 1)
						to |= (uint64_t)1 << next[t][0] |
						      (uint64_t)1 << next[t][1];
				set = to;
			}
			assert_true(set == ((uint64_t)1 << (1u << log2)) - 1);
		}
	}
}

static void extreme_values(void **state)
{
	static const float values[] = {0,        -0.f,     1e-45f,    -1e-40f, FLT_MIN,  FLT_MAX,
				       -FLT_MAX, INFINITY, -INFINITY, 1e30f,   -2.5e20f, 1e9f};
	struct subject *u = create();

	(void)state;
	tcq_seed = 5;
	for (unsigned kind = 0; kind < 72; kind++) {
		random_layer(u, kind, .36f, 127);
		u->layer.step = kind % 3 == 0   ? HCT_TCQ_MIN_STEP
				: kind % 3 == 1 ? HCT_TCQ_MAX_STEP
						: u->layer.step;
		hct_viterbi_init(&u->v, &u->layer, .36f);
		random_segment(u, 20, 77);
		for (size_t i = 0; i < 20 * HCT_GROUP; i += 1 + tcq_below(5))
			u->x[i] = values[tcq_below(sizeof values / sizeof *values)];
		same_everywhere(u);
		expect_least(u);
	}
	destroy(u);
}

/* Squared error of the first n elements, in step^2. */
static double error_of(const struct subject *u, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned at = hct_position(i % HCT_GROUP), raw = 0, b = u->v.raw_bits;
		unsigned code = u->codes[i / HCT_GROUP * HCT_GROUP + at];
		double value = u->x[i] / (double)u->v.step;

		for (unsigned k = 0; k < b; k++)
			raw |= (unsigned)(u->planes[i / HCT_GROUP * b + k] >> at & 1) << k;
		value -= point_of(u, code >> 5 & 1, (int)((code & 31) << b | raw)) / 64.;
		for (size_t j = 0; j < u->s.exception_count; j++)
			if (u->exceptions[j].element == i)
				value -= u->exceptions[j].value;
		sum += value * value;
	}
	return sum;
}

static void what_fills_up_does_no_harm(void **state)
{
	static const float fillers[] = {1e30f, -7, INFINITY, 3e-39f};
	struct subject *u = create();
	size_t n = 12 * HCT_GROUP - 40;

	(void)state;
	tcq_seed = 6;
	for (unsigned kind = 0; kind < 18; kind++) {
		double plain;

		random_layer(u, kind, .3f, 20);
		random_segment(u, 12, 64);
		for (size_t i = n; i < 12 * HCT_GROUP; i++)
			u->x[i] = 0;
		find(u, HCT_SIMD_SCALAR);
		plain = error_of(u, n);
		for (unsigned f = 0; f < 4; f++) {
			for (size_t i = n; i < 12 * HCT_GROUP; i++)
				u->x[i] = fillers[f] * (float)gaussian();
			u->s.choose = 0; /* the map as it was */
			same_everywhere(u);
			expect_least(u);
			assert_true(error_of(u, n) < 1.1 * plain + 5);
		}
	}
	destroy(u);
}

/* Of two tables, one for small and one for large values, each run gets the right one. */
static void runs_get_the_class_that_suits(void **state)
{
	struct subject *u = create();

	(void)state;
	tcq_seed = 7;
	random_layer(u, 0, .3f, 0);
	u->layer.row_classes = 2;
	u->layer.run_log2 = 1;
	u->layer.column_classes = 1;
	for (unsigned p = 0; p < 2; p++) {
		memset(u->layer.freq[0][0][p], 2, HCT_TCQ_SYMBOLS);
		memset(u->layer.freq[0][0][p] + 15, 98, 2);
		memset(u->layer.freq[1][0][p], 8, HCT_TCQ_SYMBOLS);
	}
	hct_viterbi_init(&u->v, &u->layer, .3f);
	random_segment(u, 33, 1);
	for (size_t i = 0; i < 33 * HCT_GROUP; i++)
		u->x[i] = (float)(gaussian() * (i / 256 % 2 ? 12 : .7)) * u->layer.step;
	for (int simd = HCT_SIMD_SCALAR; simd <= HCT_SIMD_AVX512; simd++) {
		if (!hct_simd_supported(simd))
			continue;
		find(u, simd);
		for (unsigned r = 0; r < 17; r++)
			assert_int_equal(u->map[r], r / 2 % 2);
	}
	destroy(u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(variants_agree_and_nothing_costs_less),
		cmocka_unit_test(no_sequence_of_symbols_costs_less),
		cmocka_unit_test(dearest_exceptions),
		cmocka_unit_test(exceptions_fit_16_bits),
		cmocka_unit_test(prev_is_next_backwards),
		cmocka_unit_test(every_state_is_reached),
		cmocka_unit_test(extreme_values),
		cmocka_unit_test(what_fills_up_does_no_harm),
		cmocka_unit_test(runs_get_the_class_that_suits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
