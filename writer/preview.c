#include "preview.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "codec/metrics.h"
#include "codec/units.h"
#include "writer/model.h"
#include "writer/names.h"
#include "writer/survey.h"
#include "writer/tally.h"

#define SHAPE_MAX 128
#define WIDEST    40 /* of a column that fits its contents; more is cut */

/* What is printed of a tensor. */
struct row {
	const struct hct_tensor *tensor;
	const struct mkhct_decision *decision;
	const struct mkhct_forecast *forecast;
	double target;
	char shape[SHAPE_MAX], reason[2 * MKHCT_REASON_MAX];
};

/* Calls back for each tensor of a model. */
typedef hct_error (*row_use)(void *arg, const struct row *row);

static void show_shape(const struct hct_tensor *t, char *buf, size_t size)
{
	size_t used = (size_t)snprintf(buf, size, "[");

	for (unsigned d = 0; d < t->rank && used < size; d++)
		used += (size_t)snprintf(buf + used, size - used, "%s%" PRIu64, d ? "," : "",
					 t->shape[d]);
	if (used < size)
		snprintf(buf + used, size - used, "]");
}

static hct_error each_tensor(const struct mkhct_model_goals *m, row_use use, void *arg,
			     struct hct_diag *diag)
{
	struct mkhct_model model;
	hct_error err = mkhct_model_open(m->entry, &model, diag);

	if (err)
		return err;
	for (size_t i = 0; !err && i < m->count && i < model.st.count; i++) {
		struct row row = {.tensor = &model.st.tensors[i],
				  .decision = &m->decisions[i],
				  .forecast = &m->forecasts[i],
				  .target = m->goals[i].relative_squared_error};
		const struct mkhct_result *result = &row.forecast->result;
		const char *why = row.forecast->lossy ? result->plan.note : result->plan.why;

		show_shape(row.tensor, row.shape, sizeof(row.shape));
		snprintf(row.reason, sizeof(row.reason), "%s", row.decision->reason);
		if (row.target > 0 && why)
			snprintf(row.reason, sizeof(row.reason), "%s", why);
		err = use(arg, &row);
	}
	mkhct_model_close(&model);
	return err;
}

static double bits_of(const struct row *row)
{
	const struct mkhct_forecast *f = row->forecast;

	return row->tensor->elements
		       ? 8 * (f->extent_bytes + f->table_bytes) / (double)row->tensor->elements
		       : 0;
}

/* Text ------------------------------------------------------------------------------ */

struct table {
	FILE *stream;
	int shape, cosine, reason; /* widths */
};

static int wider(int width, const char *text)
{
	int length = (int)strlen(text);

	length = length < WIDEST ? length : WIDEST;
	return length > width ? length : width;
}

/* Printable text that fits its column. */
static char *cut(const char *text, char buf[WIDEST + 1])
{
	mkhct_name_printable(text, buf, strlen(text) > WIDEST ? WIDEST - 1 : WIDEST + 1);
	return strlen(text) > WIDEST ? strcat(buf, "..") : buf;
}

static hct_error widen(void *arg, const struct row *row)
{
	struct table *t = arg;
	char cosine[HCT_COSINE_TEXT];

	t->shape = wider(t->shape, row->shape);
	t->reason = wider(t->reason, row->reason);
	if (row->forecast->lossy)
		t->cosine = wider(t->cosine,
				  hct_metrics_cosine_text(
					  mkhct_result_cosine(&row->forecast->result), 5, cosine));
	return HCT_OK;
}

static hct_error print_row(void *arg, const struct row *row)
{
	const struct table *t = arg;
	const struct mkhct_result *r = &row->forecast->result;
	char name[512], dtype[64], error[16] = "", cosine[HCT_COSINE_TEXT] = "";
	char shape[WIDEST + 1], reason[WIDEST + 1];

	if (row->forecast->lossy) {
		snprintf(error, sizeof(error), "%.2e", mkhct_result_error(r));
		hct_metrics_cosine_text(mkhct_result_cosine(r), 5, cosine);
	}
	fprintf(t->stream, "%-5s %-*s %-8s %7.3f %8s %*s  %-*s  %s\n",
		mkhct_name_printable(row->tensor->dtype_name, dtype, sizeof(dtype)), t->shape,
		cut(row->shape, shape), row->forecast->lossy ? "loss" : "lossless", bits_of(row),
		error, t->cosine, cosine, t->reason, cut(row->reason, reason),
		mkhct_name_printable(row->tensor->name, name, sizeof(name)));
	return HCT_OK;
}

/* The bundle as a whole, without its report. */
static double stored_bytes(const struct mkhct_preview *p)
{
	return p->model_bytes + (double)p->source->carried_bytes;
}

static double source_bytes(const struct mkhct_preview *p)
{
	return (double)(p->source->model_bytes + p->source->carried_bytes);
}

static double bits_a_weight(const struct mkhct_preview *p)
{
	double weights = 0;

	for (size_t i = 0; i < p->goals->count; i++)
		weights += (double)p->goals->models[i].elements;
	return weights > 0 ? 8 * p->model_bytes / weights : 0;
}

hct_error mkhct_preview_print(const struct mkhct_preview *p, FILE *stream, struct hct_diag *diag)
{
	struct table t = {.stream = stream, .shape = 5, .cosine = 7, .reason = 6};
	char from[HCT_UNITS_MAX], to[HCT_UNITS_MAX], name[512];
	hct_error err = HCT_OK;

	for (size_t i = 0; !err && i < p->goals->count; i++)
		err = each_tensor(&p->goals->models[i], widen, &t, diag);
	for (size_t i = 0; !err && i < p->goals->count; i++) {
		if (p->goals->count > 1)
			fprintf(stream, "%s%s:\n", i ? "\n" : "",
				mkhct_name_printable(p->goals->models[i].entry->name, name,
						     sizeof(name)));
		fprintf(stream, "%-5s %-*s %-8s %7s %8s %*s  %-*s  %s\n", "dtype", t.shape, "shape",
			"kept", "bits", "error", t.cosine, "cosine", t.reason, "reason", "tensor");
		err = each_tensor(&p->goals->models[i], print_row, &t, diag);
	}
	if (err)
		return err;
	fprintf(stream,
		"\nexpected  %s for %s: ratio %.3f, %.3f bits a weight\n"
		"nothing was written\n",
		hct_units_size((uint64_t)stored_bytes(p), to),
		hct_units_size((uint64_t)source_bytes(p), from), source_bytes(p) / stored_bytes(p),
		bits_a_weight(p));
	return HCT_OK;
}

/* JSON ------------------------------------------------------------------------------ */

static int add_number(cJSON *object, const char *key, const char *format, double value)
{
	char text[32];

	snprintf(text, sizeof(text), format, value);
	return cJSON_AddRawToObject(object, key, text) ? 0 : -1;
}

static hct_error add_row(void *arg, const struct row *row)
{
	const struct mkhct_result *r = &row->forecast->result;
	cJSON *object = cJSON_CreateObject();
	char cosine[HCT_COSINE_TEXT];
	int bad;

	bad = !object || !cJSON_AddItemToArray(arg, object);
	if (bad) {
		cJSON_Delete(object);
		return HCT_ERR_NOMEM;
	}
	bad |= !cJSON_AddStringToObject(object, "name", row->tensor->name) ||
	       !cJSON_AddStringToObject(object, "dtype", row->tensor->dtype_name) ||
	       !cJSON_AddRawToObject(object, "shape", row->shape) ||
	       !cJSON_AddBoolToObject(object, "lossy", row->forecast->lossy) ||
	       !cJSON_AddStringToObject(object, "reason", row->reason) ||
	       add_number(object, "bits_per_weight", "%.5f", bits_of(row)) != 0;
	if (row->target > 0)
		bad |= add_number(object, "target_error", "%.7g", row->target) != 0;
	if (row->forecast->lossy)
		bad |= add_number(object, "relative_squared_error", "%.7g",
				  mkhct_result_error(r)) != 0 ||
		       !cJSON_AddRawToObject(
			       object, "cosine",
			       hct_metrics_cosine_text(mkhct_result_cosine(r), 7, cosine));
	return bad ? HCT_ERR_NOMEM : HCT_OK;
}

static int add_file(cJSON *files, const struct mkhct_model_goals *m, hct_error *err,
		    struct hct_diag *diag)
{
	cJSON *file = cJSON_CreateObject(), *list;

	if (!file || !cJSON_AddItemToArray(files, file)) {
		cJSON_Delete(file);
		return -1;
	}
	if (mkhct_name_to_json(file, m->entry->name) != 0)
		return -1;
	list = cJSON_AddArrayToObject(file, "tensor_list");
	if (!list)
		return -1;
	*err = each_tensor(m, add_row, list, diag);
	return *err == HCT_ERR_NOMEM ? -1 : 0;
}

hct_error mkhct_preview_print_json(const struct mkhct_preview *p, FILE *stream,
				   struct hct_diag *diag)
{
	cJSON *root = cJSON_CreateObject(), *files = NULL;
	hct_error err = HCT_OK;
	char *text = NULL;
	int bad;

	bad = !root || !cJSON_AddTrueToObject(root, "dry_run") ||
	      !cJSON_AddRawToObject(root, "options", p->options) ||
	      add_number(root, "source_bytes", "%.0f", source_bytes(p)) != 0 ||
	      add_number(root, "stored_bytes", "%.0f", stored_bytes(p)) != 0 ||
	      add_number(root, "ratio", "%.6g", source_bytes(p) / stored_bytes(p)) != 0 ||
	      add_number(root, "bits_per_weight", "%.5f", bits_a_weight(p)) != 0;
	if (!bad)
		files = cJSON_AddArrayToObject(root, "files");
	bad |= !files;
	for (size_t i = 0; !bad && !err && i < p->goals->count; i++)
		bad = add_file(files, &p->goals->models[i], &err, diag) != 0;
	if (!bad && !err)
		text = cJSON_Print(root);
	cJSON_Delete(root);
	if (text)
		fprintf(stream, "%s\n", text);
	cJSON_free(text);
	if (err && err != HCT_ERR_NOMEM)
		return err;
	return text ? HCT_OK : hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the forecast");
}
