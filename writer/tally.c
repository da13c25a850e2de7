#include "tally.h"

#include "writer/names.h"

void mkhct_tally_begin(struct mkhct_tally *t)
{
	*t = (struct mkhct_tally){.worst = 2};
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
	double cosine = mkhct_result_cosine(r);

	sum->tensors++;
	sum->weights += t->elements;
	sum->source_bytes += hct_tensor_bytes(t);
	sum->stored_bytes += stored_bytes;
	sum->bf16_bytes += bf16_bytes(t);
	sum->verified += r->verified != 0;
	sum->energy += r->energy;
	sum->error += r->error;
	sum->cosines += cosine * (double)t->elements;
	if (cosine < sum->worst) {
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
	return t->energy > 0 ? t->error / t->energy : 0;
}

double mkhct_tally_cosine(const struct mkhct_tally *t)
{
	return t->weights ? t->cosines / (double)t->weights : 1;
}
