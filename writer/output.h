/* The bundle that is being written, all or nothing.
 *
 * Every file is written as `.NAME.part` beside its final name and synced; only when all
 * are there does mkhct_output_commit rename them.  Until then the folder can be put back
 * to what it was.  `.hct/unfinished.json` lists, while work is under way, what mkhct
 * writes, so that a later run can tell the remains of one that was killed from files of
 * the user. */
#ifndef MKHCT_OUTPUT_H
#define MKHCT_OUTPUT_H

#include <stddef.h>

#include "codec/error.h"
#include "writer/source.h"

#define MKHCT_META_FOLDER ".hct"
#define MKHCT_REPORT_NAME ".hct/report.json"

struct mkhct_output;

/* Checks whether a bundle of source can be written at path, and changes nothing: path is
 * new, or an empty folder, or with force a bundle in which every file that stands in the
 * way was written by mkhct.  source must outlive the output.  Errors: HCT_ERR_EXISTS,
 * HCT_ERR_NOT_FOUND (no parent folder), HCT_ERR_ARGUMENT (inside the source, or around
 * it), HCT_ERR_IO, HCT_ERR_NOMEM. */
hct_error mkhct_output_open(const char *path, const struct mkhct_source *source, int force,
			    struct mkhct_output **out, struct hct_diag *diag);

/* Creates the folders and removes the remains of a killed run. */
hct_error mkhct_output_begin(struct mkhct_output *o, struct hct_diag *diag);

/* Bytes free on the file system of the output, once begun; UINT64_MAX when unknown. */
uint64_t mkhct_output_space(const struct mkhct_output *o);

/* Opens the part file for an entry of the source that is no folder, or with NULL for the
 * report; open for reading and writing.  *name, for messages, belongs to the output. */
hct_error mkhct_output_create(struct mkhct_output *o, const struct mkhct_entry *entry, int *fd,
			      const char **name, struct hct_diag *diag);

/* Syncs and closes what mkhct_output_create opened. */
hct_error mkhct_output_sync(int fd, const char *name, struct hct_diag *diag);

/* Gives all files their names, removes those of the old bundle that are not part of the
 * new one, and syncs the folders.  Call it when every file was created and synced.  When a
 * file cannot be given its name, what was done is undone by mkhct_output_close, unless there
 * was an old bundle, whose files are gone then: the bundle stays unfinished, and diag says so. */
hct_error mkhct_output_commit(struct mkhct_output *o, struct hct_diag *diag);

/* 1 unless a commit has begun that cannot be undone. */
int mkhct_output_can_go_back(const struct mkhct_output *o);

/* Frees the output.  Unless it was committed, removes everything that this run created.
 * Returns 0 when something of it could not be removed.  NULL is allowed. */
int mkhct_output_close(struct mkhct_output *o);

#endif
