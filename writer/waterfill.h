/* Dealing out bytes over tensors so that each byte gains the same everywhere.
 *
 * Minimised is the sum over tensors of weights times relative squared error D, at a given sum of
 * bytes.  Where the rate of a tensor is R(D) = a - s ln D bits a weight, that is the case when D
 * is proportional to s ("reverse water-filling"); a and s come from measurements near the D that
 * is sought.  Where a tensor takes no less than without loss, or cannot be coded with so small an
 * error, it is lossless, and bytes that are left then make further tensors lossless, those first
 * that gain most for a byte.  Pure functions. */
#ifndef MKHCT_WATERFILL_H
#define MKHCT_WATERFILL_H

#include <stddef.h>

#define MKHCT_FILL_LEAST .0000000001 /* errors that are given out: */
#define MKHCT_FILL_MOST  .5
#define MKHCT_FILL_SLOPE .7213475204 /* 1 / (2 ln 2): bits for a factor e in D at high rates */

struct mkhct_fill {
	double weights;
	double lossless; /* bytes without loss */
	/* A measurement: bytes at an error; an error of 0 means none, and that it can only be
	 * lossless. */
	double measured_error, measured_bytes;
	double slope;   /* s, bits a weight, above 0 */
	double refused; /* with this error and smaller ones it comes out lossless; 0 when unknown */
	double error;   /* the result; 0 is lossless */
};

/* What the item takes with its error, in bytes, by the line through its measurement. */
double mkhct_fill_bytes(const struct mkhct_fill *f);

/* Sets the errors of count items so that all of them take `bytes`, or less, when that cannot be
 * had exactly; more only when even MKHCT_FILL_MOST everywhere takes more.  Returns the bytes. */
double mkhct_waterfill(struct mkhct_fill *items, size_t count, double bytes);

#endif
