/* Internal: the search itself, compiled once for each instruction set.  Plain loops over the 64
 * lanes of a group that the compiler turns into vectors; integers only, once values are rounded. */
#include <math.h>
#include <string.h>

#include "dequant.h"
#include "viterbi.h"

#define COSETS HCT_VITERBI_COSETS
#define NEVER  HCT_VITERBI_NEVER

enum { PICK_LOW, PICK_HIGH, PICK_EXCEPTION };

/* Scratch memory. */
struct work {
	int16_t *base; /* floor(x / (4 step)) of each element */
	uint8_t *part; /* and the rest, in step / 64 */
	uint8_t *pick; /* of each element, 2 bits for each coset */
	/* Of each element, a bit for each state: which state came before.  64 for states 0 to 15 of
	 * a group, then 64 for the others. */
	uint16_t *chosen;
	uint16_t metric[2][HCT_TCQ_MAX_STATES][HCT_GROUP] __attribute__((aligned(64)));
	uint16_t branch[COSETS][HCT_GROUP] __attribute__((aligned(64)));
};

static struct work *lay_out(void *scratch, size_t groups)
{
	struct work *w = scratch;
	uint8_t *p = (uint8_t *)(w + 1);
	size_t n = groups * HCT_GROUP;

	w->chosen = (uint16_t *)(void *)p;
	w->base = (int16_t *)(void *)(p += 4 * n);
	w->part = p += 2 * n;
	w->pick = p + n;
	return w;
}

typedef float floats __attribute__((vector_size(64)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef int16_t shorts __attribute__((vector_size(32)));
typedef uint8_t bytes __attribute__((vector_size(16)));

/* Rounds the values to step / 64, far beyond any symbol to something that is so, too. */
static void round_values(const struct hct_viterbi *v, const float *x, size_t n, struct work *w)
{
	const floats limit = (floats){0} + 0x1p21f, magic = (floats){0} + 0x1.8p23f;
	const float scale = 64 / v->step;

	for (size_t i = 0; i < n; i += 16) {
		ints beyond, whole;
		floats y;
		shorts base;
		bytes part;

		memcpy(&y, x + i, sizeof y);
		y *= scale;
		beyond = y > limit;
		y = (floats)(((ints)limit & beyond) | ((ints)y & ~beyond));
		beyond = y < -limit;
		y = (floats)(((ints)-limit & beyond) | ((ints)y & ~beyond));
		y += magic; /* its low mantissa bits now hold the integer */
		whole = (ints)y - 0x4b400000;
		base = __builtin_convertvector(whole >> 8, shorts);
		part = __builtin_convertvector(whole & 255, bytes);
		memcpy(w->base + i, &base, sizeof base);
		memcpy(w->part + i, &part, sizeof part);
	}
}

/* What the best point of each coset costs, for one group; a variant may have its own. */
static void branch_costs(const struct hct_viterbi *v, struct work *w, size_t g,
			 const uint8_t *columns, unsigned row);

/* Adds to costs what the symbols nearest to a group's elements cost in each row class. */
static void class_costs(const struct hct_viterbi *v, const struct work *w, size_t g,
			const uint8_t *columns, uint32_t costs[HCT_TCQ_MAX_ROWS]);

#ifndef HCT_VITERBI_OWN_COSTS
/* Bits and squared error of 32 symbols, of which at holds the places in pairs; d: from the nominal
 * point, in step / 64. */
static inline void cost_of(const uint32_t *pairs, const uint16_t at[32], const int16_t d[32],
			   uint16_t cost[32])
{
	uint32_t found[32];

	for (unsigned l = 0; l < 32; l++)
		found[l] = pairs[at[l]];
	for (unsigned l = 0; l < 32; l++) {
		int16_t x = (int16_t)(d[l] - (int16_t)(found[l] >> 16));
		uint16_t y = (uint16_t)(x < 0 ? -x : x);

		y = y > 255 ? 255 : y;
		cost[l] = (uint16_t)((uint16_t)found[l] + (uint16_t)((uint16_t)(y * y) >> 4));
	}
}

/* One coset of half a group. */
static void coset_costs(const struct hct_viterbi *v, struct work *w, size_t i, unsigned o,
			const uint32_t *pairs, const uint16_t columns[32], uint8_t picks[32])
{
	const int16_t zero = HCT_TCQ_ZERO;
	unsigned b = v->raw_bits;
	uint16_t *branch = w->branch[o] + i % HCT_GROUP, at[2][32], cost[2][32];
	int16_t d[2][32];

	for (unsigned l = 0; l < 32; l++) {
		int16_t part = (int16_t)(w->part[i + l] - 64 * (int)o), low = (int16_t)(part >> 15);
		int16_t k = (int16_t)(2 * (w->base[i + l] + low) + (int)(o >> 1));
		uint16_t s = (uint16_t)((k >> b) + zero), t = (uint16_t)(((k + 2) >> b) + zero);

		s = s > HCT_TCQ_SYMBOLS ? HCT_TCQ_SYMBOLS : s;
		t = t > HCT_TCQ_SYMBOLS ? HCT_TCQ_SYMBOLS : t;
		at[0][l] = (uint16_t)(columns[l] | s);
		at[1][l] = (uint16_t)(columns[l] | t);
		d[0][l] = (int16_t)(part + (256 & low));
		d[1][l] = (int16_t)(d[0][l] - 256);
	}
	cost_of(pairs, at[0], d[0], cost[0]);
	cost_of(pairs, at[1], d[1], cost[1]);
	for (unsigned l = 0; l < 32; l++) {
		uint16_t best = v->exception, pick = PICK_EXCEPTION;

		pick = cost[1][l] <= best ? PICK_HIGH : pick;
		best = cost[1][l] <= best ? cost[1][l] : best;
		pick = cost[0][l] <= best ? PICK_LOW : pick;
		best = cost[0][l] <= best ? cost[0][l] : best;
		branch[l] = best;
		picks[l] |= (uint8_t)(pick << 2 * o);
	}
}

static void branch_costs(const struct hct_viterbi *v, struct work *w, size_t g,
			 const uint8_t *columns, unsigned row)
{
	for (unsigned h = 0; h < HCT_GROUP; h += 32) {
		size_t i = g * HCT_GROUP + h;
		uint16_t places[32];
		uint8_t picks[32] = {0};

		for (unsigned l = 0; l < 32; l++)
			places[l] = (uint16_t)(columns[h + l] << 6);
		for (unsigned o = 0; o < COSETS; o++)
			coset_costs(v, w, i, o, v->pairs[row][o & 1], places, picks);
		memcpy(w->pick + i, picks, sizeof picks);
	}
}

static void class_costs(const struct hct_viterbi *v, const struct work *w, size_t g,
			const uint8_t *columns, uint32_t costs[HCT_TCQ_MAX_ROWS])
{
	for (unsigned l = 0; l < HCT_GROUP; l++) {
		size_t i = g * HCT_GROUP + l;
		int s = ((2 * w->base[i] + (w->part[i] + 64) / 128) >> v->raw_bits) + HCT_TCQ_ZERO;

		s = s < 0 ? 0 : s >= HCT_TCQ_SYMBOLS ? HCT_TCQ_SYMBOLS - 1 : s;
		for (unsigned k = 0; k < v->row_classes; k++) {
			unsigned rate = v->rate[k][0][columns[l]][s];

			costs[k] += rate < v->exception ? rate : v->exception;
		}
	}
}

#endif

/* The first groups, until every state can be reached from state 0. */
static void step_start(const struct hct_viterbi *v, struct work *w, size_t g)
{
	uint16_t(*from)[HCT_GROUP] = w->metric[g & 1], (*to)[HCT_GROUP] = w->metric[~g & 1];
	uint16_t *chosen = w->chosen + g * 2 * HCT_GROUP;

	memset(chosen, 0, 2 * HCT_GROUP * sizeof *chosen);
	for (unsigned s = 0; s < 1u << v->states_log2; s++)
		for (unsigned l = 0; l < HCT_GROUP; l++) {
			unsigned cost[2];

			for (unsigned c = 0; c < 2; c++) {
				unsigned p = v->prev[s][c], m = from[p & 31][l];

				cost[c] =
					m >= NEVER ? NEVER : m + w->branch[hct_viterbi_coset(p)][l];
			}
			to[s][l] = (uint16_t)(cost[1] < cost[0] ? cost[1] : cost[0]);
			chosen[(s >> 4) * HCT_GROUP + l] |=
				(uint16_t)((unsigned)(cost[1] < cost[0]) << (s & 15));
		}
}

/* 32 lanes of 16 bits; the compiler cuts them to what the machine has. */
typedef uint16_t lanes __attribute__((vector_size(64)));
typedef int16_t signed_lanes __attribute__((vector_size(64)));

/* Add, compare, select, for states first to first + 15 of 2^log2.  Metrics are taken modulo 65536:
 * their differences stay below 32768, since no branch costs more than an exception.  log2 and
 * first are constants: everything is unrolled. */
static inline __attribute__((always_inline)) void
step_states(struct work *w, size_t g, unsigned log2, unsigned first, lanes chosen[2])
{
	const lanes(*from)[2] = (const lanes(*)[2])w->metric[g & 1];
	const lanes(*branch)[2] = (const lanes(*)[2])w->branch;
	lanes(*to)[2] = (lanes(*)[2])w->metric[~g & 1];
	const unsigned count = log2 > 4 ? 16 : 1u << log2;

	for (unsigned h = 0; h < 2; h++) {
		const lanes b[COSETS] = {branch[0][h], branch[1][h], branch[2][h], branch[3][h]};
		lanes bits = {0};

#pragma GCC unroll 16
		for (unsigned i = 0; i < count; i++) {
			unsigned s = first + i, p = hct_viterbi_prev(log2, s, 0);
			unsigned q = hct_viterbi_prev(log2, s, 1);
			lanes x = from[p & 31][h] + b[hct_viterbi_coset(p)];
			lanes less = from[q & 31][h] + b[hct_viterbi_coset(q)] - x;
			lanes mask = (lanes)((signed_lanes)less >> 15);

			to[s][h] = x + (less & mask);
			bits |= mask & (uint16_t)(1u << i);
		}
		chosen[h] = bits;
	}
}

static void step(const struct hct_viterbi *v, struct work *w, size_t g)
{
	lanes *chosen = (lanes *)(void *)(w->chosen + g * 2 * HCT_GROUP);

	if (v->states_log2 == 3) {
		step_states(w, g, 3, 0, chosen);
	} else if (v->states_log2 == 4) {
		step_states(w, g, 4, 0, chosen);
	} else {
		step_states(w, g, 5, 0, chosen);
		step_states(w, g, 5, 16, chosen + 2);
	}
}

/* The best last state of each lane. */
static void choose_ends(const struct hct_viterbi *v, const struct work *w, size_t groups,
			uint16_t state[HCT_GROUP])
{
	const uint16_t(*m)[HCT_GROUP] = (const uint16_t(*)[HCT_GROUP])w->metric[groups & 1];

	for (unsigned l = 0; l < HCT_GROUP; l++) {
		state[l] = 0;
		for (unsigned s = 1; s < 1u << v->states_log2; s++)
			if ((int16_t)(m[s][l] - m[state[l]][l]) < 0)
				state[l] = (uint16_t)s;
	}
}

static void add_exception(const struct hct_viterbi *v, struct hct_viterbi_segment *s, size_t i,
			  unsigned parity, unsigned code)
{
	int32_t n =
		64 * (int32_t)(2 * code + parity) - 64 * (int32_t)(2 * HCT_TCQ_ZERO << v->raw_bits);
	float e;

	if (!v->raw_bits)
		n += v->offset[parity][code];
	e = rintf(s->x[i] / v->step - (float)n * 0x1p-6f);
	e = e > HCT_TCQ_MAX_EXCEPTION ? HCT_TCQ_MAX_EXCEPTION : e;
	e = e < -HCT_TCQ_MAX_EXCEPTION ? -HCT_TCQ_MAX_EXCEPTION : e;
	s->exceptions[s->exception_count++] = (struct hct_tcq_exception){(uint32_t)i, (int32_t)e};
}

/* Follows the best paths back through one group; a variant may have its own. */
static void trace_group(const struct hct_viterbi *v, const struct work *w,
			struct hct_viterbi_segment *s, size_t g, const uint8_t *columns,
			unsigned row, uint16_t state[HCT_GROUP]);

/* The code of an element that is an exception: its symbol's, with raw bits that lead on. */
static unsigned make_exception(const struct hct_viterbi *v, struct hct_viterbi_segment *s, size_t i,
			       unsigned row, unsigned column, unsigned prev)
{
	unsigned b = v->raw_bits, parity = prev & 1, z = prev >> 5;
	unsigned code = (unsigned)v->stand_in[row][column][parity][b ? 0 : z] << b | (b ? z : 0);

	add_exception(v, s, i, parity, code);
	return code;
}

#ifndef HCT_VITERBI_OWN_COSTS
static void trace_group(const struct hct_viterbi *v, const struct work *w,
			struct hct_viterbi_segment *s, size_t g, const uint8_t *columns,
			unsigned row, uint16_t state[HCT_GROUP])
{
	const uint16_t *chosen = w->chosen + g * 2 * HCT_GROUP;
	uint8_t *codes = s->codes + g * HCT_GROUP, raw[HCT_GROUP];
	unsigned b = v->raw_bits;

	for (unsigned l = 0; l < HCT_GROUP; l++) {
		size_t i = g * HCT_GROUP + l;
		unsigned at = hct_position(l), t = state[l];
		unsigned prev = v->prev[t][chosen[(t >> 4) * HCT_GROUP + l] >> (t & 15) & 1];
		unsigned o = hct_viterbi_coset(prev), pick = w->pick[i] >> 2 * o & 3;
		int k = 2 * (w->base[i] - (w->part[i] < 64 * o) + (pick == PICK_HIGH)) +
			(int)(prev >> 5);
		unsigned code = (unsigned)(k + (HCT_TCQ_ZERO << b));

		if (__builtin_expect(pick == PICK_EXCEPTION, 0))
			code = make_exception(v, s, i, row, columns[l], prev);
		codes[at] = (uint8_t)((unsigned)columns[l] << 6 | (prev & 1) << 5 | code >> b);
		raw[at] = (uint8_t)(code & ((1u << b) - 1));
		state[l] = prev & 31;
	}
	for (unsigned j = 0; j < b; j++) {
		uint64_t plane = 0;

		for (unsigned at = 0; at < HCT_GROUP; at++)
			plane |= (uint64_t)(raw[at] >> j & 1) << at;
		s->planes[g * b + j] = plane;
	}
}
#endif

static void choose_map(const struct hct_viterbi *v, const struct work *w,
		       struct hct_viterbi_segment *s)
{
	size_t run = (size_t)1 << s->run_log2;
	uint32_t column = s->column;

	for (size_t g = 0; g < s->groups;) {
		uint32_t costs[HCT_TCQ_MAX_ROWS] = {0};
		size_t end = s->groups - g < run ? s->groups : g + run, r = g >> s->run_log2;
		unsigned best = 0;

		for (; g < end && v->row_classes > 1; g++) {
			class_costs(v, w, g, s->column_classes + column, costs);
			column = (uint32_t)((column + (uint64_t)HCT_GROUP) % s->period);
		}
		g = end;
		for (unsigned k = 1; k < v->row_classes; k++)
			if (costs[k] < costs[best])
				best = k;
		s->map[r] = (uint8_t)best;
	}
}

static void search(const struct hct_viterbi *v, struct hct_viterbi_segment *s, void *scratch)
{
	struct work *w = lay_out(scratch, s->groups);
	uint32_t column = s->column;
	uint16_t state[HCT_GROUP];

	round_values(v, s->x, s->groups * HCT_GROUP, w);
	if (s->choose)
		choose_map(v, w, s);
	for (unsigned i = 0; i < HCT_TCQ_MAX_STATES; i++)
		for (unsigned l = 0; l < HCT_GROUP; l++)
			w->metric[0][i][l] = i ? NEVER : 0;
	for (size_t g = 0; g < s->groups; g++) {
		branch_costs(v, w, g, s->column_classes + column, s->map[g >> s->run_log2]);
		if (g < v->states_log2)
			step_start(v, w, g);
		else
			step(v, w, g);
		column = (uint32_t)((column + (uint64_t)HCT_GROUP) % s->period);
	}
	choose_ends(v, w, s->groups, state);
	s->exception_count = 0;
	for (size_t g = s->groups; g-- > 0;) {
		column = (uint32_t)((s->column + g * HCT_GROUP) % s->period);
		trace_group(v, w, s, g, s->column_classes + column, s->map[g >> s->run_log2],
			    state);
	}
}
