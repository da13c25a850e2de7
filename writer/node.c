#include "node.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/metrics.h"
#include "writer/names.h"

static int add_shape(cJSON *object, const struct hct_tensor *t)
{
	cJSON *shape = cJSON_AddArrayToObject(object, "shape");

	for (unsigned d = 0; shape && d < t->rank; d++) {
		char text[24];
		cJSON *item;

		snprintf(text, sizeof(text), "%" PRIu64, t->shape[d]);
		item = cJSON_CreateRaw(text);
		if (!item || !cJSON_AddItemToArray(shape, item)) {
			cJSON_Delete(item);
			return -1;
		}
	}
	return shape ? 0 : -1;
}

int mkhct_node_add_rounded(cJSON *object, const char *key, double value)
{
	char text[32];

	snprintf(text, sizeof(text), "%.7g", value);
	return cJSON_AddRawToObject(object, key, text) ? 0 : -1;
}

int mkhct_node_add_cosine(cJSON *object, double cosine)
{
	char text[HCT_COSINE_TEXT];

	return cJSON_AddRawToObject(object, "cosine", hct_metrics_cosine_text(cosine, 7, text))
		       ? 0
		       : -1;
}

static int add_tile(cJSON *object, const struct hct_plan_info *plan)
{
	cJSON *tile = cJSON_AddArrayToObject(object, "tile");

	return tile && cJSON_AddItemToArray(tile, cJSON_CreateNumber(plan->tile_rows)) &&
			       cJSON_AddItemToArray(tile, cJSON_CreateNumber(plan->tile_columns))
		       ? 0
		       : -1;
}

static int is_lossy(const struct mkhct_written *m, size_t i)
{
	return m->results[i].error > 0;
}

/* What a tensor of a lossy bundle got, and why. */
static int add_quality(cJSON *object, const struct mkhct_written *m, size_t i)
{
	const struct mkhct_decision *d = &m->goals->decisions[i];
	const struct mkhct_result *r = &m->results[i];
	double target = m->goals->goals[i].relative_squared_error;

	if (!cJSON_AddStringToObject(object, "reason", d->reason) ||
	    (target > 0 && mkhct_node_add_rounded(object, "target_error", target) != 0) ||
	    (r->verified && !cJSON_AddTrueToObject(object, "verified")))
		return -1;
	if (!is_lossy(m, i))
		return r->plan.why && !cJSON_AddStringToObject(object, "lossless_because",
							       r->plan.why)
			       ? -1
			       : 0;
	return mkhct_node_add_rounded(object, "relative_squared_error", mkhct_result_error(r)) ==
				       0 &&
			       mkhct_node_add_cosine(object, mkhct_result_cosine(r)) == 0 &&
			       (!r->plan.note ||
				cJSON_AddStringToObject(object, "note", r->plan.note)) &&
			       add_tile(object, &r->plan) == 0 &&
			       cJSON_AddNumberToObject(object, "layers", r->plan.layers)
		       ? 0
		       : -1;
}

/* What went wrong with a tensor on the way. */
static int add_trouble(cJSON *object, const struct mkhct_result *r)
{
	return (r->retries && !cJSON_AddNumberToObject(object, "retries", r->retries)) ||
			       (r->failed && !cJSON_AddTrueToObject(object, "failed"))
		       ? -1
		       : 0;
}

static char *tensor_text(const struct mkhct_written *m, int lossless, size_t i)
{
	const struct hct_tensor *t = &m->st->tensors[i];
	cJSON *object = cJSON_CreateObject();
	struct hct_coding coding;
	char *text = NULL;

	m->coding(m->arg, i, &coding);
	if (object && cJSON_AddStringToObject(object, "name", t->name) &&
	    cJSON_AddStringToObject(object, "dtype", t->dtype_name) && add_shape(object, t) == 0 &&
	    cJSON_AddStringToObject(object, "codec", coding.codec) &&
	    mkhct_json_add_u64(object, "source_bytes", hct_tensor_bytes(t)) == 0 &&
	    mkhct_json_add_u64(object, "stored_bytes", coding.stored_bytes) == 0 &&
	    add_trouble(object, &m->results[i]) == 0 &&
	    (lossless || add_quality(object, m, i) == 0))
		text = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	return text;
}

/* Adds the list of tensors as text, a line for each: as cJSON objects the tensors of a
 * model with 100,000 of them would take 100 MB. */
static int add_tensors(cJSON *object, const struct mkhct_written *m, int lossless)
{
	size_t count = m->st->count, size;
	char *list = NULL;
	FILE *stream = open_memstream(&list, &size);
	int rc = -1;

	if (!stream)
		return -1;
	fputc('[', stream);
	for (size_t i = 0; i < count; i++) {
		char *text = tensor_text(m, lossless, i);

		if (!text)
			goto out;
		fprintf(stream, "%s\n\t\t\t\t%s", i ? "," : "", text);
		cJSON_free(text);
	}
	fputc(']', stream);
	if (fflush(stream) == 0 && !ferror(stream) &&
	    cJSON_AddRawToObject(object, MKHCT_NODE_LIST, list))
		rc = 0;
out:
	fclose(stream);
	free(list);
	return rc;
}

static int add_tallies(cJSON *object, const struct mkhct_written *m)
{
	const struct hct_safetensors *st = m->st;
	cJSON *sums = cJSON_AddObjectToObject(object, MKHCT_NODE_SUMS), *lossy, *exact;
	struct mkhct_excuses excuses = {.count = 0}, notes = {.count = 0};
	struct mkhct_tally tallies[2];

	mkhct_tally_begin(&tallies[0]);
	mkhct_tally_begin(&tallies[1]);
	for (size_t i = 0; i < st->count; i++) {
		struct hct_coding coding;

		m->coding(m->arg, i, &coding);
		mkhct_tally_add(&tallies[is_lossy(m, i)], &st->tensors[i], coding.stored_bytes,
				&m->results[i]);
		mkhct_excuses_add(&excuses, st->tensors[i].name, &m->results[i]);
		mkhct_excuses_add_note(&notes, st->tensors[i].name, &m->results[i]);
	}
	if (!sums || mkhct_json_add_u64(sums, "header_bytes", st->header_len) != 0)
		return -1;
	exact = cJSON_AddObjectToObject(sums, "lossless");
	lossy = cJSON_AddObjectToObject(sums, "lossy");
	return exact && lossy && mkhct_excuses_write(&excuses, MKHCT_EXCUSES_WHY, exact) == 0 &&
			       mkhct_excuses_write(&notes, MKHCT_EXCUSES_NOTE, lossy) == 0 &&
			       mkhct_tally_write(&tallies[0], exact) == 0 &&
			       mkhct_tally_write(&tallies[1], lossy) == 0
		       ? 0
		       : -1;
}

static int add_model(cJSON *object, const struct mkhct_written *m, int lossless)
{
	const uint8_t *sha256 = m->sha256;
	char hex[65];

	for (size_t i = 0; i < 32; i++)
		sprintf(hex + 2 * i, "%02x", sha256[i]);
	if (!cJSON_AddStringToObject(object, "sha256", hex) ||
	    mkhct_json_add_u64(object, "tensors", m->st->count) != 0)
		return -1;
	return add_tallies(object, m) == 0 ? add_tensors(object, m, lossless) : -1;
}

static int add_checksum(cJSON *object, uint64_t checksum)
{
	char hex[17];

	snprintf(hex, sizeof(hex), "%016" PRIx64, checksum);
	return cJSON_AddStringToObject(object, "xxh3", hex) ? 0 : -1;
}

static int add_sizes(cJSON *object, const struct mkhct_entry *entry,
		     const struct mkhct_written *model)
{
	uint64_t stored = model ? model->file_bytes : entry->size;

	return cJSON_AddStringToObject(object, "kind", model ? "model" : "carried") &&
			       mkhct_json_add_u64(object, "source_bytes", entry->size) == 0 &&
			       mkhct_json_add_u64(object, "stored_bytes", stored) == 0
		       ? 0
		       : -1;
}

cJSON *mkhct_node_create(const struct mkhct_entry *entry, const struct mkhct_written *model,
			 int lossless, uint64_t checksum)
{
	cJSON *object = cJSON_CreateObject();
	int bad = !object || mkhct_name_to_json(object, entry->name) != 0;

	if (!bad && entry->kind != MKHCT_FOLDER)
		bad = add_sizes(object, entry, model) != 0 ||
		      (model ? add_model(object, model, lossless)
			     : add_checksum(object, checksum)) != 0;
	if (!bad)
		return object;
	cJSON_Delete(object);
	return NULL;
}

/* The list of tensors as text again, a line for each. */
static int add_list(cJSON *object, const cJSON *tensors)
{
	char *list = NULL;
	size_t size;
	FILE *stream = open_memstream(&list, &size);
	const cJSON *tensor;
	int ok = stream != NULL;

	if (stream) {
		fputc('[', stream);
		cJSON_ArrayForEach(tensor, tensors)
		{
			char *text = cJSON_PrintUnformatted(tensor);

			ok &= text != NULL;
			fprintf(stream, "%s\n\t\t\t\t%s", tensor->prev->next ? "," : "",
				text ? text : "");
			cJSON_free(text);
		}
		fputc(']', stream);
		ok &= !ferror(stream);
		ok &= fclose(stream) == 0;
	}
	ok = ok && cJSON_AddRawToObject(object, MKHCT_NODE_LIST, list);
	free(list);
	return ok ? 0 : -1;
}

cJSON *mkhct_node_copy(const cJSON *node)
{
	cJSON *object = cJSON_CreateObject();
	const cJSON *item;
	int bad = !object;

	cJSON_ArrayForEach(item, node)
	{
		cJSON *copy;

		if (bad)
			break;
		if (cJSON_IsArray(item) && strcmp(item->string, MKHCT_NODE_LIST) == 0) {
			bad = add_list(object, item) != 0;
			continue;
		}
		copy = cJSON_Duplicate(item, 1);
		bad = !copy || !cJSON_AddItemToObject(object, item->string, copy);
		if (bad)
			cJSON_Delete(copy);
	}
	if (!bad)
		return object;
	cJSON_Delete(object);
	return NULL;
}

/* What was just built holds its numbers as text. */
static cJSON *without_lists(const cJSON *object)
{
	cJSON *brief = cJSON_CreateObject(), *parsed = NULL;
	const cJSON *item;
	char *text = NULL;
	int bad = !brief;

	cJSON_ArrayForEach(item, object)
	{
		if (!bad && strcmp(item->string, MKHCT_NODE_LIST) != 0)
			bad = !cJSON_AddItemReferenceToObject(brief, item->string, (cJSON *)item);
	}
	if (!bad)
		text = cJSON_PrintUnformatted(brief);
	if (text)
		parsed = cJSON_Parse(text);
	cJSON_free(text);
	cJSON_Delete(brief);
	return parsed;
}

static int count_model(const cJSON *node, struct mkhct_node_sums *out)
{
	const cJSON *sums = cJSON_GetObjectItemCaseSensitive(node, MKHCT_NODE_SUMS);

	mkhct_excuses_read(cJSON_GetObjectItemCaseSensitive(sums, "lossless"), MKHCT_EXCUSES_WHY,
			   &out->excuses);
	mkhct_excuses_read(cJSON_GetObjectItemCaseSensitive(sums, "lossy"), MKHCT_EXCUSES_NOTE,
			   &out->notes);
	return mkhct_json_get_count(node, "tensors", &out->tensors) == 0 &&
			       mkhct_json_get_count(sums, "header_bytes", &out->header_bytes) ==
				       0 &&
			       mkhct_tally_read(cJSON_GetObjectItemCaseSensitive(sums, "lossy"),
						&out->lossy) == 0 &&
			       mkhct_tally_read(cJSON_GetObjectItemCaseSensitive(sums, "lossless"),
						&out->exact) == 0
		       ? 0
		       : -1;
}

static int count_parsed(const cJSON *node, struct mkhct_node_sums *out)
{
	const cJSON *kind = cJSON_GetObjectItemCaseSensitive(node, "kind");

	out->is_folder = !kind;
	if (!cJSON_IsString(cJSON_GetObjectItemCaseSensitive(node, "name")))
		return -1;
	if (out->is_folder)
		return 0;
	if (!cJSON_IsString(kind) ||
	    mkhct_json_get_count(node, "source_bytes", &out->source_bytes) != 0 ||
	    mkhct_json_get_count(node, "stored_bytes", &out->stored_bytes) != 0)
		return -1;
	out->is_model = strcmp(kind->valuestring, "model") == 0;
	if (out->is_model)
		return count_model(node, out);
	return strcmp(kind->valuestring, "carried") == 0 ? 0 : -1;
}

int mkhct_node_count(const cJSON *node, struct mkhct_node_sums *out)
{
	cJSON *parsed = cJSON_IsObject(node) ? without_lists(node) : NULL;
	int rc;

	*out = (struct mkhct_node_sums){.is_folder = 0};
	rc = parsed ? count_parsed(parsed, out) : -1;
	cJSON_Delete(parsed);
	return rc;
}
