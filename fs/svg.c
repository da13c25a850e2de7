#include "svg.h"

#include <stdlib.h>
#include <string.h>

#include "text.h"

static const char *const anchors[] = {
	[HCT_SVG_START] = "start", [HCT_SVG_MIDDLE] = "middle", [HCT_SVG_END] = "end"};

void hct_svg_escape(FILE *out, const char *text)
{
	char *shown = hct_text_printable(text);

	for (const char *c = shown ? shown : ""; *c; c++) {
		/* U+FFFE and U+FFFF are no characters of XML. */
		if (strncmp(c, "\xef\xbf\xbe", 3) == 0 || strncmp(c, "\xef\xbf\xbf", 3) == 0) {
			fputs("\xef\xbf\xbd", out);
			c += 2;
		} else if (*c == '&') {
			fputs("&amp;", out);
		} else if (*c == '<') {
			fputs("&lt;", out);
		} else if (*c == '>') {
			fputs("&gt;", out);
		} else if (*c == '"') {
			fputs("&quot;", out);
		} else if (*c == '\'') {
			fputs("&#39;", out);
		} else {
			fputc(*c, out);
		}
	}
	free(shown);
}

void hct_svg_begin(FILE *out, double width, double height, const char *title)
{
	fprintf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
		"viewBox=\"0 0 %.0f %.0f\" font-family=\"Helvetica, Arial, sans-serif\">\n<title>",
		width, height, width, height);
	hct_svg_escape(out, title);
	fputs("</title>\n", out);
	hct_svg_rect(out, 0, 0, width, height, "#ffffff", NULL);
}

void hct_svg_end(FILE *out)
{
	fputs("</svg>\n", out);
}

/* Ends an element that has been left open before its '>'. */
static void end_element(FILE *out, const char *name, const char *tooltip)
{
	if (!tooltip) {
		fputs("/>\n", out);
		return;
	}
	fputs("><title>", out);
	hct_svg_escape(out, tooltip);
	fprintf(out, "</title></%s>\n", name);
}

void hct_svg_rect(FILE *out, double x, double y, double width, double height, const char *colour,
		  const char *tooltip)
{
	fprintf(out, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\"", x, y,
		width, height, colour);
	end_element(out, "rect", tooltip);
}

void hct_svg_circle(FILE *out, double x, double y, double radius, const char *colour,
		    const char *tooltip)
{
	fprintf(out, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"%.2f\" fill=\"%s\"", x, y, radius,
		colour);
	end_element(out, "circle", tooltip);
}

void hct_svg_line(FILE *out, double x1, double y1, double x2, double y2, const char *colour)
{
	fprintf(out, "<line x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\" stroke=\"%s\"/>\n", x1,
		y1, x2, y2, colour);
}

void hct_svg_text(FILE *out, double x, double y, double size, enum hct_svg_anchor anchor,
		  double angle, const char *colour, const char *text)
{
	fprintf(out,
		"<text x=\"%.2f\" y=\"%.2f\" font-size=\"%.0f\" text-anchor=\"%s\" fill=\"%s\"", x,
		y, size, anchors[anchor], colour);
	if (angle != 0)
		fprintf(out, " transform=\"rotate(%.0f %.2f %.2f)\"", angle, x, y);
	fputc('>', out);
	hct_svg_escape(out, text);
	fputs("</text>\n", out);
}
