#include "tcq_layers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dequant.h"
#include "idct.h"
#include "tcq_classes.h"
#include "tcq_encode.h"
#include "tcq_fit.h"
#include "widen.h"

/* Most and least bits of a layer beyond the one before it; the error of the first one, that of 2
 * bits of white noise, and its largest where there are too few bits for all layers. */
#define LAYER_BITS 1.5
#define LEAST_BITS 0.5
#define FIRST      0.0713
#define COARSEST   0.35
/* Start states, class maps, what states of 16 bits lose: bits of an element. */
#define OVERHEAD_BITS 0.022
/* Where the mean squared error is less than this of step^2, many values are lost in the step. */
#define UNEVEN_ERROR 0.2
/* An error that is off by less, as a share, is corrected and not measured again; a variance of
 * squared errors, in squares of their mean, beyond which half of a sample does not tell their
 * mean.  From sums of blocks of so many, since neighbours are alike. */
#define EVEN   0.01
#define SPREAD 3.5
#define BLOCK  4096
/* Share of the error wanted that rounding must have to be looked at. */
#define GRAIN 0.02
/* Passes of a trial, and how often a step is corrected whose error hardly follows it. */
#define TRIAL_PASSES 3
#define EVEN_TRIES   3
#define SETTLE_TRIES 6
#define ROUGH_TRIES  2
#define ROUGH_PIECES 4
/* Share of the error wanted that is near enough when nothing nearer is found. */
#define SETTLED 1.005

/* Mean squared error that a layer is to leave, of values as they are. */
double hct_tcq_layer_error(const struct hct_tcq_planner *p, unsigned layer)
{
	double d = p->goal->relative_squared_error - p->census.rounding / p->census.energy;
	unsigned later = p->goal->layers - 1 - layer;

	if (later) {
		/* In even steps, from an error that is worth having. */
		unsigned steps = p->goal->layers - 1;
		double bits = .5 * log2(FIRST / d) / steps;
		double most = .5 * log2(COARSEST / d) / steps;

		bits = fmin(fmin(fmax(bits, LEAST_BITS), LAYER_BITS), most);
		d *= bits > 0 ? exp2(2 * bits * later) : 1;
	}
	return d * p->census.energy / (double)p->elements;
}

/* Error of a value, transformed, for an error of an element. */
static double scale_error(const struct hct_tcq_tables *t, double error)
{
	unsigned rows = 1u << t->tile_rows_log2, columns = 1u << t->tile_columns_log2;
	double factor = rows * columns > 1 ? hct_idct_factor(rows, columns) : 1;

	return error * factor * factor;
}

/* As many classes as their tables are worth: a spread of scales of variance v costs about
 * .6 v bits a value to who does not know them, and less where there are few bits. */
static void choose_classes(const struct hct_tcq_planner *p, struct hct_tcq_goal *goal)
{
	double table = 64 * 8 * HCT_TABLE_SHARE / (double)p->elements; /* bits of one more class */
	double rate = hct_tcq_sample_bits(&p->s, goal->error, p->s.count > 4 ? 2 : 1);
	double worth = .6 * (rate < 2 ? rate / 2 : 1);
	double columns = worth * hct_tcq_column_spread(&p->s);
	double runs = worth * hct_tcq_run_spread(&p->s);

	goal->column_classes = 1;
	for (unsigned q = 2; q <= 4; q *= 2) {
		double gain = q == 2 ? .6 * columns : .85 * columns;
		double cost = (q - 1) * table + (double)(q / 2) / (double)p->rows;

		if (p->columns > 1 && gain > cost + .01)
			goal->column_classes = q;
	}
	table *= goal->column_classes;
	goal->row_classes = 1;
	for (unsigned k = 2; k <= p->effort->row_classes; k *= 2)
		if (runs * (1 - 1.0 / k / k) - runs * (1 - 4.0 / k / k) > k / 2 * table)
			goal->row_classes = k;
}

/* Runs of 512 elements, or shorter where rows are: scales change with the row. */
static unsigned choose_run(const struct hct_tcq_planner *p)
{
	unsigned log2 = 3;

	while (log2 && (uint64_t)HCT_GROUP << log2 > p->columns && p->rows > 1)
		log2--;
	return log2;
}

/* Makes errors those of the elements that come of them: where these are coarse, rounding does not
 * just add its own.  x: what is left of n values; room: for n elements. */
static void round_errors(const struct hct_tcq_planner *p, const float *values, float *x, size_t n,
			 uint8_t *room)
{
	for (size_t i = 0; i < n; i++)
		x[i] = values[i] - x[i];
	hct_dequant_find(p->e->simd)->narrow[p->tensor->dtype](x, n, room);
	hct_widen(p->tensor->dtype, room, n, x);
	for (size_t i = 0; i < n; i++)
		x[i] = values[i] - x[i];
}

/* Sums of whole blocks of squared errors: how many, theirs, and of their squares. */
struct spread {
	double blocks, sum, squares;
};

/* The sum of squares; those of whole blocks are noted. */
static double add_squares(const float *x, size_t n, struct spread *s)
{
	double all = 0;

	for (size_t i = 0; i < n; i += BLOCK) {
		size_t end = n - i < BLOCK ? n : i + BLOCK;
		double sum = 0;

		for (size_t j = i; j < end; j++)
			sum += (double)x[j] * x[j];
		all += sum;
		if (end - i == BLOCK) {
			s->blocks++;
			s->sum += sum;
			s->squares += sum * sum;
		}
	}
	return all;
}

/* The variance of a squared error as SPREAD has it. */
static double spread_of(const struct spread *s)
{
	return s->sum > 0 ? BLOCK * (s->squares * s->blocks / (s->sum * s->sum) - 1) : 0;
}

/* Codes a sample with a layer as it is.  The mean square of what is left of the values goes to
 * *error, the bits of a value to *bits; with keep what is left takes the place of the values. half:
 * looks at every second piece only. */
static hct_error apply_layer(struct hct_tcq_planner *p, struct hct_tcq_sample *sample,
			     const struct hct_tcq_tables *t, unsigned layer, int keep, int half,
			     double *error, double *bits)
{
	struct hct_tcq_layer_encoder *le = hct_tcq_layer_encoder_create(t, layer, p->lambda[layer]);
	size_t scratch = (hct_tcq_scratch(t) + 63) / 64 * 64,
	       values = 2 * HCT_TCQ_PIECE * sizeof(float);
	size_t room = hct_tcq_payload_bound(t, &t->layers[layer], HCT_TCQ_PIECE);
	uint8_t *work = aligned_alloc(64, scratch + values + (room + 63) / 64 * 64);
	size_t elements = 0, bytes = 0;
	double sum = 0;
	struct spread spread = {0};
	int rounds =
		!keep && !layer && !t->tile_rows_log2 && !t->tile_columns_log2 &&
		p->census.rounding > GRAIN * p->goal->relative_squared_error * p->census.energy;

	if (!le || !work) {
		hct_tcq_layer_encoder_free(le);
		free(work);
		return HCT_ERR_NOMEM;
	}
	for (size_t i = 0; i < sample->count; i += half ? 2 : 1) {
		const struct hct_tcq_piece *piece = &sample->pieces[i];
		size_t n = piece->elements, whole = (n + HCT_GROUP - 1) / HCT_GROUP * HCT_GROUP;
		float *x = (float *)(void *)(work + scratch);

		memcpy(x, piece->x, whole * sizeof *x);
		bytes += hct_tcq_encode_layer(t, layer, le, &p->e->searcher, x, n, piece->column, 1,
					      work, work + scratch + values);
		if (rounds)
			round_errors(p, piece->x, x, n, (uint8_t *)(x + HCT_TCQ_PIECE));
		sum += add_squares(x, n, &spread);
		if (keep)
			memcpy(piece->x, x, n * sizeof *x);
		elements += n;
	}
	*error = sum / (double)elements;
	p->spread = spread_of(&spread);
	if (rounds) { /* errors are wanted without that of rounding */
		double own = p->census.rounding / (double)p->elements;

		*error = *error > 1.1 * own ? *error - own : .1 * own;
	}
	*bits = 8 * (double)bytes / (double)elements;
	hct_tcq_layer_encoder_free(le);
	free(work);
	return HCT_OK;
}

/* The error that a layer leaves in the tensor: as in the sample, but for the peaks. */
static hct_error measure_layer(struct hct_tcq_planner *p, const struct hct_tcq_tables *t,
			       unsigned layer, int keep, int half, double *error, double *bits)
{
	hct_error e = apply_layer(p, &p->s, t, layer, keep, half, error, bits);
	double share = (double)p->peak.elements / (double)p->elements, peak, peak_bits;

	if (e || !p->peak.count)
		return e;
	e = apply_layer(p, &p->peak, t, layer, keep, 0, &peak, &peak_bits);
	*error += share * (peak - *error);
	*bits += share * (peak_bits - *bits);
	return e;
}

/* Corrects the step of the last layer by what it really leaves: with large values once is exact
 * enough.  Where a few times are not, error and step do not go together, and the tensor is uneven.
 */
static hct_error settle_even(struct hct_tcq_planner *p, struct hct_tcq_tables *t, double goal)
{
	struct hct_tcq_layer *l = &t->layers[t->layer_count - 1];
	struct hct_tcq_secant secant = {.slope = 2};
	double error, bits;

	for (unsigned i = 0; i < EVEN_TRIES && p->spread < SPREAD; i++) {
		hct_error e = measure_layer(p, t, t->layer_count - 1, 0,
					    p->s.elements < p->elements, &error, &bits);

		if (e)
			return e;
		l->step = hct_tcq_next_step(&secant, l->step, error / goal);
		if (fabs(error / goal - 1) < EVEN && p->spread < SPREAD)
			return HCT_OK;
	}
	p->uneven = 1;
	return HCT_OK;
}

/* Looks for the largest step that leaves no more than the error wanted, where error and step hardly
 * go together, as in a constant.  *bits and *error become what was measured. */
static hct_error settle_uneven(struct hct_tcq_planner *p, struct hct_tcq_tables *t, double goal,
			       double *error, double *bits)
{
	struct hct_tcq_layer *l = &t->layers[t->layer_count - 1];
	struct hct_tcq_secant secant = {.slope = 2};
	float good = 0, bad = 0; /* the steps next to the error wanted, on either side */
	double found, cost;

	for (unsigned i = 0; i < 2 * SETTLE_TRIES; i++) {
		/* The first tries, far from the end, need not see everything. */
		int rough = i < ROUGH_TRIES && p->s.count >= ROUGH_PIECES;
		hct_error e = measure_layer(p, t, t->layer_count - 1, 0, rough, &found, &cost);
		float next;

		if (e)
			return e;
		if (rough) {
			l->step = hct_tcq_next_step(&secant, l->step, found / goal);
			continue;
		}
		if (found <= SETTLED * goal) {
			good = l->step;
			*error = found;
			*bits = cost;
		} else if (bad == 0 || l->step < bad) {
			bad = l->step;
		}
		if (good > 0 && (i >= SETTLE_TRIES || fabs(*error / goal - 1) < .005))
			break;
		next = hct_tcq_next_step(&secant, l->step, found / goal);
		if (good > 0 && bad > 0 && (next <= good || next >= bad))
			next = sqrtf(good * bad);
		else if (good == 0 && i >= SETTLE_TRIES / 2)
			next = .6f * l->step;
		l->step = next;
	}
	l->step = good;
	return good > 0 ? HCT_OK : HCT_ERR_ARGUMENT;
}

/* Sets the step of the last layer; *bits and *error change where they are measured. */
static hct_error settle(struct hct_tcq_planner *p, struct hct_tcq_tables *t, double forecast,
			double goal, double *error, double *bits)
{
	struct hct_tcq_layer *l = &t->layers[t->layer_count - 1];
	struct hct_tcq_secant secant = {.slope = 2};
	hct_error e = HCT_OK;

	if (!p->uneven) { /* tables have moved since the forecast */
		l->step = hct_tcq_next_step(&secant, l->step, forecast / goal);
		e = settle_even(p, t, goal);
	}
	return !e && p->uneven && !p->draft ? settle_uneven(p, t, goal, error, bits) : e;
}

/* Fits all layers to the sample as it is transformed; a trial does it in fewer passes and does not
 * correct the step. */
hct_error hct_tcq_fit_layers(struct hct_tcq_planner *p, struct hct_tcq_tables *t, int trial,
			     double *bits, double *error)
{
	hct_error e = HCT_OK;

	hct_tcq_sample_transform(&p->s, p->e->dct, t->tile_rows_log2, t->tile_columns_log2, 1);
	hct_tcq_sample_transform(&p->peak, p->e->dct, t->tile_rows_log2, t->tile_columns_log2, 1);
	*bits = *error = 0;
	p->uneven = p->peak.count > 0;
	for (unsigned l = 0; l < t->layer_count && !e; l++) {
		double goal_error = scale_error(t, hct_tcq_layer_error(p, l));
		struct hct_tcq_goal goal = {.error = goal_error,
					    .states_log2 = p->effort->states_log2,
					    .run_log2 = choose_run(p),
					    .passes = trial ? TRIAL_PASSES : p->effort->passes,
					    .stride = p->stride ? p->stride : 1};
		struct hct_tcq_forecast forecast;
		double layer_bits;

		choose_classes(p, &goal);
		if (l) /* the residual has no scales left */
			goal.column_classes = goal.row_classes = 1;
		e = hct_tcq_fit(&p->s, &goal, &p->e->searcher, &t->layers[l], &forecast);
		if (e)
			break;
		p->uneven |= forecast.error < UNEVEN_ERROR * t->layers[l].step * t->layers[l].step;
		p->spread = 0;
		/* In units of step^2, so that the error follows the step from here on. */
		p->lambda[l] = hct_tcq_lambda(goal_error, t->layers[l].step);
		layer_bits = forecast.bits + OVERHEAD_BITS;
		*error = goal_error;
		if (l + 1 < t->layer_count)
			e = measure_layer(p, t, l, 1, 0, error, &layer_bits);
		else if (trial)
			*error = forecast.error;
		else
			e = settle(p, t, forecast.error, goal_error, error, &layer_bits);
		*bits += layer_bits;
	}
	*error /= scale_error(t, 1);
	return e;
}
