/* hct check: verifies every checksum and every decoded digest of a bundle. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/checksum.h"
#include "codec/units.h"
#include "hct_bundle.h"
#include "hct_cli.h"
#include "hct_json.h"
#include "hct_report.h"
#include "hct_workers.h"
#include "ordered.h"

static const char help[] =
	"Usage: hct check [-q] [-j N] [--json] BUNDLE\n"
	"Verifies every checksum of a bundle and the digest of every decoded chunk, and that\n"
	"every file is there that mkhct wrote.  Lists all that is bad, one line each.  Exit\n"
	"code 0 means that nothing is.\n"
	"\n"
	"  -j, --jobs N   threads; as many as there are CPUs by default\n"
	"  -q, --quiet    print only what is bad, no progress\n"
	"      --json     print JSON\n"
	"  -h, --help     this text\n"
	"\n"
	"BUNDLE is a directory made by mkhct or one .hct file.\n";

/* Bytes of a carried file read at a time. */
#define READ_BYTES (1u << 20)

/* Notes about files that mkhct did not write; more are counted. */
#define MOST_NOTES 5

struct check {
	const struct hct_tree *tree;
	const struct hct_node **models; /* those that open, by first_chunk */
	size_t model_count;
	struct hct_workers workers;
	struct hct_progress progress;
	struct hct_report report;
	const struct hct_listed **listed; /* for each node of the tree what the report says */
	cJSON *bad_list, *notes;          /* with --json */
	int quiet;
	uint64_t chunks, tensors, bad;
	int damaged;     /* something is bad that is not the system's refusal */
	hct_error fatal; /* not about the data: check gave up */
	char *path;      /* of the file whose chunks are being taken */
	size_t path_model;
};

struct result {
	hct_error err;
	struct hct_diag *diag; /* NULL without error, or without memory */
	size_t model;          /* index into check->models */
	struct hct_chunk chunk;
	uint64_t number; /* of the chunk within its tensor */
};

/* Lists one thing that is bad.  tensor NULL: the whole file. */
static void report(struct check *k, const char *file, const struct hct_tensor *tensor,
		   const struct result *r, const char *message)
{
	cJSON *item;

	k->bad++;
	/* A file that is not there is no whim of the system: it was, or is listed. */
	if (hct_error_exit_code(r->err) != HCT_EXIT_SYSTEM || r->err == HCT_ERR_NOT_FOUND)
		k->damaged = 1;
	if (!k->bad_list) {
		hct_put("%s", message);
		return;
	}
	item = hct_json_object(k->bad_list, NULL);
	hct_json_text(item, "file", file);
	if (tensor) {
		hct_json_text(item, "tensor", tensor->name);
		hct_json_u64(item, "chunk", r->number);
	}
	hct_json_text(item, "error", hct_error_string(r->err));
	hct_json_text(item, "message", message);
}

/* Lists a file that is bad as a whole. */
static void report_file(struct check *k, const char *file, hct_error err, const char *message)
{
	struct result r = {.err = err};

	report(k, file, NULL, &r, message);
}

/* Mentions what is odd but not bad. */
__attribute__((format(printf, 2, 3))) static void note(struct check *k, const char *format, ...)
{
	struct hct_diag line = {{0}};
	va_list args;

	va_start(args, format);
	vsnprintf(line.text, sizeof(line.text), format, args);
	va_end(args);
	if (k->notes)
		hct_json_item(k->notes, line.text);
	else if (!k->quiet)
		hct_say(&hct_check_command, "note: %s", line.text);
}

static size_t find_model(const struct check *k, uint64_t number)
{
	size_t low = 0, high = k->model_count;

	/* The last model whose first chunk is not behind this one; models without chunks
	 * share the number of the next and come before it. */
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (k->models[middle]->first_chunk <= number)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* Decodes a chunk as every reader may, also those that stop after one of its layers. */
static hct_error decode_layers(const hct_reader *reader, hct_decoder *d, const struct hct_chunk *c,
			       void *buffer, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	for (unsigned l = 1; l <= c->layers && !err; l++) {
		hct_decoder_set_layers(d, l);
		err = hct_reader_decode_verified(reader, d, c->number, buffer, diag);
	}
	return err;
}

static void check_chunk(void *arg, uint64_t item, void *result, unsigned worker)
{
	struct check *k = arg;
	struct result *r = result;
	struct hct_worker *w = &k->workers.each[worker];
	const struct hct_node *node;
	struct hct_diag diag = {{0}};
	void *buffer;

	r->model = find_model(k, item);
	node = k->models[r->model];
	hct_reader_chunk(node->reader, item - node->first_chunk, &r->chunk);
	buffer = hct_worker_buffer(w, 0, r->chunk.length);
	r->err = buffer ? decode_layers(node->reader, w->decoder, &r->chunk, buffer, &diag)
			: HCT_ERR_NOMEM;
	if (r->err && (r->diag = malloc(sizeof(diag))))
		*r->diag = diag;
	hct_meter_add(&k->progress.meter, r->chunk.length);
}

/* Keeps the path of the file at work at hand: finding it for every chunk would cost. */
static const char *model_path(struct check *k, size_t model)
{
	if (!k->path || k->path_model != model) {
		free(k->path);
		k->path = hct_shown_path(k->models[model]);
		k->path_model = model;
	}
	return k->path ? k->path : "?";
}

static int take_chunk(void *arg, uint64_t item, void *result, int stop)
{
	struct check *k = arg;
	struct result *r = result;
	int fatal = r->err == HCT_ERR_NOMEM;

	(void)item;
	if (fatal) {
		k->fatal = r->err;
	} else if (!stop) {
		const char *path = model_path(k, r->model);
		const hct_reader *reader = k->models[r->model]->reader;
		struct hct_coding coding;

		k->chunks++;
		if (r->err) {
			hct_reader_coding(reader, r->chunk.tensor, &coding);
			r->number = r->chunk.number - coding.first_chunk;
			report(k, path, &hct_reader_safetensors(reader)->tensors[r->chunk.tensor],
			       r, r->diag ? r->diag->text : hct_error_string(r->err));
		}
	}
	free(r->diag);
	return fatal;
}

static int tick(void *arg)
{
	struct check *k = arg;

	hct_progress_show(&k->progress, k->path ? k->path : "");
	return hct_interrupted();
}

static hct_error check_chunks(struct check *k)
{
	struct hct_ordered run = {.work = check_chunk,
				  .take = take_chunk,
				  .tick = tick,
				  .arg = k,
				  .result_size = sizeof(struct result)};
	hct_error err = hct_ordered_run(&run, k->workers.pool, hct_tree_chunk_count(k->tree));

	return err ? err : k->fatal;
}

/* Reads a carried file as a whole, and computes its checksum. */
static hct_error read_plain(struct check *k, const struct hct_node *node, const char *path,
			    uint64_t *checksum, struct hct_diag *diag)
{
	void *buffer = hct_worker_buffer(&k->workers.each[0], 0, READ_BYTES);
	struct hct_checksum_state *state;
	hct_error err = HCT_OK;
	uint64_t done = 0;
	int fd;

	if (!buffer)
		return HCT_ERR_NOMEM;
	fd = open(node->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return hct_fail_errno(diag, errno, "%s", path);
	state = hct_checksum_begin();
	if (!state)
		err = HCT_ERR_NOMEM;
	while (!err && done < node->size && !hct_interrupted()) {
		uint64_t left = node->size - done;
		size_t length = left < READ_BYTES ? (size_t)left : READ_BYTES;

		hct_progress_show(&k->progress, path);
		err = hct_node_pread(node, NULL, fd, done, buffer, length, diag);
		if (!err)
			hct_checksum_add(state, buffer, length);
		done += length;
		hct_meter_add(&k->progress.meter, length);
	}
	*checksum = hct_checksum_end(state);
	close(fd);
	return err;
}

/* A carried file must be readable, and what mkhct wrote. */
static hct_error check_plain_file(struct check *k, const struct hct_node *node, const char *path,
				  struct hct_diag *diag)
{
	const struct hct_listed *listed = k->listed[node->ino - 1];
	uint64_t checksum = 0;
	hct_error err = read_plain(k, node, path, &checksum, diag);

	/* Another size has been reported already. */
	if (err || hct_interrupted() || !listed || !listed->has_checksum ||
	    listed->stored_bytes != node->size || listed->checksum == checksum)
		return err;
	return hct_fail(diag, HCT_ERR_CHECKSUM,
			"%s: not as mkhct wrote it: expected checksum %016" PRIx64
			", found %016" PRIx64,
			path, listed->checksum, checksum);
}

static hct_error check_plain(struct check *k)
{
	for (size_t i = 0; i < hct_tree_count(k->tree) && !hct_interrupted(); i++) {
		const struct hct_node *node = hct_tree_node(k->tree, i);
		struct hct_diag diag = {{0}};
		hct_error err = HCT_ERR_NOMEM;
		char *path;

		if (node->kind != HCT_NODE_PLAIN)
			continue;
		path = hct_shown_path(node);
		if (path)
			err = check_plain_file(k, node, path, &diag);
		if (err && err != HCT_ERR_NOMEM)
			report_file(k, path, err, diag.text);
		free(path);
		if (err == HCT_ERR_NOMEM)
			return err;
	}
	return HCT_OK;
}

/* Compares what one entry of the report says with what is in the tree. */
static void check_listed(struct check *k, const struct hct_listed *listed)
{
	const char *suffix = listed->kind == HCT_NODE_MODEL ? ".hct" : "";
	const struct hct_node *node = hct_find_node(k->tree, listed->name);
	struct hct_diag diag;

	if (!node || node->kind != listed->kind) {
		hct_fail(&diag, HCT_ERR_NOT_FOUND, "%s%s: missing, mkhct wrote it", listed->name,
			 suffix);
		report_file(k, listed->name, HCT_ERR_NOT_FOUND, diag.text);
		return;
	}
	k->listed[node->ino - 1] = listed;
	/* One that does not open is listed anyway. */
	if ((node->kind == HCT_NODE_PLAIN || node->reader) &&
	    node->stored_bytes != listed->stored_bytes) {
		hct_fail(&diag, HCT_ERR_CORRUPT,
			 "%s%s: not as mkhct wrote it: expected %" PRIu64 " bytes, found %" PRIu64,
			 listed->name, suffix, listed->stored_bytes, node->stored_bytes);
		report_file(k, listed->name, HCT_ERR_CORRUPT, diag.text);
	}
}

static void note_unlisted(struct check *k)
{
	uint64_t count = 0;

	for (size_t i = 0; i < hct_tree_count(k->tree); i++) {
		const struct hct_node *node = hct_tree_node(k->tree, i);
		char *path;

		if (node->kind == HCT_NODE_DIR || k->listed[i] || count++ >= MOST_NOTES)
			continue;
		path = hct_shown_path(node);
		note(k, "%s: not written by mkhct", path ? path : "?");
		free(path);
	}
	if (count > MOST_NOTES)
		note(k, "%" PRIu64 " more files not written by mkhct", count - MOST_NOTES);
}

/* Whether all is there that mkhct wrote. */
static hct_error check_report(struct check *k, const char *path)
{
	struct hct_diag diag = {{0}};
	struct stat st;
	hct_error err;

	k->listed = calloc(hct_tree_count(k->tree) + 1, sizeof(*k->listed));
	if (!k->listed)
		return HCT_ERR_NOMEM;
	if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
		return HCT_OK; /* one file, without its bundle */
	err = hct_report_read(path, &k->report, &diag);
	if (err == HCT_ERR_NOT_FOUND) {
		note(k, "%s: no report of mkhct in it, so files may be missing or altered", path);
		return HCT_OK;
	}
	if (err == HCT_ERR_NOMEM)
		return err;
	if (err) {
		report_file(k, ".hct/report.json", err, diag.text);
		return HCT_OK;
	}
	for (size_t i = 0; i < k->report.count; i++)
		check_listed(k, &k->report.files[i]);
	note_unlisted(k);
	return HCT_OK;
}

/* Collects the model files, lists those that do not open, and sums up the work. */
static hct_error prepare(struct check *k, uint64_t *bytes)
{
	size_t count = hct_tree_count(k->tree);

	*bytes = 0;
	k->models = calloc(count + 1, sizeof(*k->models));
	if (!k->models)
		return HCT_ERR_NOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct hct_node *node = hct_tree_node(k->tree, i);

		if (node->kind == HCT_NODE_MODEL && node->reader) {
			k->models[k->model_count++] = node;
			k->tensors += hct_reader_safetensors(node->reader)->count;
			*bytes += node->size;
		} else if (node->kind == HCT_NODE_MODEL) {
			char *path = hct_shown_path(node);

			report_file(k, path ? path : "?", node->error,
				    node->diag ? node->diag->text : hct_error_string(node->error));
			free(path);
		} else if (node->kind == HCT_NODE_PLAIN) {
			*bytes += node->size;
		}
	}
	return HCT_OK;
}

static hct_error check_all(struct check *k, const char *path, unsigned threads)
{
	uint64_t bytes;
	hct_error err = prepare(k, &bytes);

	if (!err)
		err = check_report(k, path);
	if (!err)
		err = hct_workers_create(threads, &k->workers);
	if (err)
		return err;
	hct_progress_start(&k->progress, &hct_check_command, bytes, k->quiet);
	err = check_chunks(k);
	if (!err && !hct_interrupted())
		err = check_plain(k);
	hct_progress_end(&k->progress);
	return err ? err : hct_interrupted() ? HCT_ERR_INTERRUPTED : HCT_OK;
}

static const char *plural(uint64_t count)
{
	return count == 1 ? "" : "s";
}

static hct_error summary(struct check *k, const char *path, cJSON *json)
{
	uint64_t files = k->model_count, bytes = atomic_load(&k->progress.meter.done);
	char size[HCT_UNITS_MAX];

	if (json) {
		hct_json_u64(json, "files", files);
		hct_json_u64(json, "tensors", k->tensors);
		hct_json_u64(json, "chunks", k->chunks);
		hct_json_u64(json, "bytes", bytes);
		hct_json_bool(json, "ok", k->bad == 0);
		return hct_json_print(json);
	}
	if (k->quiet)
		return HCT_OK;
	hct_units_size(bytes, size);
	if (k->bad)
		hct_put("%s: %" PRIu64 " bad, listed above (%" PRIu64 " chunk%s checked, %s)", path,
			k->bad, k->chunks, plural(k->chunks), size);
	else
		hct_put("%s: all good: %" PRIu64 " model file%s, %" PRIu64 " tensor%s, %" PRIu64
			" chunk%s, %s",
			path, files, plural(files), k->tensors, plural(k->tensors), k->chunks,
			plural(k->chunks), size);
	return HCT_OK;
}

static int check(const char *path, unsigned threads, int quiet, int json)
{
	const struct hct_command *c = &hct_check_command;
	struct check k = {.quiet = quiet};
	struct hct_tree *tree = NULL;
	cJSON *top = NULL;
	hct_error err = hct_open_bundle(c, path, &tree);
	int code;

	if (err)
		return hct_error_exit_code(err);
	k.tree = tree;
	if (json) {
		top = hct_json_object(NULL, NULL);
		hct_json_text(top, "bundle", path);
		k.bad_list = hct_json_array(top, "bad");
		k.notes = hct_json_array(top, "notes");
	}
	hct_catch_signals();
	err = check_all(&k, path, threads);
	if (err) {
		code = hct_say_error(c, err, NULL);
	} else {
		code = k.damaged ? HCT_EXIT_BAD_DATA : k.bad ? HCT_EXIT_SYSTEM : HCT_EXIT_OK;
		err = summary(&k, path, top);
		top = NULL;
		if (err)
			code = hct_say_error(c, err, NULL);
	}
	cJSON_Delete(top);
	hct_workers_free(&k.workers);
	hct_report_free(&k.report);
	free(k.listed);
	free(k.models);
	free(k.path);
	hct_tree_close(tree);
	return code;
}

static int run(int argc, char **argv)
{
	const struct hct_command *c = &hct_check_command;
	struct hct_options o;
	int code;

	code = hct_parse_options(c, argc, argv, "jqJ", &o);
	if (code >= 0)
		return code;
	if (argc - optind != 1)
		return hct_usage(c, optind == argc ? "name a bundle" : "one bundle at a time");
	return check(argv[optind], o.threads, o.quiet, o.json);
}

const struct hct_command hct_check_command = {
	.name = "check", .summary = "verify every checksum and digest", .help = help, .run = run};
