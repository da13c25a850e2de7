#include "carry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/io.h"
#include "writer/interrupt.h"
#include "writer/model.h"

#define STEP   (8u << 20) /* between looks at signals and the progress line */
#define BUFFER (1u << 20)

struct copy {
	const struct mkhct_entry *from;
	int in, out;
	const char *out_name;
	uint64_t done;
	struct hct_meter *meter;
	mkhct_tick tick;
	void *tick_arg;
	struct hct_diag *diag;
};

static hct_error step_done(struct copy *c, size_t bytes)
{
	c->done += bytes;
	hct_meter_add(c->meter, bytes);
	if (c->tick)
		c->tick(c->tick_arg, c->from->name);
	return mkhct_interrupt_check(c->diag);
}

static size_t next_step(const struct copy *c, size_t most)
{
	uint64_t left = c->from->size - c->done;

	return left < most ? (size_t)left : most;
}

/* Errors of copy_file_range that mean "not between these two files". */
static int is_refusal(int errnum)
{
	return errnum == EXDEV || errnum == EINVAL || errnum == ENOSYS || errnum == EOPNOTSUPP ||
	       errnum == EPERM || errnum == EBADF || errnum == ETXTBSY;
}

/* Lets the kernel copy, which shares the blocks where the file system can.  Stops without
 * an error where the kernel will not; copy_by_hand goes on from there. */
static hct_error copy_in_kernel(struct copy *c)
{
	while (c->done < c->from->size) {
		ssize_t n = copy_file_range(c->in, NULL, c->out, NULL, next_step(c, STEP), 0);
		hct_error err;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && !is_refusal(errno))
			return hct_fail_errno(c->diag, errno, "%s: cannot be copied to %s",
					      c->from->path, c->out_name);
		if (n <= 0)
			return HCT_OK;
		err = step_done(c, (size_t)n);
		if (err)
			return err;
	}
	return HCT_OK;
}

static hct_error copy_by_hand(struct copy *c)
{
	hct_error err = HCT_OK;
	uint8_t *buffer;

	if (c->done == c->from->size)
		return HCT_OK;
	buffer = malloc(BUFFER);
	if (!buffer)
		return hct_fail(c->diag, HCT_ERR_NOMEM, "%s: out of memory", c->from->path);
	while (!err && c->done < c->from->size) {
		ssize_t n = pread(c->in, buffer, next_step(c, BUFFER), (off_t)c->done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err = hct_fail_errno(c->diag, errno, "%s: cannot be read", c->from->path);
			break;
		}
		if (n == 0) /* the check behind us says that it was truncated */
			break;
		err = hct_write_all(c->out, c->out_name, buffer, (size_t)n, c->diag);
		if (!err)
			err = step_done(c, (size_t)n);
	}
	free(buffer);
	return err;
}

hct_error mkhct_carry(const struct mkhct_entry *from, int out, const char *out_name,
		      struct hct_meter *meter, mkhct_tick tick, void *tick_arg,
		      struct hct_diag *diag)
{
	struct copy c = {.from = from,
			 .out = out,
			 .out_name = out_name,
			 .meter = meter,
			 .tick = tick,
			 .tick_arg = tick_arg,
			 .diag = diag};
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, from->mtime};
	hct_error err;

	c.in = open(from->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (c.in < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", from->path);
	err = mkhct_entry_unchanged(from, c.in, diag);
	if (!err)
		err = copy_in_kernel(&c);
	if (!err)
		err = copy_by_hand(&c);
	if (!err)
		err = mkhct_entry_unchanged(from, c.in, diag);
	if (!err && c.done != from->size)
		err = hct_fail(diag, HCT_ERR_CHANGED, "%s: ends before its size", from->path);
	if (!err && (fchmod(out, from->mode) != 0 || futimens(out, times) != 0))
		err = hct_fail_errno(diag, errno, "%s: cannot be given its mode and time",
				     out_name);
	close(c.in);
	return err;
}
