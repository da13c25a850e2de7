/* The config.json beside the models of a source. */
#ifndef MKHCT_CONFIG_H
#define MKHCT_CONFIG_H

#include <cjson/cJSON.h>

#include "writer/source.h"

/* Its JSON object, which goes to cJSON_Delete; NULL when there is none to be had, with the reason
 * in *why, unless why is NULL: a phrase for a line, or NULL when memory or the disk failed. */
cJSON *mkhct_config_read(const struct mkhct_entry *entry, const char **why);

/* Adds a note (source.h) when one that lies beside a model is none that a loader could read: that
 * is no error, as it is carried byte for byte and layers show in the names of tensors as well.
 * Errors: HCT_ERR_NOMEM. */
hct_error mkhct_config_check(struct mkhct_source *source, struct hct_diag *diag);

#endif
