#include "svd.h"

#include <stdlib.h>
#include <string.h>

#include "widen.h"

#define OVERSAMPLING     10
#define POWER_ITERATIONS 2
#define BLOCK_ELEMENTS   ((size_t)1 << 20)
#define MAX_SIDE         ((size_t)1 << 30)
/* Relative, added to the diagonal of a Gram matrix. */
#define RIDGE 1e-6f

/* The Fortran interfaces; behind the arguments are the lengths of the strings. */
extern void openblas_set_num_threads(int n);
extern void sgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k,
		   const float *alpha, const float *a, const int *lda, const float *b,
		   const int *ldb, const float *beta, float *c, const int *ldc, size_t, size_t);
extern void ssyrk_(const char *uplo, const char *trans, const int *n, const int *k,
		   const float *alpha, const float *a, const int *lda, const float *beta, float *c,
		   const int *ldc, size_t, size_t);
extern void strsm_(const char *side, const char *uplo, const char *transa, const char *diag,
		   const int *m, const int *n, const float *alpha, const float *a, const int *lda,
		   float *b, const int *ldb, size_t, size_t, size_t, size_t);
extern void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info, size_t);
extern void ssyev_(const char *jobz, const char *uplo, const int *n, float *a, const int *lda,
		   float *w, float *work, const int *lwork, int *info, size_t, size_t);
extern void sgeqrf_(const int *m, const int *n, float *a, const int *lda, float *tau, float *work,
		    const int *lwork, int *info);
extern void sorgqr_(const int *m, const int *n, const int *k, float *a, const int *lda,
		    const float *tau, float *work, const int *lwork, int *info);
extern void sgesdd_(const char *jobz, const int *m, const int *n, float *a, const int *lda,
		    float *s, float *u, const int *ldu, float *vt, const int *ldvt, float *work,
		    const int *lwork, int *iwork, int *info, size_t);

static float *floats(size_t n)
{
	return n > SIZE_MAX / 8 ? NULL : aligned_alloc(64, (n * sizeof(float) + 63) & ~(size_t)63);
}

/* c = a b or with a or b transposed, all column-major; beta 1 adds to c. */
static void multiply(char ta, char tb, size_t m, size_t n, size_t k, const float *a, size_t lda,
		     const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
	const int im = (int)m, in = (int)n, ik = (int)k, ia = (int)lda, ib = (int)ldb,
		  ic = (int)ldc;
	const float one = 1;

	sgemm_(&ta, &tb, &im, &in, &ik, &one, a, &ia, b, &ib, &beta, c, &ic, 1, 1);
}

/* Room that LAPACK asks for. */
static float *work_of(float wish, int *length)
{
	*length = (int)wish + 1;
	return floats((size_t)*length);
}

/* Makes the n columns of a, m x n with m >= n, orthonormal. */
static hct_error orthonormalise(float *a, size_t m, size_t n)
{
	const int im = (int)m, in = (int)n;
	int info = 0, length = -1, again = -1;
	float wish = 0, more = 0, *work, *tau = floats(n);
	hct_error e = HCT_ERR_NOMEM;

	sgeqrf_(&im, &in, a, &im, tau, &wish, &length, &info);
	sorgqr_(&im, &in, &in, a, &im, tau, &more, &again, &info);
	work = work_of(wish > more ? wish : more, &length);
	if (tau && work) {
		sgeqrf_(&im, &in, a, &im, tau, work, &length, &info);
		if (!info)
			sorgqr_(&im, &in, &in, a, &im, tau, work, &length, &info);
		e = info ? HCT_ERR_LIMIT : HCT_OK;
	}
	free(work);
	free(tau);
	return e;
}

/* A matrix and what the iteration makes of it. */
struct sketch {
	const struct hct_matrix *a;
	size_t rows, columns, width; /* of q and z */
	size_t block_rows;
	float *block; /* some rows */
	float *q;     /* rows x width */
	float *z;     /* columns x width */
};

/* q = A z, or z = A' q when back is 1. */
static hct_error apply(struct sketch *s, int back)
{
	const struct hct_matrix *a = s->a;
	size_t pitch = s->columns * hct_dtype_unit(a->dtype), n;

	for (size_t r = 0; r < s->rows; r += n) {
		n = s->rows - r < s->block_rows ? s->rows - r : s->block_rows;
		hct_widen(a->dtype, a->data + r * pitch, n * s->columns, s->block);
		/* row-major rows are columns here */
		if (back)
			multiply('N', 'N', s->columns, s->width, n, s->block, s->columns, s->q + r,
				 s->rows, r ? 1 : 0, s->z, s->columns);
		else
			multiply('T', 'N', n, s->width, s->columns, s->block, s->columns, s->z,
				 s->columns, 0, s->q + r, s->rows);
		if (a->watch && a->watch(a->watch_arg, (uint64_t)(r + n) * pitch))
			return HCT_ERR_INTERRUPTED;
	}
	return HCT_OK;
}

/* The same, made orthonormal. */
static hct_error step(struct sketch *s, int back)
{
	hct_error e = apply(s, back);

	if (e)
		return e;
	return back ? orthonormalise(s->z, s->columns, s->width)
		    : orthonormalise(s->q, s->rows, s->width);
}

/* Numbers that are about Gaussian: sums of four. */
static void fill_random(float *x, size_t n)
{
	uint64_t state = UINT64_C(0x9e3779b97f4a7c15);

	for (size_t i = 0; i < n; i++) {
		uint64_t v;

		state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
		v = state;
		v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
		v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
		v ^= v >> 31;
		x[i] = (float)((int64_t)(v & 65535) + (int64_t)(v >> 16 & 65535) +
			       (int64_t)(v >> 32 & 65535) + (int64_t)(v >> 48) - 131070);
	}
}

/* From the basis q of A's columns to singular values and vectors: z = A' q is decomposed. */
static hct_error decompose(struct sketch *s, int left, struct hct_svd *out)
{
	const int m = (int)s->columns, n = (int)s->width;
	float wish = 0, *turn = floats(s->width * s->width), *work = NULL;
	int *iwork = calloc(8 * s->width, sizeof *iwork), length = -1, info = 0;
	hct_error e = HCT_ERR_NOMEM;

	if (!left) { /* memory that is wanted below */
		free(s->q);
		s->q = NULL;
	}
	out->s = floats(s->width);
	out->v = floats(s->columns * s->width);
	out->u = left ? floats(s->rows * s->width) : NULL;
	if (!turn || !iwork || !out->s || !out->v || (left && !out->u))
		goto out;
	sgesdd_("S", &m, &n, s->z, &m, out->s, out->v, &m, turn, &n, &wish, &length, iwork, &info,
		1);
	work = work_of(wish, &length);
	if (!work)
		goto out;
	sgesdd_("S", &m, &n, s->z, &m, out->s, out->v, &m, turn, &n, work, &length, iwork, &info,
		1);
	e = info ? HCT_ERR_LIMIT : HCT_OK;
	if (!e && left)
		multiply('N', 'T', s->rows, s->width, s->width, s->q, s->rows, turn, s->width, 0,
			 out->u, s->rows);
out:
	free(work);
	free(turn);
	free(iwork);
	return e;
}

hct_error hct_svd_create(const struct hct_matrix *a, size_t rank, int left, struct hct_svd *out)
{
	size_t rows = a->rows, columns = a->columns, least = rows < columns ? rows : columns;
	struct sketch s = {.a = a, .rows = rows, .columns = columns};
	hct_error e = HCT_ERR_NOMEM;

	*out = (struct hct_svd){.rows = rows, .columns = columns};
	if (!least || !rank || rows > MAX_SIDE || columns > MAX_SIDE)
		return HCT_ERR_LIMIT;
	out->rank = rank < least ? rank : least;
	s.width = out->rank + OVERSAMPLING < least ? out->rank + OVERSAMPLING : least;
	s.block_rows = columns < BLOCK_ELEMENTS ? BLOCK_ELEMENTS / columns : 1;
	s.block_rows = s.block_rows < rows ? s.block_rows : rows;
	s.block = floats(s.block_rows * columns);
	s.q = floats(rows * s.width);
	s.z = floats(columns * s.width);
	if (s.block && s.q && s.z) {
		openblas_set_num_threads(1);
		fill_random(s.z, columns * s.width);
		e = step(&s, 0);
	}
	for (unsigned i = 0; i < POWER_ITERATIONS && !e; i++) {
		e = step(&s, 1);
		if (!e)
			e = step(&s, 0);
	}
	if (!e)
		e = apply(&s, 1);
	if (!e)
		e = decompose(&s, left, out);
	free(s.block);
	free(s.q);
	free(s.z);
	if (e)
		hct_svd_free(out);
	return e;
}

void hct_svd_free(struct hct_svd *s)
{
	free(s->u);
	free(s->s);
	free(s->v);
	*s = (struct hct_svd){.rows = 0};
}

size_t hct_svd_gram(const float *a, size_t rows, size_t columns, float *gram)
{
	size_t least = rows < columns ? rows : columns;
	const int n = (int)least, k = (int)(rows < columns ? columns : rows), lda = (int)columns;
	const float one = 1, zero = 0;

	openblas_set_num_threads(1);
	ssyrk_("L", rows < columns ? "T" : "N", &n, &k, &one, a, &lda, &zero, gram, &n, 1, 1);
	return least;
}

hct_error hct_svd_squares(float *gram, size_t n, float *squares)
{
	const int in = (int)n;
	float wish = 0, *work;
	int length = -1, info = 0;

	openblas_set_num_threads(1);
	ssyev_("N", "L", &in, gram, &in, squares, &wish, &length, &info, 1, 1);
	work = work_of(wish, &length);
	if (!work)
		return HCT_ERR_NOMEM;
	ssyev_("N", "L", &in, gram, &in, squares, work, &length, &info, 1, 1);
	free(work);
	for (size_t i = 0; i < n / 2; i++) { /* they rise */
		float v = squares[i];

		squares[i] = squares[n - 1 - i];
		squares[n - 1 - i] = v;
	}
	for (size_t i = 0; i < n; i++)
		squares[i] = squares[i] > 0 ? squares[i] : 0;
	return info ? HCT_ERR_LIMIT : HCT_OK;
}

hct_error hct_svd_projector(const float *v, size_t rank, size_t columns, float *p, float *gram)
{
	const int r = (int)rank, n = (int)columns;
	const float one = 1;
	float *root = floats(rank * rank);
	int info = 0;

	if (!root)
		return HCT_ERR_NOMEM;
	openblas_set_num_threads(1);
	multiply('T', 'N', rank, rank, columns, v, columns, v, columns, 0, gram, rank);
	memcpy(root, gram, rank * rank * sizeof *root);
	for (size_t k = 0; k < rank; k++) {
		float *d = &root[k * rank + k];

		*d = *d > 0 ? *d + *d * RIDGE : 1;
	}
	memcpy(p, v, rank * columns * sizeof *p);
	spotrf_("L", &r, root, &r, &info, 1);
	if (!info) {
		strsm_("R", "L", "T", "N", &n, &r, &one, root, &r, p, &n, 1, 1, 1, 1);
		strsm_("R", "L", "N", "N", &n, &r, &one, root, &r, p, &n, 1, 1, 1, 1);
	}
	free(root);
	return info ? HCT_ERR_LIMIT : HCT_OK;
}

void hct_svd_project(const float *a, size_t rows, size_t columns, const float *p, size_t rank,
		     float *out)
{
	openblas_set_num_threads(1);
	multiply('T', 'N', rank, rows, columns, p, columns, a, columns, 0, out, rank);
}
