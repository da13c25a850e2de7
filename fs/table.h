/* A table of text in aligned columns, for people.
 *
 * Running out of memory while it is filled is remembered and reported once, by
 * hct_table_print. */
#ifndef HCTFS_TABLE_H
#define HCTFS_TABLE_H

#include <stdio.h>

#include "codec/error.h"

struct hct_table;

/* columns: one character each, 'l' or 'r' for left or right aligned ("llrr").  NULL
 * without memory, which the other functions accept. */
struct hct_table *hct_table_create(const char *columns);
void hct_table_free(struct hct_table *t);

/* Adds the next cell; after the last column a new row begins.  The text is made
 * printable (text.h). */
void hct_table_cell(struct hct_table *t, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Ends the row early; its other cells stay empty. */
void hct_table_end_row(struct hct_table *t);

/* Adds a line of its own, which stands at the left margin and widens no column. */
void hct_table_line(struct hct_table *t, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Writes all rows, each indented, with two blanks between columns and none at the end of
 * a line.  Errors: HCT_ERR_NOMEM; errors of the stream are left to its owner. */
hct_error hct_table_print(const struct hct_table *t, FILE *out);

#endif
