/* The command line of mkhct. */
#ifndef MKHCT_OPTIONS_H
#define MKHCT_OPTIONS_H

#include "codec/error.h"

enum mkhct_action { MKHCT_RUN, MKHCT_HELP, MKHCT_VERSION };

struct mkhct_options {
	enum mkhct_action action;
	const char *source, *out; /* MKHCT_RUN: both set; they point into argv */
	unsigned jobs;            /* encoding threads, at least 1 */
	int force, quiet, verbose, json;
};

/* Errors: HCT_ERR_ARGUMENT, with a line that says which word is wrong. */
hct_error mkhct_options_parse(int argc, char **argv, struct mkhct_options *out,
			      struct hct_diag *diag);

/* What --help prints. */
extern const char mkhct_options_help[];

#endif
