#include "interrupt.h"

#include <signal.h>
#include <stdatomic.h>

/* Lock-free, so a handler may write it; an atomic and not a sig_atomic_t because
 * several threads read it. */
static atomic_int caught;

static void on_signal(int signum)
{
	atomic_store_explicit(&caught, signum, memory_order_relaxed);
}

void mkhct_interrupt_install(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		struct sigaction old;

		if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaction(signals[i], &action, NULL);
	}
	action.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &action, NULL);
	sigaction(SIGXFSZ, &action, NULL);
}

hct_error mkhct_interrupt_check(struct hct_diag *diag)
{
	int signum = atomic_load_explicit(&caught, memory_order_relaxed);

	if (!signum)
		return HCT_OK;
	return hct_fail(diag, HCT_ERR_INTERRUPTED, "interrupted by %s",
			signum == SIGINT    ? "SIGINT"
			: signum == SIGTERM ? "SIGTERM"
					    : "SIGHUP");
}
