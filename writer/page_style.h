/* Internal to page.c: what every page has in it. */
#ifndef MKHCT_PAGE_STYLE_H
#define MKHCT_PAGE_STYLE_H

extern const char mkhct_page_css[];
/* Sorts and filters the table of tensors. */
extern const char mkhct_page_script[];

#endif
