#include "layer.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cjson/cJSON.h>

#define MAX_CONFIG (4u << 20)

struct stack {
	char *name;
	size_t length;
	unsigned layers;
};

struct mkhct_layers {
	struct stack stacks[MKHCT_MAX_STACKS];
	size_t count;
	size_t last; /* found by the last look: names of a stack come together */
	unsigned config, extra;
};

/* The component in front of a layer's number; "layer_" is also joined to it. */
static const char *const words[] = {"layers",
				    "layer",
				    "h",
				    "block",
				    "blocks",
				    "transformer_blocks",
				    "single_transformer_blocks",
				    "double_blocks",
				    "single_blocks",
				    "resblocks",
				    "decoder_layers",
				    "encoder_layers"};
static const char joined[] = "layer_";

static int is_separator(char c)
{
	return c == '.' || c == '/' || c == '\0';
}

/* The number that is the whole of [s, next separator), or -1. */
static long number_at(const char *s, size_t n)
{
	long value = 0;

	if (n == 0 || n > 6 || strspn(s, "0123456789") < n)
		return -1;
	for (size_t i = 0; i < n; i++)
		value = value * 10 + (s[i] - '0');
	return value < (long)MKHCT_MAX_LAYERS ? value : -1;
}

static size_t component(const char *s)
{
	size_t n = 0;

	while (!is_separator(s[n]))
		n++;
	return n;
}

static int is_layer_word(const char *s, size_t n)
{
	for (size_t w = 0; w < sizeof(words) / sizeof(*words); w++)
		if (strlen(words[w]) == n && strncasecmp(s, words[w], n) == 0)
			return 1;
	return 0;
}

int mkhct_layer_parse(const char *name, unsigned *layer, size_t *stack)
{
	const size_t head = sizeof(joined) - 1;
	const char *before = NULL;
	size_t before_length = 0;

	for (const char *s = name;;) {
		size_t n = component(s);
		const char *digits = s;
		long value = number_at(s, n);

		/* The first number decides, unless the name begins with it. */
		if (value >= 0 && !before)
			value = -1;
		else if (value >= 0 && !is_layer_word(before, before_length))
			return 0;
		if (value < 0 && n > head && strncasecmp(s, joined, head) == 0) {
			digits = s + head;
			value = number_at(digits, n - head);
		}
		if (value >= 0) {
			*layer = (unsigned)value;
			*stack = (size_t)(digits - name);
			return 1;
		}
		if (!s[n])
			return 0;
		before = s;
		before_length = n;
		s += n + 1;
	}
}

static unsigned count_of(const cJSON *object, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	if (!cJSON_IsNumber(item) || !(item->valuedouble >= 1) ||
	    !(item->valuedouble <= MKHCT_MAX_LAYERS))
		return 0;
	return (unsigned)item->valuedouble;
}

static unsigned layers_of(const cJSON *object, unsigned *extra)
{
	static const char *const keys[] = {"num_hidden_layers", "n_layer", "num_layers",
					   "n_layers"};

	for (size_t k = 0; k < sizeof(keys) / sizeof(*keys); k++) {
		unsigned n = count_of(object, keys[k]);

		if (n) {
			*extra = count_of(object, "num_nextn_predict_layers");
			return n;
		}
	}
	return 0;
}

unsigned mkhct_layer_config(const char *text, size_t length, unsigned *extra)
{
	static const char *const inner[] = {"text_config", "llm_config", "language_config",
					    "language_model_config", "decoder"};
	unsigned n;
	cJSON *root;

	*extra = 0;
	if (length > MAX_CONFIG)
		return 0;
	root = cJSON_ParseWithLength(text, length);
	n = layers_of(root, extra);
	for (size_t i = 0; !n && i < sizeof(inner) / sizeof(*inner); i++)
		n = layers_of(cJSON_GetObjectItemCaseSensitive(root, inner[i]), extra);
	cJSON_Delete(root);
	return n;
}

hct_error mkhct_layers_create(const char *config, size_t length, struct mkhct_layers **out,
			      struct hct_diag *diag)
{
	struct mkhct_layers *l = calloc(1, sizeof(*l));

	if (!l)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the list of layers");
	if (config)
		l->config = mkhct_layer_config(config, length, &l->extra);
	*out = l;
	return HCT_OK;
}

void mkhct_layers_free(struct mkhct_layers *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->count; i++)
		free(l->stacks[i].name);
	free(l);
}

static int is_stack(const struct stack *s, const char *name, size_t length)
{
	return s->length == length && memcmp(s->name, name, length) == 0;
}

static size_t find_stack(const struct mkhct_layers *l, const char *name, size_t length)
{
	for (size_t i = 0; i < l->count; i++)
		if (is_stack(&l->stacks[i], name, length))
			return i;
	return l->count;
}

hct_error mkhct_layers_see(struct mkhct_layers *l, const char *name, struct hct_diag *diag)
{
	unsigned layer;
	size_t length;

	if (!mkhct_layer_parse(name, &layer, &length))
		return HCT_OK;
	if (l->count == 0 || !is_stack(&l->stacks[l->last], name, length)) {
		size_t i = find_stack(l, name, length);

		if (i == MKHCT_MAX_STACKS)
			return HCT_OK;
		if (i == l->count) {
			char *copy = strndup(name, length);

			if (!copy)
				return hct_fail(diag, HCT_ERR_NOMEM,
						"out of memory for the list of layers");
			l->stacks[l->count++] = (struct stack){.name = copy, .length = length};
		}
		l->last = i;
	}
	if (l->stacks[l->last].layers <= layer)
		l->stacks[l->last].layers = layer + 1;
	return HCT_OK;
}

static unsigned stack_layers(const struct mkhct_layers *l, size_t which)
{
	unsigned n = l->stacks[which].layers, least;

	for (size_t i = 0; i < l->count; i++)
		if (l->stacks[i].layers > n)
			return n;
	if (!l->config)
		return n;
	least = n > l->extra ? n - l->extra : 1;
	return l->config > least ? l->config : least;
}

int mkhct_layers_find(const struct mkhct_layers *l, const char *name, unsigned *layer,
		      unsigned *count)
{
	size_t length, which;

	if (!mkhct_layer_parse(name, layer, &length))
		return 0;
	which = find_stack(l, name, length);
	if (which == l->count)
		return 0;
	*count = stack_layers(l, which);
	return 1;
}
