/* Results: lines for people, and rows of JSON as quantisers.py writes them.
 *
 * A line: name, bits a weight of the whole file, relative squared error, cosine, encode rate and
 * decode rates (the codec alone; every instruction set of the CPU, best first) in millions of
 * weights a second of one core, and then whatever the caller adds. */
#ifndef BENCH_ROWS_H
#define BENCH_ROWS_H

#include <cjson/cJSON.h>

#include "trial.h"

/* What all groups share. */
struct bench {
	const struct model *model; /* the matrices, in the dtype asked for */
	const char *dtype;         /* "BF16", "F16"; NULL for as they are */
	int rounds;                /* of encoding; decoding has five times as many */
	int quick;                 /* less of everything */
	cJSON *rows;               /* collected */
	const cJSON *peers;        /* rows of other quantisers, or NULL */
};

/* The head of a table of lines; extra: heads of the caller's columns. */
void rows_head(const char *extra);

/* Times the decoding of a trial (decode_seconds), prints its line without a newline, and adds its
 * row. series: for the plot, or NULL; note: with the row, or NULL. */
void rows_add(struct bench *b, const char *name, const char *series, const char *note,
	      struct trial *t);

/* The line and row of what cannot be had. */
void rows_missing(struct bench *b, const char *name, const char *why);

/* Says on the line of a trial what is odd about it, and ends the line: tensors whose error misses
 * the target by more than 1%, and tensors that became lossless. */
void rows_end(const struct model *m, const struct trial *t, double target);

/* Million weights a second. */
static inline double rows_rate(const struct trial *t, double seconds)
{
	return 1e-6 * (double)t->weights / seconds;
}

#endif
