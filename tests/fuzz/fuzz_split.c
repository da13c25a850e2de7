/* Fuzzes the codec split.
 *
 * Input: u8 dtype; u8 what to put right; u24 elements of the chunk; u24 number of its first
 * element; u16 length of the tables (0xffff: one MiB and some); tables; payload.
 *
 * Few mutations keep the rules of section 4, so three of them are kept on demand: the
 * frequencies sum to 256, start states are at least 256, the tail fills the payload. */
#include "fuzz_chunk.h"

enum { FIX_FREQUENCIES = 1, FIX_STATES = 2, FIX_TAIL = 4 };

static const struct {
	hct_dtype dtype;
	unsigned bytes, joint, fields, exponent;
} layouts[] = {
	{HCT_DTYPE_BF16, 2, 1, 7, 8},        {HCT_DTYPE_F16, 2, 1, 2, 5},
	{HCT_DTYPE_F32, 4, 1, 7, 8},         {HCT_DTYPE_C64, 4, 1, 7, 8},
	{HCT_DTYPE_F64, 8, 1, 4, 11},        {HCT_DTYPE_F8_E5M2, 1, 1, 2, 5},
	{HCT_DTYPE_F8_E4M3, 1, 2, 2, 4},     {HCT_DTYPE_F8_E5M2FNUZ, 1, 1, 2, 5},
	{HCT_DTYPE_F8_E4M3FNUZ, 1, 2, 2, 4},
};

#define LAYOUTS (sizeof layouts / sizeof layouts[0])

/* Takes from, or adds to, the frequencies of each class until they sum to 256. */
static void fix_frequencies(uint8_t *tables, size_t length, unsigned joint)
{
	size_t at = 8 + 2 * (64u >> joint) + 30;

	for (unsigned k = 0; k < tables[0] && at + 64 <= length; k++, at += 64) {
		int left = 256;

		for (int s = 0; s < 64; s++) {
			if (tables[at + s] > left)
				tables[at + s] = (uint8_t)left;
			left -= tables[at + s];
		}
		for (int s = 0; s < 64 && left; s++) {
			int more = 255 - tables[at + s] < left ? 255 - tables[at + s] : left;

			tables[at + s] = (uint8_t)(tables[at + s] + more);
			left -= more;
		}
	}
}

/* Walks along the segments as far as the lengths make sense. */
static void fix_payload(uint8_t *payload, size_t length, const uint8_t *tables, size_t elements,
			unsigned layout, unsigned what)
{
	size_t segment = (size_t)1 << (tables[2] & 31),
	       segments = (elements + segment - 1) / segment;
	size_t at = 8 + 12 * segments;
	unsigned bits = 0;

	while (1u << bits < tables[0])
		bits++;
	for (size_t i = 0; i < segments && at + 128 <= length; i++) {
		size_t m = elements - i * segment < segment ? elements - i * segment : segment;
		size_t groups = (m + 63) / 64, run = (size_t)1 << (tables[1] & 31);
		const uint8_t *lengths = payload + 8 + 12 * i;

		for (size_t lane = 0; what & FIX_STATES && lane < 64; lane++)
			if (!payload[at + 2 * lane + 1])
				payload[at + 2 * lane + 1] = 1;
		at += 128 + ((groups + run - 1) / run * bits + 7) / 8;
		for (int part = 0; part < 3; part++)
			at += hct_load32(lengths + 4 * part);
		at += 8 * layouts[layout].fields * groups;
	}
	if (what & FIX_TAIL && at <= length)
		hct_store32(payload + 4, (uint32_t)(length - at));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	unsigned layout = fuzz_number(&in, 1) % LAYOUTS;
	unsigned what = fuzz_number(&in, 1);
	size_t elements = fuzz_number(&in, 3) % (1u << 18) + 1;
	uint64_t first = fuzz_number(&in, 3);
	size_t tables_length = fuzz_number(&in, 2);
	struct fuzz_chunk c = {.codec = &hct_codec_split};
	uint8_t *tables, *payload;
	const uint8_t *p;

	if (tables_length == 0xffff)
		tables_length = in.size;
	p = fuzz_take(&in, &tables_length);
	tables = fuzz_alloc(tables_length);
	memcpy(tables, p, tables_length);
	payload = fuzz_alloc(in.size);
	memcpy(payload, in.data, in.size);
	if (tables_length >= 8 && what & FIX_FREQUENCIES)
		fix_frequencies(tables, tables_length, layouts[layout].joint);
	if (tables_length >= 8)
		fix_payload(payload, in.size, tables, elements, layout, what);
	if (layouts[layout].dtype == HCT_DTYPE_C64) /* of two halves */
		elements += elements & 1, first &= ~(uint64_t)1;

	c.tensor.name = "w";
	c.tensor.dtype = layouts[layout].dtype;
	c.tensor.dtype_name = hct_dtype_name(c.tensor.dtype);
	c.length = elements * layouts[layout].bytes;
	c.offset = first * layouts[layout].bytes;
	c.tensor.end = c.offset + c.length;
	c.tensor.elements = c.tensor.end / hct_dtype_unit(c.tensor.dtype);
	c.params = tables;
	c.params_length = tables_length;
	c.layers[0] = (struct hct_payload){payload, in.size};
	c.layer_count = 1;
	if (in.size)
		fuzz_all_variants(&c);
	free(tables);
	free(payload);
	return 0;
}
