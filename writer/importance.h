/* How much each tensor matters: the file of --importance, and a table for what it leaves out.
 *
 * The file is JSON:
 *	{"version": 1, "source": "how it was measured", "tensors": {
 *		"NAME": {"importance": 0.8, "sensitivity": "high"}, ... }}
 * importance, 0 to 1, must be there; sensitivity is one of very_low, low, medium, normal,
 * high, full and critical, and medium when it is not there; source may be left out; other
 * members have no effect, and those of a tensor get a note.  Names are whole names of tensors, no
 *patterns. */
#ifndef MKHCT_IMPORTANCE_H
#define MKHCT_IMPORTANCE_H

#include <stddef.h>
#include <stdint.h>

#include "codec/error.h"
#include "writer/kind.h"

#define MKHCT_IMPORTANCE_MAX_BYTES  (64u << 20)
#define MKHCT_IMPORTANCE_MAX_VALUES 2000000u /* three for each tensor */

enum mkhct_sensitivity {
	MKHCT_SENSITIVITY_VERY_LOW,
	MKHCT_SENSITIVITY_LOW,
	MKHCT_SENSITIVITY_MEDIUM,
	MKHCT_SENSITIVITY_NORMAL, /* as medium */
	MKHCT_SENSITIVITY_HIGH,
	MKHCT_SENSITIVITY_FULL,
	MKHCT_SENSITIVITY_CRITICAL, /* as full */
	MKHCT_SENSITIVITY_COUNT
};

struct mkhct_importance {
	double importance; /* 0 to 1 */
	enum mkhct_sensitivity sensitivity;
};

/* clamp(base (.5 + .5 importance) m, .10, .95); m is .5 for very_low, .7 for low, 1 for
 * medium and normal, 1.2 for high, 1.5 for full and critical.  base: a retention. */
double mkhct_importance_retention(const struct mkhct_importance *i, double base);

/* That of a tensor that no file knows. */
struct mkhct_importance mkhct_importance_of_kind(enum mkhct_tensor_kind kind);

/* "very_low" ... */
const char *mkhct_sensitivity_name(enum mkhct_sensitivity s);

struct mkhct_importances; /* opaque: a file */

/* Reads it.  On success *out goes to mkhct_importances_free.  Errors: HCT_ERR_ARGUMENT with
 * file and line for what is malformed, out of range, or there twice, or too large;
 * HCT_ERR_NOT_FOUND, HCT_ERR_IO; HCT_ERR_NOMEM. */
hct_error mkhct_importances_read(const char *path, struct mkhct_importances **out,
				 struct hct_diag *diag);

/* The same from n bytes of text; path is for messages and is not kept. */
hct_error mkhct_importances_parse(const char *path, const char *text, size_t n,
				  struct mkhct_importances **out, struct hct_diag *diag);

/* What a user may want to know and no error: the i-th line, from 0; 0 when there is none. */
int mkhct_importances_note(const struct mkhct_importances *f, unsigned i, struct hct_diag *line);

void mkhct_importances_free(struct mkhct_importances *f);

/* XXH3-64 of the text: what the file was, for the record. */
uint64_t mkhct_importances_checksum(const struct mkhct_importances *f);

size_t mkhct_importances_count(const struct mkhct_importances *f);

/* The i-th tensor's name, in order of names; i < count. */
const char *mkhct_importances_name(const struct mkhct_importances *f, size_t i);

/* 1 with *out and *at (its place in order of names; both may be NULL), or 0 for a tensor
 * that the file does not have.  O(log n), from any thread. */
int mkhct_importances_find(const struct mkhct_importances *f, const char *name,
			   struct mkhct_importance *out, size_t *at);

#endif
