#include "tcq_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "codec.h"
#include "idct.h"
#include "tcq_encode.h"
#include "tcq_fit.h"
#include "widen.h"

#define CHUNK_ELEMENTS (128u * 1024u)
#define PIECE_ELEMENTS (64u * 1024u)
#define SEGMENT_LOG2   16
/* Bits of a layer beyond the one before it. */
#define LAYER_BITS 1.5
/* Share of a table's bytes that is left when PARAMS is compressed, about. */
#define TABLE_SHARE 0.7
/* What a transform must save to be worth its time, in bits. */
#define TRANSFORM_GAIN 0.01
/* Start states, class maps, what states of 16 bits lose: bits of an element. */
#define OVERHEAD_BITS 0.022
#define UNEVEN_SLOPE  1.7
#define UNEVEN_SAMPLE 4 /* times as large */
/* Passes of a trial, and how often a step is corrected whose error hardly follows it. */
#define TRIAL_PASSES 2
#define SETTLE_TRIES 3

/* How hard each effort tries. */
static const struct effort {
	size_t sample; /* elements */
	unsigned passes, states_log2, row_classes, shapes;
} efforts[9] = {
	{32u << 10, 3, 3, 1, 2},  {64u << 10, 3, 3, 2, 2},  {128u << 10, 3, 4, 4, 4},
	{192u << 10, 4, 5, 4, 4}, {256u << 10, 4, 5, 4, 4}, {384u << 10, 5, 5, 4, 6},
	{768u << 10, 6, 5, 8, 6}, {1u << 20, 7, 5, 8, 8},   {2u << 20, 8, 5, 16, 12},
};

/* Tiles that are tried, in this order. */
static const struct shape {
	uint8_t rows_log2, columns_log2;
} shapes[12] = {{6, 0}, {0, 6}, {4, 4}, {3, 3}, {5, 5}, {4, 0},
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
	uint32_t piece_rows;   /* whole rows of a piece; 0 when rows are longer than that */
	float *values, *plain; /* of the sample: transformed, and as they are */
	uint64_t *first;       /* element of the tensor at which each piece begins */
	int uneven; /* error and step do not go together as they do where all values are large */
	struct hct_tcq_sample s;
};

/* Shape --------------------------------------------------------------------------------- */

/* The matrix that a tensor is seen as: rows of the last dimension, or of the last few when that is
 * short, as with convolutions. */
static void choose_matrix(struct planner *p)
{
	const struct hct_tensor *t = p->tensor;
	uint64_t columns = 1;

	for (unsigned i = t->rank; i-- > 0 && columns < 32 && (i > 0 || t->rank == 1);)
		columns *= t->shape[i];
	if (columns > HCT_TCQ_MAX_PERIOD || columns == 0)
		columns = 1;
	p->columns = (uint32_t)columns;
	p->rows = p->elements / columns;
}

static uint32_t choose_chunk(const struct planner *p, unsigned rows_log2, unsigned columns_log2)
{
	uint64_t band = (uint64_t)p->columns << rows_log2;

	if (rows_log2)
		return (uint32_t)(band <= CHUNK_ELEMENTS ? CHUNK_ELEMENTS / band * band : band);
	if (p->columns <= CHUNK_ELEMENTS)
		return CHUNK_ELEMENTS / p->columns * p->columns;
	return CHUNK_ELEMENTS >> columns_log2 << columns_log2;
}

static int shape_fits(const struct planner *p, const struct shape *s)
{
	uint64_t band = (uint64_t)p->columns << s->rows_log2;

	return p->rows >> s->rows_log2 << s->rows_log2 == p->rows &&
	       p->columns >> s->columns_log2 << s->columns_log2 == p->columns &&
	       (!s->rows_log2 ||
		(band <= 2 * CHUNK_ELEMENTS && 1u << s->rows_log2 <= p->piece_rows)) &&
	       (!s->columns_log2 || p->columns <= CHUNK_ELEMENTS);
}

/* Sample -------------------------------------------------------------------------------- */

static void drop_sample(struct planner *p)
{
	free(p->values);
	free(p->plain);
	free(p->first);
	free(p->s.pieces);
	p->values = p->plain = NULL;
	p->first = NULL;
	p->s = (struct hct_tcq_sample){0};
}

/* Cuts pieces out of the tensor, evenly spaced: bands of whole rows, or parts of long rows. */
static hct_error take_sample(struct planner *p, size_t elements)
{
	uint64_t piece, all;
	size_t count, room;

	p->piece_rows = 64;
	while (p->piece_rows && (uint64_t)p->piece_rows * p->columns > PIECE_ELEMENTS)
		p->piece_rows /= 2;
	piece = p->piece_rows ? (uint64_t)p->piece_rows * p->columns : PIECE_ELEMENTS;
	all = (p->elements + piece - 1) / piece;
	count = (elements + piece - 1) / piece;
	count = count < all ? count : (size_t)all;
	room = (piece + HCT_GROUP - 1) / HCT_GROUP * HCT_GROUP;
	p->s.pieces = calloc(count, sizeof *p->s.pieces);
	p->first = calloc(count, sizeof *p->first);
	p->values = aligned_alloc(64, count * room * sizeof(float));
	p->plain = aligned_alloc(64, count * room * sizeof(float));
	if (!p->s.pieces || !p->first || !p->values || !p->plain)
		return HCT_ERR_NOMEM;
	for (size_t i = 0; i < count; i++) {
		/* From the first piece to the last, which may be shorter. */
		uint64_t at = count > 1 ? i * (all - 1) / (count - 1) : 0;
		uint64_t left = p->elements - at * piece;
		size_t n = left < piece ? (size_t)left : (size_t)piece;
		size_t unit = hct_dtype_unit(p->tensor->dtype);

		p->first[i] = at * piece;
		p->s.pieces[i] =
			(struct hct_tcq_piece){.x = p->values + i * room,
					       .elements = n,
					       .column = (uint32_t)(at * piece % p->columns)};
		hct_widen(p->tensor->dtype, p->data + at * piece * unit, n, p->plain + i * room);
		for (size_t j = n; j < room; j++)
			p->plain[i * room + j] = 0;
		p->s.elements += n;
	}
	p->s.count = count;
	p->s.columns = p->columns;
	p->s.rows = p->rows;
	return HCT_OK;
}

/* Fills the sample's values for a tile. */
static void transform_sample(struct planner *p, const struct shape *s)
{
	unsigned rows = 1u << s->rows_log2, columns = 1u << s->columns_log2;
	float factor = rows * columns > 1 ? (float)hct_idct_factor(rows, columns) : 1;

	for (size_t i = 0; i < p->s.count; i++) {
		struct hct_tcq_piece *piece = &p->s.pieces[i];
		const float *src = p->plain + (piece->x - p->values);
		size_t n = piece->elements, end = (n + HCT_GROUP - 1) / HCT_GROUP * HCT_GROUP;

		memcpy(piece->x, src, end * sizeof *src);
		if (rows > 1)
			hct_dct_tiles(p->e->dct, src, n / p->columns, p->columns, rows, columns,
				      piece->x);
		else if (columns > 1)
			hct_dct_tiles(p->e->dct, src, 1, n / columns * columns, 1, columns,
				      piece->x);
		for (size_t j = 0; j < n && factor != 1; j++)
			piece->x[j] *= factor;
	}
}

/* Bits that a coder which knew every value's scale would spend, about; for comparisons. */
static double ideal_bits(const struct planner *p, double error)
{
	double sum = 0;

	for (size_t i = 0; i < p->s.count; i++) {
		const struct hct_tcq_piece *piece = &p->s.pieces[i];

		for (size_t j = 0; j < piece->elements; j += 3)
			sum += log2f(1 + piece->x[j] * piece->x[j] / (float)error);
	}
	return sum / 2 * 3 / (double)p->s.elements;
}

/* Classes ------------------------------------------------------------------------------- */

/* Spread of the scales of groups of n values: the variance of their log2, that of chance
 * subtracted. */
struct spread {
	double sum, square, chance;
	size_t count;
};

static void spread_add(struct spread *s, double mean, double n)
{
	double v = log2(mean + 1e-38);

	s->sum += v;
	s->square += v * v;
	s->chance += 1.2 / n; /* variance of log2 of the mean magnitude of n Gaussians */
	s->count++;
}

static double spread_of(const struct spread *s)
{
	double n = (double)s->count, mean = s->sum / n;

	return s->count > 1 ? s->square / n - mean * mean - s->chance / n : 0;
}

static double column_spread(const struct planner *p)
{
	double *sum = calloc(p->columns, sizeof *sum);
	struct spread s = {0};
	uint64_t rows = p->s.elements / p->columns;

	if (!sum || rows < 4) {
		free(sum);
		return 0;
	}
	for (size_t i = 0; i < p->s.count; i++) {
		const struct hct_tcq_piece *piece = &p->s.pieces[i];
		uint32_t c = piece->column;

		for (size_t j = 0; j < piece->elements; j++) {
			sum[c] += fabsf(piece->x[j]);
			c = c + 1 == p->columns ? 0 : c + 1;
		}
	}
	for (uint32_t c = 0; c < p->columns; c++)
		spread_add(&s, sum[c] / (double)rows, (double)rows);
	free(sum);
	return spread_of(&s);
}

static double run_spread(const struct planner *p)
{
	struct spread s = {0};

	for (size_t i = 0; i < p->s.count; i++) {
		const struct hct_tcq_piece *piece = &p->s.pieces[i];

		for (size_t j = 0; j + 512 <= piece->elements; j += 512) {
			double sum = 0;

			for (size_t k = 0; k < 512; k++)
				sum += fabsf(piece->x[j + k]);
			spread_add(&s, sum / 512, 512);
		}
	}
	return spread_of(&s);
}

/* As many classes as their tables are worth: a spread of scales of variance v costs about
 * .7 v bits a value to who does not know them. */
static void choose_classes(const struct planner *p, struct hct_tcq_goal *goal)
{
	double table = 64 * 8 * TABLE_SHARE / (double)p->elements; /* bits of one more class */
	double columns = .6 * column_spread(p), runs = .6 * run_spread(p);

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

/* Fitting ------------------------------------------------------------------------------- */

/* Rounding to the dtype adds this relative squared error. */
static double rounding_error(hct_dtype dtype)
{
	double step; /* between neighbours, relative */

	switch (dtype) {
	case HCT_DTYPE_BF16:
		step = 0x1p-7;
		break;
	case HCT_DTYPE_F16:
		step = 0x1p-10;
		break;
	case HCT_DTYPE_F8_E4M3:
	case HCT_DTYPE_F8_E4M3FNUZ:
		step = 0x1p-3;
		break;
	case HCT_DTYPE_F8_E5M2:
	case HCT_DTYPE_F8_E5M2FNUZ:
		step = 0x1p-2;
		break;
	default:
		return 0;
	}
	return step * step / 12 / 2.16; /* 2.16: mean square of a mantissa, from 1 to 2 */
}

/* Mean squared error that a layer is to leave, of values as they are. */
static double layer_error(const struct planner *p, unsigned layer)
{
	double d = p->goal->relative_squared_error - rounding_error(p->tensor->dtype);
	double grown = d * exp2(2 * LAYER_BITS * (p->goal->layers - 1 - layer));

	grown = layer + 1 < p->goal->layers && grown > .3 ? .3 : grown;
	return grown * p->census.energy / (double)p->elements;
}

/* Error of a value, transformed, for an error of an element. */
static double scale_error(const struct hct_tcq_tables *t, double error)
{
	unsigned rows = 1u << t->tile_rows_log2, columns = 1u << t->tile_columns_log2;
	double factor = rows * columns > 1 ? hct_idct_factor(rows, columns) : 1;

	return error * factor * factor;
}

/* Codes the sample with a layer as it is.  The mean square of what is left of the values goes to
 * *error, and with keep it takes their place.  half: looks at every second piece only. */
static hct_error apply_layer(struct planner *p, const struct hct_tcq_tables *t, unsigned layer,
			     double goal, int keep, int half, double *error)
{
	struct hct_tcq_layer_encoder *le =
		hct_tcq_layer_encoder_create(t, layer, hct_tcq_lambda(goal, t->layers[layer].step));
	size_t scratch = (hct_tcq_scratch(t) + 63) / 64 * 64,
	       values = PIECE_ELEMENTS * sizeof(float);
	size_t room = hct_tcq_payload_bound(t, &t->layers[layer], PIECE_ELEMENTS);
	uint8_t *work = aligned_alloc(64, scratch + values + (room + 63) / 64 * 64);
	size_t elements = 0;
	double sum = 0;

	if (!le || !work) {
		hct_tcq_layer_encoder_free(le);
		free(work);
		return HCT_ERR_NOMEM;
	}
	for (size_t i = 0; i < p->s.count; i += half ? 2 : 1) {
		const struct hct_tcq_piece *piece = &p->s.pieces[i];
		size_t n = piece->elements, whole = (n + HCT_GROUP - 1) / HCT_GROUP * HCT_GROUP;
		float *x = (float *)(void *)(work + scratch);

		memcpy(x, piece->x, whole * sizeof *x);
		hct_tcq_encode_layer(t, layer, le, p->e->simd, x, n, p->first[i], 1, work,
				     work + scratch + values);
		for (size_t j = 0; j < n; j++)
			sum += (double)x[j] * x[j];
		if (keep)
			memcpy(piece->x, x, n * sizeof *x);
		elements += n;
	}
	*error = sum / (double)elements;
	hct_tcq_layer_encoder_free(le);
	free(work);
	return HCT_OK;
}

/* Corrects the step of the last layer by what it really leaves. */
static hct_error settle_step(struct planner *p, struct hct_tcq_tables *t,
			     const struct hct_tcq_forecast *forecast, double goal, double *error)
{
	struct hct_tcq_layer *l = &t->layers[t->layer_count - 1];
	unsigned tries = p->uneven ? SETTLE_TRIES : 1;
	double ratio = goal / forecast->error;
	hct_error e = HCT_OK;

	for (unsigned i = 0; i <= tries && !e; i++) {
		ratio = ratio > 1.1 ? 1.1 : ratio < .9 ? .9 : ratio;
		l->step *= (float)pow(ratio, 1 / forecast->slope);
		if (i == tries)
			break;
		e = apply_layer(p, t, t->layer_count - 1, goal, 0, !p->uneven, error);
		ratio = goal / *error;
		if (fabs(ratio - 1) < .002)
			tries = i + 1;
	}
	*error = goal;
	return e;
}

/* Fits all layers to the sample as it is transformed. */
static hct_error fit_layers(struct planner *p, struct hct_tcq_tables *t, unsigned passes,
			    double *bits, double *error)
{
	struct shape shape = {(uint8_t)t->tile_rows_log2, (uint8_t)t->tile_columns_log2};
	hct_error e = HCT_OK;

	transform_sample(p, &shape);
	*bits = 0;
	p->uneven = 0;
	for (unsigned l = 0; l < t->layer_count && !e; l++) {
		double goal_error = scale_error(t, layer_error(p, l));
		struct hct_tcq_goal goal = {.error = goal_error,
					    .states_log2 = p->effort->states_log2,
					    .passes = passes};
		struct hct_tcq_forecast forecast;

		choose_classes(p, &goal);
		if (l) /* the residual has no scales left */
			goal.column_classes = goal.row_classes = 1;
		e = hct_tcq_fit(&p->s, &goal, p->e->simd, &t->layers[l], &forecast);
		if (e)
			break;
		p->uneven |= forecast.slope < UNEVEN_SLOPE;
		*bits += forecast.bits + OVERHEAD_BITS;
		if (l + 1 < t->layer_count)
			e = apply_layer(p, t, l, goal_error, 1, 0, error);
		else if (passes > TRIAL_PASSES)
			e = settle_step(p, t, &forecast, goal_error, error);
		else
			*error = forecast.error;
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

	e = fit_layers(p, &t, TRIAL_PASSES, bits, &error);
	if (!e)
		*bits += .5 * log2(error / layer_error(p, t.layer_count - 1)) +
			 8 * TABLE_SHARE * (double)hct_tcq_tables_length(&t) / (double)p->elements;
	drop_tables(&t);
	return e;
}

/* Picks the tile: first by what an ideal coder would save, which is quick, then by trial. */
static hct_error choose_shape(struct planner *p, struct shape *best)
{
	static const struct shape none = {0, 0};
	double error = layer_error(p, p->goal->layers - 1), plain, least = 1e30, bits, rival;
	const struct shape *candidate = NULL;
	hct_error e;

	*best = none;
	if (p->goal->transform == HCT_TRANSFORM_NONE)
		return HCT_OK;
	transform_sample(p, &none);
	plain = ideal_bits(p, error);
	for (unsigned i = 0; i < p->effort->shapes; i++) {
		unsigned rows = 1u << shapes[i].rows_log2, columns = 1u << shapes[i].columns_log2;
		double factor = hct_idct_factor(rows, columns), ideal;

		if (!shape_fits(p, &shapes[i]))
			continue;
		transform_sample(p, &shapes[i]);
		ideal = ideal_bits(p, error * factor * factor);
		if (ideal < least) {
			least = ideal;
			candidate = &shapes[i];
		}
	}
	if (!candidate)
		return HCT_OK;
	if (p->goal->transform == HCT_TRANSFORM_DCT) {
		*best = *candidate;
		return HCT_OK;
	}
	if (least > plain - TRANSFORM_GAIN)
		return HCT_OK;
	e = try_shape(p, &none, &bits);
	if (!e)
		e = try_shape(p, candidate, &rival);
	if (!e && rival < bits - TRANSFORM_GAIN)
		*best = *candidate;
	return e;
}

/* Plan ---------------------------------------------------------------------------------- */

/* What cannot be coded, or need not. */
static const char *objection(const struct planner *p)
{
	if (!p->census.finite)
		return "it has NaN or infinity";
	if (p->census.energy == 0)
		return "it is zero";
	if (!isfinite(p->census.energy) ||
	    layer_error(p, p->goal->layers - 1) <
		    1e-58 * (p->census.energy > 1 ? p->census.energy : 1))
		return "its values are out of range";
	if (p->goal->relative_squared_error < 2 * rounding_error(p->tensor->dtype))
		return "its dtype is too coarse for that error";
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
		double error = scale_error(&t, layer_error(p, l));

		plan->layers[l] = hct_tcq_layer_encoder_create(
			&plan->t, l, hct_tcq_lambda(error, t.layers[l].step));
		if (!plan->layers[l])
			return HCT_ERR_NOMEM;
	}
	plan->bits += 8 * TABLE_SHARE * (double)length / (double)p->elements;
	return HCT_OK;
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
	struct hct_tcq_plan *plan = NULL;
	struct shape shape;
	hct_error err;

	*out = NULL;
	if (!hct_tcq_has_dtype(tensor->dtype)) {
		*why = "its dtype";
		return HCT_OK;
	}
	choose_matrix(&p);
	hct_census_add(&p.census, tensor->dtype, data, p.elements);
	*why = objection(&p);
	if (*why)
		return HCT_OK;
	err = take_sample(&p, p.effort->sample);
	if (!err)
		err = choose_shape(&p, &shape);
	if (err)
		goto out;
	plan = calloc(1, sizeof *plan);
	if (!plan) {
		err = HCT_ERR_NOMEM;
		goto out;
	}
	plan->dtype = tensor->dtype;
	plan->chunk = choose_chunk(&p, shape.rows_log2, shape.columns_log2);
	plan->t = empty_tables(&p, &shape);
	err = fit_layers(&p, &plan->t, p.effort->passes, &plan->bits, &plan->error);
	if (!err && p.uneven && p.s.elements < p.elements) {
		/* Where many values are lost in the step, the error is not the same everywhere. */
		drop_sample(&p);
		drop_tables(&plan->t);
		plan->t = empty_tables(&p, &shape);
		err = take_sample(&p, UNEVEN_SAMPLE * p.effort->sample);
		if (!err)
			err = fit_layers(&p, &plan->t, p.effort->passes, &plan->bits, &plan->error);
	}
	if (!err) {
		plan->error = plan->error * (double)p.elements / p.census.energy +
			      rounding_error(tensor->dtype);
		err = seal(&p, plan);
	}
out:
	drop_sample(&p);
	if (err == HCT_ERR_ARGUMENT) {
		*why = "that error cannot be reached";
		err = HCT_OK;
		hct_tcq_plan_free(plan);
		plan = NULL;
	}
	if (err) {
		hct_tcq_plan_free(plan);
		return err;
	}
	*out = plan;
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

/* Decodes what was coded, as any reader will, after each layer; digests and sums. */
static hct_error judge(hct_encoder *e, const struct hct_tcq_plan *p, const uint8_t *data, size_t n,
		       uint64_t first, struct hct_encoded *out)
{
	size_t unit = hct_dtype_unit(p->dtype), length = n * unit;
	struct hct_tensor tensor = {.dtype = p->dtype};
	struct hct_task task = {.tensor = &tensor,
				.tables = p->decoder,
				.offset = first * unit,
				.length = length,
				.end = length,
				.scratch = &e->decoding};
	struct hct_distance d = {0};

	if (!hct_buffer_reserve(&e->decoded, &e->decoded_capacity, length))
		return HCT_ERR_NOMEM;
	for (unsigned l = 0; l < out->layer_count; l++) {
		const char *why;
		hct_error err;

		task.layers[l] =
			(struct hct_payload){out->layers[l].payload, out->layers[l].length};
		task.layer_count = l + 1;
		err = hct_codec_tcq.decode(&task, e->decoded, &why);
		if (err)
			return err;
		out->layers[l].digest = hct_checksum(e->decoded, length);
	}
	hct_distance_add(&d, p->dtype, data, e->decoded, n);
	out->energy = d.aa;
	out->decoded_energy = d.bb;
	out->error = d.dd;
	return HCT_OK;
}

hct_error hct_tcq_encode(hct_encoder *e, const struct hct_tcq_plan *p, const uint8_t *data,
			 size_t n, uint64_t first, struct hct_encoded *out)
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
	if (p->t.layer_count == 1 && total >= n * hct_dtype_unit(p->dtype))
		return HCT_ERR_LIMIT;
	return judge(e, p, data, n, first, out);
}
