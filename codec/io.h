/* Whole reads and writes: short counts and EINTR are handled here. */
#ifndef HCT_IO_H
#define HCT_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

/* pread, or another that reads as it does and is not interrupted by signals. */
typedef ssize_t hct_pread(int fd, void *dst, size_t length, uint64_t offset);

/* Reads exactly length bytes at offset; a file that ends before is HCT_ERR_IO. */
hct_error hct_read_by(hct_pread *read_some, int fd, const char *name, void *dst, size_t length,
		      uint64_t offset, struct hct_diag *diag);

/* The same by pread. */
hct_error hct_read_at(int fd, const char *name, void *dst, size_t length, uint64_t offset,
		      struct hct_diag *diag);

/* Writes all bytes at the descriptor's position. */
hct_error hct_write_all(int fd, const char *name, const void *src, size_t length,
			struct hct_diag *diag);

/* fsync; what is on the disk leaves the page cache then, where a model larger than memory would
 * only push out what others need, and slow down what is written next.  Errors: HCT_ERR_IO. */
hct_error hct_sync_out(int fd, const char *name, struct hct_diag *diag);

/* Gives each of stdin, stdout and stderr that is closed a descriptor on which every use
 * fails as it would on a closed one, so that no file opened later gets its number and
 * with it what is meant for it.  The first thing in main.  Returns 0, or -1 when
 * /dev/null cannot be opened. */
int hct_open_standard_descriptors(void);

#endif
