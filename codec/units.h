/* Sizes and times as people write and read them. */
#ifndef HCT_UNITS_H
#define HCT_UNITS_H

#include <stddef.h>
#include <stdint.h>

/* Enough for any text that these functions write. */
#define HCT_UNITS_MAX 32

/* "123", "64K", "1.5G", "2GiB", "10MB": K, M, G, T are powers of 1024 with or
 * without iB or B behind them.  Returns 0 and sets *bytes, or -1 when the text is
 * malformed, negative or does not fit. */
int hct_units_parse_size(const char *text, uint64_t *bytes);

/* "517 B", "1.50 KiB", "87.3 MiB": three digits.  Returns buf. */
char *hct_units_size(uint64_t bytes, char buf[HCT_UNITS_MAX]);

/* "4.2 s", "3:07", "2:03:04".  Returns buf. */
char *hct_units_duration(double seconds, char buf[HCT_UNITS_MAX]);

#endif
