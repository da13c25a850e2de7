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
#include "tcq_encode.h"
#include "tcq_layers.h"
#include "tcq_sample.h"

#define SEGMENT_LOG2 16
/* What a transform must save to be worth its time, in bits. */
#define TRANSFORM_GAIN 0.01
/* Share of a tensor that is learnt from, elements at least, and the efforts that this is for. */
#define SAMPLE_SHARE  8
#define SAMPLE_LEAST  (96u << 10)
#define SAMPLE_EFFORT 5
#define UNEVEN_SAMPLE (512u << 10) /* elements more, */
#define UNEVEN_MOST   (4u << 20)   /* and at most: 32 MiB; */
#define UNEVEN_STRIDE 4            /* all are measured, and one of so many learnt from */
/* Of a layer of the decoder's, about. */
#define DECODER_BYTES (48u << 10)
/* Of an element, mean squared: the largest step is 2^99. */
#define MAX_ERROR (0x1p198 / 4)
/* How many times their share the bands with the most energy must have to be looked at. */
#define PEAK_SHARE 4

static const struct hct_tcq_effort efforts[9] = {
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

static void choose_matrix(struct hct_tcq_planner *p)
{
	p->columns = hct_matrix_columns(p->tensor);
	p->rows = p->elements / p->columns;
}

/* Elements of the sample: what the effort says, but of a small tensor no more than a share that
 * does not take longer than coding it, unless time does not matter. */
static size_t choose_sample(const struct hct_goal *goal, uint64_t elements)
{
	size_t most = efforts[goal->effort - 1].sample;
	uint64_t share = elements / SAMPLE_SHARE;

	share = share > SAMPLE_LEAST ? share : SAMPLE_LEAST;
	return goal->effort > SAMPLE_EFFORT || share > most ? most : (size_t)share;
}

/* The bands with the most energy so far, the largest first. */
struct peaks {
	double energy[HCT_TCQ_PEAKS + 1];
	uint64_t at[HCT_TCQ_PEAKS + 1], count;
};

static void note_peak(void *arg, uint64_t number, const struct hct_census *band)
{
	struct peaks *k = arg;
	unsigned i = HCT_TCQ_PEAKS;

	for (; i > 0 && band->energy > k->energy[i - 1]; i--) {
		k->energy[i] = k->energy[i - 1];
		k->at[i] = k->at[i - 1];
	}
	k->energy[i] = band->energy;
	k->at[i] = number;
	k->count++;
}

/* Looks at all of the tensor, and notes the bands with the most energy. */
static hct_error take_census(struct hct_tcq_planner *p)
{
	struct peaks k = {.count = 0};
	double share = 0;
	uint64_t band;
	hct_error e;

	p->peak_rows = hct_tcq_band_rows(p->columns, HCT_DCT_MAX_TILE);
	band = p->peak_rows ? (uint64_t)p->peak_rows * p->columns : HCT_TCQ_PIECE;
	e = hct_census_take(p->e, p->tensor, p->data, band, &p->census, note_peak, &k);
	for (unsigned i = 0; i < HCT_TCQ_PEAKS; i++)
		share += k.energy[i] / p->census.energy;
	if (k.count > HCT_TCQ_PEAKS && share > PEAK_SHARE * HCT_TCQ_PEAKS / (double)k.count) {
		p->peak_count = HCT_TCQ_PEAKS;
		memcpy(p->peaks, k.at, sizeof p->peaks);
	}
	return e;
}

static int shape_fits(const struct hct_tcq_planner *p, const struct shape *s)
{
	return hct_matrix_tile_fits(p->rows, p->columns, s->rows_log2, s->columns_log2) &&
	       (!s->rows_log2 || 1u << s->rows_log2 <= p->s.band_rows);
}

static void drop_tables(struct hct_tcq_tables *t)
{
	for (unsigned l = 0; l < HCT_TCQ_MAX_LAYERS; l++) {
		free((void *)t->layers[l].column_class);
		t->layers[l].column_class = NULL;
	}
}

static struct hct_tcq_tables empty_tables(const struct hct_tcq_planner *p, const struct shape *s)
{
	return (struct hct_tcq_tables){.layer_count = p->goal->layers,
				       .tile_rows_log2 = s->rows_log2,
				       .tile_columns_log2 = s->columns_log2,
				       .segment_log2 = SEGMENT_LOG2,
				       .columns = p->columns};
}

/* Bits of the sample with a tile, the error corrected to what is wanted. */
static hct_error try_shape(struct hct_tcq_planner *p, const struct shape *s, double *bits)
{
	struct hct_tcq_tables t = empty_tables(p, s);
	double error;
	hct_error e;

	e = hct_tcq_fit_layers(p, &t, 1, bits, &error);
	if (!e)
		*bits += .5 * log2(error / hct_tcq_layer_error(p, t.layer_count - 1)) +
			 8 * HCT_TABLE_SHARE * (double)hct_tcq_tables_length(&t) /
				 (double)p->elements;
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
static unsigned rank_shapes(struct hct_tcq_planner *p, double error, size_t stride,
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
static hct_error choose_shape(struct hct_tcq_planner *p, struct shape *best)
{
	static const struct shape none = {0, 0};
	double error = hct_tcq_layer_error(p, p->goal->layers - 1), plain, least = INFINITY, bits;
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
static const char *objection(const struct hct_tcq_planner *p)
{
	const char *fault = hct_census_fault(&p->census, p->tensor, p->data);

	if (fault)
		return fault;
	if (p->goal->relative_squared_error * p->census.energy < 2 * p->census.rounding)
		return "its dtype is too coarse for that error";
	if (!isfinite(p->census.energy) || hct_tcq_layer_error(p, 0) > MAX_ERROR ||
	    hct_tcq_layer_error(p, p->goal->layers - 1) <
		    1e-58 * (p->census.energy > 1 ? p->census.energy : 1))
		return "its values are out of range";
	if (p->census.peak >
	    .25 * HCT_TCQ_MAX_EXCEPTION * sqrt(hct_tcq_layer_error(p, p->goal->layers - 1)))
		return "it has outliers beyond what can be coded";
	return NULL;
}

static hct_error seal(struct hct_tcq_planner *p, struct hct_tcq_plan *plan)
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
	plan->bits += 8 * HCT_TABLE_SHARE * (double)length / (double)p->elements;
	return HCT_OK;
}

/* Learns the tables for a tile: from more of the tensor where many values are lost in the step,
 * since then the error is not the same everywhere. */
static hct_error learn_tables(struct hct_tcq_planner *p, const struct shape *shape,
			      struct hct_tcq_plan *plan)
{
	size_t elements = p->sample;
	hct_error e;

	for (;;) {
		hct_tcq_sample_free(&p->s);
		drop_tables(&plan->t);
		plan->t = empty_tables(p, shape);
		e = hct_tcq_sample_take(p->e, p->tensor, p->data, p->columns, elements,
					1u << shape->rows_log2, &p->s);
		if (!e && p->peak_count && !p->peak.count && p->s.elements < p->elements)
			e = hct_tcq_sample_take_bands(p->e, p->tensor, p->data, p->columns,
						      p->peak_rows, p->peaks, p->peak_count,
						      &p->peak);
		p->draft = elements == p->sample && p->s.elements < p->elements;
		if (!e)
			e = hct_tcq_fit_layers(p, &plan->t, 0, &plan->bits, &plan->error);
		if (e || !p->uneven || !p->draft)
			break;
		p->stride = UNEVEN_STRIDE;
		elements = UNEVEN_SAMPLE + 4 * p->sample;
		elements = elements < UNEVEN_MOST ? elements : UNEVEN_MOST;
	}
	plan->error = plan->error * (double)p->elements / p->census.energy +
		      p->census.rounding / p->census.energy;
	/* Steps move while they are looked for: the format has bounds. */
	for (unsigned l = 0; l < plan->t.layer_count && !e; l++)
		if (!(plan->t.layers[l].step >= 0x1p-100f && plan->t.layers[l].step <= 0x1p100f))
			e = HCT_ERR_ARGUMENT;
	return e;
}

static hct_error make_plan(struct hct_tcq_planner *p, struct hct_tcq_plan **out)
{
	struct hct_tcq_plan *plan;
	struct shape shape;
	hct_error e;

	e = hct_tcq_sample_take(p->e, p->tensor, p->data, p->columns, p->sample, HCT_DCT_MAX_TILE,
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
	struct hct_tcq_planner p = {.e = e,
				    .tensor = tensor,
				    .data = data,
				    .goal = goal,
				    .effort = &efforts[goal->effort - 1],
				    .census = {.finite = 1},
				    .elements = hct_tensor_bytes(tensor) /
						hct_dtype_unit(tensor->dtype)};
	hct_error err;

	*out = NULL;
	if (!hct_tcq_has_dtype(tensor->dtype)) {
		*why = "its dtype";
		return HCT_OK;
	}
	choose_matrix(&p);
	p.sample = choose_sample(goal, p.elements);
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

size_t hct_tcq_plan_memory(const struct hct_tcq_plan *p)
{
	size_t bytes = sizeof *p + hct_tcq_tables_length(&p->t);

	for (unsigned l = 0; l < p->t.layer_count; l++)
		bytes += sizeof *p->layers[l] +
			 p->t.layers[l].row_classes * sizeof p->layers[l]->coders[0] +
			 DECODER_BYTES + 2 * (size_t)p->t.columns;
	return bytes;
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
		size_t length =
			hct_tcq_encode_layer(&p->t, l, p->layers[l], &e->searcher, values, n, first,
					     l + 1 < p->t.layer_count, e->work, at);

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
