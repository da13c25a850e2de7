"""mkhct from end to end: how fast a whole run is, what memory it takes, and what efforts cost.

    python writer.py BUILD FILE.safetensors WORK [--json FILE] [--quick]

BUILD holds mkhct.  FILE is repeated to about a gigabyte of shards under WORK (200 MB with --quick),
once as it is, and once with its matrices of one shape stacked to large ones, COPIES of each in a
shard, more like the files of a large model.
Both are compressed with -j1 on one CPU, which then hashes and writes, too, and with -j2 on two,
without loss and at the default error; the best of three runs counts, since a machine is never
quiet.  Of each: wall-clock seconds of the whole run, which reads,
plans, codes, hashes, writes and syncs, MB of source and millions of weights a second, CPU seconds,
and the most resident memory, mapped pages of the source included.  Then efforts 1 to 9 on some of
the shards: time against size.  BARS are those of the project for one core, and for two against one.
Then how well the bar foretells the time that is left (timeleft.py), on LONGER times as many shards.
Last, the most resident memory for a sparse shard of 8 GiB (1 GiB with --quick) that is mostly one
tensor (shard.py), against --memory, which bounds it.
"""

import argparse
import json
import math
import os
import shutil
import sys
import time

import shard
import timeleft

BARS = {"lossless": 400, "lossy": 60}  # MB of source, and millions of weights, a second
SPEED_UP = 1.8
COPIES = 8
LONGER = {"lossless": 24, "lossy": 6}
MODES = {"lossless": ["--lossless"], "lossy": []}


class Failed(Exception):
    """A run of mkhct that did not end well."""


def run(command, cpus=None):
    """Runs it, on so many CPUs; wall-clock seconds, CPU seconds, and the most resident memory in
    MiB."""
    usable = os.sched_getaffinity(0)
    start = time.perf_counter()
    try:
        os.sched_setaffinity(0, sorted(usable)[:cpus])
        pid = os.posix_spawnp(command[0], command, os.environ)
    finally:
        os.sched_setaffinity(0, usable)
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


def compress(build, source, out, options, rounds, cpus=None):
    """The best of some runs, and what the report says."""
    best = None
    for _ in range(rounds):
        shutil.rmtree(out, ignore_errors=True)
        found = run([f"{build}/mkhct", "-q", *options, source, out], cpus)
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
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    count = max(2, round(total / os.path.getsize(file)))
    for i in range(count):
        shutil.copyfile(file, f"{folder}/model-{i + 1:05}-of-{count:05}.safetensors")
    return folder


def stack(file, path):
    """Writes the tensors of a file again, COPIES times: those of one dtype and shape as one."""
    with open(file, "rb") as f:
        start = 8 + int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(start - 8))
        header.pop("__metadata__", None)
        alike = {}
        for tensor in header.values():
            if tensor["shape"]:
                alike.setdefault((tensor["dtype"], *tensor["shape"]), []).append(tensor)
        out, at = {}, 0
        for (dtype, *shape), tensors in COPIES * list(alike.items()):
            size = sum(t["data_offsets"][1] - t["data_offsets"][0] for t in tensors)
            rows = len(tensors) * shape[0]
            out[f"stack.{len(out)}.weight"] = {"dtype": dtype, "shape": [rows, *shape[1:]],
                                               "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(out).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as to:
            to.write(len(text).to_bytes(8, "little") + text)
            for tensors in COPIES * list(alike.values()):
                for tensor in tensors:
                    begin, end = tensor["data_offsets"]
                    f.seek(start + begin)
                    to.write(f.read(end - begin))


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
            row = compress(build, source, out, [*options, f"-j{jobs}"], rounds, jobs)
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
        row = compress(build, source, out, ["-j1", "--effort", str(effort)], 1, 1)
        rows.append({"effort": effort, **row})
        print(f"  {effort:6} {row['seconds']:8.2f} {row['mweights_per_second']:13.1f} "
              f"{row['bits_per_weight']:15.4f} {row['memory_mib']:5.0f}", flush=True)
    return rows


def times_left(build, source, work, out):
    """What the bar foretells, in runs of about a minute on one core."""
    rows = []
    print("  time left")
    for mode, options in MODES.items():
        longer = f"{work}/longer-{mode}"
        os.makedirs(longer)
        for name in os.listdir(source):
            for i in range(LONGER[mode]):
                os.link(f"{source}/{name}", f"{longer}/{i}-{name[6:11]}.safetensors")
        for jobs in (1, 2):
            command = [f"{build}/mkhct", f"-j{jobs}", *options, longer, out]
            found = timeleft.judge(*timeleft.record(command))
            rows.append({"mode": mode, "jobs": jobs, "time_left": found})
            print(f"  {mode:8} {jobs:3} {timeleft.line_of(found)}", flush=True)
            shutil.rmtree(out)
        shutil.rmtree(longer)
    return rows


def memories(build, work, size):
    """The most resident memory for a large sparse shard, against what it may be."""
    source, out = f"{work}/sparse", f"{work}/out"
    os.makedirs(source)
    shard.make(f"{source}/model.safetensors", size)
    tensor = next(iter(shard.matrices(size)))[1]
    print(f"  a shard of {size / 2**30:g} GiB with a tensor of "
          f"{2 * math.prod(tensor) / 2**30:.2g} GiB\n"
          "  mode      -j --memory      s   MiB", flush=True)
    rows = []
    for mode, options in MODES.items():
        for jobs, bound in ((2, 1024), (2, 256), (8, 256)):
            row = compress(build, source, out, [*options, f"-j{jobs}", "--memory", f"{bound}M"], 1)
            rows.append({"mode": mode, "jobs": jobs, "bound_mib": bound, "sparse": True, **row})
            print(f"  {mode:8} {jobs:3} {bound:7}M {row['seconds']:7.1f} {row['memory_mib']:5.0f}   "
                  f"{verdict(row['memory_mib'], bound)}", flush=True)
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
        large = f"{work}/stacked.safetensors"
        stack(args.file, large)
        some = f"{work}/some"
        os.makedirs(some)
        for i, name in enumerate(sorted(os.listdir(source))[:2]):
            os.link(f"{source}/{name}", f"{some}/{i}.safetensors")
        print(f"writer: {len(os.listdir(source))} shards of {os.path.basename(args.file)}, "
              f"{os.cpu_count()} CPUs")
        rows = speeds(args.build, source, out, 1 if args.quick else 3)
        source = shards(large, work, 2e8 if args.quick else 1e9)
        print(f"  the same, stacked to {len(os.listdir(source))} shards of large matrices")
        rows += speeds(args.build, source, out, 1 if args.quick else 3)
        rows += efforts(args.build, some, out, (1, 5, 9) if args.quick else range(1, 10))
        if not args.quick:
            rows += times_left(args.build, source, work, out)
        rows += memories(args.build, work, 1 << 30 if args.quick else 8 << 30)
    except (Failed, timeleft.Failed, OSError) as e:
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
