#include "place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "writer/hidden.h"
#include "writer/names.h"

#define PART_BASE_MAX 200 /* bytes of NAME in .NAME.part: longer ones are cut */

static const char *const reports[MKHCT_REPORTS] = {MKHCT_REPORT_NAME, MKHCT_PAGE_NAME};

static hct_error out_of_memory(const struct mkhct_output *o, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", o->path);
}

int mkhct_place_is_folder(const struct mkhct_output *o, size_t i)
{
	return i < o->source->count && o->source->entries[i].kind == MKHCT_FOLDER;
}

struct mkhct_state mkhct_place_state(const struct mkhct_output *o, size_t i)
{
	struct mkhct_state state = {.status = MKHCT_PENDING};

	if (o->checkpoint && i < o->source->count)
		mkhct_checkpoint_state(o->checkpoint, i, &state);
	return state;
}

int mkhct_place_open(const struct mkhct_output *o, const char *name, uint64_t bytes, int more)
{
	int fd = openat(o->root, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat sb;

	if (fd >= 0 && fstat(fd, &sb) == 0 && S_ISREG(sb.st_mode) &&
	    ((uint64_t)sb.st_size == bytes || (more && (uint64_t)sb.st_size > bytes)))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Names ------------------------------------------------------------------------------ */

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Whether a part file of this name would stand in the way of something: a file of the
 * new bundle, or one that lies there and is not a part file of a killed run. */
static int part_is_taken(const struct mkhct_output *o, char *const *finals, const char *part)
{
	struct stat sb;

	if (bsearch(&part, finals, o->count, sizeof(*finals), compare_strings))
		return 1;
	return o->root >= 0 && fstatat(o->root, part, &sb, AT_SYMLINK_NOFOLLOW) == 0 &&
	       mkhct_manifest_find(&o->old, part) != MKHCT_MANIFEST_PART;
}

/* Nothing but `.NAME.part` in the folder of the file that it is going to be: a checkpoint may have
 * been forged, to write somewhere else. */
static int is_part_of(const char *part, const char *final)
{
	const char *base = mkhct_name_base(part);
	size_t folder = (size_t)(base - part);

	return mkhct_name_is_safe(part) && folder == (size_t)(mkhct_name_base(final) - final) &&
	       memcmp(part, final, folder) == 0 && *base == '.' && strstr(base, ".part");
}

int mkhct_place_take_part(struct mkhct_output *o, size_t i)
{
	const cJSON *entry, *object;
	char *name;

	if (!o->checkpoint || i >= mkhct_checkpoint_entries(o->checkpoint))
		return 0;
	entry = mkhct_checkpoint_entry(o->checkpoint, i);
	object = cJSON_GetObjectItemCaseSensitive(entry, "part");
	if (!object)
		return 0;
	name = mkhct_name_from_json(object);
	if (name && is_part_of(name, o->slots[i].final)) {
		free(o->slots[i].part);
		o->slots[i].part = name;
		return 0;
	}
	free(name);
	return 0; /* not to be trusted, or not there */
}

static hct_error choose_part(struct mkhct_output *o, size_t i, char *const *finals,
			     struct hct_diag *diag)
{
	const char *final = o->slots[i].final, *base = mkhct_name_base(final);
	int folder = (int)(base - final), keep = (int)strnlen(base, PART_BASE_MAX + 1);
	char cut[32] = "", again[32] = "";

	/* An unfinished bundle goes on with the names that it has. */
	if (mkhct_place_take_part(o, i) != 0)
		return out_of_memory(o, diag);
	if (o->slots[i].part)
		return HCT_OK;
	if (keep > PART_BASE_MAX) { /* then the number tells such names apart */
		keep = PART_BASE_MAX;
		snprintf(cut, sizeof(cut), "~%zu", i);
	}
	for (unsigned n = 2;; n++) {
		char *part;

		if (asprintf(&part, "%.*s.%.*s%s.part%s", folder, final, keep, base, cut, again) <
		    0)
			return out_of_memory(o, diag);
		if (!part_is_taken(o, finals, part)) {
			o->slots[i].part = part;
			return HCT_OK;
		}
		free(part);
		snprintf(again, sizeof(again), "-%u", n);
	}
}

hct_error mkhct_place_name(struct mkhct_output *o, struct hct_diag *diag)
{
	const struct mkhct_source *src = o->source;
	hct_error err = HCT_OK;
	char **finals;

	o->count = src->count + MKHCT_REPORTS;
	o->slots = calloc(o->count, sizeof(*o->slots));
	finals = calloc(o->count, sizeof(*finals));
	if (!o->slots || !finals) {
		err = out_of_memory(o, diag);
		goto out;
	}
	for (size_t i = 0; i < o->count; i++) {
		const struct mkhct_entry *e = i < src->count ? &src->entries[i] : NULL;
		struct mkhct_slot *s = &o->slots[i];

		if (asprintf(&s->final, "%s%s", e ? e->name : reports[i - src->count],
			     e && e->kind == MKHCT_MODEL ? MKHCT_HCT_SUFFIX : "") < 0)
			s->final = NULL;
		if (s->final)
			s->shown = mkhct_name_join(o->path, s->final);
		if (!s->shown) {
			err = out_of_memory(o, diag);
			goto out;
		}
		finals[i] = s->final;
	}
	qsort(finals, o->count, sizeof(*finals), compare_strings);
	for (size_t i = 0; !err && i < o->count; i++)
		if (!mkhct_place_is_folder(o, i))
			err = choose_part(o, i, finals, diag);
out:
	free(finals);
	return err;
}

/* Checks ----------------------------------------------------------------------------- */

static hct_error check_new(const struct mkhct_output *o, struct hct_diag *diag)
{
	char *parent = strdup(o->path);
	char *slash;
	struct stat sb;
	hct_error err;

	if (!parent)
		return out_of_memory(o, diag);
	slash = strrchr(parent, '/');
	if (!slash)
		strcpy(parent, ".");
	else
		slash[slash == parent] = '\0';
	if (lstat(o->path, &sb) == 0)
		err = hct_fail(diag, HCT_ERR_EXISTS, "%s: a symlink to nothing; remove it",
			       o->path);
	else if (stat(parent, &sb) != 0 && errno != ENOENT && errno != ENOTDIR)
		err = hct_fail_errno(diag, errno, "%s: cannot be examined", parent);
	else if (stat(parent, &sb) != 0 || !S_ISDIR(sb.st_mode))
		err = hct_fail(diag, HCT_ERR_NOT_FOUND,
			       "%s: cannot be made: there is no folder %s; make it first", o->path,
			       parent);
	else
		err = mkhct_source_refuse_inside(o->source, o->path, parent, diag);
	free(parent);
	return err;
}

static hct_error is_empty(const struct mkhct_output *o, int *empty, struct hct_diag *diag)
{
	DIR *dir = opendir(o->path);
	struct dirent *d;

	if (!dir)
		return hct_fail_errno(diag, errno, "%s: cannot be listed", o->path);
	*empty = 1;
	while (*empty && (d = readdir(dir)) != NULL)
		*empty = strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0;
	closedir(dir);
	return HCT_OK;
}

/* May the new bundle take the place of what lies there? */
static hct_error check_slot(const struct mkhct_output *o, size_t i, struct hct_diag *diag)
{
	const struct mkhct_slot *s = &o->slots[i];
	int want_folder = mkhct_place_is_folder(o, i);
	struct stat sb;

	if (fstatat(o->root, s->final, &sb, AT_SYMLINK_NOFOLLOW) != 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return HCT_OK;
		return hct_fail_errno(diag, errno, "%s: cannot be examined", s->shown);
	}
	if (want_folder && S_ISDIR(sb.st_mode))
		return HCT_OK;
	if (want_folder)
		return hct_fail(diag, HCT_ERR_EXISTS,
				"%s: stands where a folder must be; move it away", s->shown);
	if (S_ISREG(sb.st_mode) && (i >= o->source->count ||
				    mkhct_manifest_find(&o->old, s->final) == MKHCT_MANIFEST_FILE))
		return HCT_OK;
	return hct_fail(diag, HCT_ERR_EXISTS, "%s: was not written by mkhct; move it away",
			s->shown);
}

/* What the hidden folder tells of others. */
struct around {
	int finished;             /* there is a report */
	int busy;                 /* another mkhct is at work, which is no other part */
	char other[NAME_MAX + 1]; /* a checkpoint besides our own and those of other parts */
	unsigned sibling;         /* the first of these parts, or 0 */
};

/* The number of another part, of as many as we are, with "checkpoint" or "lock" and the suffix
 * around its numbers; otherwise 0. */
static unsigned sibling_of(const struct mkhct_output *o, const char *name, const char *what,
			   const char *suffix)
{
	unsigned part = 0, parts = 0;
	size_t n = strlen(what);
	char again[NAME_MAX + 1];

	if (strncmp(name, what, n) != 0 || sscanf(name + n, "-%5u-of-%5u", &part, &parts) != 2)
		return 0;
	snprintf(again, sizeof(again), "%s-%u-of-%u%s", what, part, parts, suffix);
	return strcmp(name, again) == 0 && parts == o->mode.parts && part >= 1 && part <= parts
		       ? part
		       : 0;
}

static void see(const struct mkhct_output *o, const char *name, const char *own_lock,
		struct around *a)
{
	char path[NAME_MAX + sizeof(MKHCT_META_FOLDER) + 1];
	unsigned sibling;

	a->finished |= strcmp(name, mkhct_name_base(MKHCT_REPORT_NAME)) == 0;
	snprintf(path, sizeof(path), MKHCT_META_FOLDER "/%s", name);
	if (strncmp(name, "lock", 4) == 0 && strcmp(path, MKHCT_HIDDEN_GATE) != 0 &&
	    (o->lock < 0 || strcmp(path, own_lock) != 0) &&
	    (o->mode.finish || !sibling_of(o, name, "lock", "")))
		a->busy |= mkhct_hidden_is_locked(o, path);
	if (strncmp(name, "checkpoint", 10) != 0 || strcmp(path, o->state) == 0 ||
	    mkhct_name_has_suffix(name, ".part"))
		return;
	sibling = sibling_of(o, name, "checkpoint", ".json");
	if (!sibling)
		strcpy(a->other, name);
	else if (!a->sibling || sibling < a->sibling)
		a->sibling = sibling;
}

static hct_error look_around(const struct mkhct_output *o, struct around *a, struct hct_diag *diag)
{
	int fd = openat(o->root, MKHCT_META_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	char *lock = mkhct_hidden_lock_name(o);
	const struct dirent *d;

	*a = (struct around){.finished = 0};
	if (!dir || !lock) {
		hct_error err =
			lock ? hct_fail_errno(diag, errno,
					      "%s/" MKHCT_META_FOLDER ": cannot be listed", o->path)
			     : out_of_memory(o, diag);

		if (dir)
			closedir(dir);
		else if (fd >= 0)
			close(fd);
		free(lock);
		return err;
	}
	while ((d = readdir(dir)) != NULL)
		see(o, d->d_name, lock, a);
	closedir(dir);
	free(lock);
	if (a->busy)
		return hct_fail(diag, HCT_ERR_EXISTS,
				"%s: another mkhct is at work on it; wait for it, or stop it",
				o->path);
	if (*a->other)
		return hct_fail(
			diag, HCT_ERR_EXISTS,
			"%s: is being made in other parts (%s); go on with these, or remove it",
			o->path, a->other);
	return HCT_OK;
}

static struct mkhct_seen look_at(const struct mkhct_output *o, const char *name)
{
	struct stat sb;

	if (fstatat(o->root, name, &sb, AT_SYMLINK_NOFOLLOW) != 0)
		return (struct mkhct_seen){.there = 0};
	return (struct mkhct_seen){.there = 1, .number = sb.st_ino, .mtime = sb.st_mtim};
}

static int is_same(struct mkhct_seen a, struct mkhct_seen b)
{
	return a.there == b.there && a.number == b.number && a.mtime.tv_sec == b.mtime.tv_sec &&
	       a.mtime.tv_nsec == b.mtime.tv_nsec;
}

/* 1 when a folder has nothing but names that wanted says 1 to. */
static int has_only(int root, const char *folder, int (*wanted)(const char *name))
{
	int fd = openat(root, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), only = 1;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *d;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (only && (d = readdir(dir)) != NULL)
		only = strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 ||
		       wanted(d->d_name);
	closedir(dir);
	return only;
}

static int is_hidden_folder(const char *name)
{
	return strcmp(name, MKHCT_META_FOLDER) == 0;
}

static int is_of_no_state(const char *name)
{
	return strncmp(name, "lock", 4) == 0 ||
	       (strncmp(name, "checkpoint", 10) == 0 && mkhct_name_has_suffix(name, ".part"));
}

/* What a run leaves that was killed before it wrote its first checkpoint. */
static int is_bare(const struct mkhct_output *o)
{
	return has_only(o->root, ".", is_hidden_folder) &&
	       has_only(o->root, MKHCT_META_FOLDER, is_of_no_state);
}

/* A folder that is not empty: a bundle, or one that is not finished. */
static hct_error check_bundle(struct mkhct_output *o, struct hct_diag *diag)
{
	struct around around;
	struct stat sb;
	hct_error err;

	if (fstatat(o->root, MKHCT_META_FOLDER, &sb, AT_SYMLINK_NOFOLLOW) != 0 ||
	    !S_ISDIR(sb.st_mode))
		return hct_fail(diag, HCT_ERR_EXISTS,
				"%s: neither empty nor a bundle; choose another folder", o->path);
	err = mkhct_hidden_lock(o, 0, diag);
	o->seen_state = look_at(o, o->state);
	o->seen_report = look_at(o, MKHCT_REPORT_NAME);
	o->had_checkpoint = o->seen_state.there;
	o->was_bare = is_bare(o);
	if (!err)
		err = look_around(o, &around, diag);
	if (!err && !o->mode.restart)
		err = mkhct_checkpoint_read(o->root, o->state, o->state_shown, &o->checkpoint,
					    diag);
	if (err)
		return err;
	o->was_naming = o->checkpoint && mkhct_checkpoint_is_naming(o->checkpoint);
	o->finished = o->mode.parts && !o->mode.finish && around.finished;
	if (!o->had_checkpoint && !o->mode.force && !o->mode.parts && !o->was_bare)
		return hct_fail(diag, HCT_ERR_EXISTS,
				"%s: a bundle already; give --force to write it anew", o->path);
	/* Other parts' files are theirs. */
	err = o->mode.parts ? HCT_OK
			    : mkhct_manifest_read(&o->old, o->root, MKHCT_REPORT_NAME, diag);
	if (!err)
		err = mkhct_manifest_read(&o->old, o->root, o->state, diag);
	if (!err)
		mkhct_manifest_sort(&o->old);
	return err;
}

hct_error mkhct_place_check_still(const struct mkhct_output *o, char sibling[MKHCT_STATE_NAME],
				  struct hct_diag *diag)
{
	struct mkhct_output_mode mode = o->mode;
	struct around around;
	hct_error err = look_around(o, &around, diag);

	if (err)
		return err;
	*sibling = 0;
	mode.part = around.sibling;
	if (mode.part)
		mkhct_output_state_name(&mode, sibling);
	if (is_same(look_at(o, o->state), o->seen_state) &&
	    is_same(look_at(o, MKHCT_REPORT_NAME), o->seen_report) &&
	    (o->mode.parts || !o->was_bare || is_bare(o)))
		return HCT_OK;
	return hct_fail(diag, HCT_ERR_EXISTS,
			"%s: another mkhct has been at work on it meanwhile; run again", o->path);
}

hct_error mkhct_place_check(struct mkhct_output *o, struct hct_diag *diag)
{
	struct stat sb;
	int empty = 0;
	hct_error err;

	if (stat(o->path, &sb) != 0) {
		o->was_bare = errno == ENOENT;
		if (o->was_bare)
			return check_new(o, diag);
		return hct_fail_errno(diag, errno, "%s: cannot be examined", o->path);
	}
	if (!S_ISDIR(sb.st_mode))
		return hct_fail(diag, HCT_ERR_EXISTS,
				"%s: a file is there already; OUT is a folder that mkhct makes",
				o->path);
	err = o->mode.finish ? HCT_OK
			     : mkhct_source_refuse_inside(o->source, o->path, o->path, diag);
	if (!err && !o->mode.finish)
		err = mkhct_source_refuse_around(o->source, o->path, &sb, diag);
	if (err)
		return err;
	o->root = open(o->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o->root < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", o->path);
	err = is_empty(o, &empty, diag);
	o->was_bare = empty;
	if (err || empty)
		return err;
	return check_bundle(o, diag);
}

hct_error mkhct_place_check_slots(const struct mkhct_output *o, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	for (size_t i = 0; !err && o->root >= 0 && i < o->count; i++)
		err = check_slot(o, i, diag);
	return err;
}
