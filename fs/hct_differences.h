/* How two models differ: the figures of each pair of tensors, and what is said of all of them. */
#ifndef HCT_DIFFERENCES_H
#define HCT_DIFFERENCES_H

#include <stddef.h>
#include <stdint.h>

#include "codec/error.h"
#include "codec/metrics.h"
#include "hct_bundle.h"
#include "hct_side.h"

/* Two tensors of one name. */
struct hct_pair {
	const struct hct_entry *a, *b;
	const struct hct_entry *stored; /* the one whose stored bytes count */
	int by_value;                   /* as numbers, otherwise as bytes */
	size_t unit_a, unit_b;          /* bytes of an element, or 1 */
	uint64_t units, block_units;
	uint64_t first_block; /* among all pairs */
	struct hct_metrics metrics;
	int differ; /* in a bit */
	hct_error err;
};

/* What was compared. */
struct hct_differences {
	const struct hct_pair *pairs; /* those with an error count for nothing */
	size_t count;
	uint64_t not_compared;  /* tensors, those with an error among them */
	struct hct_tally files; /* whole, with all of their tensors */
};

/* Print to standard output; quiet: without the table.  Errors: HCT_ERR_NOMEM. */
hct_error hct_differences_print(const struct hct_differences *d, int quiet);
hct_error hct_differences_print_json(const struct hct_differences *d);

#endif
