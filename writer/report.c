#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "codec/hct.h"
#include "codec/units.h"
#include "writer/names.h"

/* The key of a model's tensor list; "tensors" is their number. */
#define TENSOR_LIST "tensor_list"

struct sums {
	uint64_t files, tensors, source_bytes, stored_bytes;
};

struct mkhct_report {
	const struct mkhct_source *source;
	cJSON *files, *folders; /* arrays */
	cJSON *document;        /* once mkhct_report_full has put it together; owns both */
	struct sums models, carried;
};

static double ratio_of(uint64_t source, uint64_t stored)
{
	return stored ? (double)source / (double)stored : 1;
}

hct_error mkhct_report_create(const struct mkhct_source *source, struct mkhct_report **out,
			      struct hct_diag *diag)
{
	struct mkhct_report *r = calloc(1, sizeof(*r));

	if (r) {
		r->source = source;
		r->files = cJSON_CreateArray();
		r->folders = cJSON_CreateArray();
	}
	if (!r || !r->files || !r->folders) {
		mkhct_report_free(r);
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the report");
	}
	*out = r;
	return HCT_OK;
}

void mkhct_report_free(struct mkhct_report *r)
{
	if (!r)
		return;
	cJSON_Delete(r->document);
	cJSON_Delete(r->files);
	cJSON_Delete(r->folders);
	free(r);
}

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

static char *tensor_text(const hct_reader *reader, size_t i)
{
	const struct hct_tensor *t = &hct_reader_safetensors(reader)->tensors[i];
	cJSON *object = cJSON_CreateObject();
	struct hct_coding coding;
	char *text = NULL;

	hct_reader_coding(reader, i, &coding);
	if (object && cJSON_AddStringToObject(object, "name", t->name) &&
	    cJSON_AddStringToObject(object, "dtype", t->dtype_name) && add_shape(object, t) == 0 &&
	    cJSON_AddStringToObject(object, "codec", coding.codec) &&
	    mkhct_json_add_u64(object, "source_bytes", hct_tensor_bytes(t)) == 0 &&
	    mkhct_json_add_u64(object, "stored_bytes", coding.stored_bytes) == 0)
		text = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	return text;
}

/* Adds the list of tensors as text, a line for each: as cJSON objects the tensors of a
 * model with 100,000 of them would take 100 MB. */
static int add_tensors(cJSON *object, const hct_reader *reader)
{
	size_t count = hct_reader_safetensors(reader)->count, size;
	char *list = NULL;
	FILE *stream = open_memstream(&list, &size);
	int rc = -1;

	if (!stream)
		return -1;
	fputc('[', stream);
	for (size_t i = 0; i < count; i++) {
		char *text = tensor_text(reader, i);

		if (!text)
			goto out;
		fprintf(stream, "%s\n\t\t\t\t%s", i ? "," : "", text);
		cJSON_free(text);
	}
	fputc(']', stream);
	if (fflush(stream) == 0 && !ferror(stream) &&
	    cJSON_AddRawToObject(object, TENSOR_LIST, list))
		rc = 0;
out:
	fclose(stream);
	free(list);
	return rc;
}

static int add_model(struct mkhct_report *r, cJSON *object, const hct_reader *reader)
{
	const struct hct_safetensors *st = hct_reader_safetensors(reader);
	const uint8_t *sha256 = hct_reader_source(reader)->sha256;
	char hex[65];

	for (size_t i = 0; i < 32; i++)
		sprintf(hex + 2 * i, "%02x", sha256[i]);
	if (!cJSON_AddStringToObject(object, "sha256", hex) ||
	    mkhct_json_add_u64(object, "tensors", st->count) != 0)
		return -1;
	r->models.tensors += st->count;
	return add_tensors(object, reader);
}

static int add_checksum(cJSON *object, uint64_t checksum)
{
	char hex[17];

	snprintf(hex, sizeof(hex), "%016" PRIx64, checksum);
	return cJSON_AddStringToObject(object, "xxh3", hex) ? 0 : -1;
}

hct_error mkhct_report_add(struct mkhct_report *r, const struct mkhct_entry *entry,
			   const hct_reader *reader, uint64_t checksum, struct hct_diag *diag)
{
	uint64_t stored = reader ? hct_reader_file_bytes(reader) : entry->size;
	struct sums *sums = reader ? &r->models : &r->carried;
	cJSON *object = cJSON_CreateObject();

	if (!object || mkhct_name_to_json(object, entry->name) != 0)
		goto fail;
	if (entry->kind != MKHCT_FOLDER) {
		if (!cJSON_AddStringToObject(object, "kind", reader ? "model" : "carried") ||
		    mkhct_json_add_u64(object, "source_bytes", entry->size) != 0 ||
		    mkhct_json_add_u64(object, "stored_bytes", stored) != 0 ||
		    (reader ? add_model(r, object, reader) : add_checksum(object, checksum)) != 0)
			goto fail;
		sums->files++;
		sums->source_bytes += entry->size;
		sums->stored_bytes += stored;
	}
	if (cJSON_AddItemToArray(entry->kind == MKHCT_FOLDER ? r->folders : r->files, object))
		return HCT_OK;
fail:
	cJSON_Delete(object);
	return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the report");
}

static int add_totals(const struct mkhct_report *r, cJSON *root, double seconds)
{
	uint64_t source = r->models.source_bytes + r->carried.source_bytes;
	uint64_t stored = r->models.stored_bytes + r->carried.stored_bytes;

	if (mkhct_json_add_u64(root, "source_bytes", source) != 0 ||
	    mkhct_json_add_u64(root, "stored_bytes", stored) != 0 ||
	    !cJSON_AddNumberToObject(root, "ratio", ratio_of(source, stored)) ||
	    !cJSON_AddNumberToObject(root, "seconds", round(seconds * 1e3) / 1e3) ||
	    mkhct_json_add_u64(root, "tensors", r->models.tensors) != 0 ||
	    mkhct_json_add_u64(root, "models", r->models.files) != 0 ||
	    mkhct_json_add_u64(root, "model_source_bytes", r->models.source_bytes) != 0 ||
	    mkhct_json_add_u64(root, "model_stored_bytes", r->models.stored_bytes) != 0 ||
	    !cJSON_AddNumberToObject(root, "model_ratio",
				     ratio_of(r->models.source_bytes, r->models.stored_bytes)) ||
	    mkhct_json_add_u64(root, "carried_files", r->carried.files) != 0 ||
	    mkhct_json_add_u64(root, "carried_bytes", r->carried.stored_bytes) != 0)
		return -1;
	return 0;
}

char *mkhct_report_full(struct mkhct_report *r, double seconds)
{
	cJSON *root = cJSON_CreateObject(), *options;
	char label[1024];

	mkhct_name_printable(r->source->label, label, sizeof(label));
	if (!root || !cJSON_AddStringToObject(root, "tool", "mkhct") ||
	    !cJSON_AddStringToObject(root, "version", HCT_VERSION) ||
	    !(options = cJSON_AddObjectToObject(root, "options")) ||
	    !cJSON_AddStringToObject(options, "mode", "lossless") ||
	    !cJSON_AddStringToObject(root, "source", label) || add_totals(r, root, seconds) != 0) {
		cJSON_Delete(root);
		return NULL;
	}
	if (cJSON_AddItemToObject(root, "files", r->files))
		r->files = NULL;
	if (cJSON_AddItemToObject(root, "folders", r->folders))
		r->folders = NULL;
	r->document = root;
	return r->files || r->folders ? NULL : cJSON_Print(root);
}

hct_error mkhct_report_print_json(struct mkhct_report *r, FILE *stream, struct hct_diag *diag)
{
	cJSON *file;
	char *text;

	cJSON_ArrayForEach(file, cJSON_GetObjectItemCaseSensitive(r->document, "files"))
		cJSON_DeleteItemFromObjectCaseSensitive(file, TENSOR_LIST);
	text = cJSON_Print(r->document);
	if (!text)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the report");
	fprintf(stream, "%s\n", text);
	cJSON_free(text);
	return HCT_OK;
}

static void print_row(FILE *stream, const char *what, const struct sums *s, const char *time)
{
	char source[HCT_UNITS_MAX], stored[HCT_UNITS_MAX], tensors[24] = "";

	if (what[0] != 'o') /* other files have no tensors */
		snprintf(tensors, sizeof(tensors), "%" PRIu64, s->tensors);
	fprintf(stream, "%-12s %9s %11s %11s %7.3f%s%s\n", what, tensors,
		hct_units_size(s->source_bytes, source), hct_units_size(s->stored_bytes, stored),
		ratio_of(s->source_bytes, s->stored_bytes), *time ? "  " : "", time);
}

void mkhct_report_print_table(const struct mkhct_report *r, double seconds, FILE *stream)
{
	struct sums total = {.files = r->models.files + r->carried.files,
			     .tensors = r->models.tensors,
			     .source_bytes = r->models.source_bytes + r->carried.source_bytes,
			     .stored_bytes = r->models.stored_bytes + r->carried.stored_bytes};
	char time[HCT_UNITS_MAX];

	fprintf(stream, "%-12s %9s %11s %11s %7s  %s\n", "", "tensors", "source", "stored", "ratio",
		"time");
	if (r->carried.files) {
		print_row(stream, "models", &r->models, "");
		print_row(stream, "other files", &r->carried, "");
	}
	print_row(stream, "total", &total, hct_units_duration(seconds, time));
}
