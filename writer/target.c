#include "target.h"

#include <math.h>

#define STEPS 1100 /* enough for all doubles; most end after some 60 */

/* 2 (1 - Phi(t)) = erfc(t / sqrt 2) falls below the smallest double before that. */
#define LAST_T 39.0

/* 1 - r - 2 t phi(t) for the t of r.  Near 0 both halves are t times the same number, and
 * the series of their difference takes over. */
static double error_at(double t)
{
	double t2 = t * t;

	if (t < .05)
		return sqrt(2 / M_PI) * t * t2 *
		       (1. / 3 - t2 * (1. / 10 - t2 * (1. / 56 - t2 / 432)));
	return erf(t * M_SQRT1_2) - t * sqrt(2 / M_PI) * exp(-t2 / 2);
}

/* Below t of 1, 1 - r keeps the digits that r near 1 would lose. */
static double retention_at(double t)
{
	return erfc(t * M_SQRT1_2);
}

static double lost_at(double t)
{
	return erf(t * M_SQRT1_2);
}

/* The t in [0, LAST_T] where f, which grows (sign 1) or falls (sign -1), is y. */
static double solve(double (*f)(double), double y, int sign)
{
	double low = 0, high = LAST_T;

	for (int i = 0; i < STEPS; i++) {
		double t = (low + high) / 2;

		if (t == low || t == high)
			break;
		if ((f(t) - y) * sign < 0)
			low = t;
		else
			high = t;
	}
	return (low + high) / 2;
}

double mkhct_error_of_retention(double retention)
{
	if (!(retention > 0))
		return 1;
	if (retention >= 1)
		return 0;
	if (retention > .5)
		return error_at(solve(lost_at, 1 - retention, 1));
	return error_at(solve(retention_at, retention, -1));
}

double mkhct_retention_of_error(double error)
{
	if (!(error > 0))
		return 1;
	if (error >= 1)
		return 0;
	return retention_at(solve(error_at, error, 1));
}

double mkhct_error_of_cosine(double cosine)
{
	return (1 - cosine) * (1 + cosine);
}

double mkhct_error_of_snr(double decibels)
{
	return pow(10, -decibels / 10);
}

struct mkhct_target mkhct_target_lossless(void)
{
	return (struct mkhct_target){.kind = MKHCT_TARGET_LOSSLESS, .retention = 1};
}

struct mkhct_target mkhct_target_budget(void)
{
	return (struct mkhct_target){.kind = MKHCT_TARGET_BUDGET, .retention = 1};
}

struct mkhct_target mkhct_target_error(double error)
{
	if (!(error > 0))
		return mkhct_target_lossless();
	error = fmin(fmax(error, MKHCT_ERROR_MIN), MKHCT_ERROR_MAX);
	return (struct mkhct_target){.kind = MKHCT_TARGET_ERROR,
				     .error = error,
				     .retention = mkhct_retention_of_error(error)};
}

struct mkhct_target mkhct_target_retention(double retention)
{
	struct mkhct_target t = mkhct_target_error(mkhct_error_of_retention(retention));

	/* As it was asked for, and not as it comes back from D. */
	if (t.kind == MKHCT_TARGET_ERROR)
		t.retention = retention;
	return t;
}

struct mkhct_target mkhct_target_adaptive(double quality)
{
	return (struct mkhct_target){.kind = MKHCT_TARGET_ADAPTIVE,
				     .error = mkhct_target_error(1 - quality).error,
				     .retention = 1,
				     .quality = quality};
}
