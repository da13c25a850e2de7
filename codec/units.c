#include "units.h"

#include <math.h>
#include <stdio.h>
#include <strings.h>

/* Fraction digits that count: 10^7 times the largest unit still fits 64 bits. */
#define FRACTION_DIGITS 7

int hct_units_parse_size(const char *text, uint64_t *bytes)
{
	static const char letters[] = "KMGT";
	uint64_t whole = 0, fraction = 0, scale = 1;
	uint64_t unit = 1;
	const char *p = text;
	int has_fraction = 0;

	if (*p < '0' || *p > '9')
		return -1;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole))
			return -1;
	}
	if (*p == '.') {
		has_fraction = 1;
		p++;
		if (*p < '0' || *p > '9')
			return -1;
		for (unsigned digits = 0; *p >= '0' && *p <= '9'; p++) {
			if (digits++ < FRACTION_DIGITS) {
				fraction = fraction * 10 + (uint64_t)(*p - '0');
				scale *= 10;
			}
		}
	}
	for (unsigned i = 0; letters[i] != '\0'; i++) {
		if (*p == letters[i] || *p == letters[i] - 'A' + 'a') {
			unit = (uint64_t)1 << 10 * (i + 1);
			p++;
			break;
		}
	}
	if (strcasecmp(p, "") != 0 && strcasecmp(p, "B") != 0 &&
	    (unit == 1 || strcasecmp(p, "iB") != 0))
		return -1;
	if (has_fraction && unit == 1)
		return -1; /* there is no half of a byte */
	if (__builtin_mul_overflow(whole, unit, &whole) ||
	    __builtin_add_overflow(whole, fraction * unit / scale, &whole))
		return -1;
	*bytes = whole;
	return 0;
}

char *hct_units_size(uint64_t bytes, char buf[HCT_UNITS_MAX])
{
	static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned i = 0;

	/* The limits are those of rounding: 999.6 would show a fourth digit. */
	while (value >= 999.5 && i + 1 < sizeof(names) / sizeof(*names)) {
		value /= 1024;
		i++;
	}
	int decimals = i == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
	snprintf(buf, HCT_UNITS_MAX, "%.*f %s", decimals, value, names[i]);
	return buf;
}

char *hct_units_duration(double seconds, char buf[HCT_UNITS_MAX])
{
	if (!(seconds >= 0 && seconds < 1e15)) {
		snprintf(buf, HCT_UNITS_MAX, "-:--");
	} else if (seconds < 59.95) {
		snprintf(buf, HCT_UNITS_MAX, "%.1f s", seconds);
	} else {
		uint64_t s = (uint64_t)llround(seconds);
		unsigned minutes = (unsigned)(s / 60 % 60), rest = (unsigned)(s % 60);

		if (s < 3600)
			snprintf(buf, HCT_UNITS_MAX, "%u:%02u", minutes, rest);
		else
			snprintf(buf, HCT_UNITS_MAX, "%llu:%02u:%02u",
				 (unsigned long long)(s / 3600), minutes, rest);
	}
	return buf;
}
