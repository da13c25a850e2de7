#include "output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/hct.h"
#include "codec/io.h"
#include "writer/manifest.h"
#include "writer/names.h"

#define JOURNAL_NAME    ".hct/unfinished.json"
#define JOURNAL_PART    ".hct/unfinished.json.part"
#define PART_BASE_MAX   200 /* bytes of NAME in .NAME.part: longer ones are cut */
#define REPORT_INDEX(o) ((o)->source->count)

/* What becomes of one entry of the source, or of the report. */
struct slot {
	char *final; /* relative to the bundle */
	char *part;  /* NULL for folders */
	char *shown; /* for messages: with the bundle's path */
	int created; /* the part file or the folder, by this run */
	int named;   /* the part file has become the final one */
};

struct mkhct_output {
	char *path;
	const struct mkhct_source *source;
	struct slot *slots; /* one for each entry, in their order, and the report */
	size_t count;
	int root; /* descriptor of the bundle's folder; -1 when it is not there */
	int made_root, made_meta, made_journal;
	int had_journal; /* a killed run left its own: it stays until a commit */
	int committed;
	struct mkhct_manifest old; /* with force: what earlier runs wrote */
};

static hct_error out_of_memory(const struct mkhct_output *o, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", o->path);
}

static int is_folder_slot(const struct mkhct_output *o, size_t i)
{
	return i < o->source->count && o->source->entries[i].kind == MKHCT_FOLDER;
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

static hct_error choose_part(struct mkhct_output *o, size_t i, char *const *finals,
			     struct hct_diag *diag)
{
	const char *final = o->slots[i].final, *base = mkhct_name_base(final);
	int folder = (int)(base - final), keep = (int)strnlen(base, PART_BASE_MAX + 1);
	char cut[32] = "", again[32] = "";

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

static hct_error name_slots(struct mkhct_output *o, struct hct_diag *diag)
{
	const struct mkhct_source *src = o->source;
	hct_error err = HCT_OK;
	char **finals;

	o->count = src->count + 1;
	o->slots = calloc(o->count, sizeof(*o->slots));
	finals = calloc(o->count, sizeof(*finals));
	if (!o->slots || !finals) {
		err = out_of_memory(o, diag);
		goto out;
	}
	for (size_t i = 0; i < o->count; i++) {
		const struct mkhct_entry *e = i < src->count ? &src->entries[i] : NULL;
		struct slot *s = &o->slots[i];

		if (asprintf(&s->final, "%s%s", e ? e->name : MKHCT_REPORT_NAME,
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
		if (!is_folder_slot(o, i))
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

/* With force: may the new bundle take the place of what lies there? */
static hct_error check_slot(const struct mkhct_output *o, size_t i, struct hct_diag *diag)
{
	const struct slot *s = &o->slots[i];
	int want_folder = is_folder_slot(o, i);
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
	if (S_ISREG(sb.st_mode) &&
	    (i == REPORT_INDEX(o) || mkhct_manifest_find(&o->old, s->final) == MKHCT_MANIFEST_FILE))
		return HCT_OK;
	return hct_fail(diag, HCT_ERR_EXISTS, "%s: was not written by mkhct; move it away",
			s->shown);
}

static hct_error check_bundle(struct mkhct_output *o, int force, struct hct_diag *diag)
{
	struct stat sb;
	hct_error err;

	if (fstatat(o->root, MKHCT_META_FOLDER, &sb, AT_SYMLINK_NOFOLLOW) != 0 ||
	    !S_ISDIR(sb.st_mode))
		return hct_fail(diag, HCT_ERR_EXISTS,
				"%s: neither empty nor a bundle; choose another folder", o->path);
	o->had_journal = fstatat(o->root, JOURNAL_NAME, &sb, AT_SYMLINK_NOFOLLOW) == 0;
	if (!force)
		return hct_fail(diag, HCT_ERR_EXISTS, "%s: %s; give --force to write it anew",
				o->path,
				o->had_journal ? "an unfinished bundle" : "a bundle already");
	err = mkhct_manifest_read(&o->old, o->root, MKHCT_REPORT_NAME, diag);
	if (!err)
		err = mkhct_manifest_read(&o->old, o->root, JOURNAL_NAME, diag);
	if (err)
		return err;
	mkhct_manifest_sort(&o->old);
	return HCT_OK;
}

static hct_error check_place(struct mkhct_output *o, int force, struct hct_diag *diag)
{
	struct stat sb;
	int empty = 0;
	hct_error err;

	if (stat(o->path, &sb) != 0) {
		if (errno == ENOENT)
			return check_new(o, diag);
		return hct_fail_errno(diag, errno, "%s: cannot be examined", o->path);
	}
	if (!S_ISDIR(sb.st_mode))
		return hct_fail(diag, HCT_ERR_EXISTS,
				"%s: a file is there already; OUT is a folder that mkhct makes",
				o->path);
	err = mkhct_source_refuse_inside(o->source, o->path, o->path, diag);
	if (!err)
		err = mkhct_source_refuse_around(o->source, o->path, &sb, diag);
	if (err)
		return err;
	o->root = open(o->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o->root < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", o->path);
	err = is_empty(o, &empty, diag);
	if (err || empty)
		return err;
	return check_bundle(o, force, diag);
}

hct_error mkhct_output_open(const char *path, const struct mkhct_source *source, int force,
			    struct mkhct_output **out, struct hct_diag *diag)
{
	struct mkhct_output *o = calloc(1, sizeof(*o));
	size_t n = strlen(path);
	hct_error err;

	while (n > 1 && path[n - 1] == '/')
		n--;
	if (o)
		o->path = strndup(path, n);
	if (!o || !o->path) {
		free(o);
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", path);
	}
	o->source = source;
	o->root = -1;
	err = check_place(o, force, diag);
	if (!err)
		err = name_slots(o, diag);
	for (size_t i = 0; !err && o->root >= 0 && i < o->count; i++)
		err = check_slot(o, i, diag);
	if (err) {
		mkhct_output_close(o);
		return err;
	}
	*out = o;
	return HCT_OK;
}

uint64_t mkhct_output_space(const struct mkhct_output *o)
{
	struct statvfs vfs;

	if (fstatvfs(o->root, &vfs) != 0)
		return UINT64_MAX;
	return (uint64_t)vfs.f_bavail * vfs.f_frsize;
}

/* Work ------------------------------------------------------------------------------- */

static hct_error make_root(struct mkhct_output *o, struct hct_diag *diag)
{
	if (o->root >= 0)
		return HCT_OK;
	if (mkdir(o->path, 0777) != 0)
		return hct_fail_errno(diag, errno, "%s: cannot be made", o->path);
	o->made_root = 1;
	o->root = open(o->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o->root < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", o->path);
	return HCT_OK;
}

/* A folder whose permissions are those of the source's, but that mkhct can write to. */
static hct_error make_folder(struct mkhct_output *o, size_t i, struct hct_diag *diag)
{
	struct slot *s = &o->slots[i];

	if (mkdirat(o->root, s->final, 0700) == 0) {
		s->created = 1;
		if (fchmodat(o->root, s->final, o->source->entries[i].mode | 0700, 0) == 0)
			return HCT_OK;
	} else if (errno == EEXIST) {
		return HCT_OK;
	}
	return hct_fail_errno(diag, errno, "%s: cannot be made", s->shown);
}

/* What this run is going to write, and what earlier ones may have written. */
static char *journal_text(const struct mkhct_output *o)
{
	cJSON *root = mkhct_manifest_create();
	char *text = NULL;
	int rc = root ? 0 : -1;

	for (size_t i = 0; !rc && i < o->count; i++) {
		const struct slot *s = &o->slots[i];

		rc = mkhct_manifest_add(
			root, is_folder_slot(o, i) ? MKHCT_MANIFEST_FOLDER : MKHCT_MANIFEST_FILE,
			s->final);
		if (!rc && s->part)
			rc = mkhct_manifest_add(root, MKHCT_MANIFEST_PART, s->part);
	}
	for (size_t i = 0; !rc && i < o->old.count; i++)
		if (o->old.items[i].kind != MKHCT_MANIFEST_PART)
			rc = mkhct_manifest_add(root, o->old.items[i].kind, o->old.items[i].name);
	if (!rc)
		text = cJSON_PrintUnformatted(root);
	cJSON_Delete(root);
	return text;
}

static hct_error write_journal(struct mkhct_output *o, struct hct_diag *diag)
{
	char *text = journal_text(o);
	hct_error err;
	int fd;

	if (!text)
		return out_of_memory(o, diag);
	fd = openat(o->root, JOURNAL_PART, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		    0666);
	if (fd < 0) {
		err = hct_fail_errno(diag, errno, "%s/" JOURNAL_PART ": cannot be made", o->path);
		goto out;
	}
	o->made_journal = 1;
	err = hct_write_all(fd, JOURNAL_PART, text, strlen(text), diag);
	if (err)
		close(fd);
	else
		err = mkhct_output_sync(fd, JOURNAL_PART, diag);
	if (!err && renameat(o->root, JOURNAL_PART, o->root, JOURNAL_NAME) != 0)
		err = hct_fail_errno(diag, errno, "%s/" JOURNAL_NAME ": cannot be made", o->path);
out:
	cJSON_free(text);
	return err;
}

hct_error mkhct_output_begin(struct mkhct_output *o, struct hct_diag *diag)
{
	hct_error err = make_root(o, diag);

	if (err)
		return err;
	if (mkdirat(o->root, MKHCT_META_FOLDER, 0777) == 0)
		o->made_meta = 1;
	else if (errno != EEXIST)
		return hct_fail_errno(diag, errno, "%s/" MKHCT_META_FOLDER ": cannot be made",
				      o->path);
	err = mkhct_manifest_remove_parts(&o->old, o->root, diag);
	if (!err)
		err = write_journal(o, diag);
	for (size_t i = 0; !err && i < o->count; i++)
		if (is_folder_slot(o, i))
			err = make_folder(o, i, diag);
	return err;
}

hct_error mkhct_output_create(struct mkhct_output *o, const struct mkhct_entry *entry, int *fd,
			      const char **name, struct hct_diag *diag)
{
	struct slot *s = &o->slots[entry ? (size_t)(entry - o->source->entries) : REPORT_INDEX(o)];

	*name = s->shown;
	/* Private until it has the mode of its source. */
	*fd = openat(o->root, s->part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (*fd < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be made", s->shown);
	s->created = 1;
	return HCT_OK;
}

hct_error mkhct_output_sync(int fd, const char *name, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	if (fsync(fd) != 0)
		err = hct_fail_errno(diag, errno, "%s: cannot be written to disk", name);
	if (close(fd) != 0 && !err)
		err = hct_fail_errno(diag, errno, "%s: cannot be written to disk", name);
	return err;
}

/* Syncs the folder that holds the file; name "" is the bundle's own. */
static void sync_folder(const struct mkhct_output *o, const char *folder)
{
	int fd = openat(o->root, *folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	/* Not every file system can sync a folder; the files themselves are synced. */
	if (fd >= 0) {
		(void)fsync(fd);
		close(fd);
	}
}

static void sync_folders(const struct mkhct_output *o)
{
	char *slash, *parent = strdup(o->path);

	sync_folder(o, MKHCT_META_FOLDER);
	for (size_t i = 0; i < o->count; i++)
		if (is_folder_slot(o, i))
			sync_folder(o, o->slots[i].final);
	sync_folder(o, "");
	if (!parent || !o->made_root) {
		free(parent);
		return;
	}
	slash = strrchr(parent, '/');
	if (slash)
		slash[slash == parent] = '\0';
	int fd = open(slash ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		(void)fsync(fd);
		close(fd);
	}
	free(parent);
}

static int is_in_new_bundle(const char *name, void *arg)
{
	const struct mkhct_output *o = arg;
	size_t n = strlen(name) - strlen(MKHCT_HCT_SUFFIX);
	const struct mkhct_entry *e = mkhct_source_find(o->source, name);
	char *stem;

	if (strcmp(name, MKHCT_REPORT_NAME) == 0 || (e && e->kind != MKHCT_MODEL))
		return 1;
	if (!mkhct_name_has_suffix(name, MKHCT_MODEL_SUFFIX MKHCT_HCT_SUFFIX))
		return 0;
	stem = strndup(name, n);
	e = stem ? mkhct_source_find(o->source, stem) : NULL;
	n = stem == NULL; /* out of memory: leave the file */
	free(stem);
	return e ? e->kind == MKHCT_MODEL : (int)n;
}

hct_error mkhct_output_commit(struct mkhct_output *o, struct hct_diag *diag)
{
	int replaces = o->had_journal || o->old.count > 0;

	for (size_t i = 0; i < o->count; i++) {
		struct slot *s = &o->slots[i];
		int errnum;

		if (!s->part)
			continue;
		if (renameat(o->root, s->part, o->root, s->final) != 0) {
			errnum = errno;
			if (!o->committed)
				return hct_fail_errno(diag, errnum, "%s: cannot be given its name",
						      s->shown);
			return hct_fail(
				diag, hct_error_from_errno(errnum),
				"%s: cannot be given its name: %s; the bundle is unfinished "
				"now: put that right and run again with --force",
				s->shown, strerror(errnum));
		}
		s->named = 1;
		/* A file of the old bundle may be gone: no way back, only forward. */
		o->committed |= replaces;
	}
	o->committed = 1;
	mkhct_manifest_remove_old(&o->old, o->root, is_in_new_bundle, o);
	sync_folders(o);
	if (unlinkat(o->root, JOURNAL_NAME, 0) != 0)
		return hct_fail_errno(diag, errno, "%s/" JOURNAL_NAME ": cannot be removed",
				      o->path);
	sync_folder(o, MKHCT_META_FOLDER);
	return HCT_OK;
}

static int gone(int fd, const char *name, int flags)
{
	return unlinkat(fd, name, flags) == 0 || errno == ENOENT;
}

int mkhct_output_can_go_back(const struct mkhct_output *o)
{
	return !o->committed;
}

static int roll_back(struct mkhct_output *o)
{
	int clean = 1;

	for (size_t i = o->count; i-- > 0;) {
		const struct slot *s = &o->slots[i];

		if (s->created)
			clean &= gone(o->root, s->part && !s->named ? s->part : s->final,
				      s->part ? 0 : AT_REMOVEDIR);
	}
	if (o->made_journal)
		clean &= gone(o->root, JOURNAL_PART, 0);
	if (o->made_journal && !o->had_journal)
		clean &= gone(o->root, JOURNAL_NAME, 0);
	if (o->made_meta)
		clean &= gone(o->root, MKHCT_META_FOLDER, AT_REMOVEDIR);
	if (o->made_root)
		clean &= rmdir(o->path) == 0;
	return clean;
}

int mkhct_output_close(struct mkhct_output *o)
{
	int clean;

	if (!o)
		return 1;
	clean = o->committed || roll_back(o);
	for (size_t i = 0; o->slots && i < o->count; i++) {
		free(o->slots[i].final);
		free(o->slots[i].part);
		free(o->slots[i].shown);
	}
	free(o->slots);
	mkhct_manifest_free(&o->old);
	if (o->root >= 0)
		close(o->root);
	free(o->path);
	free(o);
	return clean;
}
