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
#define BAND_LEAST     (4u * 1024u)
#define SEGMENT_LOG2   16
/* Bits of a layer beyond the one before it. */
#define LAYER_BITS 1.5
/* Share of a table's bytes that is left when PARAMS is compressed, about. */
#define TABLE_SHARE 0.7
/* What a transform must save to be worth its time, in bits. */
#define TRANSFORM_GAIN 0.01
/* Start states, class maps, what states of 16 bits lose: bits of an element. */
#define OVERHEAD_BITS 0.022
/* Where the mean squared error is less than this of step^2, many values are lost in the step. */
#define UNEVEN_ERROR  0.2
#define UNEVEN_SAMPLE (512u << 10) /* elements more */
/* Passes of a trial, and how often a step is corrected whose error hardly follows it. */
#define TRIAL_PASSES 3
#define SETTLE_TRIES 5

/* How hard each effort tries. */
static const struct effort {
	size_t sample; /* elements */
	unsigned passes, states_log2, row_classes, shapes;
} efforts[9] = {
	{32u << 10, 3, 3, 1, 2},  {64u << 10, 3, 3, 2, 2},  {128u << 10, 3, 4, 4, 4},
	{160u << 10, 4, 5, 4, 4}, {192u << 10, 4, 5, 4, 4}, {384u << 10, 5, 5, 4, 6},
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
	uint32_t band_rows;    /* whole rows of a band of the sample; 0 when rows are longer */
	float *values, *plain; /* of the sample: transformed, and as they are */
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
		(band <= 2 * CHUNK_ELEMENTS && 1u << s->rows_log2 <= p->band_rows)) &&
	       (!s->columns_log2 || p->columns <= CHUNK_ELEMENTS);
}

/* Sample -------------------------------------------------------------------------------- */

static void drop_sample(struct planner *p)
{
	free(p->values);
	free(p->plain);
	free(p->s.pieces);
	p->values = p->plain = NULL;
	p->s = (struct hct_tcq_sample){0};
}

/* A number for each piece that has no pattern, to place it by. */
static uint64_t scatter(uint64_t i)
{
	i = (i + 1) * 0x9e3779b97f4a7c15u;
	return (i ^ i >> 29) * 0xbf58476d1ce4e5b9u >> 32;
}

/* Memory for count pieces of room elements each. */
static int make_room(struct planner *p, size_t count, size_t room)
{
	p->s.pieces = calloc(count, sizeof *p->s.pieces);
	p->values = aligned_alloc(64, count * room * sizeof(float));
	p->plain = aligned_alloc(64, count * room * sizeof(float));
	if (!p->s.pieces || !p->values || !p->plain)
		return 0;
	for (size_t i = 0; i < count; i++)
		p->s.pieces[i].x = p->values + i * room;
	p->s.count = count;
	p->s.columns = p->columns;
	p->s.rows = p->rows;
	return 1;
}

/* Takes bands out of the tensor, spread all over it, of at least so many whole rows (or parts of
 * long rows): many small ones tell more of a tensor than a few large ones.  Pieces are made of
 * bands from everywhere. */
static hct_error take_sample(struct planner *p, size_t elements, unsigned rows)
{
	size_t unit = hct_dtype_unit(p->tensor->dtype), count, pieces, room;
	uint64_t band, all;

	p->band_rows = rows;
	while ((uint64_t)p->band_rows * p->columns < BAND_LEAST && p->band_rows < 1u << 16)
		p->band_rows *= 2;
	while (p->band_rows && (uint64_t)p->band_rows * p->columns > PIECE_ELEMENTS)
		p->band_rows /= 2;
	band = p->band_rows ? (uint64_t)p->band_rows * p->columns : PIECE_ELEMENTS;
	all = (p->elements + band - 1) / band;
	count = (elements + band - 1) / band;
	count = count < all ? count : (size_t)all;
	pieces = (count + PIECE_ELEMENTS / band - 1) / (PIECE_ELEMENTS / band);
	room = ((count + pieces - 1) / pieces * band + HCT_GROUP - 1) / HCT_GROUP * HCT_GROUP;
	if (!make_room(p, pieces, room))
		return HCT_ERR_NOMEM;
	for (size_t i = 0; i < count; i++) {
		struct hct_tcq_piece *piece = &p->s.pieces[i % pieces];
		float *plain = p->plain + (piece->x - p->values);
		uint64_t at = i * all / count + scatter(i) % (all / count), left;
		size_t n;

		at *= band;
		left = p->elements - at; /* the last band may be shorter */
		n = left < band ? (size_t)left : (size_t)band;
		if (!piece->elements)
			piece->column = (uint32_t)(at % p->columns);
		hct_widen(p->tensor->dtype, p->data + at * unit, n, plain + piece->elements);
		piece->elements += n;
		p->s.elements += n;
	}
	for (size_t i = 0; i < pieces; i++)
		for (size_t j = p->s.pieces[i].elements; j % HCT_GROUP; j++)
			p->plain[i * room + j] = 0;
	return HCT_OK;
}

/* Fills the values of every stride-th piece of the sample for a tile. */
static void transform_sample(struct planner *p, const struct shape *s, size_t stride)
{
	unsigned rows = 1u << s->rows_log2, columns = 1u << s->columns_log2;
	float factor = rows * columns > 1 ? (float)hct_idct_factor(rows, columns) : 1;

	for (size_t i = 0; i < p->s.count; i += stride) {
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

/* Tiles are compared by every second piece, unless that would be few. */
static size_t screening_stride(const struct planner *p)
{
	return p->s.count > 4 ? 2 : 1;
}

/* Bits that a coder which knew every value's scale would spend, about; for comparisons. */
static double ideal_bits(const struct planner *p, double error)
{
	const double scale = 1 / error;
	size_t elements = 0;
	double sum = 0;

	for (size_t i = 0; i < p->s.count; i += screening_stride(p)) {
		const struct hct_tcq_piece *piece = &p->s.pieces[i];
		size_t n = piece->elements / 32 * 32;

		for (size_t j = 0; j < n; j += 32) {
			double product[4] = {1, 1, 1, 1};

			/* One logarithm for products of 32; a factor is below 2^50 by far. */
			for (size_t k = 0; k < 32; k += 4)
				for (unsigned l = 0; l < 4; l++) {
					double x = piece->x[j + k + l], y = 1 + x * x * scale;

					product[l] *= y < 0x1p50 ? y : 0x1p50;
				}
			for (unsigned l = 0; l < 4; l++)
				sum += log2(product[l]);
		}
		elements += n;
	}
	return sum / 2 / (double)elements;
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
	float *sum = calloc(p->columns, sizeof *sum);
	struct spread s = {0};
	uint64_t rows = p->s.elements / p->columns;

	if (!sum || rows < 4) {
		free(sum);
		return 0;
	}
	for (size_t i = 0; i < p->s.count; i++) {
		const struct hct_tcq_piece *piece = &p->s.pieces[i];
		uint32_t c = piece->column;

		for (size_t j = 0, m; j < piece->elements; j += m, c = 0) {
			m = p->columns - c < piece->elements - j ? p->columns - c
								 : piece->elements - j;
			for (size_t k = 0; k < m; k++)
				sum[c + k] += fabsf(piece->x[j + k]);
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

			for (size_t k = 0; k < 512; k += 8) {
				const float *x = piece->x + j + k;

				sum += fabsf(x[0]) + fabsf(x[1]) + fabsf(x[2]) + fabsf(x[3]) +
				       fabsf(x[4]) + fabsf(x[5]) + fabsf(x[6]) + fabsf(x[7]);
			}
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
		hct_tcq_encode_layer(t, layer, le, p->e->simd, x, n, piece->column, 1, work,
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
static hct_error settle_step(struct planner *p, struct hct_tcq_tables *t, double forecast,
			     double goal, double *error)
{
	struct hct_tcq_layer *l = &t->layers[t->layer_count - 1];
	unsigned tries = p->uneven ? SETTLE_TRIES : 1;
	struct hct_tcq_secant secant = {.slope = 2};
	hct_error e = HCT_OK;

	if (!p->uneven) /* the tables have moved since */
		l->step = hct_tcq_next_step(&secant, l->step, forecast / goal);
	for (unsigned i = 0; i < tries && !e; i++) {
		e = apply_layer(p, t, t->layer_count - 1, goal, 0, !p->uneven, error);
		if (e || fabs(*error / goal - 1) < .002)
			break;
		if (!p->uneven)
			secant.ratio = 0;
		l->step = hct_tcq_next_step(&secant, l->step, *error / goal);
	}
	*error = goal;
	return e;
}

/* Fits all layers to the sample as it is transformed; a trial does it in fewer passes and does not
 * correct the step. */
static hct_error fit_layers(struct planner *p, struct hct_tcq_tables *t, int trial, double *bits,
			    double *error)
{
	struct shape shape = {(uint8_t)t->tile_rows_log2, (uint8_t)t->tile_columns_log2};
	hct_error e = HCT_OK;

	transform_sample(p, &shape, 1);
	*bits = 0;
	p->uneven = 0;
	for (unsigned l = 0; l < t->layer_count && !e; l++) {
		double goal_error = scale_error(t, layer_error(p, l));
		struct hct_tcq_goal goal = {.error = goal_error,
					    .states_log2 = p->effort->states_log2,
					    .passes = trial ? TRIAL_PASSES : p->effort->passes};
		struct hct_tcq_forecast forecast;

		choose_classes(p, &goal);
		if (l) /* the residual has no scales left */
			goal.column_classes = goal.row_classes = 1;
		e = hct_tcq_fit(&p->s, &goal, p->e->simd, &t->layers[l], &forecast);
		if (e)
			break;
		p->uneven |= forecast.error < UNEVEN_ERROR * t->layers[l].step * t->layers[l].step;
		*bits += forecast.bits + OVERHEAD_BITS;
		if (l + 1 < t->layer_count)
			e = apply_layer(p, t, l, goal_error, 1, 0, error);
		else if (!trial)
			e = settle_step(p, t, forecast.error, goal_error, error);
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

	e = fit_layers(p, &t, 1, bits, &error);
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
	transform_sample(p, &none, screening_stride(p));
	plain = ideal_bits(p, error);
	for (unsigned i = 0; i < p->effort->shapes; i++) {
		unsigned rows = 1u << shapes[i].rows_log2, columns = 1u << shapes[i].columns_log2;
		double factor = hct_idct_factor(rows, columns), ideal;

		if (!shape_fits(p, &shapes[i]))
			continue;
		transform_sample(p, &shapes[i], screening_stride(p));
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
	err = take_sample(&p, p.effort->sample, HCT_DCT_MAX_TILE);
	if (!err)
		err = choose_shape(&p, &shape);
	if (!err) {
		drop_sample(&p);
		err = take_sample(&p, p.effort->sample, 1u << shape.rows_log2);
	}
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
	err = fit_layers(&p, &plan->t, 0, &plan->bits, &plan->error);
	if (!err && p.uneven && p.s.elements < p.elements) {
		/* Where many values are lost in the step, the error is not the same everywhere. */
		drop_sample(&p);
		drop_tables(&plan->t);
		plan->t = empty_tables(&p, &shape);
		err = take_sample(&p, UNEVEN_SAMPLE + 4 * p.effort->sample, 1u << shape.rows_log2);
		if (!err)
			err = fit_layers(&p, &plan->t, 0, &plan->bits, &plan->error);
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
