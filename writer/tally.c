#include "tally.h"

#include <stdio.h>

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

void mkhct_tally_merge(struct mkhct_tally *sum, const struct mkhct_tally *part)
{
	sum->tensors += part->tensors;
	sum->weights += part->weights;
	sum->source_bytes += part->source_bytes;
	sum->stored_bytes += part->stored_bytes;
	sum->bf16_bytes += part->bf16_bytes;
	sum->verified += part->verified;
	sum->errors += part->errors;
	sum->cosines += part->cosines;
	if (part->worst_error > sum->worst_error) {
		sum->worst_error = part->worst_error;
		sum->worst = part->worst;
		snprintf(sum->worst_name, sizeof(sum->worst_name), "%s", part->worst_name);
	}
}

int mkhct_tally_write(const struct mkhct_tally *t, cJSON *object)
{
	return mkhct_json_add_u64(object, "tensors", t->tensors) == 0 &&
			       mkhct_json_add_u64(object, "weights", t->weights) == 0 &&
			       mkhct_json_add_u64(object, "source_bytes", t->source_bytes) == 0 &&
			       mkhct_json_add_u64(object, "stored_bytes", t->stored_bytes) == 0 &&
			       mkhct_json_add_u64(object, "bf16_bytes", t->bf16_bytes) == 0 &&
			       mkhct_json_add_u64(object, "verified", t->verified) == 0 &&
			       mkhct_json_add_exact(object, "errors", t->errors) == 0 &&
			       mkhct_json_add_exact(object, "cosines", t->cosines) == 0 &&
			       mkhct_json_add_exact(object, "worst_error", t->worst_error) == 0 &&
			       mkhct_json_add_exact(object, "worst", t->worst) == 0 &&
			       cJSON_AddStringToObject(object, "worst_name", t->worst_name)
		       ? 0
		       : -1;
}

int mkhct_tally_read(const cJSON *object, struct mkhct_tally *out)
{
	const cJSON *name = mkhct_json_get(object, "worst_name");

	*out = (struct mkhct_tally){.worst_error = -1, .worst = 1};
	if (mkhct_json_get_count(object, "tensors", &out->tensors) != 0 ||
	    mkhct_json_get_count(object, "weights", &out->weights) != 0 ||
	    mkhct_json_get_count(object, "source_bytes", &out->source_bytes) != 0 ||
	    mkhct_json_get_count(object, "stored_bytes", &out->stored_bytes) != 0 ||
	    mkhct_json_get_count(object, "bf16_bytes", &out->bf16_bytes) != 0 ||
	    mkhct_json_get_count(object, "verified", &out->verified) != 0 ||
	    mkhct_json_get_exact(object, "errors", &out->errors) != 0 ||
	    mkhct_json_get_exact(object, "cosines", &out->cosines) != 0 ||
	    mkhct_json_get_exact(object, "worst_error", &out->worst_error) != 0 ||
	    mkhct_json_get_exact(object, "worst", &out->worst) != 0 || !cJSON_IsString(name))
		return -1;
	snprintf(out->worst_name, sizeof(out->worst_name), "%s", name->valuestring);
	return 0;
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
