/* Internal: the tables of the split codec as its encoder wants them. */
#ifndef HCT_SPLIT_PLAN_H
#define HCT_SPLIT_PLAN_H

#include <string.h>

#include "split.h"

#define HCT_MAX_EXPONENTS 2048 /* 2^E of F64 */
#define HCT_MAX_JOINT     4    /* 2^J */

/* Symbols that an element is cut into: 0 to 63, or this and the joint bits when its
 * exponent is not among the tensor's. */
#define HCT_ESCAPE      64
#define HCT_CUT_SYMBOLS (HCT_ESCAPE + HCT_MAX_JOINT)

struct hct_split_plan {
	struct hct_split_tables t;
	int8_t *shifts;    /* t.shifts */
	uint16_t *columns; /* shift mod 2^E of each column; period + 64 entries, going on from
			    * the first */
	uint32_t period;   /* at least 1 */
	uint32_t step;     /* 64 mod period */
	uint8_t slot_of[HCT_MAX_EXPONENTS]; /* index in t.exponents, or 255 */
	uint8_t rare_of[HCT_MAX_EXPONENTS]; /* index in t.rare, or HCT_RARE_OTHER */
	struct hct_rans_coder coder[HCT_MAX_CLASSES];
	int16_t cost[HCT_MAX_CLASSES][HCT_CUT_SYMBOLS]; /* of a cut symbol in a class, 1/256 bit */
	int exception_cost; /* cost of those that have to be exceptions; others are below */
	uint8_t stand_in[HCT_MAX_CLASSES][HCT_MAX_JOINT]; /* symbol that an exception uses */
};

/* Chooses frequencies that sum to 256 and make the counts cheapest; a symbol may get 0 and
 * its elements become exceptions.  Each value of the joint bits keeps a symbol. */
void hct_split_normalise(const double counts[HCT_SYMBOLS], unsigned joint_bits,
			 uint8_t freq[HCT_SYMBOLS]);

/* Fills the tables that follow from t.freq. */
void hct_split_plan_derive(struct hct_split_plan *p);

/* The class in which a run costs least, from counts of its cut symbols, at most 32767 in
 * all. */
unsigned hct_split_choose_class(const struct hct_split_plan *p,
				const int16_t counts[HCT_CUT_SYMBOLS]);

#endif
