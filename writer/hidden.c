#include "hidden.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "codec/hct.h"
#include "writer/folder.h"
#include "writer/interrupt.h"
#include "writer/place.h"

#define MOST_PATIENCE 60 /* seconds: nobody stays in the gate for long */

static hct_error no_memory(const struct mkhct_output *o, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", o->path);
}

static char *lock_name(unsigned part, unsigned parts)
{
	char *name = NULL;
	int n = parts ? asprintf(&name, MKHCT_META_FOLDER "/lock-%u-of-%u", part, parts)
		      : asprintf(&name, MKHCT_META_FOLDER "/lock");

	return n < 0 ? NULL : name;
}

char *mkhct_hidden_lock_name(const struct mkhct_output *o)
{
	/* To finish is nobody's part. */
	return lock_name(o->mode.part, o->mode.finish ? 0 : o->mode.parts);
}

char *mkhct_hidden_ledger_name(size_t i)
{
	char *name = NULL;

	return asprintf(&name, MKHCT_META_FOLDER "/%zu.ledger", i) < 0 ? NULL : name;
}

char *mkhct_hidden_measured_name(unsigned part, unsigned parts)
{
	char *name = NULL;
	int n = parts ? asprintf(&name, MKHCT_META_FOLDER "/measured-%u-of-%u", part, parts)
		      : asprintf(&name, MKHCT_META_FOLDER "/measured");

	return n < 0 ? NULL : name;
}

/* The lock ---------------------------------------------------------------------------- */

/* Whether the file that is open is still the one of that name: a run that came to its end removes
 * it, another may have made it anew, and a lock on what has no name keeps nobody out.  By its
 * number and not by its links alone, because a network file system may keep what is open under
 * another name. */
static int is_still_there(const struct mkhct_output *o, int fd, const char *name)
{
	struct stat ours, there;

	if (fstat(fd, &ours) != 0)
		return 1;
	if (ours.st_nlink == 0)
		return 0;
	if (fstatat(o->root, name, &there, AT_SYMLINK_NOFOLLOW) != 0)
		return errno != ENOENT;
	return ours.st_ino == there.st_ino && ours.st_dev == there.st_dev;
}

/* Opens a lock file, unless it is open. */
static int open_lock(const struct mkhct_output *o, const char *name, int make, int *fd)
{
	if (*fd >= 0 && !is_still_there(o, *fd, name)) {
		close(*fd);
		*fd = -1;
	}
	if (*fd < 0)
		*fd = openat(o->root, name,
			     O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (make ? O_CREAT : 0),
			     0666);
	return *fd;
}

static hct_error at_work(const struct mkhct_output *o, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_EXISTS,
			"%s: another mkhct is at work on it; wait for it, or stop it", o->path);
}

/* Locks the file of that name, which `make` makes.  *fd is -1 when that fails, or there is none. */
static hct_error lock(const struct mkhct_output *o, const char *name, int make, int *fd,
		      struct hct_diag *diag)
{
	struct flock ours = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	hct_error err = HCT_OK;

	do {
		if (open_lock(o, name, make, fd) < 0 && make)
			err = hct_fail_errno(diag, errno, "%s/%s: cannot be made", o->path, name);
		/* Not every file system has locks; without them the user has to see to it. */
		if (*fd >= 0 && fcntl(*fd, F_OFD_SETLK, &ours) != 0 &&
		    (errno == EACCES || errno == EAGAIN)) {
			close(*fd); /* the file is the other's, who removes it */
			*fd = -1;
			err = at_work(o, diag);
		}
	} while (!err && *fd >= 0 && !is_still_there(o, *fd, name));
	return err;
}

hct_error mkhct_hidden_lock(struct mkhct_output *o, int make, struct hct_diag *diag)
{
	char *name = mkhct_hidden_lock_name(o);
	hct_error err = name ? lock(o, name, make, &o->lock, diag) : no_memory(o, diag);

	free(name);
	return err;
}

int mkhct_hidden_is_locked(const struct mkhct_output *o, const char *name)
{
	struct flock theirs = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = openat(o->root, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int held = fd >= 0 && fcntl(fd, F_OFD_GETLK, &theirs) == 0 && theirs.l_type != F_UNLCK;

	if (fd >= 0)
		close(fd);
	return held;
}

/* The gate ----------------------------------------------------------------------------- */

hct_error mkhct_hidden_enter(struct mkhct_output *o, struct hct_diag *diag)
{
	const struct timespec moment = {.tv_nsec = 10 * 1000 * 1000};
	double start = hct_meter_now();
	hct_error err;

	if (o->gate >= 0)
		return HCT_OK;
	while ((err = lock(o, MKHCT_HIDDEN_GATE, 1, &o->gate, diag)) == HCT_ERR_EXISTS) {
		if (mkhct_interrupt_check(diag))
			return HCT_ERR_INTERRUPTED;
		if (hct_meter_now() - start > MOST_PATIENCE)
			return at_work(o, diag);
		nanosleep(&moment, NULL);
	}
	return err;
}

int mkhct_hidden_leave(struct mkhct_output *o)
{
	int clean = 1;

	if (o->gate < 0)
		return 1;
	/* While it is locked: who waits for it sees that it is gone, and makes it anew. */
	clean = unlinkat(o->root, MKHCT_HIDDEN_GATE, 0) == 0 || errno == ENOENT;
	close(o->gate);
	o->gate = -1;
	return clean;
}

/* The end ------------------------------------------------------------------------------ */

/* Removes a file of the hidden folder, which need not be there. */
static hct_error remove_hidden(const struct mkhct_output *o, const char *name, const char *suffix,
			       struct hct_diag *diag)
{
	char *full = NULL;
	hct_error err = HCT_OK;

	if (!name || asprintf(&full, "%s%s", name, suffix) < 0)
		return no_memory(o, diag);
	if (unlinkat(o->root, full, 0) != 0 && errno != ENOENT)
		err = hct_fail_errno(diag, errno, "%s/%s: cannot be removed", o->path, full);
	free(full);
	return err;
}

static hct_error remove_part(const struct mkhct_output *o, unsigned part, struct hct_diag *diag)
{
	const struct mkhct_output_mode mode = {.part = part, .parts = o->mode.parts};
	char state[MKHCT_STATE_NAME], *name = lock_name(part, o->mode.parts);
	hct_error err = remove_hidden(o, name, "", diag);

	free(name);
	name = mkhct_hidden_measured_name(part, o->mode.parts);
	if (!err)
		err = remove_hidden(o, name, "", diag);
	free(name);
	mkhct_output_state_name(&mode, state);
	if (!err)
		err = remove_hidden(o, state, ".part", diag);
	if (!err && part > 1)
		err = remove_hidden(o, state, "", diag);
	return err;
}

hct_error mkhct_hidden_remove(struct mkhct_output *o, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	for (size_t i = 0; !err && i < o->source->count; i++) {
		char *name;

		if (o->source->entries[i].kind != MKHCT_MODEL)
			continue;
		name = mkhct_hidden_ledger_name(i);
		err = remove_hidden(o, name, "", diag);
		free(name);
	}
	for (unsigned i = o->mode.parts ? o->mode.parts : 1; !err && i > 0; i--)
		err = remove_part(o, i, diag);
	if (!err && o->mode.finish)
		err = remove_hidden(o, MKHCT_META_FOLDER "/lock", "", diag);
	if (!err)
		err = remove_hidden(o, MKHCT_HIDDEN_GATE, "", diag);
	/* The checkpoint, of the first part, goes when all else is gone: then the bundle is
	 * finished. */
	if (!err)
		err = mkhct_folder_sync(o, MKHCT_META_FOLDER, diag);
	return err ? err : remove_hidden(o, o->state, "", diag);
}
