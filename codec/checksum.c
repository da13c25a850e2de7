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

/* xxHash's state under a name of our own: with XXH_INLINE_ALL its type is private here. */
static XXH3_state_t *inner(struct hct_checksum_state *s)
{
	return (XXH3_state_t *)s;
}

struct hct_checksum_state *hct_checksum_begin(void)
{
	XXH3_state_t *s = XXH3_createState();

	if (s)
		XXH3_64bits_reset(s);
	return (struct hct_checksum_state *)s;
}

void hct_checksum_add(struct hct_checksum_state *s, const void *data, size_t length)
{
	XXH3_64bits_update(inner(s), data, length);
}

uint64_t hct_checksum_end(struct hct_checksum_state *s)
{
	uint64_t sum = s ? XXH3_64bits_digest(inner(s)) : 0;

	XXH3_freeState(inner(s));
	return sum;
}
