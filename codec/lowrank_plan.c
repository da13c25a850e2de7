#include "lowrank_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "census.h"
#include "checksum.h"
#include "judge.h"
#include "lowrank.h"
#include "matrix.h"
#include "rank.h"
#include "tcq_plan.h"
#include "widen.h"

/* Smaller sides have nothing to gain, and a quick look at them costs more than it can bring. */
#define MIN_SIDE       8
#define MIN_QUICK_SIDE 64
/* Below, sums of float32 are not exact enough. */
#define MIN_ERROR 1e-5
/* Of magnitudes: squares must not leave float32. */
#define MIN_RMS  1e-12
#define MAX_PEAK 1e12
/* How often U, by which the error is reached, is planned at most; the share of what is left to it
 * that it may use, and has to: less, and aimed at lower, with each try.  How far a plan of few
 * numbers misses is chance. */
#define U_TRIES      8
#define U_MOST       1.005
#define U_LEAST      .98
#define U_LOOSER     .02
#define CENSUS_PIECE (64u << 10) /* elements */
/* What must come of it, against the rival's bits. */
#define GAIN 0.99
/* The error that is near enough, as a share of what is wanted. */
#define MISSED 1.01
#define CHUNKS 2 /* of other codecs, in one of this */

struct hct_lowrank_plan {
	hct_dtype dtype;
	uint32_t columns, rank, chunk; /* chunk: elements */
	float *projector;              /* columns x rank, as svd.h has it */
	struct hct_tcq_plan *u;
	uint8_t *params;
	size_t params_length;
	void *decoder;
	double bits, error; /* forecast */
};

/* A tensor while it is planned. */
struct planner {
	hct_encoder *e;
	const struct hct_tensor *tensor;
	unsigned effort;
	struct hct_matrix_goal m;
};

/* Factors -------------------------------------------------------------------------------- */

/* Plans a factor with the tcq codec: rows x columns float32 numbers.  *out is NULL where that
 * cannot be done. */
static hct_error plan_factor(const struct planner *p, const float *data, size_t rows,
			     size_t columns, double error, struct hct_tcq_plan **out)
{
	uint64_t shape[2] = {rows, columns};
	struct hct_tensor t = {.name = "",
			       .dtype = HCT_DTYPE_F32,
			       .rank = 2,
			       .shape = shape,
			       .end = rows * columns * sizeof(float),
			       .elements = rows * columns};
	struct hct_goal goal = {.relative_squared_error = error,
				.effort = p->effort,
				.layers = 1,
				.transform = HCT_TRANSFORM_NONE};
	const char *why;

	*out = NULL;
	if (!(error > 0 && error < 1))
		return HCT_OK;
	return hct_tcq_plan_create(p->e, &t, (const uint8_t *)data, &goal, out, &why);
}

/* The tables of a factor, packed; free *out. */
static hct_error pack_factor(const struct hct_tcq_plan *plan, uint8_t **out, uint32_t *length)
{
	const struct hct_tcq_tables *t = hct_tcq_plan_tables(plan);

	*length = (uint32_t)hct_tcq_tables_length(t);
	*out = malloc(*length);
	if (*out)
		hct_tcq_tables_pack(t, *out);
	return *out ? HCT_OK : HCT_ERR_NOMEM;
}

/* A plan while it is made. */
struct work {
	size_t rank;
	float *scales; /* rank of them */
	float *v;      /* rank x columns: coded, then as it is decoded */
	float *gram;   /* of what is decoded, rank x rank */
	float *u;      /* rows x rank */
	uint8_t *v_tables, *u_tables, *v_payload;
	struct hct_lowrank_tables t;
};

static void work_free(struct work *w)
{
	free(w->scales);
	free(w->v);
	free(w->gram);
	free(w->u);
	free(w->v_tables);
	free(w->u_tables);
	free(w->v_payload);
}

/* Codes V, row k times singular value k, so that all numbers of both factors cost the same error,
 * and decodes it; svd's v becomes that of w.  *done is 0 where it cannot be coded. */
static hct_error code_v(const struct planner *p, struct hct_svd *svd, double d, struct work *w,
			int *done)
{
	size_t n = w->rank * p->m.a.columns;
	struct hct_encoded coded = {.codec = 0};
	struct hct_tcq_plan *plan = NULL;
	double energy = 0;
	hct_error e;

	*done = 0;
	w->v = svd->v;
	svd->v = NULL;
	for (size_t k = 0; k < w->rank; k++) {
		w->scales[k] = 1 / svd->s[k];
		for (size_t c = 0; c < p->m.a.columns; c++)
			w->v[k * p->m.a.columns + c] *= svd->s[k];
		energy += (double)svd->s[k] * svd->s[k];
	}
	e = plan_factor(p, w->v, w->rank, p->m.a.columns, d * (double)n / energy, &plan);
	if (e || !plan)
		return e;
	e = pack_factor(plan, &w->v_tables, &w->t.v_tables_length);
	if (!e)
		e = hct_tcq_encode_part(p->e, plan, (const uint8_t *)w->v, n, 0, &coded);
	hct_tcq_plan_free(plan);
	if (e)
		return e;
	w->t.v_length = coded.layers[0].length;
	w->v_payload = malloc(w->t.v_length);
	if (!w->v_payload)
		return HCT_ERR_NOMEM;
	memcpy(w->v_payload, coded.layers[0].payload, w->t.v_length);
	memcpy(w->v, p->e->decoded, n * sizeof *w->v); /* what was decoded */
	w->t.rank = (uint32_t)w->rank;
	w->t.columns = (uint32_t)p->m.a.columns;
	w->t.scales = (const uint8_t *)w->scales;
	hct_lowrank_scale(&w->t, w->v);
	hct_buffers_shrink(p->e);
	*done = 1;
	return HCT_OK;
}

/* Projects the rows of a matrix: u gets a->rows x rank numbers. */
static hct_error project(const struct hct_matrix *a, const float *projector, size_t rank, float *u)
{
	size_t most = a->columns < (1u << 18) ? (1u << 18) / a->columns : 1, n;
	size_t pitch = a->columns * hct_dtype_unit(a->dtype);
	hct_error e = HCT_OK;
	float *block;

	most = most < a->rows ? most : a->rows;
	block = malloc(most * a->columns * sizeof *block);
	if (!block)
		return HCT_ERR_NOMEM;
	for (size_t r = 0; r < a->rows && !e; r += n) {
		n = a->rows - r < most ? a->rows - r : most;
		hct_widen(a->dtype, a->data + r * pitch, n * a->columns, block);
		hct_svd_project(block, n, a->columns, projector, rank, u + r * rank);
		if (a->watch && a->watch(a->watch_arg, (uint64_t)(r + n) * pitch))
			e = HCT_ERR_INTERRUPTED;
	}
	free(block);
	return e;
}

/* The squared norms of U, and of U V: the sum of U' U times the Gram matrix of V. */
static void measure_u(const struct planner *p, const struct work *w, double *u, double *product)
{
	*u = *product = 0;
	for (size_t i = 0; i < p->m.a.rows; i++) {
		const float *a = w->u + i * w->rank;

		for (size_t k = 0; k < w->rank; k++) {
			const float *g = w->gram + k * w->rank;
			float sum[4] = {0};
			size_t l = 0;

			for (; l + 4 <= w->rank; l += 4)
				for (unsigned j = 0; j < 4; j++)
					sum[j] += g[l + j] * a[l + j];
			for (; l < w->rank; l++)
				sum[0] += g[l] * a[l];
			*u += (double)a[k] * a[k];
			*product += (double)a[k] * ((sum[0] + sum[1]) + (sum[2] + sum[3]));
		}
	}
}

/* Codes all of U, chunk by chunk: its bytes, and its squared error. */
static hct_error try_u(const struct planner *p, const struct work *w,
		       const struct hct_lowrank_plan *plan, double *bytes, double *error)
{
	size_t most = plan->chunk / plan->columns, n;
	hct_error e = HCT_OK;

	*bytes = *error = 0;
	for (size_t r = 0; r < p->m.a.rows && !e; r += n) {
		struct hct_encoded coded = {.codec = 0};

		n = p->m.a.rows - r < most ? p->m.a.rows - r : most;
		e = hct_tcq_encode_part(p->e, plan->u, (const uint8_t *)(w->u + r * w->rank),
					n * w->rank, (uint64_t)r * w->rank, &coded);
		*bytes += coded.layers[0].length;
		*error += coded.error;
	}
	return e;
}

/* Plans U for the V that is decoded; plan->u stays NULL where the error cannot be reached.  An
 * error of U's counts as often as the rows of V are long, which is about 1. */
static hct_error plan_u(const struct planner *p, struct work *w, struct hct_lowrank_plan *plan)
{
	double energy, product, bytes, error, left, aim, least, weight = 0;
	hct_error e;

	e = hct_svd_projector(w->v, w->rank, p->m.a.columns, plan->projector, w->gram);
	if (!e)
		e = project(&p->m.a, plan->projector, w->rank, w->u);
	if (e)
		return e;
	measure_u(p, w, &energy, &product);
	for (size_t k = 0; k < w->rank; k++)
		weight += w->gram[k * w->rank + k] / (double)w->rank;
	aim = left = (p->m.error - (p->m.energy - product)) / weight;
	for (unsigned i = 0; i < U_TRIES; i++) {
		hct_tcq_plan_free(plan->u);
		plan->u = NULL;
		e = plan_factor(p, w->u, p->m.a.rows, w->rank, aim / energy, &plan->u);
		if (e || !plan->u)
			return e;
		e = try_u(p, w, plan, &bytes, &error);
		least = U_LEAST - i * U_LOOSER;
		if (e || (error < U_MOST * left && error > least * left))
			break;
		aim *= .5 * (U_MOST + least) * left / error;
	}
	plan->bits = 8 * bytes / ((double)p->m.a.rows * (double)p->m.a.columns);
	plan->error = (p->m.energy - product + weight * error) / p->m.energy +
		      hct_rounding_error(plan->dtype);
	return e ? e : pack_factor(plan->u, &w->u_tables, &w->t.u_tables_length);
}

/* Packs the tables and opens them. */
static hct_error seal(const struct planner *p, struct work *w, struct hct_lowrank_plan *plan)
{
	double all = (double)p->m.a.rows * (double)p->m.a.columns;
	const char *why;

	w->t.v_tables = w->v_tables;
	w->t.u_tables = w->u_tables;
	w->t.v_payload = w->v_payload;
	plan->params_length = hct_lowrank_tables_length(&w->t);
	plan->params = malloc(plan->params_length);
	if (!plan->params)
		return HCT_ERR_NOMEM;
	hct_lowrank_tables_pack(&w->t, plan->params);
	plan->bits += 8 *
		      (w->t.v_length + 4. * w->t.rank +
		       HCT_TABLE_SHARE * ((double)w->t.v_tables_length + w->t.u_tables_length)) /
		      all;
	return hct_codec_lowrank.open_tables(p->tensor, plan->params, plan->params_length,
					     &plan->decoder, &why);
}

/* Makes a plan of the first `rank` factors, and takes v from svd; *done is 0 where the error cannot
 * be reached. */
static hct_error make_plan(const struct planner *p, struct hct_svd *svd, size_t rank,
			   struct hct_lowrank_plan *plan, int *done)
{
	struct work w = {.rank = rank};
	double left = p->m.error - p->m.energy;
	hct_error e = HCT_ERR_NOMEM;

	for (size_t k = 0; k < rank; k++)
		left += (double)svd->s[k] * svd->s[k];
	left = left < p->m.error ? left : p->m.error;
	w.scales = malloc(rank * sizeof *w.scales);
	plan->dtype = p->tensor->dtype;
	plan->columns = (uint32_t)p->m.a.columns;
	plan->rank = (uint32_t)rank;
	plan->chunk = CHUNKS * hct_matrix_chunk(plan->columns, 0, 0);
	*done = 0;
	if (w.scales)
		e = code_v(p, svd, left / ((double)rank * (double)(p->m.a.rows + p->m.a.columns)),
			   &w, done);
	if (!e && *done) { /* what coding V took is free again */
		w.gram = malloc(rank * rank * sizeof *w.gram);
		w.u = malloc(p->m.a.rows * rank * sizeof *w.u);
		plan->projector = malloc(p->m.a.columns * rank * sizeof *plan->projector);
		e = w.gram && w.u && plan->projector ? plan_u(p, &w, plan) : HCT_ERR_NOMEM;
		*done = !e && plan->u;
	}
	if (!e && *done)
		e = seal(p, &w, plan);
	work_free(&w);
	return e;
}

/* Plan ----------------------------------------------------------------------------------- */

/* The shape; 0 when it is none to be tried. */
static int suits(struct planner *p, double error, int quick)
{
	const struct hct_tensor *t = p->tensor;
	size_t side = quick ? MIN_QUICK_SIDE : MIN_SIDE;

	p->m.a.columns = hct_matrix_columns(t);
	p->m.a.rows = (size_t)(hct_tensor_bytes(t) / hct_dtype_unit(t->dtype) / p->m.a.columns);
	return t->rank >= 2 && p->m.a.columns >= side && p->m.a.rows >= side &&
	       error >= MIN_ERROR &&
	       p->m.a.columns <= hct_matrix_chunk((uint32_t)p->m.a.columns, 0, 0);
}

/* The sums; *sound is 0 when float32 cannot hold them. */
static hct_error measure(struct planner *p, double error, int *sound)
{
	struct hct_census census;
	uint64_t elements = (uint64_t)p->m.a.rows * p->m.a.columns;
	hct_error e =
		hct_census_take(p->e, p->tensor, p->m.a.data, CENSUS_PIECE, &census, NULL, NULL);

	p->m.energy = census.energy;
	p->m.error = error * p->m.energy;
	*sound = census.finite && census.peak < MAX_PEAK &&
		 p->m.energy > MIN_RMS * MIN_RMS * (double)elements;
	return e;
}

/* Decides on the rank and makes a plan; *out stays NULL where that is not worth it. */
static hct_error try_plan(struct planner *p, struct hct_lowrank_plan **out, int *bounded)
{
	double rival = p->m.rival / ((double)p->m.a.rows * (double)p->m.a.columns);
	struct hct_lowrank_plan *plan = NULL;
	struct hct_svd svd = {.rank = 0};
	size_t rank = 0;
	int done = 0;
	hct_error e = hct_rank_find(&p->m, &svd, &rank, bounded);

	if (!e && rank) {
		plan = calloc(1, sizeof *plan);
		e = plan ? make_plan(p, &svd, rank, plan, &done) : HCT_ERR_NOMEM;
	}
	hct_svd_free(&svd);
	if (!e && done && plan->bits < GAIN * rival &&
	    plan->error <= MISSED * p->m.error / p->m.energy + hct_rounding_error(plan->dtype)) {
		*out = plan;
		return HCT_OK;
	}
	hct_lowrank_plan_free(plan);
	return e;
}

hct_error hct_lowrank_plan_create(hct_encoder *e, const struct hct_tensor *tensor,
				  const uint8_t *data, const struct hct_goal *goal, double rival,
				  int quick, struct hct_lowrank_plan **out, const char **note)
{
	struct planner p = {.e = e,
			    .tensor = tensor,
			    .effort = goal->effort,
			    .m.a = {.dtype = tensor->dtype,
				    .data = data,
				    .watch = e->watch,
				    .watch_arg = e->watch_arg}};
	double error = goal->relative_squared_error - hct_rounding_error(tensor->dtype);
	int promising = 1, bounded = 0;
	hct_error err = HCT_OK;

	*out = NULL;
	if (!suits(&p, error, quick))
		return HCT_OK;
	p.m.rival = rival * (double)p.m.a.rows * (double)p.m.a.columns;
	if (quick)
		err = hct_rank_look(&p.m, error, &promising);
	if (!err && promising)
		err = measure(&p, error, &promising);
	if (!err && promising)
		err = try_plan(&p, out, &bounded);
	if (!*out && bounded)
		*note = "factors of a rank that might pay would take too much memory";
	/* LAPACK did not converge, or the quantiser made something that does not decode. */
	return err == HCT_ERR_LIMIT || err == HCT_ERR_CORRUPT ? HCT_OK : err;
}

size_t hct_lowrank_plan_memory(const struct hct_lowrank_plan *p)
{
	return sizeof *p + p->params_length + hct_tcq_plan_memory(p->u) +
	       2 * (size_t)p->rank * p->columns * sizeof(float);
}

void hct_lowrank_plan_free(struct hct_lowrank_plan *p)
{
	if (!p)
		return;
	if (p->decoder)
		hct_codec_lowrank.free_tables(p->decoder);
	hct_tcq_plan_free(p->u);
	free(p->projector);
	free(p->params);
	free(p);
}

const uint8_t *hct_lowrank_plan_params(const struct hct_lowrank_plan *p, size_t *length)
{
	*length = p->params_length;
	return p->params;
}

void hct_lowrank_plan_forecast(const struct hct_lowrank_plan *p, double *bits, double *error)
{
	*bits = p->bits;
	*error = p->error;
}

unsigned hct_lowrank_plan_rank(const struct hct_lowrank_plan *p)
{
	return p->rank;
}

uint32_t hct_lowrank_plan_chunk(const struct hct_lowrank_plan *p)
{
	return p->chunk;
}

hct_error hct_lowrank_encode(hct_encoder *e, const struct hct_lowrank_plan *p, const uint8_t *data,
			     size_t n, uint64_t first, struct hct_encoded *out)
{
	size_t rows = n / p->columns;
	struct hct_matrix a = {
		.dtype = p->dtype, .data = data, .rows = rows, .columns = p->columns};
	float *u = malloc(rows * p->rank * sizeof *u);
	hct_error err = HCT_ERR_NOMEM;

	if (u)
		err = project(&a, p->projector, p->rank, u);
	if (!err)
		err = hct_tcq_encode_part(e, p->u, (const uint8_t *)u, rows * p->rank,
					  first / p->columns * p->rank, out);
	free(u);
	if (!err && out->layers[0].length >= n * hct_dtype_unit(p->dtype))
		err = HCT_ERR_LIMIT;
	return err ? err
		   : hct_judge(e, &hct_codec_lowrank, p->decoder, p->dtype, data, n, first, out);
}
