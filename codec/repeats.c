#include "repeats.h"

#include <math.h>
#include <string.h>

/* So many elements in so many places: a page costs more than what is on it. */
#define PLACES 32u
#define LENGTH 128u
/* Of the table of values: twice as many as there can be. */
#define SLOTS (2 * PLACES * LENGTH)

/* Bits that few values take; trained weights take 9 or more, 6 in a byte. */
#define FEW_BITS 6.

/* How often each value was seen; a slot without count is free. */
struct values {
	uint64_t key[SLOTS];
	uint32_t count[SLOTS];
};

static void add(struct values *v, uint64_t key)
{
	size_t at = (size_t)((key ^ key >> 29) * UINT64_C(0x9e3779b97f4a7c15) >> 32) % SLOTS;

	while (v->count[at] && v->key[at] != key)
		at = (at + 1) % SLOTS;
	v->key[at] = key;
	v->count[at]++;
}

int hct_repeats_found(struct hct_encoder *e, const struct hct_tensor *tensor, const uint8_t *data,
		      double bits)
{
	size_t unit = hct_dtype_unit(tensor->dtype);
	uint64_t elements = hct_tensor_bytes(tensor) / unit, places = PLACES, length = LENGTH;
	double seen, entropy = 0, top = 0;
	struct values *v;

	if (elements < PLACES * LENGTH) {
		places = 1;
		length = elements;
	}
	if (!hct_buffer_reserve(&e->work, &e->work_capacity, sizeof *v))
		return 0;
	v = (struct values *)(void *)e->work;
	memset(v->count, 0, sizeof v->count);
	for (uint64_t p = 0; p < places; p++) {
		/* In the middle of each part: a pad at either end tells little. */
		uint64_t part = elements / places, at = p * part + (part - length) / 2;

		for (uint64_t i = at; i < at + length; i++) {
			uint64_t key = 0;

			memcpy(&key, data + i * unit, unit);
			add(v, key);
		}
		hct_encoder_watched(e, (at + length) * unit); /* too short to be ended */
	}
	seen = (double)(places * length);
	for (size_t i = 0; i < SLOTS; i++) {
		double share = v->count[i] / seen;

		entropy -= v->count[i] ? share * log2(share) : 0;
		top = fmax(top, share);
	}
	return top >= .5 || entropy <= fmin(bits, FEW_BITS);
}
