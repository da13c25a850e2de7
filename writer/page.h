/* The report as a page for a browser: one file that needs no other and asks no network.
 *
 * It shows what the JSON report says: totals, options, size and error by layer and by kind, the
 * worst tensors, those that are lossless and why, and a table of all tensors, which a small script
 * sorts and filters; without scripts it is whole as well.  Where the table would be too long, only
 * the worst MKHCT_PAGE_WORST tensors are in it, and a line says so.  Names are hostile: they are
 * text whatever they hold, and long ones are cut.  The same report gives the same bytes. */
#ifndef MKHCT_PAGE_H
#define MKHCT_PAGE_H

#include <stdio.h>

#include <cjson/cJSON.h>

#include "codec/error.h"

#define MKHCT_PAGE_WORST 1000
#define MKHCT_PAGE_BYTES (6u << 20) /* of a table of all tensors, about */

/* report: what mkhct_report_document gave, before mkhct_report_brief, or cJSON_Parse of a report
 * made from its text.  What is missing in it is left out.  Errors of the stream stay in it.
 * Errors: HCT_ERR_NOMEM. */
hct_error mkhct_page_write(const cJSON *report, FILE *out, struct hct_diag *diag);

#endif
