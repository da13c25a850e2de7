#include "finished.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/hct.h"
#include "writer/json.h"
#include "writer/manifest.h"
#include "writer/match.h"
#include "writer/names.h"
#include "writer/output.h"

/* Size and time of an entry, as the bundle that lies there has them. */
static int is_same_file(int root, const struct mkhct_entry *e)
{
	const struct hct_source *was;
	hct_reader *reader;
	struct stat sb;
	char *name = NULL;
	int fd, same;

	if (asprintf(&name, "%s%s", e->name, e->kind == MKHCT_MODEL ? MKHCT_HCT_SUFFIX : "") < 0)
		return 0;
	fd = openat(root, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	same = fd >= 0 && fstat(fd, &sb) == 0;
	if (same && e->kind == MKHCT_FOLDER)
		same = S_ISDIR(sb.st_mode);
	else if (same)
		same = S_ISREG(sb.st_mode);
	if (same && e->kind == MKHCT_CARRIED)
		same = (uint64_t)sb.st_size == e->size && sb.st_mtim.tv_sec == e->mtime.tv_sec &&
		       sb.st_mtim.tv_nsec == e->mtime.tv_nsec;
	if (same && e->kind == MKHCT_MODEL) {
		int opened = hct_reader_open_fd(fd, name, &reader, NULL) == HCT_OK;

		fd = -1; /* the reader's, also when it fails */
		was = opened ? hct_reader_source(reader) : NULL;
		same = was && was->size == e->size && was->mtime_sec == e->mtime.tv_sec &&
		       was->mtime_nsec == (uint32_t)e->mtime.tv_nsec;
		if (opened)
			hct_reader_close(reader);
	}
	if (fd >= 0)
		close(fd);
	free(name);
	return same;
}

/* 1 and a line with what differs, or 0. */
static int differs(int root, const cJSON *report, const cJSON *options,
		   const struct mkhct_source *source, char line[MKHCT_MATCH_LINE])
{
	size_t files = 0;
	char name[512];

	if (mkhct_match_options(mkhct_json_get(report, "options"), options, " now", line))
		return 1;
	for (size_t i = 0; i < source->count; i++) {
		files += source->entries[i].kind != MKHCT_FOLDER;
		if (is_same_file(root, &source->entries[i]))
			continue;
		mkhct_name_printable(source->entries[i].name, name, sizeof(name));
		snprintf(line, MKHCT_MATCH_LINE, "%s is not what it is in the source now", name);
		return 1;
	}
	if ((size_t)cJSON_GetArraySize(mkhct_json_get(report, "files")) == files)
		return 0;
	strcpy(line, "the source had other files");
	return 1;
}

hct_error mkhct_finished_match(const char *path, const struct mkhct_source *source,
			       const char *options, struct hct_diag *diag)
{
	int root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char line[MKHCT_MATCH_LINE] = "its report cannot be read";
	cJSON *report, *now;
	hct_error err = HCT_OK;

	if (root < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", path);
	report = mkhct_manifest_json(root, MKHCT_REPORT_NAME);
	now = cJSON_Parse(options);
	if (!now)
		err = hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the options");
	else if (!report || differs(root, report, now, source, line))
		err = hct_fail(diag, HCT_ERR_EXISTS,
			       "%s: is a finished bundle already, and %s; choose another OUT, or "
			       "remove it",
			       path, line);
	cJSON_Delete(report);
	cJSON_Delete(now);
	close(root);
	return err;
}
