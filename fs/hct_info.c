/* hct info: totals, options and provenance of a bundle. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "codec/metrics.h"
#include "codec/units.h"
#include "hct_bundle.h"
#include "hct_cli.h"
#include "hct_json.h"
#include "hct_report.h"
#include "table.h"

static const char help[] =
	"Usage: hct info [--json] BUNDLE\n"
	"Shows what a bundle holds: totals, sums by dtype and by codec, with what program and\n"
	"options it was made, and the sha256 of each source file.\n"
	"\n"
	"      --json   print JSON\n"
	"  -h, --help   this text\n"
	"\n"
	"BUNDLE is a directory made by mkhct or one .hct file.\n";

/* One tensor on its way into a sum. */
struct part {
	const char *key;
	struct hct_tally tally;
};

/* Of the tensors with loss. */
struct cosines {
	double mean, worst; /* mean: by elements; worst: of the tensor with the largest error */
	int least;          /* they are at least these; 0: they are these */
};

struct info {
	const struct hct_tree *tree;
	const struct hct_node **models; /* those that open, in order */
	size_t model_count;
	struct hct_tally total; /* model files as a whole; count: tensors */
	struct hct_tally rest;  /* headers and indexes */
	struct hct_quality quality;
	struct cosines cosines;
	uint64_t carried_count, carried_bytes;
	size_t part_count;
	struct part *dtypes, *codecs; /* part_count of each at first, then sums */
	size_t dtype_count, codec_count;
};

static int compare_parts(const void *a, const void *b)
{
	return strcmp(((const struct part *)a)->key, ((const struct part *)b)->key);
}

/* Joins the parts of the same key; returns how many are left. */
static size_t join_parts(struct part *parts, size_t count)
{
	size_t left = 0;

	if (count > 0)
		qsort(parts, count, sizeof(*parts), compare_parts);
	for (size_t i = 0; i < count; i++) {
		if (left > 0 && strcmp(parts[left - 1].key, parts[i].key) == 0)
			hct_tally_add(&parts[left - 1].tally, &parts[i].tally);
		else
			parts[left++] = parts[i];
	}
	return left;
}

static void add_model(struct info *info, const struct hct_node *node)
{
	const struct hct_safetensors *st = hct_reader_safetensors(node->reader);
	struct hct_tally whole = {.source_bytes = node->size, .stored_bytes = node->stored_bytes};
	struct hct_tally tensors = {0}, rest;

	for (size_t i = 0; i < st->count; i++) {
		struct hct_tally tally = hct_tensor_tally(node->reader, i);
		struct hct_coding coding;

		hct_reader_coding(node->reader, i, &coding);
		info->dtypes[info->part_count] = (struct part){st->tensors[i].dtype_name, tally};
		info->codecs[info->part_count++] = (struct part){coding.codec, tally};
		hct_tally_add(&tensors, &tally);
	}
	rest = hct_rest_tally(&whole, &tensors);
	hct_tally_add(&info->rest, &rest);
	whole.count = tensors.count;
	whole.elements = tensors.elements;
	hct_tally_add(&info->total, &whole);
	hct_quality_add(&info->quality, node->reader);
}

static hct_error collect(struct info *info)
{
	size_t nodes = hct_tree_count(info->tree), tensors = 0;

	info->models = calloc(nodes + 1, sizeof(*info->models));
	if (!info->models)
		return HCT_ERR_NOMEM;
	for (size_t i = 0; i < nodes; i++) {
		const struct hct_node *node = hct_tree_node(info->tree, i);

		if (node->kind == HCT_NODE_PLAIN) {
			info->carried_count++;
			info->carried_bytes += node->size;
		} else if (node->kind == HCT_NODE_MODEL && node->reader) {
			info->models[info->model_count++] = node;
			tensors += hct_reader_safetensors(node->reader)->count;
		}
	}
	info->dtypes = calloc(tensors + 1, sizeof(*info->dtypes));
	info->codecs = calloc(tensors + 1, sizeof(*info->codecs));
	if (!info->dtypes || !info->codecs)
		return HCT_ERR_NOMEM;
	for (size_t i = 0; i < info->model_count; i++)
		add_model(info, info->models[i]);
	info->dtype_count = join_parts(info->dtypes, info->part_count);
	info->codec_count = join_parts(info->codecs, info->part_count);
	return HCT_OK;
}

static double mean_error(const struct hct_quality *q)
{
	return q->elements ? q->errors / (double)q->elements : 0;
}

/* Whether a figure of the report can be one of these files. */
static int agrees(double found, double expected)
{
	return fabs(found - expected) <= 1e-5 * expected;
}

static int is_cosine(double cosine, double least)
{
	return cosine >= least - 1e-6 && cosine <= 1;
}

/* The cosines that mkhct measured where its report is about these very files, otherwise what the
 * errors in their indexes say. */
static hct_error find_cosines(struct info *info, const char *path)
{
	const struct hct_quality *q = &info->quality;
	struct cosines *c = &info->cosines;
	struct hct_diag diag = {{0}};
	struct hct_report report;
	const struct hct_report_loss *loss = &report.loss;
	hct_error err;

	if (!q->tensors)
		return HCT_OK;
	*c = (struct cosines){.mean = q->cosines / (double)q->elements,
			      .worst = hct_least_cosine(q->worst),
			      .least = 1};
	err = hct_report_read(path, &report, &diag);
	if (!err && loss->tensors == q->tensors && loss->elements == q->elements &&
	    agrees(loss->error, mean_error(q)) && agrees(loss->worst_error, q->worst) &&
	    is_cosine(loss->cosine, c->mean) && is_cosine(loss->worst_cosine, c->worst))
		*c = (struct cosines){.mean = loss->cosine, .worst = loss->worst_cosine};
	hct_report_free(&report);
	return err == HCT_ERR_NOMEM ? err : HCT_OK;
}

static void sha256_text(const struct hct_source *source, char text[65])
{
	for (int i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", source->sha256[i]);
}

static void time_text(const struct hct_source *source, char *text, size_t size)
{
	time_t seconds = (time_t)source->mtime_sec;
	struct tm tm;

	if (!gmtime_r(&seconds, &tm) || strftime(text, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		snprintf(text, size, "%" PRId64, source->mtime_sec);
}

static void version_text(const hct_reader *r, char *text, size_t size)
{
	unsigned version = hct_reader_version(r);

	snprintf(text, size, "%u.%u", version >> 16, version & 0xffff);
}

static void json_tally(cJSON *object, const struct hct_tally *tally)
{
	hct_json_u64(object, "tensors", tally->count);
	hct_json_u64(object, "parameters", tally->elements);
	hct_json_u64(object, "source_bytes", tally->source_bytes);
	hct_json_u64(object, "stored_bytes", tally->stored_bytes);
	hct_json_number(object, "ratio", hct_tally_ratio(tally));
	hct_json_number(object, "bits_per_weight", hct_tally_bits(tally));
}

static void json_parts(cJSON *top, const char *key, const char *kind, const struct part *parts,
		       size_t count)
{
	cJSON *list = hct_json_array(top, key);

	for (size_t i = 0; i < count; i++) {
		cJSON *item = hct_json_object(list, NULL);

		hct_json_text(item, kind, parts[i].key);
		json_tally(item, &parts[i].tally);
	}
}

static double lossy_bits(const struct hct_quality *q)
{
	return q->elements ? 8 * (double)q->stored_bytes / (double)q->elements : 0;
}

static void json_quality(cJSON *top, const struct hct_quality *q, const struct cosines *c)
{
	cJSON *lossy = hct_json_object(top, "lossy"), *worst;

	hct_json_u64(lossy, "tensors", q->tensors);
	hct_json_u64(lossy, "parameters", q->elements);
	hct_json_u64(lossy, "stored_bytes", q->stored_bytes);
	hct_json_number(lossy, "bits_per_weight", lossy_bits(q));
	hct_json_number(lossy, "relative_squared_error", mean_error(q));
	if (!q->worst_name)
		return;
	hct_json_number(lossy, "cosine", c->mean);
	hct_json_bool(lossy, "cosine_measured", !c->least);
	hct_json_text(lossy, "grade", hct_metrics_grade_of_cosine(c->mean));
	worst = hct_json_object(lossy, "worst");
	hct_json_text(worst, "tensor", q->worst_name);
	hct_json_number(worst, "relative_squared_error", q->worst);
	hct_json_number(worst, "cosine", c->worst);
	hct_json_text(worst, "grade", hct_metrics_grade_of_cosine(c->worst));
}

static hct_error json_model(cJSON *list, const struct hct_node *node)
{
	const struct hct_source *source = hct_reader_source(node->reader);
	struct hct_tally whole = hct_tensors_tally(node->reader);
	cJSON *file = hct_json_object(list, NULL);
	char *path = hct_shown_path(node), text[65];

	if (!path)
		return HCT_ERR_NOMEM;
	whole.source_bytes = node->size;
	whole.stored_bytes = node->stored_bytes;
	hct_json_text(file, "name", path);
	free(path);
	json_tally(file, &whole);
	sha256_text(source, text);
	hct_json_text(file, "source_sha256", text);
	time_text(source, text, sizeof(text));
	hct_json_text(file, "source_mtime", text);
	version_text(node->reader, text, sizeof(text));
	hct_json_text(file, "format_version", text);
	hct_json_parsed(file, "provenance", hct_reader_provenance(node->reader));
	return HCT_OK;
}

/* The options that the first file was made with, for callers that want just these. */
static void json_options(cJSON *top, const struct info *info)
{
	cJSON *provenance = NULL, *options = NULL;
	char *text = NULL;

	if (info->model_count > 0)
		provenance = cJSON_Parse(hct_reader_provenance(info->models[0]->reader));
	options = cJSON_GetObjectItemCaseSensitive(provenance, "options");
	if (options)
		text = cJSON_PrintUnformatted(options);
	hct_json_parsed(top, "options", text ? text : "{}");
	cJSON_free(text);
	cJSON_Delete(provenance);
}

static hct_error print_json(const struct info *info, const char *path)
{
	cJSON *top = hct_json_object(NULL, NULL), *total, *list, *rest;
	hct_error err = HCT_OK;

	hct_json_text(top, "bundle", path);
	total = hct_json_object(top, "total");
	hct_json_u64(total, "files", info->model_count);
	json_tally(total, &info->total);
	hct_json_u64(total, "carried_files", info->carried_count);
	hct_json_u64(total, "carried_bytes", info->carried_bytes);
	json_quality(top, &info->quality, &info->cosines);
	json_options(top, info);
	json_parts(top, "dtypes", "dtype", info->dtypes, info->dtype_count);
	json_parts(top, "codecs", "codec", info->codecs, info->codec_count);
	rest = hct_json_object(top, "header_and_index");
	hct_json_u64(rest, "source_bytes", info->rest.source_bytes);
	hct_json_u64(rest, "stored_bytes", info->rest.stored_bytes);
	list = hct_json_array(top, "files");
	for (size_t i = 0; !err && i < info->model_count; i++)
		err = json_model(list, info->models[i]);
	if (!err)
		return hct_json_print(top);
	cJSON_Delete(top);
	return err;
}

/* "87.3 MiB (91539456 bytes)" */
static void put_size(const char *label, uint64_t bytes)
{
	char size[HCT_UNITS_MAX];

	hct_put("%-14s%s (%" PRIu64 " bytes)", label, hct_units_size(bytes, size), bytes);
}

static void put_json_value(const char *label, const cJSON *value)
{
	char *text = cJSON_IsString(value) ? NULL : cJSON_PrintUnformatted(value);

	hct_put("%-14s%s", label, text ? text : cJSON_IsString(value) ? value->valuestring : "");
	cJSON_free(text);
}

/* Whether all model files say the same under this key as the first. */
static int is_common(const struct info *info, const cJSON *item)
{
	int same = 1;

	for (size_t i = 1; same && i < info->model_count; i++) {
		cJSON *other = cJSON_Parse(hct_reader_provenance(info->models[i]->reader));

		same = cJSON_Compare(item, cJSON_GetObjectItemCaseSensitive(other, item->string),
				     1);
		cJSON_Delete(other);
	}
	return same;
}

static void put_provenance(const struct info *info)
{
	const char *text = hct_reader_provenance(info->models[0]->reader);
	cJSON *provenance = cJSON_Parse(text);

	if (!cJSON_IsObject(provenance)) {
		hct_put("%-14s%s", "provenance", text);
		cJSON_Delete(provenance);
		return;
	}
	for (const cJSON *item = provenance->child; item; item = item->next) {
		/* The names of the sources are those of the files, which are listed. */
		if (strcmp(item->string, "source_name") == 0)
			continue;
		if (is_common(info, item))
			put_json_value(item->string, item);
		else
			hct_put("%-14snot the same in all files, see hct info --json",
				item->string);
	}
	cJSON_Delete(provenance);
}

/* "error 0.0146, cosine 0.99270, Good" */
static void put_figures(const char *label, double error, double cosine, int least, const char *name)
{
	char text[HCT_COSINE_TEXT];

	hct_put("%-14serror %.3g, cosine %s%s, %s%s%s", label, error, least ? "at least " : "",
		hct_metrics_cosine_text(cosine, 5, text), hct_metrics_grade_of_cosine(cosine),
		name ? ": " : "", name ? name : "");
}

static void put_quality(const struct hct_quality *q, const struct cosines *c)
{
	if (!q->tensors)
		return;
	hct_put("%-14s%" PRIu64 " %s, %.3f bits a weight", "with loss", q->tensors,
		q->tensors == 1 ? "tensor" : "tensors", lossy_bits(q));
	put_figures("  mean", mean_error(q), c->mean, c->least, NULL);
	put_figures("  worst", q->worst, c->worst, c->least, q->worst_name);
}

static void put_totals(const struct info *info, const char *path)
{
	char version[16];

	hct_put("%-14s%s", "bundle", path);
	hct_put("%-14s%zu model %s, %" PRIu64 " carried (%" PRIu64 " bytes)", "files",
		info->model_count, info->model_count == 1 ? "file" : "files", info->carried_count,
		info->carried_bytes);
	hct_put("%-14s%" PRIu64, "tensors", info->total.count);
	hct_put("%-14s%" PRIu64, "parameters", info->total.elements);
	put_size("source", info->total.source_bytes);
	put_size("stored", info->total.stored_bytes);
	hct_put("%-14s%.4f", "ratio", hct_tally_ratio(&info->total));
	hct_put("%-14s%.3f", "bits a weight", hct_tally_bits(&info->total));
	put_quality(&info->quality, &info->cosines);
	if (info->model_count > 0) {
		version_text(info->models[0]->reader, version, sizeof(version));
		hct_put("%-14s%s", "format", version);
		put_provenance(info);
	}
}

static void table_row(struct hct_table *t, const char *name, const struct hct_tally *tally)
{
	hct_table_cell(t, "%s", name);
	if (tally->count) {
		hct_table_cell(t, "%" PRIu64, tally->count);
		hct_table_cell(t, "%" PRIu64, tally->elements);
	} else {
		hct_table_cell(t, "%s", "");
		hct_table_cell(t, "%s", "");
	}
	hct_table_cell(t, "%" PRIu64, tally->source_bytes);
	hct_table_cell(t, "%" PRIu64, tally->stored_bytes);
	hct_table_cell(t, "%.4f", hct_tally_ratio(tally));
	if (tally->elements)
		hct_table_cell(t, "%.3f", hct_tally_bits(tally));
	hct_table_end_row(t);
}

static void table_parts(struct hct_table *t, const struct info *info, const char *title,
			const struct part *parts, size_t count)
{
	static const char *const words[] = {"TENSORS", "PARAMETERS", "SOURCE",
					    "STORED",  "RATIO",      "BITS"};

	hct_table_line(t, "%s", "");
	hct_table_cell(t, "%s", title);
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		hct_table_cell(t, "%s", words[i]);
	for (size_t i = 0; i < count; i++)
		table_row(t, parts[i].key, &parts[i].tally);
	table_row(t, "(header, index)", &info->rest);
	table_row(t, "(whole files)", &info->total);
}

static hct_error print_text(const struct info *info, const char *path)
{
	struct hct_table *t = hct_table_create("lrrrrrr");
	hct_error err;

	put_totals(info, path);
	table_parts(t, info, "DTYPE", info->dtypes, info->dtype_count);
	table_parts(t, info, "CODEC", info->codecs, info->codec_count);
	hct_table_line(t, "%s", "");
	for (size_t i = 0; i < info->model_count; i++) {
		char *shown = hct_shown_path(info->models[i]), sha256[65];

		sha256_text(hct_reader_source(info->models[i]->reader), sha256);
		hct_table_line(t, "sha256 %s  %s", sha256, shown ? shown : "?");
		free(shown);
	}
	err = hct_table_print(t, stdout);
	hct_table_free(t);
	return err;
}

static hct_error show(const struct hct_opened *b, struct hct_diag *diag)
{
	struct info info = {.tree = b->tree};
	hct_error err = collect(&info);

	(void)diag;
	if (!err)
		err = find_cosines(&info, b->path);
	if (!err)
		err = b->options->json ? print_json(&info, b->path) : print_text(&info, b->path);
	free(info.models);
	free(info.dtypes);
	free(info.codecs);
	return err;
}

static int run(int argc, char **argv)
{
	return hct_show_bundle(&hct_info_command, argc, argv, "J", show);
}

const struct hct_command hct_info_command = {
	.name = "info", .summary = "totals, options and provenance", .help = help, .run = run};
