/* Internal: the tcq codec.  Entropy-coded trellis-coded quantisation: the tables that the
 * chunks of a tensor share, its slots and its trellis (FORMAT.md section 5). */
#ifndef HCT_TCQ_H
#define HCT_TCQ_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "inline.h"
#include "rans.h"
#include "reader.h"

#define HCT_TCQ_SYMBOLS         32 /* of one parity */
#define HCT_TCQ_POINTS          64 /* of both */
#define HCT_TCQ_ZERO            16 /* the symbol of the point nearest to 0 */
#define HCT_TCQ_BUCKET          8  /* slots of a bucket */
#define HCT_TCQ_MAX_STATES      32
#define HCT_TCQ_MAX_TILE_LOG2   6
#define HCT_TCQ_MIN_STATES_LOG2 3
#define HCT_TCQ_MAX_STATES_LOG2 5
#define HCT_TCQ_MIN_STEP        0x1p-100f
#define HCT_TCQ_MAX_STEP        0x1p100f
#define HCT_TCQ_MAX_RAW         7
#define HCT_TCQ_MAX_COLUMNS     4  /* classes of columns */
#define HCT_TCQ_MAX_ROWS        16 /* classes of rows */
#define HCT_TCQ_MAX_LAYERS      4
#define HCT_TCQ_MAX_PERIOD      (1u << 20) /* columns, where these matter */

#define HCT_TCQ_HEAD_BYTES     8
#define HCT_TCQ_LAYER_BYTES    12
#define HCT_TCQ_SEGMENT_BYTES  12
#define HCT_TCQ_STATE_BYTES    (2 * HCT_LANES * 2)
#define HCT_TCQ_EXCEPTION_HEAD 6
#define HCT_TCQ_MAX_MAGNITUDE  9                           /* zeros before the one are fewer */
#define HCT_TCQ_MAX_RICE       15                          /* m */
#define HCT_TCQ_MAX_EXCEPTION  ((1 << 24) - (1 << 15) - 1) /* largest |e| that can be written */

/* The tables of one layer. */
struct hct_tcq_layer {
	unsigned states_log2;    /* 3 to 5 */
	unsigned column_classes; /* Q: 1, 2 or 4 */
	unsigned row_classes;    /* K */
	unsigned run_log2;       /* groups in a run */
	unsigned raw_bits;       /* b */
	float step;
	int8_t offset[HCT_TCQ_POINTS]; /* by 32 parity + symbol; all 0 when b > 0 */
	/* Frequencies by row class, column class, parity. */
	uint8_t freq[HCT_TCQ_MAX_ROWS][HCT_TCQ_MAX_COLUMNS][2][HCT_TCQ_SYMBOLS];
	const uint8_t *column_class; /* packed, w bits for each of C columns; NULL when Q = 1 */
};

/* The tables of a tensor as they lie in PARAMS. */
struct hct_tcq_tables {
	unsigned layer_count;
	unsigned tile_rows_log2, tile_columns_log2;
	unsigned segment_log2;
	uint32_t columns; /* C */
	struct hct_tcq_layer layers[HCT_TCQ_MAX_LAYERS];
};

/* 1 for the dtypes that the codec codes. */
int hct_tcq_has_dtype(hct_dtype dtype);

/* Reads and checks them; column_class points into params.  On error *why says what. */
hct_error hct_tcq_tables_unpack(const uint8_t *params, size_t length, struct hct_tcq_tables *t,
				const char **why);
size_t hct_tcq_tables_length(const struct hct_tcq_tables *t);
void hct_tcq_tables_pack(const struct hct_tcq_tables *t, uint8_t *out);

/* Bits of a column class in its table: 0, 1, 2 for Q = 1, 2, 4. */
static inline unsigned hct_tcq_column_bits(unsigned column_classes)
{
	return column_classes / 2;
}

/* The class of a column; packed may be NULL when Q is 1. */
static inline unsigned hct_tcq_column_class(const struct hct_tcq_layer *l, uint32_t column)
{
	unsigned w = hct_tcq_column_bits(l->column_classes);
	uint64_t bit = (uint64_t)column * w;

	return w ? l->column_class[bit / 8] >> bit % 8 & ((1u << w) - 1) : 0;
}

/* Bytes of the class map of a segment of g groups. */
size_t hct_tcq_map_bytes(const struct hct_tcq_layer *l, size_t groups);

/* Spreads a class map to one byte a run; -1 when it names a class that there is not. */
int hct_tcq_map_unpack(const struct hct_tcq_layer *l, const uint8_t *bits, size_t groups,
		       uint8_t *map);

/* The slots of one table of 32 frequencies, which must sum to 256: bucket i holds symbol i in its
 * first own[i] slots, and in the others symbol other[i], whose ranks there are its position in
 * the bucket plus shift[i] (mod 256). */
struct hct_alias {
	uint8_t own[HCT_TCQ_SYMBOLS]; /* 0 to 8 */
	uint8_t other[HCT_TCQ_SYMBOLS];
	uint8_t shift[HCT_TCQ_SYMBOLS];
};

/* Returns -1 when the frequencies do not sum to 256. */
int hct_alias_init(struct hct_alias *a, const uint8_t freq[HCT_TCQ_SYMBOLS]);

/* next[t][z] of the trellis of 2^log2 states. */
void hct_trellis_init(unsigned log2, uint8_t next[HCT_TCQ_MAX_STATES][2]);

/* The value of a point: n and step as FORMAT.md has them. */
static inline float hct_tcq_value(float step, int32_t n)
{
	return (float)n * (step * 0x1p-6f);
}

/* The value where there are raw bits, b of them: n is 64 (2 (c - 16 2^b) + parity) there, and so
 * many steps of 1/64 are n/64 steps; both factors are those of the formula times a power of two. */
HCT_INLINE float hct_tcq_raw_value(float step, unsigned b, unsigned parity, unsigned symbol,
				   unsigned raw)
{
	int c = (int)(symbol << b | raw);

	return (float)(2 * (c - (HCT_TCQ_ZERO << b)) + (int)parity) * step;
}

#endif
