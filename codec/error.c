#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *text;
	int errnum;
	enum hct_exit exit_code;
} errors[HCT_ERR_COUNT] = {
	[HCT_OK] = {"success", 0, HCT_EXIT_OK},
	[HCT_ERR_NOMEM] = {"out of memory", ENOMEM, HCT_EXIT_SYSTEM},
	[HCT_ERR_IO] = {"input/output error", EIO, HCT_EXIT_SYSTEM},
	[HCT_ERR_ARGUMENT] = {"invalid argument", EINVAL, HCT_EXIT_USAGE},
	[HCT_ERR_NOT_HCT] = {"not an .hct file", EIO, HCT_EXIT_BAD_DATA},
	[HCT_ERR_UNFINISHED] = {"unfinished .hct file", EIO, HCT_EXIT_BAD_DATA},
	[HCT_ERR_VERSION] = {"newer format version", EIO, HCT_EXIT_BAD_DATA},
	[HCT_ERR_UNSUPPORTED] = {"unsupported feature", EIO, HCT_EXIT_BAD_DATA},
	[HCT_ERR_CORRUPT] = {"corrupt structure", EIO, HCT_EXIT_BAD_DATA},
	[HCT_ERR_CHECKSUM] = {"checksum mismatch", EIO, HCT_EXIT_BAD_DATA},
	[HCT_ERR_DIGEST] = {"decoded data mismatch", EIO, HCT_EXIT_BAD_DATA},
	[HCT_ERR_LIMIT] = {"limit exceeded", EIO, HCT_EXIT_BAD_DATA},
	[HCT_ERR_SAFETENSORS] = {"invalid safetensors file", EIO, HCT_EXIT_BAD_DATA},
	[HCT_ERR_NOT_FOUND] = {"not found", ENOENT, HCT_EXIT_SYSTEM},
	[HCT_ERR_EXISTS] = {"already exists", EEXIST, HCT_EXIT_SYSTEM},
	[HCT_ERR_CHANGED] = {"source changed while it was read", EIO, HCT_EXIT_SYSTEM},
	[HCT_ERR_INTERRUPTED] = {"interrupted", EINTR, HCT_EXIT_INTERRUPTED},
	[HCT_ERR_NO_SPACE] = {"no space left", ENOSPC, HCT_EXIT_SYSTEM},
};

static int known(hct_error e)
{
	return (unsigned)e < HCT_ERR_COUNT;
}

const char *hct_error_string(hct_error e)
{
	return known(e) ? errors[e].text : "unknown error";
}

int hct_error_errno(hct_error e)
{
	return known(e) ? errors[e].errnum : EIO;
}

int hct_error_exit_code(hct_error e)
{
	return known(e) ? (int)errors[e].exit_code : HCT_EXIT_SYSTEM;
}

hct_error hct_error_from_errno(int errnum)
{
	switch (errnum) {
	case 0:
		return HCT_OK;
	case ENOMEM:
		return HCT_ERR_NOMEM;
	case ENOENT:
	case ENOTDIR:
		return HCT_ERR_NOT_FOUND;
	case EEXIST:
	case ENOTEMPTY:
		return HCT_ERR_EXISTS;
	case EINTR:
		return HCT_ERR_INTERRUPTED;
	case ENOSPC:
	case EDQUOT:
		return HCT_ERR_NO_SPACE;
	default:
		return HCT_ERR_IO;
	}
}

/* Length of text without a UTF-8 character that was cut off at its end. */
static size_t whole_characters(const char *text, size_t len)
{
	size_t lead = len;

	while (lead > 0 && len - lead < 3 && ((unsigned char)text[lead - 1] & 0xC0) == 0x80)
		lead--;
	if (lead == 0)
		return len;
	unsigned char c = (unsigned char)text[lead - 1];
	size_t need = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
	return len - (lead - 1) < need ? lead - 1 : len;
}

/* Formats into a buffer of its own, because the arguments may point into
 * diag->text, and keeps `reserve` bytes of the line free. */
static void write_line(struct hct_diag *diag, size_t reserve, const char *format, va_list args)
{
	char line[sizeof(diag->text)];
	size_t room = sizeof(line) - reserve;
	int n = vsnprintf(line, room, format, args);

	if (n < 0) {
		diag->text[0] = '\0';
		return;
	}
	size_t len = (size_t)n;
	if (len >= room)
		len = whole_characters(line, room - 1);
	/* Names of files and tensors come from outside: they may not break the line
	 * or talk to the terminal. */
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)line[i];
		diag->text[i] = c < 0x20 || c == 0x7F ? '?' : (char)c;
	}
	diag->text[len] = '\0';
}

hct_error hct_fail(struct hct_diag *diag, hct_error e, const char *format, ...)
{
	if (diag) {
		va_list args;
		va_start(args, format);
		write_line(diag, 0, format, args);
		va_end(args);
	}
	return e;
}

hct_error hct_fail_errno(struct hct_diag *diag, int errnum, const char *format, ...)
{
	if (diag) {
		char reason[128];
		int saved = errno;

		/* %m is the form of strerror that is thread safe in every C library. */
		errno = errnum;
		snprintf(reason, sizeof(reason), ": %m");
		errno = saved;

		size_t reason_len = strlen(reason);
		va_list args;
		va_start(args, format);
		write_line(diag, reason_len, format, args);
		va_end(args);
		memcpy(diag->text + strlen(diag->text), reason, reason_len + 1);
	}
	return hct_error_from_errno(errnum);
}
