/* What the chunks of a tensor share in the tcq codec: slots, trellis and tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tcq_make.h"

/* ---- slots and trellis ---- */

static void check_alias(const uint8_t freq[HCT_TCQ_SYMBOLS])
{
	uint8_t seen[HCT_TCQ_SYMBOLS][256] = {{0}};
	struct hct_alias a;

	assert_int_equal(hct_alias_init(&a, freq), 0);
	for (unsigned i = 0; i < HCT_TCQ_SYMBOLS; i++) {
		assert_true(a.own[i] <= HCT_TCQ_BUCKET && a.other[i] < HCT_TCQ_SYMBOLS);
		for (unsigned j = 0; j < HCT_TCQ_BUCKET; j++) {
			unsigned own = j < a.own[i], s = own ? i : a.other[i];
			unsigned rank = (own ? j : j + a.shift[i]) & 255;

			/* every rank of a symbol has one slot */
			assert_true(rank < freq[s] && !seen[s][rank]);
			seen[s][rank] = 1;
		}
	}
}

static void test_alias(void **state)
{
	uint8_t freq[HCT_TCQ_SYMBOLS];
	struct hct_alias a;

	(void)state;
	tcq_seed = 1;
	for (unsigned round = 0; round < 5000; round++) {
		tcq_random_freq(freq, round % 7);
		check_alias(freq);
	}
	for (unsigned i = 0; i < 32 * 31; i++) {
		memset(freq, 0, sizeof freq);
		freq[i / 31] = 255;
		freq[(i / 31 + 1 + i % 31) % 32] = 1;
		check_alias(freq);
	}
	freq[7] ^= 1;
	assert_int_equal(hct_alias_init(&a, freq), -1);
	memset(freq, 0, sizeof freq);
	assert_int_equal(hct_alias_init(&a, freq), -1);
}

/* By hand: queues of falling and rising symbols. */
static void test_alias_order(void **state)
{
	uint8_t freq[HCT_TCQ_SYMBOLS];
	struct hct_alias a;

	(void)state;
	/* 3 is small, 5 and 9 large: 3 takes 5 slots of symbol 5, which has 7 left and becomes
	 * small, and takes one of symbol 9's. */
	memset(freq, 8, sizeof freq);
	freq[3] = 3;
	freq[5] = 12;
	freq[9] = 9;
	assert_int_equal(hct_alias_init(&a, freq), 0);
	assert_int_equal(a.own[3], 3);
	assert_int_equal(a.other[3], 5);
	assert_int_equal(a.own[5], 7);
	assert_int_equal(a.other[5], 9);
	assert_int_equal(a.own[9], 8);
	/* slots 29 .. of bucket 3, of which position 3 is rank 7; slot 47 is rank 8 of 9 */
	assert_int_equal((3 + a.shift[3]) & 255, 7);
	assert_int_equal((7 + a.shift[5]) & 255, 8);
	/* Here 5 has 8 left when 3 has taken its 5: the next small one, 20, goes to 9. */
	memset(freq, 8, sizeof freq);
	freq[3] = 3;
	freq[5] = 13;
	freq[9] = 9;
	freq[20] = 7;
	assert_int_equal(hct_alias_init(&a, freq), 0);
	assert_int_equal(a.other[3], 5);
	assert_int_equal(a.own[5], 8);
	assert_int_equal(a.other[20], 9);
	assert_int_equal(a.own[9], 8);
}

static void test_trellis(void **state)
{
	static const uint8_t eight[8][2] = {{0, 2}, {5, 7}, {1, 3}, {4, 6},
					    {2, 0}, {7, 5}, {3, 1}, {6, 4}};
	/* some of those of 16 and 32 states, by hand */
	static const uint8_t more[][4] = {{4, 0, 0, 2},   {4, 1, 9, 11},  {4, 15, 14, 12},
					  {5, 0, 0, 4},   {5, 1, 18, 22}, {5, 30, 15, 11},
					  {5, 31, 29, 25}};
	uint8_t next[HCT_TCQ_MAX_STATES][2];

	(void)state;
	hct_trellis_init(3, next);
	assert_memory_equal(next, eight, sizeof eight);
	for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
		hct_trellis_init(more[i][0], next);
		assert_int_equal(next[more[i][1]][0], more[i][2]);
		assert_int_equal(next[more[i][1]][1], more[i][3]);
	}
}

/* ---- tables ---- */

static int refuses(const uint8_t *params, size_t length)
{
	/* of just that size: reading behind it shows */
	uint8_t *copy = malloc(length ? length : 1);
	struct hct_tcq_tables t;
	const char *why = NULL;
	hct_error e;

	memcpy(copy, params, length);
	e = hct_tcq_tables_unpack(copy, length, &t, &why);
	free(copy);
	assert_true(e == HCT_OK || (e == HCT_ERR_CORRUPT && why));
	return e != HCT_OK;
}

static void test_tables(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 60; kind++) {
		struct tcq_made m = tcq_model(1 + kind % 4, kind % 2 ? 100 : 1 + kind, kind);
		struct hct_tcq_tables t;
		const char *why = NULL;
		uint8_t *again;

		tcq_seed = kind;
		tcq_make_tables(&m);
		assert_int_equal(hct_tcq_tables_unpack(m.params, m.params_length, &t, &why), 0);
		assert_int_equal(hct_tcq_tables_length(&t), m.params_length);
		again = malloc(m.params_length);
		hct_tcq_tables_pack(&t, again);
		assert_memory_equal(again, m.params, m.params_length);
		for (unsigned i = 0; i < t.layer_count; i++) {
			assert_memory_equal(t.layers[i].offset, m.t.layers[i].offset, 64);
			for (uint32_t c = 0; c < t.columns; c++)
				assert_int_equal(hct_tcq_column_class(&t.layers[i], c),
						 hct_tcq_column_class(&m.t.layers[i], c));
		}
		free(again);
		tcq_free(&m);
	}
}

/* Places and values that no table may have. */
static void test_table_rules(void **state)
{
	static const struct {
		size_t at;
		uint8_t value;
	} bad[] = {{0, 0},  {0, 5},     {0, 1},     {0, 3},   {1, 7},     {2, 7},    {2, 3},
		   {3, 9},  {3, 18},    {8, 2},     {8, 6},   {9, 0},     {9, 3},    {9, 5},
		   {9, 8},  {9, 1},     {10, 0},    {10, 17}, {10, 2},    {11, 11},  {12, 8},
		   {12, 1}, {19, 0xbf}, {19, 0x7f}, {19, 0},  {19, 0x0c}, {19, 0x72}};
	struct tcq_made m = tcq_model(2, 68, 0);
	uint8_t p[8192];

	(void)state;
	tcq_seed = 3;
	m.t.layers[0].column_classes = 4;
	m.t.layers[0].step = 1.5f;
	tcq_make_tables(&m);
	assert_true(m.params_length < sizeof p);
	assert_false(refuses(m.params, m.params_length));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		memcpy(p, m.params, m.params_length);
		p[bad[i].at] = bad[i].value;
		if (!refuses(p, m.params_length))
			fail_msg("byte %zu may not be %u", bad[i].at, bad[i].value);
	}
	/* no columns, and more than can matter */
	memcpy(p, m.params, m.params_length);
	hct_store32(p + 4, 0);
	assert_true(refuses(p, m.params_length));
	hct_store32(p + 4, (1u << 20) + 68);
	assert_true(refuses(p, m.params_length));
	/* frequencies that do not sum to 256 */
	memcpy(p, m.params, m.params_length);
	p[8 + 12 + 64 + 5]++;
	assert_true(refuses(p, m.params_length));
	/* every other length */
	for (size_t n = 0; n < m.params_length; n++)
		assert_true(refuses(m.params, n));
	memcpy(p, m.params, m.params_length);
	assert_true(refuses(p, m.params_length + 1));
	tcq_free(&m);
}

/* Many columns are fine where they do not matter; tables of the largest kind fit. */
static void test_table_limits(void **state)
{
	struct tcq_made m = tcq_model(1, 0xffffffff, 0);

	(void)state;
	m.t.layers[0].column_classes = 1;
	tcq_make_tables(&m);
	assert_false(refuses(m.params, m.params_length));
	m.params[1] = 1; /* tiles */
	assert_true(refuses(m.params, m.params_length));
	tcq_free(&m);
	m = tcq_model(1, 1u << 20, 0);
	m.t.layers[0].column_classes = 4;
	m.t.layers[0].row_classes = 16;
	tcq_make_tables(&m);
	assert_false(refuses(m.params, m.params_length));
	tcq_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alias),       cmocka_unit_test(test_alias_order),
		cmocka_unit_test(test_trellis),     cmocka_unit_test(test_tables),
		cmocka_unit_test(test_table_rules), cmocka_unit_test(test_table_limits),
	};

	return cmocka_run_group_tests_name("tcq tables", tests, NULL, NULL);
}
