#include "metrics.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Sums run over many independent partial sums, in vectors that the compiler maps to
 * what the target has, and over blocks that are added up at their end: rounding errors
 * then grow with the number of blocks and not with that of the elements. */
#define LANES   2u /* of a vector */
#define VECTORS 4u /* in flight at once */
#define ROW     (LANES * VECTORS)
#define BLOCK   512u /* a multiple of ROW */

/* Sums of squares of a block, as they are, stay between these; others are scaled by 2^STEP.  Then
 * sums of 2^55 blocks fit, and errors of the last bit of what is smallest. */
#define STEP       600
#define MOST_SUM   0x1p950
#define LEAST_SUM  0x1p-800
#define LARGE_PEAK 0x1p470
#define SMALL_PEAK 0x1p-400

typedef double vector __attribute__((vector_size(LANES * sizeof(double))));
typedef int64_t mask __attribute__((vector_size(LANES * sizeof(int64_t))));

struct partial {
	vector aa, bb, ab, dd;
	vector max_a, max_d;
};

struct sums {
	int level; /* as in struct hct_metrics */
	double aa, bb, ab, dd;
	double max_a, max_d;
};

static inline vector absolute(vector v)
{
	return (vector)((mask)v & INT64_MAX);
}

static inline vector larger(vector a, vector b)
{
	mask above = a > b;

	return (vector)((above & (mask)a) | (~above & (mask)b));
}

static inline void add_vector(struct partial *s, const double *a, const double *b)
{
	vector x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	vector d = x - y;
	s->aa += x * x;
	s->bb += y * y;
	s->ab += x * y;
	s->dd += d * d;
	s->max_a = larger(absolute(x), s->max_a);
	s->max_d = larger(absolute(d), s->max_d);
}

/* Sums over n <= BLOCK pairs. */
static struct sums sum_block(const double *a, const double *b, size_t n)
{
	double last_a[ROW] = {0}, last_b[ROW] = {0};
	struct partial s[VECTORS] = {0};
	struct sums all = {0};
	size_t whole = n - n % ROW;

	for (size_t i = 0; i < whole; i += ROW) {
		for (size_t v = 0; v < VECTORS; v++)
			add_vector(&s[v], a + i + v * LANES, b + i + v * LANES);
	}
	memcpy(last_a, a + whole, (n - whole) * sizeof(*a));
	memcpy(last_b, b + whole, (n - whole) * sizeof(*b));
	for (size_t v = 0; v < VECTORS; v++) {
		add_vector(&s[v], last_a + v * LANES, last_b + v * LANES);
		all.aa += s[v].aa[0] + s[v].aa[1];
		all.bb += s[v].bb[0] + s[v].bb[1];
		all.ab += s[v].ab[0] + s[v].ab[1];
		all.dd += s[v].dd[0] + s[v].dd[1];
		all.max_a = fmax(all.max_a, fmax(s[v].max_a[0], s[v].max_a[1]));
		all.max_d = fmax(all.max_d, fmax(s[v].max_d[0], s[v].max_d[1]));
	}
	return all;
}

/* NaN is one kind whatever its sign and payload. */
static int same_nonfinite(double a, double b)
{
	if (isnan(a) || isnan(b))
		return isnan(a) && isnan(b);
	return a == b;
}

/* The sums of finite numbers, which are scaled in place. */
static struct sums sum_scaled(double *a, double *b, size_t n)
{
	double peak = 0, max_a = 0, max_d = 0;
	struct sums s;
	int level;

	for (size_t i = 0; i < n; i++) {
		max_a = fmax(max_a, fabs(a[i]));
		max_d = fmax(max_d, fabs(a[i] - b[i]));
		peak = fmax(peak, fabs(b[i]));
	}
	peak = fmax(peak, max_a);
	level = peak >= LARGE_PEAK ? 1 : peak > 0 && peak < SMALL_PEAK ? -1 : 0;
	for (size_t i = 0; level && i < n; i++) {
		a[i] = ldexp(a[i], -level * STEP);
		b[i] = ldexp(b[i], -level * STEP);
	}
	s = sum_block(a, b, n);
	s.level = level;
	s.max_a = max_a;
	s.max_d = max_d;
	return s;
}

/* The sums without the pairs that are not finite, which are counted. */
static struct sums sum_finite(struct hct_metrics *m, const double *a, const double *b, size_t n)
{
	double finite_a[BLOCK], finite_b[BLOCK];
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (isfinite(a[i]) && isfinite(b[i])) {
			finite_a[kept] = a[i];
			finite_b[kept++] = b[i];
		} else {
			m->nonfinite_differ += !same_nonfinite(a[i], b[i]);
		}
	}
	return sum_scaled(finite_a, finite_b, kept);
}

/* Whether nothing has left the range of double, and all was finite. */
static int is_in_range(const struct sums *s)
{
	return s->aa <= MOST_SUM && s->bb <= MOST_SUM &&
	       (s->aa + s->bb >= LEAST_SUM || (s->max_a == 0 && s->max_d == 0));
}

/* What takes a number from one level to another. */
static double factor(int from, int to)
{
	return from == to ? 1 : ldexp(1, STEP * (from - to));
}

/* Adds sums to those of m, both at the higher of their levels: next to that, what the lower one
 * loses is nothing.  Sums of zeros have any level. */
static void add_sums(struct hct_metrics *m, const struct sums *s)
{
	int level = m->level > s->level ? m->level : s->level;
	double mine, theirs;

	if (s->aa == 0 && s->bb == 0)
		return;
	if (m->sum_aa == 0 && m->sum_bb == 0)
		level = m->level = s->level;
	mine = factor(m->level, level);
	theirs = factor(s->level, level);
	m->sum_aa = m->sum_aa * mine * mine + s->aa * theirs * theirs;
	m->sum_bb = m->sum_bb * mine * mine + s->bb * theirs * theirs;
	m->sum_ab = m->sum_ab * mine * mine + s->ab * theirs * theirs;
	m->sum_dd = m->sum_dd * mine * mine + s->dd * theirs * theirs;
	m->level = level;
}

static void add_block(struct hct_metrics *m, const double *a, const double *b, size_t n)
{
	struct sums s = sum_block(a, b, n);

	/* A value that is not finite shows in the sums, so nobody has to look for it. */
	if (!is_in_range(&s))
		s = sum_finite(m, a, b, n);
	add_sums(m, &s);
	m->max_abs_a = fmax(m->max_abs_a, s.max_a);
	m->max_abs_error = fmax(m->max_abs_error, s.max_d);
	m->count += n;
}

void hct_metrics_add(struct hct_metrics *m, const double *a, const double *b, size_t n)
{
	while (n > 0) {
		size_t block = n < BLOCK ? n : BLOCK;

		add_block(m, a, b, block);
		a += block;
		b += block;
		n -= block;
	}
}

void hct_metrics_add_typed(struct hct_metrics *m, hct_dtype dtype_a, const void *a,
			   hct_dtype dtype_b, const void *b, size_t n)
{
	const unsigned char *bytes_a = a, *bytes_b = b;
	size_t unit_a = hct_dtype_unit(dtype_a), unit_b = hct_dtype_unit(dtype_b);
	double block_a[BLOCK], block_b[BLOCK];

	if (!hct_dtype_is_numeric(dtype_a) || !hct_dtype_is_numeric(dtype_b))
		return;
	while (n > 0) {
		size_t block = n < BLOCK ? n : BLOCK;

		hct_dtype_to_double(dtype_a, bytes_a, block, block_a);
		hct_dtype_to_double(dtype_b, bytes_b, block, block_b);
		add_block(m, block_a, block_b, block);
		bytes_a += block * unit_a;
		bytes_b += block * unit_b;
		n -= block;
	}
}

void hct_metrics_merge(struct hct_metrics *m, const struct hct_metrics *part)
{
	const struct sums s = {.level = part->level,
			       .aa = part->sum_aa,
			       .bb = part->sum_bb,
			       .ab = part->sum_ab,
			       .dd = part->sum_dd};

	m->count += part->count;
	add_sums(m, &s);
	m->max_abs_a = fmax(m->max_abs_a, part->max_abs_a);
	m->max_abs_error = fmax(m->max_abs_error, part->max_abs_error);
	m->nonfinite_differ += part->nonfinite_differ;
}

double hct_metrics_relative_squared_error(const struct hct_metrics *m)
{
	if (m->nonfinite_differ > 0)
		return INFINITY;
	if (m->max_abs_error == 0)
		return 0;
	/* What is too small for double is not nothing. */
	return m->sum_aa > 0 ? fmax(m->sum_dd / m->sum_aa, DBL_TRUE_MIN) : INFINITY;
}

double hct_metrics_cosine(const struct hct_metrics *m)
{
	if (m->max_abs_error == 0)
		return 1;
	if (m->sum_aa == 0 || m->sum_bb == 0)
		return 0;
	double cosine = m->sum_ab / (sqrt(m->sum_aa) * sqrt(m->sum_bb));
	return fmax(-1, fmin(1, cosine));
}

double hct_metrics_psnr_db(const struct hct_metrics *m)
{
	double peak = 20 * log10(m->max_abs_a);

	if (m->nonfinite_differ > 0)
		return -INFINITY;
	if (m->max_abs_error == 0)
		return INFINITY;
	/* An error that is too small for the sums counts as if it were everywhere. */
	if (m->sum_dd == 0)
		return peak - 20 * log10(m->max_abs_error);
	return peak - 20 * m->level * STEP * log10(2) - 10 * log10(m->sum_dd / (double)m->count);
}

const char *hct_metrics_grade_of_cosine(double cosine)
{
	long thousandths = lrint(cosine * 1000);

	return thousandths >= 998   ? "Excellent"
	       : thousandths >= 993 ? "Good"
	       : thousandths >= 980 ? "Acceptable"
	       : thousandths >= 950 ? "Degraded"
				    : "Poor";
}

const char *hct_metrics_grade(const struct hct_metrics *m)
{
	return hct_metrics_grade_of_cosine(m->nonfinite_differ > 0 ? 0 : hct_metrics_cosine(m));
}

char *hct_metrics_cosine_text(double cosine, int digits, char buf[HCT_COSINE_TEXT])
{
	int needed;

	cosine = fmin(cosine, 1 - 1e-12);
	needed = (int)ceil(-log10(1 - cosine)) + 1;
	needed = needed < 12 ? needed : 12;
	snprintf(buf, HCT_COSINE_TEXT, "%.*f", needed > digits ? needed : digits, cosine);
	return buf;
}
