#include "int4.h"

#include <math.h>
#include <string.h>

#include "dequant.h"

/* The steps from 0 at which the largest magnitude of a block is put.  The scale's sign makes it
 * negative, so 8 fits; more than that clips it for a finer scale.  The others give it the side
 * of 7. */
static const float places[] = {-7.3f, -7.8f, -8.3f, -8.8f, -9.4f, -10.1f, 6.9f, 7.4f};

uint16_t hct_half_round(float x)
{
	uint8_t out[2];

	hct_dequant_scalar.narrow[HCT_DTYPE_F16](&x, 1, out);
	return (uint16_t)(out[0] | out[1] << 8);
}

/* The integers for a scale, as floats; returns the squared error. */
static float try_scale(const float x[HCT_COEF_BLOCK], float scale, float q[HCT_COEF_BLOCK])
{
	const float inverse = 1 / scale, magic = 0x1.8p23f; /* rounds to integers when added */
	float sum[8] = {0};

	for (unsigned i = 0; i < HCT_COEF_BLOCK; i++) {
		float v = x[i] * inverse;

		v = v > 7 ? 7 : v;
		v = v < -8 ? -8 : v;
		q[i] = (v + magic) - magic;
	}
	for (unsigned i = 0; i < HCT_COEF_BLOCK; i += 8)
		for (unsigned j = 0; j < 8; j++) {
			float d = x[i + j] - q[i + j] * scale;

			sum[j] += d * d;
		}
	return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/* What is known of the best scale so far. */
struct best {
	float error, scale;
	uint16_t half;
	float q[HCT_COEF_BLOCK];
};

/* Tries the FP16 number nearest to a scale. */
static void consider(const float x[HCT_COEF_BLOCK], float scale, struct best *best)
{
	struct best rival = {.half = hct_half_round(scale)};

	rival.scale = hct_half_value(rival.half);
	if (rival.scale == 0)
		return;
	rival.error = try_scale(x, rival.scale, rival.q);
	if (rival.error < best->error)
		*best = rival;
}

double hct_int4_block(float x[HCT_COEF_BLOCK], unsigned n, uint16_t *scale,
		      int8_t q[HCT_COEF_BLOCK])
{
	struct best best = {.error = 0};
	float top = 0, xq = 0, qq = 0;

	for (unsigned i = n; i < HCT_COEF_BLOCK; i++)
		x[i] = 0;
	for (unsigned i = 0; i < n; i++) {
		top = fabsf(x[i]) > fabsf(top) ? x[i] : top;
		best.error += x[i] * x[i];
	}
	if (top != 0)
		for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
			consider(x, top / places[i], &best);
	/* The scale that suits these integers best. */
	for (unsigned i = 0; i < n; i++) {
		xq += x[i] * best.q[i];
		qq += best.q[i] * best.q[i];
	}
	if (qq > 0)
		consider(x, xq / qq, &best);
	*scale = best.half;
	for (unsigned i = 0; i < HCT_COEF_BLOCK; i++)
		q[i] = (int8_t)best.q[i];
	return best.error;
}
