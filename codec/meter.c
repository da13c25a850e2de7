#include "meter.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "units.h"

/* Seconds over which the rate is smoothed; work of several kinds comes in gusts. */
#define SMOOTHING       3.0
#define SMOOTHING_KINDS 10.0

#define SOUND_AFTER      2.0 /* seconds of work */
#define SOUND_SHARE      .2  /* of what is left may be of kinds that were only guessed */
#define SOUND_SECONDS    1.0 /* or so many */
#define MEASURED_SHARE   .01 /* of a kind, when done, or */
#define MEASURED_SECONDS 1.0 /* of the clock, tell its price */
#define TURN             1.0 /* seconds of the clock that are shared out at a time, at least, and */
#define TURN_SHARE       .01 /* of all so far: work is noted when it is done, which may be late */
#define MEMORY           20. /* seconds of a kind, at least, over which its price is a mean */

#define BAR 10

#define FIELDS 5

double hct_meter_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void hct_meter_start(struct hct_meter *m, uint64_t total)
{
	m->total = total;
	atomic_store(&m->done, 0);
	m->start = hct_meter_now();
	m->rate = 0;
	m->last_time = m->start;
	m->last_done = 0;
	m->steps = NULL;
	m->kinds = 0;
	memset(m->kind, 0, sizeof(m->kind));
	m->look = m->start;
}

void hct_meter_add(struct hct_meter *m, uint64_t bytes)
{
	atomic_fetch_add_explicit(&m->done, bytes, memory_order_relaxed);
}

void hct_meter_count(struct hct_meter *m, const char *steps)
{
	m->steps = steps;
}

void hct_meter_skip(struct hct_meter *m, uint64_t bytes)
{
	hct_meter_add(m, bytes);
	m->last_done += bytes;
}

void hct_meter_expect(struct hct_meter *m, unsigned kind, double amount, double cost, int serial)
{
	struct hct_meter_kind *k = &m->kind[kind];

	for (; m->kinds <= kind; m->kinds++)
		m->kind[m->kinds].like = -1;
	k->total = fmax(k->total + amount, 0);
	k->cost = cost;
	k->serial = serial;
}

void hct_meter_liken(struct hct_meter *m, unsigned kind, unsigned other)
{
	hct_meter_expect(m, kind, 0, m->kind[kind].cost, m->kind[kind].serial);
	m->kind[kind].like = (int)other;
}

void hct_meter_work(struct hct_meter *m, unsigned kind, uint64_t amount, double seconds)
{
	struct hct_meter_kind *k = &m->kind[kind];
	uint64_t ns = seconds > 0 ? (uint64_t)(fmin(seconds, 1e9) * 1e9) : 0;

	/* The time first: an amount without its time would look free. */
	atomic_fetch_add_explicit(&k->elapsed, ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&k->done, amount, memory_order_release);
}

/* Kinds of work --------------------------------------------------------------------- */

/* Seconds of the clock that are left of a kind, and how they are known. */
struct look {
	double left;
	enum { GUESSED, LIKENED, MEASURED } known;
};

static double done_of(struct hct_meter_kind *k)
{
	return (double)atomic_load_explicit(&k->done, memory_order_acquire);
}

static double seconds_of(struct hct_meter_kind *k)
{
	return (double)atomic_load_explicit(&k->elapsed, memory_order_relaxed) * 1e-9;
}

/* What a kind has got of the clock since it was last shared out. */
static void charge(struct hct_meter_kind *k, double done, double clock, double memory)
{
	double fade = exp(-clock / memory);

	k->lately = k->lately * fade + (done - k->seen);
	k->price = k->price * fade + clock;
	k->seen = done;
}

/* Shares out the clock since the last time.  Serial work has its own seconds; the others get what
 * is left in proportion to the seconds of threads.  Where nothing was noted the clock waits for
 * what will be. */
static void share_out(struct hct_meter *m, double now)
{
	double step = now - m->look, threads = 0, serial = 0, seconds[HCT_METER_KINDS];
	double memory = fmax(MEMORY, (now - m->start) / 2);

	if (step < fmax(TURN, TURN_SHARE * (now - m->start)))
		return;
	for (unsigned i = 0; i < m->kinds; i++) {
		struct hct_meter_kind *k = &m->kind[i];

		seconds[i] = fmax(seconds_of(k) - k->seen_seconds, 0);
		*(k->serial ? &serial : &threads) += seconds[i];
	}
	if (!(threads + serial > 0))
		return;
	step = fmax(step - serial, 0);
	for (unsigned i = 0; i < m->kinds; i++) {
		struct hct_meter_kind *k = &m->kind[i];

		if (!(seconds[i] > 0) && !(done_of(k) > k->seen))
			continue;
		k->seen_seconds += seconds[i];
		charge(k, done_of(k),
		       k->serial ? seconds[i] : step * seconds[i] / fmax(threads, 1e-9), memory);
	}
	m->look = now;
}

static int is_measured(const struct hct_meter_kind *k)
{
	return k->lately > 0 && k->price > 0 &&
	       (k->lately >= MEASURED_SHARE * k->total || k->price >= MEASURED_SECONDS);
}

/* A kind that nobody has measured costs what was guessed, times what the one that it is like
 * turned out to cost against its guess, or all that were measured. */
static void look_at_kinds(struct hct_meter *m, struct look looks[HCT_METER_KINDS])
{
	double guessed = 0, measured = 0, cost;

	for (unsigned i = 0; i < m->kinds; i++) {
		if (is_measured(&m->kind[i])) {
			guessed += m->kind[i].cost * m->kind[i].lately;
			measured += m->kind[i].price;
		}
	}
	for (unsigned i = 0; i < m->kinds; i++) {
		struct hct_meter_kind *k = &m->kind[i];
		const struct hct_meter_kind *other = k->like >= 0 ? &m->kind[k->like] : NULL;
		struct look *l = &looks[i];

		if (is_measured(k)) {
			cost = k->price / k->lately;
			l->known = MEASURED;
		} else if (other && is_measured(other) && other->cost > 0) {
			cost = k->cost * other->price / (other->cost * other->lately);
			l->known = LIKENED;
		} else {
			cost = guessed > 0 ? k->cost * measured / guessed : k->cost;
			l->known = GUESSED;
		}
		l->left = fmax(k->total - done_of(k), 0) * cost;
	}
}

static double left_of_kinds(struct hct_meter *m)
{
	struct look looks[HCT_METER_KINDS];
	double left = 0, guessed = 0, now = hct_meter_now();

	share_out(m, now);
	look_at_kinds(m, looks);
	for (unsigned i = 0; i < m->kinds; i++) {
		left += looks[i].left;
		guessed += looks[i].known == GUESSED ? looks[i].left : 0;
	}
	if (now - m->start < SOUND_AFTER || guessed > fmax(SOUND_SHARE * left, SOUND_SECONDS))
		return -1;
	return left;
}

/* Bytes ----------------------------------------------------------------------------- */

/* An exponential mean of the rate over time.  It starts with no weight and not with
 * the rate 0, so the first figure shown is the true one. */
static void update_rate(struct hct_meter *m, uint64_t done)
{
	double now = hct_meter_now();
	double step = now - m->last_time;

	if (step <= 0)
		return;
	double smoothing = m->kinds ? SMOOTHING_KINDS : SMOOTHING;
	double old_weight = -expm1((m->start - m->last_time) / smoothing);
	double new_weight = -expm1((m->start - now) / smoothing);
	double fade = exp(-step / smoothing);
	double last = (double)(done - m->last_done) / step;

	m->rate = (m->rate * old_weight * fade + last * (1 - fade)) / new_weight;
	m->last_time = now;
	m->last_done = done;
}

/* By the rate as it is. */
static double left_at_rate(struct hct_meter *m, uint64_t done)
{
	if (m->kinds)
		return left_of_kinds(m);
	if (done >= m->total)
		return 0;
	return m->rate > 0 ? (double)(m->total - done) / m->rate : -1;
}

double hct_meter_left(struct hct_meter *m)
{
	uint64_t done = atomic_load_explicit(&m->done, memory_order_relaxed);

	update_rate(m, done);
	return left_at_rate(m, done);
}

/* The line -------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at s and its columns; 0 when it is none or one that a
 * terminal would obey. */
static size_t character(const unsigned char *s, unsigned *columns)
{
	size_t len = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
	uint32_t c = len == 1 ? s[0] : len == 0 ? 0 : s[0] & (0x7Fu >> len);

	if (s[0] > 0xF4)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xC0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3F);
	}
	if (c < 0x20 || (c >= 0x7F && c < 0xA0))
		return 0;
	/* East Asian wide characters and emoji, in broad ranges: a line that is too
	 * short is better than one that wraps. */
	int wide = (c >= 0x1100 && c < 0x1160) || (c >= 0x2E80 && c < 0xD7B0) ||
		   (c >= 0xF900 && c < 0xFB00) || (c >= 0xFE30 && c < 0xFE70) ||
		   (c >= 0xFF00 && c < 0xFF61) || (c >= 0xFFE0 && c < 0xFFE7) || c >= 0x1F000;
	*columns = wide ? 2 : 1;
	return len;
}

/* Appends the whole characters of text that fit in width columns and size bytes. */
static void append(const char *text, unsigned width, char *buf, size_t size)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t used = 0;
	unsigned column = 0;

	while (*s != '\0') {
		unsigned columns = 1;
		size_t len = character(s, &columns);
		size_t bytes = len ? len : 1;

		if (column + columns > width || used + bytes + 1 > size)
			break;
		if (len)
			memcpy(buf + used, s, len);
		else
			buf[used] = '?';
		s += bytes;
		used += bytes;
		column += columns;
	}
	buf[used] = '\0';
}

/* "1.20/2.30 GiB": both in the unit of the second. */
static void format_share(uint64_t done, uint64_t total, char *buf, size_t size)
{
	char whole[HCT_UNITS_MAX], *space;

	hct_units_size(total, whole);
	space = strchr(whole, ' ');
	size_t digits = strcspn(whole, " .");
	int decimals = whole[digits] == '.' ? (int)(space - whole) - (int)digits - 1 : 0;
	double unit = 1;
	for (const char *u = "KMGTPE"; space[1] != 'B' && *u != '\0'; u++) {
		unit *= 1024;
		if (*u == space[1])
			break;
	}
	snprintf(buf, size, "%.*f/%s", decimals, (double)done / unit, whole);
}

static void format_eta(double seconds, char buf[HCT_UNITS_MAX])
{
	if (seconds < 0)
		snprintf(buf, HCT_UNITS_MAX, "-:--");
	else if (seconds < 59.5)
		snprintf(buf, HCT_UNITS_MAX, "0:%02d", (int)(seconds + 0.5));
	else
		hct_units_duration(seconds, buf);
}

/* The fields of the line in their order, each with what separates it from the one before. */
struct field {
	int rank; /* where there is no room, those of lower rank go first */
	char text[3 * HCT_UNITS_MAX];
};

/* Writes as many whole fields as fit.  Returns their columns. */
static unsigned fit(const struct field fields[FIELDS], unsigned width, char *buf, size_t size)
{
	for (int least = 0; least < FIELDS; least++) {
		char line[FIELDS * sizeof(fields->text)] = "";

		for (int i = 0; i < FIELDS; i++)
			if (fields[i].rank >= least)
				strcat(line, fields[i].text);
		size_t n = strlen(line);
		if (n <= width && n < size) {
			memcpy(buf, line, n + 1);
			return (unsigned)n;
		}
	}
	buf[0] = '\0';
	return 0;
}

static void fields_of_bytes(const struct hct_meter *m, uint64_t shown, double part, const char *eta,
			    struct field fields[FIELDS])
{
	char share[2 * HCT_UNITS_MAX], rate[HCT_UNITS_MAX];
	double fastest = 0x1p63; /* for the cast of a rate over too short a time */
	size_t size = sizeof(fields->text);

	format_share(shown, m->total, share, sizeof(share));
	hct_units_size((uint64_t)fmin(m->rate, fastest), rate);
	fields[1].rank = 4;
	snprintf(fields[1].text, size, "%3d%%", (int)(part * 100));
	fields[2].rank = 2;
	snprintf(fields[2].text, size, " %s", share);
	fields[3].rank = 1;
	snprintf(fields[3].text, size, "  %s/s", rate);
	fields[4].rank = 3;
	snprintf(fields[4].text, size, "  ETA %s", eta);
}

static void fields_of_steps(const struct hct_meter *m, uint64_t shown, const char *eta,
			    struct field fields[FIELDS])
{
	size_t size = sizeof(fields->text);

	fields[1].rank = 4;
	snprintf(fields[1].text, size, "%.40s %" PRIu64 "/%" PRIu64, m->steps, shown, m->total);
	fields[2].rank = 3;
	if (m->kinds)
		snprintf(fields[2].text, size, "  ETA %s", eta);
}

void hct_meter_line(struct hct_meter *m, const char *what, unsigned width, char *buf, size_t size)
{
	uint64_t done = atomic_load_explicit(&m->done, memory_order_relaxed);
	struct field fields[FIELDS] = {{.rank = 0}};
	char eta[HCT_UNITS_MAX], bar[BAR + 1];

	if (size == 0)
		return;
	update_rate(m, done);
	uint64_t shown = done < m->total ? done : m->total;
	double part = m->total ? (double)shown / (double)m->total : 1;

	memset(bar, '-', BAR);
	memset(bar, '#', (size_t)(part * BAR));
	bar[BAR] = '\0';
	snprintf(fields[0].text, sizeof(fields->text), "[%s] ", bar);
	format_eta(left_at_rate(m, done), eta);
	if (m->steps)
		fields_of_steps(m, shown, eta, fields);
	else
		fields_of_bytes(m, shown, part, eta, fields);
	unsigned used = fit(fields, width, buf, size);
	if (used > 0 && used + 2 < width && used + 3 < size) {
		memcpy(buf + used, "  ", 2);
		append(what, width - used - 2, buf + used + 2, size - used - 2);
	}
}
