/* Internal to page.c: the tensors of a report, and sums over some of them. */
#ifndef MKHCT_PAGE_ROWS_H
#define MKHCT_PAGE_ROWS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cjson/cJSON.h>

#include "writer/kind.h"

#define MKHCT_PAGE_NAME 600 /* bytes of a name that are shown */

/* Rooms of a model: colours of the plots. */
enum mkhct_page_part { MKHCT_PAGE_ATTENTION, MKHCT_PAGE_MLP, MKHCT_PAGE_REST, MKHCT_PAGE_PARTS };

struct mkhct_page_row {
	char *name, *file, *dtype, *shape, *codec, *why; /* printable; why may be NULL */
	int lossy, layer;                                /* layer: -1 without */
	size_t stack;                                    /* bytes of the name before the layer */
	enum mkhct_tensor_kind kind;
	enum mkhct_page_part part;
	double source, stored, elements; /* bytes, number */
	double error, cosine;            /* 0 and 1 for lossless */
};

struct mkhct_page_rows {
	struct mkhct_page_row *rows; /* as the report has them */
	size_t count, capacity;
};

/* 0, or -1 when out of memory.  Free in both cases. */
int mkhct_page_rows_read(const cJSON *report, struct mkhct_page_rows *out);
void mkhct_page_rows_free(struct mkhct_page_rows *rows);

/* Sums over tensors. */
struct mkhct_page_sum {
	size_t tensors, lossy;
	double source, stored, elements, lossy_elements;
	double stored_part[MKHCT_PAGE_PARTS];
	double errors, least, most; /* errors: each times its elements; of lossy ones */
	double worst;               /* cosine */
};

void mkhct_page_sum_add(struct mkhct_page_sum *sum, const struct mkhct_page_row *row);

/* Text in HTML: markup is escaped, and what would not be seen, or would change how the rest is
 * shown, is written as \u{...}. */
void mkhct_page_text(FILE *out, const char *text);

#endif
