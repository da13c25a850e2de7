#include "transcode.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/units.h"
#include "writer/hasher.h"
#include "writer/interrupt.h"
#include "writer/names.h"
#include "writer/patience.h"

#define MAX_THREADS 64u

hct_error mkhct_transcode_look(const char *path, struct mkhct_look *out, struct hct_diag *diag)
{
	const struct hct_safetensors *st;
	const struct hct_source *source;
	hct_reader *r;
	hct_error err = hct_reader_open(path, &r, diag);

	if (err)
		return err;
	source = hct_reader_source(r);
	*out = (struct mkhct_look){.size = source->size,
				   .mtime = {(time_t)source->mtime_sec, (long)source->mtime_nsec},
				   .lossless = hct_reader_is_lossless(r)};
	st = hct_reader_safetensors(r);
	for (size_t i = 0; i < st->count && !out->lossless; i++) {
		struct hct_coding coding;

		hct_reader_coding(r, i, &coding);
		if (!(coding.relative_squared_error > 0))
			continue;
		out->weights += (double)st->tensors[i].elements;
		out->error += (double)st->tensors[i].elements * coding.relative_squared_error;
	}
	hct_reader_close(r);
	return HCT_OK;
}

hct_error mkhct_transcode_finished(const char *hidden_folder, struct hct_diag *diag)
{
	DIR *dir = mkhct_patient_opendir(hidden_folder);
	const struct dirent *d;
	int found = 0;

	if (!dir)
		return hct_fail_errno(diag, errno, "%s: cannot be listed", hidden_folder);
	while (!found && (d = readdir(dir)) != NULL)
		found = strncmp(d->d_name, "unfinished.json", 15) == 0 ||
			strncmp(d->d_name, "checkpoint", 10) == 0;
	closedir(dir);
	return found ? HCT_ERR_UNFINISHED : HCT_OK;
}

/* The scratch file -------------------------------------------------------------------- */

static int open_nameless(const char *folder)
{
	int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char *path;

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd;
	path = mkhct_name_join(folder, ".mkhct-XXXXXX.part");
	if (!path)
		return -1;
	fd = mkostemps(path, 5, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	free(path);
	return fd;
}

/* malloc'ed, or NULL. */
static char *parent_of(const char *path)
{
	size_t n = (size_t)(mkhct_name_base(path) - path);

	return n ? strndup(path, n) : strdup(".");
}

/* Room for the whole file, so that a full disk shows before anything is decoded. */
static int reserve(int fd, uint64_t size)
{
	if (size == 0 || fallocate(fd, 0, 0, (off_t)size) == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return -1;
	return ftruncate(fd, (off_t)size);
}

static hct_error open_scratch(const struct mkhct_scratch *scratch, const char *name, uint64_t size,
			      int *out, struct hct_diag *diag)
{
	const char *tmpdir = getenv("TMPDIR"), *folder = NULL;
	char *parent = scratch && scratch->out ? parent_of(scratch->out) : NULL;
	char text[HCT_UNITS_MAX];
	hct_error err = HCT_OK;
	int fd = -1;

	if (parent)
		fd = open_nameless(folder = scratch->out);
	if (parent && fd < 0)
		fd = open_nameless(folder = parent);
	if (fd < 0)
		fd = open_nameless(folder = tmpdir && *tmpdir ? tmpdir : "/tmp");
	if (fd < 0)
		err = hct_fail_errno(diag, errno, "%s: no file to decode %s into can be made",
				     folder, name);
	else if (reserve(fd, size) != 0)
		err = hct_fail_errno(diag, errno,
				     "%s: no room to decode %s into, which takes %s; make room",
				     folder, name, hct_units_size(size, text));
	if (err && fd >= 0)
		close(fd);
	free(parent);
	*out = fd;
	return err;
}

static hct_error write_at(int fd, const char *name, const void *src, size_t length, uint64_t offset,
			  struct hct_diag *diag)
{
	const uint8_t *p = src;

	while (length) {
		ssize_t n = pwrite(fd, p, length, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return hct_fail_errno(diag, errno, "%s: what it holds cannot be written",
					      name);
		p += n;
		offset += (size_t)n;
		length -= (size_t)n;
	}
	return HCT_OK;
}

/* Decoding ----------------------------------------------------------------------------- */

struct decoding {
	const hct_reader *reader;
	int fd;
	pthread_mutex_t lock; /* all below */
	uint64_t next;        /* chunk */
	hct_error error;      /* the first */
	struct hct_diag diag;
};

/* A read of the compressed file that fails is tried again. */
static hct_error decode_chunk(const hct_reader *r, hct_decoder *d, uint64_t number, void *dst,
			      struct hct_diag *diag)
{
	unsigned tries = 0;
	hct_error err;

	do
		err = hct_reader_decode_verified(r, d, number, dst, diag);
	while (err == HCT_ERR_IO && mkhct_patience(&tries, EIO));
	return err;
}

static hct_error decode_chunks(struct decoding *w, hct_decoder *decoder, struct hct_diag *diag)
{
	uint64_t count = hct_reader_chunk_count(w->reader);
	uint8_t *buffer = NULL;
	size_t capacity = 0;
	hct_error err = HCT_OK;

	while (!err) {
		struct hct_chunk chunk;
		uint64_t number;

		pthread_mutex_lock(&w->lock);
		number = w->error ? count : w->next;
		w->next += number < count;
		pthread_mutex_unlock(&w->lock);
		if (number == count)
			break;
		hct_reader_chunk(w->reader, number, &chunk);
		if (chunk.length > capacity) {
			free(buffer);
			capacity = chunk.length;
			buffer = malloc(capacity);
		}
		err = buffer ? decode_chunk(w->reader, decoder, number, buffer, diag)
			     : hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory",
					hct_reader_name(w->reader));
		if (!err)
			err = write_at(w->fd, hct_reader_name(w->reader), buffer, chunk.length,
				       chunk.offset, diag);
		if (!err)
			err = mkhct_interrupt_check(diag);
	}
	free(buffer);
	return err;
}

static void *decode_thread(void *arg)
{
	struct decoding *w = arg;
	struct hct_diag diag = {""};
	hct_decoder *decoder;
	hct_error err = hct_decoder_create(HCT_SIMD_AUTO, &decoder);

	if (err) {
		hct_fail(&diag, err, "%s: %s", hct_reader_name(w->reader), hct_error_string(err));
	} else {
		err = decode_chunks(w, decoder, &diag);
		hct_decoder_free(decoder);
	}
	pthread_mutex_lock(&w->lock);
	if (err && !w->error) {
		w->error = err;
		w->diag = diag;
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* The caller's thread decodes as well: threads that cannot be started are not missed. */
static hct_error decode_all(struct decoding *w, unsigned threads, struct hct_diag *diag)
{
	pthread_t others[MAX_THREADS];
	unsigned started = 0;

	pthread_mutex_init(&w->lock, NULL);
	while (started + 1 < threads && started < MAX_THREADS &&
	       pthread_create(&others[started], NULL, decode_thread, w) == 0)
		started++;
	decode_thread(w);
	for (unsigned i = 0; i < started; i++)
		pthread_join(others[i], NULL);
	pthread_mutex_destroy(&w->lock);
	if (w->error && diag)
		*diag = w->diag;
	return w->error;
}

static hct_error check_digest(const hct_reader *r, int fd, struct hct_diag *diag)
{
	const struct hct_source *source = hct_reader_source(r);
	const char *name = hct_reader_name(r);
	struct mkhct_hasher *hasher;
	uint8_t sha256[32];
	hct_error err;

	if (!hct_reader_is_lossless(r))
		return HCT_OK;
	err = mkhct_hasher_start(fd, name, source->size, &hasher, diag);
	if (!err)
		err = mkhct_hasher_finish(hasher, sha256, diag);
	if (!err && memcmp(sha256, source->sha256, sizeof(sha256)) != 0)
		err = hct_fail(diag, HCT_ERR_DIGEST,
			       "%s: what it decodes to has not the sha256 of its source; run 'hct "
			       "check' on it",
			       name);
	return err;
}

hct_error mkhct_transcode_decode(const hct_reader *r, const struct mkhct_scratch *scratch, int *fd,
				 struct hct_diag *diag)
{
	const struct hct_safetensors *st = hct_reader_safetensors(r);
	struct decoding w = {.reader = r};
	hct_error err;

	err = open_scratch(scratch, hct_reader_name(r), st->file_size, &w.fd, diag);
	if (err)
		return err;
	err = write_at(w.fd, hct_reader_name(r), st->header, st->header_len, 0, diag);
	if (!err)
		err = decode_all(&w, scratch && scratch->threads ? scratch->threads : 1, diag);
	if (!err)
		err = check_digest(r, w.fd, diag);
	if (err)
		close(w.fd);
	else
		*fd = w.fd;
	return err;
}
