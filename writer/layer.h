/* Which layer of its stack a tensor belongs to, and how many layers the stack has.
 *
 * A name shows its layer as "layers.12.", "h.3.", "encoder.layer.5.", "blocks.7.",
 * "Encode/Layer_0/" ...; what stands before the number names the stack, so encoder and
 * decoder, or text and vision, count apart.  A number behind any other word (a stage of a
 * U-Net, a position in a Sequential) is no layer, nor is one behind it.
 *
 * The number of layers is one more than the highest in a name.  For the stack with most
 * layers config.json has the word where it says more (a partial checkpoint), or less by the
 * extra layers for multi-token prediction that it tells of. */
#ifndef MKHCT_LAYER_H
#define MKHCT_LAYER_H

#include <stddef.h>

#include "codec/error.h"

#define MKHCT_MAX_LAYERS 100000u
#define MKHCT_MAX_STACKS 256u /* tensors of further ones belong to no layer */

/* Reads the layer from a name.  1, with *stack the length of the part of the name that names
 * the stack; 0 when there is none.  Pure. */
int mkhct_layer_parse(const char *name, unsigned *layer, size_t *stack);

/* Layers from the text of a config.json: num_hidden_layers, n_layer, num_layers, n_layers
 * (of the model, or of its text_config, llm_config, language_config ...).  0 when it does
 * not say, or is no JSON.  *extra: its num_nextn_predict_layers. */
unsigned mkhct_layer_config(const char *text, size_t length, unsigned *extra);

struct mkhct_layers; /* opaque: the stacks of a model */

/* config: the text of config.json, length bytes, or NULL; not kept.  *out goes to
 * mkhct_layers_free.  Errors: HCT_ERR_NOMEM. */
hct_error mkhct_layers_create(const char *config, size_t length, struct mkhct_layers **out,
			      struct hct_diag *diag);
void mkhct_layers_free(struct mkhct_layers *l);

/* Takes the name of a tensor into account.  Errors: HCT_ERR_NOMEM. */
hct_error mkhct_layers_see(struct mkhct_layers *l, const char *name, struct hct_diag *diag);

/* When every name has been seen: 1 with the layer of a tensor and the number of layers of its
 * stack, or 0 for one that belongs to none.  *layer may be *count or more: an extra layer
 * behind the last.  From any thread. */
int mkhct_layers_find(const struct mkhct_layers *l, const char *name, unsigned *layer,
		      unsigned *count);

#endif
