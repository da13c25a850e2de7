/* Internal: encoding with the tcq codec, the tables given. */
#ifndef HCT_TCQ_ENCODE_H
#define HCT_TCQ_ENCODE_H

#include <stddef.h>
#include <stdint.h>

#include "accelerator.h"
#include "dct.h"
#include "dequant.h"
#include "tcq.h"
#include "viterbi.h"

/* Entropy coding with the tables of one row class; by code, that is
 * column class << 6 | parity << 5 | symbol. */
struct hct_tcq_coder {
	uint8_t freq[256], start[256];
	uint8_t reciprocal[2][256]; /* low and high bytes of floor(65536 / freq), 65535 for 1 */
	uint8_t slot[8 * HCT_RANS_TOTAL +
		     3]; /* by (code >> 5) * 256 + start + rank; 3 to read over */
};

/* Encodes the codes of a segment backwards, so that the bytes of substream i end at end[i] and
 * begin at the returned begin[i]; at least 32 bytes a group and 32 more must lie before end[i].
 * states: the decoder's start states.  The same on every variant. */
typedef void hct_tcq_entropy(const struct hct_tcq_coder *coders,
			     const struct hct_viterbi_segment *s, uint8_t *const end[2],
			     uint8_t *begin[2], uint16_t states[2][HCT_LANES]);

hct_tcq_entropy hct_tcq_entropy_scalar, hct_tcq_entropy_avx512;
hct_tcq_entropy *hct_tcq_entropy_find(hct_simd simd);

/* Everything for encoding one layer. */
struct hct_tcq_layer_encoder {
	struct hct_viterbi search;
	struct hct_dequant dequant;
	uint8_t *column_classes; /* HCT_GROUP more than columns, wrapping */
	struct hct_tcq_coder coders[];
};

/* NULL without memory; free it with hct_tcq_layer_encoder_free.  lambda: as for
 * hct_viterbi_init. */
struct hct_tcq_layer_encoder *hct_tcq_layer_encoder_create(const struct hct_tcq_tables *t,
							   unsigned layer, float lambda);
void hct_tcq_layer_encoder_free(struct hct_tcq_layer_encoder *e);

/* Column classes for the search: C + HCT_GROUP bytes, from the layer's packed ones. */
void hct_tcq_spread_columns(const struct hct_tcq_tables *t, const struct hct_tcq_layer *l,
			    uint8_t *out);

/* The values that a decoder finds in a segment: codes and planes as the search gives them,
 * exceptions in any order; natural order. */
void hct_tcq_reconstruct(const struct hct_dequant *q, const struct hct_dequant_loops *loops,
			 const struct hct_viterbi_segment *s, float *out);

/* Elements (or coefficients) of a chunk, ready for coding: n of them at data are converted to
 * values, which has room for whole groups, and transformed where the tables say so. */
hct_error hct_tcq_values(const struct hct_tcq_tables *t, const hct_dct *dct, hct_dtype dtype,
			 const uint8_t *data, size_t n, float *values);

/* Bytes that the payload of a layer of n elements may take. */
size_t hct_tcq_payload_bound(const struct hct_tcq_tables *t, const struct hct_tcq_layer *l,
			     size_t n);
/* Bytes of scratch memory for hct_tcq_encode_layer. */
size_t hct_tcq_scratch(const struct hct_tcq_tables *t);

/* Codes n values, the first of which is element `first` of the tensor, as one layer to out and
 * returns the payload's length.  values: whole groups; when residual is 1, each is replaced by
 * what is left of it. */
size_t hct_tcq_encode_layer(const struct hct_tcq_tables *t, unsigned layer,
			    const struct hct_tcq_layer_encoder *e, struct hct_searcher *searcher,
			    float *values, size_t n, uint64_t first, int residual, uint8_t *scratch,
			    uint8_t *out);

#endif
