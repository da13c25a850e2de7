#include "dct.h"

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <fftw3.h>

#include "dct_tiles.h"

#define PLANS     64
#define ALIGNMENT 64    /* of a vector when it is transformed: FFTW's plans depend on it */
#define BLOCK     16384 /* numbers that are gathered at a time, so that strides cost little */

enum precision { SINGLE, DOUBLE };

struct plan {
	void *plan; /* fftwf_plan or fftw_plan; NULL in an empty place */
	enum precision precision;
	int inverse;
	size_t n;
	unsigned users;
	uint64_t used; /* time of last use, by the clock below */
};

struct hct_dct {
	hct_dct_block *blocks;
	pthread_mutex_t lock; /* of what follows */
	uint64_t clock;
	struct plan plans[PLANS];
};

/* The plan of one call: one of the context's, or its own when all of those are in use. */
struct lease {
	struct plan *p;
	struct plan own;
};

/* Vectors of n numbers: number i of vector j of batch b lies at b far + j distance + i stride. */
struct layout {
	size_t n, stride, count, distance, batches, far;
	size_t pitch; /* from vector to vector where they are gathered */
};

/* FFTW's planner has one state for the process, and whoever else links this library shares it. */
static pthread_mutex_t planner = PTHREAD_MUTEX_INITIALIZER;

static int lease_take(hct_dct *d, struct lease *lease, enum precision precision, size_t n,
		      int inverse, void *work);
static void lease_end(hct_dct *d, struct lease *lease);

/* Finds no two numbers at one place as far as that is cheap, and places within memory. */
static hct_error layout_check(const struct layout *l, size_t size)
{
	size_t a, b, c;

	if (!l->n || (l->n > 1 && !l->stride) || (l->count > 1 && !l->distance) ||
	    (l->batches > 1 && !l->far))
		return HCT_ERR_ARGUMENT;
	if (l->n > HCT_DCT_MAX_LENGTH)
		return HCT_ERR_LIMIT;
	if (!l->count || !l->batches)
		return HCT_OK;
	if (__builtin_mul_overflow(l->n - 1, l->stride, &a) ||
	    __builtin_mul_overflow(l->count - 1, l->distance, &b) ||
	    __builtin_mul_overflow(l->batches - 1, l->far, &c) ||
	    __builtin_add_overflow(a, b, &a) || __builtin_add_overflow(a, c, &a) ||
	    a >= PTRDIFF_MAX / size)
		return HCT_ERR_ARGUMENT;
	return HCT_OK;
}

/* Sets the pitch, which keeps the alignment and is no power of two, and returns how many
 * vectors are gathered at a time. */
static size_t layout_block(struct layout *l, size_t size)
{
	size_t unit = ALIGNMENT / size, block;

	l->pitch = (l->n + unit - 1) / unit * unit;
	if (l->pitch % (4 * unit) == 0)
		l->pitch += unit;
	block = BLOCK / l->pitch;
	if (block > l->count)
		block = l->count;
	return block ? block : 1;
}

#define REAL      float
#define FFTW(x)   fftwf_##x
#define NAME(x)   x
#define PRECISION SINGLE
#include "dct_vectors.h"
#undef REAL
#undef FFTW
#undef NAME
#undef PRECISION

#define REAL      double
#define FFTW(x)   fftw_##x
#define NAME(x)   x##_f64
#define PRECISION DOUBLE
#include "dct_vectors.h"

static void make_plan(struct plan *p, void *work)
{
	pthread_mutex_lock(&planner);
	p->plan = p->precision == SINGLE ? make(p->n, p->inverse, work)
					 : make_f64(p->n, p->inverse, work);
	pthread_mutex_unlock(&planner);
}

static void destroy_plan(struct plan *p)
{
	if (!p->plan)
		return;
	pthread_mutex_lock(&planner);
	if (p->precision == SINGLE)
		fftwf_destroy_plan(p->plan);
	else
		fftw_destroy_plan(p->plan);
	pthread_mutex_unlock(&planner);
	p->plan = NULL;
}

static int is_for(const struct plan *p, enum precision precision, size_t n, int inverse)
{
	return p->plan && p->precision == precision && p->n == n && p->inverse == inverse;
}

/* The place of such a plan, or else the one to put it in: that which was used longest ago, or
 * NULL when all are in use. */
static struct plan *find_place(hct_dct *d, enum precision precision, size_t n, int inverse)
{
	struct plan *oldest = NULL;

	for (struct plan *p = d->plans; p < d->plans + PLANS; p++) {
		if (is_for(p, precision, n, inverse))
			return p;
		if (!p->users && (!oldest || p->used < oldest->used))
			oldest = p;
	}
	return oldest;
}

/* work: where vectors will be transformed.  Returns 0 when FFTW makes no plan. */
static int lease_take(hct_dct *d, struct lease *lease, enum precision precision, size_t n,
		      int inverse, void *work)
{
	struct plan *p;
	int taken;

	lease->own = (struct plan){0};
	pthread_mutex_lock(&d->lock);
	p = find_place(d, precision, n, inverse);
	if (!p)
		p = &lease->own;
	if (!is_for(p, precision, n, inverse)) {
		destroy_plan(p);
		*p = (struct plan){.precision = precision, .inverse = inverse, .n = n};
		make_plan(p, work);
	}
	taken = p->plan != NULL;
	if (taken) {
		p->users++;
		p->used = ++d->clock;
	}
	pthread_mutex_unlock(&d->lock);
	lease->p = p;
	return taken;
}

static void lease_end(hct_dct *d, struct lease *lease)
{
	pthread_mutex_lock(&d->lock);
	lease->p->users--;
	pthread_mutex_unlock(&d->lock);
	destroy_plan(&lease->own);
}

hct_error hct_dct_create(hct_simd simd, hct_dct **out)
{
	hct_dct *d;

	*out = NULL;
	if (simd == HCT_SIMD_AUTO)
		simd = hct_simd_best();
	if (!hct_simd_supported(simd))
		return HCT_ERR_UNSUPPORTED;
	d = calloc(1, sizeof *d);
	if (!d)
		return HCT_ERR_NOMEM;
	if (pthread_mutex_init(&d->lock, NULL) != 0) {
		free(d);
		return HCT_ERR_NOMEM;
	}
	d->blocks = hct_dct_blocks(simd);
	*out = d;
	return HCT_OK;
}

void hct_dct_free(hct_dct *d)
{
	if (!d)
		return;
	for (struct plan *p = d->plans; p < d->plans + PLANS; p++)
		destroy_plan(p);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static int is_side(unsigned side)
{
	return side && side <= HCT_DCT_MAX_TILE && !(side & (side - 1));
}

/* Copies rows x columns between matrices; the block's columns are HCT_DCT_BLOCK apart. */
static void copy_block(const float *from, size_t from_stride, float *to, size_t to_stride,
		       size_t rows, size_t columns)
{
	for (size_t i = 0; i < rows; i++, from += from_stride, to += to_stride)
		if (columns == HCT_DCT_BLOCK)
			memcpy(to, from, HCT_DCT_BLOCK * sizeof *to);
		else
			memcpy(to, from, columns * sizeof *to);
}

hct_error hct_dct_tiles(const hct_dct *d, const float *in, size_t rows, size_t columns,
			unsigned tile_rows, unsigned tile_columns, float *out)
{
	_Alignas(64) float block[HCT_DCT_BLOCK * HCT_DCT_BLOCK];
	size_t high = tile_rows < HCT_DCT_MIN_ROWS ? HCT_DCT_MIN_ROWS : tile_rows, numbers;

	if (!d || !is_side(tile_rows) || !is_side(tile_columns) || rows % tile_rows ||
	    columns % tile_columns || __builtin_mul_overflow(rows, columns, &numbers) ||
	    numbers > PTRDIFF_MAX / sizeof *in || (numbers && (!in || !out)))
		return HCT_ERR_ARGUMENT;
	for (size_t row = 0; row < rows && columns; row += high) {
		size_t r = rows - row < high ? rows - row : high;

		for (size_t column = 0; column < columns; column += HCT_DCT_BLOCK) {
			size_t at = row * columns + column, c = columns - column;

			c = c < HCT_DCT_BLOCK ? c : HCT_DCT_BLOCK;
			if (r < high || c < HCT_DCT_BLOCK)
				memset(block, 0, high * HCT_DCT_BLOCK * sizeof *block);
			copy_block(in + at, columns, block, HCT_DCT_BLOCK, r, c);
			d->blocks(block, high, tile_rows, tile_columns);
			copy_block(block, HCT_DCT_BLOCK, out + at, columns, r, c);
		}
	}
	return HCT_OK;
}
