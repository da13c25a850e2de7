#include "checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/hct.h"
#include "codec/io.h"
#include "writer/names.h"

#define VERSION   1
#define MAX_BYTES (INT64_C(1) << 31)
#define MAX_WORDS 100000

/* Keys of the document, and of an entry of its list. */
#define LIST       "shards"
#define WORDS      "words"
#define BYTES      "bytes"
#define LEDGER     "ledger_bytes"
#define STATUS     "status"
#define REPORT     "report"
#define TENSORS    "tensors"
#define ERRORS     "errors"
#define REASONS    "reasons"
#define PACKED     "packed" /* of a compressed source: its size, and its time */
#define STAGE      "stage"
#define STATISTICS "statistics"

static const char *const statuses[MKHCT_STATUS_COUNT] = {
	[MKHCT_PENDING] = "pending",
	[MKHCT_IN_PROGRESS] = "in_progress",
	[MKHCT_COMPLETED] = "completed",
	[MKHCT_SKIPPED] = "skipped",
};

static const char *const kinds[] = {
	[MKHCT_FOLDER] = "folder", [MKHCT_MODEL] = "model", [MKHCT_CARRIED] = "carried"};

struct mkhct_checkpoint {
	cJSON *document;
	cJSON **entries; /* those of its list */
	size_t count;
	const char **words;
	size_t word_count;
};

/* JSON -------------------------------------------------------------------------------- */

static const cJSON *get(const cJSON *object, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(object, key);
}

static const char *text_of(const cJSON *object, const char *key)
{
	const char *text = cJSON_GetStringValue(get(object, key));

	return text ? text : "";
}

/* A whole number that a double holds exactly; 0 when it is something else. */
static uint64_t whole_of(const cJSON *item)
{
	double v = cJSON_IsNumber(item) ? item->valuedouble : 0;

	return v >= 0 && v <= 0x1p53 && v == floor(v) ? (uint64_t)v : 0;
}

/* Negative ones, too: times before 1970. */
static int is_number(const cJSON *item, int64_t value)
{
	return cJSON_IsNumber(item) && item->valuedouble == (double)value;
}

/* Takes the item, which may be NULL. */
static int put(cJSON *object, const char *key, cJSON *item)
{
	cJSON_DeleteItemFromObjectCaseSensitive(object, key);
	if (item && cJSON_AddItemToObject(object, key, item))
		return 0;
	cJSON_Delete(item);
	return -1;
}

/* Whole numbers below 2^53 come out as they are. */
static int put_number(cJSON *object, const char *key, double value)
{
	return put(object, key, cJSON_CreateNumber(value));
}

static int put_text(cJSON *object, const char *key, const char *text)
{
	return put(object, key, cJSON_CreateString(text));
}

static int put_hash(cJSON *object, const char *key, uint64_t hash)
{
	char text[17];

	snprintf(text, sizeof(text), "%016" PRIx64, hash);
	return put_text(object, key, text);
}

static hct_error no_memory(struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the checkpoint");
}

/* Making and reading ------------------------------------------------------------------ */

/* Finds what is asked for often; -1 without memory or for what is no checkpoint. */
static int index_document(struct mkhct_checkpoint *c)
{
	const cJSON *list = get(c->document, LIST), *words = get(c->document, WORDS);
	cJSON *item;
	size_t i = 0;

	if (!cJSON_IsArray(list) || !cJSON_IsArray(words) || cJSON_GetArraySize(words) > MAX_WORDS)
		return -1;
	c->count = (size_t)cJSON_GetArraySize(list);
	c->word_count = (size_t)cJSON_GetArraySize(words);
	c->entries = calloc(c->count + 1, sizeof(cJSON *));
	c->words = calloc(c->word_count + 1, sizeof(char *));
	if (!c->entries || !c->words)
		return -1;
	cJSON_ArrayForEach(item, list)
	{
		if (!cJSON_IsObject(item))
			return -1;
		c->entries[i++] = item;
	}
	i = 0;
	cJSON_ArrayForEach(item, words)
	{
		c->words[i] = cJSON_GetStringValue(item);
		if (!c->words[i++])
			return -1;
	}
	return 0;
}

static const struct mkhct_model_goals *goals_of(const struct mkhct_goals *g,
						const struct mkhct_entry *entry)
{
	for (size_t i = 0; g && i < g->count; i++)
		if (g->models[i].entry == entry)
			return &g->models[i];
	return NULL;
}

static int add_entry(cJSON *list, const struct mkhct_checkpoint_of *of, size_t i, int mine)
{
	const struct mkhct_entry *e = &of->source->entries[i];
	const struct mkhct_model_goals *goals =
		e->kind == MKHCT_MODEL ? goals_of(of->goals, e) : NULL;
	enum mkhct_status status = e->kind == MKHCT_FOLDER ? MKHCT_COMPLETED
				   : mine                  ? MKHCT_PENDING
							   : MKHCT_SKIPPED;
	const double mtime[] = {(double)e->mtime.tv_sec, (double)e->mtime.tv_nsec};
	const double disk[] = {(double)e->disk_size, (double)e->disk_mtime.tv_sec,
			       (double)e->disk_mtime.tv_nsec};
	cJSON *item = cJSON_CreateObject();

	if (!item || !cJSON_AddItemToArray(list, item)) {
		cJSON_Delete(item);
		return -1;
	}
	return mkhct_name_to_json(item, e->name) == 0 &&
			       put_text(item, "kind", kinds[e->kind]) == 0 &&
			       put_number(item, "mode", e->mode) == 0 &&
			       put_number(item, "size", (double)e->size) == 0 &&
			       put(item, "mtime", cJSON_CreateDoubleArray(mtime, 2)) == 0 &&
			       (!e->packed ||
				put(item, PACKED, cJSON_CreateDoubleArray(disk, 3)) == 0) &&
			       (!goals ||
				put_hash(item, "header_xxh3", goals->header_checksum) == 0) &&
			       put_text(item, STATUS, statuses[status]) == 0
		       ? 0
		       : -1;
}

static int fill(cJSON *root, const struct mkhct_checkpoint_of *of,
		int (*is_mine)(const struct mkhct_checkpoint_of *, size_t entry))
{
	char label[1024];
	cJSON *list, *words;

	mkhct_name_printable(of->source->label, label, sizeof(label));
	if (put_number(root, "version", VERSION) != 0 || put_text(root, "tool", "mkhct") != 0 ||
	    put_text(root, "tool_version", HCT_VERSION) != 0 ||
	    put_text(root, "model", label) != 0 ||
	    put(root, "options", cJSON_Parse(of->options)) != 0 ||
	    put(root, WORDS, words = cJSON_CreateArray()) != 0 ||
	    put_number(root, "is_folder", of->source->is_folder) != 0 ||
	    put_number(root, "part", of->part) != 0 || put_number(root, "parts", of->parts) != 0 ||
	    put_text(root, STAGE, "writing") != 0 ||
	    put(root, STATISTICS, cJSON_CreateObject()) != 0 ||
	    put(root, LIST, list = cJSON_CreateArray()) != 0)
		return -1;
	for (size_t i = 0; i < of->word_count; i++)
		if (!cJSON_AddItemToArray(words, cJSON_CreateString(of->words[i])))
			return -1;
	for (size_t i = 0; i < of->source->count; i++)
		if (add_entry(list, of, i, is_mine(of, i)) != 0)
			return -1;
	return 0;
}

hct_error mkhct_checkpoint_create(const struct mkhct_checkpoint_of *of,
				  int (*is_mine)(const struct mkhct_checkpoint_of *, size_t entry),
				  struct mkhct_checkpoint **out, struct hct_diag *diag)
{
	struct mkhct_checkpoint *c = calloc(1, sizeof(*c));

	if (c)
		c->document = cJSON_CreateObject();
	if (!c || !c->document || fill(c->document, of, is_mine) != 0 || index_document(c) != 0) {
		mkhct_checkpoint_free(c);
		return no_memory(diag);
	}
	*out = c;
	return HCT_OK;
}

static hct_error read_text(int fd, const char *shown, char **text, size_t *length,
			   struct hct_diag *diag)
{
	struct stat sb;
	hct_error err;

	if (fstat(fd, &sb) != 0)
		return hct_fail_errno(diag, errno, "%s: cannot be examined", shown);
	if (!S_ISREG(sb.st_mode) || sb.st_size >= MAX_BYTES)
		return hct_fail(diag, HCT_ERR_CORRUPT, "%s: no checkpoint of mkhct; remove it",
				shown);
	*length = (size_t)sb.st_size;
	*text = malloc(*length + 1);
	if (!*text)
		return no_memory(diag);
	err = hct_read_at(fd, shown, *text, *length, 0, diag);
	if (err) {
		free(*text);
		*text = NULL;
	}
	return err;
}

/* The parts of a version number, at most three. */
static int is_newer(const char *version, const char *than)
{
	unsigned a[3] = {0}, b[3] = {0};

	(void)sscanf(version, "%5u.%5u.%5u", &a[0], &a[1], &a[2]);
	(void)sscanf(than, "%5u.%5u.%5u", &b[0], &b[1], &b[2]);
	for (int i = 0; i < 3; i++)
		if (a[i] != b[i])
			return a[i] > b[i];
	return 0;
}

static hct_error check_version(const struct mkhct_checkpoint *c, const char *shown,
			       struct hct_diag *diag)
{
	const char *tool = text_of(c->document, "tool_version");

	if (whole_of(get(c->document, "version")) > VERSION || is_newer(tool, HCT_VERSION))
		return hct_fail(
			diag, HCT_ERR_EXISTS,
			"%s: was begun by mkhct %.32s, which is newer than this one (%s); go "
			"on with that, or give --restart to begin anew",
			shown, tool, HCT_VERSION);
	return HCT_OK;
}

hct_error mkhct_checkpoint_read(int root, const char *name, const char *shown,
				struct mkhct_checkpoint **out, struct hct_diag *diag)
{
	int fd = openat(root, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct mkhct_checkpoint *c = NULL;
	char *text = NULL;
	size_t length = 0;
	hct_error err;

	*out = NULL;
	if (fd < 0)
		return errno == ENOENT ? HCT_OK
				       : hct_fail_errno(diag, errno, "%s: cannot be opened", shown);
	err = read_text(fd, shown, &text, &length, diag);
	if (err)
		goto out;
	c = calloc(1, sizeof(*c));
	if (!c) {
		err = no_memory(diag);
		goto out;
	}
	c->document = cJSON_ParseWithLength(text, length);
	if (c->document)
		err = check_version(c, shown, diag);
	if (!err && (!c->document || index_document(c) != 0))
		err = hct_fail(diag, HCT_ERR_CORRUPT,
			       "%s: is damaged; give --restart to begin anew", shown);
out:
	close(fd);
	free(text);
	if (err)
		mkhct_checkpoint_free(c);
	else
		*out = c;
	return err;
}

void mkhct_checkpoint_free(struct mkhct_checkpoint *c)
{
	if (!c)
		return;
	cJSON_Delete(c->document);
	free(c->entries);
	free(c->words);
	free(c);
}

size_t mkhct_checkpoint_words(const struct mkhct_checkpoint *c, const char *const **words)
{
	*words = c->words;
	return c->word_count;
}

/* Matching ---------------------------------------------------------------------------- */

static hct_error differs(const char *out, struct hct_diag *diag, const char *what)
{
	return hct_fail(
		diag, HCT_ERR_EXISTS,
		"%s: is unfinished, and %s; give --restart to begin anew, or go on with what it "
		"was begun with",
		out, what);
}

/* What an option was and is: "retention 0.7, now 0.6". */
static hct_error match_options(const struct mkhct_checkpoint *c, const char *options,
			       const char *out, struct hct_diag *diag)
{
	cJSON *now = cJSON_Parse(options);
	const cJSON *then = get(c->document, "options"), *item;
	char line[512];
	hct_error err = HCT_OK;

	if (!now)
		return no_memory(diag);
	if (cJSON_Compare(then, now, 1))
		goto out;
	strcpy(line, "the options are other ones");
	for (int side = 0; side < 2; side++) {
		const cJSON *mine = side ? now : then;

		cJSON_ArrayForEach(item, mine)
		{
			const cJSON *other = get(side ? then : now, item->string);
			char *a, *b;

			if (cJSON_Compare(item, other, 1))
				continue;
			a = cJSON_PrintUnformatted(side ? other : item);
			b = cJSON_PrintUnformatted(side ? item : other);
			snprintf(line, sizeof(line),
				 "its option %.40s was %.100s and is %.100s now", item->string,
				 a ? a : "not given", b ? b : "not given");
			cJSON_free(a);
			cJSON_free(b);
			goto differ;
		}
	}
differ:
	err = differs(out, diag, line);
out:
	cJSON_Delete(now);
	return err;
}

/* NULL, or how an entry of the source is not what it was. */
static const char *entry_differs(const cJSON *item, const struct mkhct_entry *e,
				 const struct mkhct_goals *goals)
{
	const cJSON *mtime = get(item, "mtime"), *packed = get(item, PACKED);
	const struct mkhct_model_goals *g;
	char hash[17];

	if (strcmp(text_of(item, "kind"), kinds[e->kind]) != 0)
		return "is of another kind now";
	if (e->kind == MKHCT_FOLDER)
		return NULL;
	if (whole_of(get(item, "size")) != e->size)
		return "has another size now";
	if (!is_number(cJSON_GetArrayItem(mtime, 0), e->mtime.tv_sec) ||
	    !is_number(cJSON_GetArrayItem(mtime, 1), e->mtime.tv_nsec))
		return "was written to since";
	if (e->packed && (whole_of(cJSON_GetArrayItem(packed, 0)) != e->disk_size ||
			  !is_number(cJSON_GetArrayItem(packed, 1), e->disk_mtime.tv_sec) ||
			  !is_number(cJSON_GetArrayItem(packed, 2), e->disk_mtime.tv_nsec)))
		return "was written to since";
	g = e->kind == MKHCT_MODEL ? goals_of(goals, e) : NULL;
	if (!g)
		return NULL;
	snprintf(hash, sizeof(hash), "%016" PRIx64, g->header_checksum);
	return strcmp(hash, text_of(item, "header_xxh3")) != 0 ? "has another header now" : NULL;
}

static hct_error match_source(const struct mkhct_checkpoint *c,
			      const struct mkhct_checkpoint_of *of, const char *out,
			      struct hct_diag *diag)
{
	const struct mkhct_source *source = of->source;
	char name[512], line[640];

	for (size_t i = 0; i < source->count || i < c->count; i++) {
		const struct mkhct_entry *e = i < source->count ? &source->entries[i] : NULL;
		char *then = i < c->count ? mkhct_name_from_json(c->entries[i]) : NULL;
		const char *how = NULL;

		if (e && then && strcmp(then, e->name) == 0)
			how = entry_differs(c->entries[i], e, of->goals);
		else if (e && (!then || strcmp(e->name, then) < 0))
			how = "is new in the source";
		else
			how = "is no longer in the source";
		if (!how) {
			free(then);
			continue;
		}
		mkhct_name_printable(!strstr(how, "no longer") ? e->name
				     : then                    ? then
							       : "what its checkpoint lists",
				     name, sizeof(name));
		free(then);
		snprintf(line, sizeof(line), "%s %s", name, how);
		return differs(out, diag, line);
	}
	return HCT_OK;
}

hct_error mkhct_checkpoint_match(const struct mkhct_checkpoint *c,
				 const struct mkhct_checkpoint_of *of, const char *out,
				 struct hct_diag *diag)
{
	hct_error err = match_options(c, of->options, out, diag);

	return err ? err : match_source(c, of, out, diag);
}

/* State ------------------------------------------------------------------------------- */

void mkhct_checkpoint_state(const struct mkhct_checkpoint *c, size_t entry, struct mkhct_state *out)
{
	const cJSON *item = c->entries[entry];
	const char *status = text_of(item, STATUS);

	*out = (struct mkhct_state){.bytes = whole_of(get(item, BYTES)),
				    .ledger_bytes = whole_of(get(item, LEDGER)),
				    .tensors = whole_of(get(item, "completed_tensors")),
				    .report = get(item, REPORT)};
	for (int s = 0; s < MKHCT_STATUS_COUNT; s++)
		if (strcmp(status, statuses[s]) == 0)
			out->status = (enum mkhct_status)s;
}

int mkhct_checkpoint_set_progress(struct mkhct_checkpoint *c, size_t entry,
				  const struct mkhct_standing *standing)
{
	cJSON *item = c->entries[entry];

	return put_text(item, STATUS, statuses[MKHCT_IN_PROGRESS]) == 0 &&
			       put_number(item, BYTES, (double)standing->bytes) == 0 &&
			       put_number(item, LEDGER, (double)standing->ledger_bytes) == 0 &&
			       put_number(item, "completed_tensors", (double)standing->tensors) ==
				       0 &&
			       put_number(item, "chunks_of_next", (double)standing->chunks) == 0
		       ? 0
		       : -1;
}

int mkhct_checkpoint_set_completed(struct mkhct_checkpoint *c, size_t entry, uint64_t bytes,
				   const char *report)
{
	cJSON *item = c->entries[entry];

	cJSON_DeleteItemFromObjectCaseSensitive(item, "chunks_of_next");
	cJSON_DeleteItemFromObjectCaseSensitive(item, LEDGER);
	return put_text(item, STATUS, statuses[MKHCT_COMPLETED]) == 0 &&
			       put_number(item, BYTES, (double)bytes) == 0 &&
			       (!report || put(item, REPORT, cJSON_Parse(report)) == 0)
		       ? 0
		       : -1;
}

int mkhct_checkpoint_set_pending(struct mkhct_checkpoint *c, size_t entry)
{
	static const char *const keys[] = {BYTES,   LEDGER,           REPORT,
					   TENSORS, "chunks_of_next", "completed_tensors"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		cJSON_DeleteItemFromObjectCaseSensitive(c->entries[entry], keys[i]);
	return put_text(c->entries[entry], STATUS, statuses[MKHCT_PENDING]);
}

int mkhct_checkpoint_set_tensors(struct mkhct_checkpoint *c, size_t entry, const char *list)
{
	cJSON_DeleteItemFromObjectCaseSensitive(c->entries[entry], TENSORS);
	return list ? put(c->entries[entry], TENSORS, cJSON_CreateRaw(list)) : 0;
}

int mkhct_checkpoint_set_errors(struct mkhct_checkpoint *c, size_t entry,
				const struct hct_goal *goals,
				const struct mkhct_decision *decisions, size_t count)
{
	cJSON *list = cJSON_CreateArray(), *reasons = cJSON_CreateArray();
	int rc = put(c->entries[entry], ERRORS, list);

	if (put(c->entries[entry], REASONS, reasons) != 0 || rc != 0)
		return -1;
	for (size_t i = 0; i < count; i++)
		if (!cJSON_AddItemToArray(list,
					  cJSON_CreateNumber(goals[i].relative_squared_error)) ||
		    !cJSON_AddItemToArray(reasons, cJSON_CreateString(decisions[i].reason)))
			return -1;
	return 0;
}

int mkhct_checkpoint_errors(const struct mkhct_checkpoint *c, size_t entry, struct hct_goal *goals,
			    struct mkhct_decision *decisions, size_t count)
{
	const cJSON *list = get(c->entries[entry], ERRORS), *item;
	const cJSON *reasons = get(c->entries[entry], REASONS);
	size_t i = 0;

	if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != count ||
	    !cJSON_IsArray(reasons) || (size_t)cJSON_GetArraySize(reasons) != count)
		return 0;
	cJSON_ArrayForEach(item, list)
	{
		if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || !(item->valuedouble < 1))
			return 0;
		if (goals)
			goals[i++].relative_squared_error = item->valuedouble;
	}
	if (!goals)
		return 1;
	i = 0;
	cJSON_ArrayForEach(item, reasons)
	{
		const char *reason = cJSON_GetStringValue(item);

		mkhct_name_printable(reason ? reason : "", decisions[i].reason,
				     sizeof(decisions[i].reason));
		i++;
	}
	return 1;
}

/* The same file in both, whatever became of it. */
static int is_same(const cJSON *a, const cJSON *b)
{
	static const char *const keys[] = {"name", "name_hex", "kind",
					   "size", "mtime",    "header_xxh3"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		const cJSON *x = get(a, keys[i]), *y = get(b, keys[i]);

		if (x || y ? !cJSON_Compare(x, y, 1) : 0)
			return 0;
	}
	return 1;
}

int mkhct_checkpoint_merge(struct mkhct_checkpoint *c, const struct mkhct_checkpoint *other)
{
	const cJSON *item;

	if (c->count != other->count ||
	    !cJSON_Compare(get(c->document, "options"), get(other->document, "options"), 1))
		return 1;
	for (size_t i = 0; i < c->count; i++) {
		struct mkhct_state state;

		if (!is_same(c->entries[i], other->entries[i]))
			return 1;
		mkhct_checkpoint_state(other, i, &state);
		if (state.status != MKHCT_COMPLETED)
			continue;
		cJSON_ArrayForEach(item, other->entries[i])
		{
			if (put(c->entries[i], item->string, cJSON_Duplicate(item, 1)) != 0)
				return -1;
		}
	}
	cJSON_ArrayForEach(item, get(other->document, STATISTICS))
	{
		if (cJSON_IsNumber(item))
			mkhct_checkpoint_count(c, item->string, item->valuedouble);
	}
	return 0;
}

int mkhct_checkpoint_set_naming(struct mkhct_checkpoint *c)
{
	return put_text(c->document, STAGE, "naming");
}

int mkhct_checkpoint_is_naming(const struct mkhct_checkpoint *c)
{
	return strcmp(text_of(c->document, STAGE), "naming") == 0;
}

double mkhct_checkpoint_counted(const struct mkhct_checkpoint *c, const char *key)
{
	const cJSON *item = get(get(c->document, STATISTICS), key);

	return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

int mkhct_checkpoint_count(struct mkhct_checkpoint *c, const char *key, double amount)
{
	cJSON *statistics = cJSON_GetObjectItemCaseSensitive(c->document, STATISTICS);

	return cJSON_IsObject(statistics)
		       ? put_number(statistics, key, mkhct_checkpoint_counted(c, key) + amount)
		       : 0;
}

cJSON *mkhct_checkpoint_document(struct mkhct_checkpoint *c)
{
	return c->document;
}

cJSON *mkhct_checkpoint_entry(const struct mkhct_checkpoint *c, size_t entry)
{
	return c->entries[entry];
}

size_t mkhct_checkpoint_entries(const struct mkhct_checkpoint *c)
{
	return c->count;
}

/* The source of an unfinished bundle -------------------------------------------------- */

/* Whether a file lies in a folder that is listed, too: what is not may be a link to elsewhere. */
static int has_folder(const struct mkhct_source *s, const char *name)
{
	const char *base = mkhct_name_base(name);
	char *folder = base > name ? strndup(name, (size_t)(base - name - 1)) : NULL;
	const struct mkhct_entry *e = folder ? mkhct_source_find(s, folder) : NULL;

	free(folder);
	return base == name || (e && e->kind == MKHCT_FOLDER);
}

static int source_entry(const cJSON *item, struct mkhct_source *s)
{
	struct mkhct_entry *e = &s->entries[s->count];
	const char *kind = text_of(item, "kind");
	int k = 0;

	while (k < 3 && strcmp(kind, kinds[k]) != 0)
		k++;
	if (k == 3)
		return -1;
	*e = (struct mkhct_entry){.kind = (enum mkhct_kind)k,
				  .name = mkhct_name_from_json(item),
				  .size = whole_of(get(item, "size")),
				  .mode = (mode_t)whole_of(get(item, "mode")) & 0777};
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

hct_error mkhct_checkpoint_source(const struct mkhct_checkpoint *c, struct mkhct_source *out,
				  struct hct_diag *diag)
{
	*out = (struct mkhct_source){.path = strdup(text_of(c->document, "model")),
				     .label = strdup(text_of(c->document, "model")),
				     .is_folder = whole_of(get(c->document, "is_folder")) != 0,
				     .entries = calloc(c->count + 1, sizeof(*out->entries))};
	if (!out->path || !out->label || !out->entries)
		goto fail;
	for (size_t i = 0; i < c->count; i++)
		if (source_entry(c->entries[i], out) != 0)
			goto fail;
	return HCT_OK;
fail:
	mkhct_source_free(out);
	return hct_fail(diag, HCT_ERR_CORRUPT, "its checkpoint is damaged");
}

/* Writing ----------------------------------------------------------------------------- */

static hct_error write_text(int root, const char *name, const char *shown, const char *text,
			    struct hct_diag *diag)
{
	int fd = openat(root, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
	hct_error err;

	if (fd < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be made", shown);
	err = hct_write_all(fd, shown, text, strlen(text), diag);
	if (!err && fsync(fd) != 0)
		err = hct_fail_errno(diag, errno, "%s: cannot be written to disk", shown);
	if (close(fd) != 0 && !err)
		err = hct_fail_errno(diag, errno, "%s: cannot be written to disk", shown);
	return err;
}

/* Syncs the folder of a file; not every file system can. */
static hct_error sync_folder_of(int root, const char *name, const char *shown,
				struct hct_diag *diag)
{
	char *folder = strndup(name, (size_t)(mkhct_name_base(name) - name));
	int fd = folder ? openat(root, *folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
			: -1;
	hct_error err = HCT_OK;

	free(folder);
	if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP && errno != ENOSYS))
		err = hct_fail_errno(diag, errno, "%s: cannot be written to disk", shown);
	if (fd >= 0)
		close(fd);
	return err;
}

hct_error mkhct_checkpoint_write(const struct mkhct_checkpoint *c, int root, const char *name,
				 const char *shown, struct hct_diag *diag)
{
	char *text = cJSON_PrintUnformatted(c->document), *part = NULL;
	hct_error err;

	if (!text || asprintf(&part, "%s.part", name) < 0) {
		cJSON_free(text);
		return no_memory(diag);
	}
	err = write_text(root, part, shown, text, diag);
	if (!err && renameat(root, part, root, name) != 0)
		err = hct_fail_errno(diag, errno, "%s: cannot be given its name", shown);
	if (err)
		(void)unlinkat(root, part, 0);
	else
		err = sync_folder_of(root, name, shown, diag);
	cJSON_free(text);
	free(part);
	return err;
}
