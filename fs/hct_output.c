#include "hct_output.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "codec/units.h"

#define PART_SUFFIX ".part"

static char *join(const char *target, const char *path)
{
	char *full;

	return asprintf(&full, "%s%s%s", target, *path ? "/" : "", path) < 0 ? NULL : full;
}

hct_error hct_output_directory(const char *target, const char *path, int *made,
			       struct hct_diag *diag)
{
	char *full = join(target, path);
	hct_error err = HCT_OK;
	struct stat st;

	*made = 0;
	if (!full)
		return HCT_ERR_NOMEM;
	*made = mkdir(full, 0777) == 0;
	if (!*made) {
		int errnum = errno;

		if (errnum != EEXIST || stat(full, &st) != 0)
			err = hct_fail_errno(diag, errnum, "%s: cannot make the directory", full);
		else if (!S_ISDIR(st.st_mode))
			err = hct_fail(diag, HCT_ERR_EXISTS, "%s is there and no directory", full);
	}
	free(full);
	return err;
}

void hct_output_remove_directory(const char *target, const char *path)
{
	char *full = join(target, path);

	if (full)
		rmdir(full);
	free(full);
}

static hct_error no_space(const char *where, uint64_t needed, const struct statvfs *vfs,
			  struct hct_diag *diag)
{
	char a[HCT_UNITS_MAX], b[HCT_UNITS_MAX];

	return hct_fail(diag, HCT_ERR_NO_SPACE, "%s: no space left: it needs %s, %s are free",
			where, hct_units_size(needed, a),
			hct_units_size((uint64_t)vfs->f_bavail * vfs->f_frsize, b));
}

hct_error hct_output_space(const char *target, uint64_t needed, struct hct_diag *diag)
{
	hct_error err = HCT_OK;
	struct statvfs vfs;
	char *parent;
	int rc = statvfs(target, &vfs);

	if (rc != 0 && errno == ENOENT) {
		parent = strdup(target);
		if (!parent)
			return HCT_ERR_NOMEM;
		rc = statvfs(dirname(parent), &vfs);
		free(parent);
	}
	/* Some file systems in user space say 0 of everything. */
	if (rc == 0 && vfs.f_blocks > 0 && vfs.f_frsize > 0 && needed / vfs.f_frsize > vfs.f_bavail)
		err = no_space(target, needed, &vfs, diag);
	return err;
}

/* Opens and locks the part file, whatever an interrupted run has left of it. */
static hct_error open_part(struct hct_output *out, struct hct_diag *diag)
{
	struct stat st, named;

	out->fd = openat(out->dir, out->part,
			 O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0666);
	if (out->fd < 0 || fstat(out->fd, &st) != 0)
		return hct_fail_errno(diag, errno, "%s: cannot make %s", out->shown, out->part);
	if (!S_ISREG(st.st_mode))
		return hct_fail(diag, HCT_ERR_EXISTS, "%s: %s is there and no ordinary file",
				out->shown, out->part);
	/* The one who held the lock may have renamed or removed it before we got it. */
	if ((flock(out->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) ||
	    fstatat(out->dir, out->part, &named, AT_SYMLINK_NOFOLLOW) != 0 ||
	    named.st_ino != st.st_ino || named.st_dev != st.st_dev)
		return hct_fail(diag, HCT_ERR_EXISTS, "%s: another program is writing it",
				out->shown);
	return HCT_OK;
}

/* Fails early when the disk is too small, where the file system can tell. */
static hct_error reserve(struct hct_output *out, uint64_t size, struct hct_diag *diag)
{
	struct statvfs vfs;

	if (ftruncate(out->fd, 0) != 0)
		return hct_fail_errno(diag, errno, "%s: cannot write", out->shown);
	if (size == 0 || fallocate(out->fd, 0, 0, (off_t)size) == 0)
		return HCT_OK;
	if (errno != ENOSPC && errno != EDQUOT) {
		if (ftruncate(out->fd, (off_t)size) == 0)
			return HCT_OK;
		return hct_fail_errno(diag, errno, "%s: cannot write", out->shown);
	}
	if (fstatvfs(out->fd, &vfs) != 0)
		return hct_fail_errno(diag, errno, "%s", out->shown);
	/* What the failed try has taken counts as free again. */
	if (ftruncate(out->fd, 0) == 0)
		fstatvfs(out->fd, &vfs);
	return no_space(out->shown, size, &vfs, diag);
}

/* The name that a file has until it is whole: none that a file beside it is to get. */
static char *part_name(const char *name, const struct hct_node *folder)
{
	char *part, again[16] = "";

	for (unsigned n = 2;; n++) {
		/* A name that leaves no room for the suffix is cut; the lock keeps this safe. */
		if (asprintf(&part, ".%.*s" PART_SUFFIX "%s",
			     (int)(NAME_MAX - strlen(PART_SUFFIX) - sizeof again), name, again) < 0)
			return NULL;
		if (!hct_node_child(folder, part))
			return part;
		free(part);
		snprintf(again, sizeof again, "-%u", n);
	}
}

hct_error hct_output_begin(const char *target, const char *path, const struct hct_node *node,
			   struct hct_output *out, struct hct_diag *diag)
{
	hct_error err = HCT_ERR_NOMEM;
	char *slash;

	*out = (struct hct_output){.fd = -1, .dir = -1};
	if (asprintf(&out->shown, "%s/%s", target, path) < 0) {
		out->shown = NULL;
		goto fail;
	}
	slash = strrchr(out->shown, '/');
	out->name = strdup(slash + 1);
	if (out->name)
		out->part = part_name(out->name, node->parent);
	if (!out->part)
		goto fail;
	*slash = '\0';
	out->dir = open(out->shown, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (out->dir < 0) {
		err = hct_fail_errno(diag, errno, "%s", out->shown);
		goto fail;
	}
	*slash = '/';
	err = open_part(out, diag);
	if (err) {
		/* Not ours to remove. */
		free(out->part);
		out->part = NULL;
		goto fail;
	}
	err = reserve(out, node->size, diag);
	if (!err)
		return HCT_OK;
fail:
	hct_output_end(out);
	return err;
}

static hct_error rename_part(struct hct_output *out, int replace)
{
	struct stat st;

	if (replace)
		return renameat(out->dir, out->part, out->dir, out->name)
			       ? hct_error_from_errno(errno)
			       : HCT_OK;
	if (renameat2(out->dir, out->part, out->dir, out->name, RENAME_NOREPLACE) == 0)
		return HCT_OK;
	if (errno != EINVAL && errno != ENOSYS)
		return hct_error_from_errno(errno);
	/* File systems without it. */
	if (fstatat(out->dir, out->name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		errno = EEXIST;
		return HCT_ERR_EXISTS;
	}
	return rename_part(out, 1);
}

hct_error hct_output_commit(struct hct_output *out, const struct timespec *mtime, int replace,
			    struct hct_diag *diag)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, *mtime};

	if (futimens(out->fd, times) != 0)
		return hct_fail_errno(diag, errno, "%s: cannot set its time", out->shown);
	if (fsync(out->fd) != 0)
		return hct_fail_errno(diag, errno, "%s: cannot sync", out->shown);
	if (rename_part(out, replace))
		return hct_fail_errno(diag, errno, "%s: cannot give it its name", out->shown);
	out->whole = 1;
	/* Some file systems do not sync directories; the file is whole all the same. */
	if (fsync(out->dir) != 0 && errno != EINVAL && errno != ENOTSUP)
		return hct_fail_errno(diag, errno, "%s: cannot sync its directory", out->shown);
	return HCT_OK;
}

void hct_output_end(struct hct_output *out)
{
	if (out->part && out->fd >= 0 && !out->whole)
		unlinkat(out->dir, out->part, 0);
	if (out->fd >= 0)
		close(out->fd);
	if (out->dir >= 0)
		close(out->dir);
	free(out->name);
	free(out->part);
	free(out->shown);
}
