#include "carry.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/bytes.h"
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
	uint8_t *buffer;                            /* of BUFFER bytes */
	struct hct_checksum_state *checksum, *mark; /* of all, and since the last mark */
	const struct mkhct_carry_log *log;          /* or NULL */
	uint64_t marked, chain;                     /* the last mark, and its log's checksum, */
	uint64_t saved;                             /* and the last one that was saved, */
	double saved_at;                            /* monotonic seconds */
	int unsynced; /* a sync has failed: nothing is saved any more */
	struct hct_meter *meter;
	mkhct_tick tick;
	void *tick_arg;
	struct hct_diag *diag;
};

/* Marks -------------------------------------------------------------------------------- */

static void add_bytes(struct copy *c, size_t n)
{
	hct_checksum_add(c->checksum, c->buffer, n);
	hct_checksum_add(c->mark, c->buffer, n);
}

/* All bytes up to here, a multiple of MARK, are in the sums. */
static hct_error pass_mark(struct copy *c, uint64_t at)
{
	uint8_t pair[16];

	hct_store64(pair, c->chain);
	hct_store64(pair + 8, hct_checksum_end(c->mark));
	c->chain = hct_checksum(pair, sizeof(pair));
	c->marked = at;
	c->mark = hct_checksum_begin();
	return c->mark ? HCT_OK
		       : hct_fail(c->diag, HCT_ERR_NOMEM, "%s: out of memory", c->from->path);
}

static hct_error save(struct copy *c, struct hct_diag *diag)
{
	hct_error err;

	if (!c->log || c->marked == c->saved || c->unsynced)
		return HCT_OK;
	err = hct_sync_out(c->out, c->out_name, diag);
	if (err) {
		c->unsynced = 1;
		return err;
	}
	c->saved = c->marked;
	c->saved_at = hct_meter_now();
	return c->log->save(c->log->arg, c->saved, c->chain, diag);
}

/* Begins with nothing. */
static hct_error begin(struct copy *c)
{
	hct_checksum_end(c->checksum);
	hct_checksum_end(c->mark);
	c->checksum = hct_checksum_begin();
	c->mark = hct_checksum_begin();
	c->marked = c->chain = 0;
	if (!c->checksum || !c->mark)
		return hct_fail(c->diag, HCT_ERR_NOMEM, "%s: out of memory", c->from->path);
	return HCT_OK;
}

/* Reads back what an earlier run has copied; *same: 1 when it is that. */
static hct_error read_back(struct copy *c, int *same)
{
	uint64_t bytes = c->log->bytes, at = 0;
	hct_error err = HCT_OK;

	*same = 0;
	if (bytes % MKHCT_CARRY_MARK != 0 || bytes > c->from->size)
		return HCT_OK;
	while (!err && at < bytes) {
		uint64_t mark = MKHCT_CARRY_MARK - at % MKHCT_CARRY_MARK;
		ssize_t n =
			pread(c->out, c->buffer, mark < BUFFER ? (size_t)mark : BUFFER, (off_t)at);

		if (n < 0 && errno != EINTR)
			return hct_fail_errno(c->diag, errno, "%s: cannot be read back",
					      c->out_name);
		if (n == 0)
			return HCT_OK;
		if (n < 0)
			continue;
		add_bytes(c, (size_t)n);
		at += (uint64_t)n;
		if (at % MKHCT_CARRY_MARK == 0)
			err = pass_mark(c, at);
		if (!err)
			err = mkhct_interrupt_check(c->diag);
	}
	*same = c->chain == c->log->checksum;
	return err;
}

static hct_error go_on(struct copy *c)
{
	int same = 0;
	hct_error err = begin(c);

	c->saved_at = hct_meter_now();
	if (err || !c->log)
		return err;
	err = read_back(c, &same);
	if (!err && !same)
		err = begin(c);
	if (err)
		return err;
	c->done = c->saved = c->marked;
	hct_meter_skip(c->meter, c->done);
	if (ftruncate(c->out, (off_t)c->done) != 0 || lseek(c->out, (off_t)c->done, SEEK_SET) < 0 ||
	    lseek(c->in, (off_t)c->done, SEEK_SET) < 0)
		err = hct_fail_errno(c->diag, errno, "%s: cannot be gone on with", c->out_name);
	return err;
}

/* Copying ------------------------------------------------------------------------------ */

static hct_error step_done(struct copy *c, size_t bytes)
{
	hct_error err = HCT_OK;

	c->done += bytes;
	hct_meter_add(c->meter, bytes);
	if (c->tick)
		c->tick(c->tick_arg, c->from->name);
	if (c->done % MKHCT_CARRY_MARK == 0)
		err = pass_mark(c, c->done);
	if (!err && c->done < c->from->size && c->log &&
	    hct_meter_now() - c->saved_at >= c->log->every_seconds)
		err = save(c, c->diag);
	return err ? err : mkhct_interrupt_check(c->diag);
}

/* No step leads past a mark. */
static size_t next_step(const struct copy *c, size_t most)
{
	uint64_t left = c->from->size - c->done;
	uint64_t mark = MKHCT_CARRY_MARK - c->done % MKHCT_CARRY_MARK;

	left = left < mark ? left : mark;
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
	add_bytes(c, (size_t)n);
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
	return mkhct_carry_on(from, out, out_name, NULL, meter, tick, tick_arg, checksum, diag);
}

hct_error mkhct_carry_on(const struct mkhct_entry *from, int out, const char *out_name,
			 const struct mkhct_carry_log *log, struct hct_meter *meter,
			 mkhct_tick tick, void *tick_arg, uint64_t *checksum, struct hct_diag *diag)
{
	struct copy c = {.from = from,
			 .out = out,
			 .out_name = out_name,
			 .log = log,
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
	if (c.buffer)
		err = mkhct_entry_unchanged(from, c.in, diag);
	else
		err = hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", from->path);
	if (!err)
		err = go_on(&c);
	if (!err)
		err = copy_in_kernel(&c);
	if (!err)
		err = copy_by_hand(&c);
	/* Best effort: what was saved before stays good. */
	if (err && err != HCT_ERR_CHANGED)
		(void)save(&c, NULL);
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
	hct_checksum_end(c.mark);
	return err;
}
