#include "bundle_state.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "/" HCT_HIDDEN_FOLDER
#define REPORT FOLDER "/report.json"

/* The path of something below root; free.  NULL without memory. */
static char *below(const char *root, const char *name)
{
	char *path = NULL;

	return asprintf(&path, "%s%s", root, name) < 0 ? NULL : path;
}

/* What mkhct has in the hidden folder while it is at work, and leaves there when it was stopped:
 * checkpoint.json, or checkpoint-I-of-N.json when it makes the bundle in parts. */
static int is_checkpoint(const char *name)
{
	unsigned part, parts;
	int end = 0;

	if (strcmp(name, "checkpoint.json") == 0)
		return 1;
	return sscanf(name, "checkpoint-%9u-of-%9u.json%n", &part, &parts, &end) == 2 && end &&
	       !name[end];
}

int hct_bundle_state_hides(const struct hct_bundle_state *state, const char *name)
{
	const char *end = strrchr(name, '.');

	/* `.NAME.part`, or with `-2` behind it where that was taken. */
	if (!state->hide_parts || name[0] != '.' || end < name + 2 || strncmp(end, ".part", 5) != 0)
		return 0;
	end += 5;
	return !*end || (*end == '-' && end[1] && !end[1 + strspn(end + 1, "0123456789")]);
}

static hct_error see_report(const char *root, int *seen, struct stat *report, struct hct_diag *diag)
{
	char *path = below(root, REPORT);

	if (!path)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", root);
	*seen = stat(path, report) == 0;
	free(path);
	return HCT_OK;
}

static hct_error list_folder(const char *root, const char *path, struct hct_bundle_state *out,
			     struct hct_diag *diag)
{
	struct dirent *entry;
	hct_error e = HCT_OK;
	int left = 0;
	DIR *d = opendir(path);

	if (!d)
		return hct_fail_errno(diag, errno, "%s: cannot list it", path);
	while (errno = 0, (entry = readdir(d)))
		left |= is_checkpoint(entry->d_name);
	if (errno)
		e = hct_fail_errno(diag, errno, "%s: cannot list it", path);
	closedir(d);
	out->hide_parts = left && out->has_report;
	if (!e && left && !out->has_report)
		e = hct_fail(diag, HCT_ERR_UNFINISHED,
			     "%s: mkhct has not finished this bundle; wait for it, or run it again",
			     root);
	return e;
}

hct_error hct_bundle_state_read(const char *root, struct hct_bundle_state *out,
				struct hct_diag *diag)
{
	char *path = below(root, FOLDER);
	struct stat st;
	hct_error e;

	memset(out, 0, sizeof *out);
	if (!path)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", root);
	/* Before the checkpoint is looked for: who sees none may well see no report either, of a
	 * bundle that is finished at this moment. */
	e = see_report(root, &out->has_report, &out->report, diag);
	out->has_folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
	if (!e && out->has_folder)
		e = list_folder(root, path, out, diag);
	free(path);
	return e;
}

hct_error hct_bundle_state_check(const char *root, const struct hct_bundle_state *state,
				 struct hct_diag *diag)
{
	const struct stat *was = &state->report;
	struct stat now;
	int seen = 0;
	hct_error e;

	if (!state->has_report)
		return HCT_OK;
	e = see_report(root, &seen, &now, diag);
	if (e)
		return e;
	if (seen && now.st_ino == was->st_ino && now.st_dev == was->st_dev &&
	    now.st_mtim.tv_sec == was->st_mtim.tv_sec &&
	    now.st_mtim.tv_nsec == was->st_mtim.tv_nsec)
		return HCT_OK;
	return hct_fail(diag, HCT_ERR_UNFINISHED,
			"%s: mkhct is replacing this bundle at this moment; try again", root);
}
