/* Internal: the plug-in for devices, found and loaded. */
#ifndef HCT_PLUGIN_H
#define HCT_PLUGIN_H

#include "device.h"
#include "error.h"

struct hct_plugin {
	void *handle;
	const struct hct_device_class *class;
};

/* Looks where HCT_CUDA_PLUGIN says, or else beside the program and libhct, in the lib folder next
 * to the program's, and where the linker looks.  Errors: HCT_ERR_NOT_FOUND (nowhere, and
 * HCT_CUDA_PLUGIN is not set), HCT_ERR_UNSUPPORTED (it cannot be loaded, or is of another
 * version). */
hct_error hct_plugin_open(struct hct_plugin *out, struct hct_diag *diag);
/* The code itself stays in memory: CUDA's may not be unloaded while threads end. */
void hct_plugin_close(struct hct_plugin *p);

#endif
