#include "dequant.h"

#if defined __x86_64__
#include <cpuid.h>
#endif

#include "dequant_kernel.h"

void hct_dequant_init(struct hct_dequant *q, const struct hct_tcq_layer *l)
{
	q->raw_bits = l->raw_bits;
	q->step = l->step;
	q->fine = l->step * 0x1p-6f;
	for (int i = 0; i < HCT_TCQ_POINTS; i++) {
		int symbol = i % HCT_TCQ_SYMBOLS, parity = i / HCT_TCQ_SYMBOLS;
		int n = 64 * (2 * (symbol - HCT_TCQ_ZERO) + parity) + l->offset[i];

		q->point[i] = hct_tcq_value(l->step, n);
		q->low[i] = (uint8_t)(n & 255);
		q->high[i] = (uint8_t)(n >> 8 & 255);
	}
}

INLINE float value(const struct hct_dequant *q, unsigned code, unsigned raw)
{
	float v = hct_tcq_raw_value(q->step, q->raw_bits, code / HCT_TCQ_SYMBOLS & 1,
				    code % HCT_TCQ_SYMBOLS, raw);

	return q->raw_bits ? v : q->point[code % HCT_TCQ_POINTS];
}

float hct_dequant_value(const struct hct_dequant *q, const uint8_t *codes, const uint8_t *raw,
			unsigned i)
{
	unsigned at = hct_position(i), bits = 0;

	for (unsigned b = 0; b < q->raw_bits; b++)
		bits |= (raw[8 * b + at / 8] >> at % 8 & 1u) << b;
	return value(q, codes[at], bits);
}

static void floats(const struct hct_dequant *q, const uint8_t *codes, const uint8_t *raw,
		   size_t groups, float *dst)
{
	for (size_t g = 0; g < groups; g++, codes += HCT_GROUP, dst += HCT_GROUP) {
		uint64_t planes[HCT_TCQ_MAX_RAW];

		for (unsigned i = 0; i < q->raw_bits; i++, raw += 8)
			planes[i] = hct_load64(raw);
		for (unsigned i = 0; i < HCT_GROUP; i++) {
			unsigned at = hct_position(i), bits = 0;

			for (unsigned b = 0; b < q->raw_bits; b++)
				bits |= (unsigned)(planes[b] >> at & 1) << b;
			dst[i] = value(q, codes[at], bits);
		}
	}
}

DIRECT(bf16, 2)
DIRECT(f16, 2)
DIRECT(e5m2, 1)
DIRECT(e4m3, 1)
DIRECT(e5m2fnuz, 1)
DIRECT(e4m3fnuz, 1)

const struct hct_dequant_loops hct_dequant_scalar = {
	.floats = floats,
	.add = add_floats,
	.direct = {[HCT_DTYPE_BF16] = direct_bf16,
		   [HCT_DTYPE_F16] = direct_f16,
		   [HCT_DTYPE_F8_E5M2] = direct_e5m2,
		   [HCT_DTYPE_F8_E4M3] = direct_e4m3,
		   [HCT_DTYPE_F8_E5M2FNUZ] = direct_e5m2fnuz,
		   [HCT_DTYPE_F8_E4M3FNUZ] = direct_e4m3fnuz},
	.narrow = NARROW_LOOPS};

/* Not every compiler's __builtin_cpu_supports knows it. */
static int has_f16c(void)
{
#if defined __x86_64__
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
#else
	return 0;
#endif
}

void hct_direct_init(struct hct_direct *t, const struct hct_tcq_layer *l, hct_dtype dtype)
{
	memset(t, 0, sizeof *t);
	hct_dequant_init(&t->values, l);
	/* Asked only where it counts: a virtual machine may take long to answer. */
	t->f16c = dtype == HCT_DTYPE_F16 && l->raw_bits && has_f16c();
	if (l->raw_bits > HCT_DEQUANT_LOOK_RAW)
		return;
	for (unsigned i = 0; i < (unsigned)HCT_TCQ_POINTS << l->raw_bits; i++) {
		float v = value(&t->values, i % HCT_TCQ_POINTS, i / HCT_TCQ_POINTS);
		uint8_t element[2] = {0};

		hct_dequant_scalar.narrow[dtype](&v, 1, element);
		t->low[i] = element[0];
		t->high[i] = element[1];
	}
}

int hct_dequant_has_bf16(void)
{
#if defined __x86_64__
	return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("gfni");
#else
	return 0;
#endif
}

const struct hct_dequant_loops *hct_dequant_find(hct_simd simd)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		return hct_dequant_has_bf16() ? &hct_dequant_avx512_bf16 : &hct_dequant_avx512;
	if (simd == HCT_SIMD_AVX2)
		return &hct_dequant_avx2;
#endif
	(void)simd;
	return &hct_dequant_scalar;
}
