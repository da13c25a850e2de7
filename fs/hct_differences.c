#include "hct_differences.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codec/units.h"
#include "hct_cli.h"
#include "hct_json.h"
#include "table.h"

/* What is reported about one pair, or about all. */
struct figures {
	double error, cosine, psnr, max_error;
	const char *grade;
};

static int is_identical(const struct hct_pair *p)
{
	return !p->differ && strcmp(p->a->tensor->dtype_name, p->b->tensor->dtype_name) == 0;
}

static struct figures pair_figures(const struct hct_pair *p)
{
	if (is_identical(p))
		return (struct figures){0, 1, INFINITY, 0, "Excellent"};
	if (!p->by_value)
		return (struct figures){INFINITY, NAN, NAN, NAN, "Poor"};
	return (struct figures){hct_metrics_relative_squared_error(&p->metrics),
				hct_metrics_cosine(&p->metrics), hct_metrics_psnr_db(&p->metrics),
				p->metrics.max_abs_error, hct_metrics_grade(&p->metrics)};
}

static struct hct_tally pair_tally(const struct hct_pair *p)
{
	struct hct_coding coding;

	hct_entry_coding(p->stored, &coding);
	return (struct hct_tally){.count = 1,
				  .elements = p->a->tensor->elements,
				  .source_bytes = hct_tensor_bytes(p->a->tensor),
				  .stored_bytes = coding.stored_bytes};
}

struct summary {
	uint64_t count;             /* tensors that were compared */
	struct hct_metrics metrics; /* of all as if they were one */
	uint64_t identical, same_value;
	/* Those that differ in value.  Means are over them by their elements, as mkhct has them of
	 * those with loss: neither equal tensors nor those of a large scale hide the others. */
	uint64_t differ, elements;
	double errors, cosines; /* of each, times its elements */
	uint64_t grades[5];
	const struct hct_pair *worst; /* by error; NULL when all are equal in value */
};

static const char *const grade_names[5] = {"Excellent", "Good", "Acceptable", "Degraded", "Poor"};

static void add_to_summary(struct summary *s, const struct hct_pair *p)
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
	s->differ++;
	s->elements += p->a->tensor->elements;
	s->errors += f.error * (double)p->a->tensor->elements;
	/* Without a finite error the angle between what can be compared says nothing. */
	s->cosines += isfinite(f.error) ? f.cosine * (double)p->a->tensor->elements : NAN;
	for (size_t i = 0; i < 5; i++)
		s->grades[i] += strcmp(f.grade, grade_names[i]) == 0;
	if (!s->worst || f.error > pair_figures(s->worst).error)
		s->worst = p;
}

static void summarize(const struct hct_differences *d, struct summary *s)
{
	memset(s, 0, sizeof(*s));
	for (size_t i = 0; i < d->count; i++)
		if (!d->pairs[i].err)
			add_to_summary(s, &d->pairs[i]);
}

/* Of the tensors that differ. */
static struct figures mean_figures(const struct summary *s)
{
	struct figures f = {0, 1, INFINITY, 0, "Excellent"};

	if (!s->differ)
		return f;
	f.error = s->errors / (double)s->elements;
	f.cosine = s->cosines / (double)s->elements;
	f.grade = isnan(f.cosine) ? "Poor" : hct_metrics_grade_of_cosine(f.cosine);
	return f;
}

static void json_pair(cJSON *list, const struct hct_pair *p)
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

static void json_differ(cJSON *top, const struct summary *s)
{
	struct figures f = mean_figures(s);
	cJSON *differ = hct_json_object(top, "differ"), *worst;

	hct_json_u64(differ, "tensors", s->differ);
	hct_json_u64(differ, "elements", s->elements);
	hct_json_number(differ, "relative_squared_error", s->count ? f.error : NAN);
	hct_json_number(differ, "cosine", s->count ? f.cosine : NAN);
	if (s->count)
		hct_json_text(differ, "grade", f.grade);
	else
		hct_json_number(differ, "grade", NAN);
	if (!s->worst)
		return;
	f = pair_figures(s->worst);
	worst = hct_json_object(differ, "worst");
	hct_json_text(worst, "tensor", s->worst->a->tensor->name);
	hct_json_number(worst, "relative_squared_error", f.error);
	hct_json_number(worst, "cosine", f.cosine);
	hct_json_text(worst, "grade", f.grade);
}

static void json_total(cJSON *top, const struct hct_differences *d, const struct summary *s)
{
	static const char *const keys[] = {"elements",
					   "source_bytes",
					   "stored_bytes",
					   "bits_per_weight",
					   "relative_squared_error",
					   "cosine",
					   "ratio"};
	cJSON *total = hct_json_object(top, "total");

	if (s->count == 0) {
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
			hct_json_number(total, keys[i], NAN);
		return;
	}
	hct_json_u64(total, keys[0], d->files.elements);
	hct_json_u64(total, keys[1], d->files.source_bytes);
	hct_json_u64(total, keys[2], d->files.stored_bytes);
	hct_json_number(total, keys[3], hct_tally_bits(&d->files));
	hct_json_number(total, keys[4], hct_metrics_relative_squared_error(&s->metrics));
	hct_json_number(total, keys[5], hct_metrics_cosine(&s->metrics));
	hct_json_number(total, keys[6], hct_tally_ratio(&d->files));
}

hct_error hct_differences_print_json(const struct hct_differences *d)
{
	cJSON *top = hct_json_object(NULL, NULL), *list = hct_json_array(top, "tensors");
	struct summary s;

	summarize(d, &s);
	for (size_t i = 0; i < d->count; i++)
		if (!d->pairs[i].err)
			json_pair(list, &d->pairs[i]);
	json_differ(top, &s);
	json_total(top, d, &s);
	return hct_json_print(top);
}

static void table_pair(struct hct_table *t, const struct hct_pair *p)
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

static hct_error print_table(const struct hct_differences *d)
{
	static const char *const words[] = {"ERROR", "COSINE", "PSNR",  "MAX ERR",
					    "GRADE", "BITS",   "TENSOR"};
	struct hct_table *t = hct_table_create("rrrrlrl");
	hct_error err;

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		hct_table_cell(t, "%s", words[i]);
	for (size_t i = 0; i < d->count; i++)
		if (!d->pairs[i].err)
			table_pair(t, &d->pairs[i]);
	hct_table_line(t, "%s", "");
	err = hct_table_print(t, stdout);
	hct_table_free(t);
	return err;
}

/* "61 tensors: 58 bit-identical, 3 differ (2 Excellent, 1 Good)" */
static void put_verdict(const struct hct_differences *d, const struct summary *s)
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

	if (d->not_compared)
		snprintf(more, sizeof(more), "; %" PRIu64 " not compared", d->not_compared);
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

/* "error 0.0146, cosine 0.99270, Good"; a figure that there is not is a dash. */
static void figures_text(const struct figures *f, char *text, size_t size)
{
	char cosine[HCT_COSINE_TEXT] = "-";

	if (isfinite(f->cosine))
		hct_metrics_cosine_text(f->cosine, 5, cosine);
	snprintf(text, size, "error %.3g, cosine %s, %s", f->error, cosine, f->grade);
}

static void put_summary(const struct hct_differences *d, const struct summary *s)
{
	char source[HCT_UNITS_MAX], stored[HCT_UNITS_MAX], text[96];
	struct figures f = mean_figures(s);

	if (s->worst) {
		figures_text(&f, text, sizeof(text));
		hct_put("mean   %s: by elements, of the %" PRIu64 " that differ", text, s->differ);
		f = pair_figures(s->worst);
		figures_text(&f, text, sizeof(text));
		hct_put("worst  %s: %s", text, s->worst->a->tensor->name);
	}
	if (s->count)
		hct_put("size   %s as %s, ratio %.4f, %.3f bits a weight",
			hct_units_size(d->files.source_bytes, source),
			hct_units_size(d->files.stored_bytes, stored), hct_tally_ratio(&d->files),
			hct_tally_bits(&d->files));
	put_verdict(d, s);
}

hct_error hct_differences_print(const struct hct_differences *d, int quiet)
{
	hct_error err = HCT_OK;
	struct summary s;

	summarize(d, &s);
	if (!quiet && s.count > 0)
		err = print_table(d);
	if (!err)
		put_summary(d, &s);
	return err;
}
