#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "codec/pool.h"

#define MAX_JOBS 1024

enum { OPT_LOSSLESS = 256, OPT_JSON };

const char mkhct_options_help[] =
	"Usage: mkhct [OPTION]... SRC OUT\n"
	"Compress the model SRC (a folder, or one .safetensors file) into the bundle OUT.\n"
	"\n"
	"      --lossless  every file comes back bit for bit (the default)\n"
	"  -j, --jobs N    encode with N threads (default: one for each CPU)\n"
	"  -f, --force     write the bundle OUT anew when it exists\n"
	"  -q, --quiet     print nothing but errors\n"
	"  -v, --verbose   print a line for each tensor\n"
	"      --json      print the final report as JSON\n"
	"  -V, --version   print the version\n"
	"  -h, --help      print this help\n"
	"\n"
	"OUT is a new or an empty folder. Mount it with hctfs; list, check and extract it\n"
	"with hct.\n"
	"\n"
	"Exit status: 0 done; 1 SRC is damaged, invalid or unsupported; 2 wrong command\n"
	"line; 3 system error (I/O, memory, disk full, OUT exists); 130 interrupted.\n";

static hct_error parse_jobs(const char *text, unsigned *jobs, struct hct_diag *diag)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || n < 1 || n > MAX_JOBS)
		return hct_fail(diag, HCT_ERR_ARGUMENT,
				"--jobs: '%s' is no number of threads (1 to %d)", text, MAX_JOBS);
	*jobs = (unsigned)n;
	return HCT_OK;
}

/* getopt says in optopt what was wrong: 0 for a long option that it does not know, an
 * option that it knows when that has an argument it should not have. */
static hct_error bad_option(char **argv, struct hct_diag *diag)
{
	if (optopt == 0)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: no such option", argv[optind - 1]);
	if (optopt >= OPT_LOSSLESS || strchr("jfqvVh", optopt))
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: this option takes no value",
				argv[optind - 1]);
	return hct_fail(diag, HCT_ERR_ARGUMENT, "-%c: no such option", optopt);
}

static hct_error take_operands(int argc, char **argv, struct mkhct_options *out,
			       struct hct_diag *diag)
{
	if (argc - optind < 2)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s is missing",
				argc == optind ? "SRC" : "OUT");
	if (argc - optind > 2)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "'%s' is one argument too many",
				argv[optind + 2]);
	out->source = argv[optind];
	out->out = argv[optind + 1];
	if (!*out->source || !*out->out)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s is empty",
				*out->source ? "OUT" : "SRC");
	return HCT_OK;
}

hct_error mkhct_options_parse(int argc, char **argv, struct mkhct_options *out,
			      struct hct_diag *diag)
{
	static const struct option longs[] = {{"lossless", no_argument, NULL, OPT_LOSSLESS},
					      {"jobs", required_argument, NULL, 'j'},
					      {"force", no_argument, NULL, 'f'},
					      {"quiet", no_argument, NULL, 'q'},
					      {"verbose", no_argument, NULL, 'v'},
					      {"json", no_argument, NULL, OPT_JSON},
					      {"version", no_argument, NULL, 'V'},
					      {"help", no_argument, NULL, 'h'},
					      {NULL, 0, NULL, 0}};
	hct_error err = HCT_OK;
	int c;

	*out = (struct mkhct_options){.action = MKHCT_RUN};
	optind = 0; /* glibc: start anew, also when it was called before */
	opterr = 0;
	while (!err && (c = getopt_long(argc, argv, ":j:fqvVh", longs, NULL)) != -1) {
		switch (c) {
		case OPT_LOSSLESS:
			break;
		case 'j':
			err = parse_jobs(optarg, &out->jobs, diag);
			break;
		case 'f':
			out->force = 1;
			break;
		case 'q':
			out->quiet = 1;
			break;
		case 'v':
			out->verbose = 1;
			break;
		case OPT_JSON:
			out->json = 1;
			break;
		case 'V':
			out->action = MKHCT_VERSION;
			return HCT_OK;
		case 'h':
			out->action = MKHCT_HELP;
			return HCT_OK;
		case ':':
			err = hct_fail(diag, HCT_ERR_ARGUMENT, "%s: needs a number of threads",
				       argv[optind - 1]);
			break;
		default:
			err = bad_option(argv, diag);
		}
	}
	if (!err)
		err = take_operands(argc, argv, out, diag);
	if (!err && out->quiet && out->verbose)
		err = hct_fail(diag, HCT_ERR_ARGUMENT, "--quiet and --verbose exclude each other");
	if (!out->jobs)
		out->jobs = hct_pool_default_threads();
	return err;
}
