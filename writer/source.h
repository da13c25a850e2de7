/* What is to be compressed: a model directory, a Hugging Face cache snapshot (a
 * directory of symlinks), one .safetensors file; or a bundle, or one .hct file, to be
 * compressed anew.
 *
 * Scanning reads names and sizes, of compressed files the index, and what config.json says.  What
 * lies in a folder .hct, as a bundle has it, is no part of any model, and is not taken along.
 * Symlinks are followed, to
 * files and to directories; a directory that contains itself that way is an error. */
#ifndef MKHCT_SOURCE_H
#define MKHCT_SOURCE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "codec/error.h"
#include "writer/options.h"
#include "writer/transcode.h"

enum mkhct_kind {
	MKHCT_FOLDER,
	MKHCT_MODEL,  /* *.safetensors: to be compressed */
	MKHCT_CARRIED /* any other file: copied byte for byte */
};

struct mkhct_entry {
	enum mkhct_kind kind;
	char *name; /* from the source's root: "sub/model.safetensors" */
	char *path; /* to open it */
	uint64_t size;
	struct timespec mtime;
	mode_t mode; /* the nine permission bits */
	/* MKHCT_MODEL: path is an .hct file, and name, size and mtime are those of what it decodes
	 * to. */
	int packed;
	const struct mkhct_scratch *scratch; /* of a packed one: the source's */
	/* NAME-00001-of-00003.safetensors: the number of a shard next to it that is to be there and
	 * is not, or 0. */
	unsigned missing_shard;
	/* Of the file at path itself, to tell whether it has changed. */
	dev_t dev;
	ino_t ino;
	uint64_t disk_size;
	struct timespec disk_mtime;
};

struct mkhct_source {
	char *path;    /* as the user gave it */
	char *label;   /* its last component, for reports: no path of this machine */
	int is_folder; /* 0: one file, the only entry */
	dev_t dev;     /* of path itself */
	ino_t ino;
	struct mkhct_entry *entries; /* sorted by name (bytes), so folders before what they hold */
	size_t count;
	size_t model_count, carried_count;
	uint64_t model_bytes, carried_bytes;
	size_t packed_count, lossy_count;  /* models that are packed, and that were so with loss */
	double lossy_weights, lossy_error; /* of tensors with loss: their elements, and the sum of
					    * these times their relative squared error */
	size_t bundle_count;               /* folders of it that are bundles */
	char *bundle;                      /* the name of the first; or NULL */
	char **notes;                      /* of mkhct_source_add_note */
	size_t note_count;
	struct mkhct_scratch *scratch; /* where these are decoded */
};

/* Lists the source, or what the selections take of it.  On success *out must go to
 * mkhct_source_free.  A bundle's `x.safetensors.hct` is listed as `x.safetensors`, and its hidden
 * folder is not.  Errors: HCT_ERR_NOT_FOUND, HCT_ERR_IO; HCT_ERR_ARGUMENT for a selection that
 * matches nothing, or leaves no model; HCT_ERR_UNSUPPORTED for what cannot be compressed: no
 * .safetensors file at all, a loop of symlinks, a socket, FIFO or device, a whole folder of the
 * Hugging Face cache (hub.h); HCT_ERR_UNFINISHED for a bundle, the source or in it, that mkhct has
 * not finished; HCT_ERR_EXISTS for x.safetensors beside x.safetensors.hct;
 * HCT_ERR_LIMIT for folders nested too deeply or too many files; those of hct_reader_open. */
hct_error mkhct_source_scan(const char *path, const struct mkhct_selection *selections,
			    size_t selection_count, struct mkhct_source *out,
			    struct hct_diag *diag);

/* Packed files are decoded in the new bundle, or beside it when it is not there yet, with so many
 * threads.  out: NULL when there is none.  Errors: HCT_ERR_NOMEM. */
hct_error mkhct_source_decode_at(struct mkhct_source *s, const char *out, unsigned threads,
				 struct hct_diag *diag);

/* Keeps a line for mkhct_source_note.  Errors: HCT_ERR_NOMEM. */
hct_error mkhct_source_add_note(struct mkhct_source *s, struct hct_diag *diag, const char *format,
				...) __attribute__((format(printf, 3, 4)));

/* 1 with a line in *line for line number i = 0, 1 ... about the source as a whole; 0 when there
 * are no more. */
int mkhct_source_note(const struct mkhct_source *s, unsigned i, struct hct_diag *line);

/* Harmless on a zeroed struct and when repeated. */
void mkhct_source_free(struct mkhct_source *s);

/* The entry of that name, or NULL.  O(log n). */
const struct mkhct_entry *mkhct_source_find(const struct mkhct_source *s, const char *name);

/* HCT_ERR_ARGUMENT when folder, or one that it lies in, is a folder of the source (so the bundle
 * out would lie in the source), told by device and inode, whatever links lead there. */
hct_error mkhct_source_refuse_inside(const struct mkhct_source *src, const char *out,
				     const char *folder, struct hct_diag *diag);

/* HCT_ERR_ARGUMENT when the source lies in the existing folder sb, which is out. */
hct_error mkhct_source_refuse_around(const struct mkhct_source *src, const char *out,
				     const struct stat *sb, struct hct_diag *diag);

#endif
