#include "work.h"

#include <math.h>

#include "writer/model.h"
#include "writer/survey.h"

#define SMALL          (256u << 10) /* bytes */
#define CHUNK_ELEMENTS (1u << 17)   /* of a chunk, about */

/* The kind whose guess is as wrong. */
static const enum mkhct_work likes[] = {
	[MKHCT_WORK_CARRY] = MKHCT_WORK_CARRY,      [MKHCT_WORK_SMALL_EXACT] = MKHCT_WORK_EXACT,
	[MKHCT_WORK_SMALL_LOSSY] = MKHCT_WORK_PLAN, [MKHCT_WORK_EXACT] = MKHCT_WORK_SMALL_EXACT,
	[MKHCT_WORK_PLAN] = MKHCT_WORK_SMALL_LOSSY, [MKHCT_WORK_LOSSY] = MKHCT_WORK_SMALL_LOSSY,
	[MKHCT_WORK_VERIFY] = MKHCT_WORK_VERIFY,    [MKHCT_WORK_REPORT] = MKHCT_WORK_SMALL_EXACT,
};

/* Guesses ------------------------------------------------------------------------------- */

/* Nanoseconds of one core, hashing and writing included; fitted to runs at the default effort.  A
 * plan looks at a sample, which grows with the tensor more and more slowly. */

static double plan_cost(const struct hct_tensor *t, int lossy)
{
	double n = (double)t->elements, fixed = 110e3;

	return lossy ? fixed + fmin(115 * n, 18e3 * sqrt(n))
		     : fixed + fmin(35 * n, 4.4e3 * sqrt(fmin(n, 1 << 18)));
}

static double coding_cost(const struct hct_tensor *t, int lossy)
{
	double bytes = (double)hct_tensor_bytes(t), n = (double)t->elements;
	int f16 = t->dtype == HCT_DTYPE_F16;

	if (lossy)
		return .8 * bytes + (f16 ? 18 : 6) * n;
	return bytes * (f16                          ? 4.2
			: t->dtype == HCT_DTYPE_BF16 ? 2.95
			: t->dtype == HCT_DTYPE_F32  ? 3.2
						     : 2.8);
}

#define CARRY_COST  .7   /* of a byte */
#define VERIFY_COST 1.5  /* of a byte */
#define REPORT_COST 25e3 /* of a tensor */

static void expect(struct hct_meter *m, enum mkhct_work kind, double amount)
{
	hct_meter_expect(m, kind, amount, 1e-9,
			 kind == MKHCT_WORK_CARRY || kind == MKHCT_WORK_VERIFY ||
				 kind == MKHCT_WORK_REPORT);
	if (likes[kind] != kind)
		hct_meter_liken(m, kind, likes[kind]);
}

static int is_lossy(const struct hct_goal *goal)
{
	return goal && goal->relative_squared_error > 0;
}

/* What coding a tensor is. */
static enum mkhct_work kind_of(const struct hct_tensor *t, int lossy)
{
	if (hct_tensor_bytes(t) < SMALL)
		return lossy ? MKHCT_WORK_SMALL_LOSSY : MKHCT_WORK_SMALL_EXACT;
	return lossy ? MKHCT_WORK_LOSSY : MKHCT_WORK_EXACT;
}

/* And planning it. */
static enum mkhct_work plan_kind_of(const struct hct_tensor *t, int lossy)
{
	enum mkhct_work kind = kind_of(t, lossy);

	return kind == MKHCT_WORK_LOSSY ? MKHCT_WORK_PLAN : kind;
}

static void expect_tensor(struct hct_meter *m, const struct hct_tensor *t,
			  const struct hct_goal *goal)
{
	int lossy = is_lossy(goal);

	expect(m, plan_kind_of(t, lossy), plan_cost(t, lossy));
	expect(m, kind_of(t, lossy), coding_cost(t, lossy));
}

static hct_error changed(const struct mkhct_entry *entry, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_CHANGED,
			"%s: changed while it was read; run again when nothing writes to it",
			entry->path);
}

/* Without the first `done` tensors. */
static hct_error expect_model(struct hct_meter *m, const struct mkhct_entry *entry, size_t done,
			      const struct mkhct_goals *goals, double sample, struct hct_diag *diag)
{
	const struct mkhct_model_goals *g = NULL;
	struct mkhct_model model;
	hct_error err = mkhct_model_open(entry, &model, diag);

	if (err)
		return err;
	for (size_t i = 0; goals && i < goals->count; i++)
		if (goals->models[i].entry == entry)
			g = &goals->models[i];
	if (goals && (!g || g->count != model.st.count))
		err = changed(entry, diag);
	for (size_t i = done; !err && i < model.st.count; i++)
		expect_tensor(m, &model.st.tensors[i], g ? &g->goals[i] : NULL);
	expect(m, MKHCT_WORK_REPORT, REPORT_COST * (double)model.st.count);
	if (!err && sample > 0)
		expect(m, MKHCT_WORK_VERIFY, VERIFY_COST * (double)entry->size * sample);
	mkhct_model_close(&model);
	return err;
}

hct_error mkhct_work_expect(struct hct_meter *m, const struct mkhct_source *source,
			    const struct mkhct_checkpoint *checkpoint,
			    const struct mkhct_goals *goals, double sample, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	for (size_t i = 0; !err && i < source->count; i++) {
		const struct mkhct_entry *entry = &source->entries[i];
		struct mkhct_state state;

		mkhct_checkpoint_state(checkpoint, i, &state);
		if (state.status != MKHCT_PENDING && state.status != MKHCT_IN_PROGRESS)
			continue;
		if (entry->kind == MKHCT_MODEL)
			err = expect_model(m, entry, state.tensors, goals, sample, diag);
		else
			expect(m, MKHCT_WORK_CARRY, CARRY_COST * (double)entry->size);
	}
	return err;
}

/* Planning, and coding of some chunks. */
static double measuring_cost(const struct hct_tensor *t, int lossy)
{
	double coded = MKHCT_SURVEY_CHUNKS * CHUNK_ELEMENTS;

	return plan_cost(t, lossy) +
	       coding_cost(t, lossy) * fmin(1, coded / fmax((double)t->elements, 1));
}

hct_error mkhct_work_expect_measuring(struct hct_meter *m, const struct mkhct_goals *goals,
				      struct hct_diag *diag)
{
	for (size_t i = 0; i < goals->count; i++) {
		const struct mkhct_model_goals *g = &goals->models[i];
		struct mkhct_model model;
		hct_error err = mkhct_model_open(g->entry, &model, diag);

		if (!err && model.st.count != g->count)
			err = changed(g->entry, diag);
		for (size_t t = 0; !err && t < g->count; t++) {
			int lossy = is_lossy(&g->goals[t]);

			expect(m, kind_of(&model.st.tensors[t], lossy),
			       measuring_cost(&model.st.tensors[t], lossy));
		}
		mkhct_model_close(&model);
		if (err)
			return err;
	}
	return HCT_OK;
}

void mkhct_work_measured(struct hct_meter *m, const struct hct_tensor *t,
			 const struct hct_goal *goal, double seconds)
{
	int lossy = is_lossy(goal);

	hct_meter_work(m, kind_of(t, lossy), (uint64_t)measuring_cost(t, lossy), seconds);
}

void mkhct_work_planned(struct hct_meter *m, const struct hct_tensor *t,
			const struct hct_goal *goal, double seconds)
{
	int lossy = is_lossy(goal);

	hct_meter_work(m, plan_kind_of(t, lossy), (uint64_t)plan_cost(t, lossy), seconds);
}

void mkhct_work_coded(struct hct_meter *m, const struct hct_tensor *t, const struct hct_goal *goal,
		      uint64_t bytes, double seconds)
{
	int lossy = is_lossy(goal);
	double share = (double)bytes / (double)hct_tensor_bytes(t);

	hct_meter_work(m, kind_of(t, lossy), (uint64_t)(share * coding_cost(t, lossy)), seconds);
}

void mkhct_work_checked(struct hct_meter *m, const struct hct_tensor *t,
			const struct hct_goal *goal, double seconds)
{
	hct_meter_work(m, kind_of(t, is_lossy(goal)), 0, seconds);
}

void mkhct_work_verified(struct hct_meter *m, uint64_t bytes, double seconds)
{
	hct_meter_work(m, MKHCT_WORK_VERIFY, (uint64_t)(VERIFY_COST * (double)bytes), seconds);
}

void mkhct_work_carried(struct hct_meter *m, uint64_t bytes, double seconds)
{
	hct_meter_work(m, MKHCT_WORK_CARRY, (uint64_t)(CARRY_COST * (double)bytes), seconds);
}
