/* Cosine transforms of short vectors, in the registers of a thread, by the recursion that splits
 * with rotations only (G. Plonka and M. Tasche, "Fast and numerically stable algorithms for
 * discrete cosine transforms", Linear Algebra Appl. 394, 2005): its errors hardly grow with the
 * length, while Lee's, which divides by cosines, lose four bits at 64.
 *
 * All are without factors.  Every loop has bounds that are constant, so that arrays become
 * registers. */
#ifndef HCT_GPU_DCT_SHORT_CUH
#define HCT_GPU_DCT_SHORT_CUH

#include <cuda_runtime.h>

#define SHORT_MOST 64
#define SQRT_HALF  0.70710678f

/* Of pi (2 i + 1) / (4 n), at n / 2 - 1 + i, for n = 2, 4 ... SHORT_MOST and i < n / 2. */
struct short_angles {
	float cosine[SHORT_MOST - 1], sine[SHORT_MOST - 1];

	constexpr short_angles() : cosine(), sine()
	{
		for (int n = 2; n <= SHORT_MOST; n *= 2)
			for (int i = 0; i < n / 2; i++) {
				double x = 3.14159265358979323846 * (2 * i + 1) / (4 * n);
				double even = 1, odd = x, c = 1, s = x;

				/* their series; x is below pi / 4 */
				for (int k = 2; k < 24; k += 2) {
					even *= -x * x / (k * (k - 1));
					odd *= -x * x / (k * (k + 1));
					c += even;
					s += odd;
				}
				cosine[n / 2 - 1 + i] = (float)c;
				sine[n / 2 - 1 + i] = (float)s;
			}
	}
};

__constant__ const short_angles angles;

template <unsigned N> __device__ __forceinline__ void short_four(float *x);

/* DCT-II, X(k) = sum of x(i) cos(pi (2 i + 1) k / (2 N)): the even coefficients are its own of the
 * sums of opposite numbers, the odd ones the DCT-IV of their differences. */
template <unsigned N> __device__ __forceinline__ void short_two(float *x)
{
	if constexpr (N > 1) {
		constexpr unsigned H = N / 2;
		float even[H], odd[H];

#pragma unroll
		for (unsigned i = 0; i < H; i++) {
			even[i] = x[i] + x[N - 1 - i];
			odd[i] = x[i] - x[N - 1 - i];
		}
		short_two<H>(even);
		short_four<H>(odd);
#pragma unroll
		for (unsigned i = 0; i < H; i++) {
			x[2 * i] = even[i];
			x[2 * i + 1] = odd[i];
		}
	}
}

/* DCT-III, its transpose. */
template <unsigned N> __device__ __forceinline__ void short_three(float *x)
{
	if constexpr (N > 1) {
		constexpr unsigned H = N / 2;
		float even[H], odd[H];

#pragma unroll
		for (unsigned i = 0; i < H; i++) {
			even[i] = x[2 * i];
			odd[i] = x[2 * i + 1];
		}
		short_three<H>(even);
		short_four<H>(odd);
#pragma unroll
		for (unsigned i = 0; i < H; i++) {
			x[i] = even[i] + odd[i];
			x[N - 1 - i] = even[i] - odd[i];
		}
	}
}

/* DCT-IV, X(k) = sum of x(i) cos(pi (2 i + 1) (2 k + 1) / (4 N)).  With C, the DCT-II of opposite
 * numbers turned by their angle, and S(k), the sum of what that turn leaves times
 * sin(pi (2 i + 1) k / N): X(2 k) = C(k) - S(k) and X(2 k - 1) = C(k) + S(k).  S(N / 2 - k) is a
 * DCT-II, too, when every second sign is changed. */
template <unsigned N> __device__ __forceinline__ void short_four(float *x)
{
	if constexpr (N == 1) {
		x[0] *= SQRT_HALF;
	} else {
		constexpr unsigned H = N / 2;
		float c[H], s[H];

#pragma unroll
		for (unsigned i = 0; i < H; i++) {
			float cosine = angles.cosine[H - 1 + i], sine = angles.sine[H - 1 + i];
			float a = x[i], b = x[N - 1 - i];

			c[i] = fmaf(a, cosine, b * sine);
			s[i] = i % 2 ? fmaf(b, cosine, -(a * sine)) : fmaf(a, sine, -(b * cosine));
		}
		short_two<H>(c);
		short_two<H>(s);
		x[0] = c[0];
		x[N - 1] = s[0];
#pragma unroll
		for (unsigned k = 1; k < H; k++) {
			x[2 * k] = c[k] - s[H - k];
			x[2 * k - 1] = c[k] + s[H - k];
		}
	}
}

#endif
