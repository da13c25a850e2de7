/* What mkhct shows while it works, on standard error: a line that is redrawn on a
 * terminal, a plain line for each file elsewhere, nothing when it is to be quiet.  What a person
 * sees of tensors, files and messages the events tell to other programs, quiet or not. */
#ifndef MKHCT_PROGRESS_H
#define MKHCT_PROGRESS_H

#include <stdio.h>

#include "codec/meter.h"
#include "codec/reader.h"
#include "writer/compress.h"
#include "writer/events.h"

struct mkhct_progress {
	FILE *stream;
	int quiet, verbose;
	int terminal; /* stream can be redrawn */
	int drawn;    /* a bar is on the screen */
	double next;  /* not redrawn before this time */
	struct hct_meter meter;
	char measuring[32];          /* what the meter's steps are */
	struct mkhct_events *events; /* or NULL; not the progress's own */
	const char *model;           /* name of the file that is being worked on, or NULL */
	double model_start, tensor_start;
	_Atomic(char *) posted; /* by mkhct_progress_post, or NULL */
};

/* total: bytes of the source. */
void mkhct_progress_start(struct mkhct_progress *p, FILE *stream, int quiet, int verbose,
			  uint64_t total);

/* From now on events are told, too. */
void mkhct_progress_listen(struct mkhct_progress *p, struct mkhct_events *events);

/* Before anything is written: so many tensors are going to be measured, all that are (pass 0), or
 * in one pass of several (1, 2 ...), of which nobody knows how many there will be.  The meter
 * begins anew, with tensors in place of bytes, until mkhct_progress_work. */
void mkhct_progress_measure(struct mkhct_progress *p, unsigned pass, size_t tensors);

/* The work begins, on so many bytes. */
void mkhct_progress_work(struct mkhct_progress *p, uint64_t total);

/* A mkhct_tick: redraws the bar, ten times a second at most.  what: the tensor or file
 * that is being worked on. */
void mkhct_progress_tick(void *progress, const char *what);

/* The work on a model begins; name must last until mkhct_progress_file. */
void mkhct_progress_model(struct mkhct_progress *p, const char *name, uint64_t source_bytes);

/* A tensor of that model is done.  verbose: a line with what it takes, and of one that was coded
 * with loss bits a weight and cosine; seconds: since the one before it was done. */
void mkhct_progress_tensor(struct mkhct_progress *p, const struct hct_tensor *t,
			   const struct mkhct_result *result, uint64_t stored_bytes);

/* A file is done; reader and results are NULL for one that was carried.  verbose: the tensors of a
 * model of which mkhct_progress_tensor did not tell. */
void mkhct_progress_file(struct mkhct_progress *p, const char *name, uint64_t source_bytes,
			 const hct_reader *reader, const struct mkhct_result *results);

/* A line for the user in between: "mkhct: note: ..." or "mkhct: warning: ...", which the events
 * tell, or any other, which they do not. */
void mkhct_progress_note(struct mkhct_progress *p, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* A note from any thread: it is shown when the thread that all others are for next shows something,
 * or might.  The last one, if there are several before that. */
void mkhct_progress_post(struct mkhct_progress *p, const char *line);

/* Takes the bar off the screen; harmless when there is none. */
void mkhct_progress_clear(struct mkhct_progress *p);

#endif
