/* Internal: elements of floating-point dtypes as float32, for the encoder's work. */
#ifndef HCT_WIDEN_H
#define HCT_WIDEN_H

#include <stddef.h>
#include <stdint.h>

#include "dtype.h"

/* What a tensor holds, as far as a lossy coder has to know. */
struct hct_census {
	double energy; /* sum of squares */
	double peak;   /* largest magnitude */
	/* Sum of the squared errors that rounding numbers like these to the dtype makes, expected:
	 * a twelfth of the squared distance between neighbours each. */
	double rounding;
	int finite; /* no NaN and no infinity, nor anything that float32 makes one of */
};

/* Converts n elements at src (any alignment), exactly but for F64, which is rounded to nearest. */
void hct_widen(hct_dtype dtype, const uint8_t *src, size_t n, float *dst);

/* The relative squared error that rounding to a dtype adds, about; 0 for those that hold
 * float32. */
double hct_rounding_error(hct_dtype dtype);

/* Looks at n more elements.  Zero it, with finite = 1, to start. */
void hct_census_add(struct hct_census *c, hct_dtype dtype, const uint8_t *src, size_t n);

/* Sums over pairs, for the error of a decoded array; b is the decoded one. */
struct hct_distance {
	double aa, bb, dd; /* of a^2, b^2, (a - b)^2 */
};

void hct_distance_add(struct hct_distance *d, hct_dtype dtype, const uint8_t *a, const uint8_t *b,
		      size_t n);

#endif
