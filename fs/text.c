#include "text.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

/* Decodes one character at s.  Returns its length, or 0 when the bytes are not UTF-8
 * (overlong forms, surrogates and values past U+10FFFF included). */
static unsigned utf8_decode(const char *s, uint32_t *code)
{
	const unsigned char *b = (const unsigned char *)s;
	static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned length = b[0] < 0x80   ? 1
			  : b[0] < 0xc2 ? 0
			  : b[0] < 0xe0 ? 2
			  : b[0] < 0xf0 ? 3
			  : b[0] < 0xf5 ? 4
					: 0;
	uint32_t value = length < 2 ? b[0] : b[0] & (0x7fu >> length);

	for (unsigned i = 1; i < length; i++) {
		/* The terminating NUL is no continuation byte, so this never runs past it. */
		if ((b[i] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (b[i] & 0x3f);
	}
	if (length == 0 || value < least[length] || value > 0x10ffff ||
	    (value >= 0xd800 && value < 0xe000))
		return 0;
	*code = value;
	return length;
}

/* Characters that are not seen, or that change how others are shown. */
static int is_unprintable(uint32_t c)
{
	static const struct {
		uint32_t first, last;
	} ranges[] = {
		{0x00, 0x1f},     {0x7f, 0x9f},     {0xad, 0xad},       {0x61c, 0x61c},
		{0x180e, 0x180e}, {0x200b, 0x200f}, {0x2028, 0x202e},   {0x2060, 0x206f},
		{0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe0fff},
	};

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		if (c >= ranges[i].first && c <= ranges[i].last)
			return 1;
	return 0;
}

static size_t escape(uint32_t c, unsigned length, char *out, size_t size)
{
	int n;

	if (c == '\n' || c == '\t' || c == '\r')
		n = snprintf(out, size, "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : 'r');
	else if (length <= 1)
		n = snprintf(out, size, "\\x%02x", (unsigned)c);
	else
		n = snprintf(out, size, "\\u{%x}", (unsigned)c);
	return (size_t)n;
}

char *hct_text_printable(const char *text)
{
	/* One byte grows to at most 4, two or more bytes to at most 9. */
	size_t size = strlen(text) * 5 + 1, used = 0;
	char *out = malloc(size);

	if (!out)
		return NULL;
	while (*text) {
		uint32_t c = (unsigned char)*text;
		unsigned length = utf8_decode(text, &c);

		if (length == 0 || is_unprintable(c)) {
			used += escape(c, length, out + used, size - used);
		} else {
			memcpy(out + used, text, length);
			used += length;
		}
		text += length ? length : 1;
	}
	out[used] = '\0';
	return out;
}

char *hct_text_utf8(const char *text)
{
	size_t used = 0;
	char *out = malloc(strlen(text) * 3 + 1);

	if (!out)
		return NULL;
	while (*text) {
		uint32_t c;
		unsigned length = utf8_decode(text, &c);

		memcpy(out + used, length ? text : "\xef\xbf\xbd", length ? length : 3);
		used += length ? length : 3;
		text += length ? length : 1;
	}
	out[used] = '\0';
	return out;
}

unsigned hct_text_columns(const char *text)
{
	unsigned columns = 0;

	while (*text) {
		uint32_t c;
		unsigned length = utf8_decode(text, &c);
		int width = length ? wcwidth((wchar_t)c) : 1;

		columns += width >= 0 ? (unsigned)width : 1;
		text += length ? length : 1;
	}
	return columns;
}
