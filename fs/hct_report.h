/* What mkhct wrote into a bundle, by the report that lies in its hidden folder. */
#ifndef HCT_REPORT_H
#define HCT_REPORT_H

#include <stddef.h>
#include <stdint.h>

#include "codec/error.h"
#include "tree.h"

struct hct_listed {
	char *name; /* as it is shown */
	enum hct_node_kind kind;
	uint64_t stored_bytes;
	uint64_t checksum; /* hct_checksum of a carried file, with has_checksum */
	int has_checksum;
};

/* What mkhct says of the tensors with loss: means by their elements, and the worst by error. */
struct hct_report_loss {
	uint64_t tensors, elements; /* 0: it says nothing */
	double error, cosine;       /* error: relative squared */
	double worst_error, worst_cosine;
};

struct hct_report {
	struct hct_listed *files;
	size_t count;
	struct hct_report_loss loss;
};

/* Reads the report of the bundle in a folder; *out is to be freed in any case.  Names come
 * from outside and may be anything.  Errors: HCT_ERR_NOT_FOUND when there is none,
 * HCT_ERR_CORRUPT, HCT_ERR_IO, HCT_ERR_NOMEM. */
hct_error hct_report_read(const char *folder, struct hct_report *out, struct hct_diag *diag);
void hct_report_free(struct hct_report *report);

#endif
