/* Numbers of the command line. */
#ifndef MKHCT_NUMBER_H
#define MKHCT_NUMBER_H

#include "codec/error.h"

/* Which numbers an option takes, and how to say so. */
struct mkhct_range {
	const char *noun;        /* "retention", "number of threads" */
	const char *words;       /* "above 0, at most 1" */
	double low, high;        /* finite */
	int open_low, open_high; /* 1: the limit itself is outside */
	int whole;               /* only integers */
};

/* Reads a decimal number with an optional exponent; nothing before or behind it, no "inf",
 * "nan" or hexadecimal.  option is what messages begin with ("--retention").  Errors:
 * HCT_ERR_ARGUMENT. */
hct_error mkhct_number_parse(const char *option, const char *text, const struct mkhct_range *range,
			     double *out, struct hct_diag *diag);

#endif
