/* Internal: the exceptions of a segment of the tcq codec, read one after the other (FORMAT.md
 * section 5). */
#ifndef HCT_TCQ_EXCEPTIONS_H
#define HCT_TCQ_EXCEPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "bits.h"
#include "error.h"

struct hct_tcq_exceptions {
	size_t at; /* element of the next one; SIZE_MAX behind the last one */
	int32_t e; /* how many steps are to be added there */

	size_t elements, left; /* left: behind the next one */
	unsigned rice, magnitude;
	struct hct_bit_reader bits;
};

/* Reads the head of a list (of 0 bytes: none) and its first exception; elements: of the segment.
 * 24 bytes behind the list are readable.  HCT_ERR_CORRUPT, and then *why says what. */
hct_error hct_tcq_exceptions_start(struct hct_tcq_exceptions *x, const uint8_t *list, size_t length,
				   size_t elements, const char **why);

/* Reads the next one; or, behind the last one, makes sure that the list ends there. */
hct_error hct_tcq_exceptions_next(struct hct_tcq_exceptions *x, const char **why);

#endif
