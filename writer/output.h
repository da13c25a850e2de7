/* The bundle that is being written.
 *
 * Every file is written as `.NAME.part` beside its final name and synced; only when all are there
 * does mkhct_output_commit rename them.  `.hct/checkpoint.json` (checkpoint.h) says meanwhile how
 * far each has got and lists what mkhct writes, so that a later run can go on, or tell the remains
 * of one that was killed from files of the user.  Until something is done that is worth keeping the
 * folder can be put back to what it was.
 *
 * A bundle can be made in parts, by several processes, on several machines: each does its entries
 * of the source, with a checkpoint of its own, and none gives a name. */
#ifndef MKHCT_OUTPUT_H
#define MKHCT_OUTPUT_H

#include <stddef.h>

#include "codec/error.h"
#include "writer/checkpoint.h"
#include "writer/source.h"

#define MKHCT_META_FOLDER ".hct"
#define MKHCT_REPORT_NAME ".hct/report.json"
#define MKHCT_PAGE_NAME   ".hct/report.html"
#define MKHCT_REPORTS     2 /* and in this order */

struct mkhct_output;

struct mkhct_output_mode {
	int force;            /* write an old bundle anew */
	int restart;          /* and an unfinished one */
	unsigned part, parts; /* 0 and 0: everything */
	int finish;           /* there is no source to lie in or around */
};

#define MKHCT_STATE_NAME 64

/* ".hct/checkpoint.json", or ".hct/checkpoint-2-of-4.json" for a part.  Returns buf. */
char *mkhct_output_state_name(const struct mkhct_output_mode *mode, char buf[MKHCT_STATE_NAME]);

/* Checks whether a bundle of source can be written at path, and changes nothing: path is
 * new, or an empty folder, or an unfinished bundle, or with force a bundle, in which every file
 * that stands in the way was written by mkhct.  source must outlive the output.  Errors:
 * HCT_ERR_EXISTS (also when another mkhct is at work on it), HCT_ERR_NOT_FOUND (no parent folder),
 * HCT_ERR_ARGUMENT (inside the source, or around it), those of mkhct_checkpoint_read, HCT_ERR_IO,
 * HCT_ERR_NOMEM. */
hct_error mkhct_output_open(const char *path, const struct mkhct_source *source,
			    const struct mkhct_output_mode *mode, struct mkhct_output **out,
			    struct hct_diag *diag);

/* 1 when a part is asked for and a finished bundle lies there: then it must not be begun. */
int mkhct_output_is_finished(const struct mkhct_output *o);

/* Creates the folders, removes the remains of a run that is not gone on with, and writes the
 * checkpoint: the one that was found, which is matched with `of` unless that is NULL, or a new one.
 * Of several that begin at the same moment one goes on, or one for each part.  Errors:
 * HCT_ERR_EXISTS when another mkhct is at work on it or has been meanwhile, or when another part
 * was begun with other options or of another source; those of mkhct_output_open. */
hct_error mkhct_output_begin(struct mkhct_output *o, const struct mkhct_checkpoint_of *of,
			     struct hct_diag *diag);

/* The checkpoint: of an unfinished bundle once it is open, and of any once it is begun. */
struct mkhct_checkpoint *mkhct_output_checkpoint(const struct mkhct_output *o);

/* Takes over what another part has done.  Errors: HCT_ERR_EXISTS and a line with what differs when
 * it was made of another source or with other options, HCT_ERR_NOMEM. */
hct_error mkhct_output_merge(struct mkhct_output *o, const struct mkhct_checkpoint *other,
			     unsigned part, struct hct_diag *diag);

/* Puts the checkpoint, as it is now, on the disk.  Errors: those of the writing, and of a file that
 * was being completed. */
hct_error mkhct_output_save(struct mkhct_output *o, struct hct_diag *diag);

/* The part file of entry i is written, and has `bytes`; report as mkhct_checkpoint_set_completed
 * has it.  It is synced, and put on the disk as completed, while the caller goes on with the next
 * one: where that fails, the next save or completion says so, and the entry is what it was before.
 * fd stays the caller's. */
hct_error mkhct_output_complete(struct mkhct_output *o, size_t i, int fd, uint64_t bytes,
				const char *report, struct hct_diag *diag);
/* Bytes of it there; 0 when there is none. */
uint64_t mkhct_output_saved_bytes(const struct mkhct_output *o);

/* Bytes free on the file system of the output, once begun; UINT64_MAX when unknown. */
uint64_t mkhct_output_space(const struct mkhct_output *o);

/* Opens the part file of entry i of the source, which is no folder, or of report i - count; open
 * for reading and writing, at 0, with what it has from an earlier run when the checkpoint says that
 * it is in progress, and otherwise empty.  *name, for messages, belongs to the output. */
hct_error mkhct_output_create(struct mkhct_output *o, size_t i, int *fd, const char **name,
			      struct hct_diag *diag);

/* The same for the ledger of entry i. */
hct_error mkhct_output_ledger(struct mkhct_output *o, size_t i, int *fd, struct hct_diag *diag);

/* The same for what was measured (measured.h), with what it has from an earlier run. */
hct_error mkhct_output_measured(struct mkhct_output *o, int *fd, struct hct_diag *diag);
/* Removes it, unless there is none.  Errors: HCT_ERR_IO, HCT_ERR_NOMEM. */
hct_error mkhct_output_drop_measured(struct mkhct_output *o, struct hct_diag *diag);

/* 1 when the file of entry i, COMPLETED by an earlier run, is there with all its bytes; of one that
 * is IN_PROGRESS, when it and its ledger have all that the checkpoint speaks of. */
int mkhct_output_has(const struct mkhct_output *o, size_t i);

/* Opens that file for reading, under whichever name it has. */
hct_error mkhct_output_reopen(const struct mkhct_output *o, size_t i, int *fd, const char **name,
			      struct hct_diag *diag);

/* Syncs and closes what mkhct_output_create opened. */
hct_error mkhct_output_sync(int fd, const char *name, struct hct_diag *diag);

/* Gives all files their names, removes those of the old bundle that are not part of the
 * new one, syncs the folders and removes checkpoints and ledgers.  The old report goes first and
 * the new one comes last: as long as there is a report, all that it tells of is there.  Call it
 * when every file was created and synced.  When it fails the bundle stays unfinished; the next run
 * goes on with it. */
hct_error mkhct_output_commit(struct mkhct_output *o, struct hct_diag *diag);

/* Something is done that is worth keeping: everything stays as it is. */
void mkhct_output_keep(struct mkhct_output *o);
/* What was begun cannot be done: unless some of it is, nothing is kept, also of earlier runs. */
void mkhct_output_give_up(struct mkhct_output *o);

/* 1 when closing it keeps what was done for a later run. */
int mkhct_output_is_kept(const struct mkhct_output *o);

/* Frees the output.  Unless it was committed, or something was done that is worth keeping, removes
 * everything that this run created.  Returns 0 when something of it could not be removed.  NULL is
 * allowed. */
int mkhct_output_close(struct mkhct_output *o);

#endif
