"""One table of the rows of several coders, sorted by bits.

    python table.py ROWS.json...

The files are lists of rows as quantisers.py and bench_lossy write them.  Of rows with one name the
first is shown; rows without bits are listed at the end, with the reason.
"""

import json
import sys


def figure(row, name, form):
    value = row.get(name)
    return format(value, form) if isinstance(value, (int, float)) else " " * int(form.split(".")[0])


def main():
    found = {}
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            for row in json.load(file):
                found.setdefault(row["name"], row)
    rows = list(found.values())
    print(f"  {'':<28} {'bits':>8} {'error':>11} {'cosine':>9} {'enc Mw/s':>10} {'dec Mw/s':>10}")
    for row in sorted((r for r in rows if r.get("bits")), key=lambda r: r["bits"]):
        print(f"  {row['name']:<28} {figure(row, 'bits', '8.4f')}"
              f" {figure(row, 'relative_squared_error', '11.3e')} {figure(row, 'cosine', '9.6f')}"
              f" {figure(row, 'encode_mweights', '10.1f')}"
              f" {figure(row, 'decode_mweights', '10.0f')}")
    for row in rows:
        if not row.get("bits"):
            print(f"  {row['name']:<28} {row.get('note', '')}")


if __name__ == "__main__":
    main()
