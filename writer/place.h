/* Internal to output.c: where the files of a bundle go, and whether they may. */
#ifndef MKHCT_PLACE_H
#define MKHCT_PLACE_H

#include <stddef.h>

#include "codec/error.h"
#include "writer/checkpoint.h"
#include "writer/manifest.h"
#include "writer/output.h"
#include "writer/source.h"

/* What becomes of one entry of the source, or of a report. */
struct mkhct_slot {
	char *final; /* relative to the bundle */
	char *part;  /* NULL for folders */
	char *shown; /* for messages: with the bundle's path */
	int created; /* the part file or the folder, by this run */
};

struct mkhct_output {
	char *path;
	const struct mkhct_source *source;
	struct mkhct_output_mode mode;
	struct mkhct_slot *slots; /* one for each entry, in their order, and the reports */
	size_t count;
	int root; /* descriptor of the bundle's folder; -1 when it is not there */
	int lock; /* descriptor of the lock file, or -1 */
	int made_root, made_meta, made_checkpoint;
	int had_checkpoint; /* another run left it: it stays until a commit */
	int committed, kept;
	struct mkhct_manifest old; /* what earlier runs wrote */
	/* of an unfinished bundle that is gone on with, and of the one that is being made */
	struct mkhct_checkpoint *checkpoint;
	char *state, *state_shown; /* where it lies */
};

/* 1 when slot i is of a folder. */
int mkhct_place_is_folder(const struct mkhct_output *o, size_t i);

/* Fills the slots. */
hct_error mkhct_place_name(struct mkhct_output *o, struct hct_diag *diag);

/* Gives slot i the part file that the checkpoint names, if it names one.  -1 without memory. */
int mkhct_place_take_part(struct mkhct_output *o, size_t i);

/* Opens the bundle's folder when it is there, with what an earlier run left, and checks whether the
 * bundle may be made there. */
hct_error mkhct_place_check(struct mkhct_output *o, struct hct_diag *diag);

/* With an old bundle: may the new one take its place?  After the slots have names. */
hct_error mkhct_place_check_slots(const struct mkhct_output *o, struct hct_diag *diag);

/* ".hct/lock", or of the part; malloc'ed, or NULL. */
char *mkhct_output_lock_name(const struct mkhct_output *o);

/* Takes the lock of the bundle, making its file when it may. */
hct_error mkhct_place_lock(struct mkhct_output *o, int make, struct hct_diag *diag);

#endif
