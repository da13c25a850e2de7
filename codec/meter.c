#include "meter.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "units.h"

/* Seconds over which the rate is smoothed. */
#define SMOOTHING 3.0

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
}

void hct_meter_add(struct hct_meter *m, uint64_t bytes)
{
	atomic_fetch_add_explicit(&m->done, bytes, memory_order_relaxed);
}

/* An exponential mean of the rate over time.  It starts with no weight and not with
 * the rate 0, so the first figure shown is the true one. */
static void update_rate(struct hct_meter *m, uint64_t done)
{
	double now = hct_meter_now();
	double step = now - m->last_time;

	if (step <= 0)
		return;
	double old_weight = -expm1((m->start - m->last_time) / SMOOTHING);
	double new_weight = -expm1((m->start - now) / SMOOTHING);
	double fade = exp(-step / SMOOTHING);
	double last = (double)(done - m->last_done) / step;

	m->rate = (m->rate * old_weight * fade + last * (1 - fade)) / new_weight;
	m->last_time = now;
	m->last_done = done;
}

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
	if (seconds < 59.5)
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

void hct_meter_line(struct hct_meter *m, const char *what, unsigned width, char *buf, size_t size)
{
	uint64_t done = atomic_load_explicit(&m->done, memory_order_relaxed);
	char share[2 * HCT_UNITS_MAX], rate[HCT_UNITS_MAX], eta[HCT_UNITS_MAX];
	char bar[BAR + 1];
	double fastest = 0x1p63; /* for the cast of a rate over too short a time */

	if (size == 0)
		return;
	update_rate(m, done);
	uint64_t shown = done < m->total ? done : m->total;
	double part = m->total ? (double)shown / (double)m->total : 1;
	double left = (double)(m->total - shown);

	memset(bar, '-', BAR);
	memset(bar, '#', (size_t)(part * BAR));
	bar[BAR] = '\0';
	format_share(shown, m->total, share, sizeof(share));
	format_eta(left > 0 ? left / m->rate : 0, eta);
	hct_units_size((uint64_t)fmin(m->rate, fastest), rate);
	struct field fields[FIELDS] = {
		{.rank = 0}, {.rank = 4}, {.rank = 2}, {.rank = 1}, {.rank = 3}};
	snprintf(fields[0].text, sizeof(fields->text), "[%s] ", bar);
	snprintf(fields[1].text, sizeof(fields->text), "%3d%%", (int)(part * 100));
	snprintf(fields[2].text, sizeof(fields->text), " %s", share);
	snprintf(fields[3].text, sizeof(fields->text), "  %s/s", rate);
	snprintf(fields[4].text, sizeof(fields->text), "  ETA %s", eta);
	unsigned used = fit(fields, width, buf, size);
	if (used > 0 && used + 2 < width && used + 3 < size) {
		memcpy(buf + used, "  ", 2);
		append(what, width - used - 2, buf + used + 2, size - used - 2);
	}
}
