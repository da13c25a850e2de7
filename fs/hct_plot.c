/* hct plot: bits and error of every tensor, as SVG. */
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
#include "hct_bars.h"
#include "hct_bundle.h"
#include "hct_cli.h"
#include "svg.h"
#include "text.h"

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
#define NAME_WIDTH  11. /* from name to name; they stand upright */
#define LETTER      6.6 /* width of one */
#define CUT_WIDTH   26. /* from figure to figure above bars */

/* Tensors outside all layers that are named, and the bytes of a name that are shown. */
#define MOST_NAMED  24
#define NAME_LENGTH 32

/* Bars of more than this times the bits of what has loss, or of the whole bundle, are cut off. */
#define MOST_TIMES 4

#define INK      "#24292f"
#define PALE     "#6e7781"
#define PAPER    "#ffffff"
#define GRID     "#d8dee4"
#define BAND     "#f3f5f7"
#define LOSSY    "#2f6db3"
#define LOSSLESS "#aab2bd"
#define ERRORS   "#c8442f"

struct plot {
	struct hct_bars all;
	double width;        /* of the drawing area, and */
	double unit;         /* of a bar with its share of gaps */
	double most_bits;    /* at the top */
	int cut;             /* some have more */
	size_t lone;         /* bars outside all layers */
	int named;           /* each of them has its name below */
	double bottom;       /* height of what is below the points */
	int decade, decades; /* the error axis: 10^decade at the top, down by so many */
	FILE *out;
};

/* Places and scales ----------------------------------------------------------------- */

/* Lossless tensors may have many times the bits of the others: what these have decides. */
static void scale_bits(struct plot *p)
{
	double most = 1, lossy = 0, limit;

	for (size_t i = 0; i < p->all.count; i++) {
		most = fmax(most, p->all.bars[i].bits);
		if (p->all.bars[i].error > 0)
			lossy = fmax(lossy, p->all.bars[i].bits);
	}
	limit = fmax(1, MOST_TIMES * (lossy > 0 ? lossy : hct_tally_bits(&p->all.total)));
	most = fmin(most, limit);
	p->most_bits = most <= 4 ? ceil(most) : most <= 8 ? 2 * ceil(most / 2) : 4 * ceil(most / 4);
	for (size_t i = 0; i < p->all.count; i++)
		p->cut |= p->all.bars[i].bits > p->most_bits;
}

static void scale_errors(struct plot *p)
{
	double least = 1, most = 0;

	for (size_t i = 0; i < p->all.count; i++) {
		if (p->all.bars[i].error > 0) {
			least = fmin(least, p->all.bars[i].error);
			most = fmax(most, p->all.bars[i].error);
		}
	}
	if (!(most > 0))
		most = least = 1e-2;
	p->decade = (int)ceil(log10(most));
	p->decades = p->decade - (int)floor(log10(least));
	p->decades = p->decades < 1 ? 1 : p->decades;
}

/* Bytes of a name up to the word in which it differs from that of another tensor. */
static size_t words_shared(const char *name, const char *other)
{
	size_t n = 0, shared = 0;

	for (; name[n] && name[n] == other[n]; n++)
		if (strchr("./", name[n]))
			shared = n + 1;
	return name[n] || other[n] ? shared : 0;
}

/* The name of a lone tensor; of a long one the end and what tells it from those beside it.  Free
 * it. */
static char *short_name(const struct plot *p, const struct hct_bar *bar)
{
	const char *name = bar->tensor->name, *more = "\xe2\x80\xa6";
	size_t shared = 0, next = 0, n, head = NAME_LENGTH / 2 - 2, tail;
	char *shown, *text;

	if (strlen(name) > NAME_LENGTH && bar > p->all.bars)
		shared = words_shared(name, bar[-1].tensor->name);
	if (strlen(name) > NAME_LENGTH && bar + 1 < p->all.bars + p->all.count)
		next = words_shared(name, bar[1].tensor->name);
	shared = next > shared ? next : shared;
	shown = hct_text_printable(name + shared);
	if (!shown)
		return NULL;
	n = strlen(shown);
	tail = n - NAME_LENGTH / 2;
	while (n > NAME_LENGTH && (shown[head] & 0xc0) == 0x80)
		head--;
	while (n > NAME_LENGTH && (shown[tail] & 0xc0) == 0x80)
		tail++;
	if (n > NAME_LENGTH)
		n = (size_t)asprintf(&text, "%s%.*s%s%s", shared ? more : "", (int)head, shown,
				     more, shown + tail);
	else
		n = (size_t)asprintf(&text, "%s%s", shared ? more : "", shown);
	free(shown);
	return n == (size_t)-1 ? NULL : text;
}

/* Decides whether lone tensors have names below, and how much room these take. */
static void place_names(struct plot *p)
{
	const struct hct_bar *last = NULL;
	double closest = NAME_WIDTH;
	size_t longest = 0;

	for (size_t i = 0; i < p->all.count; i++) {
		const struct hct_bar *bar = &p->all.bars[i];

		if (bar->stack >= 0)
			continue;
		if (p->lone++)
			closest = fmin(closest, (bar->x - last->x) * p->unit);
		last = bar;
	}
	p->named = p->lone && p->lone <= MOST_NAMED && closest >= NAME_WIDTH;
	for (size_t i = 0; p->named && i < p->all.count; i++) {
		char *name = p->all.bars[i].stack < 0 ? short_name(p, &p->all.bars[i]) : NULL;

		if (name && strlen(name) > longest)
			longest = strlen(name);
		free(name);
	}
	p->bottom = BOTTOM;
	if (longest)
		p->bottom = fmax(BOTTOM, 36 + ceil(LETTER * (double)longest));
}

static void lay_out(struct plot *p)
{
	double x = GROUP_GAP;

	for (size_t i = 0; i < p->all.count; i++) {
		struct hct_bar *bar = &p->all.bars[i];

		if (i && !hct_bars_same_layer(bar, bar - 1))
			x += GROUP_GAP;
		bar->x = x++;
	}
	x += GROUP_GAP;
	p->width = fmin(fmax(x * BAR_WIDTH, LEAST_WIDTH), MOST_WIDTH);
	p->unit = fmin(p->width / x, 40);
	scale_bits(p);
	scale_errors(p);
	place_names(p);
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

/* The name of a lone tensor below it. */
static void draw_name(const struct plot *p, const struct hct_bar *bar)
{
	char *text = short_name(p, bar);

	if (text)
		hct_svg_text(p->out, LEFT + (bar->x + .5) * p->unit + 4,
			     TOP + BARS + GAP + POINTS + 8, 11, HCT_SVG_END, -90, PALE, text);
	free(text);
}

/* Every other layer on a band of its own, with its number below. */
static void draw_layers(const struct plot *p)
{
	double foot = TOP + BARS + GAP + POINTS, labelled = 0;
	unsigned groups = 0;

	for (size_t i = 0, end; i < p->all.count; i = end) {
		const struct hct_bar *bar = &p->all.bars[i];
		double x, width, room = LABEL_WIDTH;
		char text[16] = "other";

		for (end = i + 1;
		     end < p->all.count && hct_bars_same_layer(bar, &p->all.bars[end]);)
			end++;
		x = LEFT + (bar->x - GROUP_GAP / 2) * p->unit;
		width = ((double)(end - i) + GROUP_GAP) * p->unit;
		if (bar->stack >= 0) {
			if (groups++ % 2 == 0) {
				hct_svg_rect(p->out, x, TOP, width, BARS, BAND, NULL);
				hct_svg_rect(p->out, x, TOP + BARS + GAP, width, POINTS, BAND,
					     NULL);
			}
			snprintf(text, sizeof(text), "%u", bar->layer);
		} else if (p->named || p->lone == p->all.count) {
			continue;
		} else {
			room += LABEL_WIDTH / 2;
		}
		if (x + width / 2 - labelled < room)
			continue;
		labelled = x + width / 2 + room - LABEL_WIDTH;
		hct_svg_text(p->out, x + width / 2, foot + 16, 11, HCT_SVG_MIDDLE, 0, PALE, text);
	}
	for (size_t i = 0; p->named && i < p->all.count; i++)
		if (p->all.bars[i].stack < 0)
			draw_name(p, &p->all.bars[i]);
}

/* The words before the layer number, below each stack with room for them; where there is none,
 * what the axis shows. */
static void draw_stacks(const struct plot *p)
{
	double foot = TOP + BARS + GAP + POINTS;
	int titled = 0;

	for (size_t i = 0, end; i < p->all.count; i = end) {
		const struct hct_bar *bar = &p->all.bars[i];
		double middle;
		char *text;

		for (end = i + 1; end < p->all.count && p->all.bars[end].stack == bar->stack;)
			end++;
		if (bar->stack < 0 || p->all.bars[end - 1].x - bar->x < 4)
			continue;
		if (asprintf(&text, "layers of %.*s", (int)(bar->prefix ? bar->prefix - 1 : 0),
			     bar->tensor->name) < 0)
			return;
		middle = LEFT + (bar->x + p->all.bars[end - 1].x + 1) / 2 * p->unit;
		if ((double)strlen(text) * 7 < (p->all.bars[end - 1].x - bar->x + 1) * p->unit) {
			hct_svg_text(p->out, middle, foot + 36, 12, HCT_SVG_MIDDLE, 0, INK, text);
			titled = 1;
		}
		free(text);
	}
	if (titled || !p->all.count)
		return;
	hct_svg_text(p->out, LEFT + (p->all.bars[p->all.count - 1].x + 1 + GROUP_GAP) / 2 * p->unit,
		     foot + p->bottom - 20, 12, HCT_SVG_MIDDLE, 0, INK,
		     p->lone == p->all.count ? "tensors" : "layers");
}

static void draw_tensor(const struct plot *p, const struct hct_bar *bar)
{
	double x = LEFT + bar->x * p->unit, gap = p->unit > 4 ? .12 * p->unit : 0;
	double y = bits_y(p, fmin(bar->bits, p->most_bits)),
	       radius = fmin(fmax(.3 * p->unit, 1.5), 4);
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

/* A gap in each bar that is cut off, and above it the bits where there is room for them. */
static void draw_cuts(const struct plot *p)
{
	double written = 0;
	char text[16];

	for (size_t i = 0; i < p->all.count; i++) {
		double x = LEFT + p->all.bars[i].x * p->unit;

		if (p->all.bars[i].bits <= p->most_bits)
			continue;
		hct_svg_rect(p->out, x, TOP + 10, p->unit, 4, PAPER, NULL);
		if (x - written < CUT_WIDTH)
			continue;
		written = x;
		snprintf(text, sizeof(text), "%.1f", p->all.bars[i].bits);
		hct_svg_text(p->out, x + p->unit / 2, TOP - 4, 10, HCT_SVG_MIDDLE, 0, PALE, text);
	}
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
	if (p->all.left_out)
		snprintf(more, sizeof(more), "; %zu small tensor%s not shown", p->all.left_out,
			 p->all.left_out == 1 ? "" : "s");
	snprintf(text, sizeof(text), "%s as %s, ratio %.2f, %.3f bits a weight%s%s",
		 hct_units_size(p->all.total.source_bytes, from),
		 hct_units_size(p->all.total.stored_bytes, to), hct_tally_ratio(&p->all.total),
		 hct_tally_bits(&p->all.total), more, p->cut ? "; high bars cut off" : "");
	hct_svg_text(p->out, LEFT, 46, 12, HCT_SVG_START, 0, PALE, text);
	draw_key(p, LEFT, LOSSY, 0, "bits, with loss");
	draw_key(p, LEFT + 120, LOSSLESS, 0, "bits, lossless");
	draw_key(p, LEFT + 234, ERRORS, 1, "relative squared error");
}

static void draw(struct plot *p, const char *name)
{
	lay_out(p);
	hct_svg_begin(p->out, LEFT + p->width + RIGHT, TOP + BARS + GAP + POINTS + p->bottom, name);
	draw_heading(p, name);
	draw_layers(p);
	draw_axes(p);
	draw_stacks(p);
	for (size_t i = 0; i < p->all.count; i++)
		draw_tensor(p, &p->all.bars[i]);
	draw_cuts(p);
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
	hct_error err = hct_bars_collect(b->tree, b->options->details, &plot.all);

	/* Nothing is drawn of a bundle of which no file opens. */
	if (!err && (b->code == HCT_EXIT_OK || plot.all.total.stored_bytes))
		err = print_plot(&plot, b->options, b->path, diag);
	hct_bars_free(&plot.all);
	return err;
}

static int run(int argc, char **argv)
{
	return hct_show_bundle(&hct_plot_command, argc, argv, "flo", show);
}

const struct hct_command hct_plot_command = {
	.name = "plot", .summary = "draw bits and error of each tensor", .help = help, .run = run};
