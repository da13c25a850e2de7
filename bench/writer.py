"""mkhct from end to end: how fast a whole run is, what memory it takes, and what efforts cost.

    python writer.py BUILD FILE.safetensors WORK [--json FILE] [--quick]

BUILD holds mkhct.  FILE is repeated to about a gigabyte of shards under WORK (200 MB with --quick),
which are compressed with -j1 and -j2, without loss and at the default error; the best of three runs
counts, since a machine is never quiet.  Of each: wall-clock seconds of the whole run, which reads,
plans, codes, hashes, writes and syncs, MB of source and millions of weights a second, CPU seconds,
and the most resident memory, mapped pages of the source included.  Then efforts 1 to 9 on some of
the shards: time against size.  BARS are those of the project for one core, and for two against one.
"""

import argparse
import json
import math
import os
import shutil
import sys
import time

BARS = {"lossless": 400, "lossy": 60}  # MB of source, and millions of weights, a second
SPEED_UP = 1.8
MODES = {"lossless": ["--lossless"], "lossy": []}


class Failed(Exception):
    """A run of mkhct that did not end well."""


def run(command):
    """Runs it; wall-clock seconds, CPU seconds, and the most resident memory in MiB."""
    start = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise Failed(f"{' '.join(command)}: exit {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def weights_of(file):
    """Elements of all tensors of a safetensors file."""
    with open(file, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    return sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")


def compress(build, source, out, options, rounds):
    """The best of some runs, and what the report says."""
    best = None
    for _ in range(rounds):
        shutil.rmtree(out, ignore_errors=True)
        found = run([f"{build}/mkhct", "-q", *options, source, out])
        best = min(best, found) if best else found
    with open(f"{out}/.hct/report.json", encoding="utf-8") as f:
        report = json.load(f)
    shutil.rmtree(out)
    seconds, cpu, memory = best
    weights = sum(weights_of(f"{source}/{name}") for name in os.listdir(source))
    return {"seconds": seconds, "cpu_seconds": cpu, "memory_mib": memory,
            "mb_per_second": report["source_bytes"] / 1e6 / seconds,
            "mweights_per_second": weights / 1e6 / seconds,
            "source_bytes": report["source_bytes"], "stored_bytes": report["stored_bytes"],
            "bits_per_weight": 8 * report["stored_bytes"] / weights}


def shards(file, work, total):
    """Repeats the file; the folder."""
    folder = f"{work}/src"
    os.makedirs(folder)
    count = max(2, round(total / os.path.getsize(file)))
    for i in range(count):
        shutil.copyfile(file, f"{folder}/model-{i + 1:05}-of-{count:05}.safetensors")
    return folder


def verdict(value, bar):
    """How a number stands to its bar."""
    return f"{value / bar:.2f} of the bar of {bar:g}"


def speeds(build, source, out, rounds):
    """Both modes on one and two threads."""
    print("  mode      -j      s   cpu s     MB/s   M weights/s   MiB")
    rows = []
    for mode, options in MODES.items():
        alone = None
        for jobs in (1, 2):
            row = compress(build, source, out, [*options, f"-j{jobs}"], rounds)
            rows.append({"mode": mode, "jobs": jobs, **row})
            note = ""
            if jobs == 1:
                alone = row["seconds"]
                unit = "mb_per_second" if mode == "lossless" else "mweights_per_second"
                note = verdict(row[unit], BARS[mode])
            else:
                gain = alone / row["seconds"]
                note = f"{gain:.2f} times -j1, " + verdict(gain, SPEED_UP)
            print(f"  {mode:8} {jobs:3} {row['seconds']:7.2f} {row['cpu_seconds']:7.2f} "
                  f"{row['mb_per_second']:8.1f} {row['mweights_per_second']:13.1f} "
                  f"{row['memory_mib']:5.0f}   {note}", flush=True)
    return rows


def efforts(build, source, out, wanted):
    """Time against size."""
    print("  effort        s   M weights/s   bits a weight   MiB")
    rows = []
    for effort in wanted:
        row = compress(build, source, out, ["-j1", "--effort", str(effort)], 1)
        rows.append({"effort": effort, **row})
        print(f"  {effort:6} {row['seconds']:8.2f} {row['mweights_per_second']:13.1f} "
              f"{row['bits_per_weight']:15.4f} {row['memory_mib']:5.0f}", flush=True)
    return rows


def main():
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("file")
    parser.add_argument("work")
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    work, out = f"{args.work}/writer", f"{args.work}/writer/out"
    shutil.rmtree(work, ignore_errors=True)
    try:
        source = shards(args.file, work, 2e8 if args.quick else 1e9)
        some = f"{work}/some"
        os.makedirs(some)
        for name in sorted(os.listdir(source))[:2]:
            os.link(f"{source}/{name}", f"{some}/{name}")
        print(f"writer: {len(os.listdir(source))} shards of {os.path.basename(args.file)}, "
              f"{os.cpu_count()} CPUs")
        rows = speeds(args.build, source, out, 1 if args.quick else 3)
        rows += efforts(args.build, some, out, (1, 5, 9) if args.quick else range(1, 10))
    except (Failed, OSError) as e:
        print(f"writer: {e}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
