/* Internal to output.c: the folders of a bundle are made, and put on the disk.
 *
 * Not every file system can sync a folder; where it cannot, these say nothing.  Errors: HCT_ERR_IO,
 * HCT_ERR_NO_SPACE, HCT_ERR_NOMEM. */
#ifndef MKHCT_FOLDER_H
#define MKHCT_FOLDER_H

#include <stddef.h>

#include "codec/error.h"
#include "writer/output.h"

/* Makes the bundle's folder, unless it is there, and opens it. */
hct_error mkhct_folder_make_root(struct mkhct_output *o, struct hct_diag *diag);

/* Makes the folder of slot i, with the permissions of the source's, but so that mkhct can write to
 * it.  One that is there, and is not from an unfinished bundle, keeps its permissions. */
hct_error mkhct_folder_make(struct mkhct_output *o, size_t i, struct hct_diag *diag);

/* Syncs a folder of the bundle; "." is its own. */
hct_error mkhct_folder_sync(const struct mkhct_output *o, const char *folder,
			    struct hct_diag *diag);

/* Syncs the folder in which a file of the bundle lies. */
hct_error mkhct_folder_sync_of(const struct mkhct_output *o, const char *name,
			       struct hct_diag *diag);

/* Syncs the folders in which the part file of slot i and its ledger lie.  Any thread. */
hct_error mkhct_folder_sync_names(const struct mkhct_output *o, size_t i, struct hct_diag *diag);

/* Syncs all folders of the bundle, and the one that it is in. */
hct_error mkhct_folder_sync_all(const struct mkhct_output *o, struct hct_diag *diag);

#endif
