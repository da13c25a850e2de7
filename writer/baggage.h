/* What a bundle takes along that may be as large as the model and that few want: the same weights
 * in other formats, and what git and the Hugging Face client keep. */
#ifndef MKHCT_BAGGAGE_H
#define MKHCT_BAGGAGE_H

#include "codec/error.h"
#include "writer/source.h"

/* 1 with a line in *line for line number i = 0, 1 ... , one for each kind that takes more than a
 * MiB: how many files, what they take, and the option that leaves them out.  0 when there are no
 * more. */
int mkhct_baggage_note(const struct mkhct_source *source, unsigned i, struct hct_diag *line);

#endif
