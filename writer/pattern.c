#include "pattern.h"

#include <fnmatch.h>
#include <string.h>

int mkhct_pattern_matches(const char *pattern, const char *name)
{
	return fnmatch(pattern, name, 0) == 0;
}

int mkhct_pattern_is_name(const char *pattern)
{
	return !strpbrk(pattern, "*?[\\");
}
