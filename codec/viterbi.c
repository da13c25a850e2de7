#include "viterbi_kernel.h"

/* What it costs at most: 5 branches lead from any state to any other, so that the metrics of two
 * states differ by 5 of these, which must stay below NEVER, and sums that are compared by 6, below
 * 32768. */
#define MAX_COST 5400
/* What a bit costs at least.  Where nearly all values are lost in the step, lambda is next to
 * nothing; but of paths with hardly any error that with the fewest bits is still to be found. */
#define MIN_BIT 8

void hct_viterbi_init(struct hct_viterbi *v, const struct hct_tcq_layer *layer, float lambda)
{
	float unit = 256 * lambda > MIN_BIT ? 256 * lambda : MIN_BIT, dearest = 0;

	memset(v, 0, sizeof *v);
	v->states_log2 = layer->states_log2;
	v->raw_bits = layer->raw_bits;
	v->column_classes = layer->column_classes;
	v->row_classes = layer->row_classes;
	v->step = layer->step;
	for (unsigned s = 0; s < HCT_TCQ_MAX_STATES && s < 1u << layer->states_log2; s++)
		for (unsigned z = 0; z < 2; z++)
			v->prev[s][z] = (uint8_t)hct_viterbi_prev(layer->states_log2, s, z);
	for (unsigned p = 0; p < 2; p++)
		for (unsigned s = 0; s < HCT_TCQ_SYMBOLS; s++)
			v->offset[p][s] = layer->offset[32 * p + s];
	for (unsigned k = 0; k < layer->row_classes; k++)
		for (unsigned q = 0; q < layer->column_classes; q++)
			for (unsigned p = 0; p < 2; p++) {
				const uint8_t *f = layer->freq[k][q][p];
				uint8_t *stand_in = v->stand_in[k][q][p];

				v->pairs[k][p][q << 6 | HCT_TCQ_SYMBOLS] = NEVER;
				stand_in[0] = 0;
				stand_in[1] = 1;
				for (unsigned s = 0; s < HCT_TCQ_SYMBOLS; s++) {
					unsigned z = v->raw_bits ? 0 : s & 1;
					float cost = f[s] ? unit * log2f(256.0f / f[s]) : NEVER;

					cost = cost < NEVER ? cost : NEVER;
					v->rate[k][p][q][s] = (uint16_t)lrintf(cost);
					v->pairs[k][p][q << 6 | s] =
						v->rate[k][p][q][s] |
						(uint32_t)(uint16_t)v->offset[p][s] << 16;
					if (f[s] > f[stand_in[z]])
						stand_in[z] = (uint8_t)s;
				}
				for (unsigned z = 0; z < 2; z++) {
					float cost = v->rate[k][p][q][stand_in[z]];

					if (f[stand_in[z]] && cost > dearest)
						dearest = cost;
				}
			}
	dearest += unit * HCT_VITERBI_EXCEPTION_BITS;
	v->exception = (uint16_t)(dearest < MAX_COST ? dearest : MAX_COST);
}

size_t hct_viterbi_scratch(size_t groups)
{
	return sizeof(struct work) + groups * HCT_GROUP * 8;
}

void hct_viterbi_search_scalar(const struct hct_viterbi *v, struct hct_viterbi_segment *s,
			       void *scratch)
{
	search(v, s, scratch);
}

void hct_viterbi_list_exceptions(const struct hct_viterbi *v, struct hct_viterbi_segment *s)
{
	unsigned b = v->raw_bits;

	s->exception_count = 0;
	for (size_t g = 0; g < s->groups; g++)
		for (uint64_t left = s->marks[g]; left; left &= left - 1) {
			unsigned e = hct_ctz64(left), at = hct_position(e), raw = 0;
			unsigned code = s->codes[g * HCT_GROUP + at];

			for (unsigned j = 0; j < b; j++)
				raw |= (unsigned)(s->planes[g * b + j] >> at & 1) << j;
			add_exception(v, s, g * HCT_GROUP + e, code >> 5 & 1,
				      (code & 31) << b | raw);
		}
}

hct_viterbi_search *hct_viterbi_find(hct_simd simd)
{
#if defined __x86_64__
	if (simd == HCT_SIMD_AVX512)
		return hct_viterbi_search_avx512;
	if (simd == HCT_SIMD_AVX2)
		return hct_viterbi_search_avx2;
#endif
	(void)simd;
	return hct_viterbi_search_scalar;
}
