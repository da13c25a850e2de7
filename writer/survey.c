#include "survey.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <zstd.h>

#include "codec/dct.h"
#include "codec/hct.h"
#include "codec/plan.h"
#include "writer/interrupt.h"
#include "writer/measured.h"
#include "writer/names.h"
#include "writer/plan.h"
#include "writer/spectrum.h"
#include "writer/work.h"

#define ZSTD_LEVEL 12        /* as in the appender */
#define IN_FLIGHT  64        /* jobs that are given to the pool at a time, at most */
#define REDRAW     200000000 /* ns */

struct survey;

struct question {
	struct survey *survey;
	size_t tensor;
	double retention; /* of the spectrum, once it is answered */
	int asked;        /* under the lock: until it is answered */
	int answered;     /* under the lock: there is an answer that was not taken in */
};

struct survey {
	struct mkhct_compressor *c;
	const struct mkhct_model *model;
	const struct hct_goal *goals;
	struct mkhct_forecast *out;
	uint8_t **params;                  /* the tables of each tensor, or NULL */
	struct mkhct_model_goals *spectra; /* or NULL: this is about forecasts */
	hct_dct *dct;
	struct mkhct_measured *measured; /* or NULL */
	struct mkhct_progress *progress;
	pthread_mutex_t lock;
	pthread_cond_t answered;
	hct_error error; /* the first, under the lock */
	int stopped;     /* under the lock: what was not begun is not to be */
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

/* Turns the target of a tensor into an error, by the retention of its spectrum. */
static void take_retention(struct survey *s, size_t tensor, double retention)
{
	struct mkhct_model_goals *g = s->spectra;
	struct mkhct_decision *decision = &g->decisions[tensor];
	struct mkhct_target *target = &decision->target;
	double quality = target->quality;

	/* Where every coefficient is needed, the rest of the energy is the error that is left. */
	*target = retention < 1 ? mkhct_spectrum_target_of(retention, quality)
				: mkhct_target_error(1 - quality);
	target->quality = quality;
	snprintf(decision->reason, sizeof(decision->reason), "adaptive: %.3g keeps %.6g of energy",
		 retention, quality);
	g->goals[tensor].relative_squared_error = target->error;
	g->goals[tensor].retention = target->retention;
}

/* What an earlier run has measured; 1 when it is there. */
static int recall(struct survey *s, size_t tensor)
{
	const char *model = s->model->entry->name;
	double retention;

	if (!s->spectra)
		return mkhct_measured_forecast(s->measured, model, tensor,
					       &s->model->st.tensors[tensor], &s->goals[tensor],
					       &s->out[tensor], &s->params[tensor]);
	retention = mkhct_measured_retention(s->measured, model, tensor,
					     s->spectra->decisions[tensor].target.quality);
	if (retention > 0)
		take_retention(s, tensor, retention);
	return retention > 0;
}

/* Takes one answer in, and notes it for a later run. */
static hct_error take_answer(struct survey *s, size_t tensor, double retention,
			     struct hct_diag *diag)
{
	const char *model = s->model->entry->name;
	double quality;

	if (!s->spectra)
		return mkhct_measured_add_forecast(s->measured, model, tensor, &s->goals[tensor],
						   &s->out[tensor], s->params[tensor], diag);
	quality = s->spectra->decisions[tensor].target.quality;
	take_retention(s, tensor, retention);
	return mkhct_measured_add_retention(s->measured, model, tensor, quality, retention, diag);
}

static int has_failed(struct survey *s)
{
	int failed;

	pthread_mutex_lock(&s->lock);
	failed = s->stopped || s->error != HCT_OK;
	pthread_mutex_unlock(&s->lock);
	return failed;
}

static hct_error answer(struct question *q, unsigned worker, struct hct_diag *diag)
{
	struct survey *s = q->survey;
	const struct hct_tensor *t = &s->model->st.tensors[q->tensor];
	uint64_t begin = s->model->st.header_len;
	struct work w = {.q = q, .encoder = mkhct_compressor_encoder(s->c, worker), .diag = diag};
	double start = hct_meter_now();
	hct_error err;

	if (s->spectra) {
		w.spectrum = calloc(1, sizeof(*w.spectrum));
		err = w.spectrum ? mkhct_model_guard(s->model, measure_spectrum, &w, diag)
				 : hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", t->name);
		if (!err)
			q->retention = mkhct_spectrum_retention(
				w.spectrum, s->spectra->decisions[q->tensor].target.quality);
		free(w.spectrum);
	} else {
		err = mkhct_model_guard(s->model, forecast, &w, diag);
		hct_plan_free(w.plan);
	}
	mkhct_model_let_go(s->model, begin + t->begin, begin + t->end);
	if (s->progress && !s->spectra)
		mkhct_work_measured(&s->progress->meter, t, &s->goals[q->tensor],
				    hct_meter_now() - start);
	return err;
}

static void job(void *arg, unsigned worker)
{
	struct question *q = arg;
	struct survey *s = q->survey;
	struct hct_diag diag = {""};
	int skipped = has_failed(s);
	hct_error err = skipped ? HCT_OK : answer(q, worker, &diag);

	if (s->progress)
		hct_meter_add(&s->progress->meter, 1);
	pthread_mutex_lock(&s->lock);
	if (err && !s->error) {
		s->error = err;
		s->diag = diag;
	}
	q->asked = 0;
	q->answered = !skipped && !err;
	pthread_cond_signal(&s->answered);
	pthread_mutex_unlock(&s->lock);
}

/* Waits until one of n questions can be asked, or, when all is set, all of them; NULL when that is
 * not for a while, in which what is shown grows old. */
static struct question *wait_for(struct survey *s, struct question *questions, unsigned n, int all)
{
	struct question *found = NULL;
	struct timespec until;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += REDRAW;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&s->lock);
	while (!found && rc == 0) {
		unsigned idle = 0;

		for (unsigned i = 0; i < n; i++) {
			idle += !questions[i].asked;
			if (!found && !questions[i].asked)
				found = &questions[i];
		}
		if (all && idle < n)
			found = NULL;
		if (!found)
			rc = pthread_cond_timedwait(&s->answered, &s->lock, &until);
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

/* Takes all answers in that there are. */
static hct_error take_answers(struct survey *s, struct question *questions, unsigned n,
			      struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	for (unsigned i = 0; !err && i < n; i++) {
		struct question *q = &questions[i];
		int answered;

		pthread_mutex_lock(&s->lock);
		answered = q->answered;
		q->answered = 0;
		pthread_mutex_unlock(&s->lock);
		if (answered)
			err = take_answer(s, q->tensor, q->retention, diag);
	}
	return err ? err : mkhct_measured_tick(s->measured, diag);
}

static void submit(struct survey *s, struct question *q, size_t tensor)
{
	q->survey = s;
	q->tensor = tensor;
	pthread_mutex_lock(&s->lock);
	q->asked = 1;
	pthread_mutex_unlock(&s->lock);
	hct_pool_submit(mkhct_compressor_pool(s->c), job, q);
}

/* The next tensor from i on that is wanted and was not measured by an earlier run; the number of
 * tensors when there is none. */
static size_t next_tensor(struct survey *s, const unsigned char *wanted, size_t i)
{
	for (; i < s->model->st.count; i++) {
		if (wanted && !wanted[i])
			continue;
		if (!recall(s, i))
			break;
		if (s->progress)
			hct_meter_skip(&s->progress->meter, 1);
	}
	return i;
}

/* Asks about all tensors that `wanted` says, some at a time so that a signal is noticed, and waits
 * for the answers. */
static hct_error ask_all(struct survey *s, const unsigned char *wanted, struct question *questions,
			 unsigned n, struct hct_diag *diag)
{
	size_t count = s->model->st.count, i = next_tensor(s, wanted, 0);
	const char *name = "";
	hct_error err = HCT_OK;
	int done = 0;

	while (!err && !done) {
		int all = i == count; /* were asked */
		struct question *q = wait_for(s, questions, n, all);

		err = take_answers(s, questions, n, diag);
		if (!err && q && !all) {
			name = s->model->st.tensors[i].name;
			submit(s, q, i);
			i = next_tensor(s, wanted, i + 1);
		}
		done = q && all;
		if (s->progress)
			mkhct_progress_tick(s->progress, name);
		if (!err)
			err = has_failed(s) ? HCT_ERR_IO : mkhct_interrupt_check(diag);
	}
	return err;
}

static hct_error ask(struct survey *s, const unsigned char *wanted, struct hct_diag *diag)
{
	struct question questions[IN_FLIGHT] = {{.asked = 0}};
	unsigned most = hct_pool_threads(mkhct_compressor_pool(s->c)) * 4;
	hct_error err;

	most = most < IN_FLIGHT ? most : IN_FLIGHT;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->answered, NULL);
	err = ask_all(s, wanted, questions, most, diag);
	pthread_mutex_lock(&s->lock);
	s->stopped = 1;
	pthread_mutex_unlock(&s->lock);
	hct_pool_wait(mkhct_compressor_pool(s->c));
	if (err) /* what was answered meanwhile is not lost */
		(void)take_answers(s, questions, most, NULL);
	if (s->error) {
		err = s->error;
		if (diag)
			*diag = s->diag;
	}
	pthread_cond_destroy(&s->answered);
	pthread_mutex_destroy(&s->lock);
	return err ? err : mkhct_model_unchanged(s->model, diag);
}

hct_error mkhct_survey(struct mkhct_compressor *c, const struct mkhct_model *model,
		       const unsigned char *wanted, const struct hct_goal *goals,
		       struct mkhct_forecast *out, struct mkhct_measured *measured,
		       struct mkhct_progress *progress, struct hct_diag *diag)
{
	struct survey s = {.c = c,
			   .model = model,
			   .goals = goals,
			   .out = out,
			   .measured = measured,
			   .progress = progress};
	hct_error err;

	s.params = calloc(model->st.count + 1, sizeof(*s.params));
	if (!s.params)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", model->entry->path);
	err = ask(&s, wanted, diag);
	if (!err)
		err = share_tables(&s, diag);
	for (size_t i = 0; i < model->st.count; i++)
		free(s.params[i]);
	free(s.params);
	return err;
}

hct_error mkhct_survey_spectra(struct mkhct_compressor *c, const struct mkhct_model *model,
			       struct mkhct_model_goals *goals, struct mkhct_measured *measured,
			       struct mkhct_progress *progress, struct hct_diag *diag)
{
	struct survey s = {.c = c,
			   .model = model,
			   .spectra = goals,
			   .measured = measured,
			   .progress = progress};
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
		err = ask(&s, wanted, diag);
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
