/* Fuzzes the codec zstd.  Input: u16 decoded length, then the payload. */
#include "fuzz_chunk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct fuzz_chunk c = {.codec = &hct_codec_zstd};

	c.length = fuzz_number(&in, 2) + 1u;
	if (!in.size)
		return 0; /* an extent has at least one byte */
	c.tensor.name = "w";
	c.tensor.dtype_name = "U8";
	c.tensor.dtype = HCT_DTYPE_U8;
	c.tensor.elements = c.tensor.end = c.length;
	c.layers[0] = (struct hct_payload){in.data, in.size};
	c.layer_count = 1;
	fuzz_all_variants(&c);
	return 0;
}
