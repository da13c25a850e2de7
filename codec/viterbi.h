/* Internal: the search for the symbols of a segment that cost least: squared error plus lambda
 * times bits, over all paths through the trellis of every lane (A. J. Viterbi's algorithm; for
 * sources: T. R. Fischer, M. Wang, "Entropy-constrained trellis-coded quantization", 1992).
 *
 * Costs are integers in units of step^2 / 256 and values are rounded to step / 64, so that every
 * variant finds the same path. */
#ifndef HCT_VITERBI_H
#define HCT_VITERBI_H

#include <stddef.h>
#include <stdint.h>

#include "inline.h"
#include "reader.h"
#include "tcq.h"

#define HCT_VITERBI_COSETS 4     /* 2 z + parity */
#define HCT_VITERBI_NEVER  30000 /* the cost of what cannot be */
#define HCT_VITERBI_MOST   2048  /* groups of a segment */
#define HCT_VITERBI_BATCH  8     /* segments that a device searches together, at most */
/* What the place of an exception in its list costs, about; its symbol comes on top. */
#define HCT_VITERBI_EXCEPTION_BITS 17

/* What a layer's tables mean for the search.  The row class of a run is chosen by the bits of the
 * symbols nearest to its elements. */
struct hct_viterbi {
	unsigned states_log2, raw_bits, column_classes, row_classes;
	float step;
	uint8_t prev[HCT_TCQ_MAX_STATES][2]; /* the two states before each, z << 5 added */
	/* Cost of the bits of a symbol, by row class, parity, column class. */
	uint16_t rate[HCT_TCQ_MAX_ROWS][2][HCT_TCQ_MAX_COLUMNS][HCT_TCQ_SYMBOLS];
	int16_t offset[2][HCT_TCQ_SYMBOLS]; /* of the points, in step / 64 */
	/* Both together, rate and offset << 16, by row class, parity, and column class << 6 |
	 * symbol; symbol 32 stands for all that there are not. */
	uint32_t pairs[HCT_TCQ_MAX_ROWS][2][64 * HCT_TCQ_MAX_COLUMNS];
	uint16_t exception; /* cost of an exception, whatever its value */
	/* The symbol of an exception, by row class, column class, parity and, when there are no raw
	 * bits, its lowest bit: the cheapest. */
	uint8_t stand_in[HCT_TCQ_MAX_ROWS][HCT_TCQ_MAX_COLUMNS][2][2];
};

/* lambda: squared error, in units of step^2, that a bit is worth. */
void hct_viterbi_init(struct hct_viterbi *v, const struct hct_tcq_layer *layer, float lambda);

/* The state before state s on the branch with lowest bit z, and z << 5: the trellis of FORMAT.md
 * backwards.  Its constants g have their top bit set and f have not, so that the top bit of a
 * state is the parity of the one before. */
HCT_INLINE unsigned hct_viterbi_prev(unsigned states_log2, unsigned s, unsigned z)
{
	const unsigned g = states_log2 == 3 ? 013 : states_log2 == 4 ? 023 : 045;
	const unsigned f = states_log2 == 5 ? 010 : 04, top = s >> (states_log2 - 1);

	return ((s ^ (top ? g >> 1 : 0) ^ (z ? f >> 1 : 0)) << 1 | top) | z << 5;
}

/* The coset of such a branch. */
HCT_INLINE unsigned hct_viterbi_coset(unsigned prev)
{
	return (prev >> 5) * 2 + (prev & 1);
}

struct hct_tcq_exception {
	uint32_t element; /* of the segment */
	int32_t value;    /* e, in steps */
};

/* A segment: what is searched and what is found. */
struct hct_viterbi_segment {
	const float *x;                /* whole groups; what fills up the last one is anything */
	size_t groups;                 /* at most HCT_VITERBI_MOST */
	const uint8_t *column_classes; /* of all columns, HCT_GROUP more, wrapping */
	uint32_t column, period;       /* of the first element; period is the number of columns */
	uint8_t *map;                  /* row class of each run; found too when choose is 1 */
	unsigned run_log2;
	int choose;
	/* Found: */
	uint8_t *codes; /* 64 a group in order of position: column class << 6 | parity << 5 | symbol
			 */
	uint64_t *planes;                     /* raw_bits words a group */
	struct hct_tcq_exception *exceptions; /* room for every element */
	size_t exception_count;
	/* Of a segment that a device has searched: a bit for each element that is an exception, a
	 * word a group; otherwise NULL. */
	const uint64_t *marks;
};

/* Bytes of scratch memory, 64-byte aligned, for a segment of so many groups. */
size_t hct_viterbi_scratch(size_t groups);

typedef void hct_viterbi_search(const struct hct_viterbi *v, struct hct_viterbi_segment *s,
				void *scratch);

hct_viterbi_search hct_viterbi_search_scalar, hct_viterbi_search_avx2, hct_viterbi_search_avx512;
hct_viterbi_search *hct_viterbi_find(hct_simd simd);

/* Lists the exceptions of a segment, in order, from its codes, planes and marks. */
void hct_viterbi_list_exceptions(const struct hct_viterbi *v, struct hct_viterbi_segment *s);

#endif
