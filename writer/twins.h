/* Tensors of one name in several files of a folder.
 *
 * The model files of a folder belong to copies of a model: those that indexes name are one copy,
 * those that are numbered like NAME-00001-of-00003 one for each NAME, and any other file is one by
 * itself. */
#ifndef MKHCT_TWINS_H
#define MKHCT_TWINS_H

#include "codec/error.h"
#include "writer/source.h"

/* indexed: for each entry, 1 when an index names it.
 *
 * *note, when it is empty, gets a line about tensors that two files share and that are not a copy
 * of the whole, but for files that an index names.  The source gets a note when a copy shares half
 * of its names or more with another one, or is called consolidated* and has about the size of
 * another.  One line of each kind.
 *
 * Memory: 16 bytes for each tensor of the largest folder.  Errors: those of mkhct_model_open;
 * HCT_ERR_INTERRUPTED. */
hct_error mkhct_twins_find(struct mkhct_source *source, const unsigned char *indexed,
			   struct hct_diag *note, struct hct_diag *diag);

#endif
