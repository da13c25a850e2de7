/* Internal: the entropy coder.  Interleaved rANS with 16-bit states, 32 lanes a
 * substream, frequencies that sum to 256, and bytes as the unit of renormalisation,
 * as FORMAT.md section 4 specifies it.  (rANS: J. Duda, "Asymmetric numeral systems",
 * arXiv:1311.2540; interleaving: F. Giesen, arXiv:1402.3392.)
 *
 * A segment is two substreams, A and B, that take turns of 32 symbols; 64 symbols in a
 * row are a group, and a group is coded with the tables of one class.  Symbols travel
 * through memory a group at a time in order of position: A's lane 0, B's lane 0, A's
 * lane 1, ...
 *
 * Every variant does exactly what the scalar one does, on any input. */
#ifndef HCT_RANS_H
#define HCT_RANS_H

#include <stddef.h>
#include <stdint.h>

#include "reader.h"

#define HCT_LANES       32
#define HCT_GROUP       64
#define HCT_SYMBOLS     64
#define HCT_RANS_TOTAL  256 /* sum of the frequencies of a class */
#define HCT_RANS_LOW    256 /* least value of a state; start of the encoder */
#define HCT_MAX_CLASSES 16

/* Decoding tables of one class. */
struct hct_rans_class {
	uint8_t slot[HCT_RANS_TOTAL]; /* slot to symbol */
	uint8_t freq[HCT_SYMBOLS];
	uint8_t cum[HCT_SYMBOLS];
	uint32_t wide[HCT_RANS_TOTAL]; /* slot to freq | (slot - cum) << 8 | symbol << 16 */
} __attribute__((aligned(64)));

/* Start of each symbol's slots: the most frequent symbols come first, equal ones in rising
 * order.  With states this small that costs less than any other order of contiguous slots.
 * A start of 256 (only for symbols of frequency 0) wraps to 0. */
void hct_rans_order(const uint8_t freq[HCT_SYMBOLS], uint8_t cum[HCT_SYMBOLS]);

/* Fills the tables from 64 frequencies; -1 when these do not sum to 256. */
int hct_rans_class_init(struct hct_rans_class *c, const uint8_t freq[HCT_SYMBOLS]);

/* One substream while it is decoded. */
struct hct_rans_stream {
	uint16_t x[HCT_LANES];
	const uint8_t *p, *end; /* HCT_LANES bytes behind end are readable */
	uint64_t overrun;       /* top bit set once a byte behind end was asked for */
};

struct hct_rans_segment {
	struct hct_rans_stream sub[2];
	const struct hct_rans_class *classes;
	const uint8_t *map; /* class of each run */
	unsigned run_log2;  /* groups in a run */
	size_t group;       /* next one */
};

/* Decodes the next groups of s, and of t when that is not NULL: two segments at a time
 * hide each other's latency.  Writes 64 symbols a group. */
typedef void hct_rans_decode(struct hct_rans_segment *s, uint8_t *symbols,
			     struct hct_rans_segment *t, uint8_t *t_symbols, size_t groups);

/* 1 when both substreams have ended where the encoder began: all bytes used, none
 * too many, all states HCT_RANS_LOW. */
int hct_rans_finished(const struct hct_rans_segment *s);

/* Encoding tables of one class. */
struct hct_rans_coder {
	uint16_t freq[HCT_SYMBOLS], cum[HCT_SYMBOLS];
	uint16_t reciprocal[HCT_SYMBOLS]; /* floor(65536 / freq), 65535 for 1, 0 for 0 */
};

void hct_rans_coder_init(struct hct_rans_coder *c, const uint8_t freq[HCT_SYMBOLS]);

/* Encodes groups of symbols, all of which have a frequency in their class, backwards, so
 * that the bytes of substream i end at end[i] and begin at the returned begin[i]; at
 * least 32 bytes a group must lie before end[i].  states: the decoder's start states. */
typedef void hct_rans_encode(const struct hct_rans_coder *classes, const uint8_t *map,
			     unsigned run_log2, const uint8_t *symbols, size_t groups,
			     uint8_t *const end[2], uint8_t *begin[2],
			     uint16_t states[2][HCT_LANES]);

hct_rans_decode hct_rans_decode_scalar, hct_rans_decode_avx2, hct_rans_decode_avx512;
hct_rans_encode hct_rans_encode_scalar, hct_rans_encode_avx512;

/* The variant for an instruction set, never HCT_SIMD_AUTO. */
hct_rans_decode *hct_rans_decoder(hct_simd simd);
hct_rans_encode *hct_rans_encoder(hct_simd simd);

#endif
