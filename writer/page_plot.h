/* Internal to page.c: plots as inline SVG, coloured by the style of the page. */
#ifndef MKHCT_PAGE_PLOT_H
#define MKHCT_PAGE_PLOT_H

#include <stdio.h>

#include "writer/page_rows.h"

#define MKHCT_PAGE_STACKS 4 /* that are plotted: those which take most */

/* Size and error of the layers of each stack; nothing for a model without layers.  0, or -1 when
 * out of memory. */
int mkhct_page_plot_layers(FILE *out, const struct mkhct_page_rows *rows);

/* Of each kind: kinds[k] sums over the tensors of kind k. */
void mkhct_page_plot_kinds(FILE *out, const struct mkhct_page_sum kinds[MKHCT_KIND_COUNT]);

/* The number of a kind in a list sorted by what is stored; -1 behind the last. */
int mkhct_page_kind_at(const struct mkhct_page_sum kinds[MKHCT_KIND_COUNT], unsigned place);

#endif
