/* The command line of mkhct. */
#ifndef MKHCT_OPTIONS_H
#define MKHCT_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "codec/error.h"
#include "writer/policy.h"

enum mkhct_action { MKHCT_RUN, MKHCT_FINISH, MKHCT_HELP, MKHCT_VERSION };

enum mkhct_transform { MKHCT_TRANSFORM_AUTO, MKHCT_TRANSFORM_NONE, MKHCT_TRANSFORM_DCT };

enum mkhct_encoder {
	MKHCT_ENCODER_AUTO,
	MKHCT_ENCODER_TCQ,
	MKHCT_ENCODER_TOPK,
	MKHCT_ENCODER_MIXED,
	MKHCT_ENCODER_SVD,
	MKHCT_ENCODER_INT4
};

/* How lossy tensors are coded, whatever is wanted of them. */
struct mkhct_coding_options {
	int effort; /* 1 to 9 */
	enum mkhct_transform transform;
	enum mkhct_encoder encoder;
	double fp16_ratio; /* MIXED: fraction of kept coefficients in FP16, 0 to 1 */
	int layers;        /* of a chunk, 1 to 4 */
};

/* --include and --exclude, in their order, of which the last that matches counts. */
struct mkhct_selection {
	const char *pattern;
	int include;
};
#define MKHCT_OPTIONS_NOTES 8

struct mkhct_options {
	enum mkhct_action action;
	const char *source, *out; /* MKHCT_RUN: both set, but for out == NULL when a dry run
				   * has none; MKHCT_FINISH: out alone; they point into argv */
	unsigned jobs;            /* encoding threads, at least 1 */
	int force, quiet, verbose, json;
	int dry_run;
	double quality_sample; /* fraction of tensors to decode and measure, 0 to 1 */
	int sample_given;      /* 1: and the user said so */
	int verify;            /* decode and compare every chunk as it lands */
	int finish;            /* --finish was given */
	int restart;           /* begin anew, whatever an unfinished bundle holds */
	uint64_t memory;       /* bytes that may be resident */
	const char *gpu;       /* that helps: "auto", "off", or a number */
	int interval_tensors;  /* between two saves of the checkpoint, or 0: by time */
	double interval_seconds;
	unsigned part, parts; /* --shards I/N: 1 <= part <= parts; 0 and 0: everything */
	const char *log;      /* file that lines are appended to, or NULL */
	struct mkhct_selection *selections;
	size_t selection_count;
	struct mkhct_policy_options policy;
	struct mkhct_coding_options coding;
	/* The options that decide about the bundle's bytes as they were given, "--name=value"
	 * each: with them an unfinished bundle can be gone on with. */
	char **recipe_words;
	size_t recipe_word_count;
	/* What has no effect beside the others, a line each; NULL behind the last. */
	const char *notes[MKHCT_OPTIONS_NOTES];
};

/* On success *out goes to mkhct_options_free; it points into argv, and PATTERN=TARGET is cut
 * in two there.  What has been parsed is consistent: one wish,
 * no option that the others make void, mkhct_policy_check passed.  Errors: HCT_ERR_ARGUMENT,
 * with a line that says which word is wrong; HCT_ERR_NOMEM. */
hct_error mkhct_options_parse(int argc, char **argv, struct mkhct_options *out,
			      struct hct_diag *diag);

/* Harmless on a zeroed struct and when repeated. */
void mkhct_options_free(struct mkhct_options *o);

/* Words of the command line. */
const char *mkhct_transform_name(enum mkhct_transform t);
const char *mkhct_encoder_name(enum mkhct_encoder e);

/* What --help prints. */
extern const char mkhct_options_help[];

#endif
