/* hct extract: gives back the source directory without a mount. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/units.h"
#include "hct_bundle.h"
#include "hct_cli.h"
#include "hct_output.h"
#include "hct_workers.h"
#include "layers.h"
#include "ordered.h"

static const char help[] =
	"Usage: hct extract [-f] [-q] [-j N] [--quality NAME] BUNDLE DIR [FILE...]\n"
	"Writes the source directory of a bundle, or the named files of it, into DIR, with the\n"
	"modification times of the source.  DIR is made when it is not there.  A file appears\n"
	"under its name only when it is whole and safely on disk.\n"
	"\n"
	"  -f, --force         replace files that are there already\n"
	"  -j, --jobs N        threads; as many as there are CPUs by default\n"
	"      --quality NAME  of a bundle made with layers read just one (essentials), two\n"
	"                      (quick), three (balanced) or all (full, the default): the files\n"
	"                      have their sizes and headers, and coarser values\n"
	"  -q, --quiet         no progress and no summary\n"
	"  -h, --help          this text\n"
	"\n"
	"BUNDLE is a directory made by mkhct or one .hct file; FILE a path within it.\n";

/* Bytes of a carried file copied at a time. */
#define COPY_BYTES (1u << 20)

struct extract {
	const struct hct_command *command;
	const struct hct_tree *tree;
	const char *target; /* directory */
	int force;
	unsigned layers;     /* that are read of a chunk (layers.h); 0 for all */
	unsigned char *made; /* for each node of the tree: its directory is new */
	struct hct_workers workers;
	struct hct_progress progress;
	/* The file at work. */
	const struct hct_node *node;
	const char *path; /* as shown */
	int fd;
	hct_error err;
	struct hct_diag diag;
	uint64_t files, bytes;
	struct hct_layers_share share; /* with layers only */
};

/* Whole files --------------------------------------------------------------------- */

static hct_error write_all(int fd, const void *data, size_t length, uint64_t offset,
			   const char *path, struct hct_diag *diag)
{
	const char *at = data;

	while (length > 0) {
		ssize_t n = pwrite(fd, at, length, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return hct_fail_errno(diag, errno, "%s: cannot write", path);
		at += n;
		length -= (size_t)n;
		offset += (size_t)n;
	}
	return HCT_OK;
}

struct result {
	hct_error err;
	struct hct_diag *diag;
};

static void extract_chunk(void *arg, uint64_t item, void *result, unsigned worker)
{
	struct extract *x = arg;
	struct result *r = result;
	struct hct_worker *w = &x->workers.each[worker];
	struct hct_diag diag = {{0}};
	struct hct_chunk chunk;
	void *buffer;

	if (hct_interrupted())
		return;
	hct_reader_chunk(x->node->reader, item, &chunk);
	buffer = hct_worker_buffer(w, 0, chunk.length);
	r->err = HCT_ERR_NOMEM;
	if (buffer)
		r->err = hct_reader_decode_verified(x->node->reader, w->decoder, item, buffer,
						    &diag);
	if (!r->err)
		r->err = write_all(x->fd, buffer, chunk.length, chunk.offset, x->path, &diag);
	if (r->err && (r->diag = malloc(sizeof(diag))))
		*r->diag = diag;
	hct_meter_add(&x->progress.meter, chunk.length);
}

static int take_chunk(void *arg, uint64_t item, void *result, int stop)
{
	struct extract *x = arg;
	struct result *r = result;

	(void)item;
	(void)stop;
	if (r->err && !x->err) {
		x->err = r->err;
		if (r->diag)
			x->diag = *r->diag;
	}
	free(r->diag);
	return x->err != HCT_OK;
}

static int tick(void *arg)
{
	struct extract *x = arg;

	hct_progress_show(&x->progress, x->path);
	return hct_interrupted();
}

static hct_error write_model(struct extract *x)
{
	const struct hct_safetensors *st = hct_reader_safetensors(x->node->reader);
	struct hct_ordered run = {.work = extract_chunk,
				  .take = take_chunk,
				  .tick = tick,
				  .arg = x,
				  .result_size = sizeof(struct result)};
	hct_error err = write_all(x->fd, st->header, st->header_len, 0, x->path, &x->diag);

	hct_meter_add(&x->progress.meter, st->header_len);
	if (!err)
		err = hct_ordered_run(&run, x->workers.pool,
				      hct_reader_chunk_count(x->node->reader));
	return err ? err : x->err;
}

static hct_error write_plain(struct extract *x)
{
	void *buffer = hct_worker_buffer(&x->workers.each[0], 0, COPY_BYTES);
	hct_error err = HCT_OK;
	int fd;

	if (!buffer)
		return HCT_ERR_NOMEM;
	fd = open(x->node->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return hct_fail_errno(&x->diag, errno, "%s", x->node->path);
	for (uint64_t at = 0; !err && at < x->node->size && !tick(x);) {
		uint64_t left = x->node->size - at;
		size_t length = left < COPY_BYTES ? (size_t)left : COPY_BYTES;

		err = hct_node_pread(x->node, NULL, fd, at, buffer, length, &x->diag);
		if (!err)
			err = write_all(x->fd, buffer, length, at, x->path, &x->diag);
		at += length;
		hct_meter_add(&x->progress.meter, length);
	}
	close(fd);
	return err;
}

/* Extracts one file; nothing is left of it when that fails. */
static hct_error extract_file(struct extract *x, const struct hct_node *node, const char *path)
{
	struct hct_output out;
	hct_error err;

	x->node = node;
	x->path = path;
	x->err = HCT_OK;
	x->diag.text[0] = '\0';
	err = hct_output_begin(x->target, path, node, &out, &x->diag);
	if (err)
		return err;
	x->fd = out.fd;
	err = node->kind == HCT_NODE_MODEL ? write_model(x) : write_plain(x);
	if (!err && hct_interrupted())
		err = HCT_ERR_INTERRUPTED;
	if (!err)
		err = hct_output_commit(&out, &node->mtime, x->force, &x->diag);
	if (!err) {
		x->files++;
		x->bytes += node->size;
		if (x->layers && node->kind == HCT_NODE_MODEL)
			hct_layers_weigh(node->reader, x->layers, &x->share);
	}
	hct_output_end(&out);
	return err;
}

/* The directory -------------------------------------------------------------------- */

static int is_to_write(const struct hct_node *node, const unsigned char *chosen)
{
	return chosen[node->ino - 1] && (node->kind == HCT_NODE_PLAIN || node->reader);
}

/* DIR within the bundle would mix the two up, and -f would let one eat the other. */
static int is_same_directory(const char *a, const char *b)
{
	struct stat sa, sb;

	return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

/* Refuses before anything is written when a file would be replaced, or when the disk has
 * too little room: a file is replaced once the new one is whole, one after the other. */
static hct_error look_at_target(struct extract *x, const unsigned char *chosen)
{
	uint64_t used = 0, freed = 0, needed = 0;

	for (size_t i = 0; i < hct_tree_count(x->tree); i++) {
		const struct hct_node *node = hct_tree_node(x->tree, i);
		char *path, *full = NULL;
		struct stat st;
		int exists;

		if (!is_to_write(node, chosen))
			continue;
		path = hct_shown_path(node);
		if (!path || asprintf(&full, "%s/%s", x->target, path) < 0) {
			free(path);
			return HCT_ERR_NOMEM;
		}
		exists = lstat(full, &st) == 0;
		if (exists && !x->force)
			hct_fail(&x->diag, HCT_ERR_EXISTS,
				 "%s is there already; -f replaces what is there", full);
		free(full);
		free(path);
		if (exists && !x->force)
			return HCT_ERR_EXISTS;
		used += node->size;
		if (used > freed && used - freed > needed)
			needed = used - freed;
		if (exists && st.st_nlink == 1)
			freed += 512 * (uint64_t)st.st_blocks;
	}
	return hct_output_space(x->target, needed, &x->diag);
}

/* Makes the directories that the chosen files lie in, and those chosen themselves. */
static hct_error make_directories(struct extract *x, const unsigned char *chosen)
{
	size_t count = hct_tree_count(x->tree);
	unsigned char *needed = calloc(count ? count : 1, 1);
	hct_error err = needed ? HCT_OK : HCT_ERR_NOMEM;

	for (size_t i = count; !err && i-- > 0;) {
		const struct hct_node *node = hct_tree_node(x->tree, i);

		needed[i] |= chosen[i];
		if (needed[i])
			needed[node->parent->ino - 1] = 1;
	}
	for (size_t i = 0; !err && i < count; i++) {
		const struct hct_node *node = hct_tree_node(x->tree, i);
		int made = 0;
		char *path;

		if (!needed[i] || node->kind != HCT_NODE_DIR)
			continue;
		path = hct_shown_path(node);
		err = path ? hct_output_directory(x->target, path, &made, &x->diag) : HCT_ERR_NOMEM;
		x->made[i] = (unsigned char)made;
		free(path);
	}
	free(needed);
	return err;
}

/* After a failure: removes the directories that were made for files that did not come. */
static void remove_empty_directories(struct extract *x)
{
	for (size_t i = hct_tree_count(x->tree); i-- > 0;) {
		const struct hct_node *node = hct_tree_node(x->tree, i);
		char *path;

		/* One that is empty in the bundle, too, is a result like the files. */
		if (!x->made[i] || (node->child_count == 0 && x->files > 0))
			continue;
		path = hct_shown_path(node);
		if (path)
			hct_output_remove_directory(x->target, path);
		free(path);
	}
}

/* Whether other files can still be extracted after this error. */
static int is_only_this_file(hct_error err)
{
	return hct_error_exit_code(err) == HCT_EXIT_BAD_DATA || err == HCT_ERR_CHANGED;
}

/* Extracts the chosen files; what is damaged is said and passed over. */
static int extract_files(struct extract *x, const unsigned char *chosen)
{
	int code = HCT_EXIT_OK;

	for (size_t i = 0; i < hct_tree_count(x->tree); i++) {
		const struct hct_node *node = hct_tree_node(x->tree, i);
		hct_error err = HCT_ERR_NOMEM;
		char *path;

		if (!is_to_write(node, chosen))
			continue;
		path = hct_shown_path(node);
		if (path)
			err = extract_file(x, node, path);
		if (err)
			code = hct_worse(code, hct_say_error(x->command, err, &x->diag));
		free(path);
		if (err && !is_only_this_file(err))
			break;
	}
	return code;
}

static uint64_t chosen_bytes(const struct hct_tree *tree, const unsigned char *chosen)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < hct_tree_count(tree); i++) {
		const struct hct_node *node = hct_tree_node(tree, i);

		if (is_to_write(node, chosen))
			bytes += node->size;
	}
	return bytes;
}

/* What was left out: the files do not show it. */
static void say_quality(const struct extract *x)
{
	const struct hct_layers_share *s = &x->share;
	const char *name = hct_layers_name(x->layers);
	char read[HCT_UNITS_MAX], stored[HCT_UNITS_MAX];

	if (s->cut)
		hct_say(x->command,
			"quality %s: %u of up to %u layers, %s of %s read; coarser than at full "
			"quality: %" PRIu64 " of %" PRIu64 " tensors",
			name, x->layers, s->most, hct_units_size(s->read_bytes, read),
			hct_units_size(s->stored_bytes, stored), s->cut, s->tensors);
	else
		hct_say(x->command,
			"quality %s: no tensor has more than %u layer%s, so this is full quality",
			name, x->layers, x->layers == 1 ? "" : "s");
}

static int extract(struct extract *x, const char *bundle, const unsigned char *chosen,
		   unsigned threads, int quiet)
{
	int code = hct_say_bad_files(x->command, x->tree, chosen);
	double start = hct_meter_now();
	char size[HCT_UNITS_MAX], time[HCT_UNITS_MAX];
	hct_error err = HCT_OK;

	x->path = "";
	if (is_same_directory(bundle, x->target))
		err = hct_fail(&x->diag, HCT_ERR_ARGUMENT,
			       "%s is the bundle; name another directory", x->target);
	if (!err)
		err = look_at_target(x, chosen);
	if (!err)
		err = hct_workers_create(threads, &x->workers);
	for (unsigned i = 0; !err && i < x->workers.count; i++)
		hct_decoder_set_layers(x->workers.each[i].decoder, x->layers);
	x->made = calloc(hct_tree_count(x->tree) + 1, 1);
	if (!err && !x->made)
		err = HCT_ERR_NOMEM;
	if (!err)
		err = make_directories(x, chosen);
	if (err) {
		code = hct_worse(code, hct_say_error(x->command, err, &x->diag));
	} else {
		hct_progress_start(&x->progress, x->command, chosen_bytes(x->tree, chosen), quiet);
		code = hct_worse(code, extract_files(x, chosen));
		hct_progress_end(&x->progress);
	}
	if (code != HCT_EXIT_OK && x->made)
		remove_empty_directories(x);
	if (!quiet && x->files > 0)
		hct_put("%s: %" PRIu64 " %s, %s in %s", x->target, x->files,
			x->files == 1 ? "file" : "files", hct_units_size(x->bytes, size),
			hct_units_duration(hct_meter_now() - start, time));
	if (!quiet && x->share.tensors > 0)
		say_quality(x);
	return code;
}

static int run(int argc, char **argv)
{
	struct extract x = {.command = &hct_extract_command, .fd = -1};
	struct hct_tree *tree = NULL;
	unsigned char *chosen = NULL;
	struct hct_options o;
	int code;
	hct_error err;

	code = hct_parse_options(x.command, argc, argv, "fjqQ", &o);
	if (code >= 0)
		return code;
	x.force = o.force;
	x.layers = o.layers;
	if (argc - optind < 2)
		return hct_usage(x.command,
				 optind == argc ? "name a bundle" : "name a directory to write to");
	err = hct_open_bundle(x.command, argv[optind], &tree);
	if (!err)
		err = hct_choose(x.command, tree, argv + optind + 2, argc - optind - 2, &chosen);
	code = hct_error_exit_code(err);
	if (!err) {
		hct_catch_signals();
		/* A reader of the messages that goes away must not leave half a file. */
		signal(SIGPIPE, SIG_IGN);
		x.tree = tree;
		x.target = argv[optind + 1];
		code = extract(&x, argv[optind], chosen, o.threads, o.quiet);
	}
	hct_workers_free(&x.workers);
	free(x.made);
	free(chosen);
	hct_tree_close(tree);
	return code;
}

const struct hct_command hct_extract_command = {
	.name = "extract", .summary = "write the source files again", .help = help, .run = run};
