#include "shards.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "writer/model.h"
#include "writer/names.h"
#include "writer/patience.h"
#include "writer/twins.h"

#define INDEX_SUFFIX MKHCT_MODEL_SUFFIX ".index.json"
#define MAX_INDEX    (1u << 30) /* 405B models have indexes of 200 KiB */

/* Names of shards ---------------------------------------------------------------------- */

/* Reads digits that end at end; 0 when there are none, or too many.  Returns where they begin. */
static const char *digits_before(const char *name, const char *end, unsigned *value)
{
	const char *begin = end;

	while (begin > name && begin[-1] >= '0' && begin[-1] <= '9')
		begin--;
	*value = 0;
	if (begin == end || end - begin > 9)
		return NULL;
	for (const char *s = begin; s < end; s++)
		*value = *value * 10 + (unsigned)(*s - '0');
	return begin;
}

int mkhct_shards_parse(const char *name, const char *suffix, struct mkhct_shard_name *out)
{
	const char *end = name + strlen(name), *begin;

	if (!mkhct_name_has_suffix(name, suffix))
		return 0;
	end = digits_before(name, end - strlen(suffix), &out->total);
	if (!end || end - name < 4 || memcmp(end - 4, "-of-", 4) != 0)
		return 0;
	end -= 4;
	begin = digits_before(name, end, &out->number);
	if (!begin || begin == name || begin[-1] != '-' || out->number > out->total)
		return 0;
	out->prefix = (size_t)(begin - name);
	out->digits = (int)(end - begin);
	return 1;
}

/* The name of another shard of the same set: malloc'ed, or NULL. */
static char *sibling(const char *name, const struct mkhct_shard_name *s, unsigned number)
{
	char *out = NULL;

	if (asprintf(&out, "%.*s%0*u%s", (int)s->prefix, name, s->digits, number,
		     name + s->prefix + s->digits) < 0)
		return NULL;
	return out;
}

/* Whether the selections take a name, there or not. */
static int is_taken(struct mkhct_select *select, char *name)
{
	size_t verdict = MKHCT_SELECT_NONE;

	for (char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		verdict = mkhct_select_judge(select, name, verdict);
		*slash = '/';
	}
	return mkhct_select_takes(select, mkhct_select_judge(select, name, verdict));
}

static hct_error look_for(struct mkhct_source *source, struct mkhct_select *select,
			  struct mkhct_entry *e, const struct mkhct_shard_name *s, unsigned number,
			  struct hct_diag *diag)
{
	char *name = sibling(e->name, s, number);

	if (!name)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", e->path);
	if (!mkhct_source_find(source, name) && is_taken(select, name))
		e->missing_shard = number;
	free(name);
	return HCT_OK;
}

/* Each asks for its neighbours, so nothing needs to be gathered. */
hct_error mkhct_shards_find_missing(struct mkhct_source *source, struct mkhct_select *select,
				    struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	/* One file by itself is what was asked for. */
	for (size_t i = 0; source->is_folder && !err && i < source->count; i++) {
		struct mkhct_entry *e = &source->entries[i];
		struct mkhct_shard_name s;
		char *zero;
		int from_zero;

		if (e->kind != MKHCT_MODEL || !mkhct_shards_parse(e->name, MKHCT_MODEL_SUFFIX, &s))
			continue;
		zero = sibling(e->name, &s, 0);
		from_zero = zero && mkhct_source_find(source, zero);
		free(zero);
		if (s.number > 1)
			err = look_for(source, select, e, &s, s.number - 1, diag);
		if (!err && s.number + (unsigned)from_zero < s.total)
			err = look_for(source, select, e, &s, s.number + 1, diag);
	}
	return err;
}

/* Indexes ------------------------------------------------------------------------------ */

static hct_error read_index(const struct mkhct_entry *entry, cJSON **out, struct hct_diag *diag)
{
	char *text = NULL;
	hct_error err;
	int fd;

	if (entry->size > MAX_INDEX)
		return hct_fail(diag, HCT_ERR_LIMIT, "%s: too big for an index of shards",
				entry->path);
	fd = mkhct_patient_open(entry->path);
	if (fd < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", entry->path);
	text = malloc((size_t)entry->size + 1);
	if (!text) {
		err = hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", entry->path);
		goto out;
	}
	err = mkhct_patient_read(fd, entry->path, text, (size_t)entry->size, 0, diag);
	if (err)
		goto out;
	*out = cJSON_ParseWithLength(text, (size_t)entry->size);
	if (!cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(*out, "weight_map"))) {
		cJSON_Delete(*out);
		*out = NULL;
		err = hct_fail(diag, HCT_ERR_SAFETENSORS,
			       "%s: not an index of shards: no JSON object with a weight_map",
			       entry->path);
	}
out:
	free(text);
	close(fd);
	return err;
}

/* One line of a weight_map. */
struct place {
	const char *tensor;
	const struct mkhct_entry *shard;
};

/* What one index says; places are sorted by tensor. */
struct map {
	const struct mkhct_source *source;
	const struct mkhct_entry *entry;
	struct place *places;
	size_t count;
};

/* The path of a file beside another one: malloc'ed, or NULL. */
static char *beside(const char *path, const char *name)
{
	char *folder = strndup(path, (size_t)(mkhct_name_base(path) - path)), *joined = NULL;

	if (folder && asprintf(&joined, "%s%s", folder, name) < 0)
		joined = NULL;
	free(folder);
	return joined;
}

/* The shard is not in the source: has it been left out of it, as it is or compressed? */
static hct_error missing_shard(const struct map *m, const char *shard, struct hct_diag *diag)
{
	char *path = mkhct_name_is_safe(shard) ? beside(m->entry->path, shard) : NULL;
	char *packed = path ? malloc(strlen(path) + sizeof(MKHCT_HCT_SUFFIX)) : NULL;
	int there = 0;

	if (packed) {
		strcat(strcpy(packed, path), MKHCT_HCT_SUFFIX);
		there = access(path, F_OK) == 0 || access(packed, F_OK) == 0;
	}
	free(path);
	free(packed);
	if (there)
		return hct_fail(diag, HCT_ERR_ARGUMENT,
				"%s: names the shard %s, which --exclude or --include leave out; "
				"leave out the index, too, or take both",
				m->entry->path, shard);
	return hct_fail(diag, HCT_ERR_NOT_FOUND,
			"%s: names the shard %s, which is not there; finish the download",
			m->entry->path, shard);
}

static int compare_places(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return strcmp(x->tensor, y->tensor);
}

/* Consecutive tensors mostly lie in one shard, so the last one found is remembered. */
static hct_error read_map(struct map *m, const cJSON *map, struct hct_diag *diag)
{
	const struct mkhct_entry *found = NULL;
	const char *last = NULL;
	const cJSON *item;
	size_t count = 0;

	cJSON_ArrayForEach(item, map) count++;
	m->places = calloc(count + 1, sizeof(*m->places));
	if (!m->places)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", m->entry->path);
	cJSON_ArrayForEach(item, map)
	{
		const char *shard = cJSON_GetStringValue(item);

		if (!shard)
			return hct_fail(diag, HCT_ERR_SAFETENSORS,
					"%s: the weight_map gives no file for tensor %s",
					m->entry->path, item->string);
		if (!last || strcmp(last, shard) != 0) {
			char *name = beside(m->entry->name, shard);

			if (!name)
				return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory",
						m->entry->path);
			found = mkhct_source_find(m->source, name);
			free(name);
			if (!found || found->kind == MKHCT_FOLDER)
				return missing_shard(m, shard, diag);
			last = shard;
		}
		m->places[m->count++] = (struct place){item->string, found};
	}
	qsort(m->places, m->count, sizeof(*m->places), compare_places);
	return HCT_OK;
}

/* What does not agree between an index and its shards. */
struct findings {
	size_t agreed;     /* lines of the index whose tensor lies where they say */
	size_t elsewhere;  /* tensors that lie in a shard that the index does not give for them */
	char example[256]; /* one of these */
};

static hct_error compare_shard(const struct map *m, const struct mkhct_entry *shard,
			       struct findings *f, struct hct_diag *diag)
{
	struct mkhct_model model;
	hct_error err = mkhct_model_open(shard, &model, diag);

	if (err)
		return err;
	for (size_t i = 0; i < model.st.count; i++) {
		struct place key = {.tensor = model.st.tensors[i].name};
		const struct place *p =
			bsearch(&key, m->places, m->count, sizeof(*m->places), compare_places);

		if (p && p->shard == shard) {
			f->agreed++;
			continue;
		}
		if (f->elsewhere++ == 0)
			mkhct_name_printable(key.tensor, f->example, sizeof(f->example));
	}
	mkhct_model_close(&model);
	return err;
}

static int is_shard(const struct map *m, const struct mkhct_entry *entry)
{
	for (size_t i = 0; i < m->count; i++)
		if (m->places[i].shard == entry)
			return 1;
	return 0;
}

/* Nothing is lost whatever the index says, so what does not agree is only worth a word. */
static hct_error compare_index(const struct map *m, struct hct_diag *note, struct hct_diag *diag)
{
	struct findings f = {.agreed = 0};
	hct_error err = HCT_OK;

	for (size_t i = 0; !err && i < m->source->count; i++) {
		const struct mkhct_entry *entry = &m->source->entries[i];

		if (entry->kind == MKHCT_MODEL && is_shard(m, entry))
			err = compare_shard(m, entry, &f, diag);
	}
	if (err || *note->text)
		return err;
	if (f.elsewhere)
		snprintf(note->text, sizeof(note->text),
			 "%s: %zu tensor%s in a shard that it does not give for %s (%s%s); all "
			 "are kept, and loaders take those that it gives",
			 m->entry->name, f.elsewhere, f.elsewhere == 1 ? " lies" : "s lie",
			 f.elsewhere == 1 ? "it" : "them", f.elsewhere == 1 ? "" : "first ",
			 f.example);
	else if (f.agreed < m->count)
		snprintf(note->text, sizeof(note->text),
			 "%s: names %zu tensor%s that the shards do not hold; loaders may miss %s",
			 m->entry->name, m->count - f.agreed, m->count - f.agreed == 1 ? "" : "s",
			 m->count - f.agreed == 1 ? "it" : "them");
	return HCT_OK;
}

static hct_error check_index(const struct mkhct_source *source, const struct mkhct_entry *entry,
			     unsigned char *indexed, struct hct_diag *note, struct hct_diag *diag)
{
	struct map m = {.source = source, .entry = entry};
	cJSON *index = NULL;
	hct_error err = read_index(entry, &index, diag);

	if (!err)
		err = read_map(&m, cJSON_GetObjectItemCaseSensitive(index, "weight_map"), diag);
	if (!err && note)
		err = compare_index(&m, note, diag);
	for (size_t i = 0; !err && i < m.count; i++)
		indexed[m.places[i].shard - source->entries] = 1;
	free(m.places);
	cJSON_Delete(index);
	return err;
}

/* Loaders go by an index where there is one: it has said all that is to be there. */
static hct_error check_missing(const struct mkhct_source *source, const unsigned char *indexed,
			       struct hct_diag *diag)
{
	for (size_t i = 0; i < source->count; i++) {
		const struct mkhct_entry *e = &source->entries[i];
		const char *base = mkhct_name_base(e->name);
		struct mkhct_shard_name s;
		char *name;

		if (!e->missing_shard || indexed[i] ||
		    !mkhct_shards_parse(base, MKHCT_MODEL_SUFFIX, &s))
			continue;
		name = sibling(base, &s, e->missing_shard);
		hct_fail(diag, HCT_ERR_NOT_FOUND,
			 "%s: is there, and its shard %s is not; finish the download, or give "
			 "--exclude %s to go without it",
			 e->path, name ? name : "", name ? name : "");
		free(name);
		return HCT_ERR_NOT_FOUND;
	}
	return HCT_OK;
}

hct_error mkhct_shards_check(struct mkhct_source *source, struct hct_diag *note,
			     struct hct_diag *diag)
{
	unsigned char *indexed = calloc(source->count + 1, 1);
	hct_error err = HCT_OK;

	if (!indexed)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", source->path);
	if (note)
		*note->text = '\0';
	for (size_t i = 0; !err && i < source->count; i++) {
		const struct mkhct_entry *entry = &source->entries[i];

		if (entry->kind == MKHCT_CARRIED &&
		    mkhct_name_has_suffix(entry->name, INDEX_SUFFIX))
			err = check_index(source, entry, indexed, note, diag);
	}
	if (!err)
		err = check_missing(source, indexed, diag);
	if (!err && note)
		err = mkhct_twins_find(source, indexed, note, diag);
	free(indexed);
	return err;
}
