/* What is going to be done with every tensor of the source: the decisions of the policy, and
 * the goals of the encoder that follow from them.
 *
 * Models in one folder make one part of the policy, with the config.json of that folder, also
 * when the source is a single file; what counts is where a file is shown, not where a symlink
 * leads. */
#ifndef MKHCT_GOALS_H
#define MKHCT_GOALS_H

#include <stddef.h>

#include "codec/encoder.h"
#include "codec/error.h"
#include "writer/options.h"
#include "writer/policy.h"
#include "writer/source.h"

#define MKHCT_CONFIG_MAX (16u << 20) /* bytes of a config.json; larger ones are not looked at */

struct mkhct_forecast;

/* Those of one model file; arrays of count, one for each tensor in the order of its header. */
struct mkhct_model_goals {
	const struct mkhct_entry *entry;
	size_t count;
	uint64_t elements;        /* of all its tensors */
	uint64_t name_bytes;      /* of their names */
	uint64_t header_checksum; /* XXH3-64 of the header */
	struct mkhct_decision *decisions;
	struct hct_goal *goals;           /* an error of 0 is lossless, or not known yet */
	struct mkhct_forecast *forecasts; /* survey.h; NULL when nothing was measured */
};

struct mkhct_goals {
	struct mkhct_model_goals *models; /* in the order of the source */
	size_t count;
	struct mkhct_policy *policy;
	unsigned open; /* 1 when targets are left that need a measurement: ADAPTIVE or BUDGET */
};

/* Reads and checks the headers of all models and asks the policy.  The goal of a target that
 * needs a measurement has the error 0.  source and options must outlive *out, which goes to
 * mkhct_goals_free also after an error.  Errors: those of mkhct_model_open and of the policy. */
hct_error mkhct_goals_create(const struct mkhct_source *source, const struct mkhct_options *options,
			     struct mkhct_goals *out, struct hct_diag *diag);

/* Harmless on a zeroed struct. */
void mkhct_goals_free(struct mkhct_goals *g);

/* 1 when all tensors are to be lossless. */
int mkhct_goals_lossless(const struct mkhct_goals *g);

#endif
