/* One safetensors file of the source: open, checked, mapped. */
#ifndef MKHCT_MODEL_H
#define MKHCT_MODEL_H

#include "codec/error.h"
#include "codec/reader.h"
#include "codec/safetensors.h"
#include "writer/source.h"

struct mkhct_model {
	const struct mkhct_entry *entry;
	int disk_fd;        /* of the file at entry->path */
	int fd;             /* of the bytes of the model: the same, or, of a packed one, of what was
			     * decoded; -1 until mkhct_model_map has done that */
	hct_reader *reader; /* of a packed one */
	const uint8_t *map; /* the whole file; NULL until mkhct_model_map */
	struct hct_safetensors st;
};

/* Opens the file and parses its header; of a packed one, reads its index.  On success *out must go
 * to mkhct_model_close; entry must outlive it.  Errors: HCT_ERR_SAFETENSORS, HCT_ERR_NOT_FOUND,
 * HCT_ERR_IO, HCT_ERR_NOMEM, HCT_ERR_CHANGED when the file is no longer what the scan saw. */
hct_error mkhct_model_open(const struct mkhct_entry *entry, struct mkhct_model *out,
			   struct hct_diag *diag);

/* Maps the file; of a packed one, decodes all of it first (transcode.h).  Errors: HCT_ERR_LIMIT,
 * HCT_ERR_IO; those of mkhct_transcode_decode.  Reading the map is safe only inside
 * mkhct_model_guard. */
hct_error mkhct_model_map(struct mkhct_model *m, struct hct_diag *diag);

/* Runs work(arg), which may read m->map, and returns what it returns.  When the file is
 * cut short or its disk fails meanwhile, the read of the map raises SIGBUS: work is then
 * abandoned where it stands (it must hold no lock; memory it has allocated is lost) and
 * the result is HCT_ERR_CHANGED or HCT_ERR_IO.  From any thread, not nested.  Without
 * mkhct_model_catch_faults the process ends instead. */
hct_error mkhct_model_guard(const struct mkhct_model *m, hct_error (*work)(void *), void *arg,
			    struct hct_diag *diag);

/* Takes the whole pages of a range of the map out of this process.  They stay in the page
 * cache, so a thread that still reads them only faults them in again. */
void mkhct_model_let_go(const struct mkhct_model *m, uint64_t begin, uint64_t end);

/* The bytes of a tensor in the map. */
const uint8_t *mkhct_model_data(const struct mkhct_model *m, const struct hct_tensor *t);

/* Installs the SIGBUS handler behind mkhct_model_guard; once, before threads start. */
void mkhct_model_catch_faults(void);

/* HCT_ERR_CHANGED when the file is no longer what the scan saw. */
hct_error mkhct_model_unchanged(const struct mkhct_model *m, struct hct_diag *diag);

void mkhct_model_close(struct mkhct_model *m);

/* The same check for any open file of the source. */
hct_error mkhct_entry_unchanged(const struct mkhct_entry *entry, int fd, struct hct_diag *diag);

#endif
