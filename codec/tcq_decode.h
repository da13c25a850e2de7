/* Internal: the entropy stage of the tcq codec.  rANS as in rans.h, with alias tables that the
 * state of a trellis and the element's column choose (FORMAT.md section 5).
 *
 * Codes, one byte an element, are what the stage gives: 64 q + 32 parity + symbol (q: the class
 * of the column).  They travel a group at a time in order of position, as symbols do in rans.h.
 *
 * Every variant does exactly what the scalar one does, on any input. */
#ifndef HCT_TCQ_DECODE_H
#define HCT_TCQ_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "rans.h"
#include "tcq.h"

#define HCT_TCQ_PARITY 0x20 /* bit of a code */

/* The alias tables of one row class, each by 64 q + 32 parity + bucket (freq: symbol). */
struct hct_tcq_class {
	uint8_t pack[256];  /* other symbol | own << 5; a bucket without another has own 0 and is
			     * its own other */
	uint8_t shift[256]; /* of the other symbol's ranks */
	uint8_t freq[256];
} __attribute__((aligned(64)));

/* What the segments of a layer have in common. */
struct hct_tcq_stage {
	const struct hct_tcq_class *classes; /* of rows */
	/* The same for gathers: [row class][q][parity][slot], freq | rank << 8 | symbol << 16 |
	 * what the trellis does << 24: the next state is the upper bits of the state (t >> 1)
	 * xor that, and xor odd when raw bits are there and the lowest one is 1. */
	const uint32_t *wide;
	/* By state and bit, where bit 5 is the state's lowest and bits 1 to 4 the others: the next
	 * state in that form. */
	uint8_t next[64];
	unsigned column_classes, raw_bits, odd;
	unsigned ahead_lines; /* of 64 bytes, that the elements of a group take */
	uint32_t period;      /* C, at least 1 */
	uint32_t step;        /* 64 mod C */
	/* 64 q of each column, period + 64 entries, the last 64 continuing from the first; NULL
	 * when there is one class. */
	const uint8_t *columns;
	void *memory; /* behind the pointers */
};

/* Fills the tables of a layer, whose frequencies have been checked; C is columns, unit the bytes of
 * an element.  -1 without memory.  Freed by hct_tcq_stage_free, which takes a zeroed one, too. */
int hct_tcq_stage_init(struct hct_tcq_stage *t, const struct hct_tcq_layer *l, uint32_t columns,
		       size_t unit);
void hct_tcq_stage_free(struct hct_tcq_stage *t);

/* One segment of a layer while it is decoded.  Of rans, classes is not used. */
struct hct_tcq_segment {
	struct hct_rans_segment rans;
	uint8_t state[HCT_GROUP]; /* of the trellis, by position */
	uint32_t column;          /* of the first element of the next group */
	const uint8_t *raw;       /* of the next group */
	/* Where the elements of the next group are going to be written, or any other readable
	 * memory: a variant may have it fetched meanwhile. */
	const uint8_t *ahead;
};

#define HCT_TCQ_TOGETHER 4  /* segments, at most: they hide each other's latency */
#define HCT_TCQ_BLOCK    64 /* groups, at most */
/* Bytes from the codes of one segment to those of the next. */
#define HCT_TCQ_STRIDE (HCT_TCQ_BLOCK * HCT_GROUP + 64)

/* Decodes the next groups of `count` segments, which all stand at the same group.  Writes 64 codes
 * a group, those of s[i] from codes + i * HCT_TCQ_STRIDE on. */
typedef void hct_tcq_decode(const struct hct_tcq_stage *t, struct hct_tcq_segment *const *s,
			    size_t count, size_t groups, uint8_t *codes);

hct_tcq_decode hct_tcq_decode_scalar, hct_tcq_decode_avx2, hct_tcq_decode_avx512;

/* The variant for an instruction set, never HCT_SIMD_AUTO. */
hct_tcq_decode *hct_tcq_decoder(hct_simd simd);

/* The column at which the group after this one begins. */
static inline uint32_t hct_tcq_next_column(const struct hct_tcq_stage *t, uint32_t column)
{
	uint32_t left = t->period - t->step;

	return column >= left ? column - left : column + t->step;
}

/* The tables of gathers for the next group. */
static inline const uint32_t *hct_tcq_wide(const struct hct_tcq_stage *t,
					   const struct hct_rans_segment *s)
{
	return t->wide + (size_t)s->map[s->group >> s->run_log2] * t->column_classes * 512;
}

#endif
