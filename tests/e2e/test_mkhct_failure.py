"""mkhct: what is left behind when it fails half-way."""

import functools
import os
import re
import resource
import signal
import subprocess
import time

import numpy as np
import pytest
from helpers import (
    EXIT_BAD_DATA,
    EXIT_INTERRUPTED,
    EXIT_SYSTEM,
    HCT,
    MKHCT,
    compress,
    make_safetensors,
    run,
    tree_digests,
    wait_until,
)
from mkhct_tool import (
    REPORTS,
    listing,
    make_sparse,
    refuse,
    same_after_extract,
    start,
    started_writing,
)
from resume_tool import entry, state


KEPT = "; what is done is kept: run the same command again to go on, or with --restart to begin anew"


@pytest.fixture
def unplanned(tmp_path):
    """A small file, and a tensor that a lossy coder looks at for a minute before its first byte."""
    folder = tmp_path / "unplanned"
    folder.mkdir()
    (folder / "a.txt").write_text("comes first\n")
    make_sparse(folder / "model.safetensors", 64 << 30, columns=4096)
    return folder


def interrupt(process, name="SIGINT"):
    process.send_signal(getattr(signal, name))
    _, text = process.communicate(timeout=20)
    assert process.returncode == EXIT_INTERRUPTED
    return text.splitlines()[-1]


def started_planning(out):
    return wait_until(lambda: (out / ".model.safetensors.hct.part").exists())


@pytest.mark.parametrize("old", [False, True])
def test_rename_that_fails(model, tmp_path, old):
    """All is written then; what is left is said, and the next run does it."""
    out, source = tmp_path / "out", tmp_path / "source"
    source.mkdir()
    make_sparse(source / "model.safetensors", 1 << 30)
    (source / "config.json").write_text("new")
    if old:
        compress(model, out)
    else:
        out.mkdir()
    process = start("-f", source, out)
    assert started_writing(out)
    in_the_way = out / "model.safetensors.hct"
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir()
    _, text = process.communicate(timeout=120)
    assert process.returncode == EXIT_SYSTEM
    assert text.splitlines()[-1].endswith("cannot be given its name: Is a directory" + KEPT)
    assert (out / "config.json").read_text() == "new"
    run(HCT, "ls", out, expect=EXIT_BAD_DATA)
    refuse(source, out, code=EXIT_SYSTEM, match="model.safetensors.hct: was not written by mkhct")
    in_the_way.rmdir()
    done = run(MKHCT, source, out)
    assert "model.safetensors:" not in done.stderr  # nothing is written again
    run(HCT, "check", out)
    assert sorted(os.listdir(out / ".hct")) == ["report.html", "report.json"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_keeps_what_is_done(slow_model, model, tmp_path, name):
    out = tmp_path / "out"
    seen = []
    for _ in range(2):
        process = start(slow_model, out)
        assert wait_until(lambda: len(seen) == 0 or state(out)["statistics"]["sessions"] == 2)
        assert started_writing(out)
        time.sleep(0.2)
        assert interrupt(process, name) == f"mkhct: interrupted by {name}{KEPT}"
        seen.append(entry(state(out), "model.safetensors"))
    assert seen[0]["status"] == seen[1]["status"] == "in_progress"
    assert 0 < seen[0]["chunks_of_next"] < seen[1]["chunks_of_next"]
    compress(model, out, "--restart")
    same_after_extract(model, out, tmp_path)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_before_anything_is_done(unplanned, tmp_path, name):
    """Small files are quickly copied again; they are not worth keeping."""
    out = tmp_path / "out"
    process = start(unplanned, out)
    assert started_planning(out)
    assert interrupt(process, name) == f"mkhct: interrupted by {name}; {out} is as it was before"
    assert not out.exists()


def test_signal_leaves_an_empty_folder_empty(unplanned, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    process = start("-q", unplanned, out)
    assert started_planning(out)
    interrupt(process)
    assert listing(out) == []


def test_signal_keeps_the_old_bundle(model, unplanned, slow_model, tmp_path):
    out = compress(model, tmp_path / "out")
    before = tree_digests(out)
    process = start("-q", "-f", unplanned, out)
    assert started_planning(out)
    interrupt(process)
    assert tree_digests(out) == before
    # Once something is done, beside what is new.
    process = start("-q", "-f", slow_model, out)
    assert started_writing(out)
    assert interrupt(process).endswith(KEPT)
    assert before.items() <= tree_digests(out).items()


def test_ignored_signal_stays_ignored(slow_model, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$0" "$@"', MKHCT, "-q", slow_model, out])  # fmt: skip
    assert started_writing(out)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == EXIT_INTERRUPTED


def test_killed_run_is_begun_anew(model, slow_model, tmp_path):
    out = tmp_path / "out"
    process = start("-q", slow_model, out)
    assert started_writing(out)
    process.kill()
    process.communicate(timeout=20)
    assert not (out / "a.txt").exists() and not (out / "model.safetensors.hct").exists()
    assert (out / ".model.safetensors.hct.part").exists()
    for options in ((), ("-f",)):
        refuse(model, out, *options, code=EXIT_SYSTEM, match="a.txt is no longer .*; give --restart")
    (out / ".mine.part").write_text("of the user")
    # A second run that fails does not forget what the first one left.
    (out / ".model.safetensors.hct.part").unlink()
    process = start("-q", "--restart", slow_model, out)
    assert started_writing(out)
    interrupt(process)
    assert {".hct/checkpoint.json", ".mine.part", ".model.safetensors.hct.part"} <= set(listing(out))
    compress(model, out, "--restart")
    assert (out / ".mine.part").read_text() == "of the user"
    (out / ".mine.part").unlink()
    assert listing(out) == [".hct", *REPORTS, "config.json", "model.safetensors.hct",
                            "sub", "sub/notes.txt"]  # fmt: skip


def test_source_truncated_while_it_is_read(slow_model, tmp_path):
    """The map of the source faults; mkhct says what happened and cleans up.

    The work that the fault abandons loses its memory (writer/model.h), so a sanitizer is
    not to count it here.
    """
    out = tmp_path / "out"
    process = start("-q", slow_model, out, env={"ASAN_OPTIONS": "detect_leaks=0"})
    assert started_writing(out)
    os.truncate(slow_model / "model.safetensors", 1 << 20)
    _, text = process.communicate(timeout=60)
    assert process.returncode == EXIT_SYSTEM, text
    assert re.fullmatch(r"mkhct: \S+model.safetensors: was truncated while it was read[^\n]*\n", text)
    assert not out.exists()


def test_source_changed_while_it_is_read(tmp_path):
    source = tmp_path / "model.safetensors"
    make_safetensors(source, {"a": ("U8", (1 << 28,), bytes(1 << 28))})
    out = tmp_path / "out"
    process = start("-q", source, out)
    assert started_writing(out)
    with open(source, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    _, text = process.communicate(timeout=60)
    assert process.returncode == EXIT_SYSTEM, text
    assert "changed while it was read" in text
    assert not out.exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk],
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.root
@pytest.mark.parametrize("what", ["model.safetensors", "vocabulary.bin"])
def test_full_disk(model, small_disk, tmp_path, what):
    """What is done stays, and with more room the rest is done."""
    rng = np.random.default_rng(9)
    if what.endswith(".bin"):
        (model / what).write_bytes(rng.bytes(8 << 20))
    else:
        make_safetensors(model / what, {"a": ("F32", (1 << 21,), rng.bytes(8 << 20))})
    out = small_disk / "out"
    done = run(MKHCT, "--lossless", model, out, expect=EXIT_SYSTEM)
    assert re.search(f"warning: {out} has .* free, and the bundle will .* take .* to .*", done.stderr)
    last = done.stderr.splitlines()[-1]
    assert re.match(f"mkhct: .*{what}.*: No space left on device{KEPT}", last)
    assert "model.safetensors.hct" not in listing(out)
    seen = entry(state(out), "model.safetensors")
    assert seen["status"] == ("completed" if what.endswith(".bin") else "in_progress")
    done = run(MKHCT, "-q", model, out, expect=EXIT_SYSTEM)
    assert len(done.stderr.splitlines()) == 1 and done.stderr.endswith(KEPT + "\n")
    subprocess.run(["mount", "-o", "remount,size=32m", small_disk], check=True)
    run(MKHCT, "-q", model, out)
    same_after_extract(model, out, tmp_path)


@pytest.mark.root
def test_full_disk_keeps_the_old_bundle(model, small_disk, tmp_path):
    out = compress(model, small_disk / "out")
    before = tree_digests(out)
    (model / "vocabulary.bin").write_bytes(np.random.default_rng(9).bytes(8 << 20))
    (model / "another folder").mkdir()
    done = run(MKHCT, "-q", "-f", model, out, expect=EXIT_SYSTEM)
    assert done.stderr.endswith(f"No space left on device{KEPT}\n")
    assert before.items() <= tree_digests(out).items()
    (model / "vocabulary.bin").unlink()
    compress(model, out, "--restart")
    same_after_extract(model, out, tmp_path)


def test_limit_on_file_sizes(tmp_path):
    """ulimit -f would end the program by a signal, with nothing said."""
    source, out = tmp_path / "model.safetensors", tmp_path / "out"
    data = np.random.default_rng(9).bytes(4 << 20)
    make_safetensors(source, {"a": ("F32", (1 << 20,), data)})

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    for size, end in ((1 << 10, f"; {out} is as it was before"), (1 << 20, KEPT)):
        done = subprocess.run([MKHCT, "-q", source, out], capture_output=True, text=True,
                              preexec_fn=functools.partial(limit, size))  # fmt: skip
        assert done.returncode == EXIT_SYSTEM
        assert done.stderr.endswith(f"File too large{end}\n")
        assert out.exists() == (end == KEPT)
    run(MKHCT, "-q", source, out)
    run(HCT, "check", out)
