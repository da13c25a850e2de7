#include "fuse_fs.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

void hctfs_say(const struct hctfs *fs, int priority, const char *format, ...)
{
	char line[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	if (atomic_load(&fs->detached))
		syslog(priority, "%s", line);
	else
		fprintf(stderr, "hctfs: %s\n", line);
}

void hctfs_report(struct hctfs *fs, uint64_t what, const struct hct_diag *diag)
{
	unsigned char bit = (unsigned char)(1u << (what % 8));

	if (!(atomic_fetch_or(&fs->reported[what / 8], bit) & bit))
		hctfs_say(fs, LOG_ERR, "%s", diag->text);
}

/* What libfuse shows for -d stays as it is. */
static void log_to_stderr(enum fuse_log_level level, const char *format, va_list args)
{
	/* A message may come in several parts. */
	static _Thread_local int within_line;
	char line[1024];
	const char *text = line;

	if (level == FUSE_LOG_DEBUG) {
		vfprintf(stderr, format, args);
		return;
	}
	vsnprintf(line, sizeof line, format, args);
	if (strncmp(text, "fuse: ", 6) == 0)
		text += 6;
	fprintf(stderr, "%s%s", within_line ? "" : "hctfs: ", text);
	within_line = !*text || text[strlen(text) - 1] != '\n';
}

static char held[512];

static void hold(enum fuse_log_level level, const char *format, va_list args)
{
	size_t used = strlen(held);

	if (level == FUSE_LOG_DEBUG)
		log_to_stderr(level, format, args);
	else
		vsnprintf(held + used, sizeof held - used, format, args);
}

void hctfs_log_hold(void)
{
	held[0] = '\0';
	fuse_set_log_func(hold);
}

const char *hctfs_log_release(void)
{
	const char *text = strncmp(held, "fuse: ", 6) == 0 ? held + 6 : held;

	hctfs_log_setup();
	held[strcspn(held, "\n")] = '\0';
	return text;
}

void hctfs_log_setup(void)
{
	fuse_set_log_func(log_to_stderr);
}

/* libfuse's own messages, once stderr is gone. */
static void log_to_syslog(enum fuse_log_level level, const char *format, va_list args)
{
	vsyslog((int)level, format, args);
}

void hctfs_detach(struct hctfs *fs)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	openlog("hctfs", LOG_PID, LOG_DAEMON);
	fuse_set_log_func(log_to_syslog);
	atomic_store(&fs->detached, 1);
	if (null < 0)
		return;
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}
