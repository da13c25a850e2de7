/* Progress of long work as one line of text: share, rate, time left.
 *
 * A meter neither prints nor starts a thread: whoever owns a terminal asks for the
 * line and shows it.  hct_meter_add may be called from any thread. */
#ifndef HCT_METER_H
#define HCT_METER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct hct_meter {
	uint64_t total;        /* bytes of work */
	_Atomic uint64_t done; /* bytes done */
	double start;          /* monotonic seconds */
	double rate;           /* smoothed bytes a second */
	double last_time;      /* of the last hct_meter_line */
	uint64_t last_done;
};

/* Seconds of the monotonic clock. */
double hct_meter_now(void);

void hct_meter_start(struct hct_meter *m, uint64_t total);
void hct_meter_add(struct hct_meter *m, uint64_t bytes);

/* Writes "[#####-----]  52% 1.20/2.30 GiB  812 MiB/s  ETA 0:01  what" into buf,
 * in at most width columns, without a newline.  What is cut is the text of `what` (never
 * inside a UTF-8 character); where even the rest is too long, whole fields go: the bar
 * first, then rate, share, time left and percentage.
 * Called by one thread at a time. */
void hct_meter_line(struct hct_meter *m, const char *what, unsigned width, char *buf, size_t size);

#endif
