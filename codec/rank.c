#include "rank.h"

#include <math.h>
#include <stdlib.h>

#include "lowrank.h"
#include "widen.h"

/* Sides of the sample of a quick look, and how they go with the elements. */
#define LOOK_MIN   64u
#define LOOK_MAX   400u
#define LOOK_SHARE 10
/* What must be promised, against the rival's bits: by the sample, and by the matrix. */
#define PROMISE 0.95
#define GAIN    0.99
/* Share of the error that truncation may leave. */
#define MAX_TRUNCATION 0.95
#define FIRST_RANK     24
#define RANK_FACTOR    4
/* What a decomposition may take: 256 MiB. */
#define MAX_FLOATS ((size_t)1 << 26)
#define SVD_MARGIN 10
/* Bits that tcq spends on a value beyond the rate of one that knows its variance. */
#define EXCESS_BITS 0.08

/* Bits of a value of a variance, at a mean squared error. */
static double rate(double variance, double error)
{
	return .5 * log2(1 + variance / error) + EXCESS_BITS;
}

/* Bits of the factors for the first r of n known singular values, those behind the last known
 * taken to be as large as that: a bound.  square: theirs; left: the squared error that their
 * values may have. */
static double bits_of(const struct hct_matrix_goal *p, const float *square, size_t n, size_t r,
		      double left)
{
	double m = (double)p->rows, c = (double)p->columns;
	double d = left / ((double)r * (m + c)), sum = 0;

	for (size_t k = 0; k < (r < n ? r : n); k++)
		sum += m * rate(square[k] / m, d) + c * rate(square[k] / c, d);
	if (r > n)
		sum += (double)(r - n) *
		       (m * rate(square[n - 1] / m, d) + c * rate(square[n - 1] / c, d));
	return sum + 32 * (double)r;
}

/* What is known of the best rank. */
struct choice {
	size_t rank; /* 0 for none */
	double bits;
};

/* The rank among the first n singular values that takes the fewest bits. */
static struct choice choose_rank(const struct hct_matrix_goal *p, const float *square, size_t n)
{
	struct choice best = {.bits = INFINITY};
	double lost = p->energy;

	for (size_t r = 1; r <= n; r++) {
		double bits;

		lost -= square[r - 1];
		if (lost > MAX_TRUNCATION * p->error)
			continue;
		bits = bits_of(p, square, n, r, p->error - (lost > 0 ? lost : 0));
		if (bits < best.bits)
			best = (struct choice){r, bits};
	}
	return best;
}

/* The largest rank that is allowed. */
static size_t rank_limit(const struct hct_matrix_goal *p)
{
	size_t most = HCT_LOWRANK_MAX_ELEMENTS / p->columns, room;

	most = most < HCT_LOWRANK_MAX_RANK ? most : HCT_LOWRANK_MAX_RANK;
	room = MAX_FLOATS / 2 / (p->rows + p->columns); /* of the width that svd.h takes */
	room = room > SVD_MARGIN ? room - SVD_MARGIN : 0;
	most = most < room ? most : room;
	most = most < p->columns ? most : p->columns;
	return most < p->rows ? most : p->rows;
}

/* The least rank that n known singular values, which are not enough, leave possible; 0 when it is
 * out of reach or would take too many bits. */
static size_t next_rank(const struct hct_matrix_goal *p, const float *square, size_t n)
{
	double lost = p->energy, need;
	size_t limit = rank_limit(p), r;

	for (size_t k = 0; k < n; k++)
		lost -= square[k];
	need = square[n - 1] > 0 ? (lost - p->error) / square[n - 1] : INFINITY;
	if (need > (double)limit)
		return 0;
	r = n + (need > 0 ? (size_t)ceil(need) : 0);
	if (n >= limit || r > limit || bits_of(p, square, n, r, p->error) > GAIN * p->rival)
		return 0;
	r = r > RANK_FACTOR * n ? r : RANK_FACTOR * n;
	return r < limit ? r : limit;
}

hct_error hct_rank_find(const struct hct_matrix_goal *p, struct hct_svd *svd, size_t *rank)
{
	size_t n = FIRST_RANK < rank_limit(p) ? FIRST_RANK : rank_limit(p);

	*rank = 0;
	while (n) {
		struct choice best;
		float *square;
		hct_error e = hct_svd_create(p->dtype, p->data, p->rows, p->columns, n, svd);

		if (e)
			return e;
		square = malloc(n * sizeof *square);
		if (!square) {
			hct_svd_free(svd);
			return HCT_ERR_NOMEM;
		}
		for (size_t k = 0; k < n; k++)
			square[k] = svd->s[k] * svd->s[k];
		best = choose_rank(p, square, n);
		if (best.rank && best.bits < GAIN * p->rival)
			*rank = best.rank;
		/* more of them could be better only while the last one still helps */
		n = best.rank && best.rank < n ? 0 : next_rank(p, square, n);
		free(square);
		if (n)
			hct_svd_free(svd);
	}
	return HCT_OK;
}

/* Some of the matrix's rows and columns, evenly spaced, so few that looking costs little. */
struct look {
	size_t rows, columns, least;
	float *a, *row, *gram, *square;
	double energy;
};

static void look_free(struct look *l)
{
	free(l->a);
	free(l->row);
	free(l->gram);
	free(l->square);
}

static hct_error look_create(const struct hct_matrix_goal *p, struct look *l)
{
	double side = sqrt((double)p->rows * (double)p->columns) / LOOK_SHARE;
	size_t n = side < LOOK_MIN ? LOOK_MIN : side > LOOK_MAX ? LOOK_MAX : (size_t)side;
	size_t unit = hct_dtype_unit(p->dtype);

	*l = (struct look){.rows = n < p->rows ? n : p->rows,
			   .columns = 2 * n < p->columns ? 2 * n : p->columns};
	l->least = l->rows < l->columns ? l->rows : l->columns;
	l->a = malloc(l->rows * l->columns * sizeof *l->a);
	l->row = malloc(p->columns * sizeof *l->row);
	l->gram = malloc(l->least * l->least * sizeof *l->gram);
	l->square = malloc(l->least * sizeof *l->square);
	if (!l->a || !l->row || !l->gram || !l->square)
		return HCT_ERR_NOMEM;
	for (size_t r = 0; r < l->rows; r++) {
		size_t at = r * p->rows / l->rows;
		float *out = l->a + r * l->columns;

		hct_widen(p->dtype, p->data + at * p->columns * unit, p->columns, l->row);
		for (size_t c = 0; c < l->columns; c++) {
			out[c] = l->row[c * p->columns / l->columns];
			l->energy += (double)out[c] * out[c];
		}
	}
	return HCT_OK;
}

/* 0 when no rank up to half of the sample's can reach an error: n numbers of which the squares sum
 * to s sum to sqrt(n s) at most. */
static int can_reach(const struct look *l, double error)
{
	double sum = 0, kept = (1 - error) * l->energy;

	for (size_t i = 0; i < l->least; i++) {
		const float *g = l->gram + i * l->least;

		sum += (double)g[i] * g[i];
		for (size_t j = i + 1; j < l->least; j++)
			sum += 2 * (double)g[j] * g[j];
	}
	return (double)(l->least / 2) * sum >= kept * kept;
}

hct_error hct_rank_look(const struct hct_matrix_goal *p, double error, int *promising)
{
	struct hct_matrix_goal part = *p;
	struct look l;
	hct_error e = look_create(p, &l);
	double scale;

	*promising = 0;
	if (e)
		goto out;
	hct_svd_gram(l.a, l.rows, l.columns, l.gram);
	if (!(l.energy > 0) || !can_reach(&l, error))
		goto out;
	e = hct_svd_squares(l.gram, l.least, l.square);
	if (e)
		goto out;
	/* As if the whole matrix had that spectrum, and nothing behind it. */
	scale = (double)p->rows * (double)p->columns / ((double)l.rows * (double)l.columns);
	for (size_t k = 0; k < l.least; k++)
		l.square[k] *= (float)scale;
	part.energy = l.energy * scale;
	part.error = error * part.energy;
	*promising = choose_rank(&part, l.square, l.least / 2).bits < PROMISE * p->rival;
out:
	look_free(&l);
	return e;
}
