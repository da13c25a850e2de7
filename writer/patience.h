/* Reading files on disks and network mounts that fail now and then.
 *
 * What fails with an error that a second look may not meet (EIO, ESTALE, a network that is down
 * ...) is tried again three times, after a tenth of a second and then longer, two seconds in all.
 * Thread safe. */
#ifndef MKHCT_PATIENCE_H
#define MKHCT_PATIENCE_H

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "codec/error.h"

/* After something failed with errnum: sleeps and returns 1 when it is worth another try, or
 * returns 0.  *tries begins with 0. */
int mkhct_patience(unsigned *tries, int errnum);

/* open for reading: close-on-exec, and never blocking on a FIFO.  -1 with errno. */
int mkhct_patient_open(const char *path);

int mkhct_patient_stat(const char *path, struct stat *sb);
DIR *mkhct_patient_opendir(const char *path);

/* pread that is not interrupted by signals. */
ssize_t mkhct_patient_pread(int fd, void *dst, size_t length, uint64_t offset);

/* Reads exactly length bytes at offset.  Errors: HCT_ERR_IO, also for a file that ends before. */
hct_error mkhct_patient_read(int fd, const char *name, void *dst, size_t length, uint64_t offset,
			     struct hct_diag *diag);

#endif
