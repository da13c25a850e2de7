/* Names of files and tensors: as paths, as text for terminals, as JSON.
 *
 * A file name on Linux is any bytes but '/' and NUL, and a tensor's name comes from a
 * hostile header: neither may reach a terminal or a JSON document as it is. */
#ifndef MKHCT_NAMES_H
#define MKHCT_NAMES_H

#include <stddef.h>

#include <cjson/cJSON.h>

#include "writer/json.h"

#define MKHCT_MODEL_SUFFIX ".safetensors"
#define MKHCT_HCT_SUFFIX   ".hct"

/* 1 when s ends in suffix and has something before it within its last component. */
int mkhct_name_has_suffix(const char *s, const char *suffix);

/* The part behind the last '/'. */
const char *mkhct_name_base(const char *path);

/* "dir/name", or name alone when dir is "".  malloc'ed; NULL when out of memory. */
char *mkhct_name_join(const char *dir, const char *name);

/* Copies text with control characters and bytes that are no UTF-8 replaced by U+FFFD;
 * cut at a character when it does not fit.  Returns buf. */
char *mkhct_name_printable(const char *text, char *buf, size_t size);

/* Adds a name under "name"; one that is no UTF-8 is shown with U+FFFD and kept exactly
 * in hexadecimal under "name_hex".  Returns 0, or -1 when out of memory. */
int mkhct_name_to_json(cJSON *object, const char *name);

/* What mkhct_name_to_json wrote: malloc'ed, or NULL when it is not there, malformed
 * or out of memory. */
char *mkhct_name_from_json(const cJSON *object);

/* A relative path without empty components, "." or "..". */
int mkhct_name_is_safe(const char *name);

#endif
