/* What was done: a table for people, JSON for programs, and the report in the bundle. */
#ifndef MKHCT_REPORT_H
#define MKHCT_REPORT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "codec/error.h"
#include "codec/reader.h"
#include "writer/source.h"

struct mkhct_report;

hct_error mkhct_report_create(const struct mkhct_source *source, struct mkhct_report **out,
			      struct hct_diag *diag);
/* NULL is allowed. */
void mkhct_report_free(struct mkhct_report *r);

/* Adds an entry that is written: a model with the reader of its .hct file, anything else
 * with NULL (folders and carried files are stored as they are).  checksum: of a carried
 * file; the .hct file has its own. */
hct_error mkhct_report_add(struct mkhct_report *r, const struct mkhct_entry *entry,
			   const hct_reader *reader, uint64_t checksum, struct hct_diag *diag);

/* The JSON text for the bundle, with a list of every model's tensors; free with
 * cJSON_free.  NULL when out of memory. */
char *mkhct_report_full(struct mkhct_report *r, double seconds);

/* Prints the same without the lists of tensors, and a newline. */
hct_error mkhct_report_print_json(struct mkhct_report *r, FILE *stream, struct hct_diag *diag);

/* Prints tensors, source bytes, stored bytes, ratio and time. */
void mkhct_report_print_table(const struct mkhct_report *r, double seconds, FILE *stream);

#endif
