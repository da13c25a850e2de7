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
/* Numbers that the bases of a decomposition may have, as may U: 32 MiB.  And those of V, of which
 * there are four while it is coded. */
#define MAX_FLOATS ((size_t)1 << 23)
#define MAX_V      ((size_t)3 << 20)
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
	double m = (double)p->a.rows, c = (double)p->a.columns;
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

static size_t least_of(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* The largest rank that the format and the matrix allow. */
static size_t rank_most(const struct hct_matrix_goal *p)
{
	size_t most = HCT_LOWRANK_MAX_ELEMENTS / p->a.columns;

	most = least_of(most, HCT_LOWRANK_MAX_RANK);
	return least_of(most, least_of(p->a.rows, p->a.columns));
}

/* The largest for which there is memory. */
static size_t rank_limit(const struct hct_matrix_goal *p)
{
	size_t room = MAX_FLOATS / (p->a.rows + p->a.columns); /* of the width that svd.h takes */

	room = room > SVD_MARGIN ? room - SVD_MARGIN : 0;
	return least_of(rank_most(p), least_of(room, MAX_V / p->a.columns));
}

/* The least rank that n known singular values, which are not enough, leave possible; 0 when it is
 * out of reach, *bounded being 1 when that is for the memory only, or would take too many bits. */
static size_t next_rank(const struct hct_matrix_goal *p, const float *square, size_t n,
			int *bounded)
{
	double lost = p->energy, need;
	size_t limit = rank_limit(p), most = rank_most(p), r;

	for (size_t k = 0; k < n; k++)
		lost -= square[k];
	need = square[n - 1] > 0 ? (lost - p->error) / square[n - 1] : INFINITY;
	if (need > (double)most)
		return 0;
	r = n + (need > 0 ? (size_t)ceil(need) : 0);
	if (n >= most || r > most || bits_of(p, square, n, r, p->error) > GAIN * p->rival)
		return 0;
	if (n >= limit || r > limit) {
		*bounded = 1;
		return 0;
	}
	r = r > RANK_FACTOR * n ? r : RANK_FACTOR * n;
	return r < limit ? r : limit;
}

hct_error hct_rank_find(const struct hct_matrix_goal *p, struct hct_svd *svd, size_t *rank,
			int *bounded)
{
	size_t n = least_of(FIRST_RANK, rank_limit(p));

	*rank = 0;
	*bounded = !n && rank_most(p);
	while (n) {
		struct choice best;
		float *square;
		hct_error e = hct_svd_create(&p->a, n, 0, svd);

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
		n = best.rank && best.rank < n ? 0 : next_rank(p, square, n, bounded);
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
	double side = sqrt((double)p->a.rows * (double)p->a.columns) / LOOK_SHARE;
	size_t n = side < LOOK_MIN ? LOOK_MIN : side > LOOK_MAX ? LOOK_MAX : (size_t)side;
	size_t unit = hct_dtype_unit(p->a.dtype);

	*l = (struct look){.rows = n < p->a.rows ? n : p->a.rows,
			   .columns = 2 * n < p->a.columns ? 2 * n : p->a.columns};
	l->least = l->rows < l->columns ? l->rows : l->columns;
	l->a = malloc(l->rows * l->columns * sizeof *l->a);
	l->row = malloc(p->a.columns * sizeof *l->row);
	l->gram = malloc(l->least * l->least * sizeof *l->gram);
	l->square = malloc(l->least * sizeof *l->square);
	if (!l->a || !l->row || !l->gram || !l->square)
		return HCT_ERR_NOMEM;
	for (size_t r = 0; r < l->rows; r++) {
		size_t at = r * p->a.rows / l->rows;
		float *out = l->a + r * l->columns;

		hct_widen(p->a.dtype, p->a.data + at * p->a.columns * unit, p->a.columns, l->row);
		for (size_t c = 0; c < l->columns; c++) {
			out[c] = l->row[c * p->a.columns / l->columns];
			l->energy += (double)out[c] * out[c];
		}
		if (p->a.watch &&
		    p->a.watch(p->a.watch_arg, (uint64_t)(at + 1) * p->a.columns * unit))
			return HCT_ERR_INTERRUPTED;
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
	scale = (double)p->a.rows * (double)p->a.columns / ((double)l.rows * (double)l.columns);
	for (size_t k = 0; k < l.least; k++)
		l.square[k] *= (float)scale;
	part.energy = l.energy * scale;
	part.error = error * part.energy;
	*promising = choose_rank(&part, l.square, l.least / 2).bits < PROMISE * p->rival;
out:
	look_free(&l);
	return e;
}
