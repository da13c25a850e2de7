#include "carry.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/checksum.h"
#include "codec/io.h"
#include "writer/interrupt.h"
#include "writer/model.h"
#include "writer/patience.h"

#define STEP   (8u << 20) /* between looks at signals and the progress line */
#define BUFFER (1u << 20)

struct copy {
	const struct mkhct_entry *from;
	int in, out;
	const char *out_name;
	uint64_t done;
	uint8_t *buffer; /* of BUFFER bytes */
	struct hct_checksum_state *checksum;
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

/* Errors of copy_file_range that mean "not between these two files", or that a second look may
 * not meet. */
static int is_refusal(int errnum)
{
	return errnum == EXDEV || errnum == EINVAL || errnum == ENOSYS || errnum == EOPNOTSUPP ||
	       errnum == EPERM || errnum == EBADF || errnum == ETXTBSY || errnum == EIO;
}

/* Reads at most `most` bytes at offset into the buffer and sums them up.  *got is 0 at the
 * end of a file that was truncated meanwhile; mkhct_carry says so. */
static hct_error read_some(struct copy *c, uint64_t offset, size_t most, size_t *got)
{
	ssize_t n;

	n = mkhct_patient_pread(c->in, c->buffer, most < BUFFER ? most : BUFFER, offset);
	if (n < 0)
		return hct_fail_errno(c->diag, errno, "%s: cannot be read", c->from->path);
	hct_checksum_add(c->checksum, c->buffer, (size_t)n);
	*got = (size_t)n;
	return HCT_OK;
}

/* What the kernel has just copied is summed up from the page cache. */
static hct_error sum_up(struct copy *c, size_t length)
{
	hct_error err = HCT_OK;
	size_t n = 1;

	for (size_t at = 0; !err && n > 0 && at < length; at += n)
		err = read_some(c, c->done + at, length - at, &n);
	if (!err && n == 0)
		err = hct_fail(c->diag, HCT_ERR_CHANGED, "%s: truncated while it was copied",
			       c->from->path);
	return err;
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
		err = sum_up(c, (size_t)n);
		if (!err)
			err = step_done(c, (size_t)n);
		if (err)
			return err;
	}
	return HCT_OK;
}

static hct_error copy_by_hand(struct copy *c)
{
	hct_error err = HCT_OK;
	size_t n = 1;

	while (!err && n > 0 && c->done < c->from->size) {
		err = read_some(c, c->done, next_step(c, BUFFER), &n);
		if (!err)
			err = hct_write_all(c->out, c->out_name, c->buffer, n, c->diag);
		if (!err)
			err = step_done(c, n);
	}
	return err;
}

hct_error mkhct_carry(const struct mkhct_entry *from, int out, const char *out_name,
		      struct hct_meter *meter, mkhct_tick tick, void *tick_arg, uint64_t *checksum,
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

	c.in = mkhct_patient_open(from->path);
	if (c.in < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", from->path);
	c.buffer = malloc(BUFFER);
	c.checksum = hct_checksum_begin();
	if (c.buffer && c.checksum)
		err = mkhct_entry_unchanged(from, c.in, diag);
	else
		err = hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", from->path);
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
	free(c.buffer);
	*checksum = hct_checksum_end(c.checksum);
	return err;
}
