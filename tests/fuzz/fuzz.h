/* What the fuzz targets share. */
#ifndef HCT_FUZZ_H
#define HCT_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/bytes.h"
#include "codec/reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A broken promise, as opposed to a broken input: stops the fuzzer. */
#define FUZZ_CHECK(condition)                                                                      \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);    \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* Memory of exactly size bytes (at least 1), so that a sanitizer sees each step beyond. */
static inline void *fuzz_alloc(size_t size)
{
	void *p = malloc(size ? size : 1);

	FUZZ_CHECK(p);
	return p;
}

/* The input, taken from its front. */
struct fuzz_input {
	const uint8_t *data;
	size_t size;
};

/* At most n bytes; *n becomes what there was. */
static inline const uint8_t *fuzz_take(struct fuzz_input *in, size_t *n)
{
	const uint8_t *p = in->data;

	if (*n > in->size)
		*n = in->size;
	in->data += *n;
	in->size -= *n;
	return p;
}

/* A number of `bytes` bytes, little-endian; what is missing is zero. */
static inline uint32_t fuzz_number(struct fuzz_input *in, size_t bytes)
{
	uint32_t v = 0;
	const uint8_t *p = fuzz_take(in, &bytes);

	memcpy(&v, p, bytes);
	return v;
}

/* A range within [0, length), the same for the same input. */
static inline void fuzz_range(uint32_t seed, size_t length, size_t *begin, size_t *end)
{
	size_t a = (seed & 0xffff) * 31u % (length + 1);
	size_t b = seed % 3 ? a + (seed >> 16) % 70 : (seed >> 16) * 31u % (length + 1);

	if (b > length)
		b = length;
	*begin = a < b ? a : b;
	*end = a < b ? b : a;
}

#endif
