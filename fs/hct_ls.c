/* hct ls: the tensors of a bundle and how each is stored. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "hct_bundle.h"
#include "hct_cli.h"
#include "hct_json.h"
#include "table.h"

static const char help[] =
	"Usage: hct ls [-l] [--json] BUNDLE [FILE...]\n"
	"Lists the tensors of a bundle, or of the named files of it, with their bytes in the\n"
	"source, their bytes as stored, stored bits a weight, and for tensors with loss the\n"
	"relative squared error that was measured and the least cosine that goes with it.  The\n"
	"bytes of each file add up to the whole file.\n"
	"\n"
	"  -l, --long   chunks, bytes of a chunk and layers as well\n"
	"      --json   print JSON\n"
	"  -h, --help   this text\n"
	"\n"
	"BUNDLE is a directory made by mkhct or one .hct file; FILE a path within it.\n";

/* Which columns there are besides those that are always there. */
struct view {
	int details; /* how it is cut into chunks and layers */
	int quality; /* error and cosine: something has loss */
};

#define DETAILS 3
#define QUALITY 2

static void print_number(struct hct_table *t, const struct hct_tally *sum)
{
	hct_table_cell(t, "%" PRIu64, sum->source_bytes);
	hct_table_cell(t, "%" PRIu64, sum->stored_bytes);
	if (sum->elements)
		hct_table_cell(t, "%.3f", hct_tally_bits(sum));
	else
		hct_table_cell(t, "%s", "");
}

/* One row of sums: dtype, shape and codec stay empty. */
static void print_sum(struct hct_table *t, const struct view *v, const struct hct_tally *sum,
		      const char *name)
{
	for (int i = 0; i < 3; i++)
		hct_table_cell(t, "%s", "");
	print_number(t, sum);
	for (int i = 0; i < (v->details ? DETAILS : 0) + (v->quality ? QUALITY : 0); i++)
		hct_table_cell(t, "%s", "");
	hct_table_cell(t, "%s", name);
}

static void print_heading(struct hct_table *t, const struct view *v)
{
	static const char *const words[] = {"DTYPE",  "SHAPE", "CODEC",  "SOURCE",
					    "STORED", "BITS",  "CHUNKS", "CHUNK",
					    "LAYERS", "ERROR", "COSINE", "TENSOR"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (i < 6 || i > 10 || (i <= 8 ? v->details : v->quality))
			hct_table_cell(t, "%s", words[i]);
}

static void print_tensor(struct hct_table *t, const struct view *v, const hct_reader *r, size_t i)
{
	const struct hct_tensor *tensor = &hct_reader_safetensors(r)->tensors[i];
	struct hct_tally tally = hct_tensor_tally(r, i);
	struct hct_coding coding;
	char *shape = hct_shape_text(tensor);

	hct_reader_coding(r, i, &coding);
	hct_table_cell(t, "%s", tensor->dtype_name);
	hct_table_cell(t, "%s", shape ? shape : "?");
	hct_table_cell(t, "%s", coding.codec);
	print_number(t, &tally);
	if (v->details) {
		hct_table_cell(t, "%" PRIu64, coding.chunk_count);
		hct_table_cell(t, "%" PRIu32, coding.chunk_bytes);
		hct_table_cell(t, "%u", coding.layers);
	}
	if (v->quality && coding.relative_squared_error > 0) {
		hct_table_cell(t, "%.2e", coding.relative_squared_error);
		hct_table_cell(t, "%.5f", hct_least_cosine(coding.relative_squared_error));
	} else if (v->quality) {
		hct_table_cell(t, "%s", "");
		hct_table_cell(t, "%s", "");
	}
	hct_table_cell(t, "%s", tensor->name);
	free(shape);
}

/* The tensors of one model file, then what else the file holds, then the sum. */
static void print_model(struct hct_table *t, const struct view *v, const struct hct_node *node,
			const char *path)
{
	const hct_reader *r = node->reader;
	const struct hct_safetensors *st = hct_reader_safetensors(r);
	struct hct_tally tensors = hct_tensors_tally(r);
	struct hct_tally whole = {.count = tensors.count,
				  .elements = tensors.elements,
				  .source_bytes = node->size,
				  .stored_bytes = node->stored_bytes};
	struct hct_tally rest = hct_rest_tally(&whole, &tensors);

	hct_table_line(t, "%s: %zu %s", path, st->count, st->count == 1 ? "tensor" : "tensors");
	print_heading(t, v);
	for (size_t i = 0; i < st->count; i++)
		print_tensor(t, v, r, i);
	print_sum(t, v, &rest, "(header, index)");
	print_sum(t, v, &whole, "(whole file)");
	hct_table_line(t, "%s", "");
}

static void json_model(cJSON *files, const struct hct_node *node, const char *path)
{
	const hct_reader *r = node->reader;
	const struct hct_safetensors *st = hct_reader_safetensors(r);
	struct hct_tally tensors = hct_tensors_tally(r);
	struct hct_tally whole = {.source_bytes = node->size, .stored_bytes = node->stored_bytes};
	struct hct_tally rest = hct_rest_tally(&whole, &tensors);
	cJSON *file = hct_json_object(files, NULL), *list;

	hct_json_text(file, "name", path);
	hct_json_u64(file, "source_bytes", node->size);
	hct_json_u64(file, "stored_bytes", node->stored_bytes);
	hct_json_u64(file, "header_bytes", st->header_len);
	hct_json_u64(file, "index_bytes", rest.stored_bytes);
	list = hct_json_array(file, "tensors");
	for (size_t i = 0; i < st->count; i++) {
		const struct hct_tensor *tensor = &st->tensors[i];
		struct hct_tally tally = hct_tensor_tally(r, i);
		cJSON *item = hct_json_object(list, NULL);
		struct hct_coding coding;

		hct_reader_coding(r, i, &coding);
		hct_json_text(item, "name", tensor->name);
		hct_json_text(item, "dtype", tensor->dtype_name);
		hct_json_u64_array(item, "shape", tensor->shape, tensor->rank);
		hct_json_u64(item, "elements", tensor->elements);
		hct_json_text(item, "codec", coding.codec);
		hct_json_u64(item, "source_bytes", tally.source_bytes);
		hct_json_u64(item, "stored_bytes", tally.stored_bytes);
		hct_json_number(item, "bits_per_weight", hct_tally_bits(&tally));
		hct_json_u64(item, "chunks", coding.chunk_count);
		hct_json_u64(item, "chunk_bytes", coding.chunk_bytes);
		hct_json_u64(item, "layers", coding.layers);
		hct_json_number(item, "relative_squared_error", coding.relative_squared_error);
	}
}

/* Calls back for each chosen file that has something to list, in the order of the tree:
 * model files first, then those carried as they are. */
static hct_error list_json(const struct hct_tree *tree, const unsigned char *chosen)
{
	cJSON *top = hct_json_object(NULL, NULL);
	cJSON *files = hct_json_array(top, "files"), *carried = hct_json_array(top, "carried");

	for (size_t i = 0; i < hct_tree_count(tree); i++) {
		const struct hct_node *node = hct_tree_node(tree, i);
		char *path;

		if (!chosen[i] || node->kind == HCT_NODE_DIR ||
		    (node->kind == HCT_NODE_MODEL && !node->reader))
			continue;
		path = hct_shown_path(node);
		if (!path) {
			cJSON_Delete(top);
			return HCT_ERR_NOMEM;
		}
		if (node->kind == HCT_NODE_MODEL) {
			json_model(files, node, path);
		} else {
			cJSON *file = hct_json_object(carried, NULL);

			hct_json_text(file, "name", path);
			hct_json_u64(file, "bytes", node->size);
		}
		free(path);
	}
	return hct_json_print(top);
}

static int print_files(struct hct_table *t, const struct view *v, const struct hct_tree *tree,
		       const unsigned char *chosen, enum hct_node_kind kind)
{
	int first = 1;

	for (size_t i = 0; i < hct_tree_count(tree); i++) {
		const struct hct_node *node = hct_tree_node(tree, i);
		struct hct_tally plain = {.source_bytes = node->size,
					  .stored_bytes = node->stored_bytes};
		char *path;

		if (!chosen[i] || node->kind != kind || (kind == HCT_NODE_MODEL && !node->reader))
			continue;
		path = hct_shown_path(node);
		if (!path)
			return 0;
		if (kind == HCT_NODE_MODEL) {
			print_model(t, v, node, path);
		} else {
			if (first)
				hct_table_line(t, "carried as they are:");
			print_sum(t, v, &plain, path);
		}
		first = 0;
		free(path);
	}
	return 1;
}

static int has_loss(const struct hct_tree *tree, const unsigned char *chosen)
{
	struct hct_quality quality = {0};

	for (size_t i = 0; i < hct_tree_count(tree); i++) {
		const struct hct_node *node = hct_tree_node(tree, i);

		if (chosen[i] && node->kind == HCT_NODE_MODEL && node->reader)
			hct_quality_add(&quality, node->reader);
	}
	return quality.tensors > 0;
}

static hct_error list_table(const struct hct_options *o, const struct hct_tree *tree,
			    const unsigned char *chosen)
{
	static const char *const alignments[2][2] = {{"lllrrrl", "lllrrrrrl"},
						     {"lllrrrrrrl", "lllrrrrrrrrl"}};
	struct view v = {.details = o->details != 0, .quality = has_loss(tree, chosen)};
	struct hct_table *t = hct_table_create(alignments[v.details][v.quality]);
	hct_error err = HCT_ERR_NOMEM;

	if (print_files(t, &v, tree, chosen, HCT_NODE_MODEL) &&
	    print_files(t, &v, tree, chosen, HCT_NODE_PLAIN))
		err = hct_table_print(t, stdout);
	hct_table_free(t);
	return err;
}

static int run(int argc, char **argv)
{
	const struct hct_command *c = &hct_ls_command;
	struct hct_options o;
	struct hct_tree *tree = NULL;
	unsigned char *chosen = NULL;
	hct_error err;
	int code;

	code = hct_parse_options(c, argc, argv, "lJ", &o);
	if (code >= 0)
		return code;
	if (optind == argc)
		return hct_usage(c, "name a bundle");
	err = hct_open_bundle(c, argv[optind], &tree);
	if (!err)
		err = hct_choose(c, tree, argv + optind + 1, argc - optind - 1, &chosen);
	if (err) {
		code = hct_error_exit_code(err);
		goto out;
	}
	code = hct_say_bad_files(c, tree, chosen);
	err = o.json ? list_json(tree, chosen) : list_table(&o, tree, chosen);
	if (err)
		code = hct_say_error(c, err, NULL);
out:
	free(chosen);
	hct_tree_close(tree);
	return code;
}

const struct hct_command hct_ls_command = {
	.name = "ls", .summary = "list the tensors", .help = help, .run = run};
