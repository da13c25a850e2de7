/* Internal: the rank that a matrix is best approximated with, at an error, where its factors are
 * going to be coded. */
#ifndef HCT_RANK_H
#define HCT_RANK_H

#include "svd.h"

/* A matrix of row-major elements and what is wanted of it. */
struct hct_matrix_goal {
	hct_dtype dtype;
	const uint8_t *data;
	size_t rows, columns;
	double energy; /* sum of squares */
	double error;  /* sum of squared errors that may be left */
	double rival;  /* bits of the whole matrix with other coders */
};

/* A look at a small sample, evenly spaced: *promising is 1 when it promises that low rank pays.  A
 * rank beyond half of the sample's cannot be told from noise.  error is relative; energy and error
 * of p are not used.  Errors: HCT_ERR_NOMEM, HCT_ERR_LIMIT. */
hct_error hct_rank_look(const struct hct_matrix_goal *p, double error, int *promising);

/* Decomposes the matrix as far as it takes; svd is the caller's to free.  *rank, at most its, is 0
 * when low rank does not pay, or would take more than 256 MiB.  Errors as above. */
hct_error hct_rank_find(const struct hct_matrix_goal *p, struct hct_svd *svd, size_t *rank);

#endif
