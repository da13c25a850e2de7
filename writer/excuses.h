/* Tensors that are lossless for a reason although their target was not. */
#ifndef MKHCT_EXCUSES_H
#define MKHCT_EXCUSES_H

#include <stdint.h>

#include <cjson/cJSON.h>

#include "writer/compress.h"

#define MKHCT_EXCUSES      12u /* reasons; what comes with a further one is not named */
#define MKHCT_EXCUSE_NAMES 3u  /* the first */

struct mkhct_excuses {
	unsigned count;
	struct mkhct_excuse {
		char why[160]; /* mkhct_result.plan.why */
		uint64_t tensors;
		char names[MKHCT_EXCUSE_NAMES][256]; /* printable */
	} list[MKHCT_EXCUSES];
};

/* Takes a tensor in when it is one of them. */
void mkhct_excuses_add(struct mkhct_excuses *e, const char *name, const struct mkhct_result *r);

/* Adds what another one has. */
void mkhct_excuses_merge(struct mkhct_excuses *sum, const struct mkhct_excuses *part);

/* Adds them as "because": [{"reason", "tensors", "first": [names]}], unless there is none, and
 * reads them back.  0, or -1 when out of memory. */
int mkhct_excuses_write(const struct mkhct_excuses *e, cJSON *object);
void mkhct_excuses_read(const cJSON *object, struct mkhct_excuses *out);

#endif
