/* Progress of long work as one line of text: share, rate, time left.
 *
 * A meter neither prints nor starts a thread: whoever owns a terminal asks for the
 * line and shows it.  hct_meter_add and hct_meter_work may be called from any thread.
 *
 * Time left follows from the bytes alone, or, where bytes differ in what they cost, from kinds
 * of work: for each hct_meter_expect says how much there is to do, and hct_meter_work what was
 * done of it and how many seconds a thread was at it.  The seconds of the clock are shared out
 * among the kinds that threads were at meanwhile, in proportion to their seconds; so each kind has
 * a price, with all that goes on beside it, and the price of each kind weighs what is left of it.
 * So neither a long look ahead nor a change from cheap bytes to dear ones makes the prediction
 * jump. */
#ifndef HCT_METER_H
#define HCT_METER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define HCT_METER_KINDS 8

/* A kind of work.  Amounts are in any unit, the same for all calls; best are seconds as a guess
 * has them, so that what is done of a kind tells how wrong the guess is for the rest of it. */
struct hct_meter_kind {
	double total;
	double cost;              /* seconds for one, a guess: in relation to other kinds */
	int serial;               /* 1: nothing else goes on at the same time */
	int like;                 /* the kind whose guess is as wrong until this one was measured */
	_Atomic uint64_t done;    /* of total */
	_Atomic uint64_t elapsed; /* ns, of threads, for what was done */
	double seen, seen_seconds; /* done and elapsed when the clock was last shared out */
	double lately, price;      /* done, and seconds of the clock for it, faded */
};

struct hct_meter {
	uint64_t total;        /* bytes of work, or steps */
	_Atomic uint64_t done; /* of them */
	const char *steps;     /* what is done in steps, or NULL: the work is in bytes */
	double start;          /* monotonic seconds */
	double rate;           /* smoothed bytes a second */
	double last_time;      /* of the last hct_meter_line */
	uint64_t last_done;
	unsigned kinds; /* of work that were expected; 0: bytes tell the time left */
	struct hct_meter_kind kind[HCT_METER_KINDS];
	double look; /* when the clock was last shared out among the kinds */
};

/* Seconds of the monotonic clock. */
double hct_meter_now(void);

/* Begins anew, without kinds of work, in bytes. */
void hct_meter_start(struct hct_meter *m, uint64_t total);
void hct_meter_add(struct hct_meter *m, uint64_t bytes);

/* The work is in steps of which these words say what is done; they must outlive the meter. */
void hct_meter_count(struct hct_meter *m, const char *steps);

/* Bytes that were done before, by somebody else: they count as done and not in the rate. */
void hct_meter_skip(struct hct_meter *m, uint64_t bytes);

/* There is so much more to do of a kind (below HCT_METER_KINDS); a negative amount takes
 * back.  cost and serial as above, of the last call.  Not while others call hct_meter_work. */
void hct_meter_expect(struct hct_meter *m, unsigned kind, double amount, double cost, int serial);

/* Until it was measured, a kind costs so many times what was guessed as that other kind does, and
 * not as all that were measured do on average. */
void hct_meter_liken(struct hct_meter *m, unsigned kind, unsigned other);

/* So much of a kind is done; a thread was at it for so many seconds. */
void hct_meter_work(struct hct_meter *m, unsigned kind, uint64_t amount, double seconds);

/* Seconds until all is done, or a negative number as long as there is no sound prediction: no
 * rate yet; with kinds of work, in the first two seconds, and while kinds of which nothing has
 * been measured, nor of those that they are like, make up much of what is left.  Called by one
 * thread at a time, several times a minute at least. */
double hct_meter_left(struct hct_meter *m);

/* Writes "[#####-----]  52% 1.20/2.30 GiB  812 MiB/s  ETA 0:01  what" into buf,
 * in at most width columns, without a newline.  What is cut is the text of `what` (never
 * inside a UTF-8 character); where even the rest is too long, whole fields go: the bar
 * first, then rate, share, time left and percentage.
 * Of steps it writes "[#####-----] measuring 12/24  ETA 0:01  what", with a time left where there
 * are kinds of work; that goes second, and the steps last.
 * Called by one thread at a time. */
void hct_meter_line(struct hct_meter *m, const char *what, unsigned width, char *buf, size_t size);

#endif
