/* What was done: a table for people, JSON for programs, and the report in the bundle. */
#ifndef MKHCT_REPORT_H
#define MKHCT_REPORT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "codec/error.h"
#include "codec/reader.h"
#include "writer/compress.h"
#include "writer/goals.h"
#include "writer/source.h"

struct mkhct_report;

/* options: what mkhct_recipe_text gave; lossless: mkhct_recipe_is_lossless.  Both, and the
 * source, must outlive the report. */
hct_error mkhct_report_create(const struct mkhct_source *source, const char *options, int lossless,
			      struct mkhct_report **out, struct hct_diag *diag);
/* NULL is allowed. */
void mkhct_report_free(struct mkhct_report *r);

/* A model that was written. */
struct mkhct_written {
	const hct_reader *reader; /* of its .hct file */
	const struct mkhct_model_goals *goals;
	const struct mkhct_result *results; /* one for each tensor */
};

/* Adds an entry that is written; model is NULL for folders and carried files, which are stored
 * as they are.  checksum: of a carried file; the .hct file has its own. */
hct_error mkhct_report_add(struct mkhct_report *r, const struct mkhct_entry *entry,
			   const struct mkhct_written *model, uint64_t checksum,
			   struct hct_diag *diag);

/* Bytes that the report of the bundle is going to have, within some 10 a tensor; better where goals
 * have forecasts.  What else a bundle has besides models and carried files would be added here:
 * --size counts just this. */
double mkhct_report_forecast(const struct mkhct_source *source, const struct mkhct_goals *goals,
			     const char *options);

/* The JSON text for the bundle, with a list of every model's tensors; free with
 * cJSON_free.  NULL when out of memory. */
char *mkhct_report_full(struct mkhct_report *r, double seconds);

/* Prints the same without the lists of tensors, and a newline. */
hct_error mkhct_report_print_json(struct mkhct_report *r, FILE *stream, struct hct_diag *diag);

/* Prints tensors, source bytes, stored bytes, ratio and time, and of a lossy bundle bits a weight
 * and quality. */
void mkhct_report_print_table(const struct mkhct_report *r, double seconds, FILE *stream);

#endif
