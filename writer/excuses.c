#include "excuses.h"

#include <stdio.h>
#include <string.h>

#include "writer/names.h"
#include "writer/tally.h"

/* The one with that reason, a new one, or NULL when there are too many. */
static struct mkhct_excuse *find(struct mkhct_excuses *e, const char *why)
{
	char shown[sizeof(e->list[0].why)];

	mkhct_name_printable(why, shown, sizeof(shown));
	for (unsigned i = 0; i < e->count; i++)
		if (strcmp(e->list[i].why, shown) == 0)
			return &e->list[i];
	if (e->count == MKHCT_EXCUSES)
		return NULL;
	strcpy(e->list[e->count].why, shown);
	return &e->list[e->count++];
}

static void add_names(struct mkhct_excuse *x, uint64_t tensors, const char *const *names,
		      size_t count)
{
	for (size_t i = 0; i < count && x->tensors + i < MKHCT_EXCUSE_NAMES; i++)
		mkhct_name_printable(names[i], x->names[x->tensors + i], sizeof(x->names[0]));
	x->tensors += tensors;
}

void mkhct_excuses_add(struct mkhct_excuses *e, const char *name, const struct mkhct_result *r)
{
	struct mkhct_excuse *x;

	if (!r->plan.why || r->error > 0)
		return;
	x = find(e, r->plan.why);
	if (x)
		add_names(x, 1, &name, 1);
}

void mkhct_excuses_add_note(struct mkhct_excuses *e, const char *name, const struct mkhct_result *r)
{
	struct mkhct_excuse *x = r->plan.note && r->error > 0 ? find(e, r->plan.note) : NULL;

	if (x)
		add_names(x, 1, &name, 1);
}

void mkhct_excuses_merge(struct mkhct_excuses *sum, const struct mkhct_excuses *part)
{
	for (unsigned i = 0; i < part->count; i++) {
		const struct mkhct_excuse *from = &part->list[i];
		struct mkhct_excuse *x = find(sum, from->why);
		const char *names[MKHCT_EXCUSE_NAMES];
		size_t count = 0;

		for (; count < MKHCT_EXCUSE_NAMES && count < from->tensors; count++)
			names[count] = from->names[count];
		if (x)
			add_names(x, from->tensors, names, count);
	}
}

int mkhct_excuses_write(const struct mkhct_excuses *e, const char *key, cJSON *object)
{
	cJSON *list = e->count ? cJSON_AddArrayToObject(object, key) : NULL;

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

void mkhct_excuses_read(const cJSON *object, const char *key, struct mkhct_excuses *out)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, key), *item, *name;

	memset(out, 0, sizeof(*out));
	cJSON_ArrayForEach(item, list)
	{
		const char *why =
			cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "reason"));
		const char *names[MKHCT_EXCUSE_NAMES];
		struct mkhct_excuse *x = why ? find(out, why) : NULL;
		uint64_t tensors = 0;
		size_t count = 0;

		if (!x || mkhct_json_get_count(item, "tensors", &tensors) != 0)
			continue;
		cJSON_ArrayForEach(name, cJSON_GetObjectItemCaseSensitive(item, "first"))
		{
			if (count < MKHCT_EXCUSE_NAMES && cJSON_IsString(name))
				names[count++] = name->valuestring;
		}
		add_names(x, tensors, names, count);
	}
}
