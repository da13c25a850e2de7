#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "codec/hct.h"
#include "codec/metrics.h"
#include "codec/units.h"
#include "writer/names.h"
#include "writer/node.h"
#include "writer/tally.h"

struct sums {
	uint64_t files, tensors, source_bytes, stored_bytes;
};

struct mkhct_report {
	const struct mkhct_source *source;
	const char *options;             /* JSON */
	int lossless;                    /* all of it, by its options */
	struct mkhct_tally lossy, exact; /* tensors of a lossy bundle */
	struct mkhct_excuses excuses;    /* of tensors in exact */
	struct mkhct_excuses notes;      /* of tensors in lossy */
	uint64_t bf16_bytes;             /* of all model files */
	cJSON *files, *folders;          /* arrays */
	cJSON *last;                     /* of one of them: the entry added last */
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

/* Adds a node, which it takes, to a list and to the sums. */
static hct_error add_node(struct mkhct_report *r, cJSON *node, struct hct_diag *diag)
{
	struct mkhct_node_sums n;
	struct sums *sums;

	if (!node)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the report");
	if (mkhct_node_count(node, &n) != 0) {
		cJSON_Delete(node);
		return hct_fail(diag, HCT_ERR_CORRUPT,
				"what was noted of a finished file is damaged");
	}
	if (!cJSON_AddItemToArray(n.is_folder ? r->folders : r->files, node)) {
		cJSON_Delete(node);
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the report");
	}
	r->last = node;
	if (n.is_folder)
		return HCT_OK;
	sums = n.is_model ? &r->models : &r->carried;
	sums->files++;
	sums->tensors += n.tensors;
	sums->source_bytes += n.source_bytes;
	sums->stored_bytes += n.stored_bytes;
	if (n.is_model) {
		mkhct_tally_merge(&r->lossy, &n.lossy);
		mkhct_tally_merge(&r->exact, &n.exact);
		mkhct_excuses_merge(&r->excuses, &n.excuses);
		mkhct_excuses_merge(&r->notes, &n.notes);
		r->bf16_bytes += n.header_bytes;
	}
	return HCT_OK;
}

hct_error mkhct_report_add(struct mkhct_report *r, const struct mkhct_entry *entry,
			   const struct mkhct_written *model, uint64_t checksum,
			   struct hct_diag *diag)
{
	return add_node(r, mkhct_node_create(entry, model, r->lossless, checksum), diag);
}

char *mkhct_report_node(const struct mkhct_report *r)
{
	return r->last ? cJSON_PrintUnformatted(r->last) : NULL;
}

hct_error mkhct_report_add_node(struct mkhct_report *r, const cJSON *node, struct hct_diag *diag)
{
	if (!cJSON_IsObject(node))
		return hct_fail(diag, HCT_ERR_CORRUPT,
				"what was noted of a finished file is damaged");
	return add_node(r, mkhct_node_copy(node), diag);
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
			       mkhct_node_add_rounded(*out, "bits_per_weight",
						      mkhct_tally_bits(t)) == 0
		       ? 0
		       : -1;
}

static int add_worst(cJSON *object, const struct mkhct_tally *t)
{
	cJSON *worst = cJSON_AddObjectToObject(object, "worst");

	return worst && cJSON_AddStringToObject(worst, "tensor", t->worst_name) &&
			       mkhct_node_add_rounded(worst, "relative_squared_error",
						      t->worst_error) == 0 &&
			       mkhct_node_add_cosine(worst, t->worst) == 0
		       ? 0
		       : -1;
}

static int add_lossy_totals(const struct mkhct_report *r, cJSON *root)
{
	struct mkhct_tally whole = whole_of(r);
	double cosine = mkhct_tally_cosine(&r->lossy);
	cJSON *part;

	if (mkhct_json_add_u64(root, "weights", whole.weights) != 0 ||
	    mkhct_node_add_rounded(root, "bits_per_weight", mkhct_tally_bits(&whole)) != 0 ||
	    mkhct_node_add_rounded(root, "bf16_ratio",
				   ratio_of(whole.bf16_bytes, whole.stored_bytes)) != 0 ||
	    mkhct_json_add_u64(root, "verified_tensors", whole.verified) != 0 ||
	    add_sums(root, "lossless", &r->exact, &part) != 0 ||
	    mkhct_excuses_write(&r->excuses, MKHCT_EXCUSES_WHY, part) != 0 ||
	    add_sums(root, "lossy", &r->lossy, &part) != 0 ||
	    mkhct_excuses_write(&r->notes, MKHCT_EXCUSES_NOTE, part) != 0)
		return -1;
	if (!r->lossy.tensors)
		return 0;
	return mkhct_node_add_rounded(part, "relative_squared_error",
				      mkhct_tally_error(&r->lossy)) == 0 &&
			       mkhct_node_add_cosine(part, cosine) == 0 &&
			       add_worst(part, &r->lossy) == 0 &&
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
	cJSON *root = cJSON_CreateObject(), *file;
	char label[1024];

	r->last = NULL;
	cJSON_ArrayForEach(file, r->files)
		cJSON_DeleteItemFromObjectCaseSensitive(file, MKHCT_NODE_SUMS);
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

const cJSON *mkhct_report_document(const struct mkhct_report *r)
{
	return r->document;
}

char *mkhct_report_brief(struct mkhct_report *r)
{
	cJSON *file;

	cJSON_ArrayForEach(file, cJSON_GetObjectItemCaseSensitive(r->document, "files"))
		cJSON_DeleteItemFromObjectCaseSensitive(file, MKHCT_NODE_LIST);
	return cJSON_PrintUnformatted(r->document);
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

static void print_notes(const struct mkhct_excuses *e, FILE *stream)
{
	for (unsigned i = 0; i < e->count; i++)
		fprintf(stream, "note      %" PRIu64 " %s: %s%s%s\n", e->list[i].tensors,
			e->list[i].tensors == 1 ? "tensor" : "tensors", e->list[i].why,
			e->list[i].tensors == 1 ? ": " : "; the first is ", e->list[i].names[0]);
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
	char text[HCT_COSINE_TEXT];

	fputc('\n', stream);
	if (r->lossy.tensors) {
		fprintf(stream, "quality   %s: the mean cosine to the source%s is %s\n",
			hct_metrics_grade_of_cosine(cosine),
			r->source->lossy_count ? ", which was compressed with loss itself," : "",
			hct_metrics_cosine_text(cosine, 5, text));
		fprintf(stream, "worst     %s: %s\n",
			hct_metrics_cosine_text(r->lossy.worst, 5, text), r->lossy.worst_name);
	} else {
		fputs("quality   nothing was lost\n", stream);
	}
	print_excuses(&r->excuses, stream);
	print_notes(&r->notes, stream);
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
