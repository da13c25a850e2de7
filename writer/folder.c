#include "folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "writer/names.h"
#include "writer/place.h"

static hct_error no_memory(const struct mkhct_output *o, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", o->path);
}

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

hct_error mkhct_folder_sync(const struct mkhct_output *o, const char *folder, struct hct_diag *diag)
{
	return sync_at(o, o->root, folder, diag);
}

hct_error mkhct_folder_sync_of(const struct mkhct_output *o, const char *name,
			       struct hct_diag *diag)
{
	size_t n = (size_t)(mkhct_name_base(name) - name);
	char *folder = n ? strndup(name, n) : strdup(".");
	hct_error err = folder ? mkhct_folder_sync(o, folder, diag) : no_memory(o, diag);

	free(folder);
	return err;
}

hct_error mkhct_folder_sync_names(const struct mkhct_output *o, size_t i, struct hct_diag *diag)
{
	hct_error err = mkhct_folder_sync_of(o, o->slots[i].part, diag);

	return err ? err : mkhct_folder_sync(o, MKHCT_META_FOLDER, diag);
}

hct_error mkhct_folder_sync_all(const struct mkhct_output *o, struct hct_diag *diag)
{
	char *slash, *parent = strdup(o->path);
	hct_error err = parent ? mkhct_folder_sync(o, MKHCT_META_FOLDER, diag) : no_memory(o, diag);

	for (size_t i = 0; !err && i < o->count; i++)
		if (mkhct_place_is_folder(o, i))
			err = mkhct_folder_sync(o, o->slots[i].final, diag);
	if (!err)
		err = mkhct_folder_sync(o, ".", diag);
	slash = parent ? strrchr(parent, '/') : NULL;
	if (slash)
		slash[slash == parent] = '\0';
	if (!err) /* it may be nobody's to read */
		(void)sync_at(o, AT_FDCWD, slash ? parent : ".", NULL);
	free(parent);
	return err;
}

hct_error mkhct_folder_make_root(struct mkhct_output *o, struct hct_diag *diag)
{
	if (o->root >= 0)
		return HCT_OK;
	if (mkdir(o->path, 0777) == 0)
		o->made_root = 1;
	else if (errno != EEXIST) /* who else has made it is seen later, in the gate */
		return hct_fail_errno(diag, errno, "%s: cannot be made", o->path);
	o->root = open(o->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o->root < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", o->path);
	return HCT_OK;
}

hct_error mkhct_folder_make(struct mkhct_output *o, size_t i, struct hct_diag *diag)
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
