/* Text from outside - names of files and tensors - made safe to show.
 *
 * Names may hold any byte: control characters that would steer a terminal, marks that
 * reverse the direction of writing, broken UTF-8. */
#ifndef HCTFS_TEXT_H
#define HCTFS_TEXT_H

/* A copy on one line that a terminal shows as it stands: control characters, bytes that
 * are not UTF-8 and invisible or direction-changing characters become \n, \xNN or
 * \u{NNNN}.  Applied twice it gives the same as once.  Free it; NULL without memory. */
char *hct_text_printable(const char *text);

/* A copy that is valid UTF-8: each byte that is not becomes U+FFFD.  Free it; NULL
 * without memory. */
char *hct_text_utf8(const char *text);

/* Columns that printable UTF-8 text takes on a terminal, by wcwidth in the current
 * locale; 1 for what the locale does not know. */
unsigned hct_text_columns(const char *text);

#endif
