/* The checkpoint's list of the tensors of a model that is being written. */
#ifndef MKHCT_TENSORS_H
#define MKHCT_TENSORS_H

#include <stdint.h>

#include "codec/safetensors.h"
#include "writer/compress.h"

/* JSON text of all tensors, as checkpoint.h has them; stored: bytes of each that is whole.  Free
 * it; NULL without memory. */
char *mkhct_tensors_list(const struct hct_safetensors *st, const struct mkhct_result *results,
			 const uint64_t *stored, const struct mkhct_standing *s);

#endif
