#include "verify.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/checksum.h"
#include "codec/io.h"
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
	const struct mkhct_model *model; /* to compare with, or NULL */
	const hct_reader *reader;
	const char *name; /* for messages */
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
		hct_fail(&p->diag, p->error, "%s: cannot be read back: %s", v->name,
			 hct_error_string(p->error));
		return;
	}
	p->decoded = w->buffer;
	p->error = hct_reader_decode_verified(v->reader, w->decoder, p->chunk.number, w->buffer,
					      &p->diag);
	if (!p->error && v->model)
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

/* Decodes the chunks from number `first` on, `count` of them, and adds what is measured of them. */
static hct_error verify_chunks(struct verify *v, uint64_t first, uint64_t count,
			       struct hct_metrics *all, struct hct_diag *diag)
{
	hct_pool *pool = mkhct_compressor_pool(v->c);
	struct piece *pieces = calloc(IN_FLIGHT, sizeof(*pieces));
	hct_error err = HCT_OK;

	if (!pieces)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", v->name);
	for (uint64_t done = 0; !err && done < count; done += IN_FLIGHT) {
		uint64_t left = count - done, n = left < IN_FLIGHT ? left : IN_FLIGHT;

		for (uint64_t i = 0; i < n; i++) {
			pieces[i] = (struct piece){.v = v};
			hct_reader_chunk(v->reader, first + done + i, &pieces[i].chunk);
			hct_pool_submit(pool, job, &pieces[i]);
		}
		hct_pool_wait(pool);
		for (uint64_t i = 0; !err && i < n; i++) {
			err = pieces[i].error;
			if (err && diag)
				*diag = pieces[i].diag;
			hct_metrics_merge(all, &pieces[i].metrics);
		}
		if (v->model)
			mkhct_model_let_go(v->model, pieces[0].chunk.offset,
					   pieces[n - 1].chunk.offset + pieces[n - 1].chunk.length);
		if (!err)
			err = mkhct_interrupt_check(diag);
	}
	free(pieces);
	return err;
}

static hct_error verify_tensor(struct verify *v, size_t tensor, struct mkhct_result *result,
			       struct hct_diag *diag)
{
	struct hct_metrics all = {0};
	struct hct_coding coding;
	hct_error err;

	hct_reader_coding(v->reader, tensor, &coding);
	v->result = result;
	err = verify_chunks(v, coding.first_chunk, coding.chunk_count, &all, diag);
	if (!err && is_lossy(result) && !agrees(result, &all))
		err = hct_fail(diag, HCT_ERR_DIGEST,
			       "%s: tensor '%s' was written with a relative error of %.6g and "
			       "decodes with %.6g: an internal error; please report it",
			       v->name, v->model->st.tensors[tensor].name,
			       mkhct_result_error(result),
			       hct_metrics_relative_squared_error(&all));
	result->verified = !err;
	return err;
}

static hct_error start(struct verify *v, struct hct_diag *diag)
{
	v->workers = calloc(hct_pool_threads(mkhct_compressor_pool(v->c)), sizeof(*v->workers));
	return v->workers ? HCT_OK : hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", v->name);
}

static void end(struct verify *v)
{
	for (unsigned i = 0; v->workers && i < hct_pool_threads(mkhct_compressor_pool(v->c)); i++) {
		hct_decoder_free(v->workers[i].decoder);
		free(v->workers[i].buffer);
	}
	free(v->workers);
}

/* The lowest hash of a name. */
static uint64_t lowest_of(const struct hct_safetensors *st)
{
	uint64_t lowest = UINT64_MAX;

	for (size_t i = 0; i < st->count; i++) {
		uint64_t hash = hct_checksum(st->tensors[i].name, strlen(st->tensors[i].name));

		lowest = hash < lowest ? hash : lowest;
	}
	return lowest;
}

hct_error mkhct_verify(struct mkhct_compressor *c, const struct mkhct_model *model,
		       const hct_reader *reader, int fd, const char *out_name, double fraction,
		       struct mkhct_result *results, mkhct_tick tick, void *tick_arg,
		       struct hct_diag *diag)
{
	struct verify v = {.c = c, .model = model, .reader = reader, .name = model->entry->path};
	uint64_t lowest = lowest_of(&model->st);
	hct_error err;

	if (!(fraction > 0))
		return HCT_OK;
	/* From here on the file is read from the disk. */
	err = hct_sync_out(fd, out_name, diag);
	if (!err)
		err = start(&v, diag);
	for (size_t i = 0; !err && i < model->st.count; i++) {
		const char *name = model->st.tensors[i].name;
		uint64_t hash = hct_checksum(name, strlen(name));

		if (hash != lowest && (double)hash * 0x1p-64 >= fraction)
			continue;
		if (tick)
			tick(tick_arg, name);
		err = verify_tensor(&v, i, &results[i], diag);
	}
	end(&v);
	return err;
}

hct_error mkhct_verify_file(struct mkhct_compressor *c, int fd, const char *name, mkhct_tick tick,
			    void *tick_arg, struct hct_diag *diag)
{
	struct verify v = {.c = c, .name = name};
	struct hct_metrics unused = {0};
	hct_reader *reader = NULL;
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	hct_error err;

	if (copy < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be read back", name);
	err = hct_reader_open_fd(copy, name, &reader, diag);
	if (err)
		return err;
	v.reader = reader;
	err = hct_sync_out(fd, name, diag);
	if (!err)
		err = start(&v, diag);
	if (!err && tick)
		tick(tick_arg, name);
	if (!err)
		err = verify_chunks(&v, 0, hct_reader_chunk_count(reader), &unused, diag);
	end(&v);
	hct_reader_close(reader);
	return err;
}
