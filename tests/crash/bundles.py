"""What the crash tests share: sources, mkhct as they run it, and bundles compared.

The programs come from the folder that HCT_BUILD names.  Scratch goes to HCT_CRASH_TMP, or to memory
where there is some, because a test of thousands of runs is no test of the disk.
"""

import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("HCT_BUILD", ROOT / "build")).absolute()
MKHCT = str(BUILD / "mkhct")
HCT = str(BUILD / "hct")
SHIM = str(BUILD / "tests/shim.so")

STATE = re.compile(r"\.hct/checkpoint(-\d+-of-\d+)?\.json$")
TIMEOUT = 120
UMASK = 0o022
os.umask(UMASK)

# Keys of report.json that tell how a run went and not what it made.
TIMES = {"seconds", "sessions", "started", "finished", "speed", "bytes_per_second", "statistics",
         "retries", "elapsed", "elapsed_seconds", "throughput"}  # fmt: skip


class Failure(Exception):
    """A promise was broken."""


# Sources ------------------------------------------------------------------------------


def write_model(path, tensors):
    """tensors: {name: (dtype, array)}."""
    header, at = {}, 0
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [at, at + array.nbytes]}  # fmt: skip
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in tensors.values():
            file.write(array.tobytes())


def matrix(rng, rows, columns):
    """A bfloat16 matrix of normal numbers."""
    values = rng.standard_normal((rows, columns)).astype("<f4") * 0.02
    return "BF16", (values.view("<u4") >> 16).astype("<u2")


def model(rng, count, rows, columns):
    tensors = {}
    for i in range(count):
        tensors[f"layers.{i}.weight"] = matrix(rng, rows, columns)
        tensors[f"layers.{i}.norm"] = "F32", rng.standard_normal(columns).astype("<f4")
    tensors["ids"] = "I64", np.arange(17, dtype="<i8")
    return tensors


def make_source(folder, scale=1):
    """Two models, one of them in a subfolder, and files that are carried."""
    rng = np.random.default_rng(7)
    (folder / "sub" / "deep").mkdir(parents=True)
    write_model(folder / "model.safetensors", model(rng, 3, 64 * scale, 96 * scale))
    write_model(folder / "sub" / "more.safetensors", model(rng, 2, 48 * scale, 64 * scale))
    (folder / "config.json").write_text('{"model_type": "llama"}\n')
    (folder / "sub" / "deep" / "words.txt").write_bytes(rng.bytes(9000))
    (folder / "sub" / "run.sh").write_text("exit\n")
    (folder / "sub" / "run.sh").chmod(0o750)
    return folder


def make_shards(folder, count=3, scale=1):
    """A model in several files, with its index."""
    rng = np.random.default_rng(8)
    folder.mkdir(parents=True)
    names = {}
    for i in range(count):
        file = f"model-{i + 1:05}-of-{count:05}.safetensors"
        tensors = {f"part.{i}.{name}": t
                   for name, t in model(rng, 2, 40 * scale, 64 * scale).items()}  # fmt: skip
        write_model(folder / file, tensors)
        names |= dict.fromkeys(tensors, file)
    index = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}\n")
    return folder


@contextlib.contextmanager
def scratch():
    """A folder for one run of the tests; it stays when they fail."""
    place = os.environ.get("HCT_CRASH_TMP") or ("/dev/shm" if os.access("/dev/shm", 7) else None)
    folder = Path(tempfile.mkdtemp(prefix="crash-", dir=place)).resolve()
    try:
        yield folder
    except BaseException:
        print(f"what there was is in {folder}", flush=True)
        raise
    remove(folder)


def remove(folder):
    if os.path.lexists(folder):
        subprocess.run(["chmod", "-R", "u+rwx", folder], check=False)
        shutil.rmtree(folder)


# mkhct --------------------------------------------------------------------------------


def be_killed_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def start(words, env=None):
    """mkhct with these words; env is added to the environment."""
    return subprocess.Popen([MKHCT, "-q", *map(str, words)], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **(env or {})},
                            preexec_fn=be_killed_with_parent)  # fmt: skip


def run_shimmed(words, **env):
    """The same as run, with the library that counts calls and makes them fail."""
    # AddressSanitizer wants to be the first library, or to be told not to look.
    options = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"]))
    return run(words, {"LD_PRELOAD": SHIM, "ASAN_OPTIONS": options, **env})


def run(words, env=None):
    """(exit code, standard error) of mkhct, which must end."""
    process = start(words, env)
    try:
        _, error = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired as e:
        process.kill()
        raise Failure(f"mkhct hangs: {words} {env}") from e
    return process.returncode, error


def must_run(words, env=None):
    code, error = run(words, env)
    if code != 0:
        raise Failure(f"mkhct {' '.join(map(str, words))}: exit code {code}: {error}")


def has_state(out):
    folder = Path(out) / ".hct"
    return folder.is_dir() and any(STATE.search(f".hct/{p.name}") for p in folder.iterdir())


def pace(rng):
    """Options that must not change a byte."""
    return ["--checkpoint-interval", rng.choice(["1", "2", "7", "0s", "0.01s"]),
            "-j", rng.choice(["1", "2", "3"])]  # fmt: skip


def is_naming(out):
    """Files are being given their names: what lies there need not belong together."""
    try:
        return json.loads((Path(out) / ".hct/checkpoint.json").read_text())["stage"] == "naming"
    except (OSError, ValueError):
        return False


def check_with_report(out):
    """As long as it has a report, whatever else there is, it is a bundle that can be read.  Returns
    1 when it had to be."""
    if not (Path(out) / ".hct/report.json").exists():
        return 0
    done = subprocess.run([HCT, "check", "-q", out], stdin=subprocess.DEVNULL, check=False,
                          capture_output=True, text=True, timeout=TIMEOUT)  # fmt: skip
    if done.returncode != 0:
        raise Failure(f"has a report, and hct check says: {done.stdout}{done.stderr}")
    return 1


class Case:
    """One way to make a bundle: `old` is what lies at OUT before, `options` what mkhct gets."""

    def __init__(self, name, source, options, old=None, parts=0):
        self.name, self.source, self.options = name, source, list(options)
        self.old, self.parts = old, parts
        self.expected = None

    def prepare(self, out):
        remove(out)
        if self.old:
            shutil.copytree(self.old, out)

    def commands(self, rng):
        """What is to be run, one after the other, each again until it has succeeded."""
        if not self.parts:
            return [["--part-of-the-whole"]]
        order = list(range(1, self.parts + 1))
        rng.shuffle(order)
        return [["--shards", f"{i}/{self.parts}"] for i in order] + [["--finish"]]

    def words(self, command, rng, out):
        """The command line; one that goes on gives its options, or not."""
        if command == ["--finish"]:
            return ["--finish", out]
        part = [] if command == ["--part-of-the-whole"] else command
        own = part[1].replace("/", "-of-") if part else ""
        state = Path(out) / ".hct" / (f"checkpoint-{own}.json" if part else "checkpoint.json")
        options = self.options
        if state.exists() and rng.random() < 0.5:
            options = [o for o in options if o in ("-f", "--force")]
        return [*part, *options, *pace(rng), self.source, out]

    def make(self, rng, out):
        """The whole of it, without a fault."""
        self.prepare(out)
        for command in self.commands(rng):
            must_run(self.words(command, rng, out))

    def expect(self, rng, out):
        self.make(rng, out)
        self.expected = tree(out)
        leftovers(out)
        return self

    def finish(self, rng, out, commands):
        """Goes on to the end with these commands, the first of which was disturbed."""
        for command in commands:
            if self.is_finished(out):
                break
            must_run(self.words(command, rng, out))

    def check_old(self, out):
        """What was there before is there, whole, until the new bundle is, but while files are being
        given their names."""
        if self.old and not check_with_report(out) and not is_naming(out):
            raise Failure("the old bundle's report is gone before files are given their names")

    def is_finished(self, out):
        """A killed run may have done its work but for the exit."""
        return Path(out).is_dir() and not has_state(out) and tree(out) == self.expected

    def check(self, out):
        compare(self.expected, tree(out))
        leftovers(out)


# Bundles ------------------------------------------------------------------------------


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def tree(out):
    """{name: what is to be the same} of all files and folders of a bundle."""
    found = {}
    for top, folders, files in os.walk(out):
        for name in folders:
            path = os.path.join(top, name)
            found[os.path.relpath(path, out) + "/"] = os.stat(path).st_mode
        for name in files:
            path = os.path.join(top, name)
            relative, sb = os.path.relpath(path, out), os.stat(path)
            with open(path, "rb") as file:
                content = file.read()
            if relative == ".hct/report.json":
                try:
                    content = json.dumps(without_times(json.loads(content)), sort_keys=True)
                except ValueError as e:
                    raise Failure(f"{relative}: {e}") from e
            elif relative == ".hct/report.html":
                content = ""  # it shows times
            carried = not relative.endswith(".hct") and not relative.startswith(".hct/")
            found[relative] = content, sb.st_mode, sb.st_mtime_ns if carried else 0
    return found


def json_differences(a, b, where=""):
    if type(a) is not type(b) or not isinstance(a, (dict, list)):
        return [] if a == b else [f"{where} {a!r}, now {b!r}"]
    if isinstance(a, list):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    return [line for key in sorted(a.keys() | b.keys())
            for line in json_differences(a.get(key), b.get(key), f"{where}/{key}")]  # fmt: skip


def compare(expected, found):
    if expected == found:
        return
    lines = [f"missing: {n}" for n in expected if n not in found]
    lines += [f"left: {n}" for n in found if n not in expected]
    for name in expected:
        if name in found and found[name] != expected[name]:
            a, b = expected[name], found[name]
            how = f"{oct(a) if isinstance(a, int) else ''}"
            if isinstance(a, tuple):
                how = " ".join(w for w, x, y in zip(("content", "mode", "mtime"), a, b, strict=True)
                               if x != y)  # fmt: skip
                if a[0] != b[0] and isinstance(a[0], bytes):
                    at = next((i for i, (x, y) in enumerate(zip(a[0], b[0], strict=False))
                               if x != y), "end")  # fmt: skip
                    how += f" from byte {at}, {len(a[0])} bytes, now {len(b[0])}"
                elif a[0] != b[0]:
                    how += " " + "; ".join(json_differences(json.loads(a[0]), json.loads(b[0])))
            lines.append(f"differs: {name}: {how}")
    raise Failure("\n".join(lines))


def leftovers(out):
    """.hct holds the reports and nothing else, and no part file is left."""
    names = sorted(os.listdir(Path(out) / ".hct"))
    parts = [str(p) for p in Path(out).rglob(".*.part*")]
    if names != ["report.html", "report.json"] or parts:
        raise Failure(f"left in .hct: {names}; part files: {parts}")


# Programs -----------------------------------------------------------------------------


def seed():
    """HCT_SEED, or one that is new; printed, so that a run can be had again."""
    value = int(os.environ.get("HCT_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"HCT_SEED={value}", flush=True)
    return value


def program(main):
    try:
        main()
    except Failure as failure:
        print(f"FAILED: {failure}", flush=True)
        sys.exit(1)
