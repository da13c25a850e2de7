/* What happens while mkhct works, for other programs: --json prints an event a line as JSON on
 * standard output, --log appends the same as plain lines with the time.
 *
 * JSON: {"event": KIND, "time": "2026-01-31T12:00:00.123Z", ...}, each line flushed; KIND is
 *	start       source, out, options, files, models, source_bytes, model_bytes, jobs: the first
 *		    line, unless an error comes before
 *	resume      done_bytes, tensors: bytes of the source that earlier runs did, in whole files
 *		    and tensors, and the number of these tensors
 *	model       state ("begin", "end"), name, source_bytes; at its end stored_bytes, seconds
 *	tensor      file, name, dtype, source_bytes, stored_bytes, codec, error, cosine, seconds
 *	carried     name, source_bytes
 *	checkpoint  name, tensors, done_bytes: what no interruption takes away any more, of the
 *		    model at hand: whole tensors, and bytes of its .hct file
 *	note, warning  message
 *	error       message, exit_code
 *	report      report.h: the last line of a run that succeeds
 * Programs must expect kinds and members that are not listed here.
 *
 * Log: "2026-01-31T12:00:00.123Z tensor name=x source_bytes=12 ...", strings in quotes where they
 * need them, a message after a colon; lists are left out.  Each line is one write at the end of the
 * file, so several processes can share it.
 *
 * NULL is an events that nobody listens to.  Used by one thread. */
#ifndef MKHCT_EVENTS_H
#define MKHCT_EVENTS_H

#include <stdint.h>
#include <stdio.h>

#include <cjson/cJSON.h>

#include "codec/error.h"
#include "codec/safetensors.h"
#include "writer/compress.h"
#include "writer/source.h"

struct mkhct_events; /* opaque */

/* json: a stream, or NULL; log: a path, or NULL.  warn is called once when the log cannot be
 * written any more; work goes on.  Errors: HCT_ERR_IO ... when the log cannot be opened,
 * HCT_ERR_NOMEM. */
hct_error mkhct_events_open(FILE *json, const char *log, void (*warn)(void *arg, const char *text),
			    void *arg, struct mkhct_events **out, struct hct_diag *diag);
void mkhct_events_close(struct mkhct_events *e);

/* The first error of the stream, again and again: to be asked between steps. */
hct_error mkhct_events_check(const struct mkhct_events *e, struct hct_diag *diag);

/* out: as the user gave it; options: what mkhct_recipe_text gave. */
void mkhct_events_start(struct mkhct_events *e, const struct mkhct_source *source, const char *out,
			const char *options, unsigned jobs);
void mkhct_events_resume(struct mkhct_events *e, uint64_t done_bytes, uint64_t tensors);
void mkhct_events_model_begin(struct mkhct_events *e, const char *name, uint64_t source_bytes);
void mkhct_events_model_end(struct mkhct_events *e, const char *name, uint64_t source_bytes,
			    uint64_t stored_bytes, double seconds);
void mkhct_events_tensor(struct mkhct_events *e, const char *file, const struct hct_tensor *t,
			 const struct mkhct_result *r, uint64_t stored_bytes, double seconds);
void mkhct_events_carried(struct mkhct_events *e, const char *name, uint64_t bytes);
/* name: of the file that is being worked on. */
void mkhct_events_checkpoint(struct mkhct_events *e, const char *name, uint64_t tensors,
			     uint64_t done_bytes);
/* kind: "note" or "warning". */
void mkhct_events_message(struct mkhct_events *e, const char *kind, const char *message);
void mkhct_events_error(struct mkhct_events *e, const char *message, int exit_code);
/* report: the text of a JSON object, on one line. */
void mkhct_events_report(struct mkhct_events *e, const char *report);

#endif
