/* classmap.h: every width of a class, what lies at a map's end, and classes that there are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "codec/classmap.h"

enum { RUNS = 61 };

/* Bit after bit, least significant first. */
static void pack(const uint8_t *classes, unsigned width, uint8_t *bits)
{
	memset(bits, 0, RUNS);
	for (unsigned i = 0; i < RUNS * width; i++)
		bits[i / 8] |= (uint8_t)((classes[i / width] >> i % width & 1) << i % 8);
}

static void every_number_of_classes(void **state)
{
	uint8_t classes[RUNS], bits[RUNS], packed[RUNS + 1], map[RUNS + 1];

	(void)state;
	for (unsigned count = 1; count <= 256; count++) {
		unsigned width = 0;

		while (1u << width < count)
			width++;
		assert_int_equal(hct_class_bits(count), width);
		for (unsigned r = 0; r < RUNS; r++)
			classes[r] = (uint8_t)((r * 37 + count - 1) % count);
		pack(classes, width, bits);
		for (unsigned log2 = 0; log2 <= 10; log2 += 5) {
			/* The last run has one group. */
			size_t groups = ((size_t)(RUNS - 1) << log2) + 1;

			assert_int_equal(hct_class_map_bytes(count, log2, groups),
					 (RUNS * width + 7) / 8);
			memset(map, 0xee, sizeof(map));
			assert_int_equal(hct_class_map_unpack(bits, count, log2, groups, map), 0);
			assert_memory_equal(map, classes, RUNS);
			assert_int_equal(map[RUNS], 0xee);
			memset(packed, 0xee, sizeof(packed));
			assert_ptr_equal(hct_class_map_pack(classes, count, log2, groups, packed),
					 packed + (RUNS * width + 7) / 8);
			assert_memory_equal(packed, bits, (RUNS * width + 7) / 8);
			assert_int_equal(packed[(RUNS * width + 7) / 8], 0xee);
		}
	}
}

static void classes_that_there_are_not(void **state)
{
	uint8_t classes[RUNS] = {0}, bits[RUNS], map[RUNS];

	(void)state;
	for (unsigned count = 3; count < 256; count++) {
		unsigned width = hct_class_bits(count);

		if (1u << width == count)
			continue;
		for (unsigned r = 0; r < RUNS; r += RUNS - 1) {
			classes[r] = (uint8_t)count;
			pack(classes, width, bits);
			assert_int_equal(hct_class_map_unpack(bits, count, 0, RUNS, map), -1);
			classes[r] = 0;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_number_of_classes),
		cmocka_unit_test(classes_that_there_are_not),
	};

	return cmocka_run_group_tests_name("classmap", tests, NULL, NULL);
}
