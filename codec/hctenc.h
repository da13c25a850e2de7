/* libhctenc: the encoder of libhct.
 *
 * Include this header to write .hct files.  It is a library of its own because it uses
 * FFTW, which is under the GPL, and LAPACK: what only reads needs hct.h and libhct, and none of
 * those.  pkg-config finds both as libhctenc.  What hct.h says of ownership, threads and
 * errors holds here too; dct.h names its one exception. */
#ifndef HCT_ENC_H
#define HCT_ENC_H

#include "appender.h"
#include "dct.h"
#include "encoder.h"
#include "hct.h"

#endif
