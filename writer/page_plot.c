#include "page_plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/units.h"

/* Geometry, in units of the drawing. */
#define WIDTH      760.
#define LEFT       72.
#define RIGHT      12.
#define TOP        10.
#define BARS       170. /* height */
#define POINTS     130.
#define FOOT       34.
#define ROW        24. /* of a kind */
#define KIND_LABEL 150.
#define KIND_BARS  270.
#define KIND_VALUE 80.

#define MOST_BARS   120
#define MOST_STACKS 64

static const char *const part_class[MKHCT_PAGE_PARTS] = {"pa", "pm", "pr"};
static const char *const part_name[MKHCT_PAGE_PARTS] = {"attention", "MLP", "other"};

/* A bar: a layer, or some in a row. */
struct bar {
	int first, last;
	struct mkhct_page_sum sum;
};

struct stack {
	const struct mkhct_page_row *example;
	double stored;
	size_t count;
};

static void begin(FILE *out, double height, const char *title)
{
	fprintf(out,
		"<div class=\"plot\"><svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"",
		WIDTH, height);
	mkhct_page_text(out, title);
	fputs("\">\n", out);
}

static void end(FILE *out)
{
	fputs("</svg></div>\n", out);
}

static void line(FILE *out, double x1, double y1, double x2, double y2, const char *class)
{
	fprintf(out, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", class, x1, y1, x2, y2);
}

static void text(FILE *out, double x, double y, const char *class, const char *what)
{
	fprintf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, x, y);
	mkhct_page_text(out, what);
	fputs("</text>\n", out);
}

/* Errors ---------------------------------------------------------------------------- */

/* A logarithmic axis: whole decades. */
struct decades {
	int lowest, highest;
};

static struct decades decades_of(double least, double most)
{
	struct decades d = {(int)floor(log10(fmax(least, 1e-12))),
			    (int)ceil(log10(fmin(fmax(most, 1e-12), 1e6)))};

	if (d.highest <= d.lowest)
		d.highest = d.lowest + 1;
	return d;
}

/* 0 at the lowest, 1 at the highest. */
static double place(const struct decades *d, double error)
{
	double at = (log10(fmax(error, 1e-300)) - d->lowest) / (d->highest - d->lowest);

	return fmin(fmax(at, 0), 1);
}

static double mean_error(const struct mkhct_page_sum *s)
{
	return s->lossy_elements > 0 ? s->errors / s->lossy_elements : 0;
}

static void tell(char *buf, size_t size, const struct bar *b)
{
	char stored[HCT_UNITS_MAX], layers[32], error[96] = "";

	if (b->first == b->last)
		snprintf(layers, sizeof(layers), "layer %d", b->first);
	else
		snprintf(layers, sizeof(layers), "layers %d to %d", b->first, b->last);
	if (b->sum.lossy)
		snprintf(error, sizeof(error), ", error %.2g (%.2g to %.2g)", mean_error(&b->sum),
			 b->sum.least, b->sum.most);
	snprintf(buf, size, "%s: %s, ratio %.2f%s", layers,
		 hct_units_size((uint64_t)b->sum.stored, stored),
		 b->sum.stored > 0 ? b->sum.source / b->sum.stored : 1, error);
}

/* Layers ---------------------------------------------------------------------------- */

static void draw_axis(FILE *out, const struct bar *bars, size_t count, double y, double step)
{
	size_t every = (count + 15) / 16;

	for (size_t i = 0; i < count; i += every) {
		char label[16];

		snprintf(label, sizeof(label), "%d", bars[i].first);
		text(out, LEFT + ((double)i + .5) * step, y + 16, "tm", label);
	}
	text(out, LEFT + (WIDTH - LEFT - RIGHT) / 2, y + 31, "tm", "layer");
}

static void draw_sizes(FILE *out, const struct bar *bars, size_t count, double most, double step)
{
	double bottom = TOP + BARS;
	char label[HCT_UNITS_MAX], title[256];

	for (int i = 0; i <= 2; i++) {
		double y = bottom - i * BARS / 2;

		line(out, LEFT, y, WIDTH - RIGHT, y, "g");
		text(out, LEFT - 6, y + 4, "te", hct_units_size((uint64_t)(most * i / 2), label));
	}
	for (size_t i = 0; i < count; i++) {
		double y = bottom;

		tell(title, sizeof(title), &bars[i]);
		fputs("<g class=\"bar\">", out);
		for (int p = 0; p < MKHCT_PAGE_PARTS; p++) {
			double height = bars[i].sum.stored_part[p] / most * BARS;

			if (!(height > 0))
				continue;
			y -= height;
			fprintf(out,
				"<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
				"height=\"%.1f\"/>",
				part_class[p], LEFT + (double)i * step + step * .1, y, step * .8,
				height);
		}
		fputs("<title>", out);
		mkhct_page_text(out, title);
		fputs("</title></g>\n", out);
	}
	draw_axis(out, bars, count, bottom, step);
}

static void draw_errors(FILE *out, const struct bar *bars, size_t count, const struct decades *d,
			double step)
{
	double bottom = TOP + POINTS;
	int every = (d->highest - d->lowest + 5) / 6;
	char label[32], title[256];

	for (int e = d->lowest; e <= d->highest; e += every) {
		double y = bottom - place(d, pow(10, e)) * POINTS;

		snprintf(label, sizeof(label), "1e%d", e);
		line(out, LEFT, y, WIDTH - RIGHT, y, "g");
		text(out, LEFT - 6, y + 4, "te", label);
	}
	for (size_t i = 0; i < count; i++) {
		const struct mkhct_page_sum *s = &bars[i].sum;
		double x = LEFT + ((double)i + .5) * step;

		if (!s->lossy)
			continue;
		tell(title, sizeof(title), &bars[i]);
		fputs("<g class=\"dot\">", out);
		line(out, x, bottom - place(d, s->least) * POINTS, x,
		     bottom - place(d, s->most) * POINTS, "w");
		fprintf(out, "<circle class=\"e\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/><title>", x,
			bottom - place(d, mean_error(s)) * POINTS, fmin(fmax(step * .28, 2), 5));
		mkhct_page_text(out, title);
		fputs("</title></g>\n", out);
	}
	draw_axis(out, bars, count, bottom, step);
}

static void draw_stack(FILE *out, const struct stack *stack, const struct bar *bars, size_t count)
{
	struct mkhct_page_sum all = {.tensors = 0};
	double most = 1, step = fmin((WIDTH - LEFT - RIGHT) / (double)count, 60);
	struct decades d;
	char *prefix = strndup(stack->example->name, stack->example->stack);

	for (size_t i = 0; i < count; i++) {
		const struct mkhct_page_sum *s = &bars[i].sum;

		most = fmax(most, s->stored);
		if (!s->lossy)
			continue;
		all.least = all.lossy ? fmin(all.least, s->least) : s->least;
		all.most = fmax(all.most, s->most);
		all.lossy += s->lossy;
	}
	fputs("<h3><bdi>", out);
	mkhct_page_text(out, prefix && *prefix ? prefix : "layers");
	fputs("</bdi></h3>\n<p class=\"k\">Stored size", out);
	for (int p = 0; p < MKHCT_PAGE_PARTS; p++)
		fprintf(out, " <span class=\"key\"><i class=\"%s\"></i>%s</span>", part_class[p],
			part_name[p]);
	fputs("</p>\n", out);
	begin(out, TOP + BARS + FOOT, "Stored size by layer");
	draw_sizes(out, bars, count, most, step);
	end(out);
	free(prefix);
	if (!all.lossy)
		return;
	d = decades_of(all.least, all.most);
	fputs("<p class=\"k\">Relative squared error: mean, and range over the tensors of a "
	      "layer</p>\n",
	      out);
	begin(out, TOP + POINTS + FOOT, "Relative squared error by layer");
	draw_errors(out, bars, count, &d, step);
	end(out);
}

static int same_stack(const struct mkhct_page_row *a, const struct mkhct_page_row *b)
{
	return a->stack == b->stack && strncmp(a->name, b->name, a->stack) == 0;
}

static int by_layer(const void *a, const void *b)
{
	const struct mkhct_page_row *x = *(const struct mkhct_page_row *const *)a;
	const struct mkhct_page_row *y = *(const struct mkhct_page_row *const *)b;

	return (x->layer > y->layer) - (x->layer < y->layer);
}

static int by_size(const void *a, const void *b)
{
	const struct stack *x = a, *y = b;

	return x->stored != y->stored ? (x->stored < y->stored) - (x->stored > y->stored)
				      : (x->example > y->example) - (x->example < y->example);
}

static int plot_stack(FILE *out, const struct mkhct_page_rows *rows, const struct stack *stack)
{
	const struct mkhct_page_row **members = calloc(stack->count, sizeof(*members));
	struct bar *bars = calloc(MOST_BARS, sizeof(*bars));
	size_t n = 0, layers = 0, each, count = 0;

	if (!members || !bars) {
		free(members);
		free(bars);
		return -1;
	}
	for (size_t i = 0; i < rows->count; i++)
		if (rows->rows[i].layer >= 0 && same_stack(&rows->rows[i], stack->example))
			members[n++] = &rows->rows[i];
	qsort(members, n, sizeof(*members), by_layer);
	for (size_t i = 0; i < n; i++)
		layers += i == 0 || members[i]->layer != members[i - 1]->layer;
	each = (layers + MOST_BARS - 1) / MOST_BARS;
	layers = 0;
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || members[i]->layer != members[i - 1]->layer) {
			if (layers++ % each == 0)
				bars[count++].first = members[i]->layer;
		}
		bars[count - 1].last = members[i]->layer;
		mkhct_page_sum_add(&bars[count - 1].sum, members[i]);
	}
	draw_stack(out, stack, bars, count);
	free(members);
	free(bars);
	return 0;
}

int mkhct_page_plot_layers(FILE *out, const struct mkhct_page_rows *rows)
{
	struct stack stacks[MOST_STACKS];
	size_t count = 0;
	int rc = 0;

	for (size_t i = 0; i < rows->count; i++) {
		const struct mkhct_page_row *row = &rows->rows[i];
		size_t s = 0;

		if (row->layer < 0)
			continue;
		while (s < count && !same_stack(row, stacks[s].example))
			s++;
		if (s == MOST_STACKS)
			continue;
		if (s == count)
			stacks[count++] = (struct stack){.example = row};
		stacks[s].stored += row->stored;
		stacks[s].count++;
	}
	if (count == 0)
		return 0;
	qsort(stacks, count, sizeof(*stacks), by_size);
	fputs("<h2 id=\"layers\">By layer</h2>\n", out);
	for (size_t s = 0; !rc && s < count && s < MKHCT_PAGE_STACKS; s++)
		rc = plot_stack(out, rows, &stacks[s]);
	if (count > MKHCT_PAGE_STACKS)
		fprintf(out, "<p>%zu smaller stacks of layers are not drawn.</p>\n",
			count - MKHCT_PAGE_STACKS);
	return rc;
}

/* Kinds ----------------------------------------------------------------------------- */

int mkhct_page_kind_at(const struct mkhct_page_sum kinds[MKHCT_KIND_COUNT], unsigned at)
{
	for (int k = 0; k < MKHCT_KIND_COUNT; k++) {
		unsigned before = 0;

		if (!kinds[k].tensors)
			continue;
		for (int o = 0; o < MKHCT_KIND_COUNT; o++)
			before +=
				kinds[o].tensors && (kinds[o].stored > kinds[k].stored ||
						     (kinds[o].stored == kinds[k].stored && o < k));
		if (before == at)
			return k;
	}
	return -1;
}

static enum mkhct_page_part colour_of(const struct mkhct_page_sum *s)
{
	for (int p = 0; p < MKHCT_PAGE_PARTS; p++)
		if (s->stored_part[p] > 0)
			return (enum mkhct_page_part)p;
	return MKHCT_PAGE_REST;
}

static void draw_kind(FILE *out, const struct mkhct_page_sum *s, int kind, double y, double most,
		      const struct decades *d)
{
	double left = KIND_LABEL + KIND_BARS + KIND_VALUE, width = WIDTH - left - RIGHT - 8;
	double length = s->stored / most * KIND_BARS, middle = y + ROW / 2;
	char stored[HCT_UNITS_MAX];

	hct_units_size((uint64_t)s->stored, stored);
	text(out, KIND_LABEL - 8, middle + 4, "te", mkhct_kind_name((enum mkhct_tensor_kind)kind));
	fprintf(out, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
		part_class[colour_of(s)], KIND_LABEL, y + 4, fmax(length, 1), ROW - 8);
	text(out, KIND_LABEL + fmax(length, 1) + 6, middle + 4, "ts", stored);
	if (!s->lossy)
		return;
	fputs("<g class=\"dot\">", out);
	line(out, left + place(d, s->least) * width, middle, left + place(d, s->most) * width,
	     middle, "w");
	fprintf(out,
		"<circle class=\"e\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/><title>error %.2g (%.2g to "
		"%.2g)</title></g>\n",
		left + place(d, mean_error(s)) * width, middle, mean_error(s), s->least, s->most);
}

void mkhct_page_plot_kinds(FILE *out, const struct mkhct_page_sum kinds[MKHCT_KIND_COUNT])
{
	double most = 1, least_error = 1, most_error = 0, height, left, width;
	unsigned count = 0;
	struct decades d;

	for (int k = 0; k < MKHCT_KIND_COUNT; k++) {
		count += kinds[k].tensors > 0;
		most = fmax(most, kinds[k].stored);
		if (kinds[k].lossy) {
			least_error = fmin(least_error, kinds[k].least);
			most_error = fmax(most_error, kinds[k].most);
		}
	}
	if (!count)
		return;
	d = decades_of(least_error, most_error);
	height = count * ROW;
	left = KIND_LABEL + KIND_BARS + KIND_VALUE;
	width = WIDTH - left - RIGHT - 8;
	fprintf(out, "<p class=\"k\">Stored size%s</p>\n",
		most_error > 0 ? ", and relative squared error: mean and range" : "");
	begin(out, height + (most_error > 0 ? 26 : 6), "Stored size and error by kind");
	for (int e = d.lowest; most_error > 0 && e <= d.highest;
	     e += (d.highest - d.lowest + 3) / 4) {
		char label[16];
		double x = left + place(&d, pow(10, e)) * width;

		snprintf(label, sizeof(label), "1e%d", e);
		line(out, x, 0, x, height, "g");
		text(out, x, height + 16, "tm", label);
	}
	for (unsigned i = 0; i < count; i++) {
		int k = mkhct_page_kind_at(kinds, i);

		draw_kind(out, &kinds[k], k, i * ROW, most, &d);
	}
	end(out);
}
