#include "coef_plan.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "bytes.h"
#include "census.h"
#include "checksum.h"
#include "codec.h"
#include "idct.h"
#include "int4.h"
#include "judge.h"
#include "matrix.h"
#include "tcq_encode.h"
#include "widen.h"

/* Tensors below are not worth their tables and heads. */
#define CENSUS_PIECE   (64u << 10) /* elements */
#define MIN_ELEMENTS   1024
#define PIECE_ELEMENTS (64u * 1024u)
/* Strings of zstd's in masks, at least: shorter ones are chance, and cost more than the frequencies
 * of bytes, which are what there is to gain.  The largest that zstd takes. */
#define MASK_STRING   7
#define MASK_HASH_LOG 6 /* the least that zstd takes: few places to find chance strings at */
/* Elements are at most 2^13 in FP16: coefficients can be four times that. */
#define TOP_EXPONENT 13

/* Elements of the sample, by effort. */
static const size_t samples[9] = {64u << 10,  128u << 10, 128u << 10, 256u << 10, 256u << 10,
				  512u << 10, 1u << 20,   2u << 20,   4u << 20};

static const struct shape {
	uint8_t rows_log2, columns_log2;
} shapes[] = {{6, 6}, {5, 5}, {4, 4}, {3, 3}, {6, 0}, {0, 6}, {5, 0}, {0, 5},
	      {4, 0}, {0, 4}, {3, 0}, {0, 3}, {2, 2}, {2, 0}, {0, 2}, {1, 1}};

struct hct_coef_plan {
	struct hct_coef_tables t;
	hct_dtype dtype;
	uint32_t chunk;     /* elements */
	float keep, half;   /* least magnitudes of what is kept, and of what is FP16 */
	void *decoder;      /* the tables as the codec decodes with */
	double bits, error; /* forecast */
};

/* A tensor while it is planned. */
struct planner {
	hct_encoder *e;
	const struct hct_tensor *tensor;
	const uint8_t *data;
	const struct hct_goal *goal;
	struct hct_census census;
	uint64_t elements, rows;
	uint32_t columns;
	/* The sample. */
	size_t piece, count; /* elements of a piece, but the last of the tensor; pieces */
	uint64_t pieces;     /* of the whole tensor */
	float *values;       /* of all pieces, one behind the other */
	size_t filled;       /* of them */
};

/* Payload -------------------------------------------------------------------------------- */

/* A mask while it is written. */
struct mask {
	uint8_t *bits;
	size_t count, ones;
};

static void mask_put(struct mask *m, unsigned bit)
{
	m->bits[m->count / 8] |= (uint8_t)(bit << m->count % 8);
	m->count++;
	m->ones += bit;
}

/* Compresses a mask: .01 bit above its entropy where .2 to .8 of its bits are 1, .02 at .1 and .9.
 */
static size_t mask_compress(hct_encoder *e, const uint8_t *bits, size_t bytes, uint8_t *out)
{
	size_t length;

	ZSTD_CCtx_reset(e->cctx, ZSTD_reset_session_and_parameters);
	ZSTD_CCtx_setParameter(e->cctx, ZSTD_c_compressionLevel, 1);
	ZSTD_CCtx_setParameter(e->cctx, ZSTD_c_strategy, ZSTD_fast);
	ZSTD_CCtx_setParameter(e->cctx, ZSTD_c_minMatch, MASK_STRING);
	ZSTD_CCtx_setParameter(e->cctx, ZSTD_c_hashLog, MASK_HASH_LOG);
	length = ZSTD_compress2(e->cctx, out, ZSTD_compressBound(bytes), bits, bytes);
	ZSTD_CCtx_reset(e->cctx, ZSTD_reset_session_and_parameters);
	return ZSTD_isError(length) ? SIZE_MAX : length;
}

/* Writes a mask to out in its shortest form.  all: the form that says that all bits are 1; none:
 * the same for 0, HCT_MASK_STORED when there is no such form. */
static uint8_t *mask_write(hct_encoder *e, const struct mask *m, unsigned all, unsigned none,
			   uint8_t *form, uint8_t *out)
{
	size_t bytes = (m->count + 7) / 8, length;

	*form = (uint8_t)(m->ones ? all : none);
	if ((m->ones && m->ones == m->count) || (!m->ones && none != HCT_MASK_STORED))
		return out;
	length = mask_compress(e, m->bits, bytes, out);
	*form = HCT_MASK_ZSTD;
	if (length >= bytes) {
		*form = HCT_MASK_STORED;
		memcpy(out, m->bits, bytes);
		length = bytes;
	}
	return out + length;
}

/* Buffers of a chunk while it is coded, in the encoder's scratch memory. */
struct buffers {
	float *values;         /* coefficients */
	float *fours, *halves; /* kept ones of either kind, in units of the tables */
	struct mask kept, half;
	size_t four_count, half_count;
};

static size_t round_up(size_t n)
{
	return (n + 63) / 64 * 64;
}

static int lay_out(hct_encoder *e, size_t n, struct buffers *b)
{
	size_t floats = round_up((n + HCT_GROUP + HCT_COEF_BLOCK) * sizeof(float));
	size_t mask = round_up(n / 8 + 8);

	*b = (struct buffers){.values = NULL};
	if (!hct_buffer_reserve(&e->work, &e->work_capacity, 3 * floats + 2 * mask))
		return 0;
	b->values = (void *)e->work;
	b->fours = (void *)(e->work + floats);
	b->halves = (void *)(e->work + 2 * floats);
	b->kept.bits = e->work + 3 * floats;
	b->half.bits = b->kept.bits + mask;
	memset(b->kept.bits, 0, 2 * mask);
	return 1;
}

/* Bytes that a payload of n coefficients may take. */
static size_t payload_bound(size_t n)
{
	return HCT_COEF_HEAD_BYTES + 2 * ZSTD_compressBound(n / 8 + 1) + 2 * n + n / 8 + 64;
}

/* Sorts the n values by what becomes of them; returns the energy of those that are dropped. */
static double classify(const struct hct_coef_plan *p, size_t n, struct buffers *b)
{
	const float unit = hct_coef_power(-p->t.exponent);
	double dropped = 0;

	for (size_t i = 0; i < n; i++) {
		float v = b->values[i], size = fabsf(v);
		unsigned kept = size >= p->keep, half = size >= p->half;

		mask_put(&b->kept, kept);
		if (!kept) {
			dropped += (double)v * v;
			continue;
		}
		mask_put(&b->half, half);
		if (half)
			b->halves[b->half_count++] = v * unit;
		else
			b->fours[b->four_count++] = v * unit;
	}
	return dropped;
}

/* Writes the kept values; adds their squared error, in units of the tables, to *error. */
static uint8_t *put_values(struct buffers *b, uint8_t *out, double *error)
{
	uint8_t *scales = out, *nibbles;
	size_t n = b->four_count;

	nibbles = out + 2 * ((n + HCT_COEF_BLOCK - 1) / HCT_COEF_BLOCK);
	out = nibbles + (n + 1) / 2;
	memset(nibbles, 0, (size_t)(out - nibbles));
	for (size_t i = 0; i < n; i += HCT_COEF_BLOCK) {
		unsigned m = n - i < HCT_COEF_BLOCK ? (unsigned)(n - i) : HCT_COEF_BLOCK;
		int8_t q[HCT_COEF_BLOCK];
		uint16_t scale;

		*error += hct_int4_block(b->fours + i, m, &scale, q);
		hct_store16(scales, scale);
		scales += 2;
		for (unsigned j = 0; j < m; j++)
			nibbles[(i + j) / 2] |= (uint8_t)((q[j] & 15) << (i + j) % 2 * 4);
	}
	for (size_t i = 0; i < b->half_count; i++) {
		uint16_t h = hct_half_round(b->halves[i]);
		double d = (double)hct_half_value(h) - b->halves[i];

		*error += d * d;
		hct_store16(out, h);
		out += 2;
	}
	return out;
}

/* Codes the n values of b to out, which has room for payload_bound(n), and returns the payload's
 * length.  *error: squared error of the values. */
static size_t put_payload(hct_encoder *e, const struct hct_coef_plan *p, struct buffers *b,
			  size_t n, uint8_t *out, double *error)
{
	double unit = hct_coef_power(p->t.exponent), coded = 0;
	uint8_t *at = out + HCT_COEF_HEAD_BYTES, *mask = at;

	*error = classify(p, n, b);
	memset(out, 0, HCT_COEF_HEAD_BYTES);
	at = mask_write(e, &b->kept, HCT_MASK_NONE, HCT_MASK_STORED, &out[0], at);
	hct_store32(out + 4, (uint32_t)(at - mask));
	mask = at;
	at = mask_write(e, &b->half, HCT_MASK_ALL, HCT_MASK_NONE, &out[1], at);
	hct_store32(out + 8, (uint32_t)(at - mask));
	at = put_values(b, at, &coded);
	*error += coded * unit * unit;
	return (size_t)(at - out);
}

/* Sample --------------------------------------------------------------------------------- */

/* How much of the tensor is looked at: pieces of whole bands, or of long rows. */
static hct_error choose_sample(struct planner *p)
{
	uint64_t rows = 64, want;

	while (rows > 1 && rows * p->columns > PIECE_ELEMENTS)
		rows /= 2;
	p->piece = rows * p->columns <= 2 * PIECE_ELEMENTS ? (size_t)(rows * p->columns)
							   : PIECE_ELEMENTS;
	p->pieces = (p->elements + p->piece - 1) / p->piece;
	want = (samples[p->goal->effort - 1] + p->piece - 1) / p->piece;
	p->count = (size_t)(want < p->pieces ? want : p->pieces);
	p->values = aligned_alloc(64, p->count * round_up((p->piece + HCT_GROUP) * sizeof(float)));
	return p->values ? HCT_OK : HCT_ERR_NOMEM;
}

/* Fills the values for a tile, of every second piece when half is 1. */
static hct_error fill_sample(struct planner *p, const struct shape *s, int half)
{
	struct hct_tcq_tables t = {.tile_rows_log2 = s->rows_log2,
				   .tile_columns_log2 = s->columns_log2,
				   .columns = p->columns};
	size_t unit = hct_dtype_unit(p->tensor->dtype);
	hct_error e = HCT_OK;

	p->filled = 0;
	for (size_t i = 0; i < p->count && !e; i += half ? 2 : 1) {
		uint64_t at = p->count > 1 ? i * (p->pieces - 1) / (p->count - 1) : 0;
		uint64_t left = p->elements - at * p->piece;
		size_t n = left < p->piece ? (size_t)left : p->piece;

		/* long rows need not be cut where tiles end */
		n = n >> s->columns_log2 << s->columns_log2;
		e = hct_tcq_values(&t, p->e->dct, p->tensor->dtype, p->data + at * p->piece * unit,
				   n, p->values + p->filled);
		p->filled += n;
		if (!e && hct_encoder_watched(p->e, (at * p->piece + n) * unit))
			e = HCT_ERR_INTERRUPTED;
	}
	return e;
}

static uint32_t magnitude_bits(float v)
{
	uint32_t bits;

	memcpy(&bits, &v, sizeof bits);
	return bits & 0x7fffffff;
}

/* The magnitude of which `count` of the sample's values are at least that; FLT_MAX for none, and
 * the least there is for more of them than are not 0. */
static float threshold_of(const struct planner *p, size_t count)
{
	size_t *histogram = calloc(65536, sizeof *histogram), above = 0;
	uint32_t high = 65536, low = 65536, bits;
	float v = FLT_MAX;

	if (!histogram || !count) {
		free(histogram);
		return count ? -1 : v;
	}
	for (size_t i = 0; i < p->filled; i++)
		histogram[magnitude_bits(p->values[i]) >> 16]++;
	while (high > 0 && above + histogram[high - 1] < count)
		above += histogram[--high];
	high = high ? high - 1 : 0;
	memset(histogram, 0, 65536 * sizeof *histogram);
	for (size_t i = 0; i < p->filled; i++)
		if (magnitude_bits(p->values[i]) >> 16 == high)
			histogram[magnitude_bits(p->values[i]) & 65535]++;
	while (low > 0 && above + histogram[low - 1] < count)
		above += histogram[--low];
	low = low ? low - 1 : 0;
	free(histogram);
	bits = high << 16 | low;
	memcpy(&v, &bits, sizeof v);
	return v > 0 ? v : FLT_TRUE_MIN;
}

/* Sets the thresholds from the sample. */
static hct_error choose_thresholds(const struct planner *p, struct hct_coef_plan *plan)
{
	const struct hct_goal *g = p->goal;
	double n = (double)p->filled;

	plan->keep = 0;
	plan->half = FLT_MAX;
	if (g->method == HCT_METHOD_INT4)
		return HCT_OK;
	if (g->retention < 1)
		plan->keep = threshold_of(p, (size_t)ceil(g->retention * n));
	if (g->method == HCT_METHOD_MIXED)
		plan->half = g->fp16_ratio < 1
				     ? threshold_of(p, (size_t)(g->fp16_ratio * g->retention * n))
				     : plan->keep;
	return plan->keep < 0 || plan->half < 0 ? HCT_ERR_NOMEM : HCT_OK;
}

/* Codes the sample as it is filled: payload bytes and mean squared error of a value. */
static hct_error try_sample(struct planner *p, const struct hct_coef_plan *plan, double *bytes,
			    double *error)
{
	hct_encoder *e = p->e;
	double sum = 0;

	*bytes = 0;
	if (!hct_buffer_reserve(&e->payload, &e->payload_capacity, payload_bound(2 * p->piece)))
		return HCT_ERR_NOMEM;
	for (size_t at = 0, n; at < p->filled; at += n) {
		struct buffers b;
		double d;

		n = p->filled - at < 2 * p->piece ? p->filled - at : 2 * p->piece;
		if (!lay_out(e, n, &b))
			return HCT_ERR_NOMEM;
		memcpy(b.values, p->values + at, n * sizeof(float));
		*bytes += (double)put_payload(e, plan, &b, n, e->payload, &d);
		sum += d;
	}
	*error = sum / (double)p->filled;
	return HCT_OK;
}

/* Squared error of an element for that of a coefficient as it is coded. */
static double element_error(const struct shape *s, double error)
{
	unsigned rows = 1u << s->rows_log2, columns = 1u << s->columns_log2;
	double factor = rows * columns > 1 ? hct_idct_factor(rows, columns) : 1;

	return error / (factor * factor);
}

/* Plan ----------------------------------------------------------------------------------- */

/* The exponent that suits the sample: its root mean square near 1, its peak in range. */
static int choose_exponent(const struct planner *p)
{
	double square = 0, peak = 0;
	int e, top;

	for (size_t i = 0; i < p->filled; i++) {
		square += (double)p->values[i] * p->values[i];
		peak = fabs((double)p->values[i]) > peak ? fabs((double)p->values[i]) : peak;
	}
	e = square > 0 ? ilogb(sqrt(square / (double)p->filled)) : 0;
	/* Elsewhere there may be a larger one: any coefficient is at most as large as that. */
	top = ilogb(p->census.peak > peak ? p->census.peak : peak) + 1 - TOP_EXPONENT;
	e = e > top ? e : top;
	return e < HCT_COEF_MIN_EXPONENT   ? HCT_COEF_MIN_EXPONENT
	       : e > HCT_COEF_MAX_EXPONENT ? HCT_COEF_MAX_EXPONENT
					   : e;
}

/* Everything about a tile, from the sample. */
static hct_error try_shape(struct planner *p, const struct shape *s, int half,
			   struct hct_coef_plan *plan)
{
	double bytes, error;
	hct_error e = fill_sample(p, s, half);

	if (e)
		return e;
	plan->t = (struct hct_coef_tables){.tile_rows_log2 = s->rows_log2,
					   .tile_columns_log2 = s->columns_log2,
					   .exponent = choose_exponent(p),
					   .columns = p->columns};
	e = choose_thresholds(p, plan);
	if (!e)
		e = try_sample(p, plan, &bytes, &error);
	if (e)
		return e;
	plan->bits = 8 * bytes / (double)p->filled;
	plan->error = element_error(s, error);
	return HCT_OK;
}

/* The tile of least error, on half of the sample. */
static hct_error choose_shape(struct planner *p, struct shape *best)
{
	double least = DBL_MAX;
	hct_error e = HCT_OK;

	*best = (struct shape){0, 0};
	if (p->goal->method == HCT_METHOD_INT4 || p->goal->transform == HCT_TRANSFORM_NONE)
		return HCT_OK;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes && !e; i++) {
		const struct shape *s = &shapes[i];
		struct hct_coef_plan trial;

		if (!hct_matrix_tile_fits(p->rows, p->columns, s->rows_log2, s->columns_log2) ||
		    (s->rows_log2 &&
		     (p->piece % p->columns || p->piece / p->columns % (1u << s->rows_log2))))
			continue;
		e = try_shape(p, s, p->count > 1, &trial);
		if (!e && trial.error < least) {
			least = trial.error;
			*best = *s;
		}
	}
	return e;
}

/* What cannot be coded, or need not. */
static const char *objection(const struct planner *p)
{
	const char *fault;

	if (p->tensor->rank < 2)
		return "it is no matrix";
	if (p->elements < MIN_ELEMENTS)
		return "it is too small";
	fault = hct_census_fault(&p->census, p->tensor, p->data);
	if (fault)
		return fault;
	if (!(p->census.energy < 1e35) || p->census.energy / (double)p->elements < 1e-50)
		return "its values are out of range";
	return NULL;
}

static hct_error make_plan(struct planner *p, struct hct_coef_plan *plan)
{
	uint8_t params[HCT_COEF_TABLE_BYTES];
	struct shape shape;
	const char *why;
	hct_error e;

	e = choose_sample(p);
	if (!e)
		e = choose_shape(p, &shape);
	if (!e)
		e = try_shape(p, &shape, 0, plan);
	if (e)
		return e;
	plan->dtype = p->tensor->dtype;
	plan->chunk = hct_matrix_chunk(p->columns, shape.rows_log2, shape.columns_log2);
	plan->error = plan->error * (double)p->elements / p->census.energy +
		      hct_rounding_error(plan->dtype);
	hct_coef_tables_pack(&plan->t, params);
	return hct_codec_coef.open_tables(p->tensor, params, sizeof params, &plan->decoder, &why);
}

hct_error hct_coef_plan_create(hct_encoder *e, const struct hct_tensor *tensor, const uint8_t *data,
			       const struct hct_goal *goal, struct hct_coef_plan **out,
			       const char **why)
{
	struct planner p = {.e = e,
			    .tensor = tensor,
			    .data = data,
			    .goal = goal,
			    .census = {.finite = 1},
			    .elements = hct_tensor_bytes(tensor) / hct_dtype_unit(tensor->dtype)};
	struct hct_coef_plan *plan;
	hct_error err;

	*out = NULL;
	*why = "its dtype";
	if (!hct_tcq_has_dtype(tensor->dtype))
		return HCT_OK;
	err = hct_census_take(e, tensor, data, CENSUS_PIECE, &p.census, NULL, NULL);
	if (err)
		return err;
	*why = objection(&p);
	if (*why)
		return HCT_OK;
	p.columns = hct_matrix_columns(tensor);
	p.rows = p.elements / p.columns;
	plan = calloc(1, sizeof *plan);
	if (!plan)
		return HCT_ERR_NOMEM;
	err = make_plan(&p, plan);
	free(p.values);
	if (!err && plan->bits >= 8. * (double)hct_dtype_unit(tensor->dtype)) {
		*why = "it would be no smaller";
		hct_coef_plan_free(plan);
		return HCT_OK;
	}
	if (err)
		hct_coef_plan_free(plan);
	else
		*out = plan;
	return err;
}

void hct_coef_plan_free(struct hct_coef_plan *p)
{
	if (p)
		hct_codec_coef.free_tables(p->decoder);
	free(p);
}

const struct hct_coef_tables *hct_coef_plan_tables(const struct hct_coef_plan *p)
{
	return &p->t;
}

void hct_coef_plan_forecast(const struct hct_coef_plan *p, double *bits, double *error)
{
	*bits = p->bits;
	*error = p->error;
}

uint32_t hct_coef_plan_chunk(const struct hct_coef_plan *p)
{
	return p->chunk;
}

hct_error hct_coef_encode(hct_encoder *e, const struct hct_coef_plan *p, const uint8_t *data,
			  size_t n, uint64_t first, struct hct_encoded *out)
{
	struct hct_tcq_tables t = {.tile_rows_log2 = p->t.tile_rows_log2,
				   .tile_columns_log2 = p->t.tile_columns_log2,
				   .columns = p->t.columns};
	struct buffers b;
	size_t length;
	double error;
	hct_error err;

	if (!hct_buffer_reserve(&e->payload, &e->payload_capacity,
				payload_bound(n) + HCT_PAYLOAD_PAD) ||
	    !lay_out(e, n, &b))
		return HCT_ERR_NOMEM;
	err = hct_tcq_values(&t, e->dct, p->dtype, data, n, b.values);
	if (err)
		return err;
	length = put_payload(e, p, &b, n, e->payload, &error);
	if (length >= n * hct_dtype_unit(p->dtype))
		return HCT_ERR_LIMIT;
	memset(e->payload + length, 0, HCT_PAYLOAD_PAD);
	out->layer_count = 1;
	out->layers[0] = (struct hct_encoded_layer){.payload = e->payload,
						    .length = (uint32_t)length,
						    .checksum = hct_checksum(e->payload, length)};
	return hct_judge(e, &hct_codec_coef, p->decoder, p->dtype, data, n, first, out);
}
