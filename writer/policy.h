/* Which target each tensor of a model gets.
 *
 * The options say a wish for the whole, a policy that deals it out, and overrides by name.
 * First every tensor of the model is shown to the policy (mkhct_policy_see, all files, in
 * any order); mkhct_policy_ready then finds what is wrong with the options for this model,
 * and from there on mkhct_policy_decide is a pure function.
 *
 * base is the retention of the wish (of a cosine or SNR: the r whose D(r) is its D).
 *	uniform		the wish
 *	hybrid		lossless in the first and the last layer of a stack, retention .80 in
 *			the two layers next to either, the base elsewhere and outside layers
 *	layertype	by kind: embeddings lossless, head .90, MLP max(.40, .7 base), Q and K
 *			base, V and O min(1, 1.1 base), fused matrices with a V in them like V,
 *			everything else base
 *	adaptive	from the spectrum, to a quality; without one given, 1 - D of the wish
 *	importance	importance.h
 *
 * In every policy these are exact: tensors of dtypes that are no floats of 8 bits or more
 * (or whose dtype is unknown), with less than two dimensions above 1, with less than
 * MKHCT_SMALL elements, and norms, biases and scales by their name.
 *
 * Overrides go before the policy; of several that match a tensor the last counts.  A pattern
 * with wildcards leaves those exact tensors exact, since "*.layers.3.*" means the matrices;
 * a whole name overrides that as well, and is refused for a dtype that cannot be coded. */
#ifndef MKHCT_POLICY_H
#define MKHCT_POLICY_H

#include <stddef.h>
#include <stdint.h>

#include "codec/error.h"
#include "codec/safetensors.h"
#include "writer/kind.h"
#include "writer/target.h"
#include "writer/wish.h"

#define MKHCT_SMALL 4096u /* elements */

enum mkhct_policy_kind {
	MKHCT_POLICY_UNIFORM,
	MKHCT_POLICY_HYBRID,
	MKHCT_POLICY_LAYERTYPE,
	MKHCT_POLICY_ADAPTIVE,
	MKHCT_POLICY_IMPORTANCE,
	MKHCT_POLICY_COUNT
};

struct mkhct_override {
	const char *pattern;    /* pattern.h */
	struct mkhct_wish wish; /* no budget */
	int keep;               /* 1: from --keep, 0: from --tensor; for messages */
};

/* Strings and overrides belong to the command line. */
struct mkhct_policy_options {
	struct mkhct_wish wish;
	enum mkhct_policy_kind kind;
	double quality;                   /* ADAPTIVE: in (0,1); 0: from the wish */
	const char *importance;           /* IMPORTANCE: path of the file, or NULL */
	struct mkhct_override *overrides; /* in the order given */
	size_t override_count;
};

#define MKHCT_REASON_MAX 96

struct mkhct_decision {
	struct mkhct_target target;
	enum mkhct_tensor_kind kind;
	char reason[MKHCT_REASON_MAX]; /* "norm", "hybrid: layer 3 of 12", "--keep *.bias":
					* printable, cut when too long */
};

/* "uniform" ... */
const char *mkhct_policy_name(enum mkhct_policy_kind kind);

/* Combinations that no model can make right: a policy other than uniform with lossless (it
 * has nothing to do) or with a budget (which leaves open what the policy sets).  The option
 * parser calls it.  Errors: HCT_ERR_ARGUMENT. */
hct_error mkhct_policy_check(const struct mkhct_policy_options *o, struct hct_diag *diag);

struct mkhct_policy; /* opaque */

/* Reads the importance file.  o must outlive the policy; config is the text of config.json,
 * config_length bytes, or NULL, and is not kept.  *out goes to mkhct_policy_free.  Errors:
 * those of mkhct_policy_check and mkhct_importances_read. */
hct_error mkhct_policy_create(const struct mkhct_policy_options *o, const char *config,
			      size_t config_length, struct mkhct_policy **out,
			      struct hct_diag *diag);
void mkhct_policy_free(struct mkhct_policy *p); /* NULL is harmless */

/* Begins the next part of the source, with a config.json of its own: layers of different
 * parts are different.  Part 0 began with mkhct_policy_create.  Errors: HCT_ERR_NOMEM. */
hct_error mkhct_policy_begin(struct mkhct_policy *p, const char *config, size_t config_length,
			     struct hct_diag *diag);

/* Shows a tensor of the part begun last.  Errors: HCT_ERR_NOMEM; HCT_ERR_ARGUMENT for an override
 * by name of a tensor that cannot be coded. */
hct_error mkhct_policy_see(struct mkhct_policy *p, const struct hct_tensor *t,
			   struct hct_diag *diag);

/* After the last one.  Errors: HCT_ERR_ARGUMENT with the pattern that matches no tensor, or
 * the importance file that names no tensor of the model. */
hct_error mkhct_policy_ready(const struct mkhct_policy *p, struct hct_diag *diag);

/* What a user may want to know and no error: the i-th line, from 0; 0 when there is none.
 * They tell of patterns that match tensors that stay exact, of what is odd in the importance
 * file, of tensors of it that are not in the model, of --policy hybrid without layers. */
int mkhct_policy_note(const struct mkhct_policy *p, unsigned i, struct hct_diag *line);

/* XXH3-64 of the importance file; 0 without one. */
uint64_t mkhct_policy_importance_checksum(const struct mkhct_policy *p);

/* About a tensor of that part.  From any thread. */
void mkhct_policy_decide(const struct mkhct_policy *p, size_t part, const struct hct_tensor *t,
			 struct mkhct_decision *out);

#endif
