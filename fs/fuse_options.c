#include "fuse_fs.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/hct.h"
#include "codec/units.h"
#include "layers.h"

#define DEFAULT_READAHEAD (4u << 20)
#define MAX_THREADS       1024
/* More would not fit into the kernel's figure, which is in KiB and 32 bits. */
#define MAX_READAHEAD (1ull << 30)

/* As they are given; turned into numbers by check. */
struct raw {
	char *cache_size, *readahead, *threads, *quality, *uid, *gid, *max_read;
};

#define FLAG(text, member)                                                                         \
	{                                                                                          \
		text, offsetof(struct hctfs_options, member), 1                                    \
	}
#define TEXT(text, member)                                                                         \
	{                                                                                          \
		text, offsetof(struct hctfs_options, member), 0                                    \
	}
#define VALUE(text, member)                                                                        \
	{                                                                                          \
		text, offsetof(struct raw, member), 0                                              \
	}
#define DROP(text) FUSE_OPT_KEY(text, FUSE_OPT_KEY_DISCARD)

static const struct fuse_opt flags[] = {
	FLAG("-h", help),
	FLAG("--help", help),
	FLAG("-V", version),
	FLAG("--version", version),
	FLAG("-f", foreground),
	FLAG("-s", single),
	FLAG("-d", debug),
	FLAG("--debug", debug),
	FLAG("debug", debug),
	FLAG("nonempty", nonempty),
	/* Of two that match the later one counts, and the first would take the "=", too. */
	TEXT("--gpu %s", gpu),
	TEXT("--gpu=%s", gpu),
	TEXT("gpu=%s", gpu),
	/* The session wants to know these as well. */
	FUSE_OPT_KEY("-d", FUSE_OPT_KEY_KEEP),
	FUSE_OPT_KEY("--debug", FUSE_OPT_KEY_KEEP),
	FUSE_OPT_KEY("debug", FUSE_OPT_KEY_KEEP),
	FUSE_OPT_END,
};

static const struct fuse_opt values[] = {
	VALUE("cache_size=%s", cache_size),
	VALUE("readahead=%s", readahead),
	VALUE("threads=%s", threads),
	VALUE("quality=%s", quality),
	VALUE("uid=%s", uid),
	VALUE("gid=%s", gid),
	/* The mount wants to know it as well, and both must say the same. */
	VALUE("max_read=%s", max_read),
	FUSE_OPT_KEY("max_read=", FUSE_OPT_KEY_KEEP),
	/* The mount is read-only whatever is asked for, and that is added below. */
	DROP("ro"),
	DROP("rw"),
	/* What fstab says to mount(8) and systemd. */
	DROP("defaults"),
	DROP("auto"),
	DROP("noauto"),
	DROP("user"),
	DROP("user="),
	DROP("nouser"),
	DROP("users"),
	DROP("owner"),
	DROP("group"),
	DROP("nofail"),
	DROP("_netdev"),
	DROP("comment="),
	DROP("relatime"),
	DROP("norelatime"),
	DROP("strictatime"),
	DROP("lazytime"),
	DROP("nolazytime"),
	DROP("loud"),
	DROP("silent"),
	FUSE_OPT_END,
};

static const char usage[] =
	"usage: hctfs [options] BUNDLE MOUNTPOINT\n"
	"\n"
	"Shows the bundle that mkhct made, or one .hct file, as the files that were\n"
	"compressed, at the empty folder MOUNTPOINT.  fusermount3 -u MOUNTPOINT ends it.\n"
	"\n"
	"  -f                    stay in the foreground, messages on stderr\n"
	"  -d, --debug, -o debug the same, and show every request\n"
	"  -s                    one thread for everything\n"
	"  -o cache_size=SIZE    memory for decoded data, for all files together (256M)\n"
	"  -o threads=N          threads that decode (one a CPU, at least 4)\n"
	"  -o readahead=SIZE     how far to read ahead of sequential readers (4M; 0: not)\n"
	"  -o quality=NAME       of a bundle made with layers read just one (essentials), two\n"
	"                        (quick), three (balanced) or all (full)\n"
	"  --gpu WORD, -o gpu=WORD\n"
	"                        have a GPU decode what is read ahead: where it is faster (auto),\n"
	"                        never (off), or the one with that number\n"
	"  -o uid=N, -o gid=N    whose files they seem to be (yours)\n"
	"  -o allow_other        other users may read, too; allow_root: root may\n"
	"  -o nonempty           mount over a folder that is not empty, which hides its files\n"
	"  -o auto_unmount       unmount even if hctfs is killed\n"
	"  -o ...                other options of FUSE mounts, see mount.fuse3(8)\n"
	"  -h, --help            this text\n"
	"  -V, --version         versions\n"
	"\n"
	"Exit codes: 0 mounted, 1 bundle damaged or unsupported, 2 wrong command line,\n"
	"3 mount refused or system error.\n";

static int bad_usage(const char *what, const char *value)
{
	fprintf(stderr, "hctfs: %s%s; try 'hctfs --help'\n", what, value);
	return HCT_EXIT_USAGE;
}

/* Takes the two paths; everything else is libfuse's. */
static int take_path(void *data, const char *arg, int key, struct fuse_args *out)
{
	struct hctfs_options *o = data;
	char **place = !o->bundle ? &o->bundle : !o->mountpoint ? &o->mountpoint : NULL;

	(void)out;
	if (key != FUSE_OPT_KEY_NONOPT)
		return 1;
	if (!place) {
		bad_usage("one argument too many: ", arg);
		return -1;
	}
	*place = strdup(arg);
	return *place ? 0 : -1;
}

/* What fstab says to others still. */
static int drop_foreign(void *data, const char *arg, int key, struct fuse_args *out)
{
	(void)data, (void)out;
	if (key != FUSE_OPT_KEY_OPT)
		return 1;
	return strncmp(arg, "x-", 2) != 0 && strncmp(arg, "X-", 2) != 0;
}

static int parse_number(const char *text, unsigned long most, unsigned *out)
{
	unsigned long value;
	char *end;

	if (*text < '0' || *text > '9')
		return -1;
	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end || value > most)
		return -1;
	*out = (unsigned)value;
	return 0;
}

/* Such a cache is a slip more often than a plan. */
static void warn_of_large_cache(const char *given, uint64_t bytes)
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	char size[HCT_UNITS_MAX];

	if (pages > 0 && page > 0 && bytes / (uint64_t)page > (uint64_t)pages)
		fprintf(stderr,
			"hctfs: warning: cache_size=%s is more than the memory of this machine "
			"(%s)\n",
			given, hct_units_size((uint64_t)pages * (uint64_t)page, size));
}

static int check(const struct raw *raw, struct hctfs_options *o)
{
	struct hct_diag diag = {{0}};

	o->uid = getuid();
	o->gid = getgid();
	o->readahead = DEFAULT_READAHEAD;
	if (o->debug)
		o->foreground = 1;
	if (raw->cache_size && (hct_units_parse_size(raw->cache_size, &o->cache_bytes) < 0 ||
				o->cache_bytes == 0 || o->cache_bytes > SIZE_MAX / 4))
		return bad_usage("cache_size is not a size like 512M: ", raw->cache_size);
	if (raw->readahead && (hct_units_parse_size(raw->readahead, &o->readahead) < 0 ||
			       o->readahead > MAX_READAHEAD))
		return bad_usage("readahead is not a size like 4M up to 1G: ", raw->readahead);
	if (raw->threads &&
	    (parse_number(raw->threads, MAX_THREADS, &o->threads) < 0 || !o->threads))
		return bad_usage("threads is not a number from 1 to 1024: ", raw->threads);
	if (raw->quality && !hct_layers_parse(raw->quality, &o->layers))
		return bad_usage("quality is none of " HCT_LAYERS_NAMES ": ", raw->quality);
	if (hct_backend_check_gpu(o->gpu, &diag))
		return bad_usage(diag.text, "");
	if (raw->uid && parse_number(raw->uid, UINT_MAX - 1, &o->uid) < 0)
		return bad_usage("uid is not a number: ", raw->uid);
	if (raw->gid && parse_number(raw->gid, UINT_MAX - 1, &o->gid) < 0)
		return bad_usage("gid is not a number: ", raw->gid);
	if (raw->max_read && parse_number(raw->max_read, UINT_MAX - 1, &o->max_read) < 0)
		return bad_usage("max_read is not a number: ", raw->max_read);
	if (raw->cache_size)
		warn_of_large_cache(raw->cache_size, o->cache_bytes);
	return -1;
}

/* What every mount has: the kernel checks permissions and refuses writing.  Inserted
 * before the user's own options, so that theirs win. */
static int add_defaults(struct fuse_args *args, const char *source)
{
	char *fixed = NULL, *joined = NULL;
	int bad = fuse_opt_add_opt(&fixed, "default_permissions,subtype=hctfs");
	char *fsname = NULL;

	if (!bad && asprintf(&fsname, "fsname=%s", source) < 0) {
		fsname = NULL;
		bad = -1;
	}
	bad = bad || fuse_opt_add_opt_escaped(&fixed, fsname) ||
	      asprintf(&joined, "-o%s", fixed) < 0;
	bad = bad || fuse_opt_insert_arg(args, 1, joined) || fuse_opt_add_arg(args, "-oro");
	free(joined);
	free(fsname);
	free(fixed);
	return bad ? -1 : 0;
}

int hctfs_parse(struct fuse_args *args, struct hctfs_options *o)
{
	struct raw raw = {0};
	char *source = NULL;
	int code = HCT_EXIT_USAGE;

	if (fuse_opt_parse(args, o, flags, take_path) < 0 ||
	    fuse_opt_parse(args, &raw, values, drop_foreign) < 0)
		goto out;
	if (o->help || o->version) {
		if (o->help)
			fputs(usage, stdout);
		else
			printf("hctfs %s, libfuse %s\n", HCT_VERSION, fuse_pkgversion());
		code = fflush(stdout) == 0 ? HCT_EXIT_OK : HCT_EXIT_SYSTEM;
		goto out;
	}
	if (!o->bundle || !o->mountpoint) {
		bad_usage(!o->bundle ? "no bundle and no mount point given"
				     : "no mount point given",
			  "");
		goto out;
	}
	code = check(&raw, o);
	if (code >= 0)
		goto out;
	o->cache_given = raw.cache_size != NULL;
	source = realpath(o->bundle, NULL);
	if (add_defaults(args, source ? source : o->bundle) < 0) {
		fprintf(stderr, "hctfs: out of memory\n");
		code = HCT_EXIT_SYSTEM;
	}
out:
	free(source);
	free(raw.cache_size);
	free(raw.readahead);
	free(raw.threads);
	free(raw.quality);
	free(raw.uid);
	free(raw.gid);
	free(raw.max_read);
	return code;
}

void hctfs_options_free(struct hctfs_options *o)
{
	free(o->bundle);
	free(o->mountpoint);
	free(o->gpu);
}
