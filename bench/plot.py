"""Relative squared error against bits a weight, as SVG.

    python plot.py ROWS.json... -o OUT.svg [--title TEXT]

Each file is a list of rows as quantisers.py writes them.  Rows that name the same "series" make a
line with markers; the first series of all is ours, drawn strongest.  Every other row is a point
with its name.  Rows without bits or error are left out.  The dashed line is Shannon's bound for
white Gaussian data, D = 2^(-2R).  The same rows give the same bytes.
"""

import argparse
import json
import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 820, 560
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 52, 58  # margins around the axes
SIZE = 13  # of letters
LETTER = 0.61 * SIZE  # about their mean width
INK, FAINT, PAPER = "#24292f", "#d8dee4", "#ffffff"
PEER, BOUND = "#57606a", "#6e7781"
LINES = ("#0b5cad", "#b35900", "#1a7f37", "#8250df", "#a40e26")
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Axes:
    """From bits and error to places on the page."""

    def __init__(self, points):
        bits, errors = zip(*points)
        self.first, self.last = math.floor(min(bits) - 0.3), math.ceil(max(bits) + 0.3)
        self.first = max(self.first, 0)
        # to a quarter of a decade, with some air
        self.high = math.ceil(4 * math.log10(max(errors)) + 0.5) / 4
        self.low = min(math.floor(4 * math.log10(min(errors)) - 0.5) / 4, self.high - 1)

    def x(self, bits):
        return LEFT + (WIDTH - LEFT - RIGHT) * (bits - self.first) / (self.last - self.first)

    def y(self, error):
        share = (self.high - math.log10(error)) / (self.high - self.low)
        return TOP + (HEIGHT - TOP - BOTTOM) * share

    def place(self, point):
        return self.x(point[0]), self.y(point[1])


def text(x, y, words, colour=INK, anchor="start", extra=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}"{extra}>'
            f"{escape(words)}</text>")


def line(a, b, colour, width=1.0, extra=""):
    return (f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"'
            f' stroke="{colour}" stroke-width="{width:g}"{extra}/>')


def grid(axes, title):
    out = []
    for bits in range(axes.first, axes.last + 1):
        x = axes.x(bits)
        out.append(line((x, TOP), (x, HEIGHT - BOTTOM), FAINT))
        out.append(text(x, HEIGHT - BOTTOM + 20, str(bits), anchor="middle"))
    for power in range(math.ceil(axes.low), math.floor(axes.high) + 1):
        y = axes.y(10.0 ** power)
        out.append(line((LEFT, y), (WIDTH - RIGHT, y), FAINT))
        label = {0: "1", -1: "0.1", -2: "0.01", -3: "0.001"}.get(power)
        label = label or "10" + str(power).translate(SUPERSCRIPT)
        out.append(text(LEFT - 8, y + 4.5, label, anchor="end"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    out.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, "bits a weight", anchor="middle"))
    out.append(text(20, middle, "relative squared error", anchor="middle",
                    extra=f' transform="rotate(-90 20 {middle:.1f})"'))
    out.append(text(LEFT, 30, title, extra=' font-size="16" font-weight="bold"'))
    return out


class Label:
    """Words beside the marker at one of some places; place, box, anchor and leader say where they
    came to lie."""

    def __init__(self, places, words, colour=INK, extra=""):
        self.places, self.words, self.colour, self.extra = places, words, colour, extra
        self.place = places[len(places) // 2]
        self.cost, self.box, self.anchor, self.at, self.leader = math.inf, None, None, None, []

    def candidates(self, place):
        """Boxes around a marker, the preferred ones cheapest: (cost, anchor, at, box)."""
        width = LETTER * len(self.words)
        for ring in range(7):
            gap = 9 + 8 * ring
            for k in range(8 if ring < 2 else 16):
                angle = 2 * math.pi * k / (8 if ring < 2 else 16)
                dx, dy = math.cos(angle), math.sin(angle)
                anchor = "start" if dx > 0.1 else "end" if dx < -0.1 else "middle"
                x, y = place[0] + gap * dx, place[1] + (gap + 3) * dy
                left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
                area = (left, y - 0.5 * SIZE, left + width, y + 0.5 * SIZE)
                yield 14 * ring + 3 * (1 - dx), anchor, (x, y + 0.35 * SIZE), area

    def settle(self, obstacles, others):
        """Takes the cheapest place.  obstacles: boxes of markers and lines; others: Labels."""
        boxes = [other.box for other in others if other.box]
        leaders = [b for other in others for b in other.leader]
        places = [other.place for other in others]
        self.cost = math.inf
        choices = [(place, *choice) for place in self.places for choice in self.candidates(place)]
        for place, cost, anchor, at, area in choices:
            away = math.dist(place, nearest(area, place))
            leader = []
            if away > 15:
                path = list(samples([place, nearest(area, place)]))
                leader = [b for b in path if math.dist(b[:2], place) > 10]
                cost += 15
            cost += 3 * crossing([area], obstacles + boxes + leaders)
            cost += 2 * crossing(leader, obstacles + boxes + leaders)
            # nearer to somebody else's marker than to its own
            cost += sum(20 for p in places if math.dist(p, nearest(area, p)) < min(away, 14) + 3)
            if not (LEFT < area[0] and area[2] < WIDTH - 6 and TOP < area[1]
                    and area[3] < HEIGHT - BOTTOM):
                cost += 10000
            if cost < self.cost:
                self.cost, self.anchor, self.at, self.box = cost, anchor, at, area
                self.place, self.leader = place, leader

    def svg(self):
        out = []
        if self.leader:
            out.append(line(self.place, nearest(self.box, self.place), self.colour, 0.7))
        return out + [text(*self.at, self.words, self.colour, self.anchor, self.extra)]


def nearest(area, p):
    """The place of a box (left, top, right, bottom) that is nearest to p."""
    return min(max(p[0], area[0]), area[2]), min(max(p[1], area[1]), area[3])


def crossing(mine, others):
    """Area that boxes of the one list share with boxes of the other."""
    return sum(max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
               * max(0.0, min(a[3], b[3]) - max(a[1], b[1])) for a in mine for b in others)


def samples(path):
    """Small boxes along a path, for labels to keep clear of."""
    for a, b in zip(path, path[1:]):
        steps = max(1, int(math.dist(a, b) / 6))
        for k in range(steps + 1):
            x, y = a[0] + (b[0] - a[0]) * k / steps, a[1] + (b[1] - a[1]) * k / steps
            yield x - 3, y - 3, x + 3, y + 3


def settle(labels, obstacles):
    """Every label in turn, again and again until none moves."""
    for _ in range(20):
        before = [label.box for label in labels]
        for label in labels:
            label.settle(obstacles, [other for other in labels if other is not label])
        if before == [label.box for label in labels]:
            break


def curve(places, colour, width):
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    out = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>']
    out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width + 2:g}" fill="{colour}"/>'
            for x, y in places]
    return out


def bound(axes):
    """Shannon's line within the axes, from top left to bottom right."""
    first = max(axes.first, -axes.high / 2 * math.log2(10))
    last = min(axes.last, -axes.low / 2 * math.log2(10))
    return [axes.place((r, 4.0 ** -r)) for r in (first, last)]


def draw(rows, title):
    """The SVG text of rows."""
    points = [(r, (r.get("bits") or 0, r.get("relative_squared_error") or 0)) for r in rows]
    points = [(r, p) for r, p in points if min(p) > 0]
    if not points:
        raise SystemExit("plot: no rows with bits and an error above 0")
    axes = Axes([p for _, p in points])
    series, alone = {}, []
    for row, p in points:
        if row.get("series"):
            series.setdefault(row["series"], []).append(axes.place(p))
        else:
            alone.append((row["name"], axes.place(p)))
    shannon = bound(axes)
    out = grid(axes, title)
    out.append(line(*shannon, BOUND, 1.5, ' stroke-dasharray="6 4"'))
    obstacles, labels = list(samples(shannon)), []
    for k, (name, places) in enumerate(series.items()):
        places.sort()
        colour = LINES[k % len(LINES)]
        out += curve(places, colour, 1.5 if k else 2.5)
        obstacles += [*samples(places), *((x - 5, y - 5, x + 5, y + 5) for x, y in places)]
        middle = len(places) // 2
        ends = [places[0], places[middle], places[-1]] if k else [places[middle]]
        labels.append(Label(ends, name, colour,
                            "" if k else ' font-weight="bold"'))
    for name, (x, y) in alone:
        out.append(f'<path d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z" fill="{PEER}"/>')
        obstacles.append((x - 5, y - 5, x + 5, y + 5))
        labels.append(Label([(x, y)], name))
    along = [tuple((1 - t) * a + t * b for a, b in zip(*shannon)) for t in (0.8, 0.9, 0.97)]
    labels.append(Label(along, "Shannon's bound, white Gaussian", BOUND))
    settle(labels, obstacles)
    for label in labels:
        out += label.svg()
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            f' width="{WIDTH}" height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif"'
            f' font-size="{SIZE}">')
    page = f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{PAPER}"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", page, *out, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="+", metavar="ROWS.json")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.svg")
    parser.add_argument("--title", default="Error against size")
    args = parser.parse_args()
    rows = []
    for path in args.rows:
        with open(path) as file:
            rows += json.load(file)
    svg = draw(rows, args.title)
    with open(args.output, "w", encoding="utf-8") as file:
        file.write(svg)


if __name__ == "__main__":
    main()
