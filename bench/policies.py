"""mkhct's policies on a model: what each spends where the error is to differ from tensor to tensor.

    python policies.py BUILD MODEL GROUP... [--json FILE] [--quick]

BUILD holds mkhct and hct, MODEL is a directory; groups are adaptive, importance and layers (the
policies hybrid and layertype).  Of each run: bits a weight of whole files, relative squared error
and cosine over all tensors, the worst cosine of any, as `hct compare` measures them, wall-clock
seconds of mkhct, and the bits that the uniform policy takes for the same total error.  A policy
that spends more than that has moved error from some tensors to others, which is its purpose.
"""

import argparse
import json
import math
import os
import subprocess
import tempfile
import time

QUALITIES = (0.95, 0.98, 0.99, 0.995, 0.999)
BASES = (0.5, 0.6, 0.7, 0.8)


def runs(group):
    """Names and options of the runs of a group."""
    if group == "adaptive":
        for q in QUALITIES:
            yield f"adaptive, quality {q:g}", ["--policy", "adaptive", "--target-quality", str(q)]
    elif group == "importance":
        for base in BASES:
            yield f"importance, base {base:.2f}", ["--policy", "importance",
                                                   "--retention", str(base)]
    elif group == "layers":
        yield "hybrid", ["--policy", "hybrid"]
        yield "layertype", ["--policy", "layertype"]
    else:
        raise SystemExit(f"policies: no group of that name: {group}")


class Failed(Exception):
    pass


def compress(build, model, options):
    """Compresses into a folder that is gone afterwards; the totals and seconds."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(model))) as folder:
        bundle = os.path.join(folder, "bundle")
        start = time.monotonic()
        made = subprocess.run([f"{build}/mkhct", "-q", *options, model, bundle], text=True,
                              capture_output=True, check=False)
        seconds = time.monotonic() - start
        if made.returncode:
            raise Failed((made.stderr.strip() or f"exit code {made.returncode}").splitlines()[-1])
        found = subprocess.run([f"{build}/hct", "compare", "--json", model, bundle], text=True,
                               capture_output=True, check=False)
        if found.returncode:
            raise Failed((found.stderr.strip() or "hct compare failed").splitlines()[-1])
        report = json.loads(found.stdout)
    total = report["total"]
    total["worst"] = min(t["cosine"] for t in report["tensors"])
    return total, seconds


def measure(build, model, options):
    total, seconds = compress(build, model, options)
    error, uniform = total["relative_squared_error"], None
    if error:
        same, _ = compress(build, model, ["--snr", repr(-10 * math.log10(error))])
        uniform = same["bits_per_weight"]
        uniform += 0.5 * math.log2(same["relative_squared_error"] / error)
    return {"bits": total["bits_per_weight"], "relative_squared_error": error,
            "cosine": total["cosine"], "worst_cosine": total["worst"], "seconds": seconds,
            "uniform_bits": uniform}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("model")
    parser.add_argument("groups", nargs="+")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="one run of each group")
    args = parser.parse_args()
    print("policies of mkhct, whole files")
    print(f"  {'':<28} {'bits':>8} {'error':>11} {'cosine':>9} {'worst':>9} {'seconds':>8}"
          "  uniform at that error, bits")
    rows = []
    for group in args.groups:
        for name, options in list(runs(group))[:1 if args.quick else None]:
            row = {"name": name, "bits": None, "relative_squared_error": None, "note": ""}
            try:
                row.update(measure(args.build, args.model, options))
                uniform = row["uniform_bits"]
                print(f"  {name:<28} {row['bits']:8.4f} {row['relative_squared_error']:11.3e}"
                      f" {row['cosine']:9.6f} {row['worst_cosine']:9.6f} {row['seconds']:8.1f}"
                      f" {format(uniform, '8.4f') if uniform else ''}", flush=True)
            except (Failed, OSError, ValueError, KeyError) as error:
                row["note"] = str(error)
                print(f"  {name:<28} not available: {error}", flush=True)
            rows.append(row)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
