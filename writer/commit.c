#include "commit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "writer/folder.h"
#include "writer/hidden.h"
#include "writer/names.h"
#include "writer/place.h"

static hct_error out_of_memory(const struct mkhct_output *o, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", o->path);
}

/* Forward ------------------------------------------------------------------------------ */

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

/* 1 when slot i has its name already, from a run that was killed while it gave names.  A file of
 * the old bundle may lie there, too. */
static int is_named(const struct mkhct_output *o, size_t i)
{
	struct mkhct_state state = mkhct_place_state(o, i);
	int fd;

	if (!o->was_naming || o->slots[i].created || state.status != MKHCT_COMPLETED)
		return 0;
	fd = mkhct_place_open(o, o->slots[i].final, state.bytes, 0);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static hct_error name_file(struct mkhct_output *o, size_t i, struct hct_diag *diag)
{
	struct mkhct_slot *s = &o->slots[i];
	int errnum;

	if (renameat(o->root, s->part, o->root, s->final) == 0)
		return HCT_OK;
	errnum = errno;
	if (errnum == ENOENT && is_named(o, i))
		return HCT_OK;
	return hct_fail_errno(diag, errnum, "%s: cannot be given its name", s->shown);
}

/* Who reads the old bundle sees it whole as long as its report is there. */
static hct_error remove_report(const struct mkhct_output *o, struct hct_diag *diag)
{
	if (unlinkat(o->root, MKHCT_REPORT_NAME, 0) != 0) {
		if (errno == ENOENT)
			return HCT_OK;
		return hct_fail_errno(diag, errno, "%s/" MKHCT_REPORT_NAME ": cannot be removed",
				      o->path);
	}
	return mkhct_folder_sync(o, MKHCT_META_FOLDER, diag);
}

/* And the new one from when its report is there. */
static hct_error name_report(struct mkhct_output *o, struct hct_diag *diag)
{
	hct_error err = name_file(o, o->source->count, diag);

	return err ? err : mkhct_folder_sync(o, MKHCT_META_FOLDER, diag);
}

hct_error mkhct_output_commit(struct mkhct_output *o, struct hct_diag *diag)
{
	hct_error err = mkhct_checkpoint_set_naming(o->checkpoint) ? out_of_memory(o, diag)
								   : mkhct_output_save(o, diag);

	if (err)
		return err;
	o->kept = 1; /* no way back, only forward */
	err = remove_report(o, diag);
	for (size_t i = 0; !err && i < o->count; i++)
		if (o->slots[i].part && i != o->source->count)
			err = name_file(o, i, diag);
	if (!err)
		err = mkhct_manifest_remove_old(&o->old, o->root, is_in_new_bundle, o, diag);
	if (!err)
		err = mkhct_folder_sync_all(o, diag);
	if (!err)
		err = mkhct_hidden_enter(o, diag);
	if (!err)
		err = name_report(o, diag);
	if (!err)
		err = mkhct_hidden_remove(o, diag);
	o->committed = !err;
	return err ? err : mkhct_folder_sync(o, MKHCT_META_FOLDER, diag);
}

/* Back --------------------------------------------------------------------------------- */

static int gone(int fd, const char *name, int flags)
{
	return unlinkat(fd, name, flags) == 0 || errno == ENOENT;
}

/* A folder that this run has made; others may have something in it by now. */
static int folder_gone(int fd, const char *name)
{
	return gone(fd, name, AT_REMOVEDIR) || errno == ENOTEMPTY || errno == EEXIST;
}

static int remove_slot(const struct mkhct_output *o, size_t i)
{
	const struct mkhct_slot *s = &o->slots[i];
	char *ledger;
	int clean;

	if (!s->created)
		return 1;
	if (!s->part)
		return folder_gone(o->root, s->final);
	ledger = mkhct_hidden_ledger_name(i);
	clean = gone(o->root, s->part, 0) && (!ledger || gone(o->root, ledger, 0));
	free(ledger);
	return clean;
}

int mkhct_commit_undo(struct mkhct_output *o)
{
	char *lock = mkhct_hidden_lock_name(o);
	int clean = 1;

	/* Others see all of it, or nothing. */
	if (o->made_checkpoint)
		(void)mkhct_hidden_enter(o, NULL);
	for (size_t i = o->count; i-- > 0;)
		clean &= remove_slot(o, i);
	/* Were it gone before the files that it tells of, they would be nobody's. */
	for (size_t i = 0; o->made_checkpoint && i < o->count; i++)
		if (o->slots[i].created)
			(void)mkhct_folder_sync_of(
				o, o->slots[i].part ? o->slots[i].part : o->slots[i].final, NULL);
	if (o->made_checkpoint)
		clean &=
			mkhct_output_drop_measured(o, NULL) == HCT_OK && gone(o->root, o->state, 0);
	if (o->lock >= 0 && lock)
		clean &= gone(o->root, lock, 0);
	free(lock);
	clean &= mkhct_hidden_leave(o);
	if (o->made_meta)
		clean &= folder_gone(o->root, MKHCT_META_FOLDER);
	if (o->made_root)
		clean &= folder_gone(AT_FDCWD, o->path);
	return clean;
}
