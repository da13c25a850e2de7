/* The dtypes that the codecs with loss code, for their fuzz targets. */
#ifndef HCT_FUZZ_FLOATS_H
#define HCT_FUZZ_FLOATS_H

#include "fuzz_chunk.h"

/* In the order of LOSSY_DTYPES in seeds.py. */
static const struct {
	hct_dtype dtype;
	unsigned bytes;
} fuzz_floats[] = {
	{HCT_DTYPE_BF16, 2},        {HCT_DTYPE_F16, 2},         {HCT_DTYPE_F32, 4},
	{HCT_DTYPE_F64, 8},         {HCT_DTYPE_F8_E5M2, 1},     {HCT_DTYPE_F8_E4M3, 1},
	{HCT_DTYPE_F8_E5M2FNUZ, 1}, {HCT_DTYPE_F8_E4M3FNUZ, 1},
};

#define FUZZ_FLOATS (sizeof fuzz_floats / sizeof fuzz_floats[0])

/* Makes the chunk one of `elements` elements from number `first` on, of a tensor that ends with
 * it.  number: of its dtype, below FUZZ_FLOATS. */
static inline void fuzz_place(struct fuzz_chunk *c, unsigned number, uint64_t first,
			      size_t elements)
{
	c->tensor.name = "w";
	c->tensor.dtype = fuzz_floats[number].dtype;
	c->tensor.dtype_name = hct_dtype_name(c->tensor.dtype);
	c->length = elements * fuzz_floats[number].bytes;
	c->offset = first * fuzz_floats[number].bytes;
	c->tensor.end = c->offset + c->length;
	c->tensor.elements = first + elements;
}

#endif
