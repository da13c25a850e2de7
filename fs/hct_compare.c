/* hct compare: how far the tensors of one model are from those of another. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hct_bundle.h"
#include "hct_cli.h"
#include "hct_differences.h"
#include "hct_side.h"
#include "hct_workers.h"
#include "ordered.h"

static const char help[] =
	"Usage: hct compare [-q] [-j N] [--json] A B\n"
	"Compares the tensors of B with those of A, the reference: relative squared error,\n"
	"cosine, PSNR, largest error, quality grade and stored bits a weight.  Tensors are\n"
	"matched by name over all files.\n"
	"\n"
	"  -j, --jobs N   threads; as many as there are CPUs by default\n"
	"  -q, --quiet    only the totals, no progress\n"
	"      --json     print JSON\n"
	"  -h, --help     this text\n"
	"\n"
	"A and B are each a directory, a bundle made by mkhct, or an .hct or .safetensors\n"
	"file.  Exit code 0 means that every tensor was compared, whatever its error; 1 that\n"
	"some are missing on one side, differ in shape, or cannot be read.\n";

/* Elements that are compared at a time where no chunk says better, and the most bytes of
 * them on one side. */
#define BLOCK_UNITS (256u * 1024)
#define BLOCK_BYTES (4u << 20)

/* Tensors on one side only that are listed; more are counted. */
#define MOST_MISSING 5

struct compare {
	const struct hct_command *command;
	struct hct_side a, b;
	const struct hct_side *stored; /* the side whose files are weighed */
	struct hct_pair *pairs;
	size_t count;
	uint64_t blocks;
	struct hct_workers workers;
	struct hct_progress progress;
	size_t current; /* the pair whose results are being taken */
	uint64_t not_compared;
	hct_error fatal;
};

/* Pairing --------------------------------------------------------------------------- */

static int same_shape(const struct hct_tensor *a, const struct hct_tensor *b)
{
	if (a->rank != b->rank)
		return 0;
	for (unsigned i = 0; i < a->rank; i++)
		if (a->shape[i] != b->shape[i])
			return 0;
	return 1;
}

/* Says why two tensors cannot be compared, or returns 1. */
static int is_comparable(struct compare *k, const struct hct_tensor *a, const struct hct_tensor *b)
{
	int same_dtype = strcmp(a->dtype_name, b->dtype_name) == 0;

	if (!same_shape(a, b)) {
		char *sa = hct_shape_text(a), *sb = hct_shape_text(b);

		hct_say(k->command, "'%s' has the shape %s in %s and %s in %s", a->name,
			sa ? sa : "?", k->a.path, sb ? sb : "?", k->b.path);
		free(sa);
		free(sb);
		return 0;
	}
	if (same_dtype ? hct_tensor_bytes(a) == hct_tensor_bytes(b)
		       : hct_dtype_is_numeric(a->dtype) && hct_dtype_is_numeric(b->dtype))
		return 1;
	hct_say(k->command, "'%s' is %s in %s and %s in %s, which cannot be compared", a->name,
		a->dtype_name, k->a.path, b->dtype_name, k->b.path);
	return 0;
}

/* Blocks follow the chunks of the compressed side, so that none is decoded twice.  They
 * depend on the files alone, and so do the sums. */
static uint64_t block_units(const struct hct_pair *p)
{
	struct hct_coding coding;
	uint64_t units = BLOCK_UNITS, most;
	size_t unit = p->unit_b > p->unit_a ? p->unit_b : p->unit_a;

	if (p->b->model->node->reader) {
		hct_entry_coding(p->b, &coding);
		units = coding.chunk_bytes / p->unit_b;
	} else if (p->a->model->node->reader) {
		hct_entry_coding(p->a, &coding);
		units = coding.chunk_bytes / p->unit_a;
	}
	most = BLOCK_BYTES / unit;
	if (units == 0 || units > most)
		return most;
	/* Many small chunks make one block. */
	return units < BLOCK_UNITS / 2 ? units * (BLOCK_UNITS / units) : units;
}

static void add_pair(struct compare *k, const struct hct_entry *a)
{
	const struct hct_entry *b = a->match;
	struct hct_pair *p = &k->pairs[k->count++];

	*p = (struct hct_pair){.a = a, .b = b, .stored = k->stored == &k->a ? a : b};
	p->by_value =
		hct_dtype_is_numeric(a->tensor->dtype) && hct_dtype_is_numeric(b->tensor->dtype);
	p->unit_a = p->by_value ? hct_dtype_unit(a->tensor->dtype) : 1;
	p->unit_b = p->by_value ? hct_dtype_unit(b->tensor->dtype) : 1;
	p->units = hct_tensor_bytes(a->tensor) / p->unit_a;
	p->block_units = block_units(p);
	p->first_block = k->blocks;
	k->blocks += p->units / p->block_units + (p->units % p->block_units != 0);
}

static void say_missing(struct compare *k, const struct hct_side *here,
			const struct hct_side *there)
{
	uint64_t count = 0;

	for (size_t i = 0; i < here->entry_count; i++) {
		const struct hct_entry *e = &here->entries[i];

		/* That a file does not open has been said, and is why they are missing. */
		if (!e->match && ++count <= MOST_MISSING && !there->incomplete)
			hct_say(k->command, "'%s' is only in %s, not in %s", e->tensor->name,
				here->path, there->path);
	}
	if (count > MOST_MISSING && !there->incomplete)
		hct_say(k->command, "... and %" PRIu64 " more", count - MOST_MISSING);
	k->not_compared += count;
}

static hct_error make_pairs(struct compare *k)
{
	hct_error err = hct_side_match(&k->a, &k->b);

	k->pairs = calloc(k->a.entry_count + 1, sizeof(*k->pairs));
	if (err || !k->pairs)
		return HCT_ERR_NOMEM;
	k->stored = k->a.bundle && !k->b.bundle ? &k->a : &k->b;
	for (size_t i = 0; i < k->a.entry_count; i++) {
		const struct hct_entry *a = &k->a.entries[i];

		if (!a->match)
			continue;
		if (is_comparable(k, a->tensor, a->match->tensor))
			add_pair(k, a);
		else
			k->not_compared++;
	}
	say_missing(k, &k->a, &k->b);
	say_missing(k, &k->b, &k->a);
	return HCT_OK;
}

/* Comparing ------------------------------------------------------------------------- */

struct result {
	size_t pair;
	uint64_t bytes; /* of A */
	struct hct_metrics metrics;
	int differ;
	hct_error err;
	struct hct_diag *diag;
};

/* The last pair whose first block is not behind this one: pairs without blocks share the
 * number of the next and come before it. */
static size_t find_pair(const struct compare *k, uint64_t block)
{
	size_t low = 0, high = k->count;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (k->pairs[middle].first_block <= block)
			low = middle;
		else
			high = middle;
	}
	return low;
}

static hct_error compare_units(const struct hct_pair *p, struct hct_worker *w, uint64_t first,
			       size_t units, struct result *r, struct hct_diag *diag)
{
	size_t length_a = units * p->unit_a, length_b = units * p->unit_b;
	void *a = hct_worker_buffer(w, 0, length_a), *b = hct_worker_buffer(w, 1, length_b);
	hct_error err;

	if (!a || !b)
		return HCT_ERR_NOMEM;
	err = hct_entry_read(p->a, w->decoder, first * p->unit_a, a, length_a, diag);
	if (!err)
		err = hct_entry_read(p->b, w->decoder, first * p->unit_b, b, length_b, diag);
	if (err)
		return err;
	r->differ = length_a != length_b || memcmp(a, b, length_a) != 0;
	if (p->by_value)
		hct_metrics_add_typed(&r->metrics, p->a->tensor->dtype, a, p->b->tensor->dtype, b,
				      units);
	return HCT_OK;
}

static void compare_block(void *arg, uint64_t item, void *result, unsigned worker)
{
	struct compare *k = arg;
	struct result *r = result;
	struct hct_diag diag = {{0}};
	const struct hct_pair *p;
	uint64_t first, units;

	r->pair = find_pair(k, item);
	p = &k->pairs[r->pair];
	first = (item - p->first_block) * p->block_units;
	units = p->units - first < p->block_units ? p->units - first : p->block_units;
	r->bytes = units * p->unit_a;
	r->err = compare_units(p, &k->workers.each[worker], first, (size_t)units, r, &diag);
	if (r->err && (r->diag = malloc(sizeof(diag))))
		*r->diag = diag;
}

static int take_block(void *arg, uint64_t item, void *result, int stop)
{
	struct compare *k = arg;
	struct result *r = result;
	struct hct_pair *p = &k->pairs[r->pair];

	(void)item;
	k->current = r->pair;
	if (r->err == HCT_ERR_NOMEM) {
		k->fatal = r->err;
	} else if (r->err && !p->err && !stop) {
		p->err = r->err;
		k->not_compared++;
		hct_say(k->command, "'%s' cannot be read: %s", p->a->tensor->name,
			r->diag ? r->diag->text : hct_error_string(r->err));
	}
	hct_metrics_merge(&p->metrics, &r->metrics);
	p->differ |= r->differ;
	hct_meter_add(&k->progress.meter, r->bytes);
	free(r->diag);
	return k->fatal != HCT_OK;
}

static int tick(void *arg)
{
	struct compare *k = arg;

	hct_progress_show(&k->progress, k->count ? k->pairs[k->current].a->tensor->name : "");
	return hct_interrupted();
}

static hct_error compare_pairs(struct compare *k, int quiet)
{
	struct hct_ordered run = {.work = compare_block,
				  .take = take_block,
				  .tick = tick,
				  .arg = k,
				  .result_size = sizeof(struct result)};
	uint64_t bytes = 0;
	hct_error err;

	for (size_t i = 0; i < k->count; i++)
		bytes += hct_tensor_bytes(k->pairs[i].a->tensor);
	hct_progress_start(&k->progress, k->command, bytes, quiet);
	err = hct_ordered_run(&run, k->workers.pool, k->blocks);
	hct_progress_end(&k->progress);
	if (!err)
		err = k->fatal;
	return !err && hct_interrupted() ? HCT_ERR_INTERRUPTED : err;
}

static int compare(const char *path_a, const char *path_b, unsigned threads, int quiet, int json)
{
	struct compare k = {.command = &hct_compare_command};
	struct hct_differences found;
	int code = HCT_EXIT_OK;
	hct_error err, said;

	hct_catch_signals();
	err = said = hct_side_open(k.command, path_a, &k.a);
	if (!err)
		err = said = hct_side_open(k.command, path_b, &k.b);
	if (!err)
		err = make_pairs(&k);
	if (!err)
		err = hct_workers_create(threads, &k.workers);
	if (!err)
		err = compare_pairs(&k, quiet);
	if (!err) {
		if (k.not_compared || k.a.incomplete || k.b.incomplete)
			code = HCT_EXIT_BAD_DATA;
		found = (struct hct_differences){.pairs = k.pairs,
						 .count = k.count,
						 .not_compared = k.not_compared,
						 .files = hct_side_tally(k.stored)};
		found.files.source_bytes = hct_side_tally(&k.a).source_bytes;
		err = json ? hct_differences_print_json(&found)
			   : hct_differences_print(&found, quiet);
	}
	if (err)
		code = said ? hct_error_exit_code(err) : hct_say_error(k.command, err, NULL);
	hct_workers_free(&k.workers);
	free(k.pairs);
	hct_side_close(&k.a);
	hct_side_close(&k.b);
	return code;
}

static int run(int argc, char **argv)
{
	const struct hct_command *c = &hct_compare_command;
	struct hct_options o;
	int code;

	code = hct_parse_options(c, argc, argv, "jqJ", &o);
	if (code >= 0)
		return code;
	if (argc - optind != 2)
		return hct_usage(c, "two models are needed, A and B");
	return compare(argv[optind], argv[optind + 1], o.threads, o.quiet, o.json);
}

const struct hct_command hct_compare_command = {
	.name = "compare", .summary = "how far two models differ", .help = help, .run = run};
