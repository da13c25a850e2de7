#include "waterfill.h"

#include <math.h>

#define STEPS 100
/* Rates do not fall below this, in bits a weight. */
#define LEAST_RATE .02

double mkhct_fill_bytes(const struct mkhct_fill *f)
{
	double bytes;

	if (f->error <= 0)
		return f->lossless;
	bytes = f->measured_bytes - f->weights * f->slope * log(f->error / f->measured_error) / 8;
	return fmax(bytes, fmin(f->measured_bytes, f->weights * LEAST_RATE / 8));
}

/* The errors of a water level; returns the bytes of all. */
static double fill(struct mkhct_fill *items, size_t count, double level)
{
	double total = 0;

	for (size_t i = 0; i < count; i++) {
		struct mkhct_fill *f = &items[i];

		f->error = 0;
		if (f->measured_error > 0) {
			f->error = fmin(fmax(level * f->slope, MKHCT_FILL_LEAST), MKHCT_FILL_MOST);
			if (f->error <= f->refused)
				f->error = fmin(2 * f->refused, MKHCT_FILL_MOST);
			if (f->error <= f->refused || mkhct_fill_bytes(f) >= f->lossless)
				f->error = 0;
		}
		total += mkhct_fill_bytes(f);
	}
	return total;
}

/* Makes the item lossless that gains most for a byte, of those that `left` bytes can pay for.
 * Returns what it took. */
static double promote(struct mkhct_fill *items, size_t count, double left)
{
	struct mkhct_fill *best = NULL;
	double most = 0, price = 0;

	for (size_t i = 0; i < count; i++) {
		double more = items[i].lossless - mkhct_fill_bytes(&items[i]);
		double gain = items[i].weights * items[i].error;

		if (items[i].error > 0 && more <= left && gain > most * fmax(more, 1)) {
			best = &items[i];
			most = gain / fmax(more, 1);
			price = more;
		}
	}
	if (best)
		best->error = 0;
	return best ? price : 0;
}

double mkhct_waterfill(struct mkhct_fill *items, size_t count, double bytes)
{
	double low = log(MKHCT_FILL_LEAST * .01), high = log(MKHCT_FILL_MOST * 100), total, more;

	for (int i = 0; i < STEPS; i++) {
		double middle = (low + high) / 2;

		if (fill(items, count, exp(middle)) > bytes)
			low = middle;
		else
			high = middle;
	}
	total = fill(items, count, exp(high));
	/* A remainder is left only where a level is not to be had: at the finest errors. */
	while (total < .995 * bytes && (more = promote(items, count, bytes - total)) > 0)
		total += more;
	return total;
}
