/* libhct: compressed models as safetensors.
 *
 * Include this one header.  For reading: reader.h, and backend.h for many chunks at a time, by all
 * CPUs or a GPU.  For writing: encoder.h and appender.h, whose functions are in libhctenc
 * (hctenc.h).  The file format is specified in FORMAT.md.
 *
 * Ownership: what a function creates through `type **out` is freed by the function
 * of the same noun (hct_reader_close, hct_decoder_free ...); pointers that a getter
 * returns belong to the object.  Threads: a reader, a plan and a parsed header are
 * immutable and shared freely; decoders, encoders and appenders belong to one
 * thread at a time.  The library never exits, prints, or keeps global state. */
#ifndef HCT_H
#define HCT_H

#define HCT_VERSION_MAJOR 0
#define HCT_VERSION_MINOR 1
#define HCT_VERSION_PATCH 0
#define HCT_VERSION       "0.1.0"

#include "appender.h"
#include "backend.h"
#include "dtype.h"
#include "encoder.h"
#include "error.h"
#include "metrics.h"
#include "reader.h"
#include "safetensors.h"

#endif
