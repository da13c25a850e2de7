"""Runs of mkhct that stop half-way, always at the same place, and what they leave."""

import ctypes
import json
import os
import re
import resource
import struct
import subprocess

import numpy as np
import pytest
from helpers import (
    EXIT_SYSTEM,
    MKHCT,
    float_bytes,
    make_safetensors,
    random_tensor,
    run,
    tree_digests,
    weights,
)

CHECKPOINT = ".hct/checkpoint.json"

# Of make_two: the part file of b.safetensors reaches this size in the middle of b.big, without loss
# or with the default's, and nothing else does.
IN_BIG = 600 << 10


def make_two(folder):
    """A small model, and one with a big tensor between small ones; and two other files."""
    folder.mkdir()
    rng = np.random.default_rng(21)
    make_safetensors(folder / "a.safetensors", {
        "a.norm": random_tensor(rng, "F32", (96,)),
        "a.weight": random_tensor(rng, "BF16", (160, 128)),
    })  # fmt: skip
    make_safetensors(folder / "b.safetensors", {
        "b.0.weight": random_tensor(rng, "BF16", (160, 128)),
        "b.1.weight": random_tensor(rng, "F32", (96, 128)),
        "b.2.empty": ("F32", (0, 4), b""),
        "b.big": ("F32", (1536, 2048), float_bytes("F32", weights(rng, 1536, 2048))),
        "b.ids": random_tensor(rng, "I64", (100,)),
        "b.z.weight": random_tensor(rng, "BF16", (96, 128)),
    })  # fmt: skip
    (folder / "config.json").write_text("{}\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "notes.txt").write_text("notes\n")
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What make_two makes.  Do not change it."""
    return make_two(tmp_path_factory.mktemp("two") / "two")


@pytest.fixture(scope="module")
def plain(two, tmp_path_factory):
    """It as a bundle, with loss, in one go."""
    out = tmp_path_factory.mktemp("plain") / "plain"
    run(MKHCT, "-q", two, out)
    return out


def run_limited(size, *words, expect=EXIT_SYSTEM, env=None):
    """mkhct where no file may grow beyond `size` bytes; returns its CompletedProcess."""
    done = subprocess.run(
        [str(word) for word in (MKHCT, *words)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, **(env or {})})  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done


def stop(source, out, *options, size=IN_BIG, env=None):
    """Begins a bundle, and stops when a file of it would grow beyond `size` bytes."""
    done = run_limited(size, "-q", *options, source, out, env=env)
    (line,) = done.stderr.splitlines()
    assert "File too large; what is done is kept: run the same command again" in line, line
    return state(out)


def half_of(plain):
    """The size at which to stop so that it is in the middle of b.big."""
    return (plain / "b.safetensors.hct").stat().st_size // 2


def state(out, name=CHECKPOINT):
    return json.loads((out / name).read_text())


def edit(out, change, name=CHECKPOINT):
    """Changes a checkpoint, which change(document) may replace."""
    document = state(out, name)
    document = change(document) or document
    (out / name).write_text(json.dumps(document))


def entry(document, name):
    return next(shard for shard in document["shards"] if shard["name"] == name)


def files_of(out):
    """Digests of all files but the reports, which have times, and the times of none."""
    digests = tree_digests(out)
    digests.pop(".hct/report.json", None)
    digests.pop(".hct/report.html", None)
    return digests


def report_without_times(out):
    report = json.loads((out / ".hct/report.json").read_text())

    def strip(value):
        if isinstance(value, dict):
            return {key: strip(v) for key, v in value.items() if key not in ("seconds", "retries")}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return strip(report)


def go_on(source, out, *options, env=None):
    """Runs mkhct again, to its end."""
    return run(MKHCT, *(options or ("-q",)), source, out, env=env)


def same_bundle(out, plain):
    assert files_of(out) == files_of(plain)
    assert report_without_times(out) == report_without_times(plain)
    assert sorted(os.listdir(out / ".hct")) == ["report.html", "report.json"]


def refuse_to_go_on(source, out, *options, code=EXIT_SYSTEM, match, same=True):
    """One line, with both ways on unless another mkhct is at work; nothing of OUT is touched."""
    before = tree_digests(out) if same else None
    done = run(MKHCT, *options, source, out, expect=code)
    assert done.returncode > 0 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("mkhct: ") and re.search(match, line), line
    if same:
        assert "--restart" in line, line
        assert tree_digests(out) == before
    if same and code == EXIT_SYSTEM:
        assert "go on with" in line, line
    return line


class Renames:
    """Counts what gets its name in a folder, while in its `with`: by inotify, so nothing is missed: renames
    that follow each other would be one event, but each is of a file that was made before."""

    def __init__(self, folder):
        self.folder = os.fsencode(folder)

    def __enter__(self):
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.fd >= 0
        assert libc.inotify_add_watch(self.fd, self.folder, 0x180) >= 0  # IN_MOVED_TO, IN_CREATE
        self.names = []
        return self

    def __exit__(self, *_):
        try:
            while block := os.read(self.fd, 1 << 16):
                self._take(block)
        except BlockingIOError:
            pass
        os.close(self.fd)

    def _take(self, block):
        while block:
            mask, _, length = struct.unpack_from("3I", block, 4)
            if mask & 0x80:
                self.names.append(os.fsdecode(block[16 : 16 + length].rstrip(b"\0")))
            block = block[16 + length :]

    def to(self, name):
        return self.names.count(name)
