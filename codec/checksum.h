/* XXH3-64 with seed 0: the one checksum of the format. */
#ifndef HCT_CHECKSUM_H
#define HCT_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Takes the fastest of xxHash's variants that this CPU runs; all give the same sum. */
uint64_t hct_checksum(const void *data, size_t length);

/* The same sum of data that comes piece by piece.  hct_checksum_begin returns NULL without
 * memory; hct_checksum_end returns the sum and frees, and NULL is allowed there. */
struct hct_checksum_state;
struct hct_checksum_state *hct_checksum_begin(void);
void hct_checksum_add(struct hct_checksum_state *s, const void *data, size_t length);
uint64_t hct_checksum_end(struct hct_checksum_state *s);

/* The variants. */
uint64_t hct_checksum_avx2(const void *data, size_t length);
uint64_t hct_checksum_avx512(const void *data, size_t length);

#endif
