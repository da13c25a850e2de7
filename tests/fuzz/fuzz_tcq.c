/* Fuzzes the codec tcq.
 *
 * Input: u8 dtype; u8 what to put right; u8 layers less one; u24 elements of the chunk less one;
 * u24 number of its first element; u16 length of the tables; tables; u16 lengths of the payloads
 * but the last; payloads.
 *
 * Few mutations keep the rules of section 5, so five of them are kept on demand: the
 * frequencies sum to 256, start states are at least 256, the tables are those of as many layers
 * as there are, tiles fit the chunk, and steps lie in their range. */
#include "codec/codec.h"
#include "fuzz_chunk.h"
#include "fuzz_floats.h"

enum { FIX_FREQUENCIES = 1, FIX_STATES = 2, FIX_LAYERS = 4, FIX_TILES = 8, FIX_STEPS = 16 };

enum { MAX_LAYERS = 4, TABLES_HEAD = 8, LAYER_HEAD = 12, STATES = 64 };

/* Takes from, or adds to, 32 frequencies until they sum to 256. */
static void fix_sum(uint8_t *freq)
{
	int left = 256;

	for (int s = 0; s < 32; s++) {
		if (freq[s] > left)
			freq[s] = (uint8_t)left;
		left -= freq[s];
	}
	for (int s = 0; s < 32 && left; s++) {
		int more = 255 - freq[s] < left ? 255 - freq[s] : left;

		freq[s] = (uint8_t)(freq[s] + more);
		left -= more;
	}
}

/* Puts right the tables of a layer at `at`, as far as they lie within; returns their end. */
static size_t fix_layer(uint8_t *tables, size_t length, size_t at, unsigned what)
{
	size_t columns = hct_load32(tables + 4), classes = tables[at + 1], rows = tables[at + 2];
	int raw = tables[at + 4] != 0;
	size_t end;

	if (what & FIX_STEPS) /* the byte of sign and upper exponent bits */
		tables[at + 11] = (uint8_t)(tables[at + 11] % 64 + 16);
	at += LAYER_HEAD + (raw ? 0 : 64);
	end = at + 64 * classes * rows;
	if (what & FIX_FREQUENCIES)
		for (; at + 32 <= length && at < end; at += 32)
			fix_sum(tables + at);
	return end + (columns * (classes / 2) + 7) / 8;
}

static void fix_tables(uint8_t *tables, size_t length, unsigned layers, unsigned what)
{
	size_t at = TABLES_HEAD;

	if (what & FIX_LAYERS)
		tables[0] = (uint8_t)layers;
	for (unsigned l = 0; l < layers && at <= length && length - at >= LAYER_HEAD; l++)
		at = fix_layer(tables, length, at, what);
}

/* Makes chunks of whole rows of tiles, where these are not too long. */
static void fix_tiles(const uint8_t *tables, size_t *elements, uint64_t *first)
{
	uint64_t rows = UINT64_C(1) << (tables[1] & 7), unit = UINT64_C(1) << (tables[2] & 7);

	if (rows > 1)
		unit = rows * hct_load32(tables + 4);
	if (!unit || unit > UINT32_C(1) << 18)
		return;
	*elements = (*elements + unit - 1) / unit * unit;
	*first -= *first % unit;
}

/* Walks along the segments of a payload as far as the lengths make sense. */
static void fix_states(uint8_t *payload, size_t length, const uint8_t *tables, const uint8_t *layer,
		       size_t elements)
{
	size_t segment = (size_t)1 << (tables[3] & 31),
	       segments = (elements + segment - 1) / segment;
	size_t at = 12 * segments;
	unsigned bits = 0;

	while (1u << bits < layer[2])
		bits++;
	for (size_t i = 0; i < segments && at + 2 * STATES <= length; i++) {
		size_t m = elements - i * segment < segment ? elements - i * segment : segment;
		size_t groups = (m + 63) / 64, run = (size_t)1 << (layer[3] & 31);

		for (size_t lane = 0; lane < STATES; lane++)
			if (!payload[at + 2 * lane + 1])
				payload[at + 2 * lane + 1] = 1;
		at += 2 * STATES + ((groups + run - 1) / run * bits + 7) / 8;
		for (size_t part = 0; part < 3; part++)
			at += hct_load32(payload + 12 * i + 4 * part);
		at += 8 * groups * layer[4];
	}
}

/* Cuts what is left of the input into payloads of the layers. */
static void take_payloads(struct fuzz_input *in, struct fuzz_chunk *c)
{
	size_t lengths[MAX_LAYERS];

	for (unsigned l = 0; l + 1 < c->layer_count; l++)
		lengths[l] = fuzz_number(in, 2);
	lengths[c->layer_count - 1] = in->size;
	for (unsigned l = 0; l < c->layer_count; l++) {
		const uint8_t *p = fuzz_take(in, &lengths[l]);
		uint8_t *own = fuzz_alloc(lengths[l]);

		memcpy(own, p, lengths[l]);
		c->layers[l] = (struct hct_payload){own, lengths[l]};
	}
}

static void fix_payloads(struct fuzz_chunk *c, uint8_t *tables, size_t length, size_t elements)
{
	size_t at = TABLES_HEAD;

	for (unsigned l = 0; l < c->layer_count && at <= length && length - at >= LAYER_HEAD; l++) {
		fix_states((uint8_t *)c->layers[l].data, c->layers[l].length, tables, tables + at,
			   elements);
		at = fix_layer(tables, length, at, 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	unsigned dtype = fuzz_number(&in, 1) % FUZZ_FLOATS;
	unsigned what = fuzz_number(&in, 1);
	unsigned layers = fuzz_number(&in, 1) % MAX_LAYERS + 1;
	size_t elements = fuzz_number(&in, 3) % (1u << 18) + 1;
	uint64_t first = fuzz_number(&in, 3);
	size_t tables_length = fuzz_number(&in, 2);
	struct fuzz_chunk c = {.codec = &hct_codec_tcq, .layer_count = layers};
	const uint8_t *p = fuzz_take(&in, &tables_length);
	uint8_t *tables = fuzz_alloc(tables_length);
	size_t shortest;

	memcpy(tables, p, tables_length);
	take_payloads(&in, &c);
	if (tables_length >= TABLES_HEAD) {
		fix_tables(tables, tables_length, layers, what);
		if (what & FIX_TILES)
			fix_tiles(tables, &elements, &first);
		if (what & FIX_STATES)
			fix_payloads(&c, tables, tables_length, elements);
	}
	fuzz_place(&c, dtype, first, elements);
	c.params = tables;
	c.params_length = tables_length;
	shortest = c.layers[0].length;
	for (unsigned l = 1; l < layers; l++)
		if (c.layers[l].length < shortest)
			shortest = c.layers[l].length;
	if (shortest) /* an extent has at least one byte */
		fuzz_all_variants(&c);
	for (unsigned l = 0; l < layers; l++)
		free((void *)c.layers[l].data);
	free(tables);
	return 0;
}
