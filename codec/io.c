#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static ssize_t read_some_at(int fd, void *dst, size_t length, uint64_t offset)
{
	ssize_t n;

	do
		n = pread(fd, dst, length, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n;
}

hct_error hct_read_by(hct_pread *read_some, int fd, const char *name, void *dst, size_t length,
		      uint64_t offset, struct hct_diag *diag)
{
	uint8_t *p = dst;

	while (length) {
		ssize_t n = read_some(fd, p, length, offset);

		if (n < 0)
			return hct_fail_errno(diag, errno, "%s: cannot be read at byte %llu", name,
					      (unsigned long long)offset);
		if (n == 0)
			return hct_fail(diag, HCT_ERR_IO,
					"%s: ends before byte %llu although more was there; it was "
					"cut short",
					name, (unsigned long long)offset);
		p += n;
		offset += (size_t)n;
		length -= (size_t)n;
	}
	return HCT_OK;
}

hct_error hct_read_at(int fd, const char *name, void *dst, size_t length, uint64_t offset,
		      struct hct_diag *diag)
{
	return hct_read_by(read_some_at, fd, name, dst, length, offset, diag);
}

hct_error hct_write_all(int fd, const char *name, const void *src, size_t length,
			struct hct_diag *diag)
{
	const uint8_t *p = src;

	while (length) {
		ssize_t n = write(fd, p, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return hct_fail_errno(diag, errno, "%s: cannot write", name);
		p += n;
		length -= (size_t)n;
	}
	return HCT_OK;
}

hct_error hct_sync_out(int fd, const char *name, struct hct_diag *diag)
{
	if (fsync(fd) != 0)
		return hct_fail_errno(diag, errno, "%s: cannot be written to disk", name);
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return HCT_OK;
}

int hct_open_standard_descriptors(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		/* open gives the lowest number that is free, which is this one. */
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			return -1;
	}
	return 0;
}
