/* Internal: the class map of a segment (FORMAT.md section 4), which the split and the tcq codec
 * share: for each run of 2^run_log2 groups the number of its class, in as few bits as the classes
 * of the tensor need. */
#ifndef HCT_CLASSMAP_H
#define HCT_CLASSMAP_H

#include <stddef.h>
#include <stdint.h>

#include "inline.h"

/* Bits of a class in the map. */
HCT_INLINE unsigned hct_class_bits(unsigned class_count)
{
	return class_count > 1 ? 32u - hct_clz32(class_count - 1) : 0;
}

HCT_INLINE size_t hct_class_runs(unsigned run_log2, size_t groups)
{
	return (groups + ((size_t)1 << run_log2) - 1) >> run_log2;
}

/* Bytes of the map of a segment. */
HCT_INLINE size_t hct_class_map_bytes(unsigned class_count, unsigned run_log2, size_t groups)
{
	return (hct_class_runs(run_log2, groups) * hct_class_bits(class_count) + 7) / 8;
}

/* Spreads a map to one byte a run; -1 when it names a class that there is not.  class_count: at
 * most 256. */
int hct_class_map_unpack(const uint8_t *bits, unsigned class_count, unsigned run_log2,
			 size_t groups, uint8_t *map);

/* The other way, of classes that there are; returns the end of what it wrote, which is
 * hct_class_map_bytes() long. */
uint8_t *hct_class_map_pack(const uint8_t *map, unsigned class_count, unsigned run_log2,
			    size_t groups, uint8_t *out);

#endif
