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

/* What HCT_SIMD asks for: HCT_SIMD_AUTO when it is not set, -1 when it is no name. */
static int forced(const char **text)
{
	*text = getenv("HCT_SIMD");
	if (!*text || !**text)
		return HCT_SIMD_AUTO;
	for (int s = HCT_SIMD_AUTO; s <= HCT_SIMD_AVX512; s++)
		if (!strcmp(*text, names[s]))
			return s;
	return -1;
}

hct_error hct_simd_check_environment(struct hct_diag *diag)
{
	const char *text;
	int s = forced(&text);

	if (s < 0)
		return hct_fail(diag, HCT_ERR_ARGUMENT,
				"HCT_SIMD=%s is ignored: it can be scalar, avx2 or avx512", text);
	if (!hct_simd_supported((hct_simd)s))
		return hct_fail(diag, HCT_ERR_UNSUPPORTED,
				"HCT_SIMD=%s is ignored: this CPU does not have it", text);
	return HCT_OK;
}

hct_simd hct_simd_best(void)
{
	const char *text;
	int s = forced(&text);

	/* A variant that this CPU lacks is ignored rather than crashed into. */
	if (s > HCT_SIMD_AUTO && hct_simd_supported((hct_simd)s))
		return (hct_simd)s;
	for (s = HCT_SIMD_AVX512; s > HCT_SIMD_SCALAR; s--)
		if (hct_simd_supported((hct_simd)s))
			return (hct_simd)s;
	return HCT_SIMD_SCALAR;
}
