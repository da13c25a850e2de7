/* Internal: what a plug-in (device.h) offers to the encoder: the search of viterbi.h, of several
 * segments at a time.  It finds what hct_viterbi_search_scalar finds.
 *
 * A searcher is used by one thread at a time, each has its own stream, and any number may search at
 * the same moment.  It keeps memory for the largest batch that it was given: at 2^16 elements a
 * segment up to 4 MiB of the host's, pinned, and 6 MiB of the device's.  Errors are those of
 * device.h. */
#ifndef HCT_SEARCH_H
#define HCT_SEARCH_H

#include <stddef.h>

#include "device.h"
#include "viterbi.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hct_device_searcher hct_device_searcher; /* of the plug-in */

struct hct_device_search_class {
	/* number: of the device, below what count said. */
	hct_error (*open)(int number, hct_device_searcher **out, struct hct_diag *diag);
	/* NULL is allowed. */
	void (*close)(hct_device_searcher *d);
	/* "NVIDIA H200"; lives as long as the searcher. */
	const char *(*describe)(const hct_device_searcher *d);

	/* Searches segments, 1 to HCT_VITERBI_BATCH, that agree in column classes, period, run_log2
	 * and choose; returns when all is found.  Codes, planes and marks are in memory of the
	 * searcher, until its next call; exceptions are not listed. */
	hct_error (*search)(hct_device_searcher *d, const struct hct_viterbi *v,
			    struct hct_viterbi_segment *segments, size_t count,
			    struct hct_diag *diag);
};

#ifdef __cplusplus
}
#endif

#endif
