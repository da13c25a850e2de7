#include "fuse_fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <syslog.h>
#include <unistd.h>

#include "codec/io.h"
#include "layers.h"

/* Threads that take requests; none of them waits for a decode. */
#define IDLE_THREADS 4

/* 1 when path is dir or lies in it; both absolute and without links. */
static int lies_in(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	if (strcmp(dir, "/") == 0)
		return 1;
	return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

/* A folder that cannot be listed counts as empty: it can still be mounted on. */
static int holds_something(const char *folder)
{
	DIR *dir = opendir(folder);
	const struct dirent *d;
	int found = 0;

	while (dir && !found && (d = readdir(dir)) != NULL)
		found = strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
	if (dir)
		closedir(dir);
	return found;
}

hct_error hctfs_check_mountpoint(struct hctfs_options *o, struct hct_diag *diag)
{
	char *mountpoint = NULL, *bundle = NULL;
	char version[16];
	struct stat st;
	hct_error e = HCT_ERR_IO;

	if (stat(o->mountpoint, &st) < 0)
		return errno == ENOTCONN ? hct_fail(diag, HCT_ERR_IO,
						    "%s: a mount whose server is gone; fusermount3 "
						    "-u -z %s first",
						    o->mountpoint, o->mountpoint)
					 : hct_fail_errno(diag, errno, "%s: cannot mount there",
							  o->mountpoint);
	if (!S_ISDIR(st.st_mode))
		return hct_fail(diag, HCT_ERR_IO, "%s: cannot mount there: not a folder",
				o->mountpoint);
	mountpoint = realpath(o->mountpoint, NULL);
	bundle = realpath(o->bundle, NULL);
	if (!mountpoint || !bundle) {
		e = hct_fail_errno(diag, errno, "%s: cannot find where it lies",
				   mountpoint ? o->bundle : o->mountpoint);
		goto out;
	}
	/* Files of the bundle would be looked for in the mount itself. */
	if (lies_in(mountpoint, bundle) || lies_in(bundle, mountpoint)) {
		hct_fail(diag, e,
			 "%s: cannot mount there: the bundle %s and the mount point lie "
			 "in one another",
			 mountpoint, bundle);
		goto out;
	}
	if (st.st_ino == FUSE_ROOT_ID) {
		/* That stat succeeds says little: its answer may come from the kernel's cache. */
		int there =
			getxattr(mountpoint, "user.hctfs.version", version, sizeof version) >= 0;

		if (there || errno == ENOTCONN || errno == ECONNABORTED) {
			hct_fail(diag, e, "%s: %s; fusermount3 -u %s%s first", mountpoint,
				 there ? "hctfs is mounted there already"
				       : "a mount whose server is gone",
				 there ? "" : "-z ", mountpoint);
			goto out;
		}
	}
	if (!o->nonempty && holds_something(mountpoint)) {
		hct_fail(diag, e,
			 "%s: not empty, and a mount hides what is in it; choose an empty folder, "
			 "or give -o nonempty",
			 mountpoint);
		goto out;
	}
	free(o->mountpoint);
	o->mountpoint = mountpoint;
	mountpoint = NULL;
	e = HCT_OK;
out:
	free(mountpoint);
	free(bundle);
	return e;
}

/* Lets the kernel read further ahead than its usual 128 KiB, if this process may; the
 * figure that FUSE itself negotiates can only lower it. */
static void set_readahead(const struct hctfs *fs, dev_t dev)
{
	unsigned long long want = fs->options.readahead >> 10, have = 0;
	char path[64];
	FILE *f;
	int ok;

	if (want == 0)
		return;
	snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", major(dev), minor(dev));
	f = fopen(path, "re");
	if (f) {
		ok = fscanf(f, "%llu", &have) == 1;
		fclose(f);
		if (ok && have >= want)
			return;
	}
	f = fopen(path, "we");
	if (f) {
		ok = fprintf(f, "%llu\n", want) > 0;
		if (fclose(f) == 0 && ok)
			return;
	}
	hctfs_say(
		fs, LOG_INFO,
		"%s: the kernel's read-ahead stays at %llu KiB; for faster sequential reading run "
		"as root: echo %llu >%s (-o readahead=0 is silent)",
		fs->options.mountpoint, have ? have : 128, want, path);
}

/* Whoever reads a coarse mount is to know. */
static void say_quality(const struct hctfs *fs)
{
	unsigned layers = fs->options.layers, most = 1;
	const char *name = hct_layers_name(layers);

	if (!layers)
		return;
	for (size_t i = 0; i < hct_tree_count(fs->tree); i++)
		if (fs->files[i].layers > most)
			most = fs->files[i].layers;
	if (most > layers)
		hctfs_say(fs, LOG_INFO,
			  "%s: quality=%s: shows %u of up to %u layers, a coarser version of the "
			  "tensors",
			  fs->options.mountpoint, name, layers, most);
	else
		hctfs_say(fs, LOG_INFO,
			  "%s: quality=%s: no tensor has more than %u layer%s, so this is full "
			  "quality",
			  fs->options.mountpoint, name, layers, layers == 1 ? "" : "s");
}

/* A thread of its own, because the mount must be asked while it is served: makes the
 * first request, sets what can only be set on a living mount, and tells the parent. */
static void *greet(void *arg)
{
	struct hctfs *fs = arg;
	struct stat st;
	int answers = stat(fs->options.mountpoint, &st) == 0, fd;

	if (answers) {
		set_readahead(fs, st.st_dev);
		say_quality(fs);
		if (!fs->options.foreground) {
			setsid();
			hctfs_detach(fs);
		}
	}
	fd = atomic_exchange(&fs->ready_fd, -1);
	if (fd >= 0) {
		hct_write_all(fd, "pipe", answers ? "1" : "0", 1, NULL);
		close(fd);
	}
	return NULL;
}

/* Signals are for the main thread, which waits for the session to end. */
static int start_greeter(struct hctfs *fs, pthread_t *thread)
{
	sigset_t all, before;
	int errnum;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	errnum = pthread_create(thread, NULL, greet, fs);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return errnum;
}

static int run_loop(const struct hctfs *fs, struct fuse_session *se)
{
	struct fuse_loop_config config = {.max_idle_threads = IDLE_THREADS};

	return fs->options.single ? fuse_session_loop(se) : fuse_session_loop_mt(se, &config);
}

/* Mounts and serves; returns the exit code. */
static int serve(struct hctfs *fs, struct fuse_session *se)
{
	int code = HCT_EXIT_SYSTEM, errnum;
	pthread_t greeter;
	hct_error e = hctfs_read_start(fs);

	if (e) {
		hctfs_say(fs, LOG_ERR, "cannot start %u threads: %s", fs->threads,
			  hct_error_string(e));
		return code;
	}
	if (fuse_set_signal_handlers(se) != 0)
		return code;
	if (fuse_session_mount(se, fs->options.mountpoint) != 0) {
		hctfs_say(fs, LOG_ERR, "%s: mount refused", fs->options.mountpoint);
		goto out;
	}
	/* The folder that it was started in is not to be kept busy. */
	if (!fs->options.foreground && chdir("/") < 0)
		hctfs_say(fs, LOG_WARNING, "cannot change to /: %s", strerror(errno));
	errnum = start_greeter(fs, &greeter);
	if (errnum) {
		hctfs_say(fs, LOG_ERR, "cannot start a thread: %s", strerror(errnum));
	} else {
		/* Positive: the signal that ended it. */
		int result = run_loop(fs, se);

		code = result < 0 ? HCT_EXIT_SYSTEM : HCT_EXIT_OK;
		if (result < 0)
			hctfs_say(fs, LOG_ERR, "%s: serving failed: %s", fs->options.mountpoint,
				  strerror(-result));
		hctfs_read_drain(fs);
	}
	fuse_session_unmount(se);
	if (!errnum)
		pthread_join(greeter, NULL);
out:
	fuse_remove_signal_handlers(se);
	return code;
}

/* What the process that was started does: waits until the one that serves says that the
 * mount answers, and sees for itself. */
static int await_mount(const struct hctfs *fs, pid_t child, int fd, const struct stat *before)
{
	const char *where = fs->options.mountpoint;
	struct stat st;
	int status;
	char byte;
	ssize_t n;

	do {
		n = read(fd, &byte, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1) {
		if (byte == '1' && stat(where, &st) == 0 && st.st_ino == FUSE_ROOT_ID &&
		    st.st_dev != before->st_dev)
			return HCT_EXIT_OK;
		hctfs_say(fs, LOG_ERR, "%s: mounted, but it does not answer: unmounting", where);
		kill(child, SIGTERM);
		return HCT_EXIT_SYSTEM;
	}
	/* It has said why on stderr, unless it could not. */
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return HCT_EXIT_SYSTEM;
	if (WIFEXITED(status) && WEXITSTATUS(status) != HCT_EXIT_OK)
		return WEXITSTATUS(status);
	if (WIFSIGNALED(status))
		hctfs_say(fs, LOG_ERR, "%s: the process that serves it was ended by signal %d",
			  where, WTERMSIG(status));
	else
		hctfs_say(fs, LOG_ERR, "%s: unmounted before it answered", where);
	return HCT_EXIT_SYSTEM;
}

/* libfuse refuses the options that nobody has taken, in its own words. */
static struct fuse_session *new_session(struct hctfs *fs, struct fuse_args *args)
{
	static const char unknown[] = "unknown option(s): `";
	struct fuse_session *se;
	const char *said;

	hctfs_log_hold();
	se = fuse_session_new(args, &hctfs_ops, sizeof hctfs_ops, fs);
	said = hctfs_log_release();
	if (se && *said)
		hctfs_say(fs, LOG_WARNING, "%s", said);
	else if (!se && strncmp(said, unknown, sizeof unknown - 1) == 0)
		hctfs_say(fs, LOG_ERR, "unknown option '%s; try 'hctfs --help'",
			  said + sizeof unknown - 1);
	else if (!se)
		hctfs_say(fs, LOG_ERR, "%s; try 'hctfs --help'",
			  *said ? said : "libfuse refuses the options");
	return se;
}

int hctfs_serve(struct hctfs *fs, struct fuse_args *args)
{
	struct fuse_session *se = new_session(fs, args);
	int code = HCT_EXIT_SYSTEM, ends[2];
	struct stat before;
	pid_t child;

	if (!se)
		return HCT_EXIT_USAGE;
	if (fs->options.foreground) {
		code = serve(fs, se);
		goto out;
	}
	if (stat(fs->options.mountpoint, &before) < 0 || pipe2(ends, O_CLOEXEC) < 0) {
		hctfs_say(fs, LOG_ERR, "cannot go into the background: %s", strerror(errno));
		goto out;
	}
	child = fork();
	if (child < 0) {
		hctfs_say(fs, LOG_ERR, "cannot go into the background: %s", strerror(errno));
		close(ends[0]);
		close(ends[1]);
	} else if (child == 0) {
		close(ends[0]);
		atomic_store(&fs->ready_fd, ends[1]);
		code = serve(fs, se);
	} else {
		close(ends[1]);
		code = await_mount(fs, child, ends[0], &before);
		close(ends[0]);
	}
out:
	fuse_session_destroy(se);
	return code;
}
