#include "survey.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "codec/dct.h"
#include "codec/hct.h"
#include "codec/plan.h"
#include "writer/interrupt.h"
#include "writer/names.h"
#include "writer/plan.h"
#include "writer/spectrum.h"

#define ZSTD_LEVEL 12 /* as in the appender */
#define IN_FLIGHT  64 /* jobs that are given to the pool at a time */

struct survey;

struct question {
	struct survey *survey;
	size_t tensor;
};

struct survey {
	struct mkhct_compressor *c;
	const struct mkhct_model *model;
	const struct hct_goal *goals;
	struct mkhct_forecast *out;
	uint8_t **params;                  /* the tables of each tensor, or NULL */
	struct mkhct_model_goals *spectra; /* or NULL: this is about forecasts */
	hct_dct *dct;
	pthread_mutex_t lock;
	hct_error error; /* the first, under the lock */
	struct hct_diag diag;
};

/* One question at work. */
struct work {
	const struct question *q;
	hct_encoder *encoder;
	hct_plan *plan; /* here, so that a fault of the map does not lose it */
	struct mkhct_spectrum *spectrum;
	struct hct_diag *diag;
};

static void add_chunk(struct mkhct_forecast *f, const struct hct_encoded *e)
{
	for (unsigned l = 0; l < e->layer_count; l++)
		f->extent_bytes += e->layers[l].length;
	f->extents += e->layer_count;
	f->result.energy += e->energy;
	f->result.decoded_energy += e->decoded_energy;
	f->result.error += e->error;
}

/* What zstd leaves of n bytes; n itself without memory. */
static size_t packed_length(const void *data, size_t n)
{
	size_t bound = ZSTD_compressBound(n), length = n;
	void *packed = n ? malloc(bound) : NULL;

	if (packed) {
		length = ZSTD_compress(packed, bound, data, n, ZSTD_LEVEL);
		if (ZSTD_isError(length) || length > n)
			length = n;
	}
	free(packed);
	return length;
}

/* Keeps the tables of a tensor, until those of all can be compressed together. */
static hct_error keep_tables(const struct work *w, struct mkhct_forecast *f)
{
	const hct_plan *p = w->plan;
	uint8_t *copy;

	f->record = (struct hct_tensor_record){.codec = p->params_length ? p->codec : 0,
					       .layers = (uint8_t)p->layers,
					       .chunk_bytes = p->chunk_bytes,
					       .chunk_count = p->chunk_count,
					       .params_length = p->params_length};
	if (!p->params_length)
		return HCT_OK;
	copy = w->q->survey->params[w->q->tensor] = malloc(p->params_length);
	if (!copy)
		return hct_fail(w->diag, HCT_ERR_NOMEM, "%s: out of memory", p->tensor->name);
	memcpy(copy, p->params, p->params_length);
	return HCT_OK;
}

/* Gives each tensor its share of what zstd leaves of all tables. */
static hct_error share_tables(const struct survey *s, struct hct_diag *diag)
{
	size_t count = s->model->st.count, length = 0, at = 0;
	uint8_t *all;
	double share;

	for (size_t i = 0; i < count; i++)
		length += s->params[i] ? s->out[i].record.params_length : 0;
	all = malloc(length + 1);
	if (!all)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", s->model->entry->path);
	for (size_t i = 0; i < count; i++) {
		if (!s->params[i])
			continue;
		memcpy(all + at, s->params[i], s->out[i].record.params_length);
		at += s->out[i].record.params_length;
	}
	share = length ? (double)packed_length(all, length) / (double)length : 0;
	free(all);
	for (size_t i = 0; i < count; i++)
		if (s->params[i])
			s->out[i].table_bytes = share * s->out[i].record.params_length;
	return HCT_OK;
}

/* Plans a tensor and codes chunks of it. */
static hct_error forecast(void *arg)
{
	struct work *w = arg;
	const struct survey *s = w->q->survey;
	const struct hct_tensor *t = &s->model->st.tensors[w->q->tensor];
	const uint8_t *data = mkhct_model_data(s->model, t);
	struct mkhct_forecast *f = &s->out[w->q->tensor];
	uint64_t chunks, taken, bytes = 0;
	struct hct_encoded encoded;
	double share;
	hct_error err;

	*f = (struct mkhct_forecast){.exact = 1};
	err = mkhct_plan_tensor(s->model, t, w->encoder, &s->goals[w->q->tensor], &w->plan,
				w->diag);
	if (err)
		return err;
	hct_plan_describe(w->plan, &f->result.plan);
	err = keep_tables(w, f);
	if (err)
		return err;
	chunks = hct_plan_chunk_count(w->plan);
	taken = chunks < MKHCT_SURVEY_CHUNKS ? chunks : MKHCT_SURVEY_CHUNKS;
	for (uint64_t i = 0; i < taken; i++) {
		/* From the first to the last, which may be shorter. */
		uint64_t n = chunks == taken ? i : i * (chunks - 1) / (taken - 1);

		err = hct_encode_chunk(w->encoder, w->plan, n,
				       data + n * hct_plan_chunk_bytes(w->plan), &encoded, w->diag);
		if (err)
			return err;
		add_chunk(f, &encoded);
		bytes += hct_plan_chunk_length(w->plan, n);
	}
	f->lossy = s->goals[w->q->tensor].relative_squared_error > 0 && f->result.plan.why == NULL;
	if (chunks == taken)
		return HCT_OK;
	share = (double)hct_tensor_bytes(t) / (double)bytes;
	f->exact = 0;
	f->extents = chunks * f->result.plan.layers;
	f->extent_bytes *= share;
	f->result.energy *= share;
	f->result.decoded_energy *= share;
	f->result.error *= share;
	return HCT_OK;
}

static hct_error measure_spectrum(void *arg)
{
	struct work *w = arg;
	const struct survey *s = w->q->survey;
	const struct hct_tensor *t = &s->model->st.tensors[w->q->tensor];

	if (mkhct_spectrum_measure(s->dct, t, mkhct_model_data(s->model, t), w->spectrum))
		return hct_fail(w->diag, HCT_ERR_NOMEM, "%s: out of memory", t->name);
	return HCT_OK;
}

static void take_spectrum(const struct work *w)
{
	struct mkhct_model_goals *g = w->q->survey->spectra;
	struct mkhct_decision *decision = &g->decisions[w->q->tensor];
	struct mkhct_target *target = &decision->target;
	double quality = target->quality;
	double retention = mkhct_spectrum_retention(w->spectrum, quality);

	/* Where every coefficient is needed, the rest of the energy is the error that is left. */
	*target = retention < 1 ? mkhct_spectrum_target(w->spectrum, quality)
				: mkhct_target_error(1 - quality);
	target->quality = quality;
	snprintf(decision->reason, sizeof(decision->reason), "adaptive: %.3g keeps %.6g of energy",
		 retention, quality);
	g->goals[w->q->tensor].relative_squared_error = target->error;
	g->goals[w->q->tensor].retention = target->retention;
}

static int has_failed(struct survey *s)
{
	int failed;

	pthread_mutex_lock(&s->lock);
	failed = s->error != HCT_OK;
	pthread_mutex_unlock(&s->lock);
	return failed;
}

static void job(void *arg, unsigned worker)
{
	const struct question *q = arg;
	struct survey *s = q->survey;
	const struct hct_tensor *t = &s->model->st.tensors[q->tensor];
	uint64_t begin = s->model->st.header_len;
	struct hct_diag diag = {""};
	struct work w = {.q = q, .encoder = mkhct_compressor_encoder(s->c, worker), .diag = &diag};
	hct_error err = HCT_OK;

	if (has_failed(s))
		return;
	if (s->spectra) {
		w.spectrum = calloc(1, sizeof(*w.spectrum));
		err = w.spectrum ? mkhct_model_guard(s->model, measure_spectrum, &w, &diag)
				 : hct_fail(&diag, HCT_ERR_NOMEM, "%s: out of memory", t->name);
		if (!err)
			take_spectrum(&w);
		free(w.spectrum);
	} else {
		err = mkhct_model_guard(s->model, forecast, &w, &diag);
		hct_plan_free(w.plan);
	}
	mkhct_model_let_go(s->model, begin + t->begin, begin + t->end);
	if (!err)
		return;
	pthread_mutex_lock(&s->lock);
	if (!s->error) {
		s->error = err;
		s->diag = diag;
	}
	pthread_mutex_unlock(&s->lock);
}

/* Asks about all tensors that `wanted` says, some at a time so that a signal is noticed. */
static hct_error ask(struct survey *s, const unsigned char *wanted, mkhct_tick tick, void *tick_arg,
		     struct hct_diag *diag)
{
	struct question questions[IN_FLIGHT];
	hct_pool *pool = mkhct_compressor_pool(s->c);
	unsigned batch = hct_pool_threads(pool) * 4;
	size_t count = s->model->st.count;
	hct_error err = HCT_OK;

	batch = batch < IN_FLIGHT ? batch : IN_FLIGHT;
	pthread_mutex_init(&s->lock, NULL);
	for (size_t i = 0; !err && i < count;) {
		unsigned n = 0;

		for (; i < count && n < batch; i++) {
			if (wanted && !wanted[i])
				continue;
			questions[n] = (struct question){s, i};
			hct_pool_submit(pool, job, &questions[n++]);
			if (tick)
				tick(tick_arg, s->model->st.tensors[i].name);
		}
		hct_pool_wait(pool);
		err = s->error ? s->error : mkhct_interrupt_check(diag);
		if (s->error && diag)
			*diag = s->diag;
	}
	pthread_mutex_destroy(&s->lock);
	return err ? err : mkhct_model_unchanged(s->model, diag);
}

hct_error mkhct_survey(struct mkhct_compressor *c, const struct mkhct_model *model,
		       const unsigned char *wanted, const struct hct_goal *goals,
		       struct mkhct_forecast *out, mkhct_tick tick, void *tick_arg,
		       struct hct_diag *diag)
{
	struct survey s = {.c = c, .model = model, .goals = goals, .out = out};
	hct_error err;

	s.params = calloc(model->st.count + 1, sizeof(*s.params));
	if (!s.params)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", model->entry->path);
	err = ask(&s, wanted, tick, tick_arg, diag);
	if (!err)
		err = share_tables(&s, diag);
	for (size_t i = 0; i < model->st.count; i++)
		free(s.params[i]);
	free(s.params);
	return err;
}

hct_error mkhct_survey_spectra(struct mkhct_compressor *c, const struct mkhct_model *model,
			       struct mkhct_model_goals *goals, mkhct_tick tick, void *tick_arg,
			       struct hct_diag *diag)
{
	struct survey s = {.c = c, .model = model, .spectra = goals};
	unsigned char *wanted = calloc(goals->count + 1, 1);
	hct_error err = HCT_ERR_NOMEM;

	for (size_t i = 0; wanted && i < goals->count; i++)
		wanted[i] = goals->decisions[i].target.kind == MKHCT_TARGET_ADAPTIVE;
	if (wanted)
		err = hct_dct_create(HCT_SIMD_AUTO, &s.dct);
	if (err)
		hct_fail(diag, err, "%s: the spectra of its tensors cannot be measured: %s",
			 model->entry->path, hct_error_string(err));
	else
		err = ask(&s, wanted, tick, tick_arg, diag);
	hct_dct_free(s.dct);
	free(wanted);
	return err;
}

/* What zstd leaves of the records of all tensors. */
static size_t records_length(const struct mkhct_model *model,
			     const struct mkhct_forecast *forecasts)
{
	size_t count = model->st.count, length = count * HCT_TENSOR_BYTES;
	uint8_t *raw = malloc(length + 1);
	uint64_t extents = 0, params = 0;

	if (!raw)
		return length;
	for (size_t i = 0; i < count; i++) {
		const struct mkhct_forecast *f = &forecasts[i];
		struct hct_tensor_record r = f->record;

		r.first_extent = extents;
		r.params_offset = params;
		r.relative_squared_error = mkhct_result_error(&f->result);
		hct_tensor_record_pack(&r, raw + i * HCT_TENSOR_BYTES);
		extents += f->extents;
		params += r.params_length;
	}
	length = packed_length(raw, length);
	free(raw);
	return length;
}

/* Of what mkhct_compress says of itself; escapes in names aside. */
static size_t provenance_length(const struct mkhct_model *model, const char *options)
{
	const char *name = mkhct_name_base(model->entry->name);
	size_t length = strlen(options) + strlen(name) + 60;
	char *text;
	int n = asprintf(&text,
			 "{\"tool\":\"mkhct\",\"version\":\"%s\",\"options\":%s,"
			 "\"source_name\":\"%s\"}",
			 HCT_VERSION, options, name);

	if (n < 0)
		return length;
	length = packed_length(text, (size_t)n);
	free(text);
	return length;
}

double mkhct_survey_file_bytes(const struct mkhct_model *model,
			       const struct mkhct_forecast *forecasts, const char *options)
{
	double bytes = HCT_SUPERBLOCK_BYTES + HCT_TRAILER_BYTES + HCT_INDEX_HEADER_BYTES +
		       (HCT_SECTION_COUNT - 1.) * HCT_SECTION_BYTES + HCT_SOURCE_BYTES;

	bytes += (double)packed_length(model->st.header, model->st.header_len);
	bytes += (double)records_length(model, forecasts);
	bytes += (double)provenance_length(model, options);
	for (size_t i = 0; i < model->st.count; i++)
		bytes += forecasts[i].extent_bytes +
			 (double)forecasts[i].extents * HCT_EXTENT_BYTES + forecasts[i].table_bytes;
	return bytes;
}
