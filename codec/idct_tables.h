/* Internal: the constants of the inverse DCT, c[N/2 - 1 + n] = 1 / (2 cos(pi (2n+1) / (2N))) for
 * N = 2, 4 ... 64 and n < N/2, rounded to float32.  Written out, because libraries of mathematics
 * differ in the last bit. */
#ifndef HCT_IDCT_TABLES_H
#define HCT_IDCT_TABLES_H

#include "inline.h"

#define HCT_IDCT_SQRT_HALF 0x1.6a09e6p-1f

HCT_CONSTANT float hct_idct_c[63] = {
	/* N = 2 */
	0x1.6a09e6p-1f,
	/* N = 4 */
	0x1.1517a8p-1f,
	0x1.4e7aeap+0f,
	/* N = 8 */
	0x1.0503eep-1f,
	0x1.33e37ap-1f,
	0x1.ccc9aep-1f,
	0x1.480d9ep+1f,
	/* N = 16 */
	0x1.013d1ap-1f,
	0x1.0b84f0p-1f,
	0x1.22467ep-1f,
	0x1.4b2c3ap-1f,
	0x1.938900p-1f,
	0x1.0f8892p+0f,
	0x1.b8f24cp+0f,
	0x1.467938p+2f,
	/* N = 32 */
	0x1.004f0ap-1f,
	0x1.02cd16p-1f,
	0x1.07e8b6p-1f,
	0x1.0fe4d0p-1f,
	0x1.1b3070p-1f,
	0x1.2a7674p-1f,
	0x1.3eb8dcp-1f,
	0x1.59807ap-1f,
	0x1.7d33dcp-1f,
	0x1.adbf3cp-1f,
	0x1.f1f476p-1f,
	0x1.2b606ap+0f,
	0x1.7bf236p+0f,
	0x1.07655ep+1f,
	0x1.b42c84p+1f,
	0x1.46148cp+3f,
	/* N = 64 */
	0x1.0013bep-1f,
	0x1.00b20ep-1f,
	0x1.01f098p-1f,
	0x1.03d342p-1f,
	0x1.06600ap-1f,
	0x1.099f32p-1f,
	0x1.0d9b8ap-1f,
	0x1.1262c6p-1f,
	0x1.1805f4p-1f,
	0x1.1e9a26p-1f,
	0x1.263934p-1f,
	0x1.2f02d6p-1f,
	0x1.391e0cp-1f,
	0x1.44baf8p-1f,
	0x1.521570p-1f,
	0x1.617874p-1f,
	0x1.734300p-1f,
	0x1.87eedap-1f,
	0x1.a01a7ep-1f,
	0x1.bc97aep-1f,
	0x1.de81bep-1f,
	0x1.03b042p+0f,
	0x1.1cb0bap+0f,
	0x1.3bdc76p+0f,
	0x1.63a8c4p+0f,
	0x1.980e92p+0f,
	0x1.dfeac4p+0f,
	0x1.241a38p+1f,
	0x1.765a3ap+1f,
	0x1.056a44p+2f,
	0x1.b2fdf6p+2f,
	0x1.45fb68p+4f,
};

#endif
