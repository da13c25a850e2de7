#include "hct_cli.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "layers.h"
#include "text.h"

#define MAX_THREADS 1024

/* Options without a letter: beyond all of them. */
enum { OPTION_JSON = 256, OPTION_QUALITY };

/* A progress line stands on the terminal and must go before anything else is written. */
static int line_visible;

static volatile sig_atomic_t interrupted;

static void clear_line(void)
{
	if (line_visible)
		fputs("\r\033[K", stderr);
	line_visible = 0;
}

/* Formats, makes printable and writes one line. */
static void write_line(FILE *out, const char *format, va_list args)
{
	char *text = NULL, *shown = NULL;

	clear_line();
	if (vasprintf(&text, format, args) >= 0) {
		shown = hct_text_printable(text);
		free(text);
	}
	fprintf(out, "%s\n", shown ? shown : "out of memory");
	free(shown);
}

void hct_put(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	write_line(stdout, format, args);
	va_end(args);
}

void hct_say(const struct hct_command *c, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	clear_line();
	fprintf(stderr, "hct %s: ", c->name);
	va_start(args, format);
	write_line(stderr, format, args);
	va_end(args);
}

int hct_say_error(const struct hct_command *c, hct_error err, const struct hct_diag *diag)
{
	hct_say(c, "%s", diag && diag->text[0] ? diag->text : hct_error_string(err));
	return hct_error_exit_code(err);
}

int hct_usage(const struct hct_command *c, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	hct_say(c, "%s; try 'hct %s --help'", text, c->name);
	return HCT_EXIT_USAGE;
}

/* Says what getopt_long did not like. */
static void say_bad_option(const struct hct_command *c, int value, const char *word,
			   const char *shorts)
{
	if (value == ':') {
		if (strncmp(word, "--", 2) == 0)
			hct_usage(c, "option '%s' needs a value", word);
		else
			hct_usage(c, "option '-%c' needs a value", optopt);
	} else if (optopt > 0 && optopt < 256 && !strchr(shorts, optopt)) {
		hct_usage(c, "unknown option '-%c'", optopt);
	} else if (optopt > 0) {
		hct_usage(c, "option '%.*s' takes no value", (int)strcspn(word, "="), word);
	} else {
		hct_usage(c, "unknown option '%s'", word);
	}
}

/* The argument of -j; returns 1, or 0 after saying what is wrong. */
static int parse_jobs(const struct hct_command *c, const char *text, unsigned *threads)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno || *end || end == text || n < 1 || n > MAX_THREADS || text[0] == '-') {
		hct_usage(c, "-j takes a number of threads from 1 to %d, not '%s'", MAX_THREADS,
			  text);
		return 0;
	}
	*threads = (unsigned)n;
	return 1;
}

/* The argument of --quality, likewise. */
static int parse_quality(const struct hct_command *c, const char *text, unsigned *layers)
{
	if (hct_layers_parse(text, layers))
		return 1;
	hct_usage(c, "--quality is " HCT_LAYERS_NAMES ", not '%s'", text);
	return 0;
}

/* All options that there are, and which of them a subcommand takes. */
static const struct {
	struct option option;
	char letter; /* in hct_parse_options' takes; 0: all take it */
} all[] = {{{"force", no_argument, NULL, 'f'}, 'f'},
	   {{"jobs", required_argument, NULL, 'j'}, 'j'},
	   {{"long", no_argument, NULL, 'l'}, 'l'},
	   {{"quiet", no_argument, NULL, 'q'}, 'q'},
	   {{"json", no_argument, NULL, OPTION_JSON}, 'J'},
	   {{"output", required_argument, NULL, 'o'}, 'o'},
	   {{"quality", required_argument, NULL, OPTION_QUALITY}, 'Q'},
	   {{"help", no_argument, NULL, 'h'}, 0}};

#define OPTIONS (sizeof(all) / sizeof(all[0]))

/* Makes getopt_long's tables of those that are taken. */
static void choose_options(const char *takes, char shorts[2 * OPTIONS + 2],
			   struct option longs[OPTIONS + 1])
{
	*shorts++ = ':';
	for (size_t i = 0; i < OPTIONS; i++) {
		const struct option *o = &all[i].option;

		if (all[i].letter && !strchr(takes, all[i].letter))
			continue;
		*longs++ = *o;
		if (o->val > CHAR_MAX)
			continue;
		*shorts++ = (char)o->val;
		if (o->has_arg == required_argument)
			*shorts++ = ':';
	}
	*shorts = '\0';
	*longs = (struct option){0};
}

int hct_parse_options(const struct hct_command *c, int argc, char **argv, const char *takes,
		      struct hct_options *o)
{
	struct option longs[OPTIONS + 1];
	char shorts[2 * OPTIONS + 2];
	int value;

	memset(o, 0, sizeof(*o));
	choose_options(takes, shorts, longs);
	opterr = 0;
	while ((value = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		switch (value) {
		case 'f':
			o->force = 1;
			break;
		case 'j':
			if (!parse_jobs(c, optarg, &o->threads))
				return HCT_EXIT_USAGE;
			break;
		case 'l':
			o->details = 1;
			break;
		case 'o':
			o->output = optarg;
			break;
		case 'q':
			o->quiet = 1;
			break;
		case OPTION_JSON:
			o->json = 1;
			break;
		case OPTION_QUALITY:
			if (!parse_quality(c, optarg, &o->layers))
				return HCT_EXIT_USAGE;
			break;
		case 'h':
			fputs(c->help, stdout);
			return HCT_EXIT_OK;
		default:
			say_bad_option(c, value, argv[optind - 1], shorts);
			return HCT_EXIT_USAGE;
		}
	}
	return -1;
}

int hct_worse(int a, int b)
{
	return a > b ? a : b;
}

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

void hct_catch_signals(void)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND | SA_RESTART};

	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		struct sigaction old;

		/* What is ignored (nohup, background jobs of a script) stays so. */
		if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaction(numbers[i], &action, NULL);
	}
}

int hct_interrupted(void)
{
	return interrupted != 0;
}

void hct_progress_start(struct hct_progress *p, const struct hct_command *c, uint64_t total,
			int quiet)
{
	memset(p, 0, sizeof(*p));
	p->command = c;
	p->terminal = isatty(STDERR_FILENO);
	p->quiet = quiet;
	p->shown = hct_meter_now();
	hct_meter_start(&p->meter, total);
}

void hct_progress_show(struct hct_progress *p, const char *what)
{
	double now = hct_meter_now();
	struct winsize size;
	unsigned width = 80;
	char line[1024], *shown;

	if (p->quiet || now - p->shown < (p->terminal ? 0.1 : 10.0))
		return;
	p->shown = now;
	if (p->terminal && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		width = size.ws_col;
	shown = hct_text_printable(what);
	/* One column stays free, or some terminals begin a new line. */
	hct_meter_line(&p->meter, shown ? shown : "", p->terminal ? width - 1 : 120, line,
		       sizeof(line));
	free(shown);
	if (p->terminal) {
		fprintf(stderr, "\r%s\033[K", line);
		line_visible = 1;
	} else {
		fprintf(stderr, "hct %s: %s\n", p->command->name, line);
	}
	fflush(stderr);
}

void hct_progress_end(struct hct_progress *p)
{
	(void)p;
	clear_line();
	fflush(stderr);
}
