#include "select.h"

#include <stdlib.h>
#include <string.h>

#include "writer/names.h"
#include "writer/pattern.h"

hct_error mkhct_select_begin(struct mkhct_select *s, const struct mkhct_selection *selections,
			     size_t count, struct hct_diag *diag)
{
	*s = (struct mkhct_select){.selections = selections,
				   .count = count,
				   .patterns = calloc(count + 1, sizeof(char *)),
				   .hits = calloc(count + 1, 1)};
	if (!s->patterns || !s->hits)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory");
	for (size_t i = 0; i < count; i++) {
		size_t n = strlen(selections[i].pattern);

		if (n > 1 && selections[i].pattern[n - 1] == '/')
			n--;
		s->patterns[i] = strndup(selections[i].pattern, n);
		if (!s->patterns[i])
			return hct_fail(diag, HCT_ERR_NOMEM, "out of memory");
	}
	return HCT_OK;
}

void mkhct_select_free(struct mkhct_select *s)
{
	for (size_t i = 0; s->patterns && i < s->count; i++)
		free(s->patterns[i]);
	free(s->patterns);
	free(s->hits);
	s->patterns = NULL;
	s->hits = NULL;
}

static int matches(const char *pattern, const char *name)
{
	return mkhct_pattern_matches(pattern, name) ||
	       (!strchr(pattern, '/') && mkhct_pattern_matches(pattern, mkhct_name_base(name)));
}

size_t mkhct_select_judge(struct mkhct_select *s, const char *name, size_t above)
{
	size_t verdict = above;

	for (size_t i = 0; i < s->count; i++) {
		if (!matches(s->patterns[i], name))
			continue;
		s->hits[i] = 1;
		if (i + 1 > verdict)
			verdict = i + 1;
	}
	return verdict;
}

int mkhct_select_takes(const struct mkhct_select *s, size_t verdict)
{
	if (verdict == MKHCT_SELECT_NONE)
		return s->count == 0 || !s->selections[0].include;
	return s->selections[verdict - 1].include;
}

int mkhct_select_enters(struct mkhct_select *s, size_t verdict)
{
	if (mkhct_select_takes(s, verdict))
		return 1;
	for (size_t i = verdict; i < s->count; i++)
		if (s->selections[i].include)
			return 1;
	s->skipped = 1;
	return 0;
}

hct_error mkhct_select_check(const struct mkhct_select *s, const char *source,
			     struct hct_diag *diag)
{
	for (size_t i = 0; i < s->count; i++)
		if (!s->hits[i] && (s->selections[i].include || !s->skipped))
			return hct_fail(diag, HCT_ERR_ARGUMENT,
					"--%s %s: matches no file of %s; see what names it has, or "
					"leave the option out",
					s->selections[i].include ? "include" : "exclude",
					s->selections[i].pattern, source);
	return HCT_OK;
}
