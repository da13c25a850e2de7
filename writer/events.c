#include "events.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "writer/names.h"

#define TIME_MAX 32

struct mkhct_events {
	FILE *json;
	int json_error; /* errno of the first write that failed */
	int log;        /* descriptor, or -1 */
	int log_failed; /* 1: somebody was told */
	int log_torn;   /* the last line is not whole */
	char *log_path;
	void (*warn)(void *arg, const char *text);
	void *warn_arg;
};

hct_error mkhct_events_open(FILE *json, const char *log, void (*warn)(void *arg, const char *text),
			    void *arg, struct mkhct_events **out, struct hct_diag *diag)
{
	struct mkhct_events *e = calloc(1, sizeof(*e));

	if (e && log)
		e->log_path = strdup(log);
	if (!e || (log && !e->log_path)) {
		free(e);
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory");
	}
	e->json = json;
	e->warn = warn;
	e->warn_arg = arg;
	/* Not O_NONBLOCK: a FIFO waits for its reader. */
	e->log = log ? open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666) : -1;
	if (log && e->log < 0) {
		hct_error err = hct_fail_errno(diag, errno, "--log %s: cannot be opened", log);

		mkhct_events_close(e);
		return err;
	}
	*out = e;
	return HCT_OK;
}

void mkhct_events_close(struct mkhct_events *e)
{
	if (!e)
		return;
	if (e->log >= 0)
		close(e->log);
	free(e->log_path);
	free(e);
}

hct_error mkhct_events_check(const struct mkhct_events *e, struct hct_diag *diag)
{
	if (!e || !e->json_error)
		return HCT_OK;
	return hct_fail_errno(diag, e->json_error, "standard output cannot be written");
}

/* Rendering ------------------------------------------------------------------------- */

static void format_time(char text[TIME_MAX])
{
	struct timespec now;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(text, TIME_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, TIME_MAX - n, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

/* Of the UTF-8 character at s that JSON may have as it is and that steers terminals or ends lines
 * for some readers (DEL, C1, U+2028, U+2029), the bytes; otherwise 0. */
static size_t steers(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	if (s[0] == 0x7f)
		return 1;
	if (s[0] == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0)
		return 2;
	return s[0] == 0xe2 && s[1] == 0x80 && (s[2] == 0xa8 || s[2] == 0xa9) ? 3 : 0;
}

/* The JSON text of an item, with escapes in their place; free. */
static char *print_item(const cJSON *item)
{
	char *text = cJSON_PrintUnformatted(item), *out = NULL, *to;
	size_t n;

	if (text)
		to = out = malloc(6 * strlen(text) + 1);
	for (const char *c = text; out && *c; c += n ? n : 1) {
		n = steers(c);
		if (n)
			to += sprintf(to, "\\u%04x",
				      n == 1   ? 0x7fu
				      : n == 2 ? (unsigned char)c[1] + 0u
					       : 0x2000u | ((unsigned char)c[2] & 0x3fu));
		else
			*to++ = *c;
	}
	if (out)
		*to = '\0';
	cJSON_free(text);
	return out;
}

/* text: a JSON object that is not empty. */
static void print_json(struct mkhct_events *e, const char *kind, const char *time, const char *text)
{
	if (!e->json || e->json_error)
		return;
	errno = 0;
	fprintf(e->json, "{\"event\":\"%s\",\"time\":\"%s\",%s\n", kind, time, text + 1);
	if (fflush(e->json) != 0 || ferror(e->json))
		e->json_error = errno ? errno : EIO;
}

static void fail_log(struct mkhct_events *e, int errnum)
{
	struct hct_diag diag;

	if (e->log_failed)
		return;
	e->log_failed = 1;
	hct_fail_errno(&diag, errnum, "--log %s: lines are missing", e->log_path);
	if (e->warn)
		e->warn(e->warn_arg, diag.text);
}

/* line: with its newline.  What a full disk cut off is closed as soon as there is room. */
static void append_log(struct mkhct_events *e, const char *line, size_t length)
{
	ssize_t n;

	if (e->log_torn) {
		if (write(e->log, "\n", 1) != 1)
			return;
		e->log_torn = 0;
	}
	do {
		n = write(e->log, line, length);
	} while (n < 0 && errno == EINTR);
	if (n >= 0 && (size_t)n == length)
		return;
	e->log_torn = n > 0;
	fail_log(e, n < 0 ? errno : ENOSPC);
}

static int is_plain(const char *text)
{
	for (const char *c = text; *c; c++)
		if ((unsigned char)*c <= ' ' || *c == '"' || *c == '=' || *c == '\\' || steers(c))
			return 0;
	return *text != '\0';
}

/* A value of the log, in JSON's quotes where it would not be one word. */
static void print_value(FILE *line, const cJSON *item)
{
	char *text;

	if (cJSON_IsString(item) && is_plain(item->valuestring)) {
		fprintf(line, " %s=%s", item->string, item->valuestring);
		return;
	}
	text = print_item(item);
	fprintf(line, " %s=%s", item->string, text ? text : "?");
	free(text);
}

/* On one line, nothing in it that steers a terminal. */
static void print_message(FILE *line, const char *message)
{
	size_t size = 3 * strlen(message) + 1;
	char *shown = malloc(size);

	if (shown)
		fprintf(line, ": %s", mkhct_name_printable(message, shown, size));
	free(shown);
}

static void log_event(struct mkhct_events *e, const char *kind, const char *time,
		      const cJSON *event)
{
	const cJSON *item;
	char *text = NULL;
	size_t length;
	FILE *line;

	if (e->log < 0)
		return;
	line = open_memstream(&text, &length);
	if (!line)
		return;
	fprintf(line, "%s %s", time, kind);
	cJSON_ArrayForEach(item, event)
	{
		if (strcmp(item->string, "message") == 0 && cJSON_IsString(item))
			print_message(line, item->valuestring);
		else if (!cJSON_IsArray(item))
			print_value(line, item);
	}
	fputc('\n', line);
	if (fclose(line) == 0)
		append_log(e, text, length);
	free(text);
}

/* Takes the event. */
static void emit(struct mkhct_events *e, const char *kind, cJSON *event)
{
	char *text = event ? print_item(event) : NULL;
	char time[TIME_MAX];

	format_time(time);
	if (text) {
		print_json(e, kind, time, text);
		log_event(e, kind, time, event);
	} else if (e->json && !e->json_error) {
		e->json_error = ENOMEM;
	}
	free(text);
	cJSON_Delete(event);
}

/* Events ---------------------------------------------------------------------------- */

static cJSON *when(int ok, cJSON *event)
{
	if (ok)
		return event;
	cJSON_Delete(event);
	return NULL;
}

static int add_u64(cJSON *event, const char *key, uint64_t value)
{
	return mkhct_json_add_u64(event, key, value) == 0;
}

static int add_double(cJSON *event, const char *key, const char *format, double value)
{
	char text[64];

	snprintf(text, sizeof(text), format, value);
	return cJSON_AddRawToObject(event, key, text) != NULL;
}

/* Text from outside, of which other programs need no exact copy. */
static int add_shown(cJSON *event, const char *key, const char *text)
{
	size_t size = 3 * strlen(text) + 1;
	char *shown = malloc(size);
	int ok = shown &&
		 cJSON_AddStringToObject(event, key, mkhct_name_printable(text, shown, size));

	free(shown);
	return ok;
}

void mkhct_events_start(struct mkhct_events *e, const struct mkhct_source *source, const char *out,
			const char *options, unsigned jobs)
{
	cJSON *event;

	if (!e)
		return;
	event = cJSON_CreateObject();
	emit(e, "start",
	     when(event && add_shown(event, "source", source->path) &&
			  add_shown(event, "out", out) &&
			  cJSON_AddItemToObject(event, "options", cJSON_Parse(options)) &&
			  add_u64(event, "files", source->model_count + source->carried_count) &&
			  add_u64(event, "models", source->model_count) &&
			  add_u64(event, "source_bytes",
				  source->model_bytes + source->carried_bytes) &&
			  add_u64(event, "model_bytes", source->model_bytes) &&
			  add_u64(event, "jobs", jobs),
		  event));
}

void mkhct_events_resume(struct mkhct_events *e, uint64_t done_bytes, uint64_t tensors)
{
	cJSON *event;

	if (!e)
		return;
	event = cJSON_CreateObject();
	emit(e, "resume",
	     when(event && add_u64(event, "done_bytes", done_bytes) &&
			  add_u64(event, "tensors", tensors),
		  event));
}

void mkhct_events_model_begin(struct mkhct_events *e, const char *name, uint64_t source_bytes)
{
	cJSON *event;

	if (!e)
		return;
	event = cJSON_CreateObject();
	emit(e, "model",
	     when(event && cJSON_AddStringToObject(event, "state", "begin") &&
			  mkhct_name_to_json(event, name) == 0 &&
			  add_u64(event, "source_bytes", source_bytes),
		  event));
}

void mkhct_events_model_end(struct mkhct_events *e, const char *name, uint64_t source_bytes,
			    uint64_t stored_bytes, double seconds)
{
	cJSON *event;

	if (!e)
		return;
	event = cJSON_CreateObject();
	emit(e, "model",
	     when(event && cJSON_AddStringToObject(event, "state", "end") &&
			  mkhct_name_to_json(event, name) == 0 &&
			  add_u64(event, "source_bytes", source_bytes) &&
			  add_u64(event, "stored_bytes", stored_bytes) &&
			  add_double(event, "seconds", "%.3f", seconds),
		  event));
}

void mkhct_events_tensor(struct mkhct_events *e, const char *file, const struct hct_tensor *t,
			 const struct mkhct_result *r, uint64_t stored_bytes, double seconds)
{
	cJSON *event;

	if (!e)
		return;
	event = cJSON_CreateObject();
	emit(e, "tensor",
	     when(event && add_shown(event, "file", file) &&
			  cJSON_AddStringToObject(event, "name", t->name) &&
			  cJSON_AddStringToObject(event, "dtype", t->dtype_name) &&
			  add_u64(event, "source_bytes", hct_tensor_bytes(t)) &&
			  add_u64(event, "stored_bytes", stored_bytes) &&
			  cJSON_AddStringToObject(event, "codec",
						  r->plan.codec ? r->plan.codec : "?") &&
			  add_double(event, "error", "%.7g", mkhct_result_error(r)) &&
			  add_double(event, "cosine", "%.7g", mkhct_result_cosine(r)) &&
			  add_double(event, "seconds", "%.3f", seconds),
		  event));
}

void mkhct_events_carried(struct mkhct_events *e, const char *name, uint64_t bytes)
{
	cJSON *event;

	if (!e)
		return;
	event = cJSON_CreateObject();
	emit(e, "carried",
	     when(event && mkhct_name_to_json(event, name) == 0 &&
			  add_u64(event, "source_bytes", bytes),
		  event));
}

void mkhct_events_checkpoint(struct mkhct_events *e, const char *name, uint64_t tensors,
			     uint64_t done_bytes)
{
	cJSON *event;

	if (!e)
		return;
	event = cJSON_CreateObject();
	emit(e, "checkpoint",
	     when(event && mkhct_name_to_json(event, name) == 0 &&
			  add_u64(event, "tensors", tensors) &&
			  add_u64(event, "done_bytes", done_bytes),
		  event));
}

void mkhct_events_message(struct mkhct_events *e, const char *kind, const char *message)
{
	cJSON *event;

	if (!e)
		return;
	event = cJSON_CreateObject();
	emit(e, kind, when(event && add_shown(event, "message", message), event));
}

void mkhct_events_error(struct mkhct_events *e, const char *message, int exit_code)
{
	cJSON *event;

	if (!e)
		return;
	event = cJSON_CreateObject();
	emit(e, "error",
	     when(event && add_shown(event, "message", message) &&
			  cJSON_AddNumberToObject(event, "exit_code", exit_code),
		  event));
}

void mkhct_events_report(struct mkhct_events *e, const char *report)
{
	if (e)
		emit(e, "report", cJSON_Parse(report));
}
