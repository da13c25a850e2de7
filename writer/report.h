/* What was done: a table for people, JSON for programs, and the report in the bundle. */
#ifndef MKHCT_REPORT_H
#define MKHCT_REPORT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cjson/cJSON.h>

#include "codec/error.h"
#include "codec/reader.h"
#include "writer/compress.h"
#include "writer/goals.h"
#include "writer/node.h"
#include "writer/source.h"

struct mkhct_report;

/* options: what mkhct_recipe_text gave; lossless: mkhct_recipe_is_lossless.  Both, and the
 * source, must outlive the report. */
hct_error mkhct_report_create(const struct mkhct_source *source, const char *options, int lossless,
			      struct mkhct_report **out, struct hct_diag *diag);
/* NULL is allowed. */
void mkhct_report_free(struct mkhct_report *r);

/* Adds an entry that is written; model is NULL for folders and carried files, which are stored
 * as they are.  checksum: of a carried file; the .hct file has its own. */
hct_error mkhct_report_add(struct mkhct_report *r, const struct mkhct_entry *entry,
			   const struct mkhct_written *model, uint64_t checksum,
			   struct hct_diag *diag);

/* What mkhct_report_add or mkhct_report_add_node added last, as JSON text on one line for
 * mkhct_report_add_node: the sums of the report follow from it alone, exactly.  Free with
 * cJSON_free; NULL when out of memory, or when nothing was added. */
char *mkhct_report_node(const struct mkhct_report *r);

/* Adds an entry that an earlier run, or another machine, has written: what
 * cJSON_Parse makes of such a text; not kept.  Errors: HCT_ERR_CORRUPT when it is no such node,
 * HCT_ERR_NOMEM. */
hct_error mkhct_report_add_node(struct mkhct_report *r, const cJSON *node, struct hct_diag *diag);

/* Bytes that the reports of the bundle are going to have, within some 10 a tensor; better where
 * goals have forecasts.  What else a bundle has besides models and carried files would be added
 * here:
 * --size counts just this. */
double mkhct_report_forecast(const struct mkhct_source *source, const struct mkhct_goals *goals,
			     const char *options);

/* The JSON text for the bundle, with a list of every model's tensors; free with
 * cJSON_free.  NULL when out of memory.  Nothing can be added after that. */
char *mkhct_report_full(struct mkhct_report *r, double seconds);

/* The document that mkhct_report_full has made, for mkhct_page_write; it belongs to the report. */
const cJSON *mkhct_report_document(const struct mkhct_report *r);

/* The same text on one line and without the lists of tensors, for mkhct_events_report; they are
 * gone from the document, too.  Free with cJSON_free; NULL when out of memory. */
char *mkhct_report_brief(struct mkhct_report *r);
/* Prints tensors, source bytes, stored bytes, ratio and time, and of a lossy bundle bits a weight
 * and quality. */
void mkhct_report_print_table(const struct mkhct_report *r, double seconds, FILE *stream);

#endif
