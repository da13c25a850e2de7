#include "recipe.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "writer/names.h"

int mkhct_recipe_is_lossless(const struct mkhct_options *o)
{
	if (o->policy.wish.kind != MKHCT_WISH_LOSSLESS)
		return 0;
	for (size_t i = 0; i < o->policy.override_count; i++)
		if (o->policy.overrides[i].wish.kind != MKHCT_WISH_LOSSLESS)
			return 0;
	return 1;
}

/* 0, or -1 when out of memory, like all below. */
static int add_text(cJSON *object, const char *key, const char *text)
{
	char shown[512];

	mkhct_name_printable(text, shown, sizeof(shown));
	return cJSON_AddStringToObject(object, key, shown) ? 0 : -1;
}

static int add_wish(cJSON *object, const struct mkhct_wish *w)
{
	const char *name = mkhct_wish_name(w->kind);

	if (w->kind == MKHCT_WISH_LOSSLESS)
		return cJSON_AddTrueToObject(object, name) ? 0 : -1;
	if (w->kind == MKHCT_WISH_SIZE)
		return mkhct_json_add_u64(object, name, w->bytes);
	return cJSON_AddNumberToObject(object, name, w->value) ? 0 : -1;
}

static int add_policy(cJSON *object, const struct mkhct_policy_options *p, uint64_t importance)
{
	char checksum[17];

	/* A quality stands in place of the wish. */
	if (p->quality > 0 ? !cJSON_AddNumberToObject(object, "target_quality", p->quality)
			   : add_wish(object, &p->wish) != 0)
		return -1;
	if (!cJSON_AddStringToObject(object, "policy", mkhct_policy_name(p->kind)))
		return -1;
	if (!p->importance)
		return 0;
	snprintf(checksum, sizeof(checksum), "%016" PRIx64, importance);
	return cJSON_AddStringToObject(object, "importance_xxh3", checksum) ? 0 : -1;
}

/* In their order, which counts. */
static int add_overrides(cJSON *object, const struct mkhct_policy_options *p)
{
	cJSON *list;

	if (!p->override_count)
		return 0;
	list = cJSON_AddArrayToObject(object, "overrides");
	for (size_t i = 0; i < p->override_count; i++) {
		const struct mkhct_override *o = &p->overrides[i];
		cJSON *item = cJSON_CreateObject();

		if (!list || !item || add_text(item, "pattern", o->pattern) != 0 ||
		    add_wish(item, &o->wish) != 0 || !cJSON_AddItemToArray(list, item)) {
			cJSON_Delete(item);
			return -1;
		}
	}
	return list ? 0 : -1;
}

static int add_coding(cJSON *object, const struct mkhct_coding_options *c)
{
	return cJSON_AddNumberToObject(object, "effort", c->effort) &&
			       cJSON_AddStringToObject(object, "transform",
						       mkhct_transform_name(c->transform)) &&
			       cJSON_AddStringToObject(object, "encoder",
						       mkhct_encoder_name(c->encoder)) &&
			       (c->encoder != MKHCT_ENCODER_MIXED ||
				cJSON_AddNumberToObject(object, "fp16_ratio", c->fp16_ratio)) &&
			       cJSON_AddNumberToObject(object, "layers", c->layers)
		       ? 0
		       : -1;
}

char *mkhct_recipe_text(const struct mkhct_options *o, uint64_t importance)
{
	int lossless = mkhct_recipe_is_lossless(o);
	cJSON *object = cJSON_CreateObject();
	char *text = NULL;

	if (object && cJSON_AddStringToObject(object, "mode", lossless ? "lossless" : "lossy") &&
	    (lossless ||
	     (add_policy(object, &o->policy, importance) == 0 &&
	      add_overrides(object, &o->policy) == 0 && add_coding(object, &o->coding) == 0)))
		text = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	return text;
}
