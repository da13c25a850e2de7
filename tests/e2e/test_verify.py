"""--verify and --quality-sample where what was written is not what is read back: a bit of the n-th
write to a model is another one on the way to the disk (tests/crash/shim.c)."""

import json
import re
import subprocess
import sys

import pytest
from helpers import EXIT_OK, HCT, MKHCT, run
from mkhct_tool import start
from resume_tool import entry, files_of, half_of, same_bundle, state, stop, two  # noqa: F401
from shim_tool import CRASH, preload
from test_crash import KEPT

EXIT_DAMAGE = 1
LOSSLESS = "--lossless"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Five tensors of 8 chunks each."""
    sys.path.insert(0, str(CRASH))
    import bundles  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("verify") / "source"
    folder.mkdir()
    rng = np.random.default_rng(7)
    tensors = {f"t.{i}": bundles.matrix(rng, 1024, 1024) for i in range(5)}
    bundles.write_model(folder / "m.safetensors", tensors)
    return folder


@pytest.fixture(scope="module")
def plain(source, tmp_path_factory):
    """It as bundles in one go, without a fault: lossless and lossy."""
    folder = tmp_path_factory.mktemp("verify_plain")
    run(MKHCT, "-q", LOSSLESS, source, folder / LOSSLESS)
    run(MKHCT, "-q", source, folder / "--lossy")
    return {LOSSLESS: folder / LOSSLESS, "--lossy": folder / "--lossy"}


def flipped(source, out, *options, at, expect=EXIT_OK, **env):
    env = preload(SHIM_ROOT=str(out), SHIM_PART=".m.safetensors.hct.part", SHIM_ONLY="write",
                  SHIM_DO="flip", SHIM_AT=str(at), **env)  # fmt: skip
    return run(MKHCT, "--verify", *options, source, out, expect=expect, env=env)


def tensors_of(out):
    report = json.loads((out / ".hct/report.json").read_text())
    return {t["name"]: t for t in report["files"][0]["tensor_list"]}


# A fault that comes once --------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["-j1", "-j3"])
@pytest.mark.parametrize("way", [LOSSLESS, "--lossy"])
@pytest.mark.parametrize("at", [4, 9, 25])
def test_what_went_wrong_once_is_written_again(source, plain, tmp_path, way, jobs, at):
    out = tmp_path / "out"
    options = [LOSSLESS] if way == LOSSLESS else []
    done = flipped(source, out, *options, jobs, "--checkpoint-interval=1", at=at)
    assert re.search(
        r"^mkhct: warning: [^\n]*m\.safetensors\.hct: t\.\d: chunk \d: the disk gave other bytes than "
        r"were written; the tensor is written again$", done.stderr, re.M), done.stderr  # fmt: skip
    assert files_of(out) == files_of(plain[way])
    retried = [t for t in tensors_of(out).values() if "retries" in t]
    assert [t["retries"] for t in retried] == [1] and "failed" not in retried[0]
    assert "lossless_because" not in retried[0]
    run(HCT, "check", out)


def test_events_tell_of_it(source, tmp_path):
    done = flipped(source, tmp_path / "out", LOSSLESS, "--json", at=5)
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    (warning,) = [m for m in messages if "written again" in json.dumps(m)]
    assert re.search(r"t\.\d: chunk \d: the disk gave other bytes", json.dumps(warning))


# A fault that stays -------------------------------------------------------------------------


@pytest.mark.parametrize("way", [LOSSLESS, "--lossy"])
@pytest.mark.parametrize("interval", ["1", "10s"])
def test_what_stays_wrong_is_not_kept(source, plain, tmp_path, way, interval):
    out = tmp_path / "out"
    options = [LOSSLESS] if way == LOSSLESS else []
    done = flipped(source, out, *options, "-q", "--checkpoint-interval", interval, at=20,
                   SHIM_LASTS="1", expect=EXIT_DAMAGE)  # fmt: skip
    assert "also when it was written again" in done.stderr and KEPT in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
    kept = entry(state(out), "m.safetensors")
    assert 0 < kept["completed_tensors"] < 5 and kept["chunks_of_next"] == 0
    run(MKHCT, "-q", "--verify", source, out)
    run(HCT, "check", out)
    if way == LOSSLESS:
        assert files_of(out) == files_of(plain[way])


def test_gives_in_when_twice_is_not_enough(source, tmp_path):
    """A tensor whose lossy chunks come out wrong twice is lossless, and everybody says so."""
    # How many bad chunks it takes depends on how many are on their way when the first is found.
    for times in range(2, 40):
        out = tmp_path / f"out{times}"
        done = flipped(source, out, "-v", at=9, SHIM_LASTS="1", SHIM_TIMES=str(times),
                       expect=None)  # fmt: skip
        if "the tensor is coded without loss" in done.stderr and done.returncode == EXIT_OK:
            break
    assert "the tensor is coded without loss" in done.stderr, done.stderr
    assert re.search(r"t\.\d .*lossless: what was written of it with loss was read back",
                     done.stderr), done.stderr  # fmt: skip
    (failed,) = [t for t in tensors_of(out).values() if "failed" in t]
    assert "read back" in failed["lossless_because"]
    run(HCT, "check", out)


@pytest.mark.parametrize("interval", ["1", "10s"])
def test_killed_before_the_check(source, plain, tmp_path, interval):
    """No checkpoint has a chunk that was not checked: whenever it is killed after the fault, and
    gone on with without --verify, the bundle is sound."""
    for delay in (0.02, 0.1, 0.2, 0.4, 0.8):
        out = tmp_path / f"out{delay}"
        env = preload(SHIM_ROOT=str(out), SHIM_PART=".m.safetensors.hct.part", SHIM_ONLY="write",
                      SHIM_DO="flip", SHIM_AT="6", SHIM_LASTS="1")  # fmt: skip
        process = start("-q", "--verify", LOSSLESS, "-j2", "--checkpoint-interval", interval,
                        source, out, env=env)  # fmt: skip
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        run(MKHCT, "-q", LOSSLESS, source, out)
        assert files_of(out) == files_of(plain[LOSSLESS])


# What an earlier run has written ------------------------------------------------------------


def damage(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 4]))


@pytest.mark.parametrize("options", [(), (LOSSLESS,), ("--layers=3",)])
@pytest.mark.parametrize("at", [.1, .6])
def test_going_on_with_verify_checks_what_is_there(two, tmp_path, options, at):
    plain, out = tmp_path / "plain", tmp_path / "out"
    run(MKHCT, "-q", *options, two, plain)
    stop(two, out, *options, size=half_of(plain))
    kept = entry(state(out), "b.safetensors")["bytes"]
    damage(out / ".b.safetensors.hct.part", int(kept * at))
    done = run(MKHCT, "--verify", two, out)
    assert re.search(r"warning: [^\n]*b\.safetensors\.hct: b\.[^\n]*: chunk \d+: [^\n]*; all from this "
                     r"tensor on is written again\n", done.stderr), done.stderr  # fmt: skip
    same_bundle(out, plain)
    run(HCT, "check", out)


def test_going_on_with_verify_keeps_what_is_good(two, tmp_path):
    plain, out = tmp_path / "plain", tmp_path / "out"
    run(MKHCT, "-q", two, plain)
    stop(two, out, size=half_of(plain))
    done = run(MKHCT, "--verify", two, out)
    assert "again" not in done.stderr
    same_bundle(out, plain)


@pytest.mark.parametrize("first, again", [((), True), (("--verify",), False)])
def test_files_that_are_done(two, tmp_path, first, again):
    """They are read once more, unless they were when they were written."""
    plain, out = tmp_path / "plain", tmp_path / "out"
    run(MKHCT, "-q", two, plain)
    stop(two, out, *first)
    assert entry(state(out), "a.safetensors").get("verified", False) is not again
    damage(out / ".a.safetensors.hct.part", 5000)
    done = run(MKHCT, "--verify", two, out)
    assert ("a.safetensors was written by an earlier run and is damaged" in done.stderr) == again
    assert (files_of(out) == files_of(plain)) == again


# The page cache -----------------------------------------------------------------------------


def test_the_sample_is_read_from_the_disk(source, tmp_path):
    """The file is synced before it is measured."""
    def syncs(*options):
        out, trace = tmp_path / "out", tmp_path / "trace"
        run(MKHCT, "-q", *options, source, out,
            env=preload(SHIM_ROOT=str(out), SHIM_TRACE=str(trace)))  # fmt: skip
        inode = (out / "m.safetensors.hct").stat().st_ino
        found = trace.read_bytes().count(f"\nsync {inode}\n".encode())
        trace.unlink()
        run("rm", "-r", out)
        return found

    assert syncs("--quality-sample=1") == syncs("--quality-sample=0") + 1
