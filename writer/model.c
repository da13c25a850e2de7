#include "model.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "writer/patience.h"
#include "writer/transcode.h"

/* What this thread is reading through a map, or NULL. */
struct guard {
	sigjmp_buf env;
	uintptr_t begin, end;
};
static _Thread_local struct guard *volatile active_guard;

static void on_fault(int signum, siginfo_t *info, void *context)
{
	struct guard *g = active_guard;
	uintptr_t address = (uintptr_t)info->si_addr;

	(void)context;
	if (g && address >= g->begin && address < g->end)
		siglongjmp(g->env, 1);
	signal(signum, SIG_DFL); /* not ours: it faults again and ends the process */
}

void mkhct_model_catch_faults(void)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, NULL);
}

hct_error mkhct_model_guard(const struct mkhct_model *m, hct_error (*work)(void *), void *arg,
			    struct hct_diag *diag)
{
	struct guard guard;
	hct_error err;

	guard.begin = (uintptr_t)m->map;
	/* The last page reaches behind the end of the file. */
	guard.end = guard.begin + m->entry->size + (uintptr_t)sysconf(_SC_PAGESIZE);
	if (sigsetjmp(guard.env, 1) == 0) { /* the handler is left with SIGBUS blocked */
		active_guard = &guard;
		err = work(arg);
		active_guard = NULL;
		return err;
	}
	active_guard = NULL;
	err = mkhct_model_unchanged(m, diag);
	if (err)
		return err;
	return hct_fail(diag, HCT_ERR_IO,
			"%s: cannot be read: its disk failed, or it was cut short", m->entry->path);
}

hct_error mkhct_entry_unchanged(const struct mkhct_entry *entry, int fd, struct hct_diag *diag)
{
	struct stat sb;

	if (fstat(fd, &sb) != 0)
		return hct_fail_errno(diag, errno, "%s: cannot be examined", entry->path);
	if ((uint64_t)sb.st_size < entry->disk_size)
		return hct_fail(diag, HCT_ERR_CHANGED,
				"%s: was truncated while it was read; run again when it is whole",
				entry->path);
	if (sb.st_dev != entry->dev || sb.st_ino != entry->ino ||
	    (uint64_t)sb.st_size != entry->disk_size ||
	    sb.st_mtim.tv_sec != entry->disk_mtime.tv_sec ||
	    sb.st_mtim.tv_nsec != entry->disk_mtime.tv_nsec)
		return hct_fail(
			diag, HCT_ERR_CHANGED,
			"%s: changed while it was read; run again when nothing writes to it",
			entry->path);
	return HCT_OK;
}

hct_error mkhct_model_unchanged(const struct mkhct_model *m, struct hct_diag *diag)
{
	return mkhct_entry_unchanged(m->entry, m->disk_fd, diag);
}

/* What a download leaves under the name of a model that it did not get; text ends with a NUL.
 * A header's length would make these files of 10^18 bytes, which helps nobody. */
static hct_error refuse_text(const struct mkhct_model *m, const char *text, struct hct_diag *diag)
{
	static const struct {
		const char *begins, *what;
	} texts[] = {
		{"version https://git-lfs",
		 "a Git LFS pointer and not the weights; run 'git lfs pull' there, or get the file "
		 "with 'hf download'"},
		{"<!doctype", "a web page and not the weights"},
		{"<html", "a web page and not the weights"},
		{"<?xml", "a server's message and not the weights"},
		{"{\"error", "a server's message and not the weights"},
		{"entry not found", "a server's message and not the weights"},
		{"access to model", "a server's message and not the weights"},
		{"invalid username", "a server's message and not the weights"},
	};

	text += strspn(text, " \t\r\n");
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (strncasecmp(text, texts[i].begins, strlen(texts[i].begins)) == 0)
			return hct_fail(diag, HCT_ERR_SAFETENSORS, "%s: %s%s", m->entry->path,
					texts[i].what,
					i ? "; download the file itself, with 'hf download' for "
					    "instance"
					  : "");
	return HCT_OK;
}

static hct_error parse_header(struct mkhct_model *m, struct hct_diag *diag)
{
	const char *path = m->entry->path;
	uint64_t size = m->entry->size;
	uint8_t first[64] = {0};
	size_t n = size < sizeof(first) ? (size_t)size : sizeof(first) - 1;
	struct hct_diag why = {""};
	uint8_t *header = NULL;
	size_t length;
	hct_error err;

	err = mkhct_patient_read(m->fd, path, first, n, 0, diag);
	if (!err)
		err = refuse_text(m, (const char *)first, diag);
	if (err)
		return err;
	if (n < 8)
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"%s: not a safetensors file: shorter than 8 bytes", path);
	err = hct_safetensors_header_len(first, size, &length, &why);
	if (err)
		return hct_fail(diag, err, "%s: %s", path, why.text);
	header = malloc(length);
	if (!header)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", path);
	err = mkhct_patient_read(m->fd, path, header, length, 0, diag);
	if (!err) {
		err = hct_safetensors_parse(header, length, size, &m->st, &why);
		if (err)
			hct_fail(diag, err, "%s: %s", path, why.text);
	}
	free(header);
	return err;
}

/* Nothing is decoded: the index holds the header.  m->st is the reader's. */
static hct_error open_packed(struct mkhct_model *m, struct hct_diag *diag)
{
	const struct mkhct_entry *entry = m->entry;
	const struct hct_source *source;
	int copy = fcntl(m->disk_fd, F_DUPFD_CLOEXEC, 0);
	hct_error err;

	m->fd = -1;
	if (copy < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", entry->path);
	err = hct_reader_open_fd(copy, entry->path, &m->reader, diag);
	if (err)
		return err;
	m->st = *hct_reader_safetensors(m->reader);
	source = hct_reader_source(m->reader);
	if (source->size != entry->size)
		return hct_fail(diag, HCT_ERR_CHANGED, "%s: changed while it was read; run again",
				entry->path);
	return HCT_OK;
}

hct_error mkhct_model_open(const struct mkhct_entry *entry, struct mkhct_model *out,
			   struct hct_diag *diag)
{
	hct_error err;

	memset(out, 0, sizeof(*out));
	out->entry = entry;
	out->disk_fd = out->fd = mkhct_patient_open(entry->path);
	if (out->disk_fd < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", entry->path);
	err = mkhct_model_unchanged(out, diag);
	if (!err)
		err = entry->packed ? open_packed(out, diag) : parse_header(out, diag);
	if (err)
		mkhct_model_close(out);
	return err;
}

hct_error mkhct_model_map(struct mkhct_model *m, struct hct_diag *diag)
{
	hct_error err;
	void *map;

	if (m->entry->size > SIZE_MAX / 2)
		return hct_fail(diag, HCT_ERR_LIMIT, "%s: too big to be mapped", m->entry->path);
	if (m->reader && m->fd < 0) {
		err = mkhct_transcode_decode(m->reader, m->entry->scratch, &m->fd, diag);
		if (err)
			return err;
	}
	map = mmap(NULL, (size_t)m->entry->size, PROT_READ, MAP_PRIVATE, m->fd, 0);
	if (map == MAP_FAILED)
		return hct_fail_errno(diag, errno, "%s: cannot be mapped", m->entry->path);
	madvise(map, (size_t)m->entry->size, MADV_SEQUENTIAL);
	m->map = map;
	return HCT_OK;
}

void mkhct_model_let_go(const struct mkhct_model *m, uint64_t begin, uint64_t end)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	begin = (begin + page - 1) / page * page;
	end = end / page * page;
	if (begin < end)
		madvise((void *)(m->map + begin), (size_t)(end - begin), MADV_DONTNEED);
}

const uint8_t *mkhct_model_data(const struct mkhct_model *m, const struct hct_tensor *t)
{
	return m->map + m->st.header_len + t->begin;
}

void mkhct_model_close(struct mkhct_model *m)
{
	if (m->map)
		munmap((void *)m->map, (size_t)m->entry->size);
	if (m->fd >= 0 && m->fd != m->disk_fd)
		close(m->fd);
	if (m->disk_fd >= 0)
		close(m->disk_fd);
	if (m->reader)
		hct_reader_close(m->reader); /* whose m->st is */
	else
		hct_safetensors_free(&m->st);
	memset(&m->st, 0, sizeof(m->st));
	m->reader = NULL;
	m->map = NULL;
	m->fd = m->disk_fd = -1;
}
