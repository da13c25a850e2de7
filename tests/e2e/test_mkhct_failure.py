"""mkhct: what is left behind when it fails half-way."""

import os
import re
import resource
import shutil
import signal
import subprocess

import numpy as np
import pytest
from helpers import (
    EXIT_INTERRUPTED,
    EXIT_SYSTEM,
    MKHCT,
    compress,
    make_safetensors,
    run,
    tree_digests,
    wait_until,
)
from mkhct_tool import (
    listing,
    make_sparse,
    refuse,
    same_after_extract,
    small_tensors,
    start,
    started_writing,
)


@pytest.mark.parametrize("old", [False, True])
def test_rename_that_fails(model, tmp_path, old):
    """Without an old bundle all is undone; with one, what is left is said."""
    out, source = tmp_path / "out", tmp_path / "source"
    source.mkdir()
    make_sparse(source / "model.safetensors", 1 << 30)
    if old:
        compress(model, out)
        (source / "config.json").write_text("new")
    else:
        out.mkdir()
        (source / "a.json").write_text("new")
    process = start("-f", source, out)
    started_writing(out)
    in_the_way = next(source.glob("*.safetensors")).name + ".hct"
    shutil.rmtree(out / in_the_way, ignore_errors=True)
    (out / in_the_way).unlink(missing_ok=True)
    (out / in_the_way).mkdir()
    _, text = process.communicate(timeout=120)
    assert process.returncode == EXIT_SYSTEM
    last = text.splitlines()[-1]
    assert "cannot be given its name: Is a directory" in last
    if old:
        assert "unfinished" in last and "--force" in last
        assert (out / "config.json").read_text() == "new"
        (out / in_the_way).rmdir()
        (source / in_the_way[:-4]).unlink()
        make_safetensors(source / in_the_way[:-4], small_tensors())
        same_after_extract(source, compress(source, out, "-f"), tmp_path)
    else:
        assert last.endswith(f"{out} is as it was before")
        assert listing(out) == [in_the_way]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_leaves_nothing(slow_model, tmp_path, name):
    out = tmp_path / "out"
    process = start(slow_model, out)
    assert started_writing(out)
    process.send_signal(getattr(signal, name))
    _, text = process.communicate(timeout=20)
    assert process.returncode == EXIT_INTERRUPTED
    assert f"mkhct: interrupted by {name}; {out} is as it was before\n" in text
    assert not out.exists()


def test_signal_while_a_tensor_is_planned(tmp_path):
    """A lossy coder looks at all of a tensor, here for a minute, before it writes the first byte."""
    source, out = tmp_path / "slow", tmp_path / "out"
    source.mkdir()
    make_sparse(source / "model.safetensors", 64 << 30, columns=4096)
    process = start(source, out)
    assert wait_until(lambda: (out / ".model.safetensors.hct.part").exists())
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=20)
    assert process.returncode == EXIT_INTERRUPTED
    assert f"mkhct: interrupted by SIGINT; {out} is as it was before\n" in text
    assert not out.exists()


def test_signal_leaves_an_empty_folder_empty(slow_model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    process = start("-q", slow_model, out)
    assert started_writing(out)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert listing(out) == []


def test_signal_keeps_the_old_bundle(model, slow_model, tmp_path):
    out = compress(model, tmp_path / "out")
    before = tree_digests(out)
    process = start("-q", "-f", slow_model, out)
    assert started_writing(out)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == EXIT_INTERRUPTED
    assert tree_digests(out) == before


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


def test_killed_run_is_cleaned_up_by_force(model, slow_model, tmp_path):
    out = tmp_path / "out"
    process = start("-q", slow_model, out)
    assert started_writing(out)
    process.kill()
    process.communicate(timeout=20)
    assert not (out / "a.txt").exists() and not (out / "model.safetensors.hct").exists()
    assert (out / ".model.safetensors.hct.part").exists()
    refuse(model, out, code=EXIT_SYSTEM, match="an unfinished bundle; give --force")
    (out / ".mine.part").write_text("of the user")
    # A second run that fails does not forget what the first one left.
    (out / ".model.safetensors.hct.part").unlink()
    process = start("-q", "-f", slow_model, out)
    assert started_writing(out)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert listing(out) == [".hct", ".hct/unfinished.json", ".mine.part"]
    compress(model, out, "-f")
    assert (out / ".mine.part").exists()
    (out / ".mine.part").unlink()
    assert listing(out) == [".hct", ".hct/report.json", "config.json", "model.safetensors.hct",
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
def test_full_disk(model, small_disk, what):
    rng = np.random.default_rng(9)
    if what.endswith(".bin"):
        (model / what).write_bytes(rng.bytes(8 << 20))
    else:
        make_safetensors(model / what, {"a": ("F32", (1 << 21,), rng.bytes(8 << 20))})
    out = small_disk / "out"
    done = run(MKHCT, "--lossless", model, out, expect=EXIT_SYSTEM)
    assert re.search(f"warning: {out} has .* free, and the bundle will .* take .* to .*", done.stderr)
    last = done.stderr.splitlines()[-1]
    assert re.match(r"mkhct: .*No space left on device; .* is as it was before", last)
    assert what in last
    assert listing(small_disk) == []
    done = run(MKHCT, "-q", model, out, expect=EXIT_SYSTEM)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.root
def test_full_disk_keeps_the_old_bundle(model, small_disk):
    out = compress(model, small_disk / "out")
    before = tree_digests(out)
    (model / "vocabulary.bin").write_bytes(np.random.default_rng(9).bytes(8 << 20))
    (model / "another folder").mkdir()
    refuse(model, out, "-q", "-f", code=EXIT_SYSTEM, match="No space left on device")
    assert tree_digests(out) == before


def test_limit_on_file_sizes(tmp_path):
    """ulimit -f would end the program by a signal, with part files left behind."""
    source = tmp_path / "model.safetensors"
    data = np.random.default_rng(9).bytes(4 << 20)
    make_safetensors(source, {"a": ("F32", (1 << 20,), data)})

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = subprocess.run([MKHCT, "-q", source, tmp_path / "out"], preexec_fn=limit,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == EXIT_SYSTEM
    assert "File too large" in done.stderr
    assert not (tmp_path / "out").exists()
