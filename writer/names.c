#include "names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

int mkhct_name_has_suffix(const char *s, const char *suffix)
{
	const char *base = mkhct_name_base(s);
	size_t n = strlen(base), m = strlen(suffix);

	return n > m && memcmp(base + n - m, suffix, m) == 0;
}

const char *mkhct_name_base(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

char *mkhct_name_join(const char *dir, const char *name)
{
	char *joined;

	if (asprintf(&joined, "%s%s%s", dir, *dir ? "/" : "", name) < 0)
		return NULL;
	return joined;
}

/* Bytes of the UTF-8 character at s, or 0 when there is none: overlong forms,
 * surrogates and what lies behind U+10FFFF are none. */
static size_t utf8_length(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n;
	uint32_t c;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xC2 && s[0] <= 0xDF)
		n = 2;
	else if ((s[0] & 0xF0) == 0xE0)
		n = 3;
	else if (s[0] >= 0xF0 && s[0] <= 0xF4)
		n = 4;
	else
		return 0;
	c = s[0] & (0x7Fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xC0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3Fu);
	}
	if (c < least[n] || (c >= 0xD800 && c <= 0xDFFF) || c > 0x10FFFF)
		return 0;
	return n;
}

/* C0, DEL and C1: what a terminal might obey. */
static int is_control(const char *s, size_t n)
{
	unsigned char a = (unsigned char)s[0];

	if (n == 1)
		return a < 0x20 || a == 0x7F;
	return n == 2 && a == 0xC2 && (unsigned char)s[1] < 0xA0;
}

static char *replace(const char *text, char *buf, size_t size, int controls)
{
	size_t used = 0;

	while (*text) {
		size_t n = utf8_length(text);
		const char *from = text;

		text += n ? n : 1;
		if (n == 0 || (controls && is_control(from, n))) {
			from = REPLACEMENT;
			n = sizeof(REPLACEMENT) - 1;
		}
		if (used + n + 1 > size)
			break;
		memcpy(buf + used, from, n);
		used += n;
	}
	buf[used] = '\0';
	return buf;
}

char *mkhct_name_printable(const char *text, char *buf, size_t size)
{
	return replace(text, buf, size, 1);
}

static int is_utf8(const char *text)
{
	for (size_t n; *text; text += n)
		if ((n = utf8_length(text)) == 0)
			return 0;
	return 1;
}

int mkhct_name_to_json(cJSON *object, const char *name)
{
	size_t n = strlen(name);
	char *shown, *hex;
	int rc = -1;

	if (is_utf8(name))
		return cJSON_AddStringToObject(object, "name", name) ? 0 : -1;
	shown = malloc(3 * n + 1);
	hex = malloc(2 * n + 1);
	if (!shown || !hex)
		goto out;
	replace(name, shown, 3 * n + 1, 0);
	for (size_t i = 0; i < n; i++)
		sprintf(hex + 2 * i, "%02x", (unsigned char)name[i]);
	if (cJSON_AddStringToObject(object, "name", shown) &&
	    cJSON_AddStringToObject(object, "name_hex", hex))
		rc = 0;
out:
	free(shown);
	free(hex);
	return rc;
}

char *mkhct_name_from_json(const cJSON *object)
{
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "name"));
	const char *hex =
		cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "name_hex"));
	size_t n;
	char *out;

	if (!hex)
		return name ? strdup(name) : NULL;
	n = strlen(hex);
	if (n % 2 != 0 || strspn(hex, "0123456789abcdef") != n)
		return NULL;
	out = malloc(n / 2 + 1);
	if (!out)
		return NULL;
	for (size_t i = 0; i < n / 2; i++) {
		char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

		out[i] = (char)strtoul(digits, NULL, 16);
	}
	out[n / 2] = '\0';
	return out;
}

int mkhct_name_is_safe(const char *name)
{
	for (const char *s = name;; s++) {
		size_t n = strcspn(s, "/");

		if (n == 0 || (n == 1 && s[0] == '.') || (n == 2 && memcmp(s, "..", 2) == 0))
			return 0;
		s += n;
		if (!*s)
			return 1;
	}
}
