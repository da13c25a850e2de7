/* The cache of the Hugging Face client: models--ORG--NAME holds blobs/, which are the files by
 * their digests, and snapshots/REVISION/, which are links to these by their names. */
#ifndef MKHCT_HUB_H
#define MKHCT_HUB_H

#include "codec/error.h"

/* 1 when the folder holds blobs/ and snapshots/. */
int mkhct_hub_is_entry(const char *path);

/* HCT_ERR_UNSUPPORTED with the snapshot to give instead: that of the revision "main", or the only
 * one there is. */
hct_error mkhct_hub_refuse(const char *path, struct hct_diag *diag);

#endif
