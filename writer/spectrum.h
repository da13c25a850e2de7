/* How the energy of a tensor is spread over its coefficients, and what --policy adaptive
 * makes of it.
 *
 * The largest fraction r of coefficients that holds the fraction Q of all energy is the
 * tensor's retention.  Coefficients are those of whatever transform the caller looks at
 * (the tile DCT, or none); they come in any order and in pieces.  A histogram over their
 * size keeps memory fixed: 2^14 classes whose ends are 1.6% apart, within which
 * coefficients count as equal, so that r is within some 1e-3 of what sorting them all
 * gives.  Sums are in double; the result depends on the pieces' order by rounding alone. */
#ifndef MKHCT_SPECTRUM_H
#define MKHCT_SPECTRUM_H

#include <stddef.h>
#include <stdint.h>

#include "codec/dct.h"
#include "codec/safetensors.h"
#include "writer/target.h"

#define MKHCT_SPECTRUM_CLASSES (1u << 14)

/* 256 KiB: not for the stack.  All zero is empty. */
struct mkhct_spectrum {
	uint64_t count[MKHCT_SPECTRUM_CLASSES];
	double energy[MKHCT_SPECTRUM_CLASSES];
};

/* Takes n coefficients in.  They must be finite. */
void mkhct_spectrum_add(struct mkhct_spectrum *s, const float *coefficients, size_t n);

/* Elements of a tensor that are looked at, about: all of them, or as many spread over it. */
#define MKHCT_SPECTRUM_SAMPLE (1u << 22)

/* Takes in the coefficients of a tensor of a floating-point dtype of 8 bits or more whose
 * bytes lie at data: those of the two-dimensional DCT in tiles.  Rows are those of the last
 * dimension; each side of a tile is the largest of 64, 32, 16 and 8 that divides the number of
 * rows or columns, and 1, so no transform along that axis, where none does.  Numbers
 * that are not finite in F32 count as 0.  Errors: HCT_ERR_NOMEM. */
hct_error mkhct_spectrum_measure(const hct_dct *dct, const struct hct_tensor *t,
				 const uint8_t *data, struct mkhct_spectrum *s);

/* Takes in what another one (of another thread) has. */
void mkhct_spectrum_merge(struct mkhct_spectrum *s, const struct mkhct_spectrum *other);

/* The fraction of largest coefficients that holds the fraction quality, in (0,1), of all
 * energy; in (0,1], and 1 when there is no energy. */
double mkhct_spectrum_retention(const struct mkhct_spectrum *s, double quality);

/* The target of a tensor whose target is ADAPTIVE: retention is the one above, for coders
 * that keep coefficients.  error, for the quantiser, is the smaller of D(retention) and
 * 1 - quality: where energy lies in few coefficients, D(retention) alone would miss the
 * quality. */
struct mkhct_target mkhct_spectrum_target(const struct mkhct_spectrum *s, double quality);

/* The same, of a retention that is known. */
struct mkhct_target mkhct_spectrum_target_of(double retention, double quality);

#endif
