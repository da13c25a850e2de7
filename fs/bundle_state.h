/* What the hidden folder of a bundle says: whether the bundle is whole, and whether mkhct is making
 * another one in its place. */
#ifndef HCT_BUNDLE_STATE_H
#define HCT_BUNDLE_STATE_H

#include <sys/stat.h>

#include "codec/error.h"

#define HCT_HIDDEN_FOLDER ".hct"

struct hct_bundle_state {
	int has_folder, has_report;
	struct stat report; /* as it was when the state was read */
	int hide_parts;     /* a new bundle is being made beside this one */
};

/* The state of the bundle in the folder root, which may be none.  The report goes before mkhct
 * replaces the first file, and comes back behind the last, so a bundle with a report is whole, also
 * beside a checkpoint.  Errors: HCT_ERR_UNFINISHED for a checkpoint without a report, HCT_ERR_IO,
 * HCT_ERR_NOMEM. */
hct_error hct_bundle_state_read(const char *root, struct hct_bundle_state *out,
				struct hct_diag *diag);

/* 1 for the name, without folders, of a part file of the bundle that is being made. */
int hct_bundle_state_hides(const struct hct_bundle_state *state, const char *name);

/* Once all files are open: HCT_ERR_UNFINISHED when some may be of the old bundle and some of the
 * new one. */
hct_error hct_bundle_state_check(const char *root, const struct hct_bundle_state *state,
				 struct hct_diag *diag);

#endif
