/* Sequential reading, detected in one file.
 *
 * Several readers may go through a file at the same time, by the same handle, and the
 * kernel's requests of one reader come out of order; so what counts is only where in the
 * file the requests are.  Knows no FUSE. */
#ifndef HCTFS_STREAM_H
#define HCTFS_STREAM_H

#include <pthread.h>
#include <stdint.h>

/* Readers that are told apart in one file. */
#define HCT_STREAMS 16

struct hct_stream {
	uint64_t next;  /* where the reader is expected */
	uint64_t bytes; /* read in sequence so far */
	uint64_t ahead; /* everything below was asked for */
	uint64_t used;  /* clock of the last request; 0 for a free place */
};

/* All zero bytes but the lock at the start. */
struct hct_streams {
	pthread_mutex_t lock; /* over all that follows */
	uint64_t clock;
	struct hct_stream streams[HCT_STREAMS];
};

/* Asks for the piece of the file that holds the byte at offset.  Returns where the next
 * piece begins, or 0 when no more can be asked for now.  Called with the lock: must
 * return soon. */
typedef uint64_t (*hct_stream_want)(void *arg, uint64_t offset);

void hct_streams_init(struct hct_streams *s);
void hct_streams_destroy(struct hct_streams *s);

/* Notes that [offset, offset + length) of a file of `size` bytes is read, and when that
 * continues a stream, asks for what comes next: at first as much as was read in sequence,
 * at most `distance` bytes.  in_halves: asks for much at a time, each time that the reader has
 * come half the way through what was asked for.  Nothing is asked for twice within one stream. */
void hct_streams_note(struct hct_streams *s, uint64_t offset, uint64_t length, uint64_t size,
		      uint64_t distance, int in_halves, hct_stream_want want, void *arg);

#endif
