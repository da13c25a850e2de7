/* Internal: singular value decompositions, for the encoder, by LAPACK and BLAS of OpenBLAS.
 *
 * The randomised one (N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with randomness:
 * probabilistic algorithms for constructing approximate matrix decompositions", SIAM Review 53,
 * 2011) takes 10 more random directions than singular values are wanted and 2 power iterations,
 * each made orthonormal.  Its directions come from a fixed seed.
 *
 * OpenBLAS starts as many threads as there are cores when it is loaded, and they sleep.  Every
 * function here sets the whole process's OpenBLAS to one thread: who encodes has threads of their
 * own, and then the result does not depend on how many.  It does depend on the CPU, because
 * OpenBLAS has code for each kind, and on its version.
 *
 * Any number of threads at a time. */
#ifndef HCT_SVD_H
#define HCT_SVD_H

#include <stddef.h>
#include <stdint.h>

#include "dtype.h"
#include "error.h"

/* A is about U diag(s) V. */
struct hct_svd {
	size_t rows, columns, rank;
	float *u; /* column k, of `rows` numbers, begins at k * rows; orthonormal; or NULL */
	float *s; /* rank of them, falling */
	float *v; /* row k, of `columns` numbers, begins at k * columns; orthonormal */
};

/* A matrix of row-major elements, which are finite. */
struct hct_matrix {
	hct_dtype dtype;
	const uint8_t *data;
	size_t rows, columns;
	int (*watch)(void *arg, uint64_t done); /* as for hct_encoder_watch, or NULL */
	void *watch_arg;
};

/* The largest singular values and vectors: as many as rank, or rows or columns if there are fewer.
 * u is left out where left is 0.  Memory, in floats, with w = rank + 10: the larger of
 * (rows + columns) w and 2 columns w + 6 w^2, without u, and a MiB or a row of them; 6 passes over
 * the matrix.  Errors: HCT_ERR_NOMEM; HCT_ERR_LIMIT when LAPACK does not converge, or for more than
 * 2^30 rows or columns; HCT_ERR_INTERRUPTED from the watch. */
hct_error hct_svd_create(const struct hct_matrix *a, size_t rank, int left, struct hct_svd *out);
void hct_svd_free(struct hct_svd *s);

/* The Gram matrix of a row-major matrix, of its rows or columns, whichever are fewer: n x n
 * numbers, of which those at i * n + j with j >= i are set.  Returns n. */
size_t hct_svd_gram(const float *a, size_t rows, size_t columns, float *gram);

/* Eigenvalues of such a matrix, which is overwritten: the squared singular values of the other one,
 * falling; those that are small beside the first are inexact.  Errors as above. */
hct_error hct_svd_squares(float *gram, size_t n, float *squares);

/* The columns x rank matrix P, whose column k begins at k * columns, for which A P V is the
 * projection of A's rows on those of V, rank x columns, row-major: P = V' inv(V V').  A row of
 * zeros gets a column of zeros.  gram: V V', rank x rank.  Errors as above. */
hct_error hct_svd_projector(const float *v, size_t rank, size_t columns, float *p, float *gram);

/* out = A P for `rows` rows of A: rows x rank, row-major. */
void hct_svd_project(const float *a, size_t rows, size_t columns, const float *p, size_t rank,
		     float *out);

#endif
