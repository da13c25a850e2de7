#include "number.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

hct_error mkhct_number_parse(const char *option, const char *text, const struct mkhct_range *range,
			     double *out, struct hct_diag *diag)
{
	char *end = NULL;
	double x = 0;

	if (*text && text[strspn(text, "0123456789.eE+-")] == '\0')
		x = strtod(text, &end);
	if (end && end != text && !*end && (range->open_low ? x > range->low : x >= range->low) &&
	    (range->open_high ? x < range->high : x <= range->high) &&
	    (!range->whole || x == floor(x))) {
		*out = x;
		return HCT_OK;
	}
	return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: '%s' is no %s (%s)", option, text, range->noun,
			range->words);
}
