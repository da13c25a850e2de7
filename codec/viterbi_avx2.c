#if defined __x86_64__

#include "viterbi_kernel.h"

void hct_viterbi_search_avx2(const struct hct_viterbi *v, struct hct_viterbi_segment *s,
			     void *scratch)
{
	search(v, s, scratch);
}

#endif
