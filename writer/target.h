/* What is wanted of one tensor, and the measures of quality that say it.
 *
 * The measure underneath is the relative squared error
 *	D = sum (a - b)^2 / sum a^2		(a: source, b: decoded)
 * in (0,1).  The others are functions of it:
 *
 *	retention r	D(r) = 1 - r - 2 t phi(t), where 2 (1 - Phi(t)) = r.  A definition, so
 *			exact: the error that keeping the fraction r of largest coefficients
 *			of white Gaussian data leaves.  r = 1 is D = 0.
 *	SNR in dB	D = 10^(-dB/10).  Exact: the definition of the ratio.
 *	cosine C	D = 1 - C^2.  Exact when every decoded value is the mean of the source
 *			values that it stands for (sum b (a - b) = 0), as the points of a
 *			fitted quantiser are; and whatever the decoder, no smaller cosine
 *			than C comes with that D (the best scale factor for b would give
 *			D' = 1 - C'^2, and D' <= D).
 *
 * Pure functions, from any thread. */
#ifndef MKHCT_TARGET_H
#define MKHCT_TARGET_H

enum mkhct_target_kind {
	MKHCT_TARGET_LOSSLESS, /* every bit */
	MKHCT_TARGET_ERROR,    /* .error is D */
	/* D follows from the tensor's spectrum: spectrum.h, with .quality; .error is the D of
	 * white Gaussian data, 1 - quality, for predictions before anything is measured */
	MKHCT_TARGET_ADAPTIVE,
	MKHCT_TARGET_BUDGET, /* D follows from the slope that all such tensors share */
};

struct mkhct_target {
	enum mkhct_target_kind kind;
	double error;     /* ERROR, ADAPTIVE: within MKHCT_ERROR_MIN and MKHCT_ERROR_MAX */
	double retention; /* ERROR: the r of that D, for coders that keep coefficients; else 1 */
	double quality;   /* ADAPTIVE: the fraction of energy to keep, in (0,1) */
};

/* Nothing below is told apart by F32, and nothing above is worth a name. */
#define MKHCT_ERROR_MIN 1e-15
#define MKHCT_ERROR_MAX .999999

/* D(r) for r in (0,1]; 0 for r >= 1, 1 for r <= 0.  Relative error below 1e-9. */
double mkhct_error_of_retention(double retention);

/* The r with D(r) = error, for an error in (0,1); 1 for error <= 0, 0 for error >= 1. */
double mkhct_retention_of_error(double error);

double mkhct_error_of_cosine(double cosine);
double mkhct_error_of_snr(double decibels);

/* Targets.  A retention of 1 or more, and an error of 0, are lossless. */
struct mkhct_target mkhct_target_lossless(void);
struct mkhct_target mkhct_target_error(double error);
struct mkhct_target mkhct_target_retention(double retention);
struct mkhct_target mkhct_target_adaptive(double quality);
struct mkhct_target mkhct_target_budget(void);

#endif
