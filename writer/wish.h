/* What the user wants of the model, or of the tensors that --tensor names. */
#ifndef MKHCT_WISH_H
#define MKHCT_WISH_H

#include <stddef.h>
#include <stdint.h>

#include "codec/error.h"
#include "writer/target.h"

/* Each is an option of that name; the last two are budgets of the whole model, which
 * leave the error of each tensor open. */
enum mkhct_wish_kind {
	MKHCT_WISH_LOSSLESS,
	MKHCT_WISH_RETENTION, /* value in (0,1] */
	MKHCT_WISH_COSINE,    /* value in (0,1) */
	MKHCT_WISH_SNR,       /* value in dB, (0,150] */
	MKHCT_WISH_BPW,       /* value in bits a weight, [1,16] */
	MKHCT_WISH_SIZE,      /* bytes of the bundle, at least 1 */
	MKHCT_WISH_COUNT
};

struct mkhct_wish {
	enum mkhct_wish_kind kind;
	double value;   /* SIZE: bytes, rounded */
	uint64_t bytes; /* SIZE */
};

#define MKHCT_DEFAULT_RETENTION .70

static inline struct mkhct_wish mkhct_wish_default(void)
{
	return (struct mkhct_wish){.kind = MKHCT_WISH_RETENTION, .value = MKHCT_DEFAULT_RETENTION};
}

static inline int mkhct_wish_is_budget(const struct mkhct_wish *w)
{
	return w->kind == MKHCT_WISH_BPW || w->kind == MKHCT_WISH_SIZE;
}

/* "retention", "size" ...: the option without its dashes. */
const char *mkhct_wish_name(enum mkhct_wish_kind kind);

/* What the option takes ("retention", "size"), for messages; NULL for lossless. */
const char *mkhct_wish_noun(enum mkhct_wish_kind kind);

/* Reads the value of an option (text is not looked at for lossless).  option is what
 * messages begin with.  Errors: HCT_ERR_ARGUMENT. */
hct_error mkhct_wish_parse(enum mkhct_wish_kind kind, const char *option, const char *text,
			   struct mkhct_wish *out, struct hct_diag *diag);

/* Reads the TARGET of --tensor: "lossless", a number (a retention), "retention:R",
 * "cosine:C" or "snr:DB".  Errors: HCT_ERR_ARGUMENT. */
hct_error mkhct_wish_parse_target(const char *option, const char *text, struct mkhct_wish *out,
				  struct hct_diag *diag);

/* The target of a tensor of which just this is wanted. */
struct mkhct_target mkhct_wish_target(const struct mkhct_wish *w);

/* The retention of that target, which policies call the base: 1 for lossless.  Not for
 * budgets. */
double mkhct_wish_retention(const struct mkhct_wish *w);

#define MKHCT_WISH_TEXT 64

/* "lossless", "retention 0.7", "size 1500000000": for reports.  Returns buf. */
char *mkhct_wish_text(const struct mkhct_wish *w, char buf[MKHCT_WISH_TEXT]);

#endif
