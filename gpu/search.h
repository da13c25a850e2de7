/* The search of the encoder, for the plug-in's struct hct_device_class. */
#ifndef HCT_GPU_SEARCH_H
#define HCT_GPU_SEARCH_H

#include "codec/search.h"

extern const struct hct_device_search_class gpu_search;

#endif
