#include "hub.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "writer/names.h"
#include "writer/patience.h"

#define MAX_REVISION 128

static int is_folder(const char *parent, const char *name)
{
	char *path = mkhct_name_join(parent, name);
	struct stat sb;
	int is = path && mkhct_patient_stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);

	free(path);
	return is;
}

int mkhct_hub_is_entry(const char *path)
{
	return is_folder(path, "blobs") && is_folder(path, "snapshots");
}

/* The revision in refs/main, or "". */
static void read_main(const char *path, char out[static MAX_REVISION])
{
	char *name = mkhct_name_join(path, "refs/main");
	int fd = name ? mkhct_patient_open(name) : -1;
	ssize_t n = fd >= 0 ? mkhct_patient_pread(fd, out, MAX_REVISION - 1, 0) : 0;

	out[n > 0 ? n : 0] = '\0';
	out[strspn(out, "0123456789abcdefABCDEF")] = '\0';
	if (fd >= 0)
		close(fd);
	free(name);
}

/* How many there are; the name of one in out. */
static size_t count_snapshots(const char *folder, char out[static NAME_MAX + 1])
{
	DIR *dir = mkhct_patient_opendir(folder);
	const struct dirent *d;
	size_t count = 0;

	while (dir && (d = readdir(dir)) != NULL) {
		if (*d->d_name == '.' || !is_folder(folder, d->d_name))
			continue;
		count++;
		snprintf(out, NAME_MAX + 1, "%s", d->d_name);
	}
	if (dir)
		closedir(dir);
	return count;
}

hct_error mkhct_hub_refuse(const char *path, struct hct_diag *diag)
{
	static const char what[] =
		"a model's whole folder in the cache of Hugging Face, which holds "
		"everything twice";
	char *snapshots = mkhct_name_join(path, "snapshots");
	char revision[MAX_REVISION], only[NAME_MAX + 1] = "";
	size_t count;

	if (!snapshots)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", path);
	read_main(path, revision);
	count = count_snapshots(snapshots, only);
	if (*revision && is_folder(snapshots, revision))
		hct_fail(diag, HCT_ERR_UNSUPPORTED, "%s: %s; give %s/%s", path, what, snapshots,
			 revision);
	else if (count == 1)
		hct_fail(diag, HCT_ERR_UNSUPPORTED, "%s: %s; give %s/%s", path, what, snapshots,
			 only);
	else
		hct_fail(diag, HCT_ERR_UNSUPPORTED, "%s: %s; give one of the %zu folders in %s",
			 path, what, count, snapshots);
	free(snapshots);
	return HCT_ERR_UNSUPPORTED;
}
