/* Internal: the split codec.  How floating-point elements are cut into symbol, field
 * and tail, and the tables that the chunks of a tensor share (FORMAT.md section 4). */
#ifndef HCT_SPLIT_H
#define HCT_SPLIT_H

#include <stddef.h>
#include <stdint.h>

#include "classmap.h"
#include "codec.h"
#include "plan.h"
#include "rans.h"

/* How the bits of an element are dealt out. */
struct hct_layout {
	unsigned unit;          /* bytes of an element */
	unsigned tail;          /* bytes of its tail */
	unsigned exponent_bits; /* E */
	unsigned mantissa_bits; /* M, of the head */
	unsigned joint_bits;    /* J */
	unsigned field_bits;    /* P = 1 + M - J */
};

/* NULL for dtypes that are not split. */
const struct hct_layout *hct_layout_find(hct_dtype dtype);

#define HCT_RARE       15 /* entries of the table of rare exponents */
#define HCT_RARE_OTHER 15 /* index that says: a value of its own */

/* Codes of exceptions. */
#define HCT_EXCEPTION_HEAD 5 /* count, Rice parameter */
#define HCT_MAX_RICE       15
#define HCT_MAX_QUOTIENT   24 /* zeros that say: the gap as it is */
#define HCT_GAP_BITS       17

#define HCT_MIN_SEGMENT_LOG2 10
#define HCT_MAX_SEGMENT_LOG2 17
#define HCT_MAX_RUN_LOG2     10
#define HCT_MAX_PERIOD       (1u << 20)

/* Bytes of the parts of a payload. */
#define HCT_SPLIT_HEAD_BYTES    8
#define HCT_SPLIT_SEGMENT_BYTES 12
#define HCT_SPLIT_STATE_BYTES   (2 * HCT_LANES * 2)

enum { HCT_TAIL_STORED = 0, HCT_TAIL_ZSTD = 1 };

/* The tables as they lie in PARAMS. */
struct hct_split_tables {
	const struct hct_layout *layout;
	unsigned class_count, run_log2, segment_log2;
	uint32_t period;
	uint16_t exponents[HCT_SYMBOLS]; /* by symbol >> J */
	uint16_t rare[HCT_RARE];
	uint8_t freq[HCT_MAX_CLASSES][HCT_SYMBOLS];
	const int8_t *shifts; /* period of them */
};

/* Reads and checks them; shifts point into params.  On error *why says what. */
hct_error hct_split_tables_unpack(const struct hct_layout *layout, const uint8_t *params,
				  size_t length, struct hct_split_tables *t, const char **why);
size_t hct_split_tables_length(const struct hct_split_tables *t);
void hct_split_tables_pack(const struct hct_split_tables *t, uint8_t *out);

/* Looks at a sample of n elements at data (all of the tensor, of which a part is read)
 * and decides on tables.  The watch of e hears where it is.  NULL without memory. */
struct hct_split_plan *hct_split_plan_create(const struct hct_encoder *e,
					     const struct hct_tensor *tensor,
					     const struct hct_layout *layout, const uint8_t *data);
void hct_split_plan_free(struct hct_split_plan *p);
/* Bytes that it holds, about. */
size_t hct_split_plan_memory(const struct hct_split_plan *p);
const struct hct_split_tables *hct_split_plan_tables(const struct hct_split_plan *p);

/* Codes n elements at data, the first of which is element `first` of the tensor, into the
 * encoder's payload buffer.  Returns the payload's length, or 0 when it would not be below
 * limit or there is no memory. */
size_t hct_split_encode(struct hct_encoder *e, const struct hct_split_plan *p, const uint8_t *data,
			size_t n, uint64_t first, size_t limit);

#endif
