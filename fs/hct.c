/* hct: looks into, checks, unpacks and compares bundles.  Each subcommand is in its own
 * hct_*.c. */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "codec/hct.h"
#include "codec/io.h"
#include "hct_cli.h"

static const struct hct_command *const commands[] = {
	&hct_ls_command,      &hct_info_command,    &hct_check_command,
	&hct_extract_command, &hct_compare_command, &hct_plot_command,
};

#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static void print_help(void)
{
	puts("Usage: hct COMMAND [OPTION]... ARGUMENT...\n"
	     "Looks into, checks, unpacks and compares models that mkhct compressed.\n");
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		printf("  %-14s  %s\n", commands[i]->name, commands[i]->summary);
	puts("\n"
	     "  help [COMMAND]  the same as --help, or as 'hct COMMAND --help'\n"
	     "  -h, --help      this text; 'hct COMMAND --help' tells the options of a command\n"
	     "  -V, --version   the version\n"
	     "\n"
	     "Exit codes: 0 done; 1 something is damaged, missing or cannot be compared;\n"
	     "2 wrong command line; 3 the system refused something; 130 interrupted.");
}

/* The number of letters to change, insert, drop or swap with the next: 0, 1, or 2 for more. */
static int distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b), same = 0;

	while (a[same] && a[same] == b[same])
		same++;
	a += same;
	b += same;
	if (la == lb && !*a)
		return 0;
	if ((la == lb && strcmp(a + 1, b + 1) == 0) || (la == lb + 1 && strcmp(a + 1, b) == 0) ||
	    (lb == la + 1 && strcmp(a, b + 1) == 0))
		return 1;
	if (la == lb && a[0] == b[1] && a[1] == b[0] && strcmp(a + 2, b + 2) == 0)
		return 1;
	return 2;
}

/* hct help [COMMAND] */
static int run_help(int argc, char **argv)
{
	if (argc > 2) {
		fprintf(stderr, "hct help: '%s' is one argument too many; try 'hct --help'\n",
			argv[2]);
		return HCT_EXIT_USAGE;
	}
	if (argc == 1 || strcmp(argv[1], "help") == 0) {
		print_help();
		return HCT_EXIT_OK;
	}
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		if (strcmp(argv[1], commands[i]->name) == 0) {
			fputs(commands[i]->help, stdout);
			return HCT_EXIT_OK;
		}
	}
	fprintf(stderr, "hct help: unknown command '%s'; try 'hct --help'\n", argv[1]);
	return HCT_EXIT_USAGE;
}

static int run_command(int argc, char **argv)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		if (strcmp(argv[0], commands[i]->name) == 0) {
			struct hct_diag diag;

			if (hct_simd_check_environment(&diag) != HCT_OK)
				fprintf(stderr, "hct: warning: %s\n", diag.text);
			return commands[i]->run(argc, argv);
		}
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		if (distance(argv[0], commands[i]->name) == 1) {
			fprintf(stderr, "hct: unknown command '%s'; did you mean 'hct %s'?\n",
				argv[0], commands[i]->name);
			return HCT_EXIT_USAGE;
		}
	}
	fprintf(stderr, "hct: unknown %s '%s'; try 'hct --help'\n",
		argv[0][0] == '-' ? "option" : "command", argv[0]);
	return HCT_EXIT_USAGE;
}

int main(int argc, char **argv)
{
	int code = HCT_EXIT_OK;

	if (hct_open_standard_descriptors() < 0)
		return HCT_EXIT_SYSTEM;
	/* Names are UTF-8 whatever the user's locale; this tells how wide they are. */
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		setlocale(LC_CTYPE, "");
	if (argc < 2) {
		fputs("hct: no command given; try 'hct --help'\n", stderr);
		return HCT_EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		print_help();
	else if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
		puts("hct " HCT_VERSION);
	else if (strcmp(argv[1], "help") == 0)
		code = run_help(argc - 1, argv + 1);
	else
		code = run_command(argc - 1, argv + 1);
	/* A result that did not reach its file is a failure. */
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "hct: cannot write the output: %s\n", strerror(errno));
		code = hct_worse(code, HCT_EXIT_SYSTEM);
	}
	return code;
}
