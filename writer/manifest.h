/* What mkhct wrote into a bundle: read back from the report of the bundle and from the
 * checkpoint of a run that was killed, both JSON:
 *
 *     {"files": [{"name": "a.json"}, {"name": "m.safetensors.hct"}],
 *      "folders": [{"name": "sub"}], "parts": [{"name": ".a.json.part"}]}
 *
 * in a checkpoint under the key "manifest".  The report has no parts, and of models the name of the
 * source with "kind": "model": such a file lies under its name with .hct behind it.  Both may have
 * been damaged or forged: a manifest holds only names that cannot lead out of the bundle. */
#ifndef MKHCT_MANIFEST_H
#define MKHCT_MANIFEST_H

#include <stddef.h>

#include <cjson/cJSON.h>

#include "codec/error.h"

enum mkhct_manifest_kind {
	MKHCT_MANIFEST_NONE,
	MKHCT_MANIFEST_FILE,
	MKHCT_MANIFEST_FOLDER,
	MKHCT_MANIFEST_PART
};

/* The key under which a checkpoint (checkpoint.h) has the document. */
#define MKHCT_MANIFEST_KEY "manifest"

struct mkhct_manifest {
	struct mkhct_manifest_item {
		char *name; /* relative to the bundle, as it lies there */
		enum mkhct_manifest_kind kind;
	} * items;
	size_t count, capacity;
};

/* The JSON of the file at name below the folder root, or NULL when there is none to be had; free
 * with cJSON_Delete. */
cJSON *mkhct_manifest_json(int root, const char *name);

/* Adds what the JSON file at name below the folder root lists; a file that is not there
 * or is no such JSON lists nothing.  Errors: HCT_ERR_NOMEM. */
hct_error mkhct_manifest_read(struct mkhct_manifest *m, int root, const char *name,
			      struct hct_diag *diag);

/* To be called between reading and finding or removing. */
void mkhct_manifest_sort(struct mkhct_manifest *m);

/* The kind of a name; MKHCT_MANIFEST_NONE when mkhct did not write it.  O(log n). */
enum mkhct_manifest_kind mkhct_manifest_find(const struct mkhct_manifest *m, const char *name);

/* Removes the part files.  Errors: HCT_ERR_IO. */
hct_error mkhct_manifest_remove_parts(const struct mkhct_manifest *m, int root,
				      struct hct_diag *diag);

/* Removes files for which keep says 0, then folders for which it says 0 and that are empty.  What
 * is not there, or is of another kind by now, and folders that hold something stay.  Errors:
 * HCT_ERR_IO when something else cannot be removed; what is behind it is still there. */
hct_error mkhct_manifest_remove_old(const struct mkhct_manifest *m, int root,
				    int (*keep)(const char *name, void *arg), void *arg,
				    struct hct_diag *diag);

void mkhct_manifest_free(struct mkhct_manifest *m);

/* Writing: an empty document, and one more name as it lies in the bundle.  NULL and -1
 * mean out of memory. */
cJSON *mkhct_manifest_create(void);
int mkhct_manifest_add(cJSON *document, enum mkhct_manifest_kind kind, const char *name);

#endif
