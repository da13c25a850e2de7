/* Rates by the size of the tensor. */
#include <stdio.h>
#include <stdlib.h>

#include "groups.h"
#include "noise.h"

void group_scaling(struct bench *b)
{
	uint64_t largest = b->quick ? 1 << 22 : 1 << 26;
	float *x = noise_white(largest / 1024, 1024);

	printf("size of one white Gaussian matrix as %s, D = .0146\n", b->dtype ? b->dtype : "F32");
	rows_head("");
	for (uint64_t n = 1 << 16; n <= largest; n *= 4) {
		struct hct_goal goal = {.relative_squared_error = .0146};
		struct trial t;
		struct model m;
		char name[64];

		model_of_matrix(x, n / 1024, 1024, b->dtype, &m);
		if (n < 1 << 20)
			snprintf(name, sizeof name, "%llu Ki weights",
				 (unsigned long long)(n >> 10));
		else
			snprintf(name, sizeof name, "%llu Mi weights",
				 (unsigned long long)(n >> 20));
		trial_run(&m, &goal, HCT_SIMD_AUTO, n < 1 << 23 ? b->rounds : 1, &t);
		rows_add(b, name, NULL, NULL, &t);
		rows_end(&m, &t, .0146);
		trial_free(&t);
		model_free(&m);
	}
	free(x);
}
