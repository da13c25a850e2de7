#include "tcq_classes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

/* Sorts n numbers into count classes of nearness: Lloyd's algorithm in one dimension, from
 * quantiles.  Class 0 has the smallest. */
static int cluster(const float *v, size_t n, unsigned count, uint8_t *class)
{
	double centre[HCT_TCQ_MAX_ROWS], sum[HCT_TCQ_MAX_ROWS];
	size_t size[HCT_TCQ_MAX_ROWS];
	float *sorted;

	memset(class, 0, n);
	if (count == 1)
		return 1;
	sorted = malloc(n * sizeof *sorted);
	if (!sorted)
		return 0;
	memcpy(sorted, v, n * sizeof *sorted);
	qsort(sorted, n, sizeof *sorted, by_value);
	for (unsigned k = 0; k < count; k++)
		centre[k] = sorted[(2 * k + 1) * n / (2 * count)];
	free(sorted);
	for (unsigned pass = 0; pass < 12; pass++) {
		memset(sum, 0, sizeof sum);
		memset(size, 0, sizeof size);
		for (size_t i = 0; i < n; i++) {
			unsigned best = 0;

			for (unsigned k = 1; k < count; k++)
				if (fabs(v[i] - centre[k]) < fabs(v[i] - centre[best]))
					best = k;
			class[i] = (uint8_t)best;
			sum[best] += v[i];
			size[best]++;
		}
		for (unsigned k = 0; k < count; k++)
			if (size[k])
				centre[k] = sum[k] / (double)size[k];
	}
	return 1;
}

/* The part of a piece from element j on that lies in one row; its first column goes to *c. */
static size_t span(const struct hct_tcq_sample *s, const struct hct_tcq_piece *p, size_t j,
		   uint32_t *c)
{
	size_t left = p->elements - j, row;

	*c = (uint32_t)((p->column + j) % s->columns);
	row = s->columns - *c;
	return left < row ? left : row;
}

/* log2 of the mean magnitude of each column; columns that the sample does not have get the
 * mean of the others. */
static void column_scales(const struct hct_tcq_sample *s, float *scale, float *sum, uint32_t *hits)
{
	double all = 0, n = 0;

	memset(sum, 0, s->columns * sizeof *sum);
	memset(hits, 0, s->columns * sizeof *hits);
	for (size_t i = 0; i < s->count; i++)
		for (size_t j = 0, m; j < s->pieces[i].elements; j += m) {
			const float *x = s->pieces[i].x + j;
			uint32_t c;

			m = span(s, &s->pieces[i], j, &c);
			for (size_t k = 0; k < m; k++) {
				sum[c + k] += fabsf(x[k]);
				hits[c + k]++;
			}
		}
	for (uint32_t c = 0; c < s->columns; c++) {
		all += sum[c];
		n += hits[c];
	}
	for (uint32_t c = 0; c < s->columns; c++)
		scale[c] = (float)log2((hits[c] ? (double)sum[c] / hits[c] : all / n) +
				       1e-6 * all / n + 1e-38);
}

static int class_columns(const struct hct_tcq_sample *s, unsigned count, float *scale,
			 uint8_t *columns)
{
	float *sum = malloc(s->columns * sizeof *sum);
	uint32_t *hits = malloc(s->columns * sizeof *hits);
	int ok = sum && hits;

	if (ok)
		column_scales(s, scale, sum, hits);
	free(sum);
	free(hits);
	return ok && cluster(scale, s->columns, count, columns);
}

/* Run classes from the mean magnitude of each run against that of its columns. */
static int class_runs(const struct hct_tcq_sample *s, unsigned count, unsigned run_log2,
		      float *scale, uint8_t *maps)
{
	size_t runs = 0, r = 0;
	float *v;
	int ok;

	for (size_t i = 0; i < s->count; i++)
		runs += hct_tcq_piece_runs(&s->pieces[i], run_log2);
	v = malloc(runs * sizeof *v);
	if (!v)
		return 0;
	for (uint32_t c = 0; c < s->columns; c++)
		scale[c] = exp2f(-scale[c]);
	for (size_t i = 0; i < s->count; i++) {
		const struct hct_tcq_piece *p = &s->pieces[i];

		for (size_t at = 0; at < p->elements; r++) {
			size_t begin = at, end = at + ((size_t)HCT_GROUP << run_log2);
			double sum = 0;

			end = end < p->elements ? end : p->elements;
			while (at < end) {
				uint32_t c;
				size_t n = span(s, p, at, &c);
				float part[8] = {0};

				n = n < end - at ? n : end - at;
				for (size_t k = 0; k < n / 8 * 8; k += 8)
					for (unsigned l = 0; l < 8; l++)
						part[l] +=
							fabsf(p->x[at + k + l]) * scale[c + k + l];
				for (size_t k = n / 8 * 8; k < n; k++)
					part[0] += fabsf(p->x[at + k]) * scale[c + k];
				for (unsigned l = 0; l < 8; l++)
					sum += part[l];
				at += n;
			}
			v[r] = (float)log2(sum / (double)(end - begin) + 1e-6);
		}
	}
	ok = cluster(v, runs, count, maps);
	free(v);
	return ok;
}

void hct_tcq_class_energies(const struct hct_tcq_sample *s, unsigned run_log2,
			    const uint8_t *columns, const uint8_t *maps,
			    double energy[HCT_TCQ_CLASSES])
{
	uint64_t hits[HCT_TCQ_CLASSES] = {0};

	for (unsigned k = 0; k < HCT_TCQ_CLASSES; k++)
		energy[k] = 0;
	for (size_t i = 0; i < s->count; maps += hct_tcq_piece_runs(&s->pieces[i++], run_log2)) {
		const struct hct_tcq_piece *p = &s->pieces[i];

		for (size_t j = 0, m; j < p->elements; j += m) {
			uint32_t c;

			m = span(s, p, j, &c);
			for (size_t n = 0; n < m; n += 3) {
				unsigned k = maps[(j + n) / HCT_GROUP >> run_log2] *
						     HCT_TCQ_MAX_COLUMNS +
					     columns[c + n];

				energy[k] += (double)p->x[j + n] * p->x[j + n];
				hits[k]++;
			}
		}
	}
	for (unsigned k = 0; k < HCT_TCQ_CLASSES; k++)
		if (hits[k])
			energy[k] /= (double)hits[k];
}

int hct_tcq_classify(const struct hct_tcq_sample *s, unsigned column_classes, unsigned row_classes,
		     unsigned run_log2, uint8_t *columns, uint8_t *maps)
{
	float *scale = malloc(s->columns * sizeof *scale);
	int ok = scale && class_columns(s, column_classes, scale, columns) &&
		 class_runs(s, row_classes, run_log2, scale, maps);

	free(scale);
	for (uint32_t c = 0; ok && c < HCT_GROUP; c++)
		columns[s->columns + c] = columns[c % s->columns];
	return ok;
}

/* Spread of the scales of groups of n values: the variance of their log2, that of chance
 * subtracted. */
struct spread {
	double sum, square, chance;
	size_t count;
};

static void spread_add(struct spread *s, double mean, double n)
{
	double v = log2(mean + 1e-38);

	s->sum += v;
	s->square += v * v;
	s->chance += 1.2 / n; /* variance of log2 of the mean magnitude of n Gaussians */
	s->count++;
}

static double spread_of(const struct spread *s)
{
	double n = (double)s->count, mean = s->sum / n;

	return s->count > 1 ? s->square / n - mean * mean - s->chance / n : 0;
}

double hct_tcq_column_spread(const struct hct_tcq_sample *sample)
{
	uint32_t columns = sample->columns;
	float *sum = calloc(columns, sizeof *sum);
	struct spread s = {0};
	uint64_t rows = sample->elements / columns;

	if (!sum || rows < 4) {
		free(sum);
		return 0;
	}
	for (size_t i = 0; i < sample->count; i++)
		for (size_t j = 0, m; j < sample->pieces[i].elements; j += m) {
			const float *x = sample->pieces[i].x + j;
			uint32_t c;

			m = span(sample, &sample->pieces[i], j, &c);
			for (size_t k = 0; k < m; k++)
				sum[c + k] += fabsf(x[k]);
		}
	for (uint32_t c = 0; c < columns; c++)
		spread_add(&s, sum[c] / (double)rows, (double)rows);
	free(sum);
	return spread_of(&s);
}

double hct_tcq_run_spread(const struct hct_tcq_sample *sample)
{
	struct spread s = {0};

	for (size_t i = 0; i < sample->count; i++) {
		const struct hct_tcq_piece *piece = &sample->pieces[i];

		for (size_t j = 0; j + 512 <= piece->elements; j += 512) {
			double sum = 0;

			for (size_t k = 0; k < 512; k += 8) {
				const float *x = piece->x + j + k;

				sum += fabsf(x[0]) + fabsf(x[1]) + fabsf(x[2]) + fabsf(x[3]) +
				       fabsf(x[4]) + fabsf(x[5]) + fabsf(x[6]) + fabsf(x[7]);
			}
			spread_add(&s, sum / 512, 512);
		}
	}
	return spread_of(&s);
}
