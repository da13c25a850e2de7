/* How many layers of a chunk are read: what a quality stands for.
 *
 *     essentials  the first layer
 *     quick       the first two
 *     balanced    the first three
 *     full        all
 *
 * A tensor with no more layers than that is read in full, as one with a single layer always is.
 * Layers are numbers as hct_decoder_set_layers takes them: 0 for all. */
#ifndef HCTFS_LAYERS_H
#define HCTFS_LAYERS_H

#include <stdint.h>

#include "codec/reader.h"

/* For messages about a name that is none of them. */
#define HCT_LAYERS_NAMES "essentials, quick, balanced or full"

/* Returns 1 with *layers set, or 0 when no quality has that name. */
int hct_layers_parse(const char *name, unsigned *layers);

/* layers: what hct_layers_parse gave. */
const char *hct_layers_name(unsigned layers);

/* Layers of the tensor of a file that has most; 1 for a file without tensors. */
unsigned hct_layers_most(const hct_reader *r);

/* What reading files at a quality means, summed over them. */
struct hct_layers_share {
	unsigned most;         /* layers of the tensor that has most */
	uint64_t tensors, cut; /* tensors; those of which layers are left out */
	uint64_t stored_bytes; /* of their chunks */
	uint64_t read_bytes;   /* that part of it which is read */
};

/* Adds one .hct file.  layers: what hct_layers_parse gave. */
void hct_layers_weigh(const hct_reader *r, unsigned layers, struct hct_layers_share *sum);

#endif
