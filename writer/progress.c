#include "progress.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "codec/units.h"
#include "writer/names.h"
#include "writer/tally.h"

#define REDRAW .1 /* seconds */

static int is_terminal(FILE *stream)
{
	const char *term = getenv("TERM");

	return isatty(fileno(stream)) && term && *term && strcmp(term, "dumb") != 0;
}

void mkhct_progress_start(struct mkhct_progress *p, FILE *stream, int quiet, int verbose,
			  uint64_t total)
{
	memset(p, 0, sizeof(*p));
	p->stream = stream;
	p->quiet = quiet;
	p->verbose = verbose;
	p->terminal = is_terminal(stream);
	hct_meter_start(&p->meter, total);
}

/* Asked each time: windows are resized. */
static unsigned terminal_width(FILE *stream)
{
	struct winsize size;

	if (ioctl(fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_col < 2)
		return 79;
	return size.ws_col - 1u; /* the last column would wrap on some terminals */
}

void mkhct_progress_tick(void *progress, const char *what)
{
	struct mkhct_progress *p = progress;
	char line[1024];
	double now;

	if (p->quiet || !p->terminal)
		return;
	now = hct_meter_now();
	if (now < p->next)
		return;
	p->next = now + REDRAW;
	hct_meter_line(&p->meter, what, terminal_width(p->stream), line, sizeof(line));
	fprintf(p->stream, "\r%s\033[K", line);
	fflush(p->stream);
	p->drawn = 1;
}

void mkhct_progress_clear(struct mkhct_progress *p)
{
	if (!p->drawn)
		return;
	fputs("\r\033[K", p->stream);
	fflush(p->stream);
	p->drawn = 0;
	p->next = 0;
}

void mkhct_progress_note(struct mkhct_progress *p, const char *format, ...)
{
	va_list args;

	if (p->quiet)
		return;
	mkhct_progress_clear(p);
	va_start(args, format);
	vfprintf(p->stream, format, args);
	va_end(args);
	fputc('\n', p->stream);
}

static void show_shape(const struct hct_tensor *t, char *buf, size_t size)
{
	size_t used = 0;

	snprintf(buf, size, "[]");
	for (unsigned d = 0; d < t->rank; d++) {
		int n = snprintf(buf + used, size - used, "%s%" PRIu64 "%s", d ? "," : "[",
				 t->shape[d], d + 1 == t->rank ? "]" : "");

		if (n < 0 || (size_t)n >= size - used)
			return;
		used += (size_t)n;
	}
}

static void show_tensors(struct mkhct_progress *p, const hct_reader *reader,
			 const struct mkhct_result *results)
{
	const struct hct_safetensors *st = hct_reader_safetensors(reader);

	for (size_t i = 0; i < st->count; i++) {
		const struct hct_tensor *t = &st->tensors[i];
		char name[512], dtype[64], shape[256], ratio[16] = "-", loss[128] = "";
		char cosine[MKHCT_COSINE_TEXT];
		struct hct_coding coding;

		hct_reader_coding(reader, i, &coding);
		show_shape(t, shape, sizeof(shape));
		if (coding.stored_bytes)
			snprintf(ratio, sizeof(ratio), "%.3f",
				 (double)hct_tensor_bytes(t) / (double)coding.stored_bytes);
		if (results[i].error > 0)
			snprintf(loss, sizeof(loss), "  %.3f bits  cosine %s",
				 8 * (double)coding.stored_bytes / (double)t->elements,
				 mkhct_cosine_text(mkhct_result_cosine(&results[i]), 5, cosine));
		else if (results[i].plan.why)
			snprintf(loss, sizeof(loss), "  lossless: %s", results[i].plan.why);
		mkhct_progress_note(p, "  %s  %s  %s  %s  %s%s",
				    mkhct_name_printable(t->name, name, sizeof(name)),
				    mkhct_name_printable(t->dtype_name, dtype, sizeof(dtype)),
				    shape, coding.codec, ratio, loss);
	}
}

void mkhct_progress_file(struct mkhct_progress *p, const char *name, uint64_t source_bytes,
			 const hct_reader *reader, const struct mkhct_result *results)
{
	char shown[512], from[HCT_UNITS_MAX], to[HCT_UNITS_MAX];

	if (p->quiet || (p->terminal && !p->verbose))
		return;
	mkhct_name_printable(name, shown, sizeof(shown));
	hct_units_size(source_bytes, from);
	if (!reader) {
		mkhct_progress_note(p, "%s: %s, carried", shown, from);
		return;
	}
	hct_units_size(hct_reader_file_bytes(reader), to);
	mkhct_progress_note(p, "%s: %s to %s, ratio %.3f", shown, from, to,
			    (double)source_bytes / (double)hct_reader_file_bytes(reader));
	if (p->verbose)
		show_tensors(p, reader, results);
}
