/* What mkhct shows while it works, on standard error: a line that is redrawn on a
 * terminal, a plain line for each file elsewhere, nothing when it is to be quiet. */
#ifndef MKHCT_PROGRESS_H
#define MKHCT_PROGRESS_H

#include <stdio.h>

#include "codec/meter.h"
#include "codec/reader.h"
#include "writer/compress.h"

struct mkhct_progress {
	FILE *stream;
	int quiet, verbose;
	int terminal; /* stream can be redrawn */
	int drawn;    /* a bar is on the screen */
	double next;  /* not redrawn before this time */
	struct hct_meter meter;
};

/* total: bytes of the source. */
void mkhct_progress_start(struct mkhct_progress *p, FILE *stream, int quiet, int verbose,
			  uint64_t total);

/* A mkhct_tick: redraws the bar, ten times a second at most.  what: the tensor or file
 * that is being worked on. */
void mkhct_progress_tick(void *progress, const char *what);

/* A file is done.  verbose: a line for each tensor of a model, with bits a weight and cosine
 * where it was coded with loss; reader and results are NULL for a file that was carried. */
void mkhct_progress_file(struct mkhct_progress *p, const char *name, uint64_t source_bytes,
			 const hct_reader *reader, const struct mkhct_result *results);

/* A line for the user in between. */
void mkhct_progress_note(struct mkhct_progress *p, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Takes the bar off the screen; harmless when there is none. */
void mkhct_progress_clear(struct mkhct_progress *p);

#endif
