#include "item.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "writer/json.h"
#include "writer/names.h"

#define PACKED "packed" /* of a compressed source: its size, and its time */

static const char *const kinds[] = {
	[MKHCT_FOLDER] = "folder", [MKHCT_MODEL] = "model", [MKHCT_CARRIED] = "carried"};

static const struct mkhct_model_goals *goals_of(const struct mkhct_goals *g,
						const struct mkhct_entry *entry)
{
	for (size_t i = 0; g && i < g->count; i++)
		if (g->models[i].entry == entry)
			return &g->models[i];
	return NULL;
}

int mkhct_item_add(cJSON *list, const struct mkhct_entry *e, const struct mkhct_goals *all,
		   const char *status)
{
	const struct mkhct_model_goals *goals = e->kind == MKHCT_MODEL ? goals_of(all, e) : NULL;
	const double mtime[] = {(double)e->mtime.tv_sec, (double)e->mtime.tv_nsec};
	const double disk[] = {(double)e->disk_size, (double)e->disk_mtime.tv_sec,
			       (double)e->disk_mtime.tv_nsec};
	cJSON *item = cJSON_CreateObject();

	if (!item || !cJSON_AddItemToArray(list, item)) {
		cJSON_Delete(item);
		return -1;
	}
	return mkhct_name_to_json(item, e->name) == 0 &&
			       mkhct_json_put_text(item, "kind", kinds[e->kind]) == 0 &&
			       mkhct_json_put_number(item, "mode", e->mode) == 0 &&
			       mkhct_json_put_number(item, "size", (double)e->size) == 0 &&
			       mkhct_json_put(item, "mtime", cJSON_CreateDoubleArray(mtime, 2)) ==
				       0 &&
			       (!e->packed ||
				mkhct_json_put(item, PACKED, cJSON_CreateDoubleArray(disk, 3)) ==
					0) &&
			       (!goals || mkhct_json_put_hash(item, "header_xxh3",
							      goals->header_checksum) == 0) &&
			       mkhct_json_put_text(item, MKHCT_ITEM_STATUS, status) == 0
		       ? 0
		       : -1;
}

const char *mkhct_item_differs(const cJSON *item, const struct mkhct_entry *e,
			       const struct mkhct_goals *goals)
{
	const cJSON *mtime = mkhct_json_get(item, "mtime"), *packed = mkhct_json_get(item, PACKED);
	const struct mkhct_model_goals *g;
	char hash[17];

	if (strcmp(mkhct_json_text(item, "kind"), kinds[e->kind]) != 0)
		return "is of another kind now";
	if (e->kind == MKHCT_FOLDER)
		return NULL;
	if (mkhct_json_whole(mkhct_json_get(item, "size")) != e->size)
		return "has another size now";
	if (!mkhct_json_is_number(cJSON_GetArrayItem(mtime, 0), e->mtime.tv_sec) ||
	    !mkhct_json_is_number(cJSON_GetArrayItem(mtime, 1), e->mtime.tv_nsec))
		return "was written to since";
	if (!e->packed != !packed)
		return "was written to since";
	if (e->packed &&
	    (mkhct_json_whole(cJSON_GetArrayItem(packed, 0)) != e->disk_size ||
	     !mkhct_json_is_number(cJSON_GetArrayItem(packed, 1), e->disk_mtime.tv_sec) ||
	     !mkhct_json_is_number(cJSON_GetArrayItem(packed, 2), e->disk_mtime.tv_nsec)))
		return "was written to since";
	g = e->kind == MKHCT_MODEL ? goals_of(goals, e) : NULL;
	if (!g)
		return NULL;
	snprintf(hash, sizeof(hash), "%016" PRIx64, g->header_checksum);
	return strcmp(hash, mkhct_json_text(item, "header_xxh3")) != 0 ? "has another header now"
								       : NULL;
}

int mkhct_item_is_same(const cJSON *a, const cJSON *b)
{
	static const char *const keys[] = {"name",  "name_hex", "kind",       "size",
					   "mtime", PACKED,     "header_xxh3"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		const cJSON *x = mkhct_json_get(a, keys[i]), *y = mkhct_json_get(b, keys[i]);

		if (x || y ? !cJSON_Compare(x, y, 1) : 0)
			return 0;
	}
	return 1;
}

/* Whether a file lies in a folder that is listed, too: what is not may be a link to elsewhere. */
static int has_folder(const struct mkhct_source *s, const char *name)
{
	const char *base = mkhct_name_base(name);
	char *folder = base > name ? strndup(name, (size_t)(base - name - 1)) : NULL;
	const struct mkhct_entry *e = folder ? mkhct_source_find(s, folder) : NULL;

	free(folder);
	return base == name || (e && e->kind == MKHCT_FOLDER);
}

int mkhct_item_read(const cJSON *item, struct mkhct_source *s)
{
	struct mkhct_entry *e = &s->entries[s->count];
	const char *kind = mkhct_json_text(item, "kind");
	int k = 0;

	while (k < 3 && strcmp(kind, kinds[k]) != 0)
		k++;
	if (k == 3)
		return -1;
	*e = (struct mkhct_entry){.kind = (enum mkhct_kind)k,
				  .name = mkhct_name_from_json(item),
				  .size = mkhct_json_whole(mkhct_json_get(item, "size")),
				  .mode = (mode_t)mkhct_json_whole(mkhct_json_get(item, "mode")) &
					  0777};
	if (!e->name)
		return -1;
	e->path = strdup(e->name);
	s->count++;
	if (!e->path || !mkhct_name_is_safe(e->name) || !has_folder(s, e->name) ||
	    (s->count > 1 && strcmp(e[-1].name, e->name) >= 0))
		return -1;
	s->model_count += e->kind == MKHCT_MODEL;
	s->model_bytes += e->kind == MKHCT_MODEL ? e->size : 0;
	s->carried_count += e->kind == MKHCT_CARRIED;
	s->carried_bytes += e->kind == MKHCT_CARRIED ? e->size : 0;
	return 0;
}
