#if defined __x86_64__

#include <immintrin.h>

#include "join_avx512.h"
#include "onepass.h"
#include "rans_avx512.h"

/* What the loop moves on in one segment. */
struct cursor {
	struct hct_pair x;
	const uint8_t *fields, *tail;
	uint8_t *dst;
	uint32_t column;
};

static inline struct cursor begin(const struct hct_onepass_part *p)
{
	return (struct cursor){hct_load_pair(p->rans), p->fields, p->tail, p->dst, p->column};
}

/* One group: its symbols, and then its elements; f32 is constant. */
static inline __attribute__((always_inline)) void
group(struct cursor *c, const struct hct_rans_class *class, const struct hct_join_tables *t,
      __m512i low, const struct hct_unpacker *u, int f32)
{
	__m512i symbols = hct_rans_step(&c->x, class), a, b;

	hct_heads16(low, u, symbols, c->fields, t->shifts + c->column, &a, &b);
	c->fields += 7 * 8;
	c->column = hct_next_column(t, c->column);
	if (f32) {
		hct_store_f32(c->dst, c->tail, a);
		hct_store_f32(c->dst + 128, c->tail + 64, b);
		c->tail += 2 * HCT_GROUP;
		c->dst += 4 * HCT_GROUP;
	} else {
		_mm512_storeu_si512(c->dst, a);
		_mm512_storeu_si512(c->dst + 64, b);
		c->dst += 2 * HCT_GROUP;
	}
}

static inline __attribute__((always_inline)) void decode(const struct hct_join_tables *t,
							 const struct hct_onepass_part *p,
							 const struct hct_onepass_part *q,
							 size_t groups, int f32)
{
	const struct hct_unpacker u = hct_unpacker(7);
	const __m512i low = _mm512_loadu_si512(t->low);
	struct cursor x = begin(p), y = begin(q);

	while (groups) {
		const struct hct_rans_class *c = hct_class_of(p->rans), *d = hct_class_of(q->rans);
		size_t n = hct_run_groups(p->rans, groups);
		size_t safe = hct_safe_groups(p->rans, &x.x),
		       other = hct_safe_groups(q->rans, &y.x);

		safe = safe < other ? safe : other;
		n = n < safe ? n : safe;
		for (size_t g = 0; g < n; g++) {
			group(&x, c, t, low, &u, f32);
			group(&y, d, t, low, &u, f32);
		}
		hct_stop_pair(p->rans, &x.x);
		hct_stop_pair(q->rans, &y.x);
		p->rans->group += n;
		q->rans->group += n;
		groups -= n;
	}
	hct_store_pair(p->rans, x.x);
	hct_store_pair(q->rans, y.x);
}

void hct_onepass_bf16_avx512(const struct hct_join_tables *t, const struct hct_onepass_part *a,
			     const struct hct_onepass_part *b, size_t groups)
{
	decode(t, a, b, groups, 0);
}

void hct_onepass_f32_avx512(const struct hct_join_tables *t, const struct hct_onepass_part *a,
			    const struct hct_onepass_part *b, size_t groups)
{
	decode(t, a, b, groups, 1);
}

#endif
