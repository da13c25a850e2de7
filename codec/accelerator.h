/* Internal: what an encoder searches with: the CPU, or a GPU that encoders share.
 *
 * Each encoder gives the GPU the segments of the chunk, or of the part of a sample, that it is at,
 * and waits for them, while those of other threads do the same: theirs are side by side.  A block
 * of the GPU's threads takes as long for one segment as hundreds of them take for hundreds, which
 * is less than what the CPU does for a segment before and after (transform, entropy coding,
 * decoding it again); so larger batches, collected from several threads, would keep a GPU busier
 * and not bring a chunk any sooner. */
#ifndef HCT_ACCELERATOR_H
#define HCT_ACCELERATOR_H

#include <stddef.h>

#include "encoder.h"
#include "viterbi.h"

struct hct_device_searcher;

/* Of one encoder; zeroed but for simd it is the CPU alone. */
struct hct_searcher {
	hct_simd simd;
	hct_accelerator *gpu;               /* or NULL */
	struct hct_device_searcher *device; /* of it, from the first search on */
};

/* Harmless when repeated. */
void hct_searcher_close(struct hct_searcher *s);

/* Has the GPU search segments, 1 to HCT_VITERBI_BATCH, of which the next calls of hct_searcher_find
 * are going to ask: as struct hct_device_search_class has it, but for those that are too few to be
 * worth it.  Sets their marks, to NULL where the CPU is to do it: also when the GPU fails. */
void hct_searcher_begin(struct hct_searcher *s, const struct hct_viterbi *v,
			struct hct_viterbi_segment *segments, size_t count);

/* Finds a segment that hct_searcher_begin was told of; its exceptions in any order.  Codes and
 * planes may then be the searcher's, until hct_searcher_begin is called again.  scratch: of
 * hct_viterbi_scratch. */
void hct_searcher_find(const struct hct_searcher *s, const struct hct_viterbi *v,
		       struct hct_viterbi_segment *segment, void *scratch);

#endif
