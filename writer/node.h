/* What a report has about an entry of the source, as a JSON object.
 *
 * A model's holds the list of its tensors as raw text, a line for each: as cJSON objects those of a
 * model with 100,000 of them would take 100 MB.  Under MKHCT_NODE_SUMS it has the tallies of the
 * model, from which the totals of a report follow, and which a finished report does not show. */
#ifndef MKHCT_NODE_H
#define MKHCT_NODE_H

#include <cjson/cJSON.h>

#include "codec/reader.h"
#include "writer/compress.h"
#include "writer/excuses.h"
#include "writer/goals.h"
#include "writer/source.h"
#include "writer/tally.h"

#define MKHCT_NODE_LIST "tensor_list" /* "tensors" is their number */
#define MKHCT_NODE_SUMS "sums"

/* A model that was written, or is going to be. */
struct mkhct_written {
	const struct hct_safetensors *st;
	/* The coding of tensor i, of which codec and stored_bytes count. */
	void (*coding)(const void *arg, size_t i, struct hct_coding *out);
	const void *arg;
	const uint8_t *sha256; /* of the source */
	uint64_t file_bytes;   /* of the .hct file */
	const struct mkhct_model_goals *goals;
	const struct mkhct_result *results; /* one for each tensor */
};

/* model is NULL for folders and carried files, lossless and checksum as in report.h.  The caller
 * deletes it; NULL when out of memory. */
cJSON *mkhct_node_create(const struct mkhct_entry *entry, const struct mkhct_written *model,
			 int lossless, uint64_t checksum);

/* A copy of a node that was parsed, with its list as text again. */
cJSON *mkhct_node_copy(const cJSON *node);

/* What there is to count. */
struct mkhct_node_sums {
	int is_folder, is_model;
	uint64_t source_bytes, stored_bytes, tensors, header_bytes;
	struct mkhct_tally lossy, exact;
	struct mkhct_excuses excuses; /* of tensors in exact */
	struct mkhct_excuses notes;   /* of those in lossy */
};

/* From the text of the numbers, also where they are raw: the same whether this run made the node or
 * another one.  0, or -1 when it is none. */
int mkhct_node_count(const cJSON *node, struct mkhct_node_sums *out);

/* A number for reports, with seven digits: sums of the encoder are exact to about that.  0, or -1
 * when out of memory. */
int mkhct_node_add_rounded(cJSON *object, const char *key, double value);
/* The cosine of what lost something, as "cosine". */
int mkhct_node_add_cosine(cJSON *object, double cosine);

#endif
