#include "checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/hct.h"
#include "codec/io.h"
#include "writer/item.h"
#include "writer/json.h"
#include "writer/match.h"
#include "writer/names.h"

#define VERSION   1
#define MAX_BYTES (INT64_C(1) << 31)
#define MAX_WORDS 100000

/* Keys of the document, and of an entry of its list. */
#define LIST       "shards"
#define WORDS      "words"
#define BYTES      "bytes"
#define LEDGER     "ledger_bytes"
#define CHECKSUM   "bytes_xxh3"
#define STATUS     MKHCT_ITEM_STATUS
#define REPORT     "report"
#define TENSORS    "tensors"
#define ERRORS     "errors"
#define REASONS    "reasons"
#define STAGE      "stage"
#define STATISTICS "statistics"
#define OF_PARTS   "statistics_of_parts"

static const char *const statuses[MKHCT_STATUS_COUNT] = {
	[MKHCT_PENDING] = "pending",
	[MKHCT_IN_PROGRESS] = "in_progress",
	[MKHCT_COMPLETED] = "completed",
	[MKHCT_SKIPPED] = "skipped",
};

struct mkhct_checkpoint {
	cJSON *document;
	cJSON **entries; /* those of its list */
	size_t count;
	const char **words;
	size_t word_count;
};

static hct_error no_memory(struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the checkpoint");
}

/* Making and reading ------------------------------------------------------------------ */

/* Finds what is asked for often; -1 without memory or for what is no checkpoint. */
static int index_document(struct mkhct_checkpoint *c)
{
	const cJSON *list = mkhct_json_get(c->document, LIST),
		    *words = mkhct_json_get(c->document, WORDS);
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

static int fill(cJSON *root, const struct mkhct_checkpoint_of *of,
		int (*is_mine)(const struct mkhct_checkpoint_of *, size_t entry))
{
	char label[1024];
	cJSON *list, *words;

	mkhct_name_printable(of->source->label, label, sizeof(label));
	if (mkhct_json_put_number(root, "version", VERSION) != 0 ||
	    mkhct_json_put_text(root, "tool", "mkhct") != 0 ||
	    mkhct_json_put_text(root, "tool_version", HCT_VERSION) != 0 ||
	    mkhct_json_put_text(root, "model", label) != 0 ||
	    mkhct_json_put(root, "options", cJSON_Parse(of->options)) != 0 ||
	    mkhct_json_put(root, WORDS, words = cJSON_CreateArray()) != 0 ||
	    mkhct_json_put_number(root, "is_folder", of->source->is_folder) != 0 ||
	    mkhct_json_put_number(root, "part", of->part) != 0 ||
	    mkhct_json_put_number(root, "parts", of->parts) != 0 ||
	    mkhct_json_put_text(root, STAGE, "writing") != 0 ||
	    mkhct_json_put(root, STATISTICS, cJSON_CreateObject()) != 0 ||
	    mkhct_json_put(root, LIST, list = cJSON_CreateArray()) != 0)
		return -1;
	for (size_t i = 0; i < of->word_count; i++)
		if (!cJSON_AddItemToArray(words, cJSON_CreateString(of->words[i])))
			return -1;
	for (size_t i = 0; i < of->source->count; i++) {
		enum mkhct_status status = of->source->entries[i].kind == MKHCT_FOLDER
						   ? MKHCT_COMPLETED
					   : is_mine(of, i) ? MKHCT_PENDING
							    : MKHCT_SKIPPED;

		if (mkhct_item_add(list, &of->source->entries[i], of->goals, statuses[status]) != 0)
			return -1;
	}
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
	const char *tool = mkhct_json_text(c->document, "tool_version");
	unsigned long version =
		(unsigned long)mkhct_json_whole(mkhct_json_get(c->document, "version"));

	if (is_newer(tool, HCT_VERSION))
		return hct_fail(
			diag, HCT_ERR_EXISTS,
			"%s: was begun by mkhct %.32s, which is newer than this one (%s); go "
			"on with that, or give --restart to begin anew",
			shown, tool, HCT_VERSION);
	if (version > VERSION)
		return hct_fail(
			diag, HCT_ERR_EXISTS,
			"%s: was begun by a newer mkhct: it is of version %lu, and this one "
			"knows %d; go on with that, or give --restart to begin anew",
			shown, version, VERSION);
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

/* HCT_ERR_EXISTS: line has what differs. */
static hct_error match(const struct mkhct_checkpoint *c, const struct mkhct_checkpoint_of *of,
		       char line[MKHCT_MATCH_LINE], struct hct_diag *diag)
{
	cJSON *now = cJSON_Parse(of->options);
	int differs = now && (mkhct_match_options(mkhct_json_get(c->document, "options"), now,
						  " now", line) ||
			      mkhct_match_source(c->entries, c->count, of, line));

	cJSON_Delete(now);
	return !now ? no_memory(diag) : differs ? HCT_ERR_EXISTS : HCT_OK;
}

hct_error mkhct_checkpoint_match(const struct mkhct_checkpoint *c,
				 const struct mkhct_checkpoint_of *of, const char *out,
				 struct hct_diag *diag)
{
	char line[MKHCT_MATCH_LINE];
	hct_error err = match(c, of, line, diag);

	if (err != HCT_ERR_EXISTS)
		return err;
	return hct_fail(diag, err,
			"%s: is unfinished, and %s; give --restart to begin anew, or go on with "
			"what it was begun with",
			out, line);
}

hct_error mkhct_checkpoint_match_part(const struct mkhct_checkpoint *c,
				      const struct mkhct_checkpoint_of *of, const char *out,
				      struct hct_diag *diag)
{
	unsigned part = (unsigned)mkhct_json_whole(mkhct_json_get(c->document, "part"));
	char line[MKHCT_MATCH_LINE];
	hct_error err = match(c, of, line, diag);

	if (err != HCT_ERR_EXISTS)
		return err;
	return hct_fail(diag, err,
			"%s: is not what part %u of it was begun with: %s; give --restart and the "
			"source and options of part %u, or --restart to all parts",
			out, part, line, part);
}

/* State ------------------------------------------------------------------------------- */

void mkhct_checkpoint_state(const struct mkhct_checkpoint *c, size_t entry, struct mkhct_state *out)
{
	const cJSON *item = c->entries[entry];
	const char *status = mkhct_json_text(item, STATUS);

	*out = (struct mkhct_state){
		.bytes = mkhct_json_whole(mkhct_json_get(item, BYTES)),
		.ledger_bytes = mkhct_json_whole(mkhct_json_get(item, LEDGER)),
		.checksum = mkhct_json_hash(item, CHECKSUM),
		.tensors = mkhct_json_whole(mkhct_json_get(item, "completed_tensors")),
		.report = mkhct_json_get(item, REPORT)};
	for (int s = 0; s < MKHCT_STATUS_COUNT; s++)
		if (strcmp(status, statuses[s]) == 0)
			out->status = (enum mkhct_status)s;
}

int mkhct_checkpoint_set_progress(struct mkhct_checkpoint *c, size_t entry,
				  const struct mkhct_standing *standing)
{
	cJSON *item = c->entries[entry];

	return mkhct_json_put_text(item, STATUS, statuses[MKHCT_IN_PROGRESS]) == 0 &&
			       mkhct_json_put_number(item, BYTES, (double)standing->bytes) == 0 &&
			       mkhct_json_put_number(item, LEDGER,
						     (double)standing->ledger_bytes) == 0 &&
			       mkhct_json_put_number(item, "completed_tensors",
						     (double)standing->tensors) == 0 &&
			       mkhct_json_put_number(item, "chunks_of_next",
						     (double)standing->chunks) == 0
		       ? 0
		       : -1;
}

int mkhct_checkpoint_set_copied(struct mkhct_checkpoint *c, size_t entry, uint64_t bytes,
				uint64_t checksum)
{
	cJSON *item = c->entries[entry];

	return mkhct_json_put_text(item, STATUS, statuses[MKHCT_IN_PROGRESS]) == 0 &&
			       mkhct_json_put_number(item, BYTES, (double)bytes) == 0 &&
			       mkhct_json_put_hash(item, CHECKSUM, checksum) == 0
		       ? 0
		       : -1;
}

int mkhct_checkpoint_set_completed(struct mkhct_checkpoint *c, size_t entry, uint64_t bytes,
				   const char *report)
{
	cJSON *item = c->entries[entry];

	cJSON_DeleteItemFromObjectCaseSensitive(item, "chunks_of_next");
	cJSON_DeleteItemFromObjectCaseSensitive(item, LEDGER);
	cJSON_DeleteItemFromObjectCaseSensitive(item, CHECKSUM);
	return mkhct_json_put_text(item, STATUS, statuses[MKHCT_COMPLETED]) == 0 &&
			       mkhct_json_put_number(item, BYTES, (double)bytes) == 0 &&
			       (!report ||
				mkhct_json_put(item, REPORT, cJSON_CreateRaw(report)) == 0)
		       ? 0
		       : -1;
}

void mkhct_checkpoint_put_back(struct mkhct_checkpoint *c, size_t entry, cJSON *before)
{
	cJSON *list = cJSON_GetObjectItemCaseSensitive(c->document, LIST);

	if (cJSON_ReplaceItemViaPointer(list, c->entries[entry], before))
		c->entries[entry] = before;
}

int mkhct_checkpoint_set_pending(struct mkhct_checkpoint *c, size_t entry)
{
	static const char *const keys[] = {BYTES,   LEDGER,           CHECKSUM,           REPORT,
					   TENSORS, "chunks_of_next", "completed_tensors"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		cJSON_DeleteItemFromObjectCaseSensitive(c->entries[entry], keys[i]);
	return mkhct_json_put_text(c->entries[entry], STATUS, statuses[MKHCT_PENDING]);
}

int mkhct_checkpoint_set_tensors(struct mkhct_checkpoint *c, size_t entry, const char *list)
{
	cJSON_DeleteItemFromObjectCaseSensitive(c->entries[entry], TENSORS);
	return list ? mkhct_json_put(c->entries[entry], TENSORS, cJSON_CreateRaw(list)) : 0;
}

int mkhct_checkpoint_set_errors(struct mkhct_checkpoint *c, size_t entry,
				const struct hct_goal *goals,
				const struct mkhct_decision *decisions, size_t count)
{
	cJSON *list = cJSON_CreateArray(), *reasons = cJSON_CreateArray();
	int rc = mkhct_json_put(c->entries[entry], ERRORS, list);

	if (mkhct_json_put(c->entries[entry], REASONS, reasons) != 0 || rc != 0)
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
	const cJSON *list = mkhct_json_get(c->entries[entry], ERRORS), *item;
	const cJSON *reasons = mkhct_json_get(c->entries[entry], REASONS);
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

/* Under the number of the part, so that what is merged once more counts once. */
static int keep_statistics(struct mkhct_checkpoint *c, const struct mkhct_checkpoint *other)
{
	const cJSON *statistics = mkhct_json_get(other->document, STATISTICS);
	cJSON *all = cJSON_GetObjectItemCaseSensitive(c->document, OF_PARTS);
	char part[24];

	if (!cJSON_IsObject(all)) {
		all = cJSON_CreateObject();
		if (mkhct_json_put(c->document, OF_PARTS, all) != 0)
			return -1;
	}
	snprintf(part, sizeof(part), "%" PRIu64,
		 mkhct_json_whole(mkhct_json_get(other->document, "part")));
	return mkhct_json_put(all, part,
			      cJSON_IsObject(statistics) ? cJSON_Duplicate(statistics, 1)
							 : cJSON_CreateObject());
}

int mkhct_checkpoint_merge(struct mkhct_checkpoint *c, const struct mkhct_checkpoint *other,
			   char line[])
{
	const cJSON *item;

	if (mkhct_match_options(mkhct_json_get(c->document, "options"),
				mkhct_json_get(other->document, "options"), "", line) ||
	    mkhct_match_items(c->entries, c->count, other->entries, other->count, line))
		return 1;
	for (size_t i = 0; i < c->count; i++) {
		struct mkhct_state state;

		mkhct_checkpoint_state(other, i, &state);
		if (state.status != MKHCT_COMPLETED)
			continue;
		cJSON_ArrayForEach(item, other->entries[i])
		{
			if (mkhct_json_put(c->entries[i], item->string, cJSON_Duplicate(item, 1)) !=
			    0)
				return -1;
		}
	}
	return keep_statistics(c, other);
}

int mkhct_checkpoint_set_naming(struct mkhct_checkpoint *c)
{
	return mkhct_json_put_text(c->document, STAGE, "naming");
}

int mkhct_checkpoint_is_naming(const struct mkhct_checkpoint *c)
{
	return strcmp(mkhct_json_text(c->document, STAGE), "naming") == 0;
}

static double number_of(const cJSON *object, const char *key)
{
	const cJSON *item = mkhct_json_get(object, key);

	return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

double mkhct_checkpoint_counted(const struct mkhct_checkpoint *c, const char *key)
{
	double sum = number_of(mkhct_json_get(c->document, STATISTICS), key);
	const cJSON *part;

	cJSON_ArrayForEach(part, mkhct_json_get(c->document, OF_PARTS))
	{
		sum += number_of(part, key);
	}
	return sum;
}

int mkhct_checkpoint_count(struct mkhct_checkpoint *c, const char *key, double amount)
{
	cJSON *statistics = cJSON_GetObjectItemCaseSensitive(c->document, STATISTICS);

	return cJSON_IsObject(statistics)
		       ? mkhct_json_put_number(statistics, key, number_of(statistics, key) + amount)
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

hct_error mkhct_checkpoint_source(const struct mkhct_checkpoint *c, struct mkhct_source *out,
				  struct hct_diag *diag)
{
	*out = (struct mkhct_source){
		.path = strdup(mkhct_json_text(c->document, "model")),
		.label = strdup(mkhct_json_text(c->document, "model")),
		.is_folder = mkhct_json_whole(mkhct_json_get(c->document, "is_folder")) != 0,
		.entries = calloc(c->count + 1, sizeof(*out->entries))};
	if (!out->path || !out->label || !out->entries)
		goto fail;
	for (size_t i = 0; i < c->count; i++)
		if (mkhct_item_read(c->entries[i], out) != 0)
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

char *mkhct_checkpoint_text(const struct mkhct_checkpoint *c)
{
	return cJSON_PrintUnformatted(c->document);
}

hct_error mkhct_checkpoint_put(const char *text, int root, const char *name, const char *shown,
			       struct hct_diag *diag)
{
	char *part = NULL;
	hct_error err;

	if (asprintf(&part, "%s.part", name) < 0)
		return no_memory(diag);
	err = write_text(root, part, shown, text, diag);
	if (!err && renameat(root, part, root, name) != 0)
		err = hct_fail_errno(diag, errno, "%s: cannot be given its name", shown);
	if (err)
		(void)unlinkat(root, part, 0);
	else
		err = sync_folder_of(root, name, shown, diag);
	free(part);
	return err;
}
