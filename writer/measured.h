/* What measuring (survey.h) has found so far, in a file of the bundle's hidden folder: a later run
 * takes it from there, bit by bit the same, and so decides the same.
 *
 *     "HCTMEAS1", u64 fingerprint, u64 XXH3-64 of these 16 bytes, and
 *     records of  u32 length, u64 XXH3-64 of what follows, and `length` bytes
 *
 * The fingerprint is of the source, the options and the version of mkhct; a file with another one
 * is begun anew.  The file only grows; what is torn or damaged at its end is cut off, and measured
 * again.  What a record says is checked, because anybody may have written it: at worst sizes are
 * wrong, and with them the errors that are chosen.
 *
 * Used by one thread. */
#ifndef MKHCT_MEASURED_H
#define MKHCT_MEASURED_H

#include <stddef.h>
#include <stdint.h>

#include "codec/encoder.h"
#include "codec/error.h"
#include "codec/safetensors.h"
#include "writer/checkpoint.h"
#include "writer/output.h"
#include "writer/survey.h"

struct mkhct_measured;

/* Of all that decides about a measurement.  Errors: HCT_ERR_NOMEM. */
hct_error mkhct_measured_fingerprint(const struct mkhct_checkpoint_of *of, uint64_t *out,
				     struct hct_diag *diag);

/* How often what was noted is synced: every so many measurements, or seconds where that is 0. */
struct mkhct_measured_pace {
	unsigned every;
	double seconds;
};

/* fd: open for reading and writing, owned by the caller; name, for messages, is copied.  Reads what
 * is in the file, and goes on behind it.  Errors: HCT_ERR_IO, HCT_ERR_NO_SPACE, HCT_ERR_NOMEM. */
hct_error mkhct_measured_open(int fd, const char *name, uint64_t fingerprint,
			      const struct mkhct_measured_pace *pace, struct mkhct_measured **out,
			      struct hct_diag *diag);
/* The same with the file of an output that is begun; shown: the bundle's path, for messages.
 * Errors: those above, and of mkhct_output_measured.  To be ended with mkhct_measured_end. */
hct_error mkhct_measured_begin(struct mkhct_output *o, const char *shown,
			       const struct mkhct_checkpoint_of *of,
			       const struct mkhct_measured_pace *pace, struct mkhct_measured **out,
			       struct hct_diag *diag);
/* Measuring has ended, with that error: syncs and frees, and has the output kept for a later run
 * when it would find something here; or has it removed after HCT_ERR_ARGUMENT, since no run would
 * do better.  NULL is allowed. */
void mkhct_measured_end(struct mkhct_measured *m, struct mkhct_output *o, hct_error err);

/* NULL is allowed, here and below: then nothing is found, and nothing noted.  Does not sync. */
void mkhct_measured_free(struct mkhct_measured *m);

/* Measurements that mkhct_measured_open has found. */
size_t mkhct_measured_count(const struct mkhct_measured *m);

/* 1 when some are on the disk for good. */
int mkhct_measured_is_kept(const struct mkhct_measured *m);

/* What was found of tensor number `tensor` of the model file of that name with that goal: 1, and
 * the forecast without table_bytes and with texts that are literals, and its tables, malloc'ed, or
 * NULL when it has none; or 0. */
int mkhct_measured_forecast(const struct mkhct_measured *m, const char *model, size_t tensor,
			    const struct hct_tensor *t, const struct hct_goal *goal,
			    struct mkhct_forecast *out, uint8_t **tables);

/* The retention of such a tensor (spectrum.h) with the quality: in (0,1], or 0 for not found. */
double mkhct_measured_retention(const struct mkhct_measured *m, const char *model, size_t tensor,
				double quality);

/* Notes what was measured, of that length; tables: f->record.params_length bytes.  Syncs when it is
 * time.  Errors: HCT_ERR_IO, HCT_ERR_NO_SPACE, HCT_ERR_NOMEM; what was noted before stays good. */
hct_error mkhct_measured_add_forecast(struct mkhct_measured *m, const char *model, size_t tensor,
				      const struct hct_goal *goal, const struct mkhct_forecast *f,
				      const uint8_t *tables, struct hct_diag *diag);
hct_error mkhct_measured_add_retention(struct mkhct_measured *m, const char *model, size_t tensor,
				       double quality, double retention, struct hct_diag *diag);

/* Syncs what was noted, when there is something and it is time; or now.  Errors: HCT_ERR_IO,
 * HCT_ERR_NO_SPACE. */
hct_error mkhct_measured_tick(struct mkhct_measured *m, struct hct_diag *diag);
hct_error mkhct_measured_sync(struct mkhct_measured *m, struct hct_diag *diag);

#endif
