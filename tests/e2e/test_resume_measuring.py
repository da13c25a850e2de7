"""mkhct: what --bpw, --size and --policy adaptive have measured outlives an interruption."""

import os
import shutil
import signal
import struct

import numpy as np
import pytest
from helpers import (
    EXIT_INTERRUPTED,
    EXIT_SYSTEM,
    EXIT_USAGE,
    HCT,
    MKHCT,
    float_bytes,
    make_safetensors,
    random_tensor,
    run,
    tree_digests,
    weights,
)
from mkhct_tool import listing, start
from resume_tool import (
    CHECKPOINT,
    entry,
    go_on,
    refuse_to_go_on,
    same_bundle,
    state,
    stop,
)
from shim_tool import preload

MEASURED = ".hct/measured"
BEGIN, FRAME, KEY = 24, 12, 64  # measured.h
WISHES = {
    "bpw": ("--bpw=3",),
    "size": ("--size", "1M"),
    "adaptive": ("--policy", "adaptive", "--target-quality", ".9"),
}


def make_many(folder, matrices=16):
    """Two models of matrices, so that measuring takes a while, and a file."""
    folder.mkdir()
    rng = np.random.default_rng(33)
    for name in "ab":
        tensors = {
            f"{name}.{i}.weight": ("F32", (256, 384), float_bytes("F32", weights(rng, 256, 384)))
            for i in range(matrices)
        }
        tensors["ids"] = random_tensor(rng, "I64", (100,))
        make_safetensors(folder / f"{name}.safetensors", tensors)
    (folder / "config.json").write_text("{}\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "notes.txt").write_text("notes\n")
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """make_many.  Do not change it."""
    return make_many(tmp_path_factory.mktemp("many") / "many")


@pytest.fixture(scope="module")
def plain(many, tmp_path_factory):
    """A function: it as a bundle of these wishes, in one go."""
    made = {}

    def make(wish):
        if wish not in made:
            made[wish] = tmp_path_factory.mktemp("plain") / wish
            run(MKHCT, "-q", *WISHES[wish], many, made[wish])
        return made[wish]

    return make


def records(out, name=MEASURED):
    """The whole records of the file, with their frames; none when it is not there."""
    try:
        data = (out / name).read_bytes()
    except FileNotFoundError:
        return []
    found, at = [], BEGIN
    while at + FRAME <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        if at + FRAME + length > len(data):
            break
        found.append(data[at : at + FRAME + length])
        at += FRAME + length
    return found


def interrupt(source, out, *options, after, sig=signal.SIGKILL, name=MEASURED):
    """Begins, or goes on, and ends it with the signal when there are `after` measurements: it is
    stopped before it writes the next one.  False when it ended by itself before, which then went
    well."""
    have = len(records(out, name)) if (out / name).exists() else -1  # the file's beginning
    process = start("-q", "-j1", *options, source, out,
                    env=preload(SHIM_ROOT=str(out), SHIM_PART=f"/{name}", SHIM_ONLY="write",
                                SHIM_AT=str(after - have + 1), SHIM_DO="stop"))  # fmt: skip
    try:
        stopped = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if stopped.si_code == os.CLD_STOPPED:
            assert len(records(out, name)) == after
            process.send_signal(sig)
            process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    if process.returncode == 0:
        return False
    if sig == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL, errors
    else:
        assert process.returncode == EXIT_INTERRUPTED, errors
        assert "what is done is kept: run the same command again to go on" in errors
    return True


def interrupt_measuring(source, out, *options, **how):
    """The same, where it must not get further than measuring."""
    assert interrupt(source, out, *options, **how)
    document = state(out)
    assert all("errors" not in shard for shard in document["shards"])
    assert not any(out.glob(".*.part"))


# Going on ------------------------------------------------------------------------------


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("wish", WISHES)
def test_goes_on_with_what_was_measured(many, plain, tmp_path, wish, sig):
    """A machine that is taken away again and again gets to the end, with what a run in one go
    gives; what was measured once is not measured again."""
    out, expected = tmp_path / "out", plain(wish)
    options, interrupted, before = WISHES[wish], 0, 0
    step = 3 if wish == "adaptive" else 35
    while interrupt(many, out, *options, after=before + step, sig=sig):
        interrupted += 1
        assert interrupted < 30
        found = records(out)
        if not found:
            break  # all is measured, and it was at work on the bundle
        assert len(found) >= before + step
        before = len(found)
        keys = [record[FRAME : FRAME + KEY] for record in found]
        assert len(set(keys)) == len(keys), "measured twice"
        options = ()  # those it began with
    assert interrupted >= 3
    if (out / CHECKPOINT).exists():
        go_on(many, out)
    same_bundle(out, expected)
    run(HCT, "check", out)


def test_says_how_much_is_kept(many, plain, tmp_path):
    out = tmp_path / "out"
    interrupt_measuring(many, out, *WISHES["bpw"], after=20)
    kept = len(records(out))
    done = go_on(many, out, "-v")
    assert f"mkhct: note: {kept} measurements of an earlier run are kept\n" in done.stderr
    same_bundle(out, plain("bpw"))


def test_a_signal_keeps_what_is_being_measured(many, tmp_path):
    """However long the interval, what was measured until the signal is on the disk."""
    out = tmp_path / "out"
    interrupt_measuring(many, out, *WISHES["bpw"], "--checkpoint-interval=1000s", after=3,
                        sig=signal.SIGTERM)  # fmt: skip
    assert len(records(out)) >= 3


def test_all_is_measured(many, plain, tmp_path):
    """Then the checkpoint has the errors, and the file of measurements is not needed any more."""
    out = tmp_path / "out"
    found = stop(many, out, *WISHES["bpw"], size=half_of_first(plain("bpw")))
    assert len(entry(found, "a.safetensors")["errors"]) == 17
    assert not (out / MEASURED).exists()
    assert "measurements of an earlier run" not in go_on(many, out, "-v").stderr
    same_bundle(out, plain("bpw"))


def half_of_first(bundle):
    return (bundle / "a.safetensors.hct").stat().st_size // 2


def test_parts(many, plain, tmp_path):
    """Each part has measurements of its own."""
    out = tmp_path / "out"
    for part in (1, 2):
        name = f"{MEASURED}-{part}-of-2"
        for after in (20, 50):
            assert interrupt(many, out, *WISHES["bpw"], f"--shards={part}/2", after=after, name=name)
            assert len(records(out, name)) >= after
    for part in (1, 2):
        done = run(MKHCT, f"--shards={part}/2", many, out)
        assert "measurements of an earlier run are kept" in done.stderr
    run(MKHCT, "-q", "--finish", out)
    same_bundle(out, plain("bpw"))


# What does not fit ---------------------------------------------------------------------


def test_other_options(many, plain, tmp_path):
    out = tmp_path / "out"
    interrupt_measuring(many, out, *WISHES["bpw"], after=20)
    refuse_to_go_on(many, out, "-q", "--bpw=4", match="its option bpw was 3 and is 4 now")
    assert len(records(out)) >= 20
    done = run(MKHCT, "--restart", *WISHES["size"], many, out)
    assert "measurements of an earlier run" not in done.stderr
    same_bundle(out, plain("size"))


def test_other_source(many, tmp_path):
    out, own = tmp_path / "out", shutil.copytree(many, tmp_path / "own")
    interrupt_measuring(own, out, *WISHES["bpw"], after=20)
    os.utime(own / "b.safetensors")
    refuse_to_go_on(own, out, "-q", match="b.safetensors was written to since")


def cut(path, data):
    path.write_bytes(data[:-5])


def flip_fingerprint(path, data):
    path.write_bytes(data[:9] + bytes([data[9] ^ 1]) + data[10:])


def flip_middle(path, data):
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


DAMAGE = {
    "cut": (cut, "some"),
    "empty": (lambda path, _: path.write_bytes(b""), "none"),
    "gone": (lambda path, _: path.unlink(), "none"),
    "foreign": (lambda path, _: path.write_bytes(b"notes of mine\n" * 1000), "none"),
    "fingerprint": (flip_fingerprint, "none"),
    "middle": (flip_middle, "some"),
    "tail": (lambda path, data: path.write_bytes(data + bytes(range(256)) * 9), "all"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged(many, plain, tmp_path, damage):
    """What is damaged is measured again."""
    out = tmp_path / "out"
    interrupt_measuring(many, out, *WISHES["bpw"], after=20)
    kept = len(records(out))
    change, rest = DAMAGE[damage]
    change(out / MEASURED, (out / MEASURED).read_bytes())
    done = go_on(many, out, "-v")
    if rest == "none":
        assert "measurements of an earlier run" not in done.stderr
    elif rest == "all":
        assert f"{kept} measurements of an earlier run" in done.stderr
    else:
        assert f"{kept} measurements" not in done.stderr
        assert "measurements of an earlier run are kept" in done.stderr
    same_bundle(out, plain("bpw"))


def test_no_file(many, tmp_path):
    """A link or a folder in its place is not followed, and named."""
    out, victim = tmp_path / "out", tmp_path / "victim"
    victim.write_text("mine\n")
    interrupt_measuring(many, out, *WISHES["bpw"], after=5)
    for make in (lambda path: path.symlink_to(victim), lambda path: path.mkdir(),
                 lambda path: os.mkfifo(path)):  # fmt: skip
        (out / MEASURED).unlink()
        make(out / MEASURED)
        done = run(MKHCT, "-q", many, out, expect=EXIT_SYSTEM)
        assert done.stderr.startswith(f"mkhct: {out}: ") and done.stderr.count("\n") == 1
        if (out / MEASURED).is_dir():
            (out / MEASURED).rmdir()
            (out / MEASURED).write_bytes(b"")
    assert victim.read_text() == "mine\n"


# What stays as it was --------------------------------------------------------------------


def test_a_dry_run_writes_nothing(many, tmp_path):
    out = tmp_path / "out"
    run(MKHCT, "--dry-run", *WISHES["bpw"], many, out)
    assert not out.exists()
    interrupt_measuring(many, out, *WISHES["bpw"], after=20)
    before = tree_digests(out)
    done = run(MKHCT, "--dry-run", *WISHES["bpw"], many, out)
    assert "measurements of an earlier run" not in done.stderr
    assert tree_digests(out) == before


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("made", [False, True])
def test_a_budget_that_cannot_be_met(many, tmp_path, made, interrupted):
    """No run would do better, so nothing is kept."""
    out = tmp_path / "out"
    if made:
        out.mkdir()
    if interrupted:
        interrupt_measuring(many, out, "--size=40K", after=20)
    done = run(MKHCT, "--size=40K", many, out, expect=EXIT_USAGE)
    assert "cannot be met" in done.stderr and "what is done is kept" not in done.stderr
    assert listing(out) == [] if made or interrupted else not out.exists()
    run(MKHCT, "-q", "--lossless", many, out)
