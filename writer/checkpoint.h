/* The state of a bundle that is not finished, as JSON in its hidden folder: what it is made from
 * and with which options, and how far each file has got.  Only what is on the disk is in it.
 *
 *     {"version": 1, "tool": "mkhct", "tool_version": "0.1.0", "model": "two",
 *      "options": {"mode": "lossy", "bpw": 3, ..},   (recipe.h)
 *      "words": ["--bpw=3"],                         (options.h)
 *      "is_folder": 1,                               the source is no single file
 *      "part": 2, "parts": 4,                        0 and 0: everything
 *      "stage": "writing",                           or "naming"
 *      "statistics": {"sessions": 1, "seconds": 2.5},
 *      "statistics_of_parts": {"3": {..}},           what --finish has taken over of part 3
 *      "shards": [..],                               the source, in the order of its names
 *      "manifest": {"tool": "mkhct", "version": "0.1.0",
 *                   "files": [..], "folders": [..], "parts": [..]}}        (manifest.h)
 *
 * A shard is a file or folder of the source, and what has become of it:
 *
 *     {"name": "a.safetensors",                      and "name_hex" (names.h)
 *      "kind": "model",                              or "carried", "folder"
 *      "mode": 420, "size": 10, "mtime": [1, 2],     permission bits, bytes, seconds and
 *                                                    nanoseconds
 *      "packed": [5, 1, 2],                          of a compressed model: size and mtime of
 *                                                    the file, above are those of its contents
 *      "header_xxh3": "0123456789abcdef",            of a model
 *      "part": {"name": ".a.safetensors.hct.part"},  of a file, where it is written
 *      "errors": [0, 0.01], "reasons": ["norm", "budget"],
 *                                                    of its tensors, when they were measured
 *      "status": "in_progress",                      enum mkhct_status
 *      "bytes": 5,                                   in_progress, completed: of the part file
 *      "ledger_bytes": 6,                            in_progress, of a model, as are
 *      "completed_tensors": 1,                       whole ones; it stays when it is completed
 *      "chunks_of_next": 3,
 *      "tensors": [..],
 *      "bytes_xxh3": "0123456789abcdef",             in_progress, carried (carry.h)
 *      "report": {..}}                               completed: mkhct_report_node
 *
 * and a tensor of it, in the order of their data:
 *
 *     {"name": "t", "status": "completed",           or "pending", "in_progress", and "failed":
 *                                                    done, without loss because of an error
 *      "offset": 0, "size": 40960,                   in the data of the source
 *      "stored": 8567,                               when it is done, as are the next: its chunks
 *                                                    and its tables; without these it is
 *                                                    stored_bytes of the report
 *      "relative_squared_error": 0.01, "cosine": 0.99, "retries": 0}
 *
 * A file may have been damaged or forged: whatever is asked of it is checked. */
#ifndef MKHCT_CHECKPOINT_H
#define MKHCT_CHECKPOINT_H

#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "codec/error.h"
#include "writer/compress.h"
#include "writer/goals.h"
#include "writer/source.h"

struct mkhct_checkpoint;

enum mkhct_status {
	MKHCT_PENDING,
	MKHCT_IN_PROGRESS,
	MKHCT_COMPLETED,
	MKHCT_SKIPPED, /* another part's */
	MKHCT_STATUS_COUNT
};

/* What a checkpoint belongs to. */
struct mkhct_checkpoint_of {
	const struct mkhct_source *source;
	const struct mkhct_goals *goals; /* of it, for the hashes of its headers */
	const char *options;             /* mkhct_recipe_text */
	char *const *words;              /* options.h */
	size_t word_count;
	unsigned part, parts; /* 0 and 0: everything */
};

/* Everything is pending, or SKIPPED where is_mine says 0.  Errors: HCT_ERR_NOMEM. */
hct_error mkhct_checkpoint_create(const struct mkhct_checkpoint_of *of,
				  int (*is_mine)(const struct mkhct_checkpoint_of *, size_t entry),
				  struct mkhct_checkpoint **out, struct hct_diag *diag);

/* Reads the file at name below the folder root; shown is its path for messages.  *out is NULL when
 * there is none.  Errors: HCT_ERR_CORRUPT for what is no checkpoint, HCT_ERR_EXISTS for one of a
 * newer mkhct, HCT_ERR_IO, HCT_ERR_NOMEM. */
hct_error mkhct_checkpoint_read(int root, const char *name, const char *shown,
				struct mkhct_checkpoint **out, struct hct_diag *diag);

/* NULL is allowed. */
void mkhct_checkpoint_free(struct mkhct_checkpoint *c);

/* The words of the options that it was begun with; they belong to it. */
size_t mkhct_checkpoint_words(const struct mkhct_checkpoint *c, const char *const **words);

/* HCT_OK when it is of the same source and options; otherwise HCT_ERR_EXISTS and a line with what
 * differs; out: the bundle's path, for messages. */
hct_error mkhct_checkpoint_match(const struct mkhct_checkpoint *c,
				 const struct mkhct_checkpoint_of *of, const char *out,
				 struct hct_diag *diag);

/* The same for the checkpoint of another part; the line says which. */
hct_error mkhct_checkpoint_match_part(const struct mkhct_checkpoint *c,
				      const struct mkhct_checkpoint_of *of, const char *out,
				      struct hct_diag *diag);

/* How far entry i of the source has got.  Folders are COMPLETED. */
struct mkhct_state {
	enum mkhct_status status;
	uint64_t bytes, ledger_bytes; /* IN_PROGRESS, COMPLETED: of the part file, the ledger */
	uint64_t checksum;            /* IN_PROGRESS, of a file that is copied: of these bytes */
	size_t tensors;               /* IN_PROGRESS: whole ones */
	const cJSON *report;          /* COMPLETED: mkhct_report_node; NULL when there is none */
};

void mkhct_checkpoint_state(const struct mkhct_checkpoint *c, size_t entry,
			    struct mkhct_state *out);

/* The following return 0, or -1 without memory.  They change nothing on the disk. */

int mkhct_checkpoint_set_progress(struct mkhct_checkpoint *c, size_t entry,
				  const struct mkhct_standing *standing);
/* Of a file that is copied: its part file has `bytes` on the disk, with the checksum of carry.h. */
int mkhct_checkpoint_set_copied(struct mkhct_checkpoint *c, size_t entry, uint64_t bytes,
				uint64_t checksum);
/* bytes: of the finished part file; report: JSON text, which mkhct_checkpoint_state has only once
 * it is read again. */
int mkhct_checkpoint_set_completed(struct mkhct_checkpoint *c, size_t entry, uint64_t bytes,
				   const char *report);
/* Takes the entry back to what mkhct_checkpoint_entry was, duplicated, before; owns it then. */
void mkhct_checkpoint_put_back(struct mkhct_checkpoint *c, size_t entry, cJSON *before);
/* Begins the entry anew. */
int mkhct_checkpoint_set_pending(struct mkhct_checkpoint *c, size_t entry);
/* The tensors of an entry, JSON text of an array; NULL takes them away. */
int mkhct_checkpoint_set_tensors(struct mkhct_checkpoint *c, size_t entry, const char *list);

/* Errors that were measured for the tensors of an entry, and must not be measured again, with the
 * reasons of the decisions. */
int mkhct_checkpoint_set_errors(struct mkhct_checkpoint *c, size_t entry,
				const struct hct_goal *goals,
				const struct mkhct_decision *decisions, size_t count);
/* 1 when there are `count` of them, which then are in the goals, and the reasons in the decisions;
 * otherwise 0.  With goals NULL nothing is put anywhere. */
int mkhct_checkpoint_errors(const struct mkhct_checkpoint *c, size_t entry, struct hct_goal *goals,
			    struct mkhct_decision *decisions, size_t count);

/* Takes over the entries that `other`, of the same source and options, has completed; other's
 * statistics are added.  Returns 1 when it is of another source or other options, and in line (of
 * match.h's MKHCT_MATCH_LINE bytes) what differs. */
int mkhct_checkpoint_merge(struct mkhct_checkpoint *c, const struct mkhct_checkpoint *other,
			   char line[]);

/* All is written; files are being given their names. */
int mkhct_checkpoint_set_naming(struct mkhct_checkpoint *c);
int mkhct_checkpoint_is_naming(const struct mkhct_checkpoint *c);

/* Adds to the statistics; numbers that are not there are 0. */
int mkhct_checkpoint_count(struct mkhct_checkpoint *c, const char *key, double amount);
double mkhct_checkpoint_counted(const struct mkhct_checkpoint *c, const char *key);

/* The document, for manifest.h and for the names of part files; belongs to it. */
cJSON *mkhct_checkpoint_document(struct mkhct_checkpoint *c);
/* The part of the document about entry i. */
cJSON *mkhct_checkpoint_entry(const struct mkhct_checkpoint *c, size_t entry);
size_t mkhct_checkpoint_entries(const struct mkhct_checkpoint *c);

/* What the checkpoint says of the source, to finish without it.  The source goes to
 * mkhct_source_free.  Errors: HCT_ERR_CORRUPT, HCT_ERR_NOMEM. */
hct_error mkhct_checkpoint_source(const struct mkhct_checkpoint *c, struct mkhct_source *out,
				  struct hct_diag *diag);

/* The document as JSON, for cJSON_free; NULL without memory. */
char *mkhct_checkpoint_text(const struct mkhct_checkpoint *c);

/* Writes such a text: a new file beside it, synced, renamed, and the folder synced.  root: of the
 * bundle; name: in it; shown: for messages.  Any thread. */
hct_error mkhct_checkpoint_put(const char *text, int root, const char *name, const char *shown,
			       struct hct_diag *diag);

#endif
