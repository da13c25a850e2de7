/* Internal to output.c: where the files of a bundle go, and whether they may. */
#ifndef MKHCT_PLACE_H
#define MKHCT_PLACE_H

#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#include "codec/error.h"
#include "writer/checkpoint.h"
#include "writer/landing.h"
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

/* A file as it was when it was looked at. */
struct mkhct_seen {
	int there;
	ino_t number;
	struct timespec mtime;
};

struct mkhct_output {
	char *path;
	const struct mkhct_source *source;
	struct mkhct_output_mode mode;
	struct mkhct_slot *slots; /* one for each entry, in their order, and the reports */
	size_t count;
	int root; /* descriptor of the bundle's folder; -1 when it is not there */
	int lock; /* descriptor of the lock file, or -1 */
	int gate; /* the same of hidden.h's gate */
	int made_root, made_meta, made_checkpoint;
	int had_checkpoint; /* another run left it: it stays until a commit */
	int was_naming;     /* and it says that files are being given their names */
	int was_bare;       /* nothing was there, or next to nothing */
	struct mkhct_seen seen_state, seen_report;
	int finished; /* a part is asked for of what is a finished bundle already */
	int committed, kept;
	struct mkhct_manifest old; /* what earlier runs wrote */
	/* of an unfinished bundle that is gone on with, and of the one that is being made */
	struct mkhct_checkpoint *checkpoint;
	char *state, *state_shown; /* where it lies */
	/* the slot whose file is being synced, and what was said of it before */
	struct mkhct_landing *landing;
	size_t landing_slot;
	cJSON *before_landing;
	/* the slot whose files were made last, while their names may yet be lost; or none */
	size_t new_slot;
	int has_new;
};

/* 1 when slot i is of a folder. */
int mkhct_place_is_folder(const struct mkhct_output *o, size_t i);

/* The state of entry i; of a report, nothing. */
struct mkhct_state mkhct_place_state(const struct mkhct_output *o, size_t i);

/* The descriptor of a file of the bundle, open for reading, of that many bytes, or with more of at
 * least that many; or -1. */
int mkhct_place_open(const struct mkhct_output *o, const char *name, uint64_t bytes, int more);

/* Fills the slots. */
hct_error mkhct_place_name(struct mkhct_output *o, struct hct_diag *diag);

/* Gives slot i the part file that the checkpoint names, if it names one.  -1 without memory. */
int mkhct_place_take_part(struct mkhct_output *o, size_t i);

/* Opens the bundle's folder when it is there, with what an earlier run left, and checks whether the
 * bundle may be made there. */
hct_error mkhct_place_check(struct mkhct_output *o, struct hct_diag *diag);

/* In the gate: is all that mkhct_place_check found still so, and nobody else at work?  *sibling:
 * the checkpoint of another part, of as many, with the lowest number; "" when there is none. */
hct_error mkhct_place_check_still(const struct mkhct_output *o, char sibling[MKHCT_STATE_NAME],
				  struct hct_diag *diag);

/* With an old bundle: may the new one take its place?  After the slots have names. */
hct_error mkhct_place_check_slots(const struct mkhct_output *o, struct hct_diag *diag);

#endif
