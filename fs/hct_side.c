#include "hct_side.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int has_suffix(const char *text, const char *suffix)
{
	size_t length = strlen(text), n = strlen(suffix);

	return length >= n && strcmp(text + length - n, suffix) == 0;
}

/* Opens a safetensors file that is not compressed and parses its header. */
static hct_error open_plain(struct hct_model *m, struct hct_diag *diag)
{
	const struct hct_node *node = m->node;
	uint8_t first[8], *header = NULL;
	hct_error err;
	size_t length;

	m->fd = open(node->path, O_RDONLY | O_CLOEXEC);
	if (m->fd < 0)
		return hct_fail_errno(diag, errno, "%s", node->path);
	if (node->size < sizeof(first))
		return hct_fail(diag, HCT_ERR_SAFETENSORS, "too short for a safetensors file");
	err = hct_node_pread(node, NULL, m->fd, 0, first, sizeof(first), diag);
	if (!err)
		err = hct_safetensors_header_len(first, node->size, &length, diag);
	if (err)
		return err;
	header = malloc(length);
	err = header ? hct_node_pread(node, NULL, m->fd, 0, header, length, diag) : HCT_ERR_NOMEM;
	if (!err)
		err = hct_safetensors_parse(header, length, node->size, &m->own, diag);
	if (!err)
		m->st = &m->own;
	free(header);
	return err;
}

/* Adds the node as a model file; one that is damaged is said and left out. */
static hct_error add_model(const struct hct_command *c, struct hct_side *side,
			   const struct hct_node *node)
{
	struct hct_model *m = &side->models[side->model_count];
	struct hct_diag diag = {{0}};
	hct_error err = HCT_OK;

	*m = (struct hct_model){.node = node, .fd = -1, .path = hct_shown_path(node)};
	side->model_count++;
	if (!m->path)
		return HCT_ERR_NOMEM;
	if (node->kind == HCT_NODE_MODEL && node->reader) {
		m->st = hct_reader_safetensors(node->reader);
	} else if (node->kind == HCT_NODE_MODEL) {
		hct_say_error(c, node->error, node->diag);
		side->incomplete = 1;
	} else {
		err = open_plain(m, &diag);
		if (err && err != HCT_ERR_NOMEM) {
			hct_say(c, "%s: %s", node->path,
				diag.text[0] ? diag.text : hct_error_string(err));
			side->incomplete = 1;
			err = HCT_OK;
		}
	}
	return err;
}

static hct_error add_entries(struct hct_side *side)
{
	size_t count = 0;

	for (size_t i = 0; i < side->model_count; i++)
		count += side->models[i].st ? side->models[i].st->count : 0;
	side->entries = calloc(count + 1, sizeof(*side->entries));
	if (!side->entries)
		return HCT_ERR_NOMEM;
	for (size_t i = 0; i < side->model_count; i++) {
		struct hct_model *m = &side->models[i];

		for (size_t j = 0; m->st && j < m->st->count; j++)
			side->entries[side->entry_count++] = (struct hct_entry){
				.model = m, .tensor = &m->st->tensors[j], .index = j};
	}
	return HCT_OK;
}

hct_error hct_side_open(const struct hct_command *c, const char *path, struct hct_side *side)
{
	struct hct_diag diag = {{0}};
	struct stat st;
	/* A single file is a model whatever its name: caches name files by their hash. */
	int single = stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
	hct_error err;

	*side = (struct hct_side){.path = path};
	err = hct_tree_open(path, HCT_TREE_KEEP_BAD, &side->tree, &diag);
	if (err)
		goto out;
	side->bundle = hct_tree_is_bundle(side->tree);
	err = HCT_ERR_NOMEM;
	side->models = calloc(hct_tree_count(side->tree) + 1, sizeof(*side->models));
	if (!side->models)
		goto out;
	for (size_t i = 0; i < hct_tree_count(side->tree); i++) {
		const struct hct_node *node = hct_tree_node(side->tree, i);

		if (node->kind == HCT_NODE_DIR || (node->kind == HCT_NODE_PLAIN && !single &&
						   !has_suffix(node->name, ".safetensors")))
			continue;
		err = add_model(c, side, node);
		if (err)
			goto out;
	}
	if (side->model_count == 0)
		err = hct_fail(&diag, HCT_ERR_NOT_HCT, "%s: no .hct or .safetensors file in it",
			       path);
	else
		err = add_entries(side);
out:
	if (err)
		hct_say_error(c, err, &diag);
	return err;
}

void hct_side_close(struct hct_side *side)
{
	for (size_t i = 0; i < side->model_count; i++) {
		struct hct_model *m = &side->models[i];

		if (m->fd >= 0)
			close(m->fd);
		hct_safetensors_free(&m->own);
		free(m->path);
	}
	free(side->models);
	free(side->entries);
	hct_tree_close(side->tree);
	memset(side, 0, sizeof(*side));
}

/* By name, then by path, then in order. */
static int compare_entries(const void *a, const void *b)
{
	const struct hct_entry *x = *(struct hct_entry *const *)a;
	const struct hct_entry *y = *(struct hct_entry *const *)b;
	int order = strcmp(x->tensor->name, y->tensor->name);

	if (order == 0)
		order = strcmp(x->model->path, y->model->path);
	return order ? order : (x > y) - (x < y);
}

static struct hct_entry **sorted_entries(const struct hct_side *side)
{
	struct hct_entry **sorted = calloc(side->entry_count + 1, sizeof(*sorted));

	for (size_t i = 0; sorted && i < side->entry_count; i++)
		sorted[i] = &side->entries[i];
	if (sorted && side->entry_count > 0)
		qsort(sorted, side->entry_count, sizeof(*sorted), compare_entries);
	return sorted;
}

static void pair(struct hct_entry *x, struct hct_entry *y)
{
	x->match = y;
	y->match = x;
	x->model->used = y->model->used = 1;
}

/* Walks both lists, sorted by name and path, and pairs what compares equal; by_path 0
 * pairs the rest by name alone. */
static void match_pass(struct hct_entry **a, size_t na, struct hct_entry **b, size_t nb,
		       int by_path)
{
	size_t i = 0, j = 0;

	while (i < na && j < nb) {
		int order;

		if (a[i]->match) {
			i++;
			continue;
		}
		if (b[j]->match) {
			j++;
			continue;
		}
		order = strcmp(a[i]->tensor->name, b[j]->tensor->name);
		if (order == 0 && by_path)
			order = strcmp(a[i]->model->path, b[j]->model->path);
		if (order == 0)
			pair(a[i], b[j]);
		i += order <= 0;
		j += order >= 0;
	}
}

hct_error hct_side_match(struct hct_side *a, struct hct_side *b)
{
	struct hct_entry **x = sorted_entries(a), **y = sorted_entries(b);

	if (x && y) {
		match_pass(x, a->entry_count, y, b->entry_count, 1);
		match_pass(x, a->entry_count, y, b->entry_count, 0);
	}
	free(x);
	free(y);
	return x && y ? HCT_OK : HCT_ERR_NOMEM;
}

hct_error hct_entry_read(const struct hct_entry *e, hct_decoder *d, uint64_t offset, void *dst,
			 size_t length, struct hct_diag *diag)
{
	const struct hct_model *m = e->model;

	return hct_node_pread(m->node, d, m->fd, m->st->header_len + e->tensor->begin + offset, dst,
			      length, diag);
}

void hct_entry_coding(const struct hct_entry *e, struct hct_coding *out)
{
	if (e->model->node->reader)
		hct_reader_coding(e->model->node->reader, e->index, out);
	else
		*out = (struct hct_coding){
			.codec = "none", .layers = 1, .stored_bytes = hct_tensor_bytes(e->tensor)};
}

struct hct_tally hct_side_tally(const struct hct_side *side)
{
	struct hct_tally sum = {0};

	for (size_t i = 0; i < side->model_count; i++) {
		const struct hct_model *m = &side->models[i];

		if (!m->used && !(m->st && m->st->count == 0))
			continue;
		sum.count++;
		sum.source_bytes += m->node->size;
		sum.stored_bytes += m->node->stored_bytes;
		for (size_t j = 0; j < m->st->count; j++)
			sum.elements += m->st->tensors[j].elements;
	}
	return sum;
}
