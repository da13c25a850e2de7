/* Internal: the product of two factors, compiled once for each instruction set: sums stay in
 * registers.  A file that includes this says how many LANES a vector has, and how many VECTORS of
 * columns are worked on at a time. */
#include <string.h>

#include "lowrank.h"

#define ROWS    4
#define COLUMNS (LANES * VECTORS)

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* ROWS rows and COLUMNS columns. */
static inline void multiply_tile(const float *u, size_t rank, const float *v, size_t pitch,
				 float *w, size_t w_pitch)
{
	vector sum[ROWS][VECTORS];

	for (unsigned j = 0; j < VECTORS; j++)
		for (unsigned i = 0; i < ROWS; i++)
			sum[i][j] = u[i * rank] * ((const vector *)v)[j];
	for (size_t k = 1; k < rank; k++) {
		const vector *b = (const vector *)(v + k * pitch);

		for (unsigned j = 0; j < VECTORS; j++)
			for (unsigned i = 0; i < ROWS; i++)
				sum[i][j] += u[i * rank + k] * b[j];
	}
	for (unsigned i = 0; i < ROWS; i++)
		memcpy(w + i * w_pitch, sum[i], sizeof sum[i]);
}

/* What is left over at the edges. */
static void multiply_rest(const float *u, size_t rows, size_t rank, const float *v, size_t pitch,
			  size_t columns, float *w, size_t w_pitch)
{
	for (size_t i = 0; i < rows; i++)
		for (size_t c = 0; c < columns; c++) {
			float sum = u[i * rank] * v[c];

			for (size_t k = 1; k < rank; k++)
				sum += u[i * rank + k] * v[k * pitch + c];
			w[i * w_pitch + c] = sum;
		}
}

static inline void multiply(const float *u, size_t rows, size_t rank, const float *v, size_t pitch,
			    size_t columns, float *w)
{
	size_t i = 0, whole = columns / COLUMNS * COLUMNS;

	for (; i + ROWS <= rows; i += ROWS) {
		for (size_t c = 0; c < whole; c += COLUMNS)
			multiply_tile(u + i * rank, rank, v + c, pitch, w + i * columns + c,
				      columns);
		multiply_rest(u + i * rank, ROWS, rank, v + whole, pitch, columns - whole,
			      w + i * columns + whole, columns);
	}
	multiply_rest(u + i * rank, rows - i, rank, v, pitch, columns, w + i * columns, columns);
}
