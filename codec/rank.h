/* Internal: the rank that a matrix is best approximated with, at an error, where its factors are
 * going to be coded. */
#ifndef HCT_RANK_H
#define HCT_RANK_H

#include "svd.h"

/* A matrix and what is wanted of it. */
struct hct_matrix_goal {
	struct hct_matrix a;
	double energy; /* sum of squares */
	double error;  /* sum of squared errors that may be left */
	double rival;  /* bits of the whole matrix with other coders */
};

/* A look at a small sample, evenly spaced: *promising is 1 when it promises that low rank pays.  A
 * rank beyond half of the sample's cannot be told from noise.  error is relative; energy and error
 * of p are not used.  Errors: HCT_ERR_NOMEM, HCT_ERR_LIMIT. */
hct_error hct_rank_look(const struct hct_matrix_goal *p, double error, int *promising);

/* Decomposes the matrix as far as it takes; svd, which has no u, is the caller's to free.  *rank,
 * at most its, is 0 when low rank does not pay.  Ranks that would take more than some 48 MiB, here
 * or where factors are coded, are not tried; *bounded is 1 when a larger one might have paid.
 * Errors as above, and HCT_ERR_INTERRUPTED. */
hct_error hct_rank_find(const struct hct_matrix_goal *p, struct hct_svd *svd, size_t *rank,
			int *bounded);

#endif
