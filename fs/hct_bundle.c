#include "hct_bundle.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

hct_error hct_open_bundle(const struct hct_command *c, const char *path, struct hct_tree **tree)
{
	struct hct_diag diag = {{0}};
	hct_error err = hct_tree_open(path, HCT_TREE_KEEP_BAD, tree, &diag);

	if (!err && !hct_tree_is_bundle(*tree)) {
		hct_tree_close(*tree);
		*tree = NULL;
		err = hct_fail(&diag, HCT_ERR_NOT_HCT,
			       "%s: neither an .hct file nor a bundle made by mkhct", path);
	}
	if (err)
		hct_say_error(c, err, &diag);
	return err;
}

char *hct_shown_path(const struct hct_node *node)
{
	size_t size = hct_node_path(node, NULL, 0) + 1;
	char *path = malloc(size);

	if (path)
		hct_node_path(node, path, size);
	return path;
}

/* The child of dir called name (length bytes), which may carry the suffix .hct of the
 * file that lies on disk. */
static struct hct_node *find_child(const struct hct_node *dir, const char *name, size_t length)
{
	struct hct_node *child;
	char *copy = strndup(name, length);

	if (!copy)
		return NULL;
	child = hct_node_child(dir, copy);
	if (!child && length > 4 && strcmp(copy + length - 4, ".hct") == 0) {
		copy[length - 4] = '\0';
		child = hct_node_child(dir, copy);
		if (child && child->kind != HCT_NODE_MODEL)
			child = NULL;
	}
	free(copy);
	return child;
}

struct hct_node *hct_find_node(const struct hct_tree *tree, const char *path)
{
	struct hct_node *node = hct_tree_root(tree);

	while (node && *path) {
		size_t length = strcspn(path, "/");

		if (length > 0 && !(length == 1 && *path == '.'))
			node = node->kind == HCT_NODE_DIR ? find_child(node, path, length) : NULL;
		path += length;
		path += *path == '/';
	}
	return node;
}

hct_error hct_choose(const struct hct_command *c, const struct hct_tree *tree, char **names,
		     int count, unsigned char **chosen)
{
	size_t nodes = hct_tree_count(tree);
	unsigned char *mark = calloc(nodes ? nodes : 1, 1);

	if (!mark) {
		hct_say_error(c, HCT_ERR_NOMEM, NULL);
		return HCT_ERR_NOMEM;
	}
	if (count == 0)
		memset(mark, 1, nodes);
	for (int i = 0; i < count; i++) {
		const struct hct_node *node = hct_find_node(tree, names[i]);

		if (!node) {
			hct_say(c, "%s: no such file in the bundle", names[i]);
			free(mark);
			return HCT_ERR_NOT_FOUND;
		}
		mark[node->ino - 1] = 1;
	}
	/* Parents come before their children, so marks travel down in one pass. */
	for (size_t i = 1; i < nodes; i++)
		mark[i] |= mark[hct_tree_node(tree, i)->parent->ino - 1];
	*chosen = mark;
	return HCT_OK;
}

int hct_say_bad_files(const struct hct_command *c, const struct hct_tree *tree,
		      const unsigned char *chosen)
{
	int code = HCT_EXIT_OK;

	for (size_t i = 0; i < hct_tree_count(tree); i++) {
		const struct hct_node *node = hct_tree_node(tree, i);

		if (chosen[i] && node->kind == HCT_NODE_MODEL && !node->reader)
			code = hct_worse(code, hct_say_error(c, node->error, node->diag));
	}
	return code;
}

int hct_show_bundle(const struct hct_command *c, int argc, char **argv, const char *takes,
		    hct_error (*show)(const struct hct_opened *b, struct hct_diag *diag))
{
	struct hct_opened b = {.path = NULL};
	struct hct_diag diag = {""};
	struct hct_tree *tree = NULL;
	unsigned char *all = NULL;
	struct hct_options o;
	hct_error err;
	int code;

	code = hct_parse_options(c, argc, argv, takes, &o);
	if (code >= 0)
		return code;
	if (argc - optind != 1)
		return hct_usage(c, optind == argc ? "name a bundle" : "one bundle at a time");
	b.path = argv[optind];
	b.options = &o;
	err = hct_open_bundle(c, b.path, &tree);
	if (!err)
		err = hct_choose(c, tree, NULL, 0, &all);
	if (err) {
		code = hct_error_exit_code(err);
		goto out;
	}
	b.tree = tree;
	b.code = code = hct_say_bad_files(c, tree, all);
	err = show(&b, &diag);
	if (err)
		code = hct_say_error(c, err, &diag);
out:
	free(all);
	hct_tree_close(tree);
	return code;
}

void hct_tally_add(struct hct_tally *sum, const struct hct_tally *part)
{
	sum->count += part->count;
	sum->elements += part->elements;
	sum->source_bytes += part->source_bytes;
	sum->stored_bytes += part->stored_bytes;
}

double hct_tally_bits(const struct hct_tally *t)
{
	return t->elements ? 8.0 * (double)t->stored_bytes / (double)t->elements : 0;
}

double hct_tally_ratio(const struct hct_tally *t)
{
	return t->stored_bytes ? (double)t->source_bytes / (double)t->stored_bytes : 0;
}

struct hct_tally hct_tensor_tally(const hct_reader *r, size_t i)
{
	const struct hct_tensor *tensor = &hct_reader_safetensors(r)->tensors[i];
	struct hct_coding coding;

	hct_reader_coding(r, i, &coding);
	return (struct hct_tally){.count = 1,
				  .elements = tensor->elements,
				  .source_bytes = hct_tensor_bytes(tensor),
				  .stored_bytes = coding.stored_bytes};
}

struct hct_tally hct_tensors_tally(const hct_reader *r)
{
	struct hct_tally sum = {0};

	for (size_t i = 0; i < hct_reader_safetensors(r)->count; i++) {
		struct hct_tally tensor = hct_tensor_tally(r, i);

		hct_tally_add(&sum, &tensor);
	}
	return sum;
}

struct hct_tally hct_rest_tally(const struct hct_tally *whole, const struct hct_tally *tensors)
{
	uint64_t source = tensors->source_bytes, stored = tensors->stored_bytes;

	/* In a forged file tensors may share tables, and then hold more than the file. */
	return (struct hct_tally){
		.source_bytes = whole->source_bytes > source ? whole->source_bytes - source : 0,
		.stored_bytes = whole->stored_bytes > stored ? whole->stored_bytes - stored : 0};
}

double hct_least_cosine(double error)
{
	return error < 1 ? sqrt(1 - error) : 0;
}

void hct_quality_add(struct hct_quality *sum, const hct_reader *r)
{
	const struct hct_safetensors *st = hct_reader_safetensors(r);

	for (size_t i = 0; i < st->count; i++) {
		double elements = (double)st->tensors[i].elements, error;
		struct hct_coding coding;

		hct_reader_coding(r, i, &coding);
		error = coding.relative_squared_error;
		if (!(error > 0))
			continue;
		sum->tensors++;
		sum->elements += st->tensors[i].elements;
		sum->stored_bytes += coding.stored_bytes;
		sum->errors += error * elements;
		sum->cosines += hct_least_cosine(error) * elements;
		if (!sum->worst_name || error > sum->worst) {
			sum->worst = error;
			sum->worst_name = st->tensors[i].name;
		}
	}
}

char *hct_shape_text(const struct hct_tensor *t)
{
	size_t size = 3 + (size_t)t->rank * 21, used = 1;
	char *text = malloc(size);

	if (!text)
		return NULL;
	text[0] = '[';
	for (unsigned i = 0; i < t->rank; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%" PRIu64, i ? "," : "",
					 t->shape[i]);
	snprintf(text + used, size - used, "]");
	return text;
}
