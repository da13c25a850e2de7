/* Deciding on the tables of the split codec from a sample of a tensor. */
#include "split_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cut.h"
#include "plan.h"

/* Elements looked at, about: of a small tensor so few that it does not take as long as coding it;
 * whole columns need several rows. */
#define SAMPLE_ELEMENTS (1u << 18)
#define SAMPLE_LEAST    (1u << 16)
#define SAMPLE_SHARE    8
#define SAMPLE_ROWS     32u
#define PIECE_ELEMENTS  8192u
/* of which these are enough for some questions */
#define GAIN_ELEMENTS     (1u << 17)
#define EXPONENT_ELEMENTS (1u << 18)
#define RARE_RUNS         256
#define MAX_COLUMNS       65536u

#define SEGMENT_LOG2  16 /* substreams of 32 Ki elements: start states cost 1/64 bit */
#define RUN_LOG2      3  /* 512 elements */
#define RUN           (HCT_GROUP << RUN_LOG2)
#define MAX_RUNS      1024 /* that classes are learnt from */
#define CLASS_ROUNDS  6
#define MANY_CLASSES  8
#define MANY_ELEMENTS (1u << 18)

#define EXCEPTION_BITS 14.5 /* gap, index, and the symbol that stands in */
/* Bits that a table takes in the file, about: zeros compress. */
#define TABLE_BITS 240.0
#define SHIFT_BITS 3.0

/* What is learnt from. */
struct sample {
	const struct hct_layout *layout;
	uint16_t *codes; /* exponent << J | joint bits, shift subtracted */
	size_t n;
	uint32_t columns;  /* row length, 0 when the sample is not made of rows */
	uint64_t elements; /* of the whole tensor */
};

/* Length of a row: the last dimension, or several where that is short. */
static uint32_t choose_columns(const struct hct_tensor *t)
{
	uint64_t row = t->dtype == HCT_DTYPE_C64 ? 2 : 1;

	if (t->rank < 2)
		return 0;
	for (unsigned d = t->rank - 1; d > 0; d--) {
		row *= t->shape[d];
		if (row > MAX_COLUMNS)
			return 0;
		if (row >= 32)
			return (uint32_t)row;
	}
	return 0;
}

/* Copies rows, or pieces, that lie evenly over the tensor. */
static int take_sample(const struct hct_encoder *e, struct sample *s, const uint8_t *data)
{
	const struct hct_layout *l = s->layout;
	/* Whole rows, several where they are short: a page costs more than what is on it. */
	size_t piece = s->columns ? (PIECE_ELEMENTS - 1) / s->columns * s->columns + s->columns
				  : PIECE_ELEMENTS;
	unsigned drop = l->mantissa_bits - l->joint_bits;
	uint16_t mask = (uint16_t)((1u << (l->exponent_bits + l->joint_bits)) - 1);
	uint64_t pieces = s->elements / piece, most = s->elements / SAMPLE_SHARE, take;

	most = most < SAMPLE_LEAST ? SAMPLE_LEAST : most > SAMPLE_ELEMENTS ? SAMPLE_ELEMENTS : most;
	take = most / piece;
	if (s->columns && take * (piece / s->columns) < SAMPLE_ROWS)
		take = SAMPLE_ROWS * s->columns / piece + 1;
	if (pieces < 2 || s->elements <= most) {
		piece = (size_t)s->elements;
		pieces = 1;
	}
	take = take < pieces ? take : pieces;
	s->n = take * piece;
	s->codes = malloc(s->n * sizeof *s->codes + 1);
	if (!s->codes)
		return 0;
	for (uint64_t k = 0; k < take; k++) {
		/* At least 32 elements a piece, 2^53 in all: the product fits. */
		uint64_t at = k * pieces / take * piece;
		uint16_t *out = s->codes + k * piece;

		hct_cut_heads(l, data + at * l->unit, piece, out);
		for (size_t i = 0; i < piece; i++)
			out[i] = (uint16_t)(out[i] >> drop) & mask;
		hct_encoder_watched(e, (at + piece) * l->unit); /* too short to be ended */
	}
	return 1;
}

static double entropy_bits(const uint32_t *counts, size_t n)
{
	double total = 0, sum = 0;

	for (size_t i = 0; i < n; i++) {
		total += counts[i];
		if (counts[i])
			sum += counts[i] * log2(counts[i]);
	}
	return total > 0 ? total * log2(total) - sum : 0;
}

static int compare_float(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

/* Sums of the exponents of each column and how many there are.  Zeros, infinities and NaNs
 * say nothing about scale. */
static void sum_columns(const struct sample *s, uint32_t *sum, uint32_t *count)
{
	unsigned j = s->layout->joint_bits, top = (1u << s->layout->exponent_bits) - 1;

	for (size_t row = 0; row < s->n; row += s->columns)
		for (uint32_t c = 0; c < s->columns; c++) {
			unsigned e = s->codes[row + c] >> j;

			sum[c] += e == top ? 0 : e;
			count[c] += e != 0 && e != top;
		}
}

/* The mean exponent of each column less the median of them, rounded; 0 when that is nothing. */
static int column_shifts(const struct sample *s, int8_t *shifts)
{
	uint32_t n = s->columns, used = 0;
	float *mean = calloc(2 * (size_t)n, sizeof *mean), *sorted = mean ? mean + n : NULL;
	uint32_t *sum = calloc(2 * (size_t)n, sizeof *sum), *count = sum ? sum + n : NULL;
	int any = 0;

	if (!mean || !sum)
		goto out;
	sum_columns(s, sum, count);
	for (uint32_t c = 0; c < n; c++)
		if (count[c])
			sorted[used++] = mean[c] = (float)sum[c] / (float)count[c];
	if (!used)
		goto out;
	qsort(sorted, used, sizeof *sorted, compare_float);
	for (uint32_t c = 0; c < n; c++) {
		float d = count[c] ? roundf(mean[c] - sorted[used / 2]) : 0;

		shifts[c] = (int8_t)(d < -64 ? -64 : d > 64 ? 64 : d);
		any |= shifts[c];
	}
out:
	free(mean);
	free(sum);
	return any != 0;
}

/* Subtracts the shifts of the columns from a row. */
static void shift_row(const struct hct_layout *l, const uint16_t *in, const int8_t *shifts,
		      uint32_t n, uint16_t *out)
{
	unsigned joint = l->joint_bits;
	uint16_t mask = (uint16_t)((1u << (l->exponent_bits + joint)) - 1);

	for (uint32_t c = 0; c < n; c++)
		out[c] = (uint16_t)(in[c] - (uint16_t)(shifts[c] * (1 << joint))) & mask;
}

/* Bits that shifts save, for each element, judged by some of the sample's rows. */
static double shift_gain(const struct sample *s, const int8_t *shifts)
{
	size_t n = (size_t)1 << (s->layout->exponent_bits + s->layout->joint_bits), used = 0;
	size_t step = s->columns * (1 + s->n / GAIN_ELEMENTS);
	uint32_t *before = calloc(2 * n, sizeof *before), *after = before ? before + n : NULL;
	uint16_t *row = malloc(s->columns * sizeof *row);
	double gain = 0;

	for (size_t at = 0; before && row && at < s->n; at += step, used += s->columns) {
		shift_row(s->layout, s->codes + at, shifts, s->columns, row);
		for (uint32_t c = 0; c < s->columns; c++) {
			before[s->codes[at + c]]++;
			after[row[c]]++;
		}
	}
	if (used)
		gain = (entropy_bits(before, n) - entropy_bits(after, n)) / (double)used;
	free(before);
	free(row);
	return gain;
}

/* Subtracts column shifts from the sample when that pays. */
static void try_shifts(struct sample *s, struct hct_split_plan *p)
{
	int8_t *shifts = malloc(s->columns + 1);

	if (shifts && column_shifts(s, shifts) &&
	    shift_gain(s, shifts) * (double)s->elements > SHIFT_BITS * s->columns) {
		for (size_t row = 0; row < s->n; row += s->columns)
			shift_row(s->layout, s->codes + row, shifts, s->columns, s->codes + row);
		p->t.period = s->columns;
		p->t.shifts = p->shifts = shifts;
		shifts = NULL;
	}
	free(shifts);
}

/* Spreads the shifts to what cutting wants. */
static int derive_columns(struct hct_split_plan *p)
{
	unsigned mask = (1u << p->t.layout->exponent_bits) - 1;

	p->period = p->t.period ? p->t.period : 1;
	p->step = HCT_GROUP % p->period;
	p->columns = malloc((p->period + HCT_GROUP) * sizeof *p->columns);
	for (uint32_t i = 0; p->columns && i < p->period + HCT_GROUP; i++)
		p->columns[i] =
			p->t.period ? (uint16_t)((unsigned)p->shifts[i % p->period] & mask) : 0;
	return p->columns != NULL;
}

/* The most frequent exponents get symbols, in rising order; where the sample has fewer,
 * the ones below its least fill up, since small values are what a sample misses. */
static void choose_exponents(const struct sample *s, struct hct_split_plan *p)
{
	unsigned j = s->layout->joint_bits, n = 1u << s->layout->exponent_bits;
	unsigned slots = HCT_SYMBOLS >> j, used = 0, low = n;
	uint32_t counts[HCT_MAX_EXPONENTS] = {0};
	uint8_t chosen[HCT_MAX_EXPONENTS] = {0};

	/* Some pieces of the sample will do, each long enough to be quick. */
	for (size_t at = 0; at < s->n; at += RUN * (1 + s->n / EXPONENT_ELEMENTS))
		for (size_t i = at; i < s->n && i < at + RUN; i++)
			counts[s->codes[i] >> j]++;
	for (; used < slots && used < n; used++) {
		unsigned best = n;

		for (unsigned e = 0; e < n; e++)
			if (!chosen[e] && counts[e] && (best == n || counts[e] > counts[best]))
				best = e;
		if (best == n)
			break;
		chosen[best] = 1;
		low = best && best < low ? best : low;
	}
	for (unsigned e = low; e-- > 0 && used < slots; chosen[e] = 1)
		used += !chosen[e];
	for (unsigned e = 0; e < n && used < slots; chosen[e++] = 1)
		used += !chosen[e];
	memset(p->slot_of, 255, sizeof p->slot_of);
	used = 0;
	for (unsigned e = 0; e < n; e++)
		if (chosen[e]) {
			p->slot_of[e] = (uint8_t)used;
			p->t.exponents[used++] = (uint16_t)e;
		}
}

/* Cuts n codes to symbols. */
static void cut_codes(const struct hct_split_plan *p, const uint16_t *codes, size_t n,
		      uint8_t *symbols)
{
	unsigned j = p->t.layout->joint_bits, mask = (1u << j) - 1;

	for (size_t i = 0; i < n; i++) {
		unsigned slot = p->slot_of[codes[i] >> j];

		symbols[i] = (uint8_t)((slot == 255 ? HCT_ESCAPE : slot << j) | (codes[i] & mask));
	}
}

void hct_split_normalise(const double counts[HCT_SYMBOLS], unsigned joint_bits,
			 uint8_t freq[HCT_SYMBOLS])
{
	double total = 0, gain[HCT_SYMBOLS], loss[HCT_SYMBOLS];
	int f[HCT_SYMBOLS], sum = 0, joint = 1 << joint_bits;

	for (int s = 0; s < HCT_SYMBOLS; s++)
		total += counts[s];
	for (int s = 0; s < HCT_SYMBOLS; s++) {
		f[s] = total > 0 ? (int)(counts[s] * HCT_RANS_TOTAL / total) : 0;
		f[s] = f[s] > 255 ? 255 : f[s];
		/* The first symbols serve where a value of the joint bits never occurs. */
		if (!f[s] && s < joint)
			f[s] = 1;
		sum += f[s];
	}
	/* Move one unit at a time to where it saves most, from where it costs least. */
	for (int moves = 0; moves < 4 * HCT_RANS_TOTAL; moves++) {
		int to = -1, from = -1;

		for (int s = 0; s < HCT_SYMBOLS; s++) {
			gain[s] = f[s] == 255 ? -1
				  : f[s]      ? counts[s] * log2((f[s] + 1.0) / f[s])
					      : counts[s] * (EXCEPTION_BITS - 8);
			loss[s] = f[s] > 1                  ? counts[s] * log2(f[s] / (f[s] - 1.0))
				  : f[s] == 1 && s >= joint ? counts[s] * (EXCEPTION_BITS - 8)
							    : HUGE_VAL;
			if (to < 0 || gain[s] > gain[to])
				to = s;
			if (from < 0 || loss[s] < loss[from])
				from = s;
		}
		if (sum < HCT_RANS_TOTAL) {
			f[to]++;
			sum++;
		} else if (sum > HCT_RANS_TOTAL) {
			f[from]--;
			sum--;
		} else if (to != from && gain[to] > loss[from] * (1 + 1e-9)) {
			f[to]++;
			f[from]--;
		} else {
			break;
		}
	}
	for (int s = 0; s < HCT_SYMBOLS; s++)
		freq[s] = (uint8_t)f[s];
}

void hct_split_plan_derive(struct hct_split_plan *p)
{
	unsigned joint = 1u << p->t.layout->joint_bits;

	p->exception_cost = (int)(256 * EXCEPTION_BITS);
	for (unsigned k = 0; k < p->t.class_count; k++) {
		const uint8_t *f = p->t.freq[k];

		hct_rans_coder_init(&p->coder[k], f);
		for (unsigned v = 0; v < joint; v++) {
			unsigned best = v;

			for (unsigned s = v; s < HCT_SYMBOLS; s += joint)
				best = f[s] > f[best] ? s : best;
			p->stand_in[k][v] = (uint8_t)best;
		}
		for (unsigned s = 0; s < HCT_CUT_SYMBOLS; s++) {
			double bits = s < HCT_SYMBOLS && f[s] ? 8 - log2(f[s]) : EXCEPTION_BITS;

			p->cost[k][s] = (int16_t)lround(256 * bits);
		}
	}
}

unsigned hct_split_choose_class(const struct hct_split_plan *p,
				const int16_t counts[HCT_CUT_SYMBOLS])
{
	unsigned best = 0;
	int32_t least = INT32_MAX;

	for (unsigned k = 0; k < p->t.class_count; k++) {
		int32_t sum = 0;

		for (unsigned s = 0; s < HCT_CUT_SYMBOLS; s++)
			sum += counts[s] * p->cost[k][s];
		if (sum < least) {
			least = sum;
			best = k;
		}
	}
	return best;
}

/* Runs of the sample, for learning classes. */
struct runs {
	size_t n, length;
	const uint16_t **codes; /* of each run */
	int16_t (*counts)[HCT_CUT_SYMBOLS];
	uint8_t *class;
	struct ranked {
		uint32_t sum;
		uint32_t run;
	} * ranked;
};

static int compare_ranked(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	if (x->sum != y->sum)
		return x->sum < y->sum ? -1 : 1;
	return (x->run > y->run) - (x->run < y->run);
}

static void runs_free(struct runs *r)
{
	free(r->codes);
	free(r->counts);
	free(r->class);
	free(r->ranked);
}

static int runs_take(const struct sample *s, const struct hct_split_plan *p, struct runs *r)
{
	size_t all = s->n / RUN;

	r->n = all < 1 ? 1 : all > MAX_RUNS ? MAX_RUNS : all;
	r->length = all ? RUN : s->n;
	r->counts = calloc(r->n, sizeof *r->counts);
	r->class = calloc(r->n, 1);
	r->ranked = calloc(r->n, sizeof *r->ranked);
	r->codes = calloc(r->n, sizeof *r->codes);
	if (!r->counts || !r->class || !r->ranked || !r->codes)
		return 0;
	for (size_t i = 0; i < r->n; i++) {
		uint8_t symbols[RUN];
		unsigned sum = 0;

		r->codes[i] = s->codes + i * all / r->n * RUN;
		cut_codes(p, r->codes[i], r->length, symbols);
		for (size_t k = 0; k < r->length; k++) {
			r->counts[i][symbols[k]]++;
			sum += symbols[k];
		}
		r->ranked[i] = (struct ranked){sum, (uint32_t)i};
	}
	qsort(r->ranked, r->n, sizeof *r->ranked, compare_ranked);
	return 1;
}

/* Counts of the runs of each class. */
static void count_classes(const struct runs *r, unsigned k,
			  double counts[HCT_MAX_CLASSES][HCT_CUT_SYMBOLS])
{
	memset(counts, 0, k * sizeof *counts);
	for (size_t i = 0; i < r->n; i++)
		for (unsigned s = 0; s < HCT_CUT_SYMBOLS; s++)
			counts[r->class[i]][s] += r->counts[i][s];
}

/* Moves each run to the class whose distribution suits it best (k-means under the coding
 * cost; frequencies are not yet rounded, so that no class is trapped). */
static void regroup(struct runs *r, unsigned k)
{
	double counts[HCT_MAX_CLASSES][HCT_CUT_SYMBOLS];
	float cost[HCT_CUT_SYMBOLS][HCT_MAX_CLASSES] = {{0}};

	count_classes(r, k, counts);
	for (unsigned c = 0; c < k; c++) {
		double total = 1;

		for (unsigned s = 0; s < HCT_CUT_SYMBOLS; s++)
			total += counts[c][s];
		for (unsigned s = 0; s < HCT_CUT_SYMBOLS; s++)
			cost[s][c] = (float)fmin(-log2((counts[c][s] + 0.01) / total), 11);
	}
	for (size_t i = 0; i < r->n; i++) {
		float sum[HCT_MAX_CLASSES] = {0};

		for (unsigned s = 0; s < HCT_CUT_SYMBOLS; s++)
			for (unsigned c = 0; c < HCT_MAX_CLASSES; c++)
				sum[c] += (float)r->counts[i][s] * cost[s][c];
		r->class[i] = 0;
		for (unsigned c = 1; c < k; c++)
			if (sum[c] < sum[r->class[i]])
				r->class[i] = (uint8_t)c;
	}
}

/* Learns k classes and returns the bits of the runs. */
static double learn(struct hct_split_plan *p, struct runs *r, unsigned k)
{
	double counts[HCT_MAX_CLASSES][HCT_CUT_SYMBOLS], bits = 0;

	p->t.class_count = k;
	for (size_t i = 0; i < r->n; i++)
		r->class[r->ranked[i].run] = (uint8_t)(i * k / r->n);
	for (unsigned round = 0; round < (k > 1 ? CLASS_ROUNDS : 0); round++)
		regroup(r, k);
	count_classes(r, k, counts);
	for (unsigned c = 0; c < k; c++)
		hct_split_normalise(counts[c], p->t.layout->joint_bits, p->t.freq[c]);
	hct_split_plan_derive(p);
	for (size_t i = 0; i < r->n; i++) {
		unsigned c = hct_split_choose_class(p, r->counts[i]);

		for (unsigned s = 0; s < HCT_CUT_SYMBOLS; s++)
			bits += r->counts[i][s] * p->cost[c][s] / 256.0;
	}
	return bits + (double)r->n * hct_class_bits(k);
}

/* The exponents that are exceptions most often get the shortest codes. */
static void choose_rare(const struct runs *r, struct hct_split_plan *p)
{
	unsigned j = p->t.layout->joint_bits, n = 1u << p->t.layout->exponent_bits;
	uint32_t counts[HCT_MAX_EXPONENTS] = {0};

	for (size_t i = 0; i < r->n; i += 1 + r->n / RARE_RUNS) {
		const int16_t *cost = p->cost[hct_split_choose_class(p, r->counts[i])];
		uint8_t symbols[RUN];

		cut_codes(p, r->codes[i], r->length, symbols);
		for (size_t k = 0; k < r->length; k++)
			counts[r->codes[i][k] >> j] += cost[symbols[k]] >= p->exception_cost;
	}
	memset(p->rare_of, HCT_RARE_OTHER, sizeof p->rare_of);
	for (unsigned i = 0; i < HCT_RARE; i++) {
		unsigned best = 0;

		for (unsigned e = 1; e < n; e++)
			best = counts[e] > counts[best] ? e : best;
		p->t.rare[i] = (uint16_t)best;
		if (p->rare_of[best] == HCT_RARE_OTHER)
			p->rare_of[best] = (uint8_t)i;
		counts[best] = 0;
	}
}

/* As many classes as pay for their tables. */
static int choose_classes(const struct sample *s, struct hct_split_plan *p)
{
	static const unsigned candidates[] = {1, 2, 4, MANY_CLASSES};
	struct runs r = {0};
	double least = HUGE_VAL, scale;
	unsigned best = 1;
	int ok = runs_take(s, p, &r);

	scale = (double)s->elements / (double)(r.n * r.length);
	for (size_t i = 0; ok && i < sizeof candidates / sizeof *candidates; i++) {
		unsigned k = candidates[i];
		double bits;

		/* Where the tables weigh little, only none and all are worth a try. */
		if (s->elements >= MANY_ELEMENTS && k > 1 && k < MANY_CLASSES)
			continue;
		if (k > r.n)
			break;
		bits = learn(p, &r, k) * scale + k * TABLE_BITS;
		if (bits < least) {
			least = bits;
			best = k;
		}
	}
	if (ok && best != p->t.class_count)
		learn(p, &r, best);
	if (ok)
		choose_rare(&r, p);
	runs_free(&r);
	return ok;
}

struct hct_split_plan *hct_split_plan_create(const struct hct_encoder *e,
					     const struct hct_tensor *tensor,
					     const struct hct_layout *layout, const uint8_t *data)
{
	struct hct_split_plan *p = calloc(1, sizeof *p);
	struct sample s = {.layout = layout,
			   .elements = hct_tensor_bytes(tensor) / layout->unit,
			   .columns = choose_columns(tensor)};
	int ok = p && take_sample(e, &s, data);

	if (ok) {
		p->t.layout = layout;
		p->t.run_log2 = RUN_LOG2;
		p->t.segment_log2 = SEGMENT_LOG2;
		if (s.columns)
			try_shifts(&s, p);
		choose_exponents(&s, p);
		ok = derive_columns(p) && choose_classes(&s, p);
	}
	free(s.codes);
	if (ok)
		return p;
	hct_split_plan_free(p);
	return NULL;
}

void hct_split_plan_free(struct hct_split_plan *p)
{
	if (p) {
		free(p->shifts);
		free(p->columns);
	}
	free(p);
}

size_t hct_split_plan_memory(const struct hct_split_plan *p)
{
	return sizeof *p + p->period * (sizeof *p->columns + sizeof *p->shifts);
}

const struct hct_split_tables *hct_split_plan_tables(const struct hct_split_plan *p)
{
	return &p->t;
}
