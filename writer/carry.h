/* Copying a file that is not compressed. */
#ifndef MKHCT_CARRY_H
#define MKHCT_CARRY_H

#include <stdint.h>

#include "codec/error.h"
#include "codec/meter.h"
#include "writer/source.h"

/* Called between steps with what is being worked on, to redraw a progress line. */
typedef void (*mkhct_tick)(void *arg, const char *what);

#define MKHCT_CARRY_MARK (UINT64_C(16) << 20) /* a copy is gone on with at multiples of this */

/* How far a copy has got, so that it can be gone on with. */
struct mkhct_carry_log {
	uint64_t bytes; /* that the output has from an earlier run; 0: none */
	/* Of these, as save was told: c(0) = 0, c(n) = XXH3-64 of c(n - 1) and of the XXH3-64 of
	 * MARK number n, both 8 bytes, little-endian. */
	uint64_t checksum;
	double every_seconds; /* between two saves */
	/* Called when the first `bytes` of the output are on the disk, a multiple of MARK; also
	 * when work ends early. */
	hct_error (*save)(void *arg, uint64_t bytes, uint64_t checksum, struct hct_diag *diag);
	void *arg;
};

/* Copies the contents, the mtime and the permission bits of from into the file open at
 * out (empty, at offset 0); out_name is for messages.  Adds the bytes to the meter and
 * puts the checksum of the contents (hct_checksum) into *checksum.
 * Errors: HCT_ERR_IO, HCT_ERR_NOT_FOUND, HCT_ERR_NO_SPACE, HCT_ERR_INTERRUPTED,
 * HCT_ERR_CHANGED when the source is no longer what the scan saw. */
hct_error mkhct_carry(const struct mkhct_entry *from, int out, const char *out_name,
		      struct hct_meter *meter, mkhct_tick tick, void *tick_arg, uint64_t *checksum,
		      struct hct_diag *diag);

/* The same, with out open for reading, too, and with what it has from an earlier run: that is read
 * back, and copied anew when it is not what the log says.  It counts as done before. */
hct_error mkhct_carry_on(const struct mkhct_entry *from, int out, const char *out_name,
			 const struct mkhct_carry_log *log, struct hct_meter *meter,
			 mkhct_tick tick, void *tick_arg, uint64_t *checksum,
			 struct hct_diag *diag);

#endif
