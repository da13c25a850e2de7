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
#include "writer/carry.h"
#include "writer/commit.h"
#include "writer/folder.h"
#include "writer/hidden.h"
#include "writer/match.h"
#include "writer/names.h"
#include "writer/place.h"

#define MOST_TRIES 100 /* at a folder that others take away again and again */

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
		o->root = o->lock = o->gate = -1;
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
	if (!err && !o->finished)
		err = mkhct_place_check_slots(o, diag);
	if (err) {
		mkhct_output_close(o);
		return err;
	}
	*out = o;
	return HCT_OK;
}

int mkhct_output_is_finished(const struct mkhct_output *o)
{
	return o->finished;
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

/* Whether the part file of slot i is this run's to write, and to remove: what others have in their
 * part of the bundle is theirs. */
static int is_own(const struct mkhct_output *o, size_t i)
{
	struct mkhct_state state;

	if (i >= o->source->count)
		return o->mode.part <= 1;
	mkhct_checkpoint_state(o->checkpoint, i, &state);
	return state.status != MKHCT_SKIPPED;
}

/* What this run is going to write, and what earlier ones may have written. */
static int list_files(struct mkhct_output *o, cJSON *document)
{
	cJSON *list = mkhct_manifest_create();
	char *measured = mkhct_hidden_measured_name(o->mode.part, o->mode.parts);
	int rc = list ? 0 : -1;

	for (size_t i = 0; !rc && i < o->count; i++) {
		const struct mkhct_slot *s = &o->slots[i];
		char *ledger = mkhct_hidden_ledger_name(i);

		rc = ledger ? mkhct_manifest_add(list,
						 mkhct_place_is_folder(o, i) ? MKHCT_MANIFEST_FOLDER
									     : MKHCT_MANIFEST_FILE,
						 s->final)
			    : -1;
		if (!rc && s->part && is_own(o, i))
			rc = mkhct_manifest_add(list, MKHCT_MANIFEST_PART, s->part);
		if (!rc && i < o->source->count && o->source->entries[i].kind == MKHCT_MODEL &&
		    is_own(o, i))
			rc = mkhct_manifest_add(list, MKHCT_MANIFEST_PART, ledger);
		free(ledger);
	}
	if (!rc)
		rc = measured ? mkhct_manifest_add(list, MKHCT_MANIFEST_PART, measured) : -1;
	free(measured);
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
	char how[MKHCT_MATCH_LINE];
	int rc = mkhct_checkpoint_merge(o->checkpoint, other, how);

	if (rc > 0)
		return hct_fail(diag, HCT_ERR_EXISTS,
				"%s: part %u is not as part 1: %s; run mkhct --shards %u/%u "
				"--restart with the source and the options of part 1",
				o->path, part, how, part, o->mode.parts);
	for (size_t i = 0; !rc && i < o->source->count; i++)
		rc = mkhct_place_take_part(o, i);
	return rc ? out_of_memory(o, diag) : HCT_OK;
}

/* Waits for the file that is being completed, if any. */
static hct_error settle(struct mkhct_output *o, struct hct_diag *diag)
{
	hct_error err;
	int synced;

	if (!o->landing)
		return HCT_OK;
	err = mkhct_landing_wait(o->landing, &synced, diag);
	o->landing = NULL;
	if (synced)
		cJSON_Delete(o->before_landing);
	else
		mkhct_checkpoint_put_back(o->checkpoint, o->landing_slot, o->before_landing);
	return err;
}

/* No checkpoint speaks of files that may be gone. */
static hct_error sync_new(struct mkhct_output *o, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	if (o->has_new)
		err = mkhct_folder_sync_names(o, o->new_slot, diag);
	o->has_new &= err != HCT_OK;
	return err;
}

hct_error mkhct_output_save(struct mkhct_output *o, struct hct_diag *diag)
{
	hct_error err = settle(o, diag);
	char *text;

	if (!err)
		err = sync_new(o, diag);
	if (err)
		return err;
	text = mkhct_checkpoint_text(o->checkpoint);
	err = text ? mkhct_checkpoint_put(text, o->root, o->state, o->state_shown, diag)
		   : out_of_memory(o, diag);
	cJSON_free(text);
	return err;
}

/* The checkpoint with slot i completed; NULL without memory. */
static char *completed_text(struct mkhct_output *o, size_t i, uint64_t bytes, const char *report)
{
	if (mkhct_checkpoint_set_completed(o->checkpoint, i, bytes, report) != 0 ||
	    mkhct_checkpoint_set_tensors(o->checkpoint, i, NULL) != 0)
		return NULL;
	return mkhct_checkpoint_text(o->checkpoint);
}

hct_error mkhct_output_complete(struct mkhct_output *o, size_t i, int fd, uint64_t bytes,
				const char *report, struct hct_diag *diag)
{
	hct_error err = settle(o, diag);
	int copy = -1, is_new = o->has_new && o->new_slot == i;
	char *text;

	if (err)
		return err;
	o->landing_slot = i;
	o->before_landing = cJSON_Duplicate(mkhct_checkpoint_entry(o->checkpoint, i), 1);
	if (!o->before_landing)
		return out_of_memory(o, diag);
	text = completed_text(o, i, bytes, report);
	if (text)
		copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy >= 0) {
		err = mkhct_landing_start(o, i, copy, text, is_new, &o->landing, diag);
	} else {
		err = text ? hct_fail_errno(diag, errno, "%s: cannot be written to disk",
					    o->slots[i].shown)
			   : out_of_memory(o, diag);
		cJSON_free(text);
	}
	if (err)
		mkhct_checkpoint_put_back(o->checkpoint, i, o->before_landing);
	else
		o->has_new &= !is_new;
	return err;
}

uint64_t mkhct_output_saved_bytes(const struct mkhct_output *o)
{
	struct stat sb;

	return fstatat(o->root, o->state, &sb, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)sb.st_size : 0;
}

static hct_error being_finished(const struct mkhct_output *o, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_EXISTS,
			"%s: all its parts are done and it is being finished; run mkhct --finish "
			"%s again",
			o->path, o->path);
}

/* The bundle's folder and the hidden one, and the gate. */
static hct_error enter(struct mkhct_output *o, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	for (unsigned again = 0; again < MOST_TRIES; again++) {
		err = mkhct_folder_make_root(o, diag);
		if (err)
			return err;
		if (mkdirat(o->root, MKHCT_META_FOLDER, 0777) == 0)
			o->made_meta = 1;
		else if (errno != EEXIST)
			err = hct_fail_errno(diag, errno,
					     "%s/" MKHCT_META_FOLDER ": cannot be made", o->path);
		if (!err)
			err = mkhct_hidden_enter(o, diag);
		if (err != HCT_ERR_NOT_FOUND)
			return err;
		/* Another run has come to its end, and has taken its folders away. */
		close(o->root);
		o->root = -1;
		o->made_root = o->made_meta = 0;
	}
	return err;
}

/* In the gate: a part must not be what no other part is. */
static hct_error check_sibling(const struct mkhct_output *o, const struct mkhct_checkpoint_of *of,
			       const char *state, struct hct_diag *diag)
{
	struct mkhct_checkpoint *c = NULL;
	hct_error err;

	if (!o->mode.parts || o->mode.finish)
		return HCT_OK;
	if (o->was_naming)
		return being_finished(o, diag);
	if (!*state)
		return HCT_OK;
	err = mkhct_checkpoint_read(o->root, state, o->path, &c, diag);
	if (!err && c && mkhct_checkpoint_is_naming(c))
		err = being_finished(o, diag);
	else if (!err && c && !o->mode.restart)
		err = mkhct_checkpoint_match_part(c, of, o->path, diag);
	else if (err == HCT_ERR_CORRUPT)
		err = HCT_OK; /* --finish says so */
	mkhct_checkpoint_free(c);
	return err;
}

hct_error mkhct_output_begin(struct mkhct_output *o, const struct mkhct_checkpoint_of *of,
			     struct hct_diag *diag)
{
	char sibling[MKHCT_STATE_NAME];
	hct_error err = enter(o, diag);

	if (!err)
		err = mkhct_hidden_lock(o, 1, diag);
	if (!err)
		err = mkhct_place_check_still(o, sibling, diag);
	if (!err)
		err = check_sibling(o, of, sibling, diag);
	if (!err)
		err = begin_checkpoint(o, of, diag);
	/* What it could not remove then, closing the output removes, or says. */
	if (!err)
		(void)mkhct_hidden_leave(o);
	for (size_t i = 0; !err && i < o->count; i++)
		if (mkhct_place_is_folder(o, i))
			err = mkhct_folder_make(o, i, diag);
	/* No file is there before the folders and the checkpoint are there for good. */
	return err ? err : mkhct_folder_sync_all(o, diag);
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
	err = sync_new(o, diag);
	if (!err)
		err = create(o, s->part, s->shown,
			     mkhct_place_state(o, i).status == MKHCT_IN_PROGRESS, fd, diag);
	if (err)
		return err;
	s->created = 1;
	o->new_slot = i;
	o->has_new = 1;
	return HCT_OK;
}

hct_error mkhct_output_ledger(struct mkhct_output *o, size_t i, int *fd, struct hct_diag *diag)
{
	char *name = mkhct_hidden_ledger_name(i);
	hct_error err;

	if (!name)
		return out_of_memory(o, diag);
	err = create(o, name, o->slots[i].shown,
		     mkhct_place_state(o, i).status == MKHCT_IN_PROGRESS, fd, diag);
	free(name);
	return err;
}

hct_error mkhct_output_measured(struct mkhct_output *o, int *fd, struct hct_diag *diag)
{
	char *name = mkhct_hidden_measured_name(o->mode.part, o->mode.parts);
	hct_error err;

	if (!name)
		return out_of_memory(o, diag);
	err = create(o, name, o->path, 1, fd, diag);
	if (!err) {
		err = mkhct_folder_sync_of(o, name, diag);
		if (err)
			close(*fd);
	}
	free(name);
	return err;
}

hct_error mkhct_output_drop_measured(struct mkhct_output *o, struct hct_diag *diag)
{
	char *name = mkhct_hidden_measured_name(o->mode.part, o->mode.parts);
	hct_error err = name ? HCT_OK : out_of_memory(o, diag);

	if (name && unlinkat(o->root, name, 0) != 0 && errno != ENOENT)
		err = hct_fail_errno(diag, errno, "%s/%s: cannot be removed", o->path, name);
	free(name);
	return err;
}

hct_error mkhct_output_reopen(const struct mkhct_output *o, size_t i, int *fd, const char **name,
			      struct hct_diag *diag)
{
	uint64_t bytes = mkhct_place_state(o, i).bytes;

	*name = o->slots[i].shown;
	*fd = mkhct_place_open(o, o->slots[i].part, bytes, 0);
	if (*fd < 0 && mkhct_checkpoint_is_naming(o->checkpoint))
		*fd = mkhct_place_open(o, o->slots[i].final, bytes, 0);
	if (*fd < 0)
		return hct_fail(diag, HCT_ERR_NOT_FOUND,
				"%s: its part file is not there, or not as it was left", *name);
	return HCT_OK;
}

/* What lies behind the bytes that count was never saved. */
static int has_begun(const struct mkhct_output *o, size_t i, const struct mkhct_state *state)
{
	char *name = mkhct_hidden_ledger_name(i);
	int part = mkhct_place_open(o, o->slots[i].part, state->bytes, 1);
	int ledger = name ? mkhct_place_open(o, name, state->ledger_bytes, 1) : -1;
	int whole = part >= 0 && (ledger >= 0 || o->source->entries[i].kind != MKHCT_MODEL);

	free(name);
	if (part >= 0)
		close(part);
	if (ledger >= 0)
		close(ledger);
	return whole;
}

int mkhct_output_has(const struct mkhct_output *o, size_t i)
{
	struct mkhct_state state = mkhct_place_state(o, i);
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
	hct_error err = hct_sync_out(fd, name, diag);

	if (close(fd) != 0 && !err)
		err = hct_fail_errno(diag, errno, "%s: cannot be written to disk", name);
	return err;
}

void mkhct_output_keep(struct mkhct_output *o)
{
	o->kept = 1;
}

void mkhct_output_give_up(struct mkhct_output *o)
{
	/* What an earlier run has made is this one's to remove; of other parts nothing. */
	for (size_t i = 0; o->had_checkpoint && !o->mode.parts && i < o->count; i++)
		o->slots[i].created |= mkhct_place_is_folder(o, i);
	o->made_meta |= o->had_checkpoint;
	o->kept = o->had_checkpoint = 0;
}

/* Something that a later run need not do again. */
int mkhct_output_is_kept(const struct mkhct_output *o)
{
	if (o->committed || o->kept || o->had_checkpoint)
		return 1;
	for (size_t i = 0; o->checkpoint && i < o->source->count; i++) {
		struct mkhct_state state = mkhct_place_state(o, i);

		if (o->source->entries[i].kind == MKHCT_MODEL
			    ? state.status == MKHCT_COMPLETED || state.ledger_bytes > 0
			    : state.bytes >= MKHCT_CARRY_MARK)
			return 1;
	}
	return 0;
}

int mkhct_output_close(struct mkhct_output *o)
{
	int clean;

	if (!o)
		return 1;
	(void)settle(o, NULL);
	clean = mkhct_output_is_kept(o) || mkhct_commit_undo(o);
	clean &= mkhct_hidden_leave(o);
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
