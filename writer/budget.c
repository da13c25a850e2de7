#include "budget.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/format.h"
#include "codec/units.h"
#include "writer/model.h"
#include "writer/survey.h"
#include "writer/waterfill.h"
#include "writer/work.h"

#define PASSES  7
#define CLOSE   .003 /* of the budget: near enough to stop */
#define PROMISE .01
#define SPREAD  1.6 /* of the first two errors around the guess, for slopes */

/* One tensor in all passes. */
struct slot {
	size_t model, tensor;
	double before_error, before_bytes; /* an earlier measurement, or 0 */
	struct mkhct_forecast lossless;
};

struct meeting {
	const struct mkhct_budget *b;
	struct mkhct_compressor *c;
	struct mkhct_goals *goals;
	struct slot *slots; /* of tensors whose target is BUDGET */
	struct mkhct_fill *fills;
	double *best_errors;
	size_t count;
	double target;   /* bytes of all .hct files */
	double elements; /* of all models */
	double best;     /* bytes nearest to the target so far, and its */
	double total;    /* bytes of the last pass */
	unsigned passes; /* so far */
	struct hct_diag *diag;
};

/* Measuring ------------------------------------------------------------------------- */

static hct_error with_model(const struct mkhct_model_goals *m, struct mkhct_model *model,
			    struct hct_diag *diag)
{
	hct_error err = mkhct_model_open(m->entry, model, diag);

	if (err)
		return err;
	err = model->st.count == m->count ? mkhct_model_map(model, diag)
					  : hct_fail(diag, HCT_ERR_CHANGED,
						     "%s: changed while it was read; run again "
						     "when nothing writes to it",
						     m->entry->path);
	if (err)
		mkhct_model_close(model);
	return err;
}

/* only_budget: only a tensor whose target is BUDGET and whose error is not 0. */
static int is_wanted(const struct mkhct_model_goals *m, size_t i, int only_budget)
{
	return !only_budget || (m->decisions[i].target.kind == MKHCT_TARGET_BUDGET &&
				m->goals[i].relative_squared_error > 0);
}

static hct_error measure_model(const struct mkhct_budget *b, struct mkhct_compressor *c,
			       struct mkhct_model_goals *m, int only_budget, struct hct_diag *diag)
{
	unsigned char *wanted = calloc(m->count + 1, 1);
	struct mkhct_model model;
	hct_error err;

	if (!m->forecasts)
		m->forecasts = calloc(m->count + 1, sizeof(*m->forecasts));
	if (!wanted || !m->forecasts) {
		free(wanted);
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", m->entry->path);
	}
	for (size_t i = 0; i < m->count; i++)
		wanted[i] = (unsigned char)is_wanted(m, i, only_budget);
	err = with_model(m, &model, diag);
	if (!err) {
		err = mkhct_survey(c, &model, wanted, m->goals, m->forecasts, b->measured,
				   b->progress, diag);
		mkhct_model_close(&model);
	}
	free(wanted);
	return err;
}

/* Measures all tensors, or those of the budget.  pass: as for mkhct_progress_measure. */
static hct_error measure(const struct mkhct_budget *b, struct mkhct_compressor *c,
			 struct mkhct_goals *goals, unsigned pass, int only_budget,
			 struct hct_diag *diag)
{
	size_t tensors = 0;
	hct_error err = HCT_OK;

	for (size_t i = 0; i < goals->count; i++)
		for (size_t t = 0; t < goals->models[i].count; t++)
			tensors += is_wanted(&goals->models[i], t, only_budget);
	mkhct_progress_measure(b->progress, pass, tensors);
	if (pass == 0)
		err = mkhct_work_expect_measuring(&b->progress->meter, goals, diag);
	for (size_t i = 0; !err && i < goals->count; i++)
		err = measure_model(b, c, &goals->models[i], only_budget, diag);
	return err;
}

hct_error mkhct_budget_adapt(const struct mkhct_budget *b, struct mkhct_compressor *c,
			     struct mkhct_goals *goals, struct hct_diag *diag)
{
	hct_error err = HCT_OK;
	size_t tensors = 0;

	for (size_t i = 0; i < goals->count; i++)
		for (size_t t = 0; t < goals->models[i].count; t++)
			tensors +=
				goals->models[i].decisions[t].target.kind == MKHCT_TARGET_ADAPTIVE;
	mkhct_progress_measure(b->progress, 0, tensors);
	for (size_t i = 0; !err && i < goals->count; i++) {
		struct mkhct_model model;

		err = with_model(&goals->models[i], &model, diag);
		if (err)
			return err;
		err = mkhct_survey_spectra(c, &model, &goals->models[i], b->measured, b->progress,
					   diag);
		mkhct_model_close(&model);
	}
	return err;
}

hct_error mkhct_budget_forecast(const struct mkhct_budget *b, struct mkhct_compressor *c,
				struct mkhct_goals *goals, struct hct_diag *diag)
{
	return measure(b, c, goals, 0, 0, diag);
}

hct_error mkhct_budget_bytes(const struct mkhct_budget *b, const struct mkhct_goals *goals,
			     double *bytes, struct hct_diag *diag)
{
	*bytes = 0;
	for (size_t i = 0; i < goals->count; i++) {
		struct mkhct_model model;
		hct_error err = mkhct_model_open(goals->models[i].entry, &model, diag);

		if (err)
			return err;
		*bytes += mkhct_survey_file_bytes(&model, goals->models[i].forecasts, b->options);
		mkhct_model_close(&model);
	}
	return HCT_OK;
}

/* Passes ---------------------------------------------------------------------------- */

static double forecast_bytes(const struct mkhct_forecast *f)
{
	return f->extent_bytes + (double)f->extents * HCT_EXTENT_BYTES + f->table_bytes;
}

static struct hct_goal *goal_of(const struct meeting *m, size_t i)
{
	return &m->goals->models[m->slots[i].model].goals[m->slots[i].tensor];
}

static struct mkhct_forecast *forecast_of(const struct meeting *m, size_t i)
{
	return &m->goals->models[m->slots[i].model].forecasts[m->slots[i].tensor];
}

static hct_error collect(struct meeting *m)
{
	size_t tensors = 0;

	for (size_t i = 0; i < m->goals->count; i++) {
		tensors += m->goals->models[i].count;
		m->elements += (double)m->goals->models[i].elements;
	}
	m->slots = calloc(tensors + 1, sizeof(*m->slots));
	m->fills = calloc(tensors + 1, sizeof(*m->fills));
	m->best_errors = calloc(tensors + 1, sizeof(*m->best_errors));
	if (!m->slots || !m->fills || !m->best_errors)
		return hct_fail(m->diag, HCT_ERR_NOMEM, "out of memory for the budget");
	for (size_t i = 0; i < m->goals->count; i++)
		for (size_t t = 0; t < m->goals->models[i].count; t++)
			if (m->goals->models[i].decisions[t].target.kind == MKHCT_TARGET_BUDGET)
				m->slots[m->count++] = (struct slot){.model = i, .tensor = t};
	return HCT_OK;
}

/* After everything was measured without loss. */
static hct_error begin(struct meeting *m)
{
	for (size_t i = 0; i < m->count; i++) {
		const struct mkhct_forecast *f = forecast_of(m, i);

		m->slots[i].lossless = *f;
		m->fills[i] = (struct mkhct_fill){.lossless = forecast_bytes(f),
						  .slope = MKHCT_FILL_SLOPE};
	}
	for (size_t i = 0, k = 0; i < m->goals->count; i++) {
		struct mkhct_model model;
		hct_error err = mkhct_model_open(m->goals->models[i].entry, &model, m->diag);

		if (err)
			return err;
		for (; k < m->count && m->slots[k].model == i; k++)
			m->fills[k].weights = (double)model.st.tensors[m->slots[k].tensor].elements;
		mkhct_model_close(&model);
	}
	return HCT_OK;
}

/* What a new measurement says about a tensor. */
static void learn(struct meeting *m, size_t i)
{
	const struct mkhct_forecast *f = forecast_of(m, i);
	double error = goal_of(m, i)->relative_squared_error;
	struct mkhct_fill *fill = &m->fills[i];
	struct slot *s = &m->slots[i];

	if (error <= 0)
		return;
	if (!f->lossy) {
		fill->refused = fmax(fill->refused, error);
		return;
	}
	if (fill->measured_error > 0 && fabs(log(fill->measured_error / error)) > .2) {
		s->before_error = fill->measured_error;
		s->before_bytes = fill->measured_bytes;
	}
	fill->measured_error = error;
	fill->measured_bytes = forecast_bytes(f);
	if (s->before_error > 0 && fabs(log(s->before_error / error)) > .2) {
		double bits = 8 * (fill->measured_bytes - s->before_bytes) / fill->weights;

		fill->slope = fmin(fmax(bits / log(s->before_error / error), .1), 4);
	}
}

/* Measures with the errors of the fills, takes the result in, and keeps the best. */
static hct_error pass(struct meeting *m)
{
	hct_error err;

	for (size_t i = 0; i < m->count; i++)
		goal_of(m, i)->relative_squared_error = m->fills[i].error;
	err = measure(m->b, m->c, m->goals, ++m->passes, 1, m->diag);
	/* What is lossless now was not measured again. */
	for (size_t i = 0; !err && i < m->count; i++) {
		struct mkhct_forecast *f = forecast_of(m, i);

		learn(m, i);
		if (m->fills[i].error <= 0 && f->lossy)
			*f = m->slots[i].lossless;
	}
	if (!err)
		err = mkhct_budget_bytes(m->b, m->goals, &m->total, m->diag);
	if (!err && fabs(m->total - m->target) < fabs(m->best - m->target)) {
		m->best = m->total;
		for (size_t i = 0; i < m->count; i++)
			m->best_errors[i] = m->fills[i].error;
	}
	return err;
}

static void set_all(struct meeting *m, double error)
{
	error = fmin(fmax(error, MKHCT_FILL_LEAST), MKHCT_FILL_MOST);
	for (size_t i = 0; i < m->count; i++)
		m->fills[i].error = error <= m->fills[i].refused ? 0 : error;
}

/* Two passes around the error that a budget for all these weights would give by theory. */
static hct_error explore(struct meeting *m, double lossless)
{
	double weights = 0, bytes = 0, error;
	hct_error err;

	for (size_t i = 0; i < m->count; i++) {
		weights += m->fills[i].weights;
		bytes += m->fills[i].lossless;
	}
	bytes = m->target - (lossless - bytes); /* what there is for these tensors */
	error = exp2(-2 * (8 * fmax(bytes, 0) / fmax(weights, 1) - .1));
	error = fmin(error, MKHCT_FILL_MOST / SPREAD);
	set_all(m, error * SPREAD);
	err = pass(m);
	if (err)
		return err;
	set_all(m, error / SPREAD);
	return pass(m);
}

static hct_error improve(struct meeting *m)
{
	hct_error err = HCT_OK;

	for (int i = 0; !err && i < PASSES && fabs(m->best / m->target - 1) > CLOSE; i++) {
		double others = m->total;

		for (size_t k = 0; k < m->count; k++)
			others -= forecast_bytes(forecast_of(m, k));
		(void)mkhct_waterfill(m->fills, m->count, m->target - others);
		err = pass(m);
	}
	return err;
}

/* Results --------------------------------------------------------------------------- */

static hct_error cannot(struct meeting *m, double least, double lossless)
{
	const struct mkhct_wish *w = m->b->wish;
	char a[HCT_UNITS_MAX], b[HCT_UNITS_MAX], c[HCT_UNITS_MAX];

	if (w->kind == MKHCT_WISH_BPW)
		return hct_fail(
			m->diag, HCT_ERR_ARGUMENT,
			"--bpw %.6g: cannot be met: this model takes %.3f (at a relative error "
			"of %g in every matrix) to %.3f (lossless) bits a weight",
			w->value, 8 * least / m->elements, MKHCT_FILL_MOST,
			8 * lossless / m->elements);
	return hct_fail(
		m->diag, HCT_ERR_ARGUMENT,
		"--size %s: cannot be met: the bundle takes %s (at a relative error of %g in "
		"every matrix) to %s (lossless)",
		hct_units_size(w->bytes, a), hct_units_size((uint64_t)(least + m->b->rest), b),
		MKHCT_FILL_MOST, hct_units_size((uint64_t)(lossless + m->b->rest), c));
}

static void all_lossless(struct meeting *m, double lossless, struct hct_diag *note)
{
	char size[HCT_UNITS_MAX];

	for (size_t i = 0; i < m->count; i++) {
		struct mkhct_decision *d =
			&m->goals->models[m->slots[i].model].decisions[m->slots[i].tensor];

		goal_of(m, i)->relative_squared_error = 0;
		d->target = mkhct_target_lossless();
		strcpy(d->reason, "fits without loss");
	}
	if (m->b->wish->kind == MKHCT_WISH_BPW)
		hct_fail(note, HCT_OK,
			 "--bpw %.6g: lossless takes %.3f bits a weight, so everything is lossless",
			 m->b->wish->value, 8 * lossless / m->elements);
	else
		hct_fail(note, HCT_OK, "--size: lossless takes %s, so everything is lossless",
			 hct_units_size((uint64_t)(lossless + m->b->rest), size));
}

/* Takes the best errors as the goals, and says when they miss the budget. */
static hct_error settle(struct meeting *m, struct hct_diag *note)
{
	hct_error err = HCT_OK;

	if (m->total != m->best) {
		for (size_t i = 0; i < m->count; i++)
			m->fills[i].error = m->best_errors[i];
		err = pass(m);
	}
	for (size_t i = 0; i < m->count; i++) {
		struct mkhct_decision *d =
			&m->goals->models[m->slots[i].model].decisions[m->slots[i].tensor];
		double error = goal_of(m, i)->relative_squared_error;

		d->target = error > 0 ? mkhct_target_error(error) : mkhct_target_lossless();
		strcpy(d->reason, "budget");
	}
	if (!err && fabs(m->best / m->target - 1) > PROMISE)
		hct_fail(note, HCT_OK,
			 "--%s: what comes nearest takes %.4g bits a weight in place of %.4g",
			 mkhct_wish_name(m->b->wish->kind), 8 * m->best / m->elements,
			 8 * m->target / m->elements);
	return err;
}

static hct_error meet(struct meeting *m, struct hct_diag *note)
{
	double lossless, least;
	hct_error err = measure(m->b, m->c, m->goals, ++m->passes, 0, m->diag);

	if (!err)
		err = begin(m);
	if (!err)
		err = mkhct_budget_bytes(m->b, m->goals, &lossless, m->diag);
	if (err)
		return err;
	m->target = m->b->wish->kind == MKHCT_WISH_BPW ? m->b->wish->value * m->elements / 8
						       : m->b->wish->value - m->b->rest;
	if (m->target >= lossless) {
		all_lossless(m, lossless, note);
		return HCT_OK;
	}
	m->best = INFINITY;
	if (m->target > 0)
		err = explore(m, lossless);
	if (!err && m->target > 0)
		err = improve(m);
	if (err || (m->target > 0 && m->best < m->target * (1 + PROMISE)))
		return err ? err : settle(m, note);
	/* The least that there is decides, and the message names it. */
	set_all(m, MKHCT_FILL_MOST);
	err = pass(m);
	least = m->total;
	if (err)
		return err;
	return m->target > 0 && m->best < m->target * (1 + PROMISE) ? settle(m, note)
								    : cannot(m, least, lossless);
}

hct_error mkhct_budget_meet(const struct mkhct_budget *b, struct mkhct_compressor *c,
			    struct mkhct_goals *goals, struct hct_diag *note, struct hct_diag *diag)
{
	struct meeting m = {.b = b, .c = c, .goals = goals, .diag = diag};
	hct_error err = collect(&m);

	*note->text = '\0';
	if (!err)
		err = meet(&m, note);
	free(m.slots);
	free(m.fills);
	free(m.best_errors);
	return err;
}
