/* The command line of hct: subcommands, options, messages, progress, signals.
 *
 * Results go to stdout, messages and progress to stderr.  Everything here is for the
 * main thread, but for hct_interrupted. */
#ifndef HCT_CLI_H
#define HCT_CLI_H

#include <getopt.h> /* optind */
#include <stdint.h>

#include "codec/error.h"
#include "codec/meter.h"

struct hct_command {
	const char *name;
	const char *summary;               /* for hct --help */
	const char *help;                  /* for hct NAME --help */
	int (*run)(int argc, char **argv); /* argv[0] is the name; returns an exit code */
};

extern const struct hct_command hct_ls_command;
extern const struct hct_command hct_info_command;
extern const struct hct_command hct_check_command;
extern const struct hct_command hct_extract_command;
extern const struct hct_command hct_compare_command;
extern const struct hct_command hct_plot_command;

/* What the options of a subcommand say. */
struct hct_options {
	unsigned threads;                /* -j; 0 when not given */
	unsigned layers;                 /* --quality (layers.h); 0 when not given */
	int force, details, quiet, json; /* -f, -l, -q, --json */
	const char *output;              /* -o, or NULL */
};

/* Reads the options of a subcommand: -h, and of the others those whose letters `takes`
 * holds ("f", "j", "l", "o", "q", "J" for --json and "Q" for --quality).  Returns -1 with
 * optind at the first argument, or the exit code to end with, after saying what is wrong in
 * one line or printing the help. */
int hct_parse_options(const struct hct_command *c, int argc, char **argv, const char *takes,
		      struct hct_options *o);

/* Says "hct NAME: text; try 'hct NAME --help'" and returns HCT_EXIT_USAGE. */
int hct_usage(const struct hct_command *c, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Says "hct NAME: text" on stderr, made printable, after clearing the progress line. */
void hct_say(const struct hct_command *c, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Says the diagnosis, or the error when it is empty; returns the exit code for it. */
int hct_say_error(const struct hct_command *c, hct_error err, const struct hct_diag *diag);

/* Prints a line of the result on stdout, made printable, after clearing the progress
 * line. */
void hct_put(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The graver of two exit codes: interrupted, system, usage, bad data, ok. */
int hct_worse(int a, int b);

/* Lets SIGINT, SIGTERM and SIGHUP set the flag that hct_interrupted returns; a second
 * one ends the process. */
void hct_catch_signals(void);
int hct_interrupted(void);

/* Progress: one line that is kept up to date on a terminal, otherwise a line every ten
 * seconds. */
struct hct_progress {
	const struct hct_command *command;
	struct hct_meter meter; /* add to it from any thread */
	double shown;
	int terminal, quiet;
};

void hct_progress_start(struct hct_progress *p, const struct hct_command *c, uint64_t total,
			int quiet);
/* Shows it when it is due; what: the thing being worked on. */
void hct_progress_show(struct hct_progress *p, const char *what);
/* Clears it; harmless when repeated. */
void hct_progress_end(struct hct_progress *p);

#endif
