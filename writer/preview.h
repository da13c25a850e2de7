/* --dry-run: what would be done to each tensor, and what the bundle would take. */
#ifndef MKHCT_PREVIEW_H
#define MKHCT_PREVIEW_H

#include <stdio.h>

#include "codec/error.h"
#include "writer/goals.h"
#include "writer/source.h"

struct mkhct_preview {
	const struct mkhct_source *source;
	const struct mkhct_goals *goals; /* with forecasts */
	const char *options;             /* JSON */
	double model_bytes;              /* of all .hct files, expected */
};

/* A table, a line for each tensor, and the sum. */
hct_error mkhct_preview_print(const struct mkhct_preview *p, FILE *stream, struct hct_diag *diag);

/* The same as a JSON object and a newline. */
hct_error mkhct_preview_print_json(const struct mkhct_preview *p, FILE *stream,
				   struct hct_diag *diag);

#endif
