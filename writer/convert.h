/* What a person with weights in another format is told: how they become safetensors. */
#ifndef MKHCT_CONVERT_H
#define MKHCT_CONVERT_H

#include "codec/error.h"
#include "writer/source.h"

/* Of a source without a model: a line with the file that has the weights, and a command that
 * converts it.  Those for state dicts and .npz were tried with torch 2.13, transformers 5.23, numpy
 * 2.4 and safetensors 0.8; transformers 5 no longer reads TensorFlow and Flax, which 4 does.
 * Returns HCT_ERR_UNSUPPORTED. */
hct_error mkhct_convert_advise(const struct mkhct_source *source, struct hct_diag *diag);

#endif
