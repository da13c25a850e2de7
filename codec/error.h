/* Error codes of hctfs, one enum for all of its programs.
 *
 * A function that can fail returns an hct_error.  When it takes a
 * `struct hct_diag *` it also writes there one line for a person: what
 * went wrong, where, and what to do.  The pointer may be NULL.
 * Everything here is thread safe: there is no global state. */
#ifndef HCT_ERROR_H
#define HCT_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/* The numbers are part of the interface: they are never reused. */
typedef enum hct_error {
	HCT_OK = 0,
	HCT_ERR_NOMEM = 1,        /* out of memory */
	HCT_ERR_IO = 2,           /* the system refused a read, write, open ... */
	HCT_ERR_ARGUMENT = 3,     /* the caller (or the command line) is wrong */
	HCT_ERR_NOT_HCT = 4,      /* not an .hct file: wrong magic */
	HCT_ERR_UNFINISHED = 5,   /* no valid trailer: writer was interrupted, or file cut */
	HCT_ERR_VERSION = 6,      /* written by a newer major version */
	HCT_ERR_UNSUPPORTED = 7,  /* a codec, flag or section this reader does not know */
	HCT_ERR_CORRUPT = 8,      /* a length, offset, count or table is impossible */
	HCT_ERR_CHECKSUM = 9,     /* stored bytes do not match their checksum */
	HCT_ERR_DIGEST = 10,      /* decoded bytes do not match their digest */
	HCT_ERR_LIMIT = 11,       /* within the format but beyond its documented limits */
	HCT_ERR_SAFETENSORS = 12, /* the source is not a valid safetensors file */
	HCT_ERR_NOT_FOUND = 13,   /* no such file, tensor ... */
	HCT_ERR_EXISTS = 14,      /* the output is there already */
	HCT_ERR_CHANGED = 15,     /* the source changed while it was read */
	HCT_ERR_INTERRUPTED = 16, /* a signal asked to stop */
	HCT_ERR_NO_SPACE = 17,    /* disk full or quota reached */
	HCT_ERR_COUNT
} hct_error;

/* Exit codes of mkhct, hctfs and hct, as their manual pages list them. */
enum hct_exit {
	HCT_EXIT_OK = 0,
	HCT_EXIT_BAD_DATA = 1, /* input is damaged, invalid or unsupported; check found errors */
	HCT_EXIT_USAGE = 2,    /* wrong command line */
	HCT_EXIT_SYSTEM = 3,   /* I/O error, out of memory, disk full, mount refused */
	HCT_EXIT_INTERRUPTED = 130
};

/* One line for a person, without a trailing newline. */
struct hct_diag {
	char text[1024];
};

/* A short lower-case phrase, never NULL; "unknown error" for other numbers. */
const char *hct_error_string(hct_error e);

/* The errno that a system call interface should answer; 0 for HCT_OK. */
int hct_error_errno(hct_error e);

/* The exit code of a program that ends with this error. */
int hct_error_exit_code(hct_error e);

/* The hct_error for an errno value: ENOMEM, ENOENT, ENOSPC ... */
hct_error hct_error_from_errno(int errnum);

/* Writes a line into *diag (nothing when it is NULL) and returns e.  The arguments may
 * point into *diag; control characters in them become '?'. */
hct_error hct_fail(struct hct_diag *diag, hct_error e, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The same with ": " and the text of errnum behind it; the code comes from
 * hct_error_from_errno. */
hct_error hct_fail_errno(struct hct_diag *diag, int errnum, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#ifdef __cplusplus
}
#endif
#endif
