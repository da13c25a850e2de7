/* The entropy coder: every variant against the scalar one, on good and on broken streams. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/rans.h"

#define GROUPS 700
#define ROOM   (GROUPS * HCT_LANES + 64)

struct coded {
	struct hct_rans_class classes[HCT_MAX_CLASSES];
	uint8_t map[GROUPS];
	uint8_t symbols[GROUPS * HCT_GROUP];
	uint8_t streams[2 * ROOM + 128]; /* decoders may read behind the end */
	uint8_t *begin[2], *end[2];
	uint16_t states[2][HCT_LANES];
	unsigned run_log2;
};

static uint32_t seed;

static uint32_t next(void)
{
	seed = seed * 1664525 + 1013904223;
	return seed >> 8;
}

/* Frequencies that sum to 256: few or many symbols, even or skewed. */
static void random_freq(uint8_t freq[HCT_SYMBOLS])
{
	unsigned left = HCT_RANS_TOTAL, kind = next() % 4;

	memset(freq, 0, HCT_SYMBOLS);
	if (kind == 0) { /* the most skewed there is */
		freq[next() % 32] = 255;
		freq[32 + next() % 32] = 1;
		return;
	}
	while (left) {
		unsigned s = next() % (kind == 1 ? 3 : HCT_SYMBOLS), n = 1 + next() % 40;

		n = n < left ? n : left;
		if (freq[s] + n > 255)
			continue;
		freq[s] = (uint8_t)(freq[s] + n);
		left -= n;
	}
}

static void make(struct coded *c, hct_simd simd, size_t groups, uint32_t from)
{
	struct hct_rans_coder coder[HCT_MAX_CLASSES];

	seed = from;
	memset(c, 0, sizeof *c);
	c->run_log2 = next() % 5;
	for (unsigned k = 0; k < HCT_MAX_CLASSES; k++) {
		uint8_t freq[HCT_SYMBOLS];

		random_freq(freq);
		assert_int_equal(hct_rans_class_init(&c->classes[k], freq), 0);
		hct_rans_coder_init(&coder[k], freq);
	}
	for (size_t i = 0; i < GROUPS; i++)
		c->map[i] = (uint8_t)(next() % HCT_MAX_CLASSES);
	for (size_t i = 0; i < groups * HCT_GROUP; i++)
		c->symbols[i] = c->classes[c->map[i / HCT_GROUP >> c->run_log2]].slot[next() & 255];
	c->end[0] = c->streams + ROOM;
	c->end[1] = c->streams + 2 * ROOM;
	hct_rans_encoder(simd)(coder, c->map, c->run_log2, c->symbols, groups, c->end, c->begin,
			       c->states);
}

static struct hct_rans_segment segment(const struct coded *c)
{
	struct hct_rans_segment s = {.classes = c->classes, .map = c->map, .run_log2 = c->run_log2};

	for (unsigned i = 0; i < 2; i++) {
		memcpy(s.sub[i].x, c->states[i], sizeof s.sub[i].x);
		s.sub[i].p = c->begin[i];
		s.sub[i].end = c->end[i];
	}
	return s;
}

static void test_round_trip(void **state)
{
	static struct coded c, d;
	static uint8_t out[2][GROUPS * HCT_GROUP];

	(void)state;
	for (uint32_t round = 0; round < 60; round++) {
		size_t groups = round < 3 ? round : 1 + (round * 37) % GROUPS;
		size_t half = groups / 2;

		make(&c, HCT_SIMD_SCALAR, groups, round);
		make(&d, HCT_SIMD_SCALAR, groups, round + 1000);
		for (int simd = HCT_SIMD_SCALAR; simd <= HCT_SIMD_AVX512; simd++) {
			struct hct_rans_segment s = segment(&c), t = segment(&d);
			hct_rans_decode *decode = hct_rans_decoder((hct_simd)simd);

			if (!hct_simd_supported((hct_simd)simd))
				continue;
			memset(out, 0xee, sizeof out);
			/* in two steps, alone and side by side */
			decode(&s, out[0], NULL, NULL, half);
			decode(&s, out[0] + half * HCT_GROUP, &t, out[1], groups - half);
			decode(&t, out[1] + (groups - half) * HCT_GROUP, NULL, NULL, half);
			assert_memory_equal(out[0], c.symbols, groups * HCT_GROUP);
			assert_memory_equal(out[1], d.symbols, groups * HCT_GROUP);
			assert_true(hct_rans_finished(&s));
			assert_true(hct_rans_finished(&t));
		}
	}
}

static void test_encoders_agree(void **state)
{
	static struct coded a, b;

	(void)state;
	for (uint32_t round = 0; round < 40; round++)
		for (int simd = HCT_SIMD_AVX2; simd <= HCT_SIMD_AVX512; simd++) {
			size_t groups = 1 + (round * 53) % GROUPS;

			if (!hct_simd_supported((hct_simd)simd))
				continue;
			make(&a, HCT_SIMD_SCALAR, groups, round);
			make(&b, (hct_simd)simd, groups, round);
			assert_memory_equal(a.states, b.states, sizeof a.states);
			for (unsigned i = 0; i < 2; i++) {
				size_t n = (size_t)(a.end[i] - a.begin[i]);

				assert_int_equal(b.end[i] - b.begin[i], n);
				assert_memory_equal(a.begin[i], b.begin[i], n);
			}
		}
}

/* Spoils bytes, states and lengths, `times` of them. */
static void spoil(struct coded *c, unsigned times)
{
	for (unsigned k = 0; k < times; k++) {
		unsigned i = next() & 1;
		size_t n = (size_t)(c->end[i] - c->begin[i]);

		if (next() % 3 == 0 || !n)
			c->states[i][next() % HCT_LANES] = (uint16_t)(256 + next() % 65280);
		else if (next() % 2)
			c->begin[i][next() % n] ^= (uint8_t)(1 + next() % 255);
		else
			c->end[i] -= next() % n;
	}
}

static int overran(const struct hct_rans_segment *s)
{
	return (s->sub[0].overrun | s->sub[1].overrun) >> 63 != 0;
}

/* One variant's segment must have come to the verdict of the scalar one and, when nothing was
 * read behind the end, to the same symbols. */
static void compare(const struct coded *c, const struct hct_rans_segment *s, const uint8_t *out,
		    const struct hct_rans_segment *scalar, const uint8_t *expected, size_t groups)
{
	for (unsigned i = 0; i < 2; i++)
		assert_true(s->sub[i].p >= c->begin[i] && s->sub[i].p <= c->end[i]);
	assert_int_equal(hct_rans_finished(s), hct_rans_finished(scalar));
	assert_int_equal(overran(s), overran(scalar));
	if (!overran(s))
		assert_memory_equal(out, expected, groups * HCT_GROUP);
}

/* Damaged segments alone, and side by side with one that is whole or damaged, too. */
static void test_damage(void **state)
{
	static struct coded c, d;
	static uint8_t expected[2][GROUPS * HCT_GROUP], out[2][GROUPS * HCT_GROUP];
	unsigned refused = 0;

	(void)state;
	for (uint32_t round = 0; round < 300; round++) {
		size_t groups = 1 + (round * 29) % GROUPS;
		struct hct_rans_segment first, second;

		make(&d, HCT_SIMD_SCALAR, groups, round + 1000);
		spoil(&d, round % 2);
		make(&c, HCT_SIMD_SCALAR, groups, round);
		spoil(&c, 1 + round % 4);
		first = segment(&c);
		second = segment(&d);
		hct_rans_decode_scalar(&first, expected[0], &second, expected[1], groups);
		refused += !hct_rans_finished(&first);
		assert_true(round % 2 || hct_rans_finished(&second));
		for (int simd = HCT_SIMD_AVX2; simd <= HCT_SIMD_AVX512; simd++) {
			hct_rans_decode *decode = hct_rans_decoder((hct_simd)simd);
			struct hct_rans_segment s = segment(&c), t = segment(&d);

			if (!hct_simd_supported((hct_simd)simd))
				continue;
			decode(&s, out[0], NULL, NULL, groups);
			compare(&c, &s, out[0], &first, expected[0], groups);
			s = segment(&c);
			decode(&s, out[0], &t, out[1], groups);
			compare(&c, &s, out[0], &first, expected[0], groups);
			compare(&d, &t, out[1], &second, expected[1], groups);
		}
	}
	assert_true(refused > 250);
}

static void test_classes(void **state)
{
	struct hct_rans_class c;
	uint8_t freq[HCT_SYMBOLS] = {0}, cum[HCT_SYMBOLS];

	(void)state;
	assert_int_equal(hct_rans_class_init(&c, freq), -1);
	freq[3] = 255;
	assert_int_equal(hct_rans_class_init(&c, freq), -1);
	freq[9] = 2;
	assert_int_equal(hct_rans_class_init(&c, freq), -1);
	memset(freq, 0, sizeof freq);
	freq[5] = freq[2] = 28;
	freq[7] = 200;
	assert_int_equal(hct_rans_class_init(&c, freq), 0);
	hct_rans_order(freq, cum);
	/* falling frequency, then rising symbol */
	assert_int_equal(cum[7], 0);
	assert_int_equal(cum[2], 200);
	assert_int_equal(cum[5], 228);
	for (unsigned i = 0; i < 256; i++)
		assert_int_equal(c.slot[i], i < 200 ? 7 : i < 228 ? 2 : 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_encoders_agree),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests_name("rans", tests, NULL, NULL);
}
