/* hct plot: bits and error of every tensor, as SVG. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/io.h"
#include "codec/units.h"
#include "hct_bundle.h"
#include "hct_cli.h"
#include "svg.h"

static const char help[] =
	"Usage: hct plot [-fl] [-o FILE] BUNDLE\n"
	"Draws bits a weight and relative squared error of the tensors of a bundle, layer by\n"
	"layer, as SVG on standard output.  Tensors of less than two dimensions are left out,\n"
	"and so are those of less than 4096 elements.\n"
	"\n"
	"  -f, --force        replace FILE\n"
	"  -l, --long         all tensors\n"
	"  -o, --output FILE  write FILE, which must not be there yet\n"
	"  -h, --help         this text\n"
	"\n"
	"BUNDLE is a directory made by mkhct or one .hct file.\n";

#define SMALL       4096 /* elements */
#define MOST_STACKS 256

/* Geometry, in pixels. */
#define LEFT        64.
#define RIGHT       24.
#define TOP         84.  /* of the bars */
#define BARS        220. /* height */
#define GAP         24.
#define POINTS      150. /* height of the errors */
#define BOTTOM      56.
#define LEAST_WIDTH 560.
#define MOST_WIDTH  1600.
#define BAR_WIDTH   14.
#define GROUP_GAP   .5 /* between layers, in bars */
#define LABEL_WIDTH 18.

#define INK      "#24292f"
#define PALE     "#6e7781"
#define GRID     "#d8dee4"
#define BAND     "#f3f5f7"
#define LOSSY    "#2f6db3"
#define LOSSLESS "#aab2bd"
#define ERRORS   "#c8442f"

struct bar {
	const struct hct_tensor *tensor;
	double bits, error;
	int stack;      /* layers of one stack have the same; -1 when in no layer */
	unsigned layer; /* within its stack */
	size_t prefix;  /* bytes of the name before the layer */
	size_t order;   /* in the bundle */
	double x;       /* of its left side, in bars */
};

struct plot {
	struct bar *bars;
	size_t count, left_out;
	size_t stacks[MOST_STACKS], stack_count; /* the first bar of each */
	struct hct_tally total;
	double width;        /* of the drawing area, and */
	double unit;         /* of a bar with its share of gaps */
	double most_bits;    /* at the top */
	int decade, decades; /* the error axis: 10^decade at the top, down by so many */
	FILE *out;
};

/* Which tensors, in which order ----------------------------------------------------- */

/* The first component of a name that is a number, of at most six digits. */
static int find_layer(const char *name, unsigned *layer, size_t *prefix)
{
	for (const char *at = name; at; at = strpbrk(at, "./"), at = at ? at + 1 : NULL) {
		size_t n = strspn(at, "0123456789");

		if (n == 0 || n > 6 || (at[n] && !strchr("./", at[n])))
			continue;
		*layer = (unsigned)strtoul(at, NULL, 10);
		*prefix = (size_t)(at - name);
		return 1;
	}
	return 0;
}

/* The stack that a name belongs to, by the place of its first tensor; -1 behind the last of
 * MOST_STACKS. */
static int find_stack(struct plot *p, const struct bar *bar)
{
	for (size_t i = 0; i < p->stack_count; i++) {
		const struct bar *first = &p->bars[p->stacks[i]];

		if (first->prefix == bar->prefix &&
		    strncmp(first->tensor->name, bar->tensor->name, bar->prefix) == 0)
			return first->stack;
	}
	if (p->stack_count == MOST_STACKS)
		return -1;
	p->stacks[p->stack_count++] = p->count;
	return (int)p->count;
}

static int is_small(const struct hct_tensor *t)
{
	unsigned dimensions = 0;

	for (unsigned d = 0; d < t->rank; d++)
		dimensions += t->shape[d] > 1;
	return dimensions < 2 || t->elements < SMALL;
}

static void add_model(struct plot *p, const struct hct_node *node, int all)
{
	const struct hct_safetensors *st = hct_reader_safetensors(node->reader);

	for (size_t i = 0; i < st->count; i++) {
		struct bar *bar = &p->bars[p->count];
		struct hct_tally tally = hct_tensor_tally(node->reader, i);
		struct hct_coding coding;

		p->total.elements += tally.elements;
		if (!tally.elements || (!all && is_small(&st->tensors[i]))) {
			p->left_out++;
			continue;
		}
		hct_reader_coding(node->reader, i, &coding);
		*bar = (struct bar){.tensor = &st->tensors[i],
				    .bits = hct_tally_bits(&tally),
				    .error = coding.relative_squared_error,
				    .stack = -1,
				    .order = p->count};
		if (find_layer(bar->tensor->name, &bar->layer, &bar->prefix))
			bar->stack = find_stack(p, bar);
		p->count++;
	}
	p->total.source_bytes += node->size;
	p->total.stored_bytes += node->stored_bytes;
}

/* Stacks where their first tensor stands, layers of a stack by number. */
static int compare_bars(const void *a, const void *b)
{
	const struct bar *x = a, *y = b;
	size_t place_x = x->stack >= 0 ? (size_t)x->stack : x->order;
	size_t place_y = y->stack >= 0 ? (size_t)y->stack : y->order;

	if (place_x != place_y)
		return place_x < place_y ? -1 : 1;
	if (x->layer != y->layer)
		return x->layer < y->layer ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static int same_group(const struct bar *a, const struct bar *b)
{
	return a->stack == b->stack && a->layer == b->layer;
}

static hct_error collect(struct plot *p, const struct hct_tree *tree, int all)
{
	size_t tensors = 0;

	for (size_t i = 0; i < hct_tree_count(tree); i++) {
		const struct hct_node *node = hct_tree_node(tree, i);

		if (node->kind == HCT_NODE_MODEL && node->reader)
			tensors += hct_reader_safetensors(node->reader)->count;
	}
	p->bars = calloc(tensors + 1, sizeof(*p->bars));
	if (!p->bars)
		return HCT_ERR_NOMEM;
	for (size_t i = 0; i < hct_tree_count(tree); i++) {
		const struct hct_node *node = hct_tree_node(tree, i);

		if (node->kind == HCT_NODE_MODEL && node->reader)
			add_model(p, node, all);
	}
	if (p->count)
		qsort(p->bars, p->count, sizeof(*p->bars), compare_bars);
	return HCT_OK;
}

/* Places and scales ----------------------------------------------------------------- */

static void lay_out(struct plot *p)
{
	double x = GROUP_GAP, most = 1, least_error = 1, most_error = 0;

	for (size_t i = 0; i < p->count; i++) {
		struct bar *bar = &p->bars[i];

		if (i && !same_group(bar, bar - 1))
			x += GROUP_GAP;
		bar->x = x++;
		most = fmax(most, bar->bits);
		if (bar->error > 0) {
			least_error = fmin(least_error, bar->error);
			most_error = fmax(most_error, bar->error);
		}
	}
	x += GROUP_GAP;
	p->width = fmin(fmax(x * BAR_WIDTH, LEAST_WIDTH), MOST_WIDTH);
	p->unit = fmin(p->width / x, 40);
	p->most_bits = most <= 4 ? ceil(most) : most <= 8 ? 2 * ceil(most / 2) : 4 * ceil(most / 4);
	if (!(most_error > 0))
		most_error = least_error = 1e-2;
	p->decade = (int)ceil(log10(most_error));
	p->decades = p->decade - (int)floor(log10(least_error));
	p->decades = p->decades < 1 ? 1 : p->decades;
}

static double bits_y(const struct plot *p, double bits)
{
	return TOP + BARS * (1 - bits / p->most_bits);
}

static double error_y(const struct plot *p, double error)
{
	return TOP + BARS + GAP + POINTS * (p->decade - log10(error)) / p->decades;
}

/* Drawing --------------------------------------------------------------------------- */

static void draw_axes(const struct plot *p)
{
	double step = p->most_bits <= 4 ? 1 : p->most_bits <= 8 ? 2 : p->most_bits <= 20 ? 4 : 8;
	double right = LEFT + p->width, middle = TOP + BARS / 2;
	int skip = p->decades > 8 ? 2 : 1;
	char text[32];

	for (double b = 0; b <= p->most_bits; b += step) {
		hct_svg_line(p->out, LEFT, bits_y(p, b), right, bits_y(p, b), GRID);
		snprintf(text, sizeof(text), "%.0f", b);
		hct_svg_text(p->out, LEFT - 8, bits_y(p, b) + 4, 12, HCT_SVG_END, 0, PALE, text);
	}
	hct_svg_text(p->out, 20, middle, 13, HCT_SVG_MIDDLE, -90, INK, "bits a weight");
	for (int d = 0; d <= p->decades; d += skip) {
		double y = error_y(p, pow(10, p->decade - d));

		hct_svg_line(p->out, LEFT, y, right, y, GRID);
		snprintf(text, sizeof(text), "1e%d", p->decade - d);
		hct_svg_text(p->out, LEFT - 8, y + 4, 12, HCT_SVG_END, 0, PALE,
			     p->decade == d ? "1" : text);
	}
	for (int d = 0; p->decades <= 2 && d < p->decades; d++)
		for (int m = 2; m <= 5; m += 3) {
			double error = m * pow(10, p->decade - d - 1), y = error_y(p, error);

			hct_svg_line(p->out, LEFT, y, right, y, GRID);
			snprintf(text, sizeof(text), "%de%d", m, p->decade - d - 1);
			hct_svg_text(p->out, LEFT - 8, y + 4, 12, HCT_SVG_END, 0, PALE, text);
		}
	middle = TOP + BARS + GAP + POINTS / 2;
	hct_svg_text(p->out, 20, middle, 13, HCT_SVG_MIDDLE, -90, INK, "relative error");
}

/* Every other layer on a band of its own, with its number below. */
static void draw_layers(const struct plot *p)
{
	double foot = TOP + BARS + GAP + POINTS, labelled = 0;
	unsigned groups = 0;

	for (size_t i = 0, end; i < p->count; i = end) {
		const struct bar *bar = &p->bars[i];
		double x, width;
		char text[16];

		for (end = i + 1;
		     end < p->count && same_group(bar, &p->bars[end]) && bar->stack >= 0;)
			end++;
		x = LEFT + (bar->x - GROUP_GAP / 2) * p->unit;
		width = ((double)(end - i) + GROUP_GAP) * p->unit;
		if (bar->stack < 0)
			continue;
		if (groups++ % 2 == 0) {
			hct_svg_rect(p->out, x, TOP, width, BARS, BAND, NULL);
			hct_svg_rect(p->out, x, TOP + BARS + GAP, width, POINTS, BAND, NULL);
		}
		if (x + width / 2 - labelled < LABEL_WIDTH)
			continue;
		labelled = x + width / 2;
		snprintf(text, sizeof(text), "%u", bar->layer);
		hct_svg_text(p->out, labelled, foot + 16, 11, HCT_SVG_MIDDLE, 0, PALE, text);
	}
}

/* The words before the layer number, below each stack. */
static void draw_stacks(const struct plot *p)
{
	double foot = TOP + BARS + GAP + POINTS;

	for (size_t i = 0, end; i < p->count; i = end) {
		const struct bar *bar = &p->bars[i];
		double middle;
		char *text;

		for (end = i + 1; end < p->count && p->bars[end].stack == bar->stack;)
			end++;
		if (bar->stack < 0 || p->bars[end - 1].x - bar->x < 4)
			continue;
		if (asprintf(&text, "layers of %.*s", (int)(bar->prefix ? bar->prefix - 1 : 0),
			     bar->tensor->name) < 0)
			return;
		middle = LEFT + (bar->x + p->bars[end - 1].x + 1) / 2 * p->unit;
		if ((double)strlen(text) * 7 < (p->bars[end - 1].x - bar->x + 1) * p->unit)
			hct_svg_text(p->out, middle, foot + 36, 12, HCT_SVG_MIDDLE, 0, INK, text);
		free(text);
	}
}

static void draw_tensor(const struct plot *p, const struct bar *bar)
{
	double x = LEFT + bar->x * p->unit, gap = p->unit > 4 ? .12 * p->unit : 0;
	double y = bits_y(p, bar->bits), radius = fmin(fmax(.3 * p->unit, 1.5), 4);
	char *shape = hct_shape_text(bar->tensor), *text = NULL;
	int n;

	if (bar->error > 0)
		n = asprintf(&text, "%s %s %s: %.3f bits a weight, relative error %.3g",
			     bar->tensor->name, bar->tensor->dtype_name, shape ? shape : "",
			     bar->bits, bar->error);
	else
		n = asprintf(&text, "%s %s %s: %.3f bits a weight, lossless", bar->tensor->name,
			     bar->tensor->dtype_name, shape ? shape : "", bar->bits);
	if (n < 0)
		text = NULL;
	hct_svg_rect(p->out, x + gap, y, p->unit - 2 * gap, TOP + BARS - y,
		     bar->error > 0 ? LOSSY : LOSSLESS, text);
	if (bar->error > 0)
		hct_svg_circle(p->out, x + p->unit / 2, error_y(p, bar->error), radius, ERRORS,
			       text);
	free(text);
	free(shape);
}

static void draw_key(const struct plot *p, double x, const char *colour, int round,
		     const char *text)
{
	if (round)
		hct_svg_circle(p->out, x + 5, 63, 4, colour, NULL);
	else
		hct_svg_rect(p->out, x, 58, 10, 10, colour, NULL);
	hct_svg_text(p->out, x + 16, 67, 12, HCT_SVG_START, 0, INK, text);
}

static void draw_heading(const struct plot *p, const char *name)
{
	char from[HCT_UNITS_MAX], to[HCT_UNITS_MAX], text[256], more[64] = "";

	hct_svg_text(p->out, LEFT, 26, 16, HCT_SVG_START, 0, INK, name);
	if (p->left_out)
		snprintf(more, sizeof(more), "; %zu small tensor%s not shown", p->left_out,
			 p->left_out == 1 ? "" : "s");
	snprintf(text, sizeof(text), "%s as %s, ratio %.2f, %.3f bits a weight%s",
		 hct_units_size(p->total.source_bytes, from),
		 hct_units_size(p->total.stored_bytes, to), hct_tally_ratio(&p->total),
		 hct_tally_bits(&p->total), more);
	hct_svg_text(p->out, LEFT, 46, 12, HCT_SVG_START, 0, PALE, text);
	draw_key(p, LEFT, LOSSY, 0, "bits, with loss");
	draw_key(p, LEFT + 120, LOSSLESS, 0, "bits, lossless");
	draw_key(p, LEFT + 234, ERRORS, 1, "relative squared error");
}

static void draw(struct plot *p, const char *name)
{
	lay_out(p);
	hct_svg_begin(p->out, LEFT + p->width + RIGHT, TOP + BARS + GAP + POINTS + BOTTOM, name);
	draw_heading(p, name);
	draw_layers(p);
	draw_axes(p);
	draw_stacks(p);
	for (size_t i = 0; i < p->count; i++)
		draw_tensor(p, &p->bars[i]);
	hct_svg_end(p->out);
}

/* Output ---------------------------------------------------------------------------- */

static hct_error write_file(const struct hct_options *o, const char *text, size_t size,
			    struct hct_diag *diag)
{
	int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (o->force ? O_TRUNC : O_EXCL);
	int fd = open(o->output, flags, 0666);
	hct_error err;

	if (fd < 0 && errno == EEXIST)
		return hct_fail(diag, HCT_ERR_EXISTS, "%s: is there already; -f replaces it",
				o->output);
	if (fd < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be written", o->output);
	err = hct_write_all(fd, o->output, text, size, diag);
	if (close(fd) != 0 && !err)
		err = hct_fail_errno(diag, errno, "%s: cannot be written", o->output);
	return err;
}

/* The last component of a path, whatever slashes are behind it. */
static char *base_of(const char *path)
{
	size_t n = strlen(path), from;

	while (n > 1 && path[n - 1] == '/')
		n--;
	for (from = n; from > 0 && path[from - 1] != '/';)
		from--;
	return strndup(path + from, n - from);
}

static hct_error print_plot(struct plot *p, const struct hct_options *o, const char *path,
			    struct hct_diag *diag)
{
	char *name = base_of(path), *text = NULL;
	size_t size = 0;
	hct_error err = HCT_ERR_NOMEM;

	p->out = open_memstream(&text, &size);
	if (p->out && name) {
		draw(p, name);
		if (fflush(p->out) == 0 && !ferror(p->out))
			err = HCT_OK;
	}
	if (p->out)
		fclose(p->out);
	if (!err && o->output)
		err = write_file(o, text, size, diag);
	else if (!err)
		fwrite(text, 1, size, stdout);
	free(text);
	free(name);
	return err;
}

static hct_error show(const struct hct_opened *b, struct hct_diag *diag)
{
	struct plot plot = {0};
	hct_error err = collect(&plot, b->tree, b->options->details);

	/* Nothing is drawn of a bundle of which no file opens. */
	if (!err && (b->code == HCT_EXIT_OK || plot.total.stored_bytes))
		err = print_plot(&plot, b->options, b->path, diag);
	free(plot.bars);
	return err;
}

static int run(int argc, char **argv)
{
	return hct_show_bundle(&hct_plot_command, argc, argv, "flo", show);
}

const struct hct_command hct_plot_command = {
	.name = "plot", .summary = "draw bits and error of each tensor", .help = help, .run = run};
