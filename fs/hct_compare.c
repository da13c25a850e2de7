/* hct compare: how far the tensors of one model are from those of another. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/metrics.h"
#include "codec/units.h"
#include "hct_bundle.h"
#include "hct_cli.h"
#include "hct_json.h"
#include "hct_side.h"
#include "hct_workers.h"
#include "ordered.h"
#include "table.h"

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

/* Two tensors of one name. */
struct pair {
	const struct hct_entry *a, *b;
	const struct hct_entry *stored; /* the one whose stored bytes count */
	int by_value;                   /* as numbers, otherwise as bytes */
	size_t unit_a, unit_b;          /* bytes of an element, or 1 */
	uint64_t units, block_units;
	uint64_t first_block; /* among all pairs */
	struct hct_metrics metrics;
	int differ; /* in a bit */
	hct_error err;
};

struct compare {
	const struct hct_command *command;
	struct hct_side a, b;
	const struct hct_side *stored; /* the side whose files are weighed */
	struct pair *pairs;
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
static uint64_t block_units(const struct pair *p)
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
	struct pair *p = &k->pairs[k->count++];

	*p = (struct pair){.a = a, .b = b, .stored = k->stored == &k->a ? a : b};
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

static hct_error compare_units(const struct pair *p, struct hct_worker *w, uint64_t first,
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
	const struct pair *p;
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
	struct pair *p = &k->pairs[r->pair];

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

/* Results --------------------------------------------------------------------------- */

/* What is reported about one pair, or about all. */
struct figures {
	double error, cosine, psnr, max_error;
	const char *grade;
};

static int is_identical(const struct pair *p)
{
	return !p->differ && strcmp(p->a->tensor->dtype_name, p->b->tensor->dtype_name) == 0;
}

static struct figures pair_figures(const struct pair *p)
{
	if (is_identical(p))
		return (struct figures){0, 1, INFINITY, 0, "Excellent"};
	if (!p->by_value)
		return (struct figures){INFINITY, NAN, NAN, NAN, "Poor"};
	return (struct figures){hct_metrics_relative_squared_error(&p->metrics),
				hct_metrics_cosine(&p->metrics), hct_metrics_psnr_db(&p->metrics),
				p->metrics.max_abs_error, hct_metrics_grade(&p->metrics)};
}

static struct hct_tally pair_tally(const struct pair *p)
{
	struct hct_coding coding;

	hct_entry_coding(p->stored, &coding);
	return (struct hct_tally){.count = 1,
				  .elements = p->a->tensor->elements,
				  .source_bytes = hct_tensor_bytes(p->a->tensor),
				  .stored_bytes = coding.stored_bytes};
}

struct summary {
	uint64_t count;         /* tensors that were compared */
	struct hct_tally files; /* whole, with all of their tensors */
	struct hct_metrics metrics;
	uint64_t identical, same_value;
	uint64_t grades[5];       /* of those that differ in value */
	const struct pair *worst; /* NULL when all are equal in value */
};

static const char *const grade_names[5] = {"Excellent", "Good", "Acceptable", "Degraded", "Poor"};

static void add_to_summary(struct summary *s, const struct pair *p)
{
	struct figures f = pair_figures(p);

	s->count++;
	hct_metrics_merge(&s->metrics, &p->metrics);
	/* Bytes that differ and are no numbers leave the total without a finite error. */
	if (p->differ && !p->by_value)
		s->metrics.nonfinite_differ++;
	if (is_identical(p)) {
		s->identical++;
		return;
	}
	if (f.error == 0) {
		s->same_value++;
		return;
	}
	for (size_t i = 0; i < 5; i++)
		s->grades[i] += strcmp(f.grade, grade_names[i]) == 0;
	if (!s->worst || f.error > pair_figures(s->worst).error)
		s->worst = p;
}

static void summarize(const struct compare *k, struct summary *s)
{
	struct hct_tally a = hct_side_tally(&k->a);

	memset(s, 0, sizeof(*s));
	for (size_t i = 0; i < k->count; i++)
		if (!k->pairs[i].err)
			add_to_summary(s, &k->pairs[i]);
	s->files = hct_side_tally(k->stored);
	s->files.source_bytes = a.source_bytes;
}

static void json_pair(cJSON *list, const struct pair *p)
{
	const struct hct_tensor *tensor = p->a->tensor;
	struct hct_tally tally = pair_tally(p);
	struct figures f = pair_figures(p);
	cJSON *item = hct_json_object(list, NULL);
	struct hct_coding coding;

	hct_entry_coding(p->stored, &coding);
	hct_json_text(item, "name", tensor->name);
	hct_json_text(item, "dtype", tensor->dtype_name);
	hct_json_u64_array(item, "shape", tensor->shape, tensor->rank);
	hct_json_u64(item, "elements", tally.elements);
	hct_json_u64(item, "source_bytes", tally.source_bytes);
	hct_json_u64(item, "stored_bytes", tally.stored_bytes);
	hct_json_number(item, "bits_per_weight", hct_tally_bits(&tally));
	hct_json_text(item, "codec", coding.codec);
	hct_json_number(item, "relative_squared_error", f.error);
	hct_json_number(item, "cosine", f.cosine);
	hct_json_number(item, "psnr_db", f.psnr);
	hct_json_number(item, "max_abs_error", f.max_error);
	hct_json_text(item, "grade", f.grade);
}

static hct_error print_json(const struct compare *k, const struct summary *s)
{
	static const char *const total_keys[] = {"elements",
						 "source_bytes",
						 "stored_bytes",
						 "bits_per_weight",
						 "relative_squared_error",
						 "cosine",
						 "ratio"};
	cJSON *top = hct_json_object(NULL, NULL), *list = hct_json_array(top, "tensors"), *total;

	for (size_t i = 0; i < k->count; i++)
		if (!k->pairs[i].err)
			json_pair(list, &k->pairs[i]);
	total = hct_json_object(top, "total");
	if (s->count == 0) {
		for (size_t i = 0; i < sizeof(total_keys) / sizeof(total_keys[0]); i++)
			hct_json_number(total, total_keys[i], NAN);
		return hct_json_print(top);
	}
	hct_json_u64(total, total_keys[0], s->files.elements);
	hct_json_u64(total, total_keys[1], s->files.source_bytes);
	hct_json_u64(total, total_keys[2], s->files.stored_bytes);
	hct_json_number(total, total_keys[3], hct_tally_bits(&s->files));
	hct_json_number(total, total_keys[4], hct_metrics_relative_squared_error(&s->metrics));
	hct_json_number(total, total_keys[5], hct_metrics_cosine(&s->metrics));
	hct_json_number(total, total_keys[6], hct_tally_ratio(&s->files));
	return hct_json_print(top);
}

static void table_pair(struct hct_table *t, const struct pair *p)
{
	const char *dtype_a = p->a->tensor->dtype_name, *dtype_b = p->b->tensor->dtype_name;
	struct hct_tally tally = pair_tally(p);
	struct figures f = pair_figures(p);

	if (is_identical(p)) {
		hct_table_cell(t, "same");
		for (int i = 0; i < 4; i++)
			hct_table_cell(t, "%s", "");
	} else if (!p->by_value) {
		hct_table_cell(t, "differ");
		for (int i = 0; i < 3; i++)
			hct_table_cell(t, "%s", "");
		hct_table_cell(t, "%s", f.grade);
	} else {
		hct_table_cell(t, "%.2e", f.error);
		hct_table_cell(t, "%.5f", f.cosine);
		hct_table_cell(t, "%.1f", f.psnr);
		hct_table_cell(t, "%.1e", f.max_error);
		hct_table_cell(t, "%s", f.grade);
	}
	if (tally.elements)
		hct_table_cell(t, "%.2f", hct_tally_bits(&tally));
	else
		hct_table_cell(t, "%s", "");
	if (strcmp(dtype_a, dtype_b) == 0)
		hct_table_cell(t, "%s", p->a->tensor->name);
	else
		hct_table_cell(t, "%s (%s, %s)", p->a->tensor->name, dtype_a, dtype_b);
}

static hct_error print_table(const struct compare *k)
{
	static const char *const words[] = {"ERROR", "COSINE", "PSNR",  "MAX ERR",
					    "GRADE", "BITS",   "TENSOR"};
	struct hct_table *t = hct_table_create("rrrrlrl");
	hct_error err;

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		hct_table_cell(t, "%s", words[i]);
	for (size_t i = 0; i < k->count; i++)
		if (!k->pairs[i].err)
			table_pair(t, &k->pairs[i]);
	hct_table_line(t, "%s", "");
	err = hct_table_print(t, stdout);
	hct_table_free(t);
	return err;
}

/* "61 tensors: 58 bit-identical, 3 differ (2 Excellent, 1 Good)" */
static void put_verdict(const struct compare *k, const struct summary *s)
{
	uint64_t count = s->count;
	const struct {
		uint64_t count;
		const char *what;
	} parts[] = {{s->identical, "bit-identical"},
		     {s->same_value, "equal in value only"},
		     {count - s->identical - s->same_value, "differ"}};
	const char *noun = count == 1 ? "tensor" : "tensors";
	char text[400] = "", grades[160] = "", more[64] = "";
	size_t used = 0;

	if (k->not_compared)
		snprintf(more, sizeof(more), "; %" PRIu64 " not compared", k->not_compared);
	if (count == 0) {
		hct_put("no tensor was compared%s", more);
		return;
	}
	if (s->identical == count) {
		hct_put("%" PRIu64 " %s, all bit-identical%s", count, noun, more);
		return;
	}
	for (size_t i = 0; i < 3; i++) {
		if (parts[i].count)
			used += (size_t)snprintf(text + used, sizeof(text) - used,
						 "%s%" PRIu64 " %s", used ? ", " : "",
						 parts[i].count, parts[i].what);
	}
	used = 0;
	for (size_t i = 0; i < 5; i++)
		if (s->grades[i])
			used += (size_t)snprintf(grades + used, sizeof(grades) - used,
						 "%s%" PRIu64 " %s", used ? ", " : "", s->grades[i],
						 grade_names[i]);
	hct_put("%" PRIu64 " %s: %s%s%s%s%s", count, noun, text, used ? " (" : "", grades,
		used ? ")" : "", more);
}

static void put_summary(const struct compare *k, const struct summary *s)
{
	char source[HCT_UNITS_MAX], stored[HCT_UNITS_MAX];

	if (s->worst) {
		struct figures f = pair_figures(s->worst);

		hct_put("worst  error %.3g, cosine %.6g, %s: %s", f.error, f.cosine, f.grade,
			s->worst->a->tensor->name);
	}
	if (s->count == 0) {
		put_verdict(k, s);
		return;
	}
	hct_put("total  error %.3g, cosine %.6g", hct_metrics_relative_squared_error(&s->metrics),
		hct_metrics_cosine(&s->metrics));
	hct_put("size   %s as %s, ratio %.4f, %.3f bits a weight",
		hct_units_size(s->files.source_bytes, source),
		hct_units_size(s->files.stored_bytes, stored), hct_tally_ratio(&s->files),
		hct_tally_bits(&s->files));
	put_verdict(k, s);
}

static int compare(const char *path_a, const char *path_b, unsigned threads, int quiet, int json)
{
	struct compare k = {.command = &hct_compare_command};
	struct summary s;
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
		summarize(&k, &s);
		if (json)
			err = print_json(&k, &s);
		else if (!quiet && s.count > 0)
			err = print_table(&k);
		if (!err && !json)
			put_summary(&k, &s);
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
