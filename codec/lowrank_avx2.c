#if defined __x86_64__

#define LANES   8
#define VECTORS 2
#include "lowrank_kernel.h"

void hct_lowrank_multiply_avx2(const float *u, size_t rows, size_t rank, const float *v,
			       size_t pitch, size_t columns, float *w)
{
	multiply(u, rows, rank, v, pitch, columns, w);
}

#endif
