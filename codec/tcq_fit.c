#include "tcq_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clones.h"
#include "tcq_classes.h"
#include "tcq_encode.h"

/* A symbol below this share is an exception wherever it occurs: even the smallest frequency would
 * cost the others more than its exceptions do. */
#define RARE 0.0006
/* The first passes, and of how many pieces they see one. */
#define ROUGH_PASSES 2
#define ROUGH        4
/* Bits of an exception beside its place in the list: symbol, sign and magnitude. */
#define VALUE_BITS 11
/* Squared error of a trellis-coded quantiser at high rates, in step^2. */
#define TCQ_ERROR 0.26
/* The error that passes come near to, as a logarithm, and how many more than asked for they may be.
 */
#define AIM 0.03
/* The step is at most so many times that of a tensor of large values. */
#define MAX_GROWTH 8
#define MAX_EXTRA  5

/* Counts of one pass over the sample. */
struct counts {
	struct tally { /* of one row class, by code: column class, parity, symbol */
		uint32_t count[2][256]; /* of each substream */
		float sum[2][256];      /* of values, in steps, exceptions left out */
		uint32_t exceptions[HCT_TCQ_POINTS];
	} tally[HCT_TCQ_MAX_ROWS];
	double error; /* sum of squares */
	double bits;  /* of symbols and exceptions */
	size_t elements;
};

struct fit {
	const struct hct_tcq_sample *s;
	const struct hct_tcq_goal *goal;
	struct hct_tcq_layer *layer;
	struct hct_searcher *searcher;
	struct hct_viterbi v;
	struct hct_dequant dequant;
	const struct hct_dequant_loops *loops;
	uint8_t *columns;               /* classes of all columns, wrapping */
	uint8_t *maps;                  /* of each piece, behind one another */
	struct hct_viterbi_segment seg; /* what all pieces have in common */
	void *scratch;
	float *found;
	struct counts counts;
	uint32_t *column_cost; /* by column and class */
	int move_columns;      /* after this pass */
};

/* Frequencies that sum to 256 and cost least for these counts.  At least one even and one odd
 * symbol get some, so that a path through the trellis can always go on. */
static void fit_frequencies(const double count[HCT_TCQ_SYMBOLS], uint8_t freq[HCT_TCQ_SYMBOLS])
{
	double total = 0;
	int sum = 0;

	for (unsigned s = 0; s < HCT_TCQ_SYMBOLS; s++)
		total += count[s];
	for (unsigned s = 0; s < HCT_TCQ_SYMBOLS; s++) {
		double share = total > 0 ? count[s] / total : 0;
		int f = share < RARE ? 0 : (int)(share * HCT_RANS_TOTAL + .5);

		if (share >= RARE && f < 1)
			f = 1;
		if ((s == HCT_TCQ_ZERO || s == HCT_TCQ_ZERO - 1) && f < 1)
			f = 1;
		f = f > 255 ? 255 : f;
		freq[s] = (uint8_t)f;
		sum += f;
	}
	while (sum != HCT_RANS_TOTAL) {
		int up = sum < HCT_RANS_TOTAL ? 1 : -1, best = -1;
		double gain = -INFINITY;

		for (unsigned s = 0; s < HCT_TCQ_SYMBOLS; s++) {
			int f = freq[s];
			double g;

			if (!f || f + up < 1 || f + up > 255)
				continue;
			g = (count[s] + 1e-3) * (log2(f + up) - log2(f));
			if (g > gain) {
				gain = g;
				best = (int)s;
			}
		}
		freq[best] = (uint8_t)(freq[best] + up);
		sum += up;
	}
}

/* Tables for a start: each class a mixture of a Gaussian and a Laplacian of its energy. */
static void guess_frequencies(struct fit *f)
{
	struct hct_tcq_layer *l = f->layer;
	double energy[HCT_TCQ_CLASSES], width = ldexp(2.0 * l->step, (int)l->raw_bits);

	hct_tcq_class_energies(f->s, l->run_log2, f->columns, f->maps, energy);
	for (unsigned k = 0; k < l->row_classes; k++)
		for (unsigned q = 0; q < l->column_classes; q++)
			for (unsigned p = 0; p < 2; p++) {
				double count[HCT_TCQ_SYMBOLS];
				double e = energy[k * HCT_TCQ_MAX_COLUMNS + q] +
					   TCQ_ERROR * l->step * l->step;

				for (unsigned s = 0; s < HCT_TCQ_SYMBOLS; s++) {
					double x = width * ((int)s - HCT_TCQ_ZERO) +
						   (l->raw_bits ? width / 2
						    : p         ? l->step
								: 0);

					count[s] = exp(-x * x / (2 * e)) +
						   .05 * exp(-fabs(x) / sqrt(e / 2));
				}
				fit_frequencies(count, l->freq[k][q][p]);
			}
}

/* The number of raw bits with which symbols, raw bits and exceptions cost least, if one table
 * served all. */
static unsigned choose_raw_bits(const struct hct_tcq_sample *s, double step)
{
	uint32_t count[HCT_TCQ_MAX_RAW + 1][HCT_TCQ_SYMBOLS + 1] = {{0}};
	const float scale = (float)(.5 / step), most = 1 << 20;
	double best = INFINITY;
	unsigned least = 0;

	for (size_t i = 0; i < s->count; i++)
		for (size_t j = 0; j < s->pieces[i].elements; j += 4) {
			float y = s->pieces[i].x[j] * scale;
			int k;

			y = y > most ? most : y < -most ? -most : y;
			k = (int)lrintf(y);
			for (unsigned b = 0; b <= HCT_TCQ_MAX_RAW; b++) {
				unsigned t = (unsigned)((k >> b) + HCT_TCQ_ZERO);

				count[b][t < HCT_TCQ_SYMBOLS ? t : HCT_TCQ_SYMBOLS]++;
			}
		}
	for (unsigned b = 0; b <= HCT_TCQ_MAX_RAW; b++) {
		double bits = 0, n = 0;

		for (unsigned t = 0; t <= HCT_TCQ_SYMBOLS; t++)
			n += count[b][t];
		for (unsigned t = 0; t < HCT_TCQ_SYMBOLS; t++)
			if (count[b][t])
				bits += count[b][t] * log2(n / count[b][t]);
		bits += b * n;
		if (count[b][HCT_TCQ_SYMBOLS])
			bits += count[b][HCT_TCQ_SYMBOLS] *
				(log2(n / count[b][HCT_TCQ_SYMBOLS]) + VALUE_BITS + b);
		if (bits < best) {
			best = bits;
			least = b;
		}
	}
	return least;
}

/* Squared error of a piece, element by element in a fixed order whatever the compiler's vectors. */
HCT_CLONES static double piece_error(const float *x, const float *found, size_t n)
{
	double sum[8] = {0}, total = 0;
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		for (unsigned l = 0; l < 8; l++) {
			double d = (double)x[i + l] - found[i + l];

			sum[l] += d * d;
		}
	for (; i < n; i++)
		sum[0] += ((double)x[i] - found[i]) * ((double)x[i] - found[i]);
	for (unsigned l = 0; l < 8; l++)
		total += sum[l];
	return total;
}

/* What the columns' symbols cost in each column class. */
static void count_columns(struct fit *f, const struct hct_tcq_piece *p,
			  const struct hct_viterbi_segment *s)
{
	uint32_t c = p->column;

	for (size_t i = 0; i < p->elements; i++) {
		unsigned e = i % HCT_GROUP, at = hct_position(e);
		unsigned point = s->codes[i / HCT_GROUP * HCT_GROUP + at] & 63;
		const uint16_t(*rate)[HCT_TCQ_SYMBOLS] =
			f->v.rate[s->map[i / HCT_GROUP >> s->run_log2]][point >> 5];
		uint32_t *cost = f->column_cost + (size_t)c * HCT_TCQ_MAX_COLUMNS;

		for (unsigned q = 0; q < HCT_TCQ_MAX_COLUMNS; q++)
			cost[q] += rate[q][point & 31];
		c = c + 1 == f->s->columns ? 0 : c + 1;
	}
}

static uint32_t hits_of(const struct tally *t, unsigned code)
{
	return t->count[0][code] + t->count[1][code];
}

/* Counts a group's elements, of which `left` are there.  Both halves take turns, each with sums of
 * its own, as equal codes in a row would wait for each other. */
static void count_group(struct tally *t, const uint8_t *codes, const float *x, size_t left,
			float scale)
{
	size_t n = left < HCT_LANES ? left : HCT_LANES, rest = left - n;

	rest = rest < HCT_LANES ? rest : HCT_LANES;
	for (size_t i = 0; i < rest; i++) {
		unsigned a = codes[2 * i], b = codes[2 * i + 1];

		t->count[0][a]++;
		t->count[1][b]++;
		t->sum[0][a] += x[i] * scale;
		t->sum[1][b] += x[HCT_LANES + i] * scale;
	}
	for (size_t i = rest; i < n; i++) {
		t->count[0][codes[2 * i]]++;
		t->sum[0][codes[2 * i]] += x[i] * scale;
	}
}

static void count_piece(struct fit *f, const struct hct_tcq_piece *p,
			const struct hct_viterbi_segment *s)
{
	struct counts *n = &f->counts;
	float scale = 1 / f->layer->step;

	hct_tcq_reconstruct(&f->dequant, f->loops, s, f->found);
	n->error += piece_error(p->x, f->found, p->elements);
	for (size_t g = 0; g < s->groups; g++) {
		struct tally *t = &n->tally[s->map[g >> s->run_log2]];

		count_group(t, s->codes + g * HCT_GROUP, p->x + g * HCT_GROUP,
			    p->elements - g * HCT_GROUP, scale);
	}
	for (size_t i = 0; i < s->exception_count && s->exceptions[i].element < p->elements; i++) {
		size_t at = s->exceptions[i].element, g = at / HCT_GROUP;
		unsigned code = s->codes[g * HCT_GROUP + hct_position(at % HCT_GROUP)];
		struct tally *t = &n->tally[s->map[g >> s->run_log2]];

		t->exceptions[code & 63]++;
		t->sum[0][code] -= p->x[at] * scale;
	}
	if (f->move_columns)
		count_columns(f, p, s);
}

static int by_element(const void *a, const void *b)
{
	const struct hct_tcq_exception *x = a, *y = b;

	return x->element < y->element ? -1 : x->element > y->element;
}

/* Bits of all symbols that were counted, with the tables that they were chosen for. */
static double symbol_bits(const struct fit *f)
{
	double bits = 0;

	for (unsigned k = 0; k < f->layer->row_classes; k++)
		for (unsigned q = 0; q < f->layer->column_classes; q++)
			for (unsigned p = 0; p < 2; p++)
				for (unsigned s = 0; s < HCT_TCQ_SYMBOLS; s++)
					if (f->layer->freq[k][q][p][s])
						bits += hits_of(&f->counts.tally[k],
								q << 6 | p << 5 | s) *
							(8 - log2(f->layer->freq[k][q][p][s]));
	return bits + (double)f->layer->raw_bits * (double)f->counts.elements;
}

/* Searches pieces, which are learnt from then. */
static void run_pieces(struct fit *f, struct hct_viterbi_segment *segments,
		       const struct hct_tcq_piece *const *pieces, size_t count)
{
	hct_searcher_begin(f->searcher, &f->v, segments, count);
	for (size_t i = 0; i < count; i++) {
		struct hct_viterbi_segment *s = &segments[i];

		hct_searcher_find(f->searcher, &f->v, s, f->scratch);
		qsort(s->exceptions, s->exception_count, sizeof *s->exceptions, by_element);
		count_piece(f, pieces[i], s);
		f->counts.bits += (double)s->exception_count * HCT_VITERBI_EXCEPTION_BITS;
	}
}

/* One search with the tables as they are, over every stride-th piece of the sample. */
static void run_pass(struct fit *f, int choose_maps, size_t stride)
{
	const struct hct_tcq_sample *s = f->s;
	float lambda = hct_tcq_lambda(f->goal->error, f->layer->step);
	struct hct_viterbi_segment segments[HCT_VITERBI_BATCH];
	const struct hct_tcq_piece *pieces[HCT_VITERBI_BATCH];
	uint8_t *map = f->maps;
	size_t n = 0;

	hct_viterbi_init(&f->v, f->layer, lambda);
	hct_dequant_init(&f->dequant, f->layer);
	memset(&f->counts, 0, sizeof f->counts);
	if (f->column_cost)
		memset(f->column_cost, 0, sizeof(uint32_t) * HCT_TCQ_MAX_COLUMNS * s->columns);
	f->counts.elements = 0;
	f->seg.choose = choose_maps;
	for (size_t i = 0; i < s->count;
	     map += hct_tcq_piece_runs(&s->pieces[i++], f->layer->run_log2)) {
		const struct hct_tcq_piece *p = &s->pieces[i];

		if (i % stride)
			continue;
		f->counts.elements += p->elements;
		segments[n] = f->seg;
		segments[n].x = p->x;
		segments[n].groups = hct_tcq_piece_groups(p);
		segments[n].column = p->column;
		segments[n].map = map;
		pieces[n++] = p;
		if (n == HCT_VITERBI_BATCH) {
			run_pieces(f, segments, pieces, n);
			n = 0;
		}
	}
	if (n)
		run_pieces(f, segments, pieces, n);
	f->counts.bits += symbol_bits(f);
}

/* Moves every column to the class where its symbols cost least. */
static void move_columns(struct fit *f)
{
	uint32_t columns = f->s->columns;

	for (uint32_t c = 0; c < columns; c++) {
		const uint32_t *cost = f->column_cost + (size_t)c * HCT_TCQ_MAX_COLUMNS;
		unsigned best = f->columns[c];

		for (unsigned q = 0; q < f->layer->column_classes; q++)
			if (cost[q] < cost[best])
				best = q;
		f->columns[c] = (uint8_t)best;
	}
	for (uint32_t c = 0; c < HCT_GROUP; c++)
		f->columns[columns + c] = f->columns[c % columns];
}

/* Moves a point to the mean of the values that it stands for. */
static void move_point(struct fit *f, unsigned i)
{
	int nominal = 2 * ((int)(i & 31) - HCT_TCQ_ZERO) + (int)(i >> 5);
	double sum = 0, hits = 0, offset;

	for (unsigned k = 0; k < f->layer->row_classes; k++) {
		const struct tally *t = &f->counts.tally[k];

		for (unsigned code = i; code < 256; code += HCT_TCQ_POINTS) {
			sum += t->sum[0][code] + t->sum[1][code];
			hits += hits_of(t, code);
		}
		hits -= t->exceptions[i];
	}
	if (hits < 20)
		return;
	offset = 64 * (sum / hits - nominal);
	offset = offset > 127 ? 127 : offset < -127 ? -127 : offset;
	f->layer->offset[i] = (int8_t)lrint(offset);
}

static void learn(struct fit *f)
{
	struct hct_tcq_layer *l = f->layer;

	for (unsigned k = 0; k < l->row_classes; k++)
		for (unsigned q = 0; q < l->column_classes; q++)
			for (unsigned p = 0; p < 2; p++) {
				double count[HCT_TCQ_SYMBOLS];

				for (unsigned s = 0; s < HCT_TCQ_SYMBOLS; s++)
					count[s] =
						hits_of(&f->counts.tally[k], q << 6 | p << 5 | s);
				fit_frequencies(count, l->freq[k][q][p]);
			}
	for (unsigned i = 0; i < HCT_TCQ_POINTS && !l->raw_bits; i++)
		move_point(f, i);
}

/* Packs the column classes as the tables have them. */
static int pack_columns(struct fit *f)
{
	struct hct_tcq_layer *l = f->layer;
	unsigned w = hct_tcq_column_bits(l->column_classes);
	uint8_t *packed;

	l->column_class = NULL;
	if (!w)
		return 1;
	packed = calloc(1, ((size_t)f->s->columns * w + 7) / 8);
	if (!packed)
		return 0;
	for (uint32_t c = 0; c < f->s->columns; c++) {
		uint64_t bit = (uint64_t)c * w;

		packed[bit / 8] |= (uint8_t)(f->columns[c] << bit % 8);
	}
	l->column_class = packed;
	return 1;
}

static int open_fit(struct fit *f)
{
	size_t most = 0, runs = 0, n;

	for (size_t i = 0; i < f->s->count; i++) {
		most = hct_tcq_piece_groups(&f->s->pieces[i]) > most
			       ? hct_tcq_piece_groups(&f->s->pieces[i])
			       : most;
		runs += hct_tcq_piece_runs(&f->s->pieces[i], f->layer->run_log2);
	}
	n = most * HCT_GROUP;
	f->columns = malloc(f->s->columns + (size_t)HCT_GROUP);
	f->maps = malloc(runs);
	f->seg.codes = malloc(n);
	f->seg.planes = malloc(most * 8 * HCT_TCQ_MAX_RAW);
	f->seg.exceptions = malloc(n * sizeof *f->seg.exceptions);
	f->scratch = aligned_alloc(64, (hct_viterbi_scratch(most) + 63) / 64 * 64);
	f->found = malloc(n * sizeof *f->found);
	if (f->layer->column_classes > 1)
		f->column_cost = malloc(sizeof(uint32_t) * HCT_TCQ_MAX_COLUMNS * f->s->columns);
	f->seg.column_classes = f->columns;
	f->seg.period = f->s->columns;
	f->seg.run_log2 = f->layer->run_log2;
	return f->columns && f->maps && f->seg.codes && f->seg.planes && f->seg.exceptions &&
	       f->scratch && f->found && (f->column_cost || f->layer->column_classes == 1);
}

static void close_fit(struct fit *f)
{
	free(f->columns);
	free(f->maps);
	free(f->seg.codes);
	free(f->seg.planes);
	free(f->seg.exceptions);
	free(f->scratch);
	free(f->found);
	free(f->column_cost);
}

float hct_tcq_next_step(struct hct_tcq_secant *s, float step, double ratio)
{
	double factor;

	if (s->ratio > 0 && fabs(log(step / s->step)) > .003) {
		s->slope = log(ratio / s->ratio) / log(step / s->step);
		s->slope = s->slope < .5 ? .5 : s->slope > 2.5 ? 2.5 : s->slope;
	}
	s->step = step;
	s->ratio = ratio;
	factor = pow(ratio, -1 / s->slope);
	factor = factor > 3 ? 3 : factor < .5 ? .5 : factor;
	return (float)(step * factor);
}

hct_error hct_tcq_fit(const struct hct_tcq_sample *s, const struct hct_tcq_goal *goal,
		      struct hct_searcher *searcher, struct hct_tcq_layer *layer,
		      struct hct_tcq_forecast *forecast)
{
	struct fit f = {.s = s,
			.goal = goal,
			.layer = layer,
			.searcher = searcher,
			.loops = hct_dequant_find(searcher->simd)};
	double step = sqrt(goal->error / TCQ_ERROR);
	const float largest = (float)(MAX_GROWTH * step);
	struct hct_tcq_secant secant = {.slope = 2};
	unsigned extra = 0;
	hct_error e = HCT_ERR_NOMEM;

	if (!(step >= 0x1p-99 && step <= 0x1p99))
		return HCT_ERR_ARGUMENT;
	*layer = (struct hct_tcq_layer){.states_log2 = goal->states_log2,
					.column_classes = goal->column_classes,
					.row_classes = goal->row_classes,
					.run_log2 = goal->run_log2,
					.raw_bits = choose_raw_bits(s, step),
					.step = (float)step};
	if (!open_fit(&f) || !hct_tcq_classify(s, layer->column_classes, layer->row_classes,
					       layer->run_log2, f.columns, f.maps))
		goto out;
	guess_frequencies(&f);
	for (unsigned pass = 0; pass < goal->passes + extra; pass++) {
		double ratio = 1;
		int last;

		/* The first passes, far from the end, need not see everything. */
		f.move_columns = f.column_cost && pass == ROUGH_PASSES;
		run_pass(&f, pass >= ROUGH_PASSES,
			 pass < ROUGH_PASSES && goal->passes > ROUGH_PASSES && goal->stride < ROUGH
				 ? ROUGH
				 : goal->stride);
		learn(&f);
		ratio = f.counts.error / (goal->error * (double)f.counts.elements);
		/* Before the last pass the step must be about right, or as large as it gets. */
		if (pass + 2 >= goal->passes + extra && fabs(log(ratio)) > AIM &&
		    extra < MAX_EXTRA && !(ratio < 1 && layer->step >= largest))
			extra++;
		last = pass + 1 == goal->passes + extra;
		if (last)
			break;
		if (f.move_columns)
			move_columns(&f);
		layer->step = hct_tcq_next_step(&secant, layer->step, ratio);
		layer->step = fminf(layer->step, largest); /* the sample may lack what matters */
	}
	forecast->bits = f.counts.bits / (double)f.counts.elements;
	forecast->error = f.counts.error / (double)f.counts.elements;
	e = pack_columns(&f) ? HCT_OK : HCT_ERR_NOMEM;
out:
	close_fit(&f);
	return e;
}
