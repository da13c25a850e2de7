/* Internal: the index of an .hct file, read and checked. */
#ifndef HCT_INDEX_H
#define HCT_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "format.h"
#include "reader.h"
#include "safetensors.h"

struct hct_index {
	uint16_t major, minor;
	uint64_t file_length;
	uint64_t checksum; /* of the index head: tells two files apart */
	struct hct_safetensors st;
	struct hct_tensor_record *tensors; /* st.count */
	uint64_t *first_chunk;             /* st.count: global number of a tensor's chunk 0 */
	uint64_t chunk_count;
	uint8_t *extents; /* records as they lie in the file: hct_extent_unpack */
	uint64_t extent_count;
	uint8_t *params;
	size_t params_length;
	uint64_t params_stored; /* bytes of the section in the file, maybe compressed */
	struct hct_source source;
	char *provenance;
};

/* Reads and checks all but the payloads and the tables in params.  On failure
 * nothing is left to free. */
hct_error hct_index_read(int fd, const char *name, struct hct_index *out, struct hct_diag *diag);
void hct_index_free(struct hct_index *x);

/* Record of chunk k (within its tensor), layer l. */
static inline void hct_index_extent(const struct hct_index *x, size_t tensor, uint64_t k,
				    unsigned layer, struct hct_extent *out)
{
	const struct hct_tensor_record *t = &x->tensors[tensor];

	hct_extent_unpack(x->extents + (t->first_extent + k * t->layers + layer) * HCT_EXTENT_BYTES,
			  out);
}

#endif
