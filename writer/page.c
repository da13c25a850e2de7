#include "page.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "codec/units.h"
#include "writer/excuses.h"
#include "writer/page_plot.h"
#include "writer/page_rows.h"
#include "writer/page_style.h"

#define WORST    20  /* tensors in the list of the worst */
#define ROW_SIZE 330 /* bytes of a row of the table without its texts, about */

struct page {
	const cJSON *report;
	struct mkhct_page_rows rows;
	struct mkhct_page_sum all, kinds[MKHCT_KIND_COUNT];
	const struct mkhct_page_row **worst; /* all rows, the worst first */
	FILE *out;
};

static double number(const cJSON *object, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	return cJSON_IsNumber(item) ? item->valuedouble
	       : cJSON_IsRaw(item)  ? strtod(item->valuestring, NULL)
				    : 0;
}

static const char *string(const cJSON *object, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	return cJSON_IsString(item) ? item->valuestring : "";
}

static const char *size_of(double bytes, char buf[HCT_UNITS_MAX])
{
	return hct_units_size((uint64_t)fmin(fmax(bytes, 0), 0x1p62), buf);
}

static double ratio(double source, double stored)
{
	return stored > 0 ? source / stored : 1;
}

/* The beginning --------------------------------------------------------------------- */

/* Only this script runs, whatever a name may smuggle in, and nothing is loaded. */
static void print_policy(FILE *out)
{
	unsigned char hash[EVP_MAX_MD_SIZE], text[2 * EVP_MAX_MD_SIZE] = "";
	unsigned n = 0;

	if (EVP_Digest(mkhct_page_script, strlen(mkhct_page_script), hash, &n, EVP_sha256(),
		       NULL) != 1)
		n = 0;
	EVP_EncodeBlock(text, hash, (int)n);
	fprintf(out,
		"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
		"style-src 'unsafe-inline'; img-src data:; script-src 'sha256-%s'; base-uri "
		"'none'; "
		"form-action 'none'\">\n",
		(const char *)text);
}

static void print_head(const struct page *p)
{
	const char *source = string(p->report, "source");

	fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n", p->out);
	print_policy(p->out);
	fputs("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
	      "<meta name=\"color-scheme\" content=\"light dark\">\n"
	      "<link rel=\"icon\" href=\"data:,\">\n<title>",
	      p->out);
	mkhct_page_text(p->out, source);
	fprintf(p->out, " compressed</title>\n<style>\n%s</style>\n</head>\n<body>\n<h1><bdi>",
		mkhct_page_css);
	mkhct_page_text(p->out, source);
	fputs("</bdi></h1>\n<p class=\"sub\">compressed by mkhct ", p->out);
	mkhct_page_text(p->out, string(p->report, "version"));
	fputs("</p>\n", p->out);
}

static void print_card(FILE *out, const char *value, const char *what)
{
	fputs("<div><b>", out);
	mkhct_page_text(out, value);
	fputs("</b><span>", out);
	mkhct_page_text(out, what);
	fputs("</span></div>\n", out);
}

static void print_cards(const struct page *p)
{
	const cJSON *lossy = cJSON_GetObjectItemCaseSensitive(p->report, "lossy");
	char text[64], what[96], from[HCT_UNITS_MAX], to[HCT_UNITS_MAX];

	fputs("<div class=\"cards\">\n", p->out);
	snprintf(text, sizeof(text), "%.3f", number(p->report, "ratio"));
	print_card(p->out, text, "times smaller");
	size_of(number(p->report, "source_bytes"), from);
	snprintf(what, sizeof(what), "instead of %s", from);
	print_card(p->out, size_of(number(p->report, "stored_bytes"), to), what);
	if (number(p->report, "bits_per_weight") > 0) {
		snprintf(text, sizeof(text), "%.3f", number(p->report, "bits_per_weight"));
		print_card(p->out, text, "bits a weight");
	}
	if (*string(lossy, "grade")) {
		snprintf(what, sizeof(what), "mean cosine %.5f", number(lossy, "cosine"));
		print_card(p->out, string(lossy, "grade"), what);
	} else {
		print_card(p->out, "Lossless", "nothing was lost");
	}
	print_card(p->out, hct_units_duration(number(p->report, "seconds"), to), "of time");
	fputs("</div>\n", p->out);
}

/* Tables ---------------------------------------------------------------------------- */

/* files or tensors: negative for a cell that stays empty. */
static void print_total(FILE *out, const char *what, double tensors, double source, double stored,
			double bits, int last)
{
	char a[HCT_UNITS_MAX], b[HCT_UNITS_MAX];

	fprintf(out, "<tr%s><td>%s</td><td class=\"n\">", last ? " class=\"total\"" : "", what);
	if (tensors >= 0)
		fprintf(out, "%.0f", tensors);
	fprintf(out,
		"</td><td class=\"n\">%s</td><td class=\"n\">%s</td><td class=\"n\">%.3f</td>"
		"<td class=\"n\">",
		size_of(source, a), size_of(stored, b), ratio(source, stored));
	if (bits > 0)
		fprintf(out, "%.3f", bits);
	fputs("</td></tr>\n", out);
}

static void print_part(const struct page *p, const char *key, const char *what)
{
	const cJSON *part = cJSON_GetObjectItemCaseSensitive(p->report, key);

	if (number(part, "tensors") > 0)
		print_total(p->out, what, number(part, "tensors"), number(part, "source_bytes"),
			    number(part, "stored_bytes"), number(part, "bits_per_weight"), 0);
}

static void print_totals(const struct page *p)
{
	const cJSON *r = p->report;
	char *options = cJSON_Print(cJSON_GetObjectItemCaseSensitive(r, "options"));

	fputs("<h2 id=\"totals\">Totals</h2>\n<div class=\"wide\"><table>\n<thead><tr><th></th>"
	      "<th class=\"n\">tensors</th><th class=\"n\">source</th><th class=\"n\">stored</th>"
	      "<th class=\"n\">ratio</th><th class=\"n\">bits a weight</th></tr></thead>\n"
	      "<tbody>\n",
	      p->out);
	print_total(p->out, "models", number(r, "tensors"), number(r, "model_source_bytes"),
		    number(r, "model_stored_bytes"), number(r, "bits_per_weight"), 0);
	print_part(p, "lossy", "&emsp;with loss");
	print_part(p, "lossless", "&emsp;lossless");
	if (number(r, "carried_files") > 0)
		print_total(p->out, "other files", -1, number(r, "carried_bytes"),
			    number(r, "carried_bytes"), 0, 0);
	print_total(p->out, "total", number(r, "tensors"), number(r, "source_bytes"),
		    number(r, "stored_bytes"), 0, 1);
	fputs("</tbody></table></div>\n", p->out);
	if (number(r, "verified_tensors") > 0)
		fprintf(p->out,
			"<p>%.0f of %.0f tensors were read back from the finished file, decoded "
			"and "
			"measured.</p>\n",
			number(r, "verified_tensors"), number(r, "tensors"));
	fputs("<h2 id=\"options\">Options</h2>\n<pre>", p->out);
	for (const char *line = options ? options : ""; *line;) {
		size_t n = strcspn(line, "\n\t");
		char *part = strndup(line, n);

		mkhct_page_text(p->out, part ? part : "");
		free(part);
		line += n;
		if (*line)
			fputc(*line++ == '\n' ? '\n' : ' ', p->out);
	}
	fputs("</pre>\n", p->out);
	cJSON_free(options);
}

static void print_kinds(const struct page *p)
{
	fputs("<h2 id=\"kinds\">By kind</h2>\n", p->out);
	mkhct_page_plot_kinds(p->out, p->kinds);
	fputs("<div class=\"wide\"><table>\n<thead><tr><th>kind</th><th class=\"n\">tensors</th>"
	      "<th class=\"n\">source</th><th class=\"n\">stored</th><th class=\"n\">ratio</th>"
	      "<th class=\"n\">bits a weight</th><th class=\"n\">mean error</th>"
	      "<th class=\"n\">worst cosine</th></tr></thead>\n<tbody>\n",
	      p->out);
	for (unsigned i = 0; mkhct_page_kind_at(p->kinds, i) >= 0; i++) {
		int k = mkhct_page_kind_at(p->kinds, i);
		const struct mkhct_page_sum *s = &p->kinds[k];
		char a[HCT_UNITS_MAX], b[HCT_UNITS_MAX], error[32] = "", cosine[32] = "";

		if (s->lossy) {
			snprintf(error, sizeof(error), "%.2e",
				 s->lossy_elements > 0 ? s->errors / s->lossy_elements : 0);
			snprintf(cosine, sizeof(cosine), "%.5f", s->worst);
		}
		fprintf(p->out,
			"<tr><td>%s</td><td class=\"n\">%zu</td><td class=\"n\">%s</td><td "
			"class=\"n\">%s</td><td class=\"n\">%.3f</td><td class=\"n\">%.3f</td>"
			"<td class=\"n\">%s</td><td class=\"n\">%s</td></tr>\n",
			mkhct_kind_name((enum mkhct_tensor_kind)k), s->tensors,
			size_of(s->source, a), size_of(s->stored, b), ratio(s->source, s->stored),
			s->elements > 0 ? 8 * s->stored / s->elements : 0, error, cosine);
	}
	fputs("</tbody></table></div>\n", p->out);
}

static void print_name(FILE *out, const struct mkhct_page_row *row)
{
	fputs("<td class=\"name\"><bdi>", out);
	mkhct_page_text(out, *row->name ? row->name : "\"\"");
	fputs("</bdi></td>", out);
}

static void print_worst(const struct page *p)
{
	fputs("<h2 id=\"worst\">The worst tensors</h2>\n", p->out);
	if (!p->all.lossy) {
		fputs("<p>Nothing was lost: every tensor is bit for bit what it was.</p>\n",
		      p->out);
		return;
	}
	fputs("<div class=\"wide\"><table id=\"worst-list\">\n<thead><tr><th>tensor</th>"
	      "<th class=\"n\">cosine</th><th class=\"n\">error</th><th class=\"n\">bits a "
	      "weight</th></tr></thead>\n<tbody>\n",
	      p->out);
	for (size_t i = 0; i < p->rows.count && i < WORST && p->worst[i]->lossy; i++) {
		const struct mkhct_page_row *row = p->worst[i];

		fputs("<tr>", p->out);
		print_name(p->out, row);
		fprintf(p->out,
			"<td class=\"n\">%.5f</td><td class=\"n\">%.2e</td><td "
			"class=\"n\">%.3f</td></tr>\n",
			row->cosine, row->error,
			row->elements > 0 ? 8 * row->stored / row->elements : 0);
	}
	fputs("</tbody></table></div>\n", p->out);
}

/* Those that are lossless among others, by the reason, the reasons in the order of the file. */
#define REASONS 64

struct reason {
	const struct mkhct_page_row *first;
	size_t tensors;
	double stored;
};

static size_t gather_reasons(const struct page *p, struct reason reasons[REASONS])
{
	size_t count = 0;

	for (size_t i = 0; i < p->rows.count; i++) {
		const struct mkhct_page_row *row = &p->rows.rows[i];
		size_t r = 0;

		if (row->lossy)
			continue;
		while (r < count && strcmp(reasons[r].first->why, row->why) != 0)
			r++;
		if (r == REASONS)
			r--;
		if (r == count)
			reasons[count++] = (struct reason){.first = row};
		reasons[r].tensors++;
		reasons[r].stored += row->stored;
	}
	return count;
}

static void print_reasons(const struct page *p)
{
	struct reason reasons[REASONS];
	size_t count;

	if (!p->all.lossy)
		return;
	count = gather_reasons(p, reasons);
	fputs("<h2 id=\"lossless\">Lossless tensors, and why</h2>\n", p->out);
	if (!count) {
		fputs("<p>There are none.</p>\n", p->out);
		return;
	}
	fputs("<div class=\"wide\"><table id=\"reasons\">\n<thead><tr><th>why</th>"
	      "<th class=\"n\">tensors</th><th class=\"n\">stored</th><th>the first</th></tr>"
	      "</thead>\n<tbody>\n",
	      p->out);
	for (size_t i = 0; i < count; i++) {
		char stored[HCT_UNITS_MAX];

		fputs("<tr><td class=\"why\">", p->out);
		mkhct_page_text(p->out, i + 1 == REASONS         ? "others"
					: *reasons[i].first->why ? reasons[i].first->why
								 : "as asked for");
		fprintf(p->out, "</td><td class=\"n\">%zu</td><td class=\"n\">%s</td>",
			reasons[i].tensors, size_of(reasons[i].stored, stored));
		print_name(p->out, reasons[i].first);
		fputs("</tr>\n", p->out);
	}
	fputs("</tbody></table></div>\n", p->out);
}

/* What was not tried of some. */
static void print_notes(const struct page *p)
{
	const cJSON *lossy = cJSON_GetObjectItemCaseSensitive(p->report, "lossy"), *note;

	cJSON_ArrayForEach(note, cJSON_GetObjectItemCaseSensitive(lossy, MKHCT_EXCUSES_NOTE))
	{
		const cJSON *first = cJSON_GetObjectItemCaseSensitive(note, "first");
		const char *why =
			cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(note, "reason"));
		const char *name = cJSON_GetStringValue(cJSON_GetArrayItem(first, 0));
		double tensors = number(note, "tensors");

		fprintf(p->out, "<p class=\"note\">%.0f %s: ", tensors,
			tensors == 1 ? "tensor" : "tensors");
		mkhct_page_text(p->out, why ? why : "");
		fputs(tensors == 1 ? ": <bdi>" : "; the first is <bdi>", p->out);
		mkhct_page_text(p->out, name ? name : "");
		fputs("</bdi>.</p>\n", p->out);
	}
}

/* All tensors ----------------------------------------------------------------------- */

static void print_row(FILE *out, const struct mkhct_page_row *row, int files)
{
	char source[HCT_UNITS_MAX], stored[HCT_UNITS_MAX];

	fputs("<tr>", out);
	print_name(out, row);
	if (files) {
		fputs("<td class=\"name\"><bdi>", out);
		mkhct_page_text(out, row->file);
		fputs("</bdi></td>", out);
	}
	fputs("<td>", out);
	mkhct_page_text(out, row->dtype);
	fputs("</td><td class=\"s\">", out);
	mkhct_page_text(out, row->shape);
	fprintf(out, "</td><td>%s</td><td>", mkhct_kind_name(row->kind));
	mkhct_page_text(out, row->codec);
	fprintf(out,
		"</td><td class=\"n\" data-v=\"%.0f\">%s</td><td class=\"n\" data-v=\"%.0f\">%s"
		"</td><td class=\"n\">%.3f</td><td class=\"n\">%.3f</td>",
		row->source, size_of(row->source, source), row->stored,
		size_of(row->stored, stored), ratio(row->source, row->stored),
		row->elements > 0 ? 8 * row->stored / row->elements : 0);
	if (row->lossy)
		fprintf(out, "<td class=\"n\">%.2e</td><td class=\"n\">%.5f</td></tr>\n",
			row->error, row->cosine);
	else
		fputs("<td class=\"n\"></td><td class=\"n\"></td></tr>\n", out);
}

static int is_too_long(const struct page *p)
{
	size_t bytes = 0;

	for (size_t i = 0; i < p->rows.count; i++)
		bytes += ROW_SIZE + strlen(p->rows.rows[i].name) + strlen(p->rows.rows[i].file);
	return p->rows.count > MKHCT_PAGE_WORST && bytes > MKHCT_PAGE_BYTES;
}

static void print_tensors(const struct page *p)
{
	int cut = is_too_long(p), files = number(p->report, "models") > 1;
	size_t count = cut ? MKHCT_PAGE_WORST : p->rows.count;

	fputs("<h2 id=\"all\">All tensors</h2>\n", p->out);
	if (cut)
		fprintf(p->out,
			"<p id=\"cut\">The model has %zu tensors. The table shows the %d of them "
			"with the largest error, or, of those without, that take most; report.json "
			"has all.</p>\n",
			p->rows.count, MKHCT_PAGE_WORST);
	fprintf(p->out,
		"<div class=\"wide\"><table id=\"tensors\">\n<thead><tr><th>tensor</th>%s"
		"<th>dtype</th><th>shape</th><th>kind</th><th>codec</th><th class=\"n\">source</th>"
		"<th class=\"n\">stored</th><th class=\"n\">ratio</th><th class=\"n\">bits</th>"
		"<th class=\"n\">error</th><th class=\"n\">cosine</th></tr></thead>\n<tbody>\n",
		files ? "<th>file</th>" : "");
	for (size_t i = 0; i < count; i++)
		print_row(p->out, cut ? p->worst[i] : &p->rows.rows[i], files);
	fputs("</tbody></table></div>\n", p->out);
}

/* The page -------------------------------------------------------------------------- */

static int by_badness(const void *a, const void *b)
{
	const struct mkhct_page_row *x = *(const struct mkhct_page_row *const *)a;
	const struct mkhct_page_row *y = *(const struct mkhct_page_row *const *)b;

	if (x->lossy != y->lossy)
		return y->lossy - x->lossy;
	if (x->cosine != y->cosine)
		return x->cosine < y->cosine ? -1 : 1;
	if (x->error != y->error)
		return x->error > y->error ? -1 : 1;
	if (x->stored != y->stored)
		return x->stored > y->stored ? -1 : 1;
	return (x > y) - (x < y); /* in the order of the report */
}

static int gather(struct page *p)
{
	if (mkhct_page_rows_read(p->report, &p->rows) != 0)
		return -1;
	p->worst = calloc(p->rows.count + 1, sizeof(*p->worst));
	if (!p->worst)
		return -1;
	for (size_t i = 0; i < p->rows.count; i++) {
		const struct mkhct_page_row *row = &p->rows.rows[i];

		p->worst[i] = row;
		mkhct_page_sum_add(&p->all, row);
		mkhct_page_sum_add(&p->kinds[row->kind], row);
	}
	qsort(p->worst, p->rows.count, sizeof(*p->worst), by_badness);
	return 0;
}

hct_error mkhct_page_write(const cJSON *report, FILE *out, struct hct_diag *diag)
{
	struct page p = {.report = report, .out = out};
	int rc = gather(&p);

	if (!rc) {
		print_head(&p);
		print_cards(&p);
		print_totals(&p);
		rc = mkhct_page_plot_layers(out, &p.rows);
		print_kinds(&p);
		print_worst(&p);
		print_reasons(&p);
		print_notes(&p);
		print_tensors(&p);
		fprintf(out, "<script>%s</script>\n</body>\n</html>\n", mkhct_page_script);
	}
	free(p.worst);
	mkhct_page_rows_free(&p.rows);
	return rc ? hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the report") : HCT_OK;
}
