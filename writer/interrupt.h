/* Asking mkhct to stop: SIGINT, SIGTERM and SIGHUP set a flag, which long work looks
 * at between its steps, so that one path cleans up whatever went wrong. */
#ifndef MKHCT_INTERRUPT_H
#define MKHCT_INTERRUPT_H

#include "codec/error.h"

/* Installs the handlers; a signal that the caller of mkhct ignores (nohup) stays
 * ignored.  SIGPIPE and SIGXFSZ are ignored too: a closed standard output and a limit on
 * file sizes are errors of writing. */
void mkhct_interrupt_install(void);

/* HCT_ERR_INTERRUPTED with a line when a signal came, HCT_OK otherwise.  From any
 * thread. */
hct_error mkhct_interrupt_check(struct hct_diag *diag);

#endif
