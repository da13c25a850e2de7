#include "tally.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "writer/names.h"

void mkhct_tally_begin(struct mkhct_tally *t)
{
	*t = (struct mkhct_tally){.worst_error = -1, .worst = 1};
}

static uint64_t bf16_bytes(const struct hct_tensor *t)
{
	uint64_t bytes = hct_tensor_bytes(t);

	if (t->dtype == HCT_DTYPE_F32)
		return bytes / 2;
	return t->dtype == HCT_DTYPE_F64 ? bytes / 4 : bytes;
}

void mkhct_tally_add(struct mkhct_tally *sum, const struct hct_tensor *t, uint64_t stored_bytes,
		     const struct mkhct_result *r)
{
	double cosine = mkhct_result_cosine(r), error = mkhct_result_error(r);

	sum->tensors++;
	sum->weights += t->elements;
	sum->source_bytes += hct_tensor_bytes(t);
	sum->stored_bytes += stored_bytes;
	sum->bf16_bytes += bf16_bytes(t);
	sum->verified += r->verified != 0;
	sum->errors += error * (double)t->elements;
	sum->cosines += cosine * (double)t->elements;
	if (error > sum->worst_error) {
		sum->worst_error = error;
		sum->worst = cosine;
		mkhct_name_printable(t->name, sum->worst_name, sizeof(sum->worst_name));
	}
}

double mkhct_tally_bits(const struct mkhct_tally *t)
{
	return t->weights ? 8 * (double)t->stored_bytes / (double)t->weights : 0;
}

double mkhct_tally_error(const struct mkhct_tally *t)
{
	return t->weights ? t->errors / (double)t->weights : 0;
}

double mkhct_tally_cosine(const struct mkhct_tally *t)
{
	return t->weights ? t->cosines / (double)t->weights : 1;
}

void mkhct_excuses_add(struct mkhct_excuses *e, const char *name, const struct mkhct_result *r)
{
	struct mkhct_excuse *x = e->list;

	if (!r->plan.why || r->error > 0)
		return;
	while (x < e->list + e->count && strcmp(x->why, r->plan.why) != 0)
		x++;
	if (x == e->list + MKHCT_EXCUSES)
		return;
	if (x == e->list + e->count)
		e->list[e->count++].why = r->plan.why;
	if (x->tensors < MKHCT_EXCUSE_NAMES)
		mkhct_name_printable(name, x->names[x->tensors], sizeof(x->names[0]));
	x->tensors++;
}

char *mkhct_cosine_text(double cosine, int digits, char buf[MKHCT_COSINE_TEXT])
{
	int needed;

	cosine = fmin(cosine, 1 - 1e-12);
	needed = (int)ceil(-log10(1 - cosine) - 1e-6) + 1;
	needed = needed < 12 ? needed : 12;
	snprintf(buf, MKHCT_COSINE_TEXT, "%.*f", needed > digits ? needed : digits, cosine);
	return buf;
}
