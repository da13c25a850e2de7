/* Fuzzes the codecs coef and lowrank.
 *
 * Input: u8 codec, even for coef; u8 dtype; u24 elements of the chunk less one; u24 number of its
 * first element; u16 length of the tables; tables; payload.
 *
 * Chunks of lowrank are made whole rows where the tables say how long these are. */
#include "codec/codec.h"
#include "fuzz_chunk.h"
#include "fuzz_floats.h"

#define MAX_ELEMENTS (1u << 16)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	int lowrank = fuzz_number(&in, 1) & 1;
	unsigned dtype = fuzz_number(&in, 1) % FUZZ_FLOATS;
	size_t elements = fuzz_number(&in, 3) % MAX_ELEMENTS + 1;
	uint64_t first = fuzz_number(&in, 3);
	size_t tables_length = fuzz_number(&in, 2);
	struct fuzz_chunk c = {.codec = lowrank ? &hct_codec_lowrank : &hct_codec_coef,
			       .layer_count = 1};
	const uint8_t *p = fuzz_take(&in, &tables_length);
	uint8_t *tables = fuzz_alloc(tables_length);

	memcpy(tables, p, tables_length);
	if (lowrank && tables_length >= 8) {
		uint32_t columns = hct_load32(tables + 4);

		if (columns && columns <= MAX_ELEMENTS) {
			elements = (elements + columns - 1) / columns * columns;
			first -= first % columns;
		}
	}
	fuzz_place(&c, dtype, first, elements);
	c.params = tables;
	c.params_length = tables_length;
	c.layers[0] = (struct hct_payload){in.data, in.size};
	if (in.size) /* an extent has at least one byte */
		fuzz_all_variants(&c);
	free(tables);
	return 0;
}
