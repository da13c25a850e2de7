/* How far one array of numbers is from another.  All sums are in double.
 *
 * Squares of F64 values beyond 1e154 leave the range of double; the results below are
 * then on the safe side (infinite error, cosine 0) but never NaN. */
#ifndef HCT_METRICS_H
#define HCT_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Running sums over pairs (a, b); a is the reference.  Zero it to start. */
struct hct_metrics {
	uint64_t count;
	double sum_aa, sum_bb, sum_ab; /* of squares and products */
	double sum_dd;                 /* of (a - b)^2 */
	double max_abs_a;
	double max_abs_error;
	uint64_t nonfinite_differ; /* pairs where NaN or infinity differ in kind, or infinities
				    * in sign; one NaN is like another */
};

/* Adds n pairs.  Pairs that hold the same non-finite value count as equal and
 * enter no sum. */
void hct_metrics_add(struct hct_metrics *m, const double *a, const double *b, size_t n);

/* The same over two arrays of one numeric dtype (hct_dtype_is_numeric). */
void hct_metrics_add_typed(struct hct_metrics *m, hct_dtype dtype_a, const void *a,
			   hct_dtype dtype_b, const void *b, size_t n);

/* Joins the sums of two parts. */
void hct_metrics_merge(struct hct_metrics *m, const struct hct_metrics *part);

/* sum (a-b)^2 / sum a^2; 0 when both are zero, infinity when only the reference is
 * zero or a non-finite value differs. */
double hct_metrics_relative_squared_error(const struct hct_metrics *m);
/* Cosine of the angle between a and b; 1 when both are zero, 0 when one is. */
double hct_metrics_cosine(const struct hct_metrics *m);
/* 10 log10(max|a|^2 / mean (a-b)^2) in dB; infinity when equal, minus infinity when a
 * non-finite value differs. */
double hct_metrics_psnr_db(const struct hct_metrics *m);
/* By the cosine, rounded to three digits: "Excellent" .998 and up, "Good" .993, "Acceptable" .98,
 * "Degraded" .95, "Poor", which it is too when a non-finite value differs. */
const char *hct_metrics_grade(const struct hct_metrics *m);
/* The same for a cosine by itself. */
const char *hct_metrics_grade_of_cosine(double cosine);

#ifdef __cplusplus
}
#endif
#endif
