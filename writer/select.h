/* Which files of a source are taken: --include and --exclude.
 *
 * Patterns are numbered in the order in which they were given, and the last that matches counts.
 * One with a '/' in it matches the whole name from the source's root, one without matches also
 * the last component alone; a '/' at the end is passed over.  A pattern that matches a folder
 * matches everything in it.  What no pattern matches is taken, unless the first one is an
 * --include: then only what patterns include is. */
#ifndef MKHCT_SELECT_H
#define MKHCT_SELECT_H

#include <stddef.h>

#include "codec/error.h"
#include "writer/options.h"

#define MKHCT_SELECT_NONE ((size_t)0) /* no pattern matches */

struct mkhct_select {
	const struct mkhct_selection *selections; /* the caller's */
	char **patterns;                          /* theirs, without a '/' at the end */
	size_t count;
	unsigned char *hits; /* for each pattern: it matched something */
	int skipped;         /* some folder was not looked into */
};

/* selections may be NULL when count is 0, and must outlive *s, which goes to mkhct_select_free,
 * also after an error.  Errors: HCT_ERR_NOMEM. */
hct_error mkhct_select_begin(struct mkhct_select *s, const struct mkhct_selection *selections,
			     size_t count, struct hct_diag *diag);
void mkhct_select_free(struct mkhct_select *s);

/* The number (from 1) of the last pattern that matches the name or a folder that it lies in, whose
 * own verdict is `above` (MKHCT_SELECT_NONE at the root); or MKHCT_SELECT_NONE. */
size_t mkhct_select_judge(struct mkhct_select *s, const char *name, size_t above);

/* 1 when that verdict takes a file or folder. */
int mkhct_select_takes(const struct mkhct_select *s, size_t verdict);

/* 1 when something in a folder of that verdict may be taken; when it returns 0, the folder need
 * not be looked into, and that is remembered. */
int mkhct_select_enters(struct mkhct_select *s, size_t verdict);

/* HCT_ERR_ARGUMENT with the first pattern that matched nothing.  An --exclude is forgiven that
 * when a folder was not looked into: what it means may lie there. */
hct_error mkhct_select_check(const struct mkhct_select *s, const char *source,
			     struct hct_diag *diag);

#endif
