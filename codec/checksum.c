#include "checksum.h"

#include "reader.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Below this the variants do not differ. */
#define SHORT 1024

uint64_t hct_checksum(const void *data, size_t length)
{
#if defined __x86_64__
	if (length > SHORT && hct_simd_supported(HCT_SIMD_AVX512))
		return hct_checksum_avx512(data, length);
	if (length > SHORT && hct_simd_supported(HCT_SIMD_AVX2))
		return hct_checksum_avx2(data, length);
#endif
	return XXH3_64bits(data, length);
}
