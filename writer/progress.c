#include "progress.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "codec/metrics.h"
#include "codec/units.h"
#include "writer/names.h"

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

void mkhct_progress_listen(struct mkhct_progress *p, struct mkhct_events *events)
{
	p->events = events;
}

void mkhct_progress_measure(struct mkhct_progress *p, unsigned pass, size_t tensors)
{
	snprintf(p->measuring, sizeof(p->measuring), "measuring");
	if (pass)
		snprintf(p->measuring, sizeof(p->measuring), "pass %u: measuring", pass);
	hct_meter_start(&p->meter, tensors);
	hct_meter_count(&p->meter, p->measuring);
	p->next = 0;
}

void mkhct_progress_work(struct mkhct_progress *p, uint64_t total)
{
	hct_meter_start(&p->meter, total);
	p->next = 0;
}

void mkhct_progress_post(struct mkhct_progress *p, const char *line)
{
	free(atomic_exchange(&p->posted, strdup(line)));
}

static void show_posted(struct mkhct_progress *p)
{
	char *line = atomic_exchange(&p->posted, NULL);

	if (line)
		mkhct_progress_note(p, "%s", line);
	free(line);
}

void mkhct_progress_tick(void *progress, const char *what)
{
	struct mkhct_progress *p = progress;
	char line[1024];
	double now;

	show_posted(p);
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

static void take_off(struct mkhct_progress *p)
{
	if (!p->drawn)
		return;
	fputs("\r\033[K", p->stream);
	fflush(p->stream);
	p->drawn = 0;
	p->next = 0;
}

void mkhct_progress_clear(struct mkhct_progress *p)
{
	show_posted(p);
	take_off(p);
}

/* The part of a line behind "mkhct: KIND: ", or NULL. */
static const char *behind(const char *line, const char *kind)
{
	size_t n = strlen(kind);

	if (strncmp(line, "mkhct: ", 7) != 0 || strncmp(line + 7, kind, n) != 0 ||
	    strncmp(line + 7 + n, ": ", 2) != 0)
		return NULL;
	return line + 7 + n + 2;
}

static void tell_message(struct mkhct_progress *p, const char *line)
{
	static const char *const kinds[] = {"note", "warning"};

	for (size_t i = 0; p->events && i < sizeof(kinds) / sizeof(*kinds); i++)
		if (behind(line, kinds[i]))
			mkhct_events_message(p->events, kinds[i], behind(line, kinds[i]));
}

void mkhct_progress_note(struct mkhct_progress *p, const char *format, ...)
{
	va_list args;
	char *line;
	int n;

	if (p->quiet && !p->events)
		return;
	va_start(args, format);
	n = vasprintf(&line, format, args);
	va_end(args);
	if (n < 0)
		return;
	tell_message(p, line);
	if (!p->quiet) {
		take_off(p);
		fprintf(p->stream, "%s\n", line);
	}
	free(line);
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

/* seconds: negative when they are not known. */
static void show_tensor(struct mkhct_progress *p, const struct hct_tensor *t, const char *codec,
			const struct mkhct_result *r, uint64_t stored_bytes, double seconds)
{
	char name[512], dtype[64], shape[256], ratio[16] = "-", loss[192] = "", time[32] = "";
	char cosine[HCT_COSINE_TEXT];

	show_shape(t, shape, sizeof(shape));
	if (stored_bytes)
		snprintf(ratio, sizeof(ratio), "%.3f",
			 (double)hct_tensor_bytes(t) / (double)stored_bytes);
	if (r->error > 0)
		snprintf(loss, sizeof(loss), "  %.3f bits  cosine %s",
			 8 * (double)stored_bytes / (double)t->elements,
			 hct_metrics_cosine_text(mkhct_result_cosine(r), 5, cosine));
	else if (r->plan.why)
		snprintf(loss, sizeof(loss), "  lossless: %s", r->plan.why);
	if (seconds >= 0)
		snprintf(time, sizeof(time), "  %.2f s", seconds);
	mkhct_progress_note(p, "  %s  %s  %s  %s  %s%s%s",
			    mkhct_name_printable(t->name, name, sizeof(name)),
			    mkhct_name_printable(t->dtype_name, dtype, sizeof(dtype)), shape, codec,
			    ratio, loss, time);
}

void mkhct_progress_model(struct mkhct_progress *p, const char *name, uint64_t source_bytes)
{
	p->model = name;
	p->model_start = p->tensor_start = hct_meter_now();
	mkhct_events_model_begin(p->events, name, source_bytes);
}

void mkhct_progress_tensor(struct mkhct_progress *p, const struct hct_tensor *t,
			   const struct mkhct_result *result, uint64_t stored_bytes)
{
	double now = hct_meter_now(), seconds = now - p->tensor_start;

	p->tensor_start = now;
	if (p->verbose && !p->quiet)
		show_tensor(p, t, result->plan.codec ? result->plan.codec : "-", result,
			    stored_bytes, seconds);
	mkhct_events_tensor(p->events, p->model ? p->model : "", t, result, stored_bytes, seconds);
}

static void show_tensors(struct mkhct_progress *p, const hct_reader *reader,
			 const struct mkhct_result *results)
{
	const struct hct_safetensors *st = hct_reader_safetensors(reader);
	struct hct_coding coding;

	for (size_t i = 0; i < st->count; i++) {
		hct_reader_coding(reader, i, &coding);
		show_tensor(p, &st->tensors[i], coding.codec, &results[i], coding.stored_bytes, -1);
	}
}

static void tell_file(struct mkhct_progress *p, const char *name, uint64_t source_bytes,
		      const hct_reader *reader)
{
	if (!reader)
		mkhct_events_carried(p->events, name, source_bytes);
	else
		mkhct_events_model_end(p->events, name, source_bytes, hct_reader_file_bytes(reader),
				       p->model ? hct_meter_now() - p->model_start : 0);
}

void mkhct_progress_file(struct mkhct_progress *p, const char *name, uint64_t source_bytes,
			 const hct_reader *reader, const struct mkhct_result *results)
{
	char shown[512], from[HCT_UNITS_MAX], to[HCT_UNITS_MAX];
	int told = p->model != NULL;

	tell_file(p, name, source_bytes, reader);
	p->model = NULL;
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
	if (p->verbose && !told)
		show_tensors(p, reader, results);
}
