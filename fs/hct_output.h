/* Files that appear under their name only when they are whole.
 *
 * Until then a file is `.NAME.part` beside it (or `.NAME.part-2` and so on when a file of
 * the tree has that name), locked, so that two programs never write the same one. */
#ifndef HCT_OUTPUT_H
#define HCT_OUTPUT_H

#include <stdint.h>
#include <time.h>

#include "codec/error.h"
#include "tree.h"

struct hct_output {
	int fd;      /* write at any offset below size, from any thread */
	int dir;     /* of the directory that the file lies in */
	char *name;  /* final name in dir */
	char *part;  /* name until then */
	char *shown; /* path for messages */
	int whole;   /* it has its final name */
};

/* Makes target, when path is "", or the directory path within target, unless it is there;
 * *made tells.  Parents must exist. */
hct_error hct_output_directory(const char *target, const char *path, int *made,
			       struct hct_diag *diag);

/* Removes such a directory when it is empty. */
void hct_output_remove_directory(const char *target, const char *path);

/* Fails when the disk of target, which need not be there yet, has less than so many bytes
 * free, where the file system can tell.  Errors: HCT_ERR_NO_SPACE, HCT_ERR_NOMEM. */
hct_error hct_output_space(const char *target, uint64_t needed, struct hct_diag *diag);

/* Begins the file path, which shows node, within target and reserves its size.  *out is to be ended
 * when this succeeded.  Errors: HCT_ERR_NO_SPACE, HCT_ERR_EXISTS when another program is writing
 * it, HCT_ERR_IO, HCT_ERR_NOMEM. */
hct_error hct_output_begin(const char *target, const char *path, const struct hct_node *node,
			   struct hct_output *out, struct hct_diag *diag);

/* Sets the time, syncs, and gives the file its final name; replace: also when there is
 * a file of that name (otherwise HCT_ERR_EXISTS). */
hct_error hct_output_commit(struct hct_output *out, const struct timespec *mtime, int replace,
			    struct hct_diag *diag);

/* Closes it, and removes what was not committed. */
void hct_output_end(struct hct_output *out);

#endif
