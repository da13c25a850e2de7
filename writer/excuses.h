/* Tensors that are lossless for a reason although their target was not, and those of which
 * something was not tried. */
#ifndef MKHCT_EXCUSES_H
#define MKHCT_EXCUSES_H

#include <stdint.h>

#include <cjson/cJSON.h>

#include "writer/compress.h"

#define MKHCT_EXCUSES_WHY  "because" /* keys */
#define MKHCT_EXCUSES_NOTE "notes"

#define MKHCT_EXCUSES      12u /* reasons; what comes with a further one is not named */
#define MKHCT_EXCUSE_NAMES 3u  /* the first */

struct mkhct_excuses {
	unsigned count;
	struct mkhct_excuse {
		char why[160]; /* mkhct_result.plan.why, or .note */
		uint64_t tensors;
		char names[MKHCT_EXCUSE_NAMES][256]; /* printable */
	} list[MKHCT_EXCUSES];
};

/* Takes a tensor in when it is one of them. */
void mkhct_excuses_add(struct mkhct_excuses *e, const char *name, const struct mkhct_result *r);

/* The same for a lossy one of which something was not tried; of another sum. */
void mkhct_excuses_add_note(struct mkhct_excuses *e, const char *name,
			    const struct mkhct_result *r);

/* Adds what another one has. */
void mkhct_excuses_merge(struct mkhct_excuses *sum, const struct mkhct_excuses *part);

/* Adds them as key: [{"reason", "tensors", "first": [names]}], unless there is none, and reads them
 * back.  0, or -1 when out of memory. */
int mkhct_excuses_write(const struct mkhct_excuses *e, const char *key, cJSON *object);
void mkhct_excuses_read(const cJSON *object, const char *key, struct mkhct_excuses *out);

#endif
