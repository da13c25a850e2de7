#include "importance.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/checksum.h"
#include "codec/io.h"

#define LEAST .10
#define MOST  .95

static const struct {
	const char *name;
	double factor;
} sensitivities[MKHCT_SENSITIVITY_COUNT] = {
	[MKHCT_SENSITIVITY_VERY_LOW] = {"very_low", .5},
	[MKHCT_SENSITIVITY_LOW] = {"low", .7},
	[MKHCT_SENSITIVITY_MEDIUM] = {"medium", 1},
	[MKHCT_SENSITIVITY_NORMAL] = {"normal", 1},
	[MKHCT_SENSITIVITY_HIGH] = {"high", 1.2},
	[MKHCT_SENSITIVITY_FULL] = {"full", 1.5},
	[MKHCT_SENSITIVITY_CRITICAL] = {"critical", 1.5},
};

static const struct mkhct_importance groups[MKHCT_GROUP_COUNT] = {
	[MKHCT_GROUP_OTHER] = {.5, MKHCT_SENSITIVITY_MEDIUM},
	[MKHCT_GROUP_EXACT] = {1, MKHCT_SENSITIVITY_FULL},
	[MKHCT_GROUP_EMBEDDING] = {.95, MKHCT_SENSITIVITY_FULL},
	[MKHCT_GROUP_HEAD] = {.90, MKHCT_SENSITIVITY_HIGH},
	[MKHCT_GROUP_QK] = {.75, MKHCT_SENSITIVITY_MEDIUM},
	[MKHCT_GROUP_VO] = {.80, MKHCT_SENSITIVITY_HIGH},
	[MKHCT_GROUP_QKV] = {.75, MKHCT_SENSITIVITY_MEDIUM},
	[MKHCT_GROUP_MLP] = {.50, MKHCT_SENSITIVITY_LOW},
};

struct entry {
	char *name;
	unsigned ordinal; /* in the file */
	struct mkhct_importance value;
};

struct mkhct_importances {
	struct entry *entries; /* sorted by name */
	size_t count;
	cJSON *root; /* owns the names */
	uint64_t checksum;
	size_t unknown; /* members of tensors */
	struct hct_diag first_unknown, empty;
};

/* What messages are about. */
struct text {
	const char *path, *start;
	size_t length;
	const char *tensors; /* the object, once it is known that there is one */
	struct hct_diag *diag;
};

double mkhct_importance_retention(const struct mkhct_importance *i, double base)
{
	double r = base * (.5 + .5 * i->importance) * sensitivities[i->sensitivity].factor;

	return fmin(fmax(r, LEAST), MOST);
}

struct mkhct_importance mkhct_importance_of_kind(enum mkhct_tensor_kind kind)
{
	return groups[mkhct_kind_group(kind)];
}

const char *mkhct_sensitivity_name(enum mkhct_sensitivity s)
{
	return sensitivities[s].name;
}

/* The line of a place in the text, from 1. */
static size_t line_of(const struct text *t, const char *at)
{
	size_t line = 1;

	for (const char *s = t->start; s < at; s++)
		line += *s == '\n';
	return line;
}

/* cJSON keeps no places, so they are looked for when something is wrong: the key of the n-th
 * member (from 0) of the object that begins at s.  The text is JSON that cJSON has read; the
 * end stops what a surprise would not.  NULL when there is no such member. */
static const char *find_member(const struct text *t, const char *s, unsigned n)
{
	const char *end = t->start + t->length;
	unsigned depth = 0, members = 0;

	for (; s < end; s++) {
		if (depth == 1 && members == n && *s == '"')
			return s;
		if (*s == '"') {
			for (s++; s < end && *s != '"'; s++)
				s += *s == '\\';
		} else if (*s == '{' || *s == '[') {
			depth++;
		} else if (*s == '}' || *s == ']') {
			if (--depth == 0)
				return NULL;
		} else if (*s == ',' && depth == 1) {
			members++;
		}
	}
	return NULL;
}

/* The value of the member whose key begins at s. */
static const char *skip_key(const struct text *t, const char *s)
{
	const char *end = t->start + t->length;

	for (s++; s < end && *s != '"'; s++)
		s += *s == '\\';
	while (s < end && *s != ':')
		s++;
	for (s += s < end; s < end && (unsigned char)*s <= ' '; s++)
		;
	return s < end ? s : end;
}

static unsigned ordinal_of(const cJSON *object, const cJSON *member)
{
	unsigned n = 0;

	for (const cJSON *i = object->child; i && i != member; i = i->next)
		n++;
	return n;
}

static const char *place_of_root(const struct text *t)
{
	return t->start + strspn(t->start, "\xEF\xBB\xBF \t\r\n");
}

/* Where a member of the document is. */
static const char *place_in_root(const struct text *t, const cJSON *root, const cJSON *member)
{
	const char *key = find_member(t, place_of_root(t), ordinal_of(root, member));

	return key ? skip_key(t, key) : t->start;
}

/* Where a tensor is, or a member of it. */
static const char *place_of(const struct text *t, unsigned tensor, const cJSON *object,
			    const cJSON *member)
{
	const char *key = find_member(t, t->tensors, tensor), *inner = NULL;

	if (!key)
		return t->tensors;
	if (member)
		inner = find_member(t, skip_key(t, key), ordinal_of(object, member));
	return inner ? inner : key;
}

static hct_error wrong(const struct text *t, const char *place, const char *name, const char *what)
{
	if (!name)
		return hct_fail(t->diag, HCT_ERR_ARGUMENT, "%s: line %zu: %s", t->path,
				line_of(t, place), what);
	return hct_fail(t->diag, HCT_ERR_ARGUMENT, "%s: line %zu: %s: %s", t->path,
			line_of(t, place), name, what);
}

static hct_error take_entry(const struct text *t, const cJSON *object, unsigned ordinal,
			    struct entry *out)
{
	const cJSON *importance = cJSON_GetObjectItemCaseSensitive(object, "importance");
	const cJSON *sensitivity = cJSON_GetObjectItemCaseSensitive(object, "sensitivity");
	const char *word = cJSON_GetStringValue(sensitivity);
	int s = sensitivity ? 0 : MKHCT_SENSITIVITY_MEDIUM;

	if (!cJSON_IsObject(object) || !importance)
		return wrong(t, place_of(t, ordinal, object, NULL), object->string,
			     "is no object with an importance");
	if (!cJSON_IsNumber(importance) || !(importance->valuedouble >= 0) ||
	    !(importance->valuedouble <= 1))
		return wrong(t, place_of(t, ordinal, object, importance), object->string,
			     "the importance is no number from 0 to 1");
	while (sensitivity && s < MKHCT_SENSITIVITY_COUNT &&
	       (!word || strcmp(word, sensitivities[s].name) != 0))
		s++;
	if (s == MKHCT_SENSITIVITY_COUNT)
		return wrong(t, place_of(t, ordinal, object, sensitivity), object->string,
			     "the sensitivity is none of very_low, low, medium, normal, high, "
			     "full and critical");
	*out = (struct entry){.name = object->string,
			      .ordinal = ordinal,
			      .value = {importance->valuedouble, (enum mkhct_sensitivity)s}};
	return HCT_OK;
}

/* A misspelled sensitivity must not look like one. */
static void see_members(const struct text *t, const cJSON *object, unsigned ordinal,
			struct mkhct_importances *f)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, object)
	{
		if (strcmp(item->string, "importance") == 0 ||
		    strcmp(item->string, "sensitivity") == 0)
			continue;
		if (f->unknown++ == 0)
			hct_fail(&f->first_unknown, HCT_OK, "%s: line %zu: %s: %s", t->path,
				 line_of(t, place_of(t, ordinal, object, item)), object->string,
				 item->string);
	}
}

static int compare_entries(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->ordinal > y->ordinal) - (x->ordinal < y->ordinal);
}

static hct_error take_tensors(const struct text *t, const cJSON *tensors,
			      struct mkhct_importances *f)
{
	const cJSON *item;
	size_t n = 0;
	hct_error err;

	cJSON_ArrayForEach(item, tensors) n++;
	f->entries = calloc(n ? n : 1, sizeof(*f->entries));
	if (!f->entries)
		return hct_fail(t->diag, HCT_ERR_NOMEM, "%s: out of memory", t->path);
	cJSON_ArrayForEach(item, tensors)
	{
		err = take_entry(t, item, (unsigned)f->count, &f->entries[f->count]);
		if (err)
			return err;
		see_members(t, item, (unsigned)f->count, f);
		f->count++;
	}
	if (!f->count)
		hct_fail(&f->empty, HCT_OK,
			 "%s: has no tensors; each goes by its role, as without a file", t->path);
	qsort(f->entries, f->count, sizeof(*f->entries), compare_entries);
	for (size_t i = 1; i < f->count; i++)
		if (strcmp(f->entries[i - 1].name, f->entries[i].name) == 0)
			return wrong(t, place_of(t, f->entries[i].ordinal, NULL, NULL),
				     f->entries[i].name, "is there twice");
	return HCT_OK;
}

static hct_error take_document(struct text *t, struct mkhct_importances *f)
{
	const cJSON *version = cJSON_GetObjectItemCaseSensitive(f->root, "version");
	const cJSON *source = cJSON_GetObjectItemCaseSensitive(f->root, "source");
	const cJSON *tensors = cJSON_GetObjectItemCaseSensitive(f->root, "tensors");

	if (!cJSON_IsObject(f->root))
		return wrong(t, place_of_root(t), NULL, "is no JSON object");
	if (!version || !tensors)
		return wrong(t, place_of_root(t), NULL,
			     version ? "tensors is missing" : "version is missing");
	if (!cJSON_IsNumber(version) || version->valuedouble != 1)
		return wrong(t, place_in_root(t, f->root, version), NULL,
			     "the version is not 1, the only one known");
	if (source && !cJSON_IsString(source))
		return wrong(t, place_in_root(t, f->root, source), NULL, "the source is no string");
	t->tensors = place_in_root(t, f->root, tensors);
	if (!cJSON_IsObject(tensors))
		return wrong(t, t->tensors, NULL, "tensors is no object");
	return take_tensors(t, tensors, f);
}

/* A value takes cJSON about a hundred bytes, and may take the text two. */
static hct_error check_values(const struct text *t)
{
	size_t values = 0;

	for (size_t i = 0; i < t->length; i++)
		values += strchr(",[{", t->start[i] ? t->start[i] : ' ') != NULL;
	if (values > MKHCT_IMPORTANCE_MAX_VALUES)
		return hct_fail(t->diag, HCT_ERR_ARGUMENT,
				"%s: has more than %u values; leave out tensors that the model "
				"does not have",
				t->path, MKHCT_IMPORTANCE_MAX_VALUES);
	return HCT_OK;
}

hct_error mkhct_importances_parse(const char *path, const char *text, size_t n,
				  struct mkhct_importances **out, struct hct_diag *diag)
{
	struct mkhct_importances *f = calloc(1, sizeof(*f));
	/* With a NUL behind it: cJSON then sees what follows the document. */
	char *copy = malloc(n + 1);
	struct text t = {.path = path, .start = copy, .length = n, .diag = diag};
	const char *end = copy;
	hct_error err;

	if (!f || !copy) {
		err = hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", path);
		goto out;
	}
	memcpy(copy, text, n);
	copy[n] = '\0';
	f->checksum = hct_checksum(text, n);
	err = check_values(&t);
	/* cJSON takes a NUL for a blank, and for the end of a name. */
	if (!err && strlen(copy) != n)
		err = wrong(&t, copy + strlen(copy), NULL, "a NUL is no JSON");
	if (err)
		goto out;
	f->root = cJSON_ParseWithLengthOpts(copy, n + 1, &end, 1);
	if (!f->root || end != copy + n)
		err = wrong(&t, end, NULL, "is no JSON from there");
	else
		err = take_document(&t, f);
out:
	free(copy);
	if (err)
		mkhct_importances_free(f);
	else
		*out = f;
	return err;
}

hct_error mkhct_importances_read(const char *path, struct mkhct_importances **out,
				 struct hct_diag *diag)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char *text = NULL;
	struct stat sb;
	hct_error err;

	if (fd < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", path);
	if (fstat(fd, &sb) != 0) {
		err = hct_fail_errno(diag, errno, "%s: cannot be examined", path);
		goto out;
	}
	if (!S_ISREG(sb.st_mode)) {
		err = hct_fail(diag, HCT_ERR_ARGUMENT, "%s: is no regular file", path);
		goto out;
	}
	if (sb.st_size > MKHCT_IMPORTANCE_MAX_BYTES) {
		err = hct_fail(diag, HCT_ERR_ARGUMENT,
			       "%s: is larger than %u MiB; leave out tensors that the model does "
			       "not have, and members other than importance and sensitivity",
			       path, MKHCT_IMPORTANCE_MAX_BYTES >> 20);
		goto out;
	}
	text = malloc((size_t)sb.st_size + 1);
	if (!text) {
		err = hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", path);
		goto out;
	}
	err = hct_read_at(fd, path, text, (size_t)sb.st_size, 0, diag);
	if (!err)
		err = mkhct_importances_parse(path, text, (size_t)sb.st_size, out, diag);
out:
	free(text);
	close(fd);
	return err;
}

int mkhct_importances_note(const struct mkhct_importances *f, unsigned i, struct hct_diag *line)
{
	if (f->unknown && i-- == 0) {
		hct_fail(line, HCT_OK,
			 "%s: has no effect, only importance and sensitivity have (%zu such %s)",
			 f->first_unknown.text, f->unknown, f->unknown == 1 ? "member" : "members");
		return 1;
	}
	if (*f->empty.text && i == 0) {
		*line = f->empty;
		return 1;
	}
	return 0;
}

void mkhct_importances_free(struct mkhct_importances *f)
{
	if (!f)
		return;
	cJSON_Delete(f->root);
	free(f->entries);
	free(f);
}

uint64_t mkhct_importances_checksum(const struct mkhct_importances *f)
{
	return f->checksum;
}

size_t mkhct_importances_count(const struct mkhct_importances *f)
{
	return f->count;
}

const char *mkhct_importances_name(const struct mkhct_importances *f, size_t i)
{
	return f->entries[i].name;
}

int mkhct_importances_find(const struct mkhct_importances *f, const char *name,
			   struct mkhct_importance *out, size_t *at)
{
	size_t low = 0, high = f->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(name, f->entries[middle].name);

		if (order == 0) {
			if (out)
				*out = f->entries[middle].value;
			if (at)
				*at = middle;
			return 1;
		}
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return 0;
}
