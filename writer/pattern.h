/* Patterns over the names of tensors: shell globs, in which * and ? also match '/' and
 * '.', [...] is a set, and a backslash takes the next character as it is. */
#ifndef MKHCT_PATTERN_H
#define MKHCT_PATTERN_H

/* 1 when the whole name matches. */
int mkhct_pattern_matches(const char *pattern, const char *name);

/* 1 when the pattern has no wildcard, and so is the name of one tensor. */
int mkhct_pattern_is_name(const char *pattern);

#endif
