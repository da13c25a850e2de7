/* Drawing in SVG: the few shapes that a plot needs, written to a stream as they come.
 *
 * Lengths are in pixels from the top left corner, colours are CSS.  Text may be anything: what
 * XML does not allow or would read as markup is escaped.  Errors of the stream stay in it. */
#ifndef HCTFS_SVG_H
#define HCTFS_SVG_H

#include <stdio.h>

enum hct_svg_anchor { HCT_SVG_START, HCT_SVG_MIDDLE, HCT_SVG_END };

/* Begins a drawing with a white background; title is for those who cannot see it. */
void hct_svg_begin(FILE *out, double width, double height, const char *title);
void hct_svg_end(FILE *out);

/* tooltip: shown where the pointer rests, or NULL; also below. */
void hct_svg_rect(FILE *out, double x, double y, double width, double height, const char *colour,
		  const char *tooltip);
void hct_svg_circle(FILE *out, double x, double y, double radius, const char *colour,
		    const char *tooltip);
void hct_svg_line(FILE *out, double x1, double y1, double x2, double y2, const char *colour);

/* size: of the letters; y: of the line that they stand on; angle: degrees clockwise around that
 * point. */
void hct_svg_text(FILE *out, double x, double y, double size, enum hct_svg_anchor anchor,
		  double angle, const char *colour, const char *text);

/* Text as XML content and as the value of an attribute. */
void hct_svg_escape(FILE *out, const char *text);

#endif
