/* Internal: what a plug-in that decodes on a device offers to libhct, which opens it with dlopen.
 * Both are of one build: the interface has a number, and a plug-in with another one is refused.
 *
 * libhct reads chunks, verifies their checksums, checks their structure and lists their segments
 * (flat.h); the device decodes these.  What only decoding shows to be wrong it flags, chunk by
 * chunk, and libhct then decodes such a chunk on the CPU, whose word counts.
 *
 * Functions may be called by any threads at the same time, each batch by one of them.  Errors are
 * HCT_ERR_NOMEM (memory of the device, or of the host that is pinned), HCT_ERR_UNSUPPORTED (no such
 * device), and HCT_ERR_IO (the device is lost, or a kernel failed: nothing that it is asked for
 * afterwards succeeds), with a line in diag. */
#ifndef HCT_DEVICE_H
#define HCT_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "flat.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HCT_DEVICE_ABI    1
#define HCT_DEVICE_SYMBOL "hct_device_class" /* a const struct hct_device_class */
#define HCT_DEVICE_FILE   "libhct_cuda.so"

typedef struct hct_device hct_device; /* of the plug-in */

struct hct_device_options {
	int number;       /* of the device, from 0 */
	uint64_t memory;  /* bytes of its memory that may be held for batches and tables; 0: half of
			   * what is free at the beginning, and at most 2 GiB */
	unsigned batches; /* at most so many are in flight at a time; 0: 4 */
};

/* Tables of a tensor, flattened (struct hct_flat_split or hct_flat_tcq). */
struct hct_device_tables {
	uint64_t key;     /* the same for the same tables; those used lately stay on the device */
	const void *flat; /* the caller's until submit returns */
	size_t bytes;
};

/* Part of a batch's output that is copied to where it is wanted. */
struct hct_device_copy {
	uint64_t from; /* bytes from the beginning of the output */
	/* Memory of the host or the device.  What is not pinned takes a detour through pinned
	 * memory of the plug-in. */
	void *to;
	size_t bytes;
};

/* Chunks that are decoded together.  All but what is found is the caller's and stays as it is until
 * wait returns.
 *
 * Of the device's memory a batch takes in_bytes, values_bytes, out_bytes when out is NULL, some
 * more for the list, and its tables.  So much at most that several fit into the bound beside the
 * tables, or copies of one do not go on beside kernels of another. */
struct hct_device_batch {
	const struct hct_flat_list *list;
	uint32_t items;            /* chunks; the items of the list's segments are below that */
	const uint32_t *tables_of; /* [items]: places in tables[] */
	const struct hct_device_tables *tables;
	size_t table_count;
	/* Payloads, in memory of alloc_host's, or of alloc's when in_on_device is 1: then they are
	 * read where they lie.  in_bytes includes the padding. */
	const uint8_t *in;
	size_t in_bytes;
	int in_on_device;
	size_t out_bytes, values_bytes; /* that the list's offsets reach to */
	/* Device memory that is written to in place, 16 bytes aligned, with `out` of the list
	 * counted from there; or NULL for memory of the plug-in, from which copies are made. */
	void *out;
	const struct hct_device_copy *copies;
	size_t copy_count;
	/* A stream of the device (a cudaStream_t, of which 1 is the default one): the batch begins
	 * to write to out and to what is copied to only after what is in it so far, and what is put
	 * in it after wait comes after the batch.  NULL: the caller sees to that. */
	void *stream;
	/* found */
	uint32_t *bad; /* [items], the caller's: 1 where the payload does not decode */
	void *slot;    /* the plug-in's */
};

struct hct_device_class {
	unsigned abi;
	const char *name; /* "cuda" */

	/* Devices that there are; 0 also when the driver is missing, with the reason in diag. */
	int (*count)(struct hct_diag *diag);
	hct_error (*open)(const struct hct_device_options *options, hct_device **out,
			  struct hct_diag *diag);
	/* NULL is allowed.  No batch may be in flight, and all that was allocated is freed. */
	void (*close)(hct_device *d);
	/* "NVIDIA H200"; lives as long as the device. */
	const char *(*describe)(const hct_device *d);

	/* Memory of the device, 256 bytes aligned, outside the bound on batches. */
	hct_error (*alloc)(hct_device *d, size_t bytes, void **out, struct hct_diag *diag);
	void (*free)(hct_device *d, void *p);
	/* Pinned memory of the host, 4096 bytes aligned.  What is freed is kept for the next one,
	 * up to a quarter of the bound. */
	hct_error (*alloc_host)(hct_device *d, size_t bytes, void **out, struct hct_diag *diag);
	void (*free_host)(hct_device *d, void *p);
	/* Between host and device, either way; returns when it is done.  stream as in a batch. */
	hct_error (*copy)(hct_device *d, void *to, const void *from, size_t bytes, void *stream,
			  struct hct_diag *diag);

	/* Begins with a batch, and returns before it is decoded; while too many are in flight, it
	 * waits for the oldest one itself, so a thread may submit any number before it waits.
	 * HCT_ERR_NOMEM when it does not fit into the bound: a smaller one may. */
	hct_error (*submit)(hct_device *d, struct hct_device_batch *batch, struct hct_diag *diag);
	/* Until everything of it is done, and copied.  Once after each submit that succeeded, in
	 * any order. */
	hct_error (*wait)(hct_device *d, struct hct_device_batch *batch, struct hct_diag *diag);

	/* The trellis search of the encoder (search.h); NULL where there is none. */
	const struct hct_device_search_class *search;
};

#ifdef __cplusplus
}
#endif

#endif
