/* How far one array of numbers is from another.  All sums are in double, of numbers that are
 * scaled by a power of two where their squares would leave its range: the figures below hold for
 * all that F64 can say, and are never NaN. */
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
	int level; /* the sums are of numbers times 2^(-600 level): -1, 0 or 1 */
	double sum_aa, sum_bb, sum_ab; /* of squares and products */
	double sum_dd;                 /* of (a - b)^2 */
	double max_abs_a;
	double max_abs_error;      /* infinity where double does not hold it */
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

/* sum (a-b)^2 / sum a^2; 0 only for what is equal, infinity when the reference is zero and the
 * other is not, when double does not hold it, or when a non-finite value differs. */
double hct_metrics_relative_squared_error(const struct hct_metrics *m);
/* Cosine of the angle between a and b; 1 when both are zero, 0 when one is, or would be next to
 * the other (below 2^-500 of it). */
double hct_metrics_cosine(const struct hct_metrics *m);
/* 10 log10(max|a|^2 / mean (a-b)^2) in dB; infinity when equal, minus infinity when a
 * non-finite value differs. */
double hct_metrics_psnr_db(const struct hct_metrics *m);
/* By the cosine, rounded to three digits: "Excellent" .998 and up, "Good" .993, "Acceptable" .98,
 * "Degraded" .95, "Poor", which it is too when a non-finite value differs. */
const char *hct_metrics_grade(const struct hct_metrics *m);
/* The same for a cosine by itself. */
const char *hct_metrics_grade_of_cosine(double cosine);

#define HCT_COSINE_TEXT 24

/* The cosine of what differs, with at least this many digits behind the point, and two of what it
 * lacks to 1: "0.99270", "0.9999977".  It lacks something, if only 1e-12.  Returns buf. */
char *hct_metrics_cosine_text(double cosine, int digits, char buf[HCT_COSINE_TEXT]);

#ifdef __cplusplus
}
#endif
#endif
