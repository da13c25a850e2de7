#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/hct.h"
#include "codec/io.h"
#include "writer/names.h"
#include "writer/place.h"

static hct_error out_of_memory(const struct mkhct_output *o, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", o->path);
}

char *mkhct_output_state_name(const struct mkhct_output_mode *mode, char buf[MKHCT_STATE_NAME])
{
	if (mode->parts)
		snprintf(buf, MKHCT_STATE_NAME, MKHCT_META_FOLDER "/checkpoint-%u-of-%u.json",
			 mode->part, mode->parts);
	else
		strcpy(buf, MKHCT_META_FOLDER "/checkpoint.json");
	return buf;
}

char *mkhct_output_lock_name(const struct mkhct_output *o)
{
	char *name = NULL;
	int n = o->mode.parts ? asprintf(&name, MKHCT_META_FOLDER "/lock-%u-of-%u", o->mode.part,
					 o->mode.parts)
			      : asprintf(&name, MKHCT_META_FOLDER "/lock");

	return n < 0 ? NULL : name;
}

/* Relative to the bundle.  malloc'ed, or NULL. */
static char *ledger_name(size_t i)
{
	char *name = NULL;

	return asprintf(&name, MKHCT_META_FOLDER "/%zu.ledger", i) < 0 ? NULL : name;
}

hct_error mkhct_output_open(const char *path, const struct mkhct_source *source,
			    const struct mkhct_output_mode *mode, struct mkhct_output **out,
			    struct hct_diag *diag)
{
	struct mkhct_output *o = calloc(1, sizeof(*o));
	char state[MKHCT_STATE_NAME];
	size_t n = strlen(path);
	hct_error err;

	while (n > 1 && path[n - 1] == '/')
		n--;
	if (o) {
		o->root = o->lock = -1;
		o->mode = *mode;
		o->source = source;
		o->path = strndup(path, n);
		o->state = strdup(mkhct_output_state_name(mode, state));
		if (o->path && o->state)
			o->state_shown = mkhct_name_join(o->path, o->state);
	}
	if (!o || !o->state_shown) {
		mkhct_output_close(o);
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", path);
	}
	err = mkhct_place_check(o, diag);
	if (!err)
		err = mkhct_place_name(o, diag);
	if (!err)
		err = mkhct_place_check_slots(o, diag);
	if (err) {
		mkhct_output_close(o);
		return err;
	}
	*out = o;
	return HCT_OK;
}

struct mkhct_checkpoint *mkhct_output_checkpoint(const struct mkhct_output *o)
{
	return o->checkpoint;
}

uint64_t mkhct_output_space(const struct mkhct_output *o)
{
	struct statvfs vfs;

	if (fstatvfs(o->root, &vfs) != 0)
		return UINT64_MAX;
	return (uint64_t)vfs.f_bavail * vfs.f_frsize;
}

/* Work ------------------------------------------------------------------------------- */

/* Syncs a folder below root. */
static hct_error sync_at(const struct mkhct_output *o, int root, const char *folder,
			 struct hct_diag *diag)
{
	int fd = openat(root, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	hct_error err = HCT_OK;

	/* Not every file system can sync a folder; the files themselves are synced. */
	if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP && errno != ENOSYS))
		err = hct_fail_errno(diag, errno, "%s: a folder cannot be written to disk",
				     o->path);
	if (fd >= 0)
		close(fd);
	return err;
}

/* Syncs the folder in which a file of the bundle lies. */
static hct_error sync_folder_of(const struct mkhct_output *o, const char *name,
				struct hct_diag *diag)
{
	size_t n = (size_t)(mkhct_name_base(name) - name);
	char *folder = n ? strndup(name, n) : strdup(".");
	hct_error err = folder ? sync_at(o, o->root, folder, diag) : out_of_memory(o, diag);

	free(folder);
	return err;
}

/* Syncs all folders of the bundle, and the one that it is in. */
static hct_error sync_folders(const struct mkhct_output *o, struct hct_diag *diag)
{
	char *slash, *parent = strdup(o->path);
	hct_error err =
		parent ? sync_at(o, o->root, MKHCT_META_FOLDER, diag) : out_of_memory(o, diag);

	for (size_t i = 0; !err && i < o->count; i++)
		if (mkhct_place_is_folder(o, i))
			err = sync_at(o, o->root, o->slots[i].final, diag);
	if (!err)
		err = sync_at(o, o->root, ".", diag);
	slash = parent ? strrchr(parent, '/') : NULL;
	if (slash)
		slash[slash == parent] = '\0';
	if (!err) /* it may be nobody's to read */
		(void)sync_at(o, AT_FDCWD, slash ? parent : ".", NULL);
	free(parent);
	return err;
}

static hct_error make_root(struct mkhct_output *o, struct hct_diag *diag)
{
	if (o->root >= 0)
		return HCT_OK;
	if (mkdir(o->path, 0777) == 0)
		o->made_root = 1;
	else if (errno != EEXIST || !o->mode.parts)
		return hct_fail_errno(diag, errno, "%s: cannot be made", o->path);
	o->root = open(o->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o->root < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", o->path);
	return HCT_OK;
}

/* A folder whose permissions are those of the source's, but that mkhct can write to. */
static hct_error make_folder(struct mkhct_output *o, size_t i, struct hct_diag *diag)
{
	struct mkhct_slot *s = &o->slots[i];

	if (mkdirat(o->root, s->final, 0700) == 0) {
		s->created = 1;
		if (fchmodat(o->root, s->final, o->source->entries[i].mode | 0700, 0) == 0)
			return HCT_OK;
	} else if (errno == EEXIST) {
		/* It may have been killed between the two. */
		if (!o->had_checkpoint ||
		    fchmodat(o->root, s->final, o->source->entries[i].mode | 0700, 0) == 0)
			return HCT_OK;
	}
	return hct_fail_errno(diag, errno, "%s: cannot be made", s->shown);
}

/* What this run is going to write, and what earlier ones may have written. */
static int list_files(struct mkhct_output *o, cJSON *document)
{
	cJSON *list = mkhct_manifest_create();
	int rc = list ? 0 : -1;

	for (size_t i = 0; !rc && i < o->count; i++) {
		const struct mkhct_slot *s = &o->slots[i];
		char *ledger = ledger_name(i);

		rc = ledger ? mkhct_manifest_add(list,
						 mkhct_place_is_folder(o, i) ? MKHCT_MANIFEST_FOLDER
									     : MKHCT_MANIFEST_FILE,
						 s->final)
			    : -1;
		if (!rc && s->part)
			rc = mkhct_manifest_add(list, MKHCT_MANIFEST_PART, s->part);
		if (!rc && i < o->source->count && o->source->entries[i].kind == MKHCT_MODEL)
			rc = mkhct_manifest_add(list, MKHCT_MANIFEST_PART, ledger);
		free(ledger);
	}
	for (size_t i = 0; !rc && i < o->old.count; i++)
		if (o->old.items[i].kind != MKHCT_MANIFEST_PART)
			rc = mkhct_manifest_add(list, o->old.items[i].kind, o->old.items[i].name);
	if (!rc && cJSON_AddItemToObject(document, MKHCT_MANIFEST_KEY, list))
		return 0;
	cJSON_Delete(list);
	return -1;
}

/* The names that its part files have are those of the checkpoint from now on. */
static int list_parts(struct mkhct_output *o)
{
	for (size_t i = 0; i < o->source->count; i++) {
		cJSON *entry = mkhct_checkpoint_entry(o->checkpoint, i), *part;

		if (!o->slots[i].part)
			continue;
		part = cJSON_AddObjectToObject(entry, "part");
		if (!part || mkhct_name_to_json(part, o->slots[i].part) != 0)
			return -1;
	}
	return 0;
}

/* Models are dealt out in turn; other files are part 1's. */
static int is_mine(const struct mkhct_checkpoint_of *of, size_t entry)
{
	const struct mkhct_source *source = of->source;
	size_t before = 0;

	if (!of->parts)
		return 1;
	if (source->entries[entry].kind != MKHCT_MODEL)
		return of->part == 1;
	for (size_t i = 0; i < entry; i++)
		before += source->entries[i].kind == MKHCT_MODEL;
	return before % of->parts == of->part - 1;
}

static hct_error begin_checkpoint(struct mkhct_output *o, const struct mkhct_checkpoint_of *of,
				  struct hct_diag *diag)
{
	hct_error err;

	if (o->checkpoint) {
		err = of ? mkhct_checkpoint_match(o->checkpoint, of, o->path, diag) : HCT_OK;
	} else {
		err = mkhct_manifest_remove_parts(&o->old, o->root, diag);
		if (!err)
			err = mkhct_checkpoint_create(of, is_mine, &o->checkpoint, diag);
		if (!err && (list_parts(o) != 0 ||
			     list_files(o, mkhct_checkpoint_document(o->checkpoint)) != 0))
			err = out_of_memory(o, diag);
	}
	if (err)
		return err;
	o->made_checkpoint = 1;
	if (of)
		mkhct_checkpoint_count(o->checkpoint, "sessions", 1);
	return mkhct_output_save(o, diag);
}

hct_error mkhct_output_merge(struct mkhct_output *o, const struct mkhct_checkpoint *other,
			     unsigned part, struct hct_diag *diag)
{
	int rc = mkhct_checkpoint_merge(o->checkpoint, other);

	if (rc > 0)
		return hct_fail(
			diag, HCT_ERR_EXISTS,
			"%s: part %u was made of another source, or with other options, than "
			"part 1; make it again",
			o->path, part);
	for (size_t i = 0; !rc && i < o->source->count; i++)
		rc = mkhct_place_take_part(o, i);
	return rc ? out_of_memory(o, diag) : HCT_OK;
}

hct_error mkhct_output_save(struct mkhct_output *o, struct hct_diag *diag)
{
	return mkhct_checkpoint_write(o->checkpoint, o->root, o->state, o->state_shown, diag);
}

/* With the lock: is what mkhct_output_open has found still so? */
static hct_error check_still(const struct mkhct_output *o, struct hct_diag *diag)
{
	int begun = faccessat(o->root, o->state, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	int finished = faccessat(o->root, MKHCT_REPORT_NAME, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

	if (begun == o->had_checkpoint && (begun || !finished || o->mode.force))
		return HCT_OK;
	return hct_fail(diag, HCT_ERR_EXISTS,
			"%s: another mkhct has been at work on it meanwhile; run again", o->path);
}

hct_error mkhct_output_begin(struct mkhct_output *o, const struct mkhct_checkpoint_of *of,
			     struct hct_diag *diag)
{
	hct_error err = make_root(o, diag);

	if (err)
		return err;
	if (mkdirat(o->root, MKHCT_META_FOLDER, 0777) == 0)
		o->made_meta = 1;
	else if (errno != EEXIST)
		return hct_fail_errno(diag, errno, "%s/" MKHCT_META_FOLDER ": cannot be made",
				      o->path);
	err = mkhct_place_lock(o, 1, diag);
	if (!err)
		err = check_still(o, diag);
	if (!err)
		err = begin_checkpoint(o, of, diag);
	for (size_t i = 0; !err && i < o->count; i++)
		if (mkhct_place_is_folder(o, i))
			err = make_folder(o, i, diag);
	/* No file is there before the folders and the checkpoint are there for good. */
	return err ? err : sync_folders(o, diag);
}

/* The state of entry i; of a report, nothing. */
static struct mkhct_state state_of(const struct mkhct_output *o, size_t i)
{
	struct mkhct_state state = {.status = MKHCT_PENDING};

	if (o->checkpoint && i < o->source->count)
		mkhct_checkpoint_state(o->checkpoint, i, &state);
	return state;
}

static hct_error create(struct mkhct_output *o, const char *name, const char *shown, int keep,
			int *fd, struct hct_diag *diag)
{
	struct stat sb;

	/* Private until it has the mode of its source. */
	*fd = openat(o->root, name,
		     O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (keep ? 0 : O_TRUNC),
		     0600);
	if (*fd >= 0 && (fstat(*fd, &sb) != 0 || !S_ISREG(sb.st_mode))) {
		close(*fd);
		*fd = -1;
		return hct_fail(diag, HCT_ERR_EXISTS, "%s: %s is no file; move it away", shown,
				mkhct_name_base(name));
	}
	if (*fd < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be made", shown);
	return HCT_OK;
}

hct_error mkhct_output_create(struct mkhct_output *o, size_t i, int *fd, const char **name,
			      struct hct_diag *diag)
{
	struct mkhct_slot *s = &o->slots[i];
	hct_error err;

	*name = s->shown;
	err = create(o, s->part, s->shown, state_of(o, i).status == MKHCT_IN_PROGRESS, fd, diag);
	if (err)
		return err;
	s->created = 1;
	/* No checkpoint speaks of a file that may be gone. */
	err = sync_folder_of(o, s->part, diag);
	if (err)
		close(*fd);
	return err;
}

hct_error mkhct_output_ledger(struct mkhct_output *o, size_t i, int *fd, struct hct_diag *diag)
{
	char *name = ledger_name(i);
	hct_error err;

	if (!name)
		return out_of_memory(o, diag);
	err = create(o, name, o->slots[i].shown, state_of(o, i).status == MKHCT_IN_PROGRESS, fd,
		     diag);
	if (!err) {
		err = sync_folder_of(o, name, diag);
		if (err) {
			close(*fd);
			*fd = -1;
		}
	}
	free(name);
	return err;
}

/* The descriptor of a file of that many bytes, or with more of at least that many; or -1. */
static int open_whole(const struct mkhct_output *o, const char *name, uint64_t bytes, int more)
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

hct_error mkhct_output_reopen(const struct mkhct_output *o, size_t i, int *fd, const char **name,
			      struct hct_diag *diag)
{
	uint64_t bytes = state_of(o, i).bytes;

	*name = o->slots[i].shown;
	*fd = open_whole(o, o->slots[i].part, bytes, 0);
	if (*fd < 0 && mkhct_checkpoint_is_naming(o->checkpoint))
		*fd = open_whole(o, o->slots[i].final, bytes, 0);
	if (*fd < 0)
		return hct_fail(diag, HCT_ERR_NOT_FOUND,
				"%s: its part file is not there, or not as it was left", *name);
	return HCT_OK;
}

/* What lies behind the bytes that count was never saved. */
static int has_begun(const struct mkhct_output *o, size_t i, const struct mkhct_state *state)
{
	char *name = ledger_name(i);
	int part = open_whole(o, o->slots[i].part, state->bytes, 1);
	int ledger = name ? open_whole(o, name, state->ledger_bytes, 1) : -1;

	free(name);
	if (part >= 0)
		close(part);
	if (ledger >= 0)
		close(ledger);
	return part >= 0 && ledger >= 0;
}

int mkhct_output_has(const struct mkhct_output *o, size_t i)
{
	struct mkhct_state state = state_of(o, i);
	const char *name;
	int fd;

	if (state.status == MKHCT_IN_PROGRESS)
		return has_begun(o, i, &state);
	if (mkhct_output_reopen(o, i, &fd, &name, NULL))
		return 0;
	close(fd);
	return 1;
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

static int is_in_new_bundle(const char *name, void *arg)
{
	const struct mkhct_output *o = arg;
	size_t n = strlen(name) - strlen(MKHCT_HCT_SUFFIX);
	const struct mkhct_entry *e = mkhct_source_find(o->source, name);
	char *stem;

	if (strcmp(name, MKHCT_REPORT_NAME) == 0 || strcmp(name, MKHCT_PAGE_NAME) == 0 ||
	    (e && e->kind != MKHCT_MODEL))
		return 1;
	if (!mkhct_name_has_suffix(name, MKHCT_MODEL_SUFFIX MKHCT_HCT_SUFFIX))
		return 0;
	stem = strndup(name, n);
	e = stem ? mkhct_source_find(o->source, stem) : NULL;
	n = stem == NULL; /* out of memory: leave the file */
	free(stem);
	return e ? e->kind == MKHCT_MODEL : (int)n;
}

/* Gives slot i its final name.  A run that was killed meanwhile may have done so. */
static hct_error name_file(struct mkhct_output *o, size_t i, struct hct_diag *diag)
{
	struct mkhct_slot *s = &o->slots[i];
	struct stat sb;
	int errnum;

	if (renameat(o->root, s->part, o->root, s->final) == 0)
		return HCT_OK;
	errnum = errno;
	if (errnum == ENOENT && !s->created &&
	    fstatat(o->root, s->final, &sb, AT_SYMLINK_NOFOLLOW) == 0)
		return HCT_OK;
	return hct_fail_errno(diag, errnum, "%s: cannot be given its name", s->shown);
}

/* Removes a file of the hidden folder, which need not be there. */
static hct_error remove_hidden(const struct mkhct_output *o, const char *name, const char *suffix,
			       struct hct_diag *diag)
{
	char *full = NULL;
	hct_error err = HCT_OK;

	if (!name || asprintf(&full, "%s%s", name, suffix) < 0)
		return out_of_memory(o, diag);
	if (unlinkat(o->root, full, 0) != 0 && errno != ENOENT)
		err = hct_fail_errno(diag, errno, "%s/%s: cannot be removed", o->path, full);
	free(full);
	return err;
}

/* Checkpoints, locks and ledgers go, all that the hidden folder has of them. */
static hct_error remove_state(struct mkhct_output *o, struct hct_diag *diag)
{
	struct mkhct_output_mode part = o->mode;
	unsigned parts = part.parts ? part.parts : 1;
	char state[MKHCT_STATE_NAME];
	hct_error err = HCT_OK;

	for (size_t i = 0; !err && i < o->source->count; i++) {
		char *name;

		if (o->source->entries[i].kind != MKHCT_MODEL)
			continue;
		name = ledger_name(i);
		err = remove_hidden(o, name, "", diag);
		free(name);
	}
	for (unsigned i = parts; !err && i-- > 0;) {
		char *lock;

		part.part = i + 1;
		if (o->mode.parts)
			o->mode.part = part.part;
		lock = mkhct_output_lock_name(o);
		mkhct_output_state_name(&part, state);
		err = remove_hidden(o, lock, "", diag);
		if (!err)
			err = remove_hidden(o, state, ".part", diag);
		if (!err && i > 0)
			err = remove_hidden(o, state, "", diag);
		free(lock);
	}
	/* The checkpoint, of the first part, goes when all else is gone: then the bundle is
	 * finished. */
	if (!err)
		err = sync_at(o, o->root, MKHCT_META_FOLDER, diag);
	return err ? err : remove_hidden(o, o->state, "", diag);
}

hct_error mkhct_output_commit(struct mkhct_output *o, struct hct_diag *diag)
{
	hct_error err = mkhct_checkpoint_set_naming(o->checkpoint) ? out_of_memory(o, diag)
								   : mkhct_output_save(o, diag);

	if (err)
		return err;
	o->kept = 1; /* no way back, only forward */
	for (size_t i = 0; !err && i < o->count; i++)
		if (o->slots[i].part)
			err = name_file(o, i, diag);
	if (err)
		return err;
	mkhct_manifest_remove_old(&o->old, o->root, is_in_new_bundle, o);
	err = sync_folders(o, diag);
	if (!err)
		err = remove_state(o, diag);
	o->committed = !err;
	return err ? err : sync_at(o, o->root, MKHCT_META_FOLDER, diag);
}

static int gone(int fd, const char *name, int flags)
{
	return unlinkat(fd, name, flags) == 0 || errno == ENOENT;
}

void mkhct_output_keep(struct mkhct_output *o)
{
	o->kept = 1;
}

/* Something that a later run need not do again. */
int mkhct_output_is_kept(const struct mkhct_output *o)
{
	if (o->committed || o->kept || o->had_checkpoint)
		return 1;
	for (size_t i = 0; o->checkpoint && i < o->source->count; i++) {
		struct mkhct_state state = state_of(o, i);

		if (o->source->entries[i].kind == MKHCT_MODEL &&
		    (state.status == MKHCT_COMPLETED || state.ledger_bytes > 0))
			return 1;
	}
	return 0;
}

static int roll_back(struct mkhct_output *o)
{
	char *lock = mkhct_output_lock_name(o);
	int clean = 1;

	for (size_t i = o->count; i-- > 0;) {
		const struct mkhct_slot *s = &o->slots[i];
		char *ledger = ledger_name(i);

		if (s->created)
			clean &= gone(o->root, s->part ? s->part : s->final,
				      s->part ? 0 : AT_REMOVEDIR);
		if (s->created && ledger)
			clean &= gone(o->root, ledger, 0);
		free(ledger);
	}
	/* Were it gone before the files that it tells of, they would be nobody's. */
	for (size_t i = 0; o->made_checkpoint && i < o->count; i++)
		if (o->slots[i].created)
			(void)sync_folder_of(
				o, o->slots[i].part ? o->slots[i].part : o->slots[i].final, NULL);
	if (o->made_checkpoint)
		clean &= gone(o->root, o->state, 0);
	if (o->lock >= 0 && lock)
		clean &= gone(o->root, lock, 0);
	free(lock);
	/* What other parts have there is theirs. */
	if (o->made_meta && !gone(o->root, MKHCT_META_FOLDER, AT_REMOVEDIR))
		clean &= errno == ENOTEMPTY && o->mode.parts;
	if (o->made_root && rmdir(o->path) != 0)
		clean &= errno == ENOTEMPTY && o->mode.parts;
	return clean;
}

int mkhct_output_close(struct mkhct_output *o)
{
	int clean;

	if (!o)
		return 1;
	clean = mkhct_output_is_kept(o) || roll_back(o);
	for (size_t i = 0; o->slots && i < o->count; i++) {
		free(o->slots[i].final);
		free(o->slots[i].part);
		free(o->slots[i].shown);
	}
	free(o->slots);
	mkhct_manifest_free(&o->old);
	mkhct_checkpoint_free(o->checkpoint);
	if (o->lock >= 0)
		close(o->lock);
	if (o->root >= 0)
		close(o->root);
	free(o->state_shown);
	free(o->state);
	free(o->path);
	free(o);
	return clean;
}
