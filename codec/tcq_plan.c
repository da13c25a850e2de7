#include "tcq_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "census.h"
#include "checksum.h"
#include "codec.h"
#include "idct.h"
#include "judge.h"
#include "matrix.h"
#include "tcq_classes.h"
#include "tcq_encode.h"
#include "tcq_fit.h"
#include "widen.h"

#define SEGMENT_LOG2 16
/* Most and least bits of a layer beyond the one before it; the error of the first one, that of 2
 * bits of white noise, and its largest where there are too few bits for all layers. */
#define LAYER_BITS 1.5
#define LEAST_BITS 0.5
#define FIRST      0.0713
#define COARSEST   0.35
/* Share of a table's bytes that is left when PARAMS is compressed, about. */
#define TABLE_SHARE 0.7
/* What a transform must save to be worth its time, in bits. */
#define TRANSFORM_GAIN 0.01
/* Start states, class maps, what states of 16 bits lose: bits of an element. */
#define OVERHEAD_BITS 0.022
/* Where the mean squared error is less than this of step^2, many values are lost in the step. */
#define UNEVEN_ERROR  0.2
#define UNEVEN_SAMPLE (512u << 10) /* elements more */
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
/* Share of the error wanted that is near enough when nothing nearer is found. */
#define SETTLED 1.005
/* Of an element, mean squared: the largest step is 2^99. */
#define MAX_ERROR (0x1p198 / 4)
/* Bands with the most energy, and how many times their share they must have to be looked at. */
#define PEAKS      4
#define PEAK_SHARE 4

/* How hard each effort tries. */
static const struct effort {
	size_t sample; /* elements */
	unsigned passes, states_log2, row_classes, shapes, trials;
} efforts[9] = {
	{64u << 10, 3, 3, 1, 2, 1},  {96u << 10, 3, 3, 2, 2, 1},  {128u << 10, 3, 4, 4, 4, 1},
	{160u << 10, 4, 5, 4, 4, 1}, {192u << 10, 4, 5, 4, 4, 2}, {384u << 10, 5, 5, 4, 6, 2},
	{768u << 10, 6, 5, 8, 6, 3}, {1u << 20, 7, 5, 8, 8, 3},   {2u << 20, 8, 5, 16, 12, 4},
};

/* Tiles that are tried, in this order. */
#define SHAPES 12
static const struct shape {
	uint8_t rows_log2, columns_log2;
} shapes[SHAPES] = {{6, 0}, {0, 6}, {4, 4}, {3, 3}, {5, 5}, {4, 0},
		    {0, 4}, {6, 6}, {5, 0}, {0, 5}, {3, 0}, {0, 3}};

struct hct_tcq_plan {
	struct hct_tcq_tables t;
	hct_dtype dtype;
	uint32_t chunk;     /* elements */
	uint8_t *params;    /* the tables, packed */
	void *decoder;      /* the same as the codec decodes with */
	double bits, error; /* forecast */
	struct hct_tcq_layer_encoder *layers[HCT_TCQ_MAX_LAYERS];
};

/* A tensor while it is planned. */
struct planner {
	hct_encoder *e;
	const struct hct_tensor *tensor;
	const uint8_t *data;
	const struct hct_goal *goal;
	const struct effort *effort;
	struct hct_census census;
	uint64_t elements, rows;
	uint32_t columns;
	int uneven;    /* error and step do not go together as they do where all values are large */
	double spread; /* of the errors measured last: see SPREAD */
	float lambda[HCT_TCQ_MAX_LAYERS]; /* of the layers as fitted */
	struct hct_tcq_sample s;
	/* The bands with the most energy, apart, when they have far more than their share. */
	uint64_t peaks[PEAKS];
	size_t peak_count;
	uint32_t peak_rows; /* of such a band */
	struct hct_tcq_sample peak;
};

static void choose_matrix(struct planner *p)
{
	p->columns = hct_matrix_columns(p->tensor);
	p->rows = p->elements / p->columns;
}

/* The bands with the most energy so far, the largest first. */
struct peaks {
	double energy[PEAKS + 1];
	uint64_t at[PEAKS + 1], count;
};

static void note_peak(void *arg, uint64_t number, const struct hct_census *band)
{
	struct peaks *k = arg;
	unsigned i = PEAKS;

	for (; i > 0 && band->energy > k->energy[i - 1]; i--) {
		k->energy[i] = k->energy[i - 1];
		k->at[i] = k->at[i - 1];
	}
	k->energy[i] = band->energy;
	k->at[i] = number;
	k->count++;
}

/* Looks at all of the tensor, and notes the bands with the most energy. */
static hct_error take_census(struct planner *p)
{
	struct peaks k = {.count = 0};
	double share = 0;
	uint64_t band;
	hct_error e;

	p->peak_rows = hct_tcq_band_rows(p->columns, HCT_DCT_MAX_TILE);
	band = p->peak_rows ? (uint64_t)p->peak_rows * p->columns : HCT_TCQ_PIECE;
	e = hct_census_take(p->e, p->tensor, p->data, band, &p->census, note_peak, &k);
	for (unsigned i = 0; i < PEAKS; i++)
		share += k.energy[i] / p->census.energy;
	if (k.count > PEAKS && share > PEAK_SHARE * PEAKS / (double)k.count) {
		p->peak_count = PEAKS;
		memcpy(p->peaks, k.at, sizeof p->peaks);
	}
	return e;
}

static int shape_fits(const struct planner *p, const struct shape *s)
{
	return hct_matrix_tile_fits(p->rows, p->columns, s->rows_log2, s->columns_log2) &&
	       (!s->rows_log2 || 1u << s->rows_log2 <= p->s.band_rows);
}

/* As many classes as their tables are worth: a spread of scales of variance v costs about
 * .6 v bits a value to who does not know them, and less where there are few bits. */
static void choose_classes(const struct planner *p, struct hct_tcq_goal *goal)
{
	double table = 64 * 8 * TABLE_SHARE / (double)p->elements; /* bits of one more class */
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

/* Mean squared error that a layer is to leave, of values as they are. */
static double layer_error(const struct planner *p, unsigned layer)
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

/* Makes errors those of the elements that come of them: where these are coarse, rounding does not
 * just add its own.  x: what is left of n values; room: for n elements. */
static void round_errors(const struct planner *p, const float *values, float *x, size_t n,
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
static hct_error apply_layer(struct planner *p, struct hct_tcq_sample *sample,
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
		bytes += hct_tcq_encode_layer(t, layer, le, p->e->simd, x, n, piece->column, 1,
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

/* Runs of 512 elements, or shorter where rows are: scales change with the row. */
static unsigned choose_run(const struct planner *p)
{
	unsigned log2 = 3;

	while (log2 && (uint64_t)HCT_GROUP << log2 > p->columns && p->rows > 1)
		log2--;
	return log2;
}

/* The error that a layer leaves in the tensor: as in the sample, but for the peaks. */
static hct_error measure_layer(struct planner *p, const struct hct_tcq_tables *t, unsigned layer,
			       int keep, double *error, double *bits)
{
	int half = !keep && !p->uneven && p->s.elements < p->elements;
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
static hct_error settle_even(struct planner *p, struct hct_tcq_tables *t, double goal)
{
	struct hct_tcq_layer *l = &t->layers[t->layer_count - 1];
	struct hct_tcq_secant secant = {.slope = 2};
	double error, bits;

	for (unsigned i = 0; i < EVEN_TRIES && p->spread < SPREAD; i++) {
		hct_error e = measure_layer(p, t, t->layer_count - 1, 0, &error, &bits);

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
static hct_error settle_uneven(struct planner *p, struct hct_tcq_tables *t, double goal,
			       double *error, double *bits)
{
	struct hct_tcq_layer *l = &t->layers[t->layer_count - 1];
	struct hct_tcq_secant secant = {.slope = 2};
	float good = 0, bad = 0; /* the steps next to the error wanted, on either side */
	double found, cost;

	for (unsigned i = 0; i < 2 * SETTLE_TRIES; i++) {
		hct_error e = measure_layer(p, t, t->layer_count - 1, 0, &found, &cost);
		float next;

		if (e)
			return e;
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
static hct_error settle(struct planner *p, struct hct_tcq_tables *t, double forecast, double goal,
			double *error, double *bits)
{
	struct hct_tcq_layer *l = &t->layers[t->layer_count - 1];
	struct hct_tcq_secant secant = {.slope = 2};
	hct_error e = HCT_OK;

	if (!p->uneven) { /* tables have moved since the forecast */
		l->step = hct_tcq_next_step(&secant, l->step, forecast / goal);
		e = settle_even(p, t, goal);
	}
	return !e && p->uneven ? settle_uneven(p, t, goal, error, bits) : e;
}

/* Fits all layers to the sample as it is transformed; a trial does it in fewer passes and does not
 * correct the step. */
static hct_error fit_layers(struct planner *p, struct hct_tcq_tables *t, int trial, double *bits,
			    double *error)
{
	hct_error e = HCT_OK;

	hct_tcq_sample_transform(&p->s, p->e->dct, t->tile_rows_log2, t->tile_columns_log2, 1);
	hct_tcq_sample_transform(&p->peak, p->e->dct, t->tile_rows_log2, t->tile_columns_log2, 1);
	*bits = *error = 0;
	p->uneven = p->peak.count > 0;
	for (unsigned l = 0; l < t->layer_count && !e; l++) {
		double goal_error = scale_error(t, layer_error(p, l));
		struct hct_tcq_goal goal = {.error = goal_error,
					    .states_log2 = p->effort->states_log2,
					    .run_log2 = choose_run(p),
					    .passes = trial ? TRIAL_PASSES : p->effort->passes};
		struct hct_tcq_forecast forecast;
		double layer_bits;

		choose_classes(p, &goal);
		if (l) /* the residual has no scales left */
			goal.column_classes = goal.row_classes = 1;
		e = hct_tcq_fit(&p->s, &goal, p->e->simd, &t->layers[l], &forecast);
		if (e)
			break;
		p->uneven |= forecast.error < UNEVEN_ERROR * t->layers[l].step * t->layers[l].step;
		p->spread = 0;
		/* In units of step^2, so that the error follows the step from here on. */
		p->lambda[l] = hct_tcq_lambda(goal_error, t->layers[l].step);
		layer_bits = forecast.bits + OVERHEAD_BITS;
		*error = goal_error;
		if (l + 1 < t->layer_count)
			e = measure_layer(p, t, l, 1, error, &layer_bits);
		else if (trial)
			*error = forecast.error;
		else
			e = settle(p, t, forecast.error, goal_error, error, &layer_bits);
		*bits += layer_bits;
	}
	*error /= scale_error(t, 1);
	return e;
}

static void drop_tables(struct hct_tcq_tables *t)
{
	for (unsigned l = 0; l < HCT_TCQ_MAX_LAYERS; l++) {
		free((void *)t->layers[l].column_class);
		t->layers[l].column_class = NULL;
	}
}

static struct hct_tcq_tables empty_tables(const struct planner *p, const struct shape *s)
{
	return (struct hct_tcq_tables){.layer_count = p->goal->layers,
				       .tile_rows_log2 = s->rows_log2,
				       .tile_columns_log2 = s->columns_log2,
				       .segment_log2 = SEGMENT_LOG2,
				       .columns = p->columns};
}

/* Bits of the sample with a tile, the error corrected to what is wanted. */
static hct_error try_shape(struct planner *p, const struct shape *s, double *bits)
{
	struct hct_tcq_tables t = empty_tables(p, s);
	double error;
	hct_error e;

	e = fit_layers(p, &t, 1, bits, &error);
	if (!e)
		*bits += .5 * log2(error / layer_error(p, t.layer_count - 1)) +
			 8 * TABLE_SHARE * (double)hct_tcq_tables_length(&t) / (double)p->elements;
	drop_tables(&t);
	return e;
}

/* A tile, and what an ideal coder would spend with it. */
struct candidate {
	const struct shape *shape;
	double bits;
};

/* The tiles that fit, those with the fewest bits first; a tie goes to the one earlier in the table,
 * which is the quicker one.  Returns how many. */
static unsigned rank_shapes(struct planner *p, double error, size_t stride,
			    struct candidate ranked[SHAPES])
{
	unsigned count = 0;

	for (unsigned i = 0; i < p->effort->shapes; i++) {
		unsigned rows = 1u << shapes[i].rows_log2, columns = 1u << shapes[i].columns_log2;
		double factor = hct_idct_factor(rows, columns);
		struct candidate c = {.shape = &shapes[i]};
		unsigned k;

		if (!shape_fits(p, &shapes[i]))
			continue;
		hct_tcq_sample_transform(&p->s, p->e->dct, shapes[i].rows_log2,
					 shapes[i].columns_log2, stride);
		c.bits = hct_tcq_sample_bits(&p->s, error * factor * factor, stride);
		for (k = count++; k > 0 && c.bits < ranked[k - 1].bits - TRANSFORM_GAIN; k--)
			ranked[k] = ranked[k - 1];
		ranked[k] = c;
	}
	return count;
}

/* Picks the tile: first by what an ideal coder would save, which is quick, then by trial of the
 * best few. */
static hct_error choose_shape(struct planner *p, struct shape *best)
{
	static const struct shape none = {0, 0};
	double error = layer_error(p, p->goal->layers - 1), plain, least = INFINITY, bits;
	size_t stride = p->s.count > 4 ? 2 : 1; /* compared by every second piece */
	int forced = p->goal->transform == HCT_TRANSFORM_DCT;
	struct candidate ranked[SHAPES];
	unsigned count;
	hct_error e = HCT_OK;

	*best = none;
	if (p->goal->transform == HCT_TRANSFORM_NONE)
		return HCT_OK;
	hct_tcq_sample_transform(&p->s, p->e->dct, 0, 0, stride);
	plain = hct_tcq_sample_bits(&p->s, error, stride);
	count = rank_shapes(p, error, stride, ranked);
	if (!count || (!forced && ranked[0].bits > plain - TRANSFORM_GAIN))
		return HCT_OK;
	if (!forced)
		e = try_shape(p, &none, &least);
	for (unsigned i = 0; i < count && i < p->effort->trials && !e; i++) {
		e = try_shape(p, ranked[i].shape, &bits);
		if (!e && bits < least - TRANSFORM_GAIN) {
			least = bits;
			*best = *ranked[i].shape;
		}
	}
	return e;
}

/* What cannot be coded, or need not. */
static const char *objection(const struct planner *p)
{
	const char *fault = hct_census_fault(&p->census, p->tensor, p->data);

	if (fault)
		return fault;
	if (p->goal->relative_squared_error * p->census.energy < 2 * p->census.rounding)
		return "its dtype is too coarse for that error";
	if (!isfinite(p->census.energy) || layer_error(p, 0) > MAX_ERROR ||
	    layer_error(p, p->goal->layers - 1) <
		    1e-58 * (p->census.energy > 1 ? p->census.energy : 1))
		return "its values are out of range";
	if (p->census.peak >
	    .25 * HCT_TCQ_MAX_EXCEPTION * sqrt(layer_error(p, p->goal->layers - 1)))
		return "it has outliers beyond what can be coded";
	return NULL;
}

static hct_error seal(struct planner *p, struct hct_tcq_plan *plan)
{
	size_t length = hct_tcq_tables_length(&plan->t);
	struct hct_tcq_tables t;
	const char *why;
	hct_error e;

	plan->params = malloc(length);
	if (!plan->params)
		return HCT_ERR_NOMEM;
	hct_tcq_tables_pack(&plan->t, plan->params);
	e = hct_codec_tcq.open_tables(p->tensor, plan->params, length, &plan->decoder, &why);
	if (!e)
		e = hct_tcq_tables_unpack(plan->params, length, &t, &why);
	if (e)
		return e;
	drop_tables(&plan->t);
	plan->t = t; /* its column classes are those of params */
	for (unsigned l = 0; l < t.layer_count; l++) {
		plan->layers[l] = hct_tcq_layer_encoder_create(&plan->t, l, p->lambda[l]);
		if (!plan->layers[l])
			return HCT_ERR_NOMEM;
	}
	plan->bits += 8 * TABLE_SHARE * (double)length / (double)p->elements;
	return HCT_OK;
}

/* Learns the tables for a tile: from more of the tensor where many values are lost in the step,
 * since then the error is not the same everywhere. */
static hct_error learn_tables(struct planner *p, const struct shape *shape,
			      struct hct_tcq_plan *plan)
{
	size_t elements = p->effort->sample;
	hct_error e;

	for (;;) {
		hct_tcq_sample_free(&p->s);
		drop_tables(&plan->t);
		plan->t = empty_tables(p, shape);
		e = hct_tcq_sample_take(p->tensor, p->data, p->columns, elements,
					1u << shape->rows_log2, &p->s);
		if (!e && p->peak_count && !p->peak.count && p->s.elements < p->elements)
			e = hct_tcq_sample_take_bands(p->tensor, p->data, p->columns, p->peak_rows,
						      p->peaks, p->peak_count, &p->peak);
		if (!e)
			e = fit_layers(p, &plan->t, 0, &plan->bits, &plan->error);
		if (e || !p->uneven || p->s.elements >= p->elements || elements > p->effort->sample)
			break;
		elements = UNEVEN_SAMPLE + 4 * p->effort->sample;
	}
	plan->error = plan->error * (double)p->elements / p->census.energy +
		      p->census.rounding / p->census.energy;
	/* Steps move while they are looked for: the format has bounds. */
	for (unsigned l = 0; l < plan->t.layer_count && !e; l++)
		if (!(plan->t.layers[l].step >= 0x1p-100f && plan->t.layers[l].step <= 0x1p100f))
			e = HCT_ERR_ARGUMENT;
	return e;
}

static hct_error make_plan(struct planner *p, struct hct_tcq_plan **out)
{
	struct hct_tcq_plan *plan;
	struct shape shape;
	hct_error e;

	e = hct_tcq_sample_take(p->tensor, p->data, p->columns, p->effort->sample, HCT_DCT_MAX_TILE,
				&p->s);
	if (!e)
		e = choose_shape(p, &shape);
	if (e)
		return e;
	plan = calloc(1, sizeof *plan);
	if (!plan)
		return HCT_ERR_NOMEM;
	plan->dtype = p->tensor->dtype;
	plan->chunk = hct_matrix_chunk(p->columns, shape.rows_log2, shape.columns_log2);
	e = learn_tables(p, &shape, plan);
	if (!e)
		e = seal(p, plan);
	if (e)
		hct_tcq_plan_free(plan);
	else
		*out = plan;
	return e;
}

hct_error hct_tcq_plan_create(hct_encoder *e, const struct hct_tensor *tensor, const uint8_t *data,
			      const struct hct_goal *goal, struct hct_tcq_plan **out,
			      const char **why)
{
	struct planner p = {.e = e,
			    .tensor = tensor,
			    .data = data,
			    .goal = goal,
			    .effort = &efforts[goal->effort - 1],
			    .census = {.finite = 1},
			    .elements = hct_tensor_bytes(tensor) / hct_dtype_unit(tensor->dtype)};
	hct_error err;

	*out = NULL;
	if (!hct_tcq_has_dtype(tensor->dtype)) {
		*why = "its dtype";
		return HCT_OK;
	}
	choose_matrix(&p);
	err = take_census(&p);
	if (err)
		return err;
	*why = objection(&p);
	if (*why)
		return HCT_OK;
	err = make_plan(&p, out);
	hct_tcq_sample_free(&p.s);
	hct_tcq_sample_free(&p.peak);
	if (err != HCT_ERR_ARGUMENT)
		return err;
	*why = "no step of the quantiser reaches that error";
	return HCT_OK;
}

void hct_tcq_plan_free(struct hct_tcq_plan *p)
{
	if (!p)
		return;
	for (unsigned l = 0; l < HCT_TCQ_MAX_LAYERS; l++)
		hct_tcq_layer_encoder_free(p->layers[l]);
	if (p->decoder)
		hct_codec_tcq.free_tables(p->decoder);
	else
		drop_tables(&p->t);
	free(p->params);
	free(p);
}

const struct hct_tcq_tables *hct_tcq_plan_tables(const struct hct_tcq_plan *p)
{
	return &p->t;
}

void hct_tcq_plan_forecast(const struct hct_tcq_plan *p, double *bits, double *error)
{
	*bits = p->bits;
	*error = p->error;
}

uint32_t hct_tcq_plan_chunk(const struct hct_tcq_plan *p)
{
	return p->chunk;
}

/* The same without comparing sizes where compare is 0. */
static hct_error encode(hct_encoder *e, const struct hct_tcq_plan *p, const uint8_t *data, size_t n,
			uint64_t first, int compare, struct hct_encoded *out)
{
	size_t room = 0, total = 0, groups = (n + HCT_GROUP - 1) / HCT_GROUP * HCT_GROUP;
	size_t scratch = (hct_tcq_scratch(&p->t) + 63) / 64 * 64;
	uint8_t *at;
	float *values;
	hct_error err;

	for (unsigned l = 0; l < p->t.layer_count; l++)
		room += hct_tcq_payload_bound(&p->t, &p->t.layers[l], n) + HCT_PAYLOAD_PAD;
	if (!hct_buffer_reserve(&e->payload, &e->payload_capacity, room) ||
	    !hct_buffer_reserve(&e->work, &e->work_capacity, scratch + groups * sizeof(float)))
		return HCT_ERR_NOMEM;
	values = (float *)(void *)(e->work + scratch);
	err = hct_tcq_values(&p->t, e->dct, p->dtype, data, n, values);
	if (err)
		return err;
	at = e->payload;
	out->layer_count = p->t.layer_count;
	for (unsigned l = 0; l < p->t.layer_count; l++) {
		size_t length = hct_tcq_encode_layer(&p->t, l, p->layers[l], e->simd, values, n,
						     first, l + 1 < p->t.layer_count, e->work, at);

		out->layers[l] = (struct hct_encoded_layer){.payload = at,
							    .length = (uint32_t)length,
							    .checksum = hct_checksum(at, length)};
		at += length;
		memset(at, 0, HCT_PAYLOAD_PAD);
		at += HCT_PAYLOAD_PAD;
		total += length;
	}
	if (compare && p->t.layer_count == 1 && total >= n * hct_dtype_unit(p->dtype))
		return HCT_ERR_LIMIT;
	return hct_judge(e, &hct_codec_tcq, p->decoder, p->dtype, data, n, first, out);
}

hct_error hct_tcq_encode(hct_encoder *e, const struct hct_tcq_plan *p, const uint8_t *data,
			 size_t n, uint64_t first, struct hct_encoded *out)
{
	return encode(e, p, data, n, first, 1, out);
}

hct_error hct_tcq_encode_part(hct_encoder *e, const struct hct_tcq_plan *p, const uint8_t *data,
			      size_t n, uint64_t first, struct hct_encoded *out)
{
	return encode(e, p, data, n, first, 0, out);
}
