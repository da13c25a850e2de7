#include "work.h"

#include "writer/model.h"

#define SMALL (256u << 10) /* bytes */

/* Seconds of one core for one, about, for as long as nothing was measured. */
static const double costs[] = {
	[MKHCT_WORK_CARRY] = 7e-10, [MKHCT_WORK_SMALL] = 1e-4, [MKHCT_WORK_EXACT] = 2.5e-9,
	[MKHCT_WORK_PLAN] = 2e-8,   [MKHCT_WORK_LOSSY] = 1e-8, [MKHCT_WORK_VERIFY] = 1.5e-9,
};

static void expect(struct hct_meter *m, enum mkhct_work kind, double amount)
{
	hct_meter_expect(m, kind, amount, costs[kind],
			 kind == MKHCT_WORK_CARRY || kind == MKHCT_WORK_VERIFY);
}

static int is_lossy(const struct hct_goal *goal)
{
	return goal && goal->relative_squared_error > 0;
}

/* What coding a tensor is. */
static enum mkhct_work kind_of(const struct hct_tensor *t, const struct hct_goal *goal)
{
	if (hct_tensor_bytes(t) < SMALL)
		return MKHCT_WORK_SMALL;
	return is_lossy(goal) ? MKHCT_WORK_LOSSY : MKHCT_WORK_EXACT;
}

static void expect_tensor(struct hct_meter *m, const struct hct_tensor *t,
			  const struct hct_goal *goal)
{
	enum mkhct_work kind = kind_of(t, goal);
	double elements = (double)t->elements;

	if (kind == MKHCT_WORK_LOSSY)
		expect(m, MKHCT_WORK_PLAN, elements);
	expect(m, kind,
	       kind == MKHCT_WORK_SMALL   ? 1
	       : kind == MKHCT_WORK_LOSSY ? elements
					  : (double)hct_tensor_bytes(t));
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
		err = hct_fail(diag, HCT_ERR_CHANGED,
			       "%s: changed while it was read; run again when nothing writes to it",
			       entry->path);
	for (size_t i = done; !err && i < model.st.count; i++)
		expect_tensor(m, &model.st.tensors[i], g ? &g->goals[i] : NULL);
	if (!err && sample > 0)
		expect(m, MKHCT_WORK_VERIFY, (double)entry->size * sample);
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
			expect(m, MKHCT_WORK_CARRY, (double)entry->size);
	}
	return err;
}

void mkhct_work_planned(struct hct_meter *m, const struct hct_tensor *t,
			const struct hct_goal *goal, double seconds)
{
	enum mkhct_work kind = kind_of(t, goal);

	if (kind == MKHCT_WORK_LOSSY)
		hct_meter_work(m, MKHCT_WORK_PLAN, t->elements, seconds);
	else
		hct_meter_work(m, kind, kind == MKHCT_WORK_SMALL, seconds);
}

void mkhct_work_coded(struct hct_meter *m, const struct hct_tensor *t, const struct hct_goal *goal,
		      uint64_t bytes, double seconds)
{
	uint64_t all = hct_tensor_bytes(t), amount = bytes;
	enum mkhct_work kind = kind_of(t, goal);

	if (kind == MKHCT_WORK_SMALL) /* counted when it was planned: it may have several chunks */
		amount = 0;
	else if (kind == MKHCT_WORK_LOSSY)
		amount = (uint64_t)((double)bytes / (double)all * (double)t->elements);
	hct_meter_work(m, kind, amount, seconds);
}

void mkhct_work_checked(struct hct_meter *m, const struct hct_tensor *t,
			const struct hct_goal *goal, double seconds)
{
	hct_meter_work(m, kind_of(t, goal), 0, seconds);
}

void mkhct_work_verified(struct hct_meter *m, uint64_t bytes, double seconds)
{
	hct_meter_work(m, MKHCT_WORK_VERIFY, bytes, seconds);
}

void mkhct_work_carried(struct hct_meter *m, uint64_t bytes, double seconds)
{
	hct_meter_work(m, MKHCT_WORK_CARRY, bytes, seconds);
}
