/* Which instruction set decodes. */
#include <stdlib.h>
#include <string.h>

#include "reader.h"

static const char *const names[] = {"auto", "scalar", "avx2", "avx512"};

const char *hct_simd_name(hct_simd s)
{
	return (unsigned)s < sizeof names / sizeof *names ? names[s] : "?";
}

int hct_simd_supported(hct_simd s)
{
	switch (s) {
	case HCT_SIMD_AUTO:
	case HCT_SIMD_SCALAR:
		return 1;
#if defined __x86_64__
	case HCT_SIMD_AVX2:
		return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
		       __builtin_cpu_supports("popcnt");
	case HCT_SIMD_AVX512:
		return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
		       __builtin_cpu_supports("avx512vbmi") &&
		       __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("bmi2") &&
		       __builtin_cpu_supports("popcnt");
#else
	case HCT_SIMD_AVX2:
	case HCT_SIMD_AVX512:
		return 0;
#endif
	}
	return 0;
}

hct_simd hct_simd_best(void)
{
	const char *forced = getenv("HCT_SIMD");

	/* A variant that this CPU lacks is ignored rather than crashed into. */
	for (int s = HCT_SIMD_SCALAR; forced && s <= HCT_SIMD_AVX512; s++)
		if (!strcmp(forced, names[s]) && hct_simd_supported((hct_simd)s))
			return (hct_simd)s;
	for (int s = HCT_SIMD_AVX512; s > HCT_SIMD_SCALAR; s--)
		if (hct_simd_supported((hct_simd)s))
			return (hct_simd)s;
	return HCT_SIMD_SCALAR;
}
