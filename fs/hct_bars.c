#include "hct_bars.h"

#include <stdlib.h>
#include <string.h>

#define SMALL 4096 /* elements */

/* The first component of a name that is a number, of at most six digits. */
static int find_layer(const char *name, unsigned *layer, size_t *prefix)
{
	for (const char *at = name; at; at = strpbrk(at, "./"), at = at ? at + 1 : NULL) {
		size_t n = strspn(at, "0123456789");

		if (n == 0 || n > 6 || (at[n] && !strchr("./", at[n])))
			continue;
		*layer = (unsigned)strtoul(at, NULL, 10);
		*prefix = (size_t)(at - name);
		return 1;
	}
	return 0;
}

/* The stack that a name belongs to, by the place of its first tensor; -1 behind the last of
 * HCT_MOST_STACKS. */
static int find_stack(struct hct_bars *b, const struct hct_bar *bar)
{
	for (size_t i = 0; i < b->stack_count; i++) {
		const struct hct_bar *first = &b->bars[b->stacks[i]];

		if (first->prefix == bar->prefix &&
		    strncmp(first->tensor->name, bar->tensor->name, bar->prefix) == 0)
			return first->stack;
	}
	if (b->stack_count == HCT_MOST_STACKS)
		return -1;
	b->stacks[b->stack_count++] = b->count;
	return (int)b->count;
}

static int is_small(const struct hct_tensor *t)
{
	unsigned dimensions = 0;

	for (unsigned d = 0; d < t->rank; d++)
		dimensions += t->shape[d] > 1;
	return dimensions < 2 || t->elements < SMALL;
}

static void add_model(struct hct_bars *b, const struct hct_node *node, int all)
{
	const struct hct_safetensors *st = hct_reader_safetensors(node->reader);

	for (size_t i = 0; i < st->count; i++) {
		struct hct_bar *bar = &b->bars[b->count];
		struct hct_tally tally = hct_tensor_tally(node->reader, i);
		struct hct_coding coding;

		b->total.elements += tally.elements;
		if (!tally.elements || (!all && is_small(&st->tensors[i]))) {
			b->left_out++;
			continue;
		}
		hct_reader_coding(node->reader, i, &coding);
		*bar = (struct hct_bar){.tensor = &st->tensors[i],
					.bits = hct_tally_bits(&tally),
					.error = coding.relative_squared_error,
					.stack = -1,
					.order = b->count};
		if (find_layer(bar->tensor->name, &bar->layer, &bar->prefix))
			bar->stack = find_stack(b, bar);
		b->count++;
	}
	b->total.source_bytes += node->size;
	b->total.stored_bytes += node->stored_bytes;
}

/* Stacks where their first tensor stands, layers of a stack by number. */
static int compare_bars(const void *a, const void *b)
{
	const struct hct_bar *x = a, *y = b;
	size_t place_x = x->stack >= 0 ? (size_t)x->stack : x->order;
	size_t place_y = y->stack >= 0 ? (size_t)y->stack : y->order;

	if (place_x != place_y)
		return place_x < place_y ? -1 : 1;
	if (x->layer != y->layer)
		return x->layer < y->layer ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

int hct_bars_same_layer(const struct hct_bar *a, const struct hct_bar *b)
{
	return a->stack == b->stack && a->layer == b->layer;
}

hct_error hct_bars_collect(const struct hct_tree *tree, int all, struct hct_bars *b)
{
	size_t tensors = 0;

	*b = (struct hct_bars){0};
	for (size_t i = 0; i < hct_tree_count(tree); i++) {
		const struct hct_node *node = hct_tree_node(tree, i);

		if (node->kind == HCT_NODE_MODEL && node->reader)
			tensors += hct_reader_safetensors(node->reader)->count;
	}
	b->bars = calloc(tensors + 1, sizeof(*b->bars));
	if (!b->bars)
		return HCT_ERR_NOMEM;
	for (size_t i = 0; i < hct_tree_count(tree); i++) {
		const struct hct_node *node = hct_tree_node(tree, i);

		if (node->kind == HCT_NODE_MODEL && node->reader)
			add_model(b, node, all);
	}
	if (b->count)
		qsort(b->bars, b->count, sizeof(*b->bars), compare_bars);
	return HCT_OK;
}

void hct_bars_free(struct hct_bars *b)
{
	free(b->bars);
	*b = (struct hct_bars){0};
}
