#include "wish.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "codec/units.h"
#include "writer/number.h"

static const struct {
	const char *name;
	struct mkhct_range range;
} kinds[MKHCT_WISH_COUNT] = {
	[MKHCT_WISH_LOSSLESS] = {"lossless", {.noun = NULL}},
	[MKHCT_WISH_RETENTION] = {"retention",
				  {"retention", "above 0, at most 1", 0, 1, .open_low = 1}},
	[MKHCT_WISH_COSINE] = {"cosine",
			       {"cosine", "between 0 and 1", 0, 1, .open_low = 1, .open_high = 1}},
	[MKHCT_WISH_SNR] = {"snr",
			    {"number of decibels", "above 0, at most 150", 0, 150, .open_low = 1}},
	[MKHCT_WISH_BPW] = {"bpw", {"number of bits a weight", "1 to 16", .low = 1, .high = 16}},
	[MKHCT_WISH_SIZE] = {"size", {.noun = "size", .words = "bytes, or 900M, 1.5G ..."}},
};

const char *mkhct_wish_name(enum mkhct_wish_kind kind)
{
	return kinds[kind].name;
}

const char *mkhct_wish_noun(enum mkhct_wish_kind kind)
{
	return kinds[kind].range.noun;
}

hct_error mkhct_wish_parse(enum mkhct_wish_kind kind, const char *option, const char *text,
			   struct mkhct_wish *out, struct hct_diag *diag)
{
	const struct mkhct_range *range = &kinds[kind].range;

	*out = (struct mkhct_wish){.kind = kind};
	if (kind == MKHCT_WISH_LOSSLESS)
		return HCT_OK;
	if (kind != MKHCT_WISH_SIZE)
		return mkhct_number_parse(option, text, range, &out->value, diag);
	if (hct_units_parse_size(text, &out->bytes) != 0 || out->bytes == 0)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: '%s' is no %s (%s)", option, text,
				range->noun, range->words);
	out->value = (double)out->bytes;
	return HCT_OK;
}

hct_error mkhct_wish_parse_target(const char *option, const char *text, struct mkhct_wish *out,
				  struct hct_diag *diag)
{
	const char *colon = strchr(text, ':');

	if (strcmp(text, kinds[MKHCT_WISH_LOSSLESS].name) == 0)
		return mkhct_wish_parse(MKHCT_WISH_LOSSLESS, option, NULL, out, diag);
	if (!colon && *text && strchr("0123456789.+-", *text))
		return mkhct_wish_parse(MKHCT_WISH_RETENTION, option, text, out, diag);
	for (int k = MKHCT_WISH_RETENTION; colon && k <= MKHCT_WISH_SNR; k++)
		if (strlen(kinds[k].name) == (size_t)(colon - text) &&
		    strncmp(kinds[k].name, text, (size_t)(colon - text)) == 0)
			return mkhct_wish_parse((enum mkhct_wish_kind)k, option, colon + 1, out,
						diag);
	return hct_fail(diag, HCT_ERR_ARGUMENT,
			"%s: '%s' is no target (lossless, a retention, retention:R, cosine:C "
			"or snr:DB)",
			option, text);
}

struct mkhct_target mkhct_wish_target(const struct mkhct_wish *w)
{
	switch (w->kind) {
	case MKHCT_WISH_RETENTION:
		return mkhct_target_retention(w->value);
	case MKHCT_WISH_COSINE:
		return mkhct_target_error(mkhct_error_of_cosine(w->value));
	case MKHCT_WISH_SNR:
		return mkhct_target_error(mkhct_error_of_snr(w->value));
	case MKHCT_WISH_BPW:
	case MKHCT_WISH_SIZE:
		return mkhct_target_budget();
	case MKHCT_WISH_LOSSLESS:
	case MKHCT_WISH_COUNT:
		break;
	}
	return mkhct_target_lossless();
}

double mkhct_wish_retention(const struct mkhct_wish *w)
{
	return mkhct_wish_target(w).retention;
}

char *mkhct_wish_text(const struct mkhct_wish *w, char buf[MKHCT_WISH_TEXT])
{
	if (w->kind == MKHCT_WISH_LOSSLESS)
		snprintf(buf, MKHCT_WISH_TEXT, "%s", kinds[w->kind].name);
	else if (w->kind == MKHCT_WISH_SIZE)
		snprintf(buf, MKHCT_WISH_TEXT, "%s %" PRIu64, kinds[w->kind].name, w->bytes);
	else
		snprintf(buf, MKHCT_WISH_TEXT, "%s %.10g", kinds[w->kind].name, w->value);
	return buf;
}
