#include "match.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "writer/item.h"
#include "writer/json.h"
#include "writer/names.h"

int mkhct_match_options(const cJSON *then, const cJSON *now, const char *when,
			char line[MKHCT_MATCH_LINE])
{
	const cJSON *item;

	if (cJSON_Compare(then, now, 1))
		return 0;
	for (int side = 0; side < 2; side++) {
		const cJSON *mine = side ? now : then;

		cJSON_ArrayForEach(item, mine)
		{
			const cJSON *other = mkhct_json_get(side ? then : now, item->string);
			char *a, *b;

			if (cJSON_Compare(item, other, 1))
				continue;
			a = cJSON_PrintUnformatted(side ? other : item);
			b = cJSON_PrintUnformatted(side ? item : other);
			snprintf(line, MKHCT_MATCH_LINE,
				 "its option %.40s was %.100s and is %.100s%s", item->string,
				 a ? a : "not given", b ? b : "not given", when);
			cJSON_free(a);
			cJSON_free(b);
			return 1;
		}
	}
	strcpy(line, "the options are other ones");
	return 1;
}

static int say(char line[MKHCT_MATCH_LINE], const char *name, const char *how)
{
	char printable[512];

	mkhct_name_printable(name ? name : "what its checkpoint lists", printable,
			     sizeof(printable));
	snprintf(line, MKHCT_MATCH_LINE, "%s %s", printable, how);
	return 1;
}

int mkhct_match_source(cJSON *const *entries, size_t count, const struct mkhct_checkpoint_of *of,
		       char line[MKHCT_MATCH_LINE])
{
	const struct mkhct_source *source = of->source;
	int differs = 0;

	for (size_t i = 0; !differs && (i < source->count || i < count); i++) {
		const struct mkhct_entry *e = i < source->count ? &source->entries[i] : NULL;
		char *then = i < count ? mkhct_name_from_json(entries[i]) : NULL;
		const char *how;

		if (e && then && strcmp(then, e->name) == 0) {
			how = mkhct_item_differs(entries[i], e, of->goals);
			differs = how && say(line, e->name, how);
		} else if (e && (!then || strcmp(e->name, then) < 0)) {
			differs = say(line, e->name, "is new in the source");
		} else {
			differs = say(line, then, "is no longer in the source");
		}
		free(then);
	}
	return differs;
}

int mkhct_match_items(cJSON *const *a, size_t a_count, cJSON *const *b, size_t b_count,
		      char line[MKHCT_MATCH_LINE])
{
	for (size_t i = 0; i < a_count && i < b_count; i++)
		if (!mkhct_item_is_same(a[i], b[i])) {
			char *name = mkhct_name_from_json(b[i]);

			say(line, name, "is another file, or of another time");
			free(name);
			return 1;
		}
	if (a_count == b_count)
		return 0;
	strcpy(line, "the source has not as many files");
	return 1;
}
