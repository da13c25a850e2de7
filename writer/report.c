#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "codec/hct.h"
#include "codec/metrics.h"
#include "codec/units.h"
#include "writer/model.h"
#include "writer/names.h"
#include "writer/survey.h"
#include "writer/tally.h"

/* The key of a model's tensor list; "tensors" is their number. */
#define TENSOR_LIST "tensor_list"

/* Bytes that a forecast adds to what it can write already: of the text around the line of a tensor
 * and around the list of a model, and what totals have that are still 0. */
#define TENSOR_LINE  6
#define MODEL_LINES  250
#define TOTAL_DIGITS 300

struct sums {
	uint64_t files, tensors, source_bytes, stored_bytes;
};

struct mkhct_report {
	const struct mkhct_source *source;
	const char *options;             /* JSON */
	int lossless;                    /* all of it, by its options */
	struct mkhct_tally lossy, exact; /* tensors of a lossy bundle */
	struct mkhct_excuses excuses;    /* of tensors in exact */
	uint64_t bf16_bytes;             /* of all model files */
	cJSON *files, *folders;          /* arrays */
	cJSON *document;                 /* once mkhct_report_full has put it together; owns both */
	struct sums models, carried;
};

static double ratio_of(uint64_t source, uint64_t stored)
{
	return stored ? (double)source / (double)stored : 1;
}

hct_error mkhct_report_create(const struct mkhct_source *source, const char *options, int lossless,
			      struct mkhct_report **out, struct hct_diag *diag)
{
	struct mkhct_report *r = calloc(1, sizeof(*r));

	if (r) {
		r->source = source;
		r->options = options;
		r->lossless = lossless;
		mkhct_tally_begin(&r->lossy);
		mkhct_tally_begin(&r->exact);
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

/* Seven digits: sums of the encoder are exact to about that. */
static int add_rounded(cJSON *object, const char *key, double value)
{
	char text[32];

	snprintf(text, sizeof(text), "%.7g", value);
	return cJSON_AddRawToObject(object, key, text) ? 0 : -1;
}

static int add_cosine(cJSON *object, double cosine)
{
	char text[MKHCT_COSINE_TEXT];

	return cJSON_AddRawToObject(object, "cosine", mkhct_cosine_text(cosine, 7, text)) ? 0 : -1;
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
	    (target > 0 && add_rounded(object, "target_error", target) != 0) ||
	    (r->verified && !cJSON_AddTrueToObject(object, "verified")))
		return -1;
	if (!is_lossy(m, i))
		return r->plan.why && !cJSON_AddStringToObject(object, "lossless_because",
							       r->plan.why)
			       ? -1
			       : 0;
	return add_rounded(object, "relative_squared_error", mkhct_result_error(r)) == 0 &&
			       add_cosine(object, mkhct_result_cosine(r)) == 0 &&
			       add_tile(object, &r->plan) == 0 &&
			       cJSON_AddNumberToObject(object, "layers", r->plan.layers)
		       ? 0
		       : -1;
}

/* The reader of m is not asked. */
static char *line_text(const struct mkhct_report *r, const struct mkhct_written *m, size_t i,
		       const struct hct_tensor *t, struct hct_coding coding)
{
	cJSON *object = cJSON_CreateObject();
	char *text = NULL;

	if (object && cJSON_AddStringToObject(object, "name", t->name) &&
	    cJSON_AddStringToObject(object, "dtype", t->dtype_name) && add_shape(object, t) == 0 &&
	    cJSON_AddStringToObject(object, "codec", coding.codec) &&
	    mkhct_json_add_u64(object, "source_bytes", hct_tensor_bytes(t)) == 0 &&
	    mkhct_json_add_u64(object, "stored_bytes", coding.stored_bytes) == 0 &&
	    (r->lossless || add_quality(object, m, i) == 0))
		text = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	return text;
}

static char *tensor_text(const struct mkhct_report *r, const struct mkhct_written *m, size_t i)
{
	struct hct_coding coding;

	hct_reader_coding(m->reader, i, &coding);
	return line_text(r, m, i, &hct_reader_safetensors(m->reader)->tensors[i], coding);
}

/* Adds the list of tensors as text, a line for each: as cJSON objects the tensors of a
 * model with 100,000 of them would take 100 MB. */
static int add_tensors(const struct mkhct_report *r, cJSON *object, const struct mkhct_written *m)
{
	size_t count = hct_reader_safetensors(m->reader)->count, size;
	char *list = NULL;
	FILE *stream = open_memstream(&list, &size);
	int rc = -1;

	if (!stream)
		return -1;
	fputc('[', stream);
	for (size_t i = 0; i < count; i++) {
		char *text = tensor_text(r, m, i);

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

static int add_model(struct mkhct_report *r, cJSON *object, const struct mkhct_written *m)
{
	const struct hct_safetensors *st = hct_reader_safetensors(m->reader);
	const uint8_t *sha256 = hct_reader_source(m->reader)->sha256;
	char hex[65];

	for (size_t i = 0; i < 32; i++)
		sprintf(hex + 2 * i, "%02x", sha256[i]);
	if (!cJSON_AddStringToObject(object, "sha256", hex) ||
	    mkhct_json_add_u64(object, "tensors", st->count) != 0)
		return -1;
	r->models.tensors += st->count;
	r->bf16_bytes += st->header_len;
	for (size_t i = 0; i < st->count; i++) {
		struct hct_coding coding;

		hct_reader_coding(m->reader, i, &coding);
		mkhct_tally_add(is_lossy(m, i) ? &r->lossy : &r->exact, &st->tensors[i],
				coding.stored_bytes, &m->results[i]);
		mkhct_excuses_add(&r->excuses, st->tensors[i].name, &m->results[i]);
	}
	return add_tensors(r, object, m);
}

static int add_checksum(cJSON *object, uint64_t checksum)
{
	char hex[17];

	snprintf(hex, sizeof(hex), "%016" PRIx64, checksum);
	return cJSON_AddStringToObject(object, "xxh3", hex) ? 0 : -1;
}

hct_error mkhct_report_add(struct mkhct_report *r, const struct mkhct_entry *entry,
			   const struct mkhct_written *model, uint64_t checksum,
			   struct hct_diag *diag)
{
	uint64_t stored = model ? hct_reader_file_bytes(model->reader) : entry->size;
	struct sums *sums = model ? &r->models : &r->carried;
	cJSON *object = cJSON_CreateObject();

	if (!object || mkhct_name_to_json(object, entry->name) != 0)
		goto fail;
	if (entry->kind != MKHCT_FOLDER) {
		if (!cJSON_AddStringToObject(object, "kind", model ? "model" : "carried") ||
		    mkhct_json_add_u64(object, "source_bytes", entry->size) != 0 ||
		    mkhct_json_add_u64(object, "stored_bytes", stored) != 0 ||
		    (model ? add_model(r, object, model) : add_checksum(object, checksum)) != 0)
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

/* Everything about the models of a lossy bundle; whole files over all weights. */
static struct mkhct_tally whole_of(const struct mkhct_report *r)
{
	return (struct mkhct_tally){.weights = r->lossy.weights + r->exact.weights,
				    .tensors = r->models.tensors,
				    .source_bytes = r->models.source_bytes,
				    .stored_bytes = r->models.stored_bytes,
				    .bf16_bytes = r->bf16_bytes + r->lossy.bf16_bytes +
						  r->exact.bf16_bytes,
				    .verified = r->lossy.verified + r->exact.verified};
}

static int add_sums(cJSON *root, const char *key, const struct mkhct_tally *t, cJSON **out)
{
	*out = cJSON_AddObjectToObject(root, key);
	return *out && mkhct_json_add_u64(*out, "tensors", t->tensors) == 0 &&
			       mkhct_json_add_u64(*out, "weights", t->weights) == 0 &&
			       mkhct_json_add_u64(*out, "source_bytes", t->source_bytes) == 0 &&
			       mkhct_json_add_u64(*out, "stored_bytes", t->stored_bytes) == 0 &&
			       add_rounded(*out, "bits_per_weight", mkhct_tally_bits(t)) == 0
		       ? 0
		       : -1;
}

static int add_worst(cJSON *object, const struct mkhct_tally *t)
{
	cJSON *worst = cJSON_AddObjectToObject(object, "worst");

	return worst && cJSON_AddStringToObject(worst, "tensor", t->worst_name) &&
			       add_rounded(worst, "relative_squared_error", t->worst_error) == 0 &&
			       add_cosine(worst, t->worst) == 0
		       ? 0
		       : -1;
}

/* Why tensors are lossless that were not meant to be. */
static int add_excuses(cJSON *object, const struct mkhct_excuses *e)
{
	cJSON *list = e->count ? cJSON_AddArrayToObject(object, "because") : NULL;

	for (unsigned i = 0; i < e->count; i++) {
		const struct mkhct_excuse *x = &e->list[i];
		cJSON *item = cJSON_CreateObject(), *names;

		if (!list || !cJSON_AddItemToArray(list, item)) {
			cJSON_Delete(item);
			return -1;
		}
		if (!cJSON_AddStringToObject(item, "reason", x->why) ||
		    mkhct_json_add_u64(item, "tensors", x->tensors) != 0)
			return -1;
		names = cJSON_AddArrayToObject(item, "first");
		for (unsigned n = 0; n < MKHCT_EXCUSE_NAMES && n < x->tensors; n++)
			if (!cJSON_AddItemToArray(names, cJSON_CreateString(x->names[n])))
				return -1;
	}
	return 0;
}

static int add_lossy_totals(const struct mkhct_report *r, cJSON *root)
{
	struct mkhct_tally whole = whole_of(r);
	double cosine = mkhct_tally_cosine(&r->lossy);
	cJSON *part;

	if (mkhct_json_add_u64(root, "weights", whole.weights) != 0 ||
	    add_rounded(root, "bits_per_weight", mkhct_tally_bits(&whole)) != 0 ||
	    add_rounded(root, "bf16_ratio", ratio_of(whole.bf16_bytes, whole.stored_bytes)) != 0 ||
	    mkhct_json_add_u64(root, "verified_tensors", whole.verified) != 0 ||
	    add_sums(root, "lossless", &r->exact, &part) != 0 ||
	    add_excuses(part, &r->excuses) != 0 || add_sums(root, "lossy", &r->lossy, &part) != 0)
		return -1;
	if (!r->lossy.tensors)
		return 0;
	return add_rounded(part, "relative_squared_error", mkhct_tally_error(&r->lossy)) == 0 &&
			       add_cosine(part, cosine) == 0 && add_worst(part, &r->lossy) == 0 &&
			       cJSON_AddStringToObject(part, "grade",
						       hct_metrics_grade_of_cosine(cosine))
		       ? 0
		       : -1;
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
	return r->lossless ? 0 : add_lossy_totals(r, root);
}

char *mkhct_report_full(struct mkhct_report *r, double seconds)
{
	cJSON *root = cJSON_CreateObject();
	char label[1024];

	mkhct_name_printable(r->source->label, label, sizeof(label));
	if (!root || !cJSON_AddStringToObject(root, "tool", "mkhct") ||
	    !cJSON_AddStringToObject(root, "version", HCT_VERSION) ||
	    !cJSON_AddItemToObject(root, "options", cJSON_Parse(r->options)) ||
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

/* bits: of a weight, of lossy bundles only; 0 is left out. */
static void print_row(const struct mkhct_report *r, FILE *stream, const char *what,
		      const struct sums *s, double bits, const char *time)
{
	char source[HCT_UNITS_MAX], stored[HCT_UNITS_MAX], tensors[24] = "", weight[24] = "";

	if (what[0] != 'o') /* other files have no tensors */
		snprintf(tensors, sizeof(tensors), "%" PRIu64, s->tensors);
	if (bits > 0)
		snprintf(weight, sizeof(weight), "%.3f", bits);
	fprintf(stream, "%-12s %9s %11s %11s %7.3f", what, tensors,
		hct_units_size(s->source_bytes, source), hct_units_size(s->stored_bytes, stored),
		ratio_of(s->source_bytes, s->stored_bytes));
	if (!r->lossless && (bits > 0 || *time))
		fprintf(stream, " %11s", weight);
	fprintf(stream, "%s%s\n", *time ? "  " : "", time);
}

static void print_part(const struct mkhct_report *r, FILE *stream, const char *what,
		       const struct mkhct_tally *t)
{
	struct sums s = {.tensors = t->tensors,
			 .source_bytes = t->source_bytes,
			 .stored_bytes = t->stored_bytes};

	print_row(r, stream, what, &s, mkhct_tally_bits(t), "");
}

static void print_excuses(const struct mkhct_excuses *e, FILE *stream)
{
	for (unsigned i = 0; i < e->count; i++)
		fprintf(stream, "exact     %" PRIu64 " %s: %s%s%s\n", e->list[i].tensors,
			e->list[i].tensors == 1 ? "tensor stays lossless" : "tensors stay lossless",
			e->list[i].why, e->list[i].tensors == 1 ? ": " : "; the first is ",
			e->list[i].names[0]);
}

static void print_size(const struct mkhct_tally *whole, FILE *stream)
{
	double ratio = ratio_of(whole->bf16_bytes, whole->stored_bytes);

	fprintf(stream, "size      %.3f times %s than the same models in BF16\n",
		ratio >= 1 ? ratio : 1 / ratio, ratio >= 1 ? "smaller" : "larger");
}

/* Below the table of a lossy bundle. */
static void print_quality(const struct mkhct_report *r, FILE *stream)
{
	struct mkhct_tally whole = whole_of(r);
	double cosine = mkhct_tally_cosine(&r->lossy);
	char text[MKHCT_COSINE_TEXT];

	fputc('\n', stream);
	if (r->lossy.tensors) {
		fprintf(stream, "quality   %s: the mean cosine to the source is %s\n",
			hct_metrics_grade_of_cosine(cosine), mkhct_cosine_text(cosine, 5, text));
		fprintf(stream, "worst     %s: %s\n", mkhct_cosine_text(r->lossy.worst, 5, text),
			r->lossy.worst_name);
	} else {
		fputs("quality   nothing was lost\n", stream);
	}
	print_excuses(&r->excuses, stream);
	print_size(&whole, stream);
	if (whole.verified)
		fprintf(stream,
			"verified  %" PRIu64 " of %" PRIu64
			" tensors were read back, decoded and measured\n",
			whole.verified, whole.tensors);
}

void mkhct_report_print_table(const struct mkhct_report *r, double seconds, FILE *stream)
{
	struct sums total = {.files = r->models.files + r->carried.files,
			     .tensors = r->models.tensors,
			     .source_bytes = r->models.source_bytes + r->carried.source_bytes,
			     .stored_bytes = r->models.stored_bytes + r->carried.stored_bytes};
	struct mkhct_tally whole = whole_of(r);
	double bits = r->lossless ? 0 : mkhct_tally_bits(&whole);
	char time[HCT_UNITS_MAX];

	fprintf(stream, "%-12s %9s %11s %11s %7s%s  %s\n", "", "tensors", "source", "stored",
		"ratio", r->lossless ? "" : " bits/weight", "time");
	if (r->carried.files || !r->lossless)
		print_row(r, stream, "models", &r->models, bits, "");
	if (!r->lossless && r->lossy.tensors)
		print_part(r, stream, "  with loss", &r->lossy);
	if (!r->lossless && r->exact.tensors)
		print_part(r, stream, "  lossless", &r->exact);
	if (r->carried.files)
		print_row(r, stream, "other files", &r->carried, 0, "");
	print_row(r, stream, "total", &total, 0, hct_units_duration(seconds, time));
	if (!r->lossless)
		print_quality(r, stream);
}

/* The line of a tensor of which nothing may be measured yet: figures as long as they will be. */
static size_t foresee_line(const struct mkhct_report *r, const struct mkhct_model_goals *m,
			   size_t i, const struct hct_tensor *t, struct mkhct_result *results)
{
	const struct mkhct_written written = {.goals = m, .results = results};
	struct hct_coding coding = {.codec = "split", .stored_bytes = hct_tensor_bytes(t) / 2};
	size_t length = TENSOR_LINE;
	char *text;

	if (m->forecasts) {
		const struct mkhct_forecast *f = &m->forecasts[i];

		results[i] = f->result;
		coding.codec = f->result.plan.codec;
		coding.stored_bytes = (uint64_t)(f->extent_bytes + f->table_bytes);
	} else if (m->decisions[i].target.kind != MKHCT_TARGET_LOSSLESS) {
		results[i] =
			(struct mkhct_result){.energy = 1, .decoded_energy = 1, .error = .01234567};
		results[i].plan.layers = results[i].plan.tile_rows = 1;
		results[i].plan.tile_columns = 1;
		coding.codec = "tcq";
		coding.stored_bytes = hct_tensor_bytes(t) / 8;
		if (!(m->goals[i].relative_squared_error > 0))
			length += strlen(",\"target_error\":0.01234567");
	}
	text = line_text(r, &written, i, t, coding);
	length += text ? strlen(text) : 0;
	cJSON_free(text);
	return length;
}

static size_t foresee_model(const struct mkhct_report *r, const struct mkhct_model_goals *m)
{
	struct mkhct_result *results = calloc(m->count + 1, sizeof(*results));
	size_t length = MODEL_LINES + strlen(m->entry->name);
	struct mkhct_model model;

	if (results && mkhct_model_open(m->entry, &model, NULL) == HCT_OK) {
		for (size_t i = 0; i < m->count && i < model.st.count; i++)
			length += foresee_line(r, m, i, &model.st.tensors[i], results);
		mkhct_model_close(&model);
	}
	free(results);
	return length;
}

double mkhct_report_forecast(const struct mkhct_source *source, const struct mkhct_goals *goals,
			     const char *options)
{
	struct mkhct_report *r = NULL;
	hct_error err = mkhct_report_create(source, options, 0, &r, NULL);
	char *text = NULL;
	double bytes = TOTAL_DIGITS;

	for (size_t i = 0; !err && i < source->count; i++)
		if (source->entries[i].kind != MKHCT_MODEL)
			err = mkhct_report_add(r, &source->entries[i], NULL, 0, NULL);
	for (size_t i = 0; !err && i < goals->count; i++)
		bytes += (double)foresee_model(r, &goals->models[i]);
	if (!err)
		text = mkhct_report_full(r, 1.234);
	bytes += text ? (double)strlen(text) : 0;
	cJSON_free(text);
	mkhct_report_free(r);
	return bytes;
}
