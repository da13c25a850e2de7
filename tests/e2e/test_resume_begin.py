"""mkhct: who may begin or go on, several at once, and what lies there meanwhile."""

import fcntl
import os
import re
import shutil
import signal
import time

from helpers import EXIT_BAD_DATA, EXIT_INTERRUPTED, EXIT_SYSTEM, HCT, MKHCT, run, wait_until
from mkhct_tool import make_sparse, start
from resume_tool import (  # noqa: F401
    CHECKPOINT,
    edit,
    entry,
    go_on,
    plain,
    refuse_to_go_on,
    same_bundle,
    state,
    stop,
    two,
)


def test_two_that_begin_at_once(two, tmp_path):
    """Whatever they want to do with OUT, one goes on, and the others change nothing."""
    roles = [("--lossless",), ("--lossless", "--shards=1/2"), ("--lossless", "--shards=1/3")]
    for i in range(10):
        out = tmp_path / f"out-{i}"
        runs = [start("-q", *role, two, out) for role in roles[i % 3 :] + roles[: i % 3]]
        lines = [process.communicate(timeout=60)[1] for process in runs]
        codes = [process.returncode for process in runs]
        # The others' time may also come when it has ended, and is then refused for that.
        assert sorted(codes) == [0, EXIT_SYSTEM, EXIT_SYSTEM], lines
        for code, line in zip(codes, lines, strict=True):
            assert code == 0 or re.search(
                "another mkhct|in other parts|a bundle already|is a finished bundle", line), line
        role = (roles[i % 3 :] + roles[: i % 3])[codes.index(0)]
        if len(role) == 2:
            parts = role[1][-1]
            for part in range(2, int(parts) + 1):
                run(MKHCT, "-q", "--lossless", f"--shards={part}/{parts}", two, out)
            run(MKHCT, "-q", "--finish", out)
        run(HCT, "check", out)
        assert sorted(os.listdir(out / ".hct")) == ["report.html", "report.json"]


def test_who_begins_waits_for_who_looks_around(two, tmp_path):
    out = tmp_path / "out"
    (out / ".hct").mkdir(parents=True)
    with open(out / ".hct/lock-begin", "w") as gate:
        fcntl.lockf(gate, fcntl.LOCK_EX)
        process = start("-q", "--lossless", two, out)
        time.sleep(0.5)
        assert process.poll() is None and not (out / CHECKPOINT).exists()
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0
    assert sorted(os.listdir(out / ".hct")) == ["report.html", "report.json"]


def test_another_while_one_measures(two, tmp_path):
    """OUT is taken before anything is measured, and given back when it is interrupted."""
    slow, out = tmp_path / "slow", tmp_path / "out"
    slow.mkdir()
    make_sparse(slow / "model.safetensors", 16 << 30, count=16, columns=1024)
    for _ in range(3):
        process = start("-q", "--bpw=3", slow, out)
        assert wait_until(lambda: (out / CHECKPOINT).exists())
        for options in ((), ("--shards=1/2",), ("-f",), ("--shards=2/2", "--restart")):
            done = run(MKHCT, "-q", *options, slow, out, expect=EXIT_SYSTEM)
            assert "another mkhct is at work on it" in done.stderr
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == EXIT_INTERRUPTED
        # What was measured may be worth keeping.
        assert not out.exists() or (out / ".hct/measured").stat().st_size > 0
        shutil.rmtree(out, ignore_errors=True)


def test_killed_while_it_measures(two, tmp_path):
    slow, out = tmp_path / "slow", tmp_path / "out"
    slow.mkdir()
    make_sparse(slow / "model.safetensors", 16 << 30, count=16, columns=1024)
    process = start("-q", "--bpw=3", slow, out)
    assert wait_until(lambda: (out / CHECKPOINT).exists())
    process.kill()
    process.communicate(timeout=60)
    assert [shard["status"] for shard in state(out)["shards"]] == ["pending"]
    refuse_to_go_on(slow, out, "--bpw=4", match="its option bpw was 3 and is 4 now")
    process = start("-q", slow, out)  # goes on as it began
    assert wait_until(lambda: state(out)["statistics"]["sessions"] == 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED
    go_on(two, out, "-q", "--restart")
    run(HCT, "check", out)


def test_old_bundle_is_read_while_a_new_one_is_made(two, model, plain, tmp_path):
    out, back = shutil.copytree(plain, tmp_path / "out"), tmp_path / "back"
    stop(two, out, "-f", "--lossless")
    done = run(HCT, "check", out)
    assert "not written by mkhct" not in done.stderr
    assert ".part" not in run(HCT, "ls", out).stdout
    run(HCT, "extract", out, back)
    assert not list(back.rglob(".*"))
    assert sorted(p.name for p in back.rglob("*")) == sorted(p.name for p in two.rglob("*"))
    # From when names are given there is no telling what is there.
    edit(out, lambda d: d.update(stage="naming"))
    (out / ".hct/report.json").unlink()
    assert "has not finished" in run(HCT, "check", out, expect=EXIT_BAD_DATA).stderr
    go_on(two, out)
    run(HCT, "check", out)


def test_sample_that_is_not_what_was_written(two, tmp_path):
    """The file is made again, and not looked at again and again."""
    options, out, plain = ("--retention=.6", "--quality-sample=1"), tmp_path / "out", tmp_path / "plain"
    run(MKHCT, "-q", *options, two, plain)
    stop(two, out, *options)
    part = out / ".b.safetensors.hct.part"
    with open(part, "r+b") as file:
        file.seek(3000)
        byte = file.read(1)[0]
        file.seek(3000)
        file.write(bytes([byte ^ 255]))
    done = run(MKHCT, "-q", *options, two, out, expect=EXIT_BAD_DATA)
    (line,) = done.stderr.splitlines()
    assert "; the next run makes b.safetensors again; what is done is kept" in line, line
    assert entry(state(out), "b.safetensors")["status"] == "pending"
    assert entry(state(out), "a.safetensors")["status"] == "completed"
    go_on(two, out, "-q", *options)
    same_bundle(out, plain)


def test_old_file_is_not_taken_for_the_new_one(two, plain, tmp_path):
    """A part file that is gone before names are given, with a file of the old bundle as long as it."""
    out = shutil.copytree(plain, tmp_path / "out")
    stop(two, out, "-f")
    old = (out / "a.safetensors.hct").stat().st_ino
    (out / ".a.safetensors.hct.part").unlink()
    done = run(MKHCT, two, out)
    assert "a.safetensors was written by an earlier run and is not there any more" in done.stderr
    assert (out / "a.safetensors.hct").stat().st_ino != old
    same_bundle(out, plain)
