#include "verify.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "codec/checksum.h"
#include "codec/metrics.h"
#include "writer/interrupt.h"

/* The encoder sums in another order. */
#define ROUNDING   1e-6  /* of the error, */
#define ROUNDING_A 1e-12 /* and of the energy */

#define IN_FLIGHT 64 /* chunks that are given to the pool at a time */

/* What one thread needs. */
struct worker {
	hct_decoder *decoder;
	uint8_t *buffer;
	size_t size;
};

struct verify {
	struct mkhct_compressor *c;
	const struct mkhct_model *model;
	const hct_reader *reader;
	struct worker *workers;
	const struct mkhct_result *result; /* of the tensor at hand */
};

struct piece {
	struct verify *v;
	struct hct_chunk chunk;
	struct hct_metrics metrics;
	const uint8_t *decoded; /* in its worker's buffer */
	hct_error error;
	struct hct_diag diag;
};

static int is_lossy(const struct mkhct_result *r)
{
	return r->error > 0;
}

/* Compares the decoded bytes with the source's. */
static hct_error compare(void *arg)
{
	struct piece *p = arg;
	const struct verify *v = p->v;
	const struct hct_tensor *t = &v->model->st.tensors[p->chunk.tensor];
	const uint8_t *source = v->model->map + p->chunk.offset;

	if (is_lossy(v->result))
		hct_metrics_add_typed(&p->metrics, t->dtype, source, t->dtype, p->decoded,
				      p->chunk.length / hct_dtype_unit(t->dtype));
	else if (memcmp(source, p->decoded, p->chunk.length) != 0)
		return hct_fail(&p->diag, HCT_ERR_DIGEST,
				"%s: tensor '%s' was written and is not what it was: an internal "
				"error; please report it",
				v->model->entry->path, t->name);
	return HCT_OK;
}

static void job(void *arg, unsigned worker)
{
	struct piece *p = arg;
	struct verify *v = p->v;
	struct worker *w = &v->workers[worker];

	if (!w->decoder)
		p->error = hct_decoder_create(HCT_SIMD_AUTO, &w->decoder);
	if (!p->error && w->size < p->chunk.length) {
		free(w->buffer);
		w->size = p->chunk.length;
		w->buffer = malloc(w->size);
		if (!w->buffer) {
			w->size = 0;
			p->error = HCT_ERR_NOMEM;
		}
	}
	if (p->error) {
		hct_fail(&p->diag, p->error, "%s: cannot be read back: %s", v->model->entry->path,
			 hct_error_string(p->error));
		return;
	}
	p->decoded = w->buffer;
	p->error = hct_reader_decode_verified(v->reader, w->decoder, p->chunk.number, w->buffer,
					      &p->diag);
	if (!p->error)
		p->error = mkhct_model_guard(v->model, compare, p, &p->diag);
}

/* The error and both energies, up to rounding. */
static int agrees(const struct mkhct_result *r, const struct hct_metrics *m)
{
	double slack = ROUNDING * r->error + ROUNDING_A * r->energy;

	return m->nonfinite_differ == 0 && fabs(m->sum_dd - r->error) <= slack &&
	       fabs(m->sum_aa - r->energy) <= ROUNDING * r->energy &&
	       fabs(m->sum_bb - r->decoded_energy) <= ROUNDING * r->decoded_energy;
}

static hct_error verify_tensor(struct verify *v, size_t tensor, struct mkhct_result *result,
			       struct hct_diag *diag)
{
	const struct hct_tensor *t = &v->model->st.tensors[tensor];
	hct_pool *pool = mkhct_compressor_pool(v->c);
	struct hct_metrics all = {0};
	struct piece *pieces = calloc(IN_FLIGHT, sizeof(*pieces));
	struct hct_coding coding;
	hct_error err = HCT_OK;

	if (!pieces)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", v->model->entry->path);
	hct_reader_coding(v->reader, tensor, &coding);
	v->result = result;
	for (uint64_t first = 0; !err && first < coding.chunk_count; first += IN_FLIGHT) {
		uint64_t left = coding.chunk_count - first, n = left < IN_FLIGHT ? left : IN_FLIGHT;

		for (uint64_t i = 0; i < n; i++) {
			pieces[i] = (struct piece){.v = v};
			hct_reader_chunk(v->reader, coding.first_chunk + first + i,
					 &pieces[i].chunk);
			hct_pool_submit(pool, job, &pieces[i]);
		}
		hct_pool_wait(pool);
		for (uint64_t i = 0; !err && i < n; i++) {
			err = pieces[i].error;
			if (err && diag)
				*diag = pieces[i].diag;
			hct_metrics_merge(&all, &pieces[i].metrics);
		}
		mkhct_model_let_go(v->model, pieces[0].chunk.offset,
				   pieces[n - 1].chunk.offset + pieces[n - 1].chunk.length);
		if (!err)
			err = mkhct_interrupt_check(diag);
	}
	free(pieces);
	if (!err && is_lossy(result) && !agrees(result, &all))
		err = hct_fail(diag, HCT_ERR_DIGEST,
			       "%s: tensor '%s' was written with a relative error of %.6g and "
			       "decodes with %.6g: an internal error; please report it",
			       v->model->entry->path, t->name, mkhct_result_error(result),
			       hct_metrics_relative_squared_error(&all));
	result->verified = !err;
	return err;
}

hct_error mkhct_verify(struct mkhct_compressor *c, const struct mkhct_model *model,
		       const hct_reader *reader, double fraction, struct mkhct_result *results,
		       mkhct_tick tick, void *tick_arg, struct hct_diag *diag)
{
	unsigned threads = hct_pool_threads(mkhct_compressor_pool(c));
	struct verify v = {.c = c,
			   .model = model,
			   .reader = reader,
			   .workers = calloc(threads, sizeof(*v.workers))};
	uint64_t lowest = UINT64_MAX;
	hct_error err = HCT_OK;

	if (!v.workers)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", model->entry->path);
	for (size_t i = 0; i < model->st.count; i++) {
		const char *name = model->st.tensors[i].name;
		uint64_t hash = hct_checksum(name, strlen(name));

		lowest = hash < lowest ? hash : lowest;
	}
	for (size_t i = 0; !err && fraction > 0 && i < model->st.count; i++) {
		const char *name = model->st.tensors[i].name;
		uint64_t hash = hct_checksum(name, strlen(name));

		if (hash != lowest && (double)hash * 0x1p-64 >= fraction)
			continue;
		if (tick)
			tick(tick_arg, name);
		err = verify_tensor(&v, i, &results[i], diag);
	}
	for (unsigned i = 0; i < threads; i++) {
		hct_decoder_free(v.workers[i].decoder);
		free(v.workers[i].buffer);
	}
	free(v.workers);
	return err;
}
