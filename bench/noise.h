/* Matrices of known statistics.  The same numbers every time. */
#ifndef BENCH_NOISE_H
#define BENCH_NOISE_H

#include <stddef.h>

/* White Gaussian, variance 1. */
float *noise_white(size_t rows, size_t columns);

/* Gaussian and smooth: each number is rho times its neighbour plus noise, along the rows, from
 * column to column, with row_rho, and along the columns with column_rho; 0 is white. */
float *noise_smooth(size_t rows, size_t columns, double row_rho, double column_rho);

/* Gaussian; tiles of side x side, which divides both, are independent of each other and have
 * variances that fall with frequency, so that a DCT of just these tiles makes them few. */
float *noise_tiles(size_t rows, size_t columns, size_t side);

/* A product of two white matrices, of that rank and variance 1, plus white noise of variance
 * `noise`. */
float *noise_low_rank(size_t rows, size_t columns, size_t rank, double noise);

#endif
