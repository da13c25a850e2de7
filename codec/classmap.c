#include "classmap.h"

#include <string.h>

int hct_class_map_unpack(const uint8_t *bits, unsigned class_count, unsigned run_log2,
			 size_t groups, uint8_t *map)
{
	size_t runs = hct_class_runs(run_log2, groups);
	unsigned width = hct_class_bits(class_count), top = 0;

	for (size_t r = 0; r < runs; r++) {
		size_t at = r * width;
		unsigned v = 0;

		if (width)
			v = (bits[at / 8] | bits[(at + width - 1) / 8] << 8) >> at % 8;
		map[r] = (uint8_t)(v & ((1u << width) - 1));
		top = map[r] > top ? map[r] : top;
	}
	return top < class_count ? 0 : -1;
}

uint8_t *hct_class_map_pack(const uint8_t *map, unsigned class_count, unsigned run_log2,
			    size_t groups, uint8_t *out)
{
	size_t bytes = hct_class_map_bytes(class_count, run_log2, groups);
	size_t runs = hct_class_runs(run_log2, groups);
	unsigned width = hct_class_bits(class_count);

	memset(out, 0, bytes);
	for (size_t r = 0; width && r < runs; r++) {
		size_t at = r * width;

		out[at / 8] |= (uint8_t)(map[r] << at % 8);
		if (at % 8 + width > 8)
			out[at / 8 + 1] |= (uint8_t)(map[r] >> (8 - at % 8));
	}
	return out + bytes;
}
