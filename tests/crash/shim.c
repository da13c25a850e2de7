/* LD_PRELOAD library for the crash tests: counts what a program changes below a folder, makes one
 * of these calls fail or kills the program there, and records all of them.
 *
 *     SHIM_ROOT    absolute path of the folder; everything below it is watched
 *     SHIM_SOURCE  a folder whose reads are watched instead when SHIM_ONLY is "read"
 *     SHIM_TRACE   file that gets a record of every call: see trace.py
 *     SHIM_ONLY    kinds that are counted, with commas; all that change something when not given
 *     SHIM_AT      number of the call, from 1, at which something happens:
 *     SHIM_DO      kill    the program is killed before the call,
 *                  half    after half of it (of a write), or after it,
 *                  flip    one bit of it is another one (of a write),
 *                  short   half of it is done (of reads and writes), and that is said,
 *                  stop    the program is stopped before it,
 *                  NUMBER  it does nothing and fails with this errno
 *     SHIM_PART    only writes to files whose names end so are counted, and no other calls
 *     SHIM_LASTS   1: and so do all calls from then on that SHIM_THEN names, or any when it is not
 *     SHIM_THEN    given
 *     SHIM_TIMES   but no more than so many
 *     SHIM_BAD_PAGE      number of a page of every map of a file of SHIM_SOURCE that cannot be
 * read, SHIM_BAD_PAGE_MS   for so many milliseconds, or for ever
 *
 * Calls are serialised, so that the trace has the order in which they happened. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FDS      1024
#define TRACE_FD 900
#define PAGE     4096

enum place { ELSEWHERE, OUTPUT, SOURCE };

/* What descriptors are open on. */
static struct {
	enum place place;
	int writable;
	unsigned long long inode;
} open_files[FDS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root, *source, *only, *then, *action, *part;
static unsigned long at, times, count;
static int lasts, trace = -1;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("SHIM_TRACE"), *number = getenv("SHIM_AT");

	root = getenv("SHIM_ROOT");
	source = getenv("SHIM_SOURCE");
	only = getenv("SHIM_ONLY");
	then = getenv("SHIM_THEN");
	action = getenv("SHIM_DO");
	part = getenv("SHIM_PART");
	lasts = getenv("SHIM_LASTS") != NULL;
	times = getenv("SHIM_TIMES") ? strtoul(getenv("SHIM_TIMES"), NULL, 10) : 0;
	at = number ? strtoul(number, NULL, 10) : 0;
	if (path) {
		int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);

		trace = fcntl(fd, F_DUPFD_CLOEXEC, TRACE_FD);
		close(fd);
	}
}

/* The next definition of a function: libc's. */
#define REAL(name)                                                                                 \
	static __typeof__(&name) real;                                                             \
	if (!real)                                                                                 \
	real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static ssize_t raw_write(int fd, const void *bytes, size_t n)
{
	REAL(write);
	return real(fd, bytes, n);
}

static void record(const char *format, ...)
{
	char line[PATH_MAX + 200];
	va_list args;
	int n;

	if (trace < 0)
		return;
	va_start(args, format);
	n = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (raw_write(trace, line, (size_t)n) != n)
		abort();
}

static void record_bytes(const void *bytes, size_t n)
{
	if (trace >= 0 &&
	    (raw_write(trace, bytes, n) != (ssize_t)n || raw_write(trace, "\n", 1) != 1))
		abort();
}

/* Places ----------------------------------------------------------------------------- */

static int is_below(const char *path, const char *folder)
{
	size_t n = folder ? strlen(folder) : 0;

	return n && strncmp(path, folder, n) == 0 && (path[n] == '/' || !path[n]);
}

/* The absolute path of name below the folder that fd is open on. */
static void resolve(int fd, const char *name, char path[2 * PATH_MAX])
{
	char link[64];
	ssize_t n;

	if (*name == '/') {
		snprintf(path, 2 * PATH_MAX, "%s", name);
		return;
	}
	snprintf(link, sizeof(link), fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
	n = readlink(link, path, PATH_MAX);
	n = n < 0 ? 0 : n;
	path[n] = 0;
	if (strcmp(name, ".") != 0)
		snprintf(path + n, PATH_MAX, "/%s", name);
}

static enum place place_of(int fd, const char *name)
{
	char path[2 * PATH_MAX];

	resolve(fd, name, path);
	return is_below(path, root) ? OUTPUT : is_below(path, source) ? SOURCE : ELSEWHERE;
}

static enum place place_of_fd(int fd)
{
	return fd >= 0 && fd < FDS ? open_files[fd].place : ELSEWHERE;
}

static unsigned long long inode_of(int fd, const char *name)
{
	struct stat sb;

	return fstatat(fd, name, &sb, AT_SYMLINK_NOFOLLOW) == 0 ? sb.st_ino : 0;
}

/* The folder that name is in, as "inode base-name". */
static const char *where(int fd, const char *name, char text[PATH_MAX + 64])
{
	char path[2 * PATH_MAX], *slash;

	resolve(fd, name, path);
	slash = strrchr(path, '/');
	*slash = 0;
	snprintf(text, PATH_MAX + 64, "%llu %.*s", inode_of(AT_FDCWD, path), NAME_MAX, slash + 1);
	return text;
}

/* Decisions -------------------------------------------------------------------------- */

static int is_in_list(const char *list, const char *kind)
{
	size_t n = strlen(kind);

	for (const char *p = list; p && *p; p += strcspn(p, ","), p += *p == ',')
		if (strcspn(p, ",") == n && strncmp(p, kind, n) == 0)
			return 1;
	return 0;
}

static _Noreturn void die(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

enum verdict { PASS, FAIL, HALF, HALF_AND_DIE, FLIP };

/* The write at hand is to a file that SHIM_PART names. */
static int is_of_part;

static int is_part(int fd)
{
	char link[64], path[PATH_MAX];
	size_t n = part ? strlen(part) : 0;
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = n ? readlink(link, path, sizeof(path)) : 0;
	return length >= (ssize_t)n && n && memcmp(path + length - n, part, n) == 0;
}

/* Counts a call. */
static enum verdict judge(const char *kind)
{
	if (only ? !is_in_list(only, kind) : strcmp(kind, "read") == 0)
		return PASS;
	if (part && !is_of_part)
		return PASS;
	count++;
	record("# %lu %s\n", count, kind);
	if (!action || !at || count < at)
		return PASS;
	if (times && count >= at + times)
		return PASS;
	if (count > at && (!lasts || (then && !is_in_list(then, kind))))
		return PASS;
	if (strcmp(action, "kill") == 0)
		die();
	if (strcmp(action, "half") == 0)
		return HALF_AND_DIE;
	if (strcmp(action, "short") == 0)
		return HALF;
	if (strcmp(action, "flip") == 0 && part)
		return FLIP;
	if (strcmp(action, "stop") == 0) {
		kill(getpid(), SIGSTOP);
		return PASS;
	}
	return FAIL;
}

#define ENTER(kind)                                                                                \
	enum verdict verdict;                                                                      \
	pthread_mutex_lock(&lock);                                                                 \
	verdict = judge(kind)

/* For calls of which there is no half. */
#define CALL_OR_FAIL(call)                                                                         \
	rc = verdict == FAIL ? -1 : (call);                                                        \
	saved = verdict == FAIL ? atoi(action) : errno

#define LEAVE()                                                                                    \
	do {                                                                                       \
		if (verdict == HALF_AND_DIE)                                                       \
			die();                                                                     \
		pthread_mutex_unlock(&lock);                                                       \
		errno = saved;                                                                     \
	} while (0)

/* Files ------------------------------------------------------------------------------ */

static int open_watched(int fd, const char *name, int flags, mode_t mode)
{
	static __typeof__(&openat) real;
	enum place place = place_of(fd, name);
	unsigned long long before;
	char text[PATH_MAX + 64];
	int rc, saved;

	if (!real)
		real = (__typeof__(&openat))dlsym(RTLD_NEXT, "openat64");
	if (place != OUTPUT || !(flags & (O_CREAT | O_TRUNC))) {
		rc = real(fd, name, flags, mode);
	} else {
		ENTER("create");
		before = inode_of(fd, name);
		CALL_OR_FAIL(real(fd, name, flags, mode));
		if (rc >= 0 && !before)
			record("create %llu %u %s\n", inode_of(fd, name), mode & 07777,
			       where(fd, name, text));
		else if (rc >= 0 && flags & O_TRUNC)
			record("size %llu 0\n", before);
		LEAVE();
	}
	if (rc >= 0 && rc < FDS) {
		open_files[rc].place = place;
		open_files[rc].writable = (flags & O_ACCMODE) != O_RDONLY;
		saved = errno;
		open_files[rc].inode = place == OUTPUT ? inode_of(fd, name) : 0;
		errno = saved;
	}
	return rc;
}

/* The arguments of open and openat behind the path. */
#define DEFINE_OPEN(name, fd, ...)                                                                 \
	int name(__VA_ARGS__ const char *path, int flags, ...)                                     \
	{                                                                                          \
		va_list args;                                                                      \
		mode_t mode;                                                                       \
                                                                                                   \
		va_start(args, flags);                                                             \
		mode = flags & O_CREAT ? (mode_t)va_arg(args, int) : 0;                            \
		va_end(args);                                                                      \
		return open_watched(fd, path, flags, mode);                                        \
	}
#define OF_FOLDER int folder,
DEFINE_OPEN(open, AT_FDCWD, )
DEFINE_OPEN(open64, AT_FDCWD, )
DEFINE_OPEN(openat, folder, OF_FOLDER)
DEFINE_OPEN(openat64, folder, OF_FOLDER)

/* A duplicate is watched as the one that it is made of is. */
int fcntl(int fd, int command, ...)
{
	REAL(fcntl);
	va_list args;
	void *arg;
	int rc;

	va_start(args, command);
	arg = va_arg(args, void *);
	va_end(args);
	rc = real(fd, command, arg);
	if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && rc >= 0 && rc < FDS && fd < FDS)
		open_files[rc] = open_files[fd];
	return rc;
}

int fcntl64(int fd, int command, ...) __attribute__((alias("fcntl")));

int close(int fd)
{
	REAL(close);
	int rc, saved;

	if (place_of_fd(fd) != OUTPUT || !open_files[fd].writable) {
		if (fd >= 0 && fd < FDS)
			open_files[fd].place = ELSEWHERE;
		return real(fd);
	}
	ENTER("close");
	rc = real(fd);
	saved = verdict == FAIL ? atoi(action) : errno;
	rc = verdict == FAIL ? -1 : rc;
	open_files[fd].place = ELSEWHERE;
	LEAVE();
	return rc;
}

static void record_write(int fd, off_t offset, const void *bytes, ssize_t n)
{
	if (n <= 0)
		return;
	record("write %llu %lld %zd\n", open_files[fd].inode, (long long)offset, n);
	record_bytes(bytes, (size_t)n);
}

static ssize_t write_flipped(ssize_t (*real)(int, const void *, size_t), int fd, const void *bytes,
			     size_t n)
{
	char *copy = malloc(n + 1);
	ssize_t rc;

	if (!copy)
		abort();
	memcpy(copy, bytes, n);
	copy[n / 2] ^= 0x40;
	rc = real(fd, copy, n);
	free(copy);
	return rc;
}

ssize_t write(int fd, const void *bytes, size_t n)
{
	REAL(write);
	enum verdict verdict;
	ssize_t rc;
	off_t offset;
	int saved;

	if (place_of_fd(fd) != OUTPUT)
		return real(fd, bytes, n);
	pthread_mutex_lock(&lock);
	is_of_part = is_part(fd);
	verdict = judge("write");
	is_of_part = 0;
	offset = lseek(fd, 0, SEEK_CUR);
	if (verdict == FLIP) {
		rc = write_flipped(real, fd, bytes, n);
		saved = errno;
	} else {
		CALL_OR_FAIL(real(fd, bytes, verdict == PASS ? n : (n + 1) / 2));
	}
	record_write(fd, offset, bytes, rc);
	LEAVE();
	return rc;
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t offset)
{
	static __typeof__(&pwrite) real;
	ssize_t rc;
	int saved;

	if (!real)
		real = (__typeof__(&pwrite))dlsym(RTLD_NEXT, "pwrite64");
	if (place_of_fd(fd) != OUTPUT)
		return real(fd, bytes, n, offset);
	ENTER("write");
	CALL_OR_FAIL(real(fd, bytes, verdict == PASS ? n : (n + 1) / 2, offset));
	record_write(fd, offset, bytes, rc);
	LEAVE();
	return rc;
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t offset)
	__attribute__((alias("pwrite")));

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n, unsigned flags)
{
	REAL(copy_file_range);
	ssize_t rc;
	off_t offset;
	char *copy;
	int saved;

	if (place_of_fd(out) != OUTPUT || out_at)
		return real(in, in_at, out, out_at, n, flags);
	ENTER("write");
	offset = lseek(out, 0, SEEK_CUR);
	CALL_OR_FAIL(real(in, in_at, out, out_at, verdict == PASS ? n : (n + 1) / 2, flags));
	if (rc > 0 && trace >= 0) {
		copy = malloc((size_t)rc);
		if (!copy || pread(out, copy, (size_t)rc, offset) != rc)
			abort();
		record_write(out, offset, copy, rc);
		free(copy);
	}
	LEAVE();
	return rc;
}

int ftruncate(int fd, off_t size)
{
	static __typeof__(&ftruncate) real;
	int rc, saved;

	if (!real)
		real = (__typeof__(&ftruncate))dlsym(RTLD_NEXT, "ftruncate64");
	if (place_of_fd(fd) != OUTPUT)
		return real(fd, size);
	ENTER("truncate");
	CALL_OR_FAIL(real(fd, size));
	if (rc == 0)
		record("size %llu %lld\n", open_files[fd].inode, (long long)size);
	LEAVE();
	return rc;
}

int ftruncate64(int fd, off64_t size) __attribute__((alias("ftruncate")));

/* A failed fsync, too, is of interest: what it was for may be lost whatever comes after. */
static int sync_watched(int fd, int (*real)(int))
{
	int rc, saved;

	if (place_of_fd(fd) != OUTPUT)
		return real(fd);
	ENTER("fsync");
	CALL_OR_FAIL(real(fd));
	record("%s %llu\n", rc == 0 ? "sync" : "unsynced", open_files[fd].inode);
	LEAVE();
	return rc;
}

int fsync(int fd)
{
	REAL(fsync);
	return sync_watched(fd, real);
}

int fdatasync(int fd)
{
	REAL(fdatasync);
	return sync_watched(fd, real);
}

int fchmod(int fd, mode_t mode)
{
	REAL(fchmod);
	int rc, saved;

	if (place_of_fd(fd) != OUTPUT)
		return real(fd, mode);
	ENTER("chmod");
	CALL_OR_FAIL(real(fd, mode));
	if (rc == 0)
		record("mode %llu %u\n", open_files[fd].inode, mode);
	LEAVE();
	return rc;
}

int futimens(int fd, const struct timespec times[2])
{
	REAL(futimens);
	int rc, saved;

	if (place_of_fd(fd) != OUTPUT)
		return real(fd, times);
	ENTER("times");
	CALL_OR_FAIL(real(fd, times));
	if (rc == 0)
		record("time %llu %lld%09ld\n", open_files[fd].inode, (long long)times[1].tv_sec,
		       times[1].tv_nsec);
	LEAVE();
	return rc;
}

/* Names ------------------------------------------------------------------------------ */

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	REAL(renameat);
	char a[PATH_MAX + 64], b[PATH_MAX + 64];
	int rc, saved;

	if (place_of(to_fd, to) != OUTPUT)
		return real(from_fd, from, to_fd, to);
	ENTER("rename");
	CALL_OR_FAIL(real(from_fd, from, to_fd, to));
	if (rc == 0)
		record("rename %s/%s\n", where(from_fd, from, a), where(to_fd, to, b));
	LEAVE();
	return rc;
}

int unlinkat(int fd, const char *name, int flags)
{
	REAL(unlinkat);
	char text[PATH_MAX + 64];
	int rc, saved;

	if (place_of(fd, name) != OUTPUT)
		return real(fd, name, flags);
	ENTER("unlink");
	CALL_OR_FAIL(real(fd, name, flags));
	if (rc == 0)
		record("unlink %s\n", where(fd, name, text));
	LEAVE();
	return rc;
}

int unlink(const char *name)
{
	return unlinkat(AT_FDCWD, name, 0);
}

int rmdir(const char *name)
{
	return unlinkat(AT_FDCWD, name, AT_REMOVEDIR);
}

int mkdirat(int fd, const char *name, mode_t mode)
{
	REAL(mkdirat);
	char text[PATH_MAX + 64];
	int rc, saved;

	if (place_of(fd, name) != OUTPUT)
		return real(fd, name, mode);
	ENTER("mkdir");
	CALL_OR_FAIL(real(fd, name, mode));
	if (rc == 0)
		record("mkdir %llu %u %s\n", inode_of(fd, name), mode, where(fd, name, text));
	LEAVE();
	return rc;
}

int mkdir(const char *name, mode_t mode)
{
	return mkdirat(AT_FDCWD, name, mode);
}

int fchmodat(int fd, const char *name, mode_t mode, int flags)
{
	REAL(fchmodat);
	int rc, saved;

	if (place_of(fd, name) != OUTPUT)
		return real(fd, name, mode, flags);
	ENTER("chmod");
	CALL_OR_FAIL(real(fd, name, mode, flags));
	if (rc == 0)
		record("mode %llu %u\n", inode_of(fd, name), mode);
	LEAVE();
	return rc;
}

/* The source ------------------------------------------------------------------------- */

ssize_t pread(int fd, void *bytes, size_t n, off_t offset)
{
	static __typeof__(&pread) real;
	ssize_t rc;
	int saved;

	if (!real)
		real = (__typeof__(&pread))dlsym(RTLD_NEXT, "pread64");
	if (place_of_fd(fd) != SOURCE)
		return real(fd, bytes, n, offset);
	ENTER("read");
	CALL_OR_FAIL(real(fd, bytes, verdict == PASS ? n : (n + 1) / 2, offset));
	LEAVE();
	return rc;
}

ssize_t pread64(int fd, void *bytes, size_t n, off64_t offset) __attribute__((alias("pread")));

struct bad_page {
	void *page;
	int fd;
	off_t offset;
	long milliseconds;
};

static void replace_page(char *page, int fd, off_t offset)
{
	/* cppcheck-suppress leakReturnValNotUsed */
	if (mmap(page, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, offset) == MAP_FAILED)
		abort();
}

/* Puts the page back once its time is over. */
static void *heal(void *arg)
{
	struct bad_page *b = arg;
	struct timespec pause = {b->milliseconds / 1000, b->milliseconds % 1000 * 1000000};

	nanosleep(&pause, NULL);
	replace_page(b->page, b->fd, b->offset);
	free(b);
	return NULL;
}

/* A page of an empty file takes its place: to touch it is SIGBUS, as of a disk that fails. */
static void spoil(char *map, size_t length, int fd, long page)
{
	const char *ms = getenv("SHIM_BAD_PAGE_MS");
	struct bad_page *b = malloc(sizeof(*b));
	int empty = memfd_create("bad", MFD_CLOEXEC);
	pthread_t thread;

	if (!b || empty < 0 || (size_t)(page + 1) * PAGE > length)
		abort();
	*b = (struct bad_page){map + page * PAGE, dup(fd), page * PAGE, ms ? atol(ms) : 0};
	replace_page(b->page, empty, 0);
	if (ms && pthread_create(&thread, NULL, heal, b) == 0)
		pthread_detach(thread);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
	REAL(mmap64);
	const char *page = getenv("SHIM_BAD_PAGE");
	void *map = real(address, length, protection, flags, fd, offset);

	if (page && map != MAP_FAILED && place_of_fd(fd) == SOURCE && !address)
		spoil(map, length, fd, atol(page));
	return map;
}
