"""mkhct is killed, meets failing calls, loses its power, and is run twice at a time: what comes out
in the end is what an undisturbed run makes.  A few of each; make crash does many (tests/crash).
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys

import pytest
from helpers import (
    BUILD,
    EXIT_OK,
    EXIT_SYSTEM,
    MKHCT,
    is_sanitized,
    run,
    tree_digests,
    wait_until,
)
from mkhct_tool import listing, make_sparse
from shim_tool import CRASH, library, preload

KEPT = "what is done is kept"
# Of tests with a page that cannot be read: what the fault abandons loses its memory (writer/model.h).
LEAKS = "verify_asan_link_order=0:detect_leaks=0"


def harness(name, *words, **env):
    library()
    done = run(sys.executable, "-B", CRASH / name, *words, expect=None,
               env={"HCT_BUILD": str(BUILD), **env})  # fmt: skip
    assert done.returncode == EXIT_OK, done.stdout + done.stderr


def test_killed_at_any_moment():
    harness("kill.py", HCT_KILLS=os.environ.get("HCT_KILLS", "100"))


@pytest.mark.parametrize("fault", ["kill", "half", "short", "enospc", "full", "eio", "dead", "erofs"])
def test_any_call_can_fail(fault):
    harness("faults.py", fault, HCT_FAULTS="8")


def test_any_state_of_the_disk_after_a_power_cut():
    harness("power.py", HCT_STATES="40" if is_sanitized() else "160")


# A source that is being read -------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    make_sparse(folder / "model.safetensors", 64 << 20, count=16)
    (folder / "config.json").write_text("{}\n")
    return folder


def shimmed(source, out, **env):
    return run(MKHCT, "--lossless", "-q", source, out, expect=None,
               env=preload(SHIM_ROOT=str(out), SHIM_SOURCE=str(source), **env))


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_read_that_fails_once_is_made_again(source, tmp_path, at):
    done = shimmed(source, tmp_path / "out", SHIM_ONLY="read", SHIM_AT=str(at), SHIM_DO="5")
    assert done.returncode == EXIT_OK, done.stderr


def test_a_page_that_comes_back_is_read(source, tmp_path):
    done = shimmed(source, tmp_path / "out", SHIM_BAD_PAGE="9000", SHIM_BAD_PAGE_MS="300",
                   ASAN_OPTIONS=LEAKS)  # fmt: skip
    assert done.returncode == EXIT_OK, done.stderr


def test_a_page_that_stays_bad_ends_the_run_and_keeps_what_is_done(source, tmp_path):
    out, reference = tmp_path / "out", tmp_path / "reference"
    done = shimmed(source, out, SHIM_BAD_PAGE="9000", ASAN_OPTIONS=LEAKS)
    assert done.returncode == EXIT_SYSTEM
    assert re.fullmatch(r"mkhct: [^\n]*model\.safetensors: cannot be read[^\n]*\n", done.stderr)
    assert KEPT in done.stderr
    run(MKHCT, "-q", source, out)
    run(MKHCT, "--lossless", "-q", source, reference)
    assert digests(out) == digests(reference)


def digests(out):
    found = tree_digests(out)
    return {name: found[name] for name in found if not name.startswith(".hct/")}


# Two at a time -----------------------------------------------------------------------------


def begin(source, out):
    """mkhct, stopped in the middle of its work."""
    process = subprocess.Popen([MKHCT, "--lossless", "-q", "-j1", source, out],
                               stderr=subprocess.DEVNULL)  # fmt: skip
    assert wait_until(lambda: (out / ".hct/1.ledger").exists())
    process.send_signal(signal.SIGSTOP)
    return process


def end(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_the_second_is_refused_and_leaves_the_first_alone(source, tmp_path):
    out, reference = tmp_path / "out", tmp_path / "reference"
    first = begin(source, out)
    try:
        before = listing(out)
        for words in [], ["--restart"], ["-f"], ["--lossless"]:
            done = run(MKHCT, *words, source, out, expect=EXIT_SYSTEM)
            assert "another mkhct is at work" in done.stderr
            assert len(done.stderr.splitlines()) == 1
            assert listing(out) == before
        first.send_signal(signal.SIGCONT)
        assert first.wait() == EXIT_OK
    finally:
        end(first)
    run(MKHCT, "--lossless", "-q", source, reference)
    assert digests(out) == digests(reference)
    assert sorted(os.listdir(out / ".hct")) == ["report.html", "report.json"]


def test_one_that_comes_too_late_does_not_write_over_what_is_there(source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    late = subprocess.Popen([MKHCT, "-q", "--lossless", source, out], text=True,
                            stderr=subprocess.PIPE,
                            env={**os.environ,
                                 **preload(SHIM_ROOT=str(out), SHIM_AT="1", SHIM_DO="stop")})  # fmt: skip
    try:
        os.waitid(os.P_PID, late.pid, os.WSTOPPED | os.WNOWAIT)
        run(MKHCT, "--lossless", "-q", source, out)
        before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
        late.send_signal(signal.SIGCONT)
        _, error = late.communicate(timeout=60)
    finally:
        end(late)
    assert late.returncode == EXIT_SYSTEM
    assert re.fullmatch(r"mkhct: [^\n]+meanwhile; run again[^\n]*\n", error), error
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == {
        p: t for p, t in before.items() if p.is_file()
    }
    assert sorted(os.listdir(out / ".hct")) == ["report.html", "report.json"]


def test_parts_are_not_begun_anew_as_a_whole(source, tmp_path):
    out = tmp_path / "out"
    run(MKHCT, "--lossless", "-q", "--shards", "1/2", source, out)
    before = listing(out)
    for words in ["--restart"], ["--restart", "-f"], ["-f"]:
        done = run(MKHCT, "--lossless", *words, source, out, expect=EXIT_SYSTEM)
        assert "is being made in other parts" in done.stderr
        assert listing(out) == before


def test_the_lock_of_one_that_was_killed_is_none(source, tmp_path):
    out = tmp_path / "out"
    end(begin(source, out))
    run(MKHCT, "-q", source, out)
    assert sorted(os.listdir(out / ".hct")) == ["report.html", "report.json"]


def test_two_of_the_same_part(source, tmp_path):
    out = tmp_path / "out"
    words = [MKHCT, "--lossless", "-q", "-j1", "--shards", "1/2", source, out]
    first = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: (out / ".hct/1.ledger").exists())
        first.send_signal(signal.SIGSTOP)
        done = run(*words, expect=EXIT_SYSTEM)
        assert "another mkhct is at work" in done.stderr
        done = run(MKHCT, "--finish", out, expect=None)
        assert done.returncode != EXIT_OK
        run(MKHCT, "--lossless", "-q", "--shards", "2/2", source, out)
        first.send_signal(signal.SIGCONT)
        assert first.wait() == EXIT_OK
    finally:
        end(first)
    run(MKHCT, "-q", "--finish", out)
    assert sorted(os.listdir(out / ".hct")) == ["report.html", "report.json"]


# Disks -------------------------------------------------------------------------------------


@pytest.fixture
def random_source(tmp_path):
    """What does not shrink to nothing: 12 MB in 12 tensors, and a file that is carried."""
    sys.path.insert(0, str(CRASH))
    import bundles  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    folder = tmp_path / "random"
    folder.mkdir()
    rng = np.random.default_rng(3)
    tensors = {f"t{i:02}": ("U8", rng.integers(0, 256, 1 << 20, "u1")) for i in range(12)}
    bundles.write_model(folder / "model.safetensors", tensors)
    (folder / "vocab.txt").write_bytes(rng.bytes(5000))
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB, and how to change it."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "none", place], capture_output=True
    ).returncode:
        pytest.skip("no file system can be mounted")

    def remount(options):
        subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)

    yield place, remount
    subprocess.run(["umount", "-l", place], check=True)


def failed(*words, match, preexec=None):
    process = subprocess.run([MKHCT, "-q", *words], capture_output=True, text=True,
                             preexec_fn=preexec)  # fmt: skip
    assert process.returncode == EXIT_SYSTEM, process.stderr
    assert re.fullmatch(r"mkhct: [^\n]+\n", process.stderr), process.stderr
    assert re.search(match, process.stderr), process.stderr
    return process.stderr


@pytest.mark.root
def test_a_full_disk_keeps_what_is_done_until_there_is_room(random_source, small_disk, tmp_path):
    place, remount = small_disk
    out, reference = place / "out", tmp_path / "reference"
    for _ in range(2):  # a second try that finds no room either loses nothing
        line = failed("--lossless", "--checkpoint-interval=1", random_source, out,
                      match="No space left")  # fmt: skip
        assert KEPT in line
    kept = (out / ".model.safetensors.hct.part").stat().st_size
    assert kept > 3 << 20
    remount("size=60m")
    run(MKHCT, "-q", random_source, out)
    run(MKHCT, "--lossless", "-q", random_source, reference)
    assert digests(out) == digests(reference)


@pytest.mark.root
def test_a_disk_too_full_for_anything(random_source, small_disk):
    place, _ = small_disk
    filler = place / "filler"
    with open(filler, "wb") as file, pytest.raises(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))
    failed("--lossless", random_source, place / "out", match="No space left")
    assert os.listdir(place) == ["filler"]


@pytest.mark.root
def test_a_disk_that_cannot_be_written(random_source, small_disk, tmp_path):
    place, remount = small_disk
    out, reference = place / "out", tmp_path / "reference"
    failed("--lossless", "--checkpoint-interval=1", random_source, out, match="No space left")
    remount("size=60m,ro")
    before = listing(out)
    failed(random_source, out, match="Read-only file system")
    assert listing(out) == before
    failed("--lossless", random_source, place / "other", match="Read-only file system")
    remount("size=60m,rw")
    run(MKHCT, "-q", random_source, out)
    run(MKHCT, "--lossless", "-q", random_source, reference)
    assert digests(out) == digests(reference)


def test_a_limit_of_the_size_of_files(random_source, tmp_path):
    out, reference = tmp_path / "out", tmp_path / "reference"

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))

    line = failed("--lossless", "--checkpoint-interval=1", random_source, out,
                  match="File too large", preexec=limit)  # fmt: skip
    assert KEPT in line
    run(MKHCT, "-q", random_source, out)
    run(MKHCT, "--lossless", "-q", random_source, reference)
    assert digests(out) == digests(reference)


def test_out_is_removed_meanwhile(source, tmp_path):
    out = tmp_path / "out"
    first = begin(source, out)
    try:
        shutil.rmtree(out)
        first.send_signal(signal.SIGCONT)
        assert first.wait(timeout=60) == EXIT_SYSTEM
    finally:
        end(first)
    run(MKHCT, "--lossless", "-q", source, out)
    assert sorted(os.listdir(out)) == [".hct", "config.json", "model.safetensors.hct"]
