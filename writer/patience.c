#include "patience.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "codec/io.h"

#define TRIES       3u
#define FIRST_PAUSE 100000000L /* nanoseconds; each is four times the one before */

static int may_pass(int errnum)
{
	switch (errnum) {
	case EIO:
	case EREMOTEIO:
	case ESTALE:
	case ETIMEDOUT:
	case EAGAIN:
	case ENETDOWN:
	case ENETUNREACH:
	case ENETRESET:
	case ECONNABORTED:
	case ECONNRESET:
	case ENOTCONN:
	case EHOSTDOWN:
	case EHOSTUNREACH:
		return 1;
	default:
		return 0;
	}
}

int mkhct_patience(unsigned *tries, int errnum)
{
	long pause = FIRST_PAUSE << 2 * *tries;
	struct timespec t = {pause / 1000000000L, pause % 1000000000L};

	if (*tries == TRIES || !may_pass(errnum))
		return 0;
	++*tries;
	nanosleep(&t, NULL); /* a signal cuts it short, and the caller then sees to that */
	return 1;
}

int mkhct_patient_open(const char *path)
{
	unsigned tries = 0;
	int fd;

	do
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	while (fd < 0 && (errno == EINTR || mkhct_patience(&tries, errno)));
	return fd;
}

int mkhct_patient_stat(const char *path, struct stat *sb)
{
	unsigned tries = 0;
	int rc;

	do
		rc = stat(path, sb);
	while (rc != 0 && mkhct_patience(&tries, errno));
	return rc;
}

DIR *mkhct_patient_opendir(const char *path)
{
	unsigned tries = 0;
	DIR *dir;

	do
		dir = opendir(path);
	while (!dir && mkhct_patience(&tries, errno));
	return dir;
}

ssize_t mkhct_patient_pread(int fd, void *dst, size_t length, uint64_t offset)
{
	unsigned tries = 0;
	ssize_t n;

	do
		n = pread(fd, dst, length, (off_t)offset);
	while (n < 0 && (errno == EINTR || mkhct_patience(&tries, errno)));
	return n;
}

hct_error mkhct_patient_read(int fd, const char *name, void *dst, size_t length, uint64_t offset,
			     struct hct_diag *diag)
{
	return hct_read_by(mkhct_patient_pread, fd, name, dst, length, offset, diag);
}
