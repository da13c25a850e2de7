"""mkhct: going on with a bundle that is unfinished, and when it refuses to."""

import contextlib
import functools
import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
from helpers import (
    EXIT_INTERRUPTED,
    EXIT_SYSTEM,
    HCT,
    MKHCT,
    make_safetensors,
    random_tensor,
    run,
    tree_digests,
    wait_until,
)
from mkhct_tool import listing, same_after_extract, start, started_writing
from resume_tool import (  # noqa: F401
    CHECKPOINT,
    Renames,
    edit,
    entry,
    files_of,
    go_on,
    half_of,
    plain,
    refuse_to_go_on,
    same_bundle,
    state,
    stop,
    two,
)



def write_importance(path, big):
    values = {"a.weight": 1.0, "b.big": big, "b.0.weight": 0.1}
    tensors = {name: {"importance": value} for name, value in values.items()}
    path.write_text(json.dumps({"version": 1, "tensors": tensors}))


@pytest.fixture
def own(two, tmp_path):
    """A copy of it, with its times, that a test may change."""
    return shutil.copytree(two, tmp_path / "own")


@pytest.fixture
def stopped(two, tmp_path):
    """It as a bundle that was stopped in the middle of b.big."""
    stop(two, tmp_path / "out")
    return tmp_path / "out"


# Going on ------------------------------------------------------------------------------

OPTIONS = {
    "default": (),
    "lossless": ("--lossless",),
    "coding": ("--retention", ".6", "--effort=2", "--transform", "dct", "--layers=2"),
    "tensors": ("--cosine=.99", "--tensor", "b.0.*=snr:30", "--keep", "a.*"),
    "policy": ("--policy", "adaptive", "--target-quality", ".9"),
    "importance": ("--importance", "IMPORTANCE"),
    "size": ("--size", "1200K"),
    "bits": ("--bpw=3",),
    "files": ("--exclude", "*.txt", "--exclude=*.json", "--include", "config.json"),
}


@pytest.mark.parametrize("again", ["nothing", "same"])
@pytest.mark.parametrize("name", OPTIONS)
def test_goes_on_as_it_began(two, tmp_path, name, again):
    """Without options it takes those it began with; the result is that of a run in one go."""
    write_importance(tmp_path / "importance.json", 0.5)
    options = [str(tmp_path / "importance.json") if word == "IMPORTANCE" else word
               for word in OPTIONS[name]]  # fmt: skip
    plain, out = tmp_path / "plain", tmp_path / "out"
    run(MKHCT, "-q", *options, two, plain)
    stop(two, out, *options, size=half_of(plain))
    done = go_on(two, out, "-v", *(options if again == "same" else ()))
    assert f"mkhct: note: going on with {out}, which is unfinished\n" in done.stderr
    assert "a.safetensors:" not in done.stderr  # was whole
    same_bundle(out, plain)
    run(HCT, "check", out)


def test_other_ways_to_say_the_same(two, plain, stopped):
    """What counts is what the options mean."""
    go_on(two, stopped, "-q", "--effort=5", "--retention=0.700", "--policy", "uniform")
    same_bundle(stopped, plain)


def test_options_that_do_not_decide_about_bytes(two, plain, stopped):
    go_on(two, stopped, "-q", "-j2", "--verify", "--checkpoint-interval=1", "--quality-sample=1")
    assert files_of(stopped) == files_of(plain)


def test_measured_errors_are_kept(two, tmp_path):
    """--size measures every tensor; a second run takes what the first one found, even if it is
    something that no measurement would find."""
    out = tmp_path / "out"
    first = stop(two, out, "--size", "1200K")
    errors = entry(first, "b.safetensors")["errors"]
    assert len(errors) == 6 and 0 < errors[5] < 0.1 and errors[4] == 0

    def change(document):
        entry(document, "b.safetensors")["errors"][5] = 0.2

    edit(out, change)
    go_on(two, out)
    report = json.loads((out / ".hct/report.json").read_text())
    (file,) = [f for f in report["files"] if f["name"] == "b.safetensors"]
    (tensor,) = [t for t in file["tensor_list"] if t["name"] == "b.z.weight"]
    assert tensor["relative_squared_error"] == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("wrong", [[], [0.1] * 5, [0.1] * 7, [1.0] * 6, [-1] * 6, ["x"] * 6, {}, 7])
def test_errors_that_are_none_are_measured_again(two, tmp_path, wrong):
    plain, out = tmp_path / "plain", tmp_path / "out"
    run(MKHCT, "-q", "--bpw=3", two, plain)
    stop(two, out, "--bpw=3")
    edit(out, lambda document: entry(document, "b.safetensors").update(errors=wrong))
    go_on(two, out)
    same_bundle(out, plain)


def test_several_stops(two, plain, tmp_path):
    out = tmp_path / "out"
    for size in (200 << 10, 400 << 10, 600 << 10, 800 << 10):
        seen = stop(two, out, size=size)
        assert 0 <= size - entry(seen, "b.safetensors")["bytes"] < 200 << 10
    assert seen["statistics"]["sessions"] == 4
    go_on(two, out)
    same_bundle(out, plain)


@pytest.mark.parametrize("options", [(), ("--lossless",)])
def test_same_for_any_number_of_threads(two, tmp_path, options):
    plain = tmp_path / "plain"
    run(MKHCT, "-q", "-j1", *options, two, plain)
    for jobs in ("-j2", "-j8"):
        out = tmp_path / jobs
        run(MKHCT, "-q", jobs, *options, two, out)
        same_bundle(out, plain)
        shutil.rmtree(out)
        stop(two, out, jobs, *options, size=half_of(plain))
        go_on(two, out, "-q", "-j1")
        same_bundle(out, plain)
        shutil.rmtree(out)
        stop(two, out, "-j1", *options)
        go_on(two, out, "-q", jobs)
        same_bundle(out, plain)


@pytest.mark.parametrize("options", [(), ("--lossless",), ("--layers=3",)])
def test_verify_changes_nothing(two, tmp_path, options):
    plain, out, again = tmp_path / "plain", tmp_path / "out", tmp_path / "again"
    run(MKHCT, "-q", *options, two, plain)
    for jobs in ("-j1", "-j3"):
        run(MKHCT, "-q", "--verify", jobs, *options, two, out)
        same_bundle(out, plain)
        shutil.rmtree(out)
    stop(two, again, "--verify", *options, size=half_of(plain))
    go_on(two, again, "-q", "--verify")
    same_bundle(again, plain)


def test_big_tensor_is_not_coded_again(two, tmp_path):
    """What is in the part file stays as it is: here a byte that nothing would write there."""
    plain, out = tmp_path / "plain", tmp_path / "out"
    run(MKHCT, "-q", "--lossless", two, plain)
    seen = entry(stop(two, out, "--lossless"), "b.safetensors")
    assert seen["completed_tensors"] == 3 and seen["chunks_of_next"] >= 1
    with open(out / ".b.safetensors.hct.part", "r+b") as file:
        file.seek(seen["bytes"] - 1)
        last = file.read(1)[0]
        file.seek(seen["bytes"] - 1)
        file.write(bytes([last ^ 1]))
    go_on(two, out)
    ours, theirs = [(o / "b.safetensors.hct").read_bytes() for o in (out, plain)]
    assert len(ours) == len(theirs)
    assert [i for i in range(len(ours)) if ours[i] != theirs[i]] == [seen["bytes"] - 1]


@pytest.mark.parametrize("harm", ["cut", "removed", "short by one"])
@pytest.mark.parametrize("what", [".b.safetensors.hct.part", ".a.safetensors.hct.part",
                                  ".hct/1.ledger"])  # fmt: skip
def test_files_of_the_state_that_are_gone(two, plain, stopped, what, harm):
    """What was done is done again, and a line says so."""
    path = stopped / what
    if harm == "removed":
        path.unlink()
    else:
        saved = entry(state(stopped), "b.safetensors")["bytes"]
        os.truncate(path, min(path.stat().st_size, saved) - 1 if harm == "short by one" else 100)
    done = go_on(two, stopped, "-v")
    name = "a" if ".a." in what else "b"
    assert f"warning: {name}.safetensors was written by an earlier run and is not there" in done.stderr
    same_bundle(stopped, plain)


@pytest.mark.parametrize("harm", ["ledger", "note"])
def test_state_that_is_damaged(two, plain, stopped, harm):
    """To run again helps: what it was of is written again."""
    if harm == "ledger":
        path = stopped / ".hct/1.ledger"
        blob = bytearray(path.read_bytes())
        blob[100] ^= 1
        path.write_bytes(blob)
        match = "b.safetensors was written by an earlier run and its ledger is damaged"
    else:
        edit(stopped, lambda document: entry(document, "a.safetensors").update(report={}))
        match = "a.safetensors was written by an earlier run and what was noted of it is damaged"
    done = go_on(two, stopped, "-v")
    assert f"warning: {match}; it is written again\n" in done.stderr
    same_bundle(stopped, plain)


def test_bytes_behind_what_is_saved_do_not_count(two, plain, stopped):
    for what in (".b.safetensors.hct.part", ".hct/1.ledger"):
        with open(stopped / what, "ab") as file:
            file.write(b"torn" * 1000)
    go_on(two, stopped)
    same_bundle(stopped, plain)


@pytest.mark.parametrize("harm", ["none", "changed", "cut", "removed"])
@pytest.mark.parametrize("first", ["a.bin", "z.bin"])
def test_big_file_is_not_copied_again(tmp_path, first, harm):
    """What is in its part file stays, when it is what was put there."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    rng = np.random.default_rng(6)
    make_safetensors(source / "model.safetensors", {"w": random_tensor(rng, "BF16", (8, 8))})
    (source / first).write_bytes(rng.bytes(40 << 20))
    seen = entry(stop(source, out, size=35 << 20), first)
    assert (seen["status"], seen["bytes"]) == ("in_progress", 32 << 20)
    stat, part = (source / first).stat(), out / f".{first}.part"
    with open(source / first, "r+b") as file:  # nobody notices
        file.write(b"changed")
    os.utime(source / first, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    if harm == "changed":
        with open(part, "r+b") as file:
            file.seek(20 << 20)
            file.write(b"harm")
    elif harm == "cut":
        os.truncate(part, 20 << 20)
    elif harm == "removed":
        part.unlink()
    go_on(source, out)
    copy, new = (out / first).read_bytes(), (source / first).read_bytes()
    assert copy[7:] == new[7:]
    assert (copy[:7] == b"changed") == (harm != "none")
    assert (out / first).stat().st_mtime_ns == stat.st_mtime_ns
    run(HCT, "check", out)
    plain = tmp_path / "plain"
    if harm != "none":
        run(MKHCT, "-q", source, plain)
        same_bundle(out, plain)


def test_interrupted_and_gone_on_with(two, plain, tmp_path):
    """By a signal, wherever it strikes."""
    out = tmp_path / "out"

    def has_begun(turn):
        with contextlib.suppress(FileNotFoundError):
            seen = state(out)
            return (seen["statistics"]["sessions"] > turn
                    and seen["shards"][0]["status"] == "completed")  # fmt: skip
        return False

    for turn in range(6):
        process = start("-q", "-j1", two, out)
        wait_until(functools.partial(has_begun, turn), timeout=30, interval=0.003)
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == EXIT_INTERRUPTED
        last = text.splitlines()[-1]
        assert "; what is done is kept: run the same command again to go on, or with --restart" in last
    assert turn > 0
    if (out / CHECKPOINT).exists():
        go_on(two, out)
    same_bundle(out, plain)


def test_part_file_names_stay(two, plain, stopped):
    """Files that the user puts there meanwhile move nothing."""
    (stopped / ".config.json.part").write_text("of the user")
    done = run(MKHCT, "-q", two, stopped, expect=None)
    if done.returncode:
        pytest.fail(done.stderr)
    assert (stopped / "b.safetensors.hct").read_bytes() == (plain / "b.safetensors.hct").read_bytes()


def test_old_bundle_that_is_written_anew(two, plain, model, tmp_path):
    """--force, stopped: nothing of the old bundle is touched before the new one is whole."""
    out = tmp_path / "out"
    run(MKHCT, "-q", model, out)
    before = files_of(out)
    stop(two, out, "--force")
    assert before.items() <= files_of(out).items()
    go_on(two, out)
    same_bundle(out, plain)
    same_after_extract(model, run_again(model, out, "--lossless", "-f"), tmp_path)


def run_again(source, out, *options):
    run(MKHCT, "-q", *options, source, out)
    return out


# When it is saved ----------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    """A tensor of some chunks, in which it is stopped, then twelve small ones."""
    folder = tmp_path / "many"
    folder.mkdir()
    rng = np.random.default_rng(4)
    tensors = {"big": random_tensor(rng, "F32", (1024, 1024))}
    tensors |= {f"small.{i:02}": random_tensor(rng, "F32", (100,)) for i in range(12)}
    make_safetensors(folder / "model.safetensors", tensors)
    return folder


def saves(source, tmp_path, interval):
    out = tmp_path / f"out-{interval}"
    stop(source, out, "--lossless", size=800 << 10)
    with Renames(out / ".hct") as renames:
        run(MKHCT, "-q", "--checkpoint-interval", interval, source, out)
    return renames.to("checkpoint.json")


def test_interval_of_tensors_and_seconds(many, tmp_path):
    least = saves(many, tmp_path, "86400s")
    # At the start, when the file is whole, and before names are given.
    assert least == 3
    assert saves(many, tmp_path, "10s") <= least + 3
    assert saves(many, tmp_path, "1") == least + 12
    assert saves(many, tmp_path, "3") == least + 4
    assert saves(many, tmp_path, "1000") == least
    # After each chunk.
    assert saves(many, tmp_path, "0s") >= least + 12 + 4


def test_saves_of_many_tensors_are_put_off(tmp_path):
    """Where a save is much more work than a tensor, not each tensor is one."""
    source, count = tmp_path / "source", 3000
    source.mkdir()
    rng = np.random.default_rng(4)
    make_safetensors(source / "model.safetensors", {
        f"small.{i:04}": random_tensor(rng, "F32", (10,)) for i in range(count)})  # fmt: skip
    (tmp_path / "out" / ".hct").mkdir(parents=True)
    with Renames(tmp_path / "out" / ".hct") as renames:
        run(MKHCT, "-q", "--lossless", "--checkpoint-interval=1", source, tmp_path / "out")
    assert 3 <= renames.to("checkpoint.json") < count / 4
    run(MKHCT, "-q", "--lossless", source, tmp_path / "plain")
    same_bundle(tmp_path / "out", tmp_path / "plain")


def test_what_a_checkpoint_says(two, tmp_path):
    """writer/checkpoint.h."""
    out = tmp_path / "out"
    seen = stop(two, out, "--retention=.6", "--tensor", "b.0*=lossless", size=300 << 10)
    assert seen["version"] == 1 and seen["tool"] == "mkhct" and seen["model"] == "two"
    assert seen["tool_version"] == run(MKHCT, "--version").stdout.split()[1]
    assert seen["options"]["retention"] == 0.6
    assert seen["options"]["overrides"] == [{"pattern": "b.0*", "lossless": True}]
    assert seen["words"] == ["--retention=.6", "--tensor=b.0*=lossless"]
    assert seen["part"] == 0 and seen["parts"] == 0 and seen["stage"] == "writing"
    assert seen["statistics"]["sessions"] == 1 and seen["statistics"]["seconds"] > 0
    names = [shard["name"] for shard in seen["shards"]]
    assert names == ["a.safetensors", "b.safetensors", "config.json", "sub", "sub/notes.txt"]
    for shard in seen["shards"]:
        stat = (two / shard["name"]).stat()
        assert shard["mode"] == stat.st_mode & 0o777
        if shard["kind"] != "folder":
            assert shard["size"] == stat.st_size
            assert shard["mtime"] == list(divmod(stat.st_mtime_ns, 10**9))
    assert [shard["kind"] for shard in seen["shards"]] == [
        "model", "model", "carried", "folder", "carried"]  # fmt: skip
    a, b, config, _, _ = seen["shards"]
    assert a["status"] == "completed" and a["report"]["tensors"] == 2
    assert a["bytes"] == (out / ".a.safetensors.hct.part").stat().st_size
    assert re.fullmatch("[0-9a-f]{16}", a["header_xxh3"]) and a["header_xxh3"] != b["header_xxh3"]
    assert config["status"] == "pending"
    assert b["status"] == "in_progress" and b["part"] == {"name": ".b.safetensors.hct.part"}
    assert 0 <= (out / ".b.safetensors.hct.part").stat().st_size - b["bytes"] < 200 << 10
    assert b["ledger_bytes"] == (out / ".hct/1.ledger").stat().st_size
    blob = (two / "b.safetensors").read_bytes()
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    tensors = b["tensors"]
    assert [t["status"] for t in tensors] == [
        "completed", "completed", "completed", "in_progress", "pending", "pending"]  # fmt: skip
    for tensor in tensors:
        begin, end = header[tensor["name"]]["data_offsets"]
        assert (tensor["offset"], tensor["size"]) == (begin, end - begin)
    assert set(tensors[3]) == {"name", "status", "offset", "size"}
    assert tensors[0]["relative_squared_error"] == 0 and tensors[0]["cosine"] == 1
    assert tensors[1]["relative_squared_error"] == pytest.approx(0.03532, rel=0.05)
    assert 0.97 < tensors[1]["cosine"] < 0.99 and tensors[1]["retries"] == 0
    go_on(two, out)
    report = json.loads((out / ".hct/report.json").read_text())
    (file,) = [f for f in report["files"] if f["name"] == "b.safetensors"]
    for ours, theirs in zip(tensors[:2], file["tensor_list"], strict=False):
        assert 0 <= ours["stored"] - theirs["stored_bytes"] < 1024  # tables


# Refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, match",
    [
        (("--retention=.6",), "its option retention was 0.7 and is 0.6 now"),
        (("--lossless",), "its option mode was \"lossy\" and is \"lossless\" now"),
        (("--effort=9",), "its option effort was 5 and is 9 now"),
        (("--cosine=.9",), "its option retention was 0.7 and is not given now"),
        (("--keep=a*",), "its option overrides was not given and is .* now"),
        (("--exclude=*.txt",), "sub.* is no longer in the source"),
    ],
)
def test_other_options_are_refused(two, stopped, options, match):
    refuse_to_go_on(two, stopped, *options, match=match)


def test_importance_that_was_changed(two, tmp_path):
    path, out = tmp_path / "importance.json", tmp_path / "out"
    write_importance(path, 0.5)
    stop(two, out, "--importance", path, size=300 << 10)
    write_importance(path, 0.6)
    refuse_to_go_on(two, out, match="its option importance_xxh3 was .* and is .* now")
    path.unlink()
    done = run(MKHCT, "-q", two, out, expect=None)
    assert done.returncode and str(path) in done.stderr and len(done.stderr.splitlines()) == 1


def grow(source):
    with open(source / "config.json", "a") as file:
        file.write(" ")


def touch(source):
    os.utime(source / "b.safetensors", ns=(0, 10**18))


def rewrite_header(source):
    """The same size and time."""
    path = source / "b.safetensors"
    stat, blob = path.stat(), path.read_bytes()
    path.write_bytes(blob.replace(b"b.ids", b"b.idz", 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def swap_kinds(source):
    (source / "config.json").unlink()
    (source / "config.json").mkdir()


@pytest.mark.parametrize(
    "change, match",
    [
        (grow, "config.json has another size now"),
        (touch, "b.safetensors was written to since"),
        (rewrite_header, "b.safetensors has another header now"),
        (lambda source: (source / "b2.json").write_text("new"), "b2.json is new in the source"),
        (lambda source: (source / "z.json").write_text("new"), "z.json is new in the source"),
        (lambda source: (source / "config.json").unlink(), "config.json is no longer in the source"),
        (lambda source: shutil.rmtree(source / "sub"), "sub is no longer in the source"),
        (swap_kinds, "config.json is of another kind now"),
    ],
)
def test_source_that_was_changed(own, tmp_path, change, match):
    out = tmp_path / "out"
    stop(own, out)
    change(own)
    refuse_to_go_on(own, out, match=match)
    go_on(own, out, "-q", "--restart")
    run(HCT, "check", out)
    same = tmp_path / "same"
    run(MKHCT, "-q", own, same)
    same_bundle(out, same)


def test_times_before_1970(own, tmp_path):
    os.utime(own / "b.safetensors", ns=(0, -(10**18) + 5))
    plain, out = tmp_path / "plain", tmp_path / "out"
    run(MKHCT, "-q", own, plain)
    stop(own, out)
    go_on(own, out)
    same_bundle(out, plain)


@pytest.mark.parametrize("change", [{"tool_version": "99.0.0"}, {"version": 2}])
def test_newer_tool(two, plain, stopped, change):
    edit(stopped, lambda document: document.update(change))
    match = ("was begun by a newer mkhct: it is of version 2, and this one knows 1"
             if "version" in change else r"was begun by mkhct 99\.0\.0, which is newer than this one")  # fmt: skip
    refuse_to_go_on(two, stopped, match=match)
    refuse_to_go_on(two, stopped, "--lossless", match=match)
    go_on(two, stopped, "-q", "--restart")
    same_bundle(stopped, plain)


def test_restart(two, model, plain, tmp_path, stopped):
    """Begins anew, with other options, or from another source, and leaves nothing behind."""
    go_on(two, stopped, "-q", "--restart", "--lossless")
    lossless = tmp_path / "lossless"
    run(MKHCT, "-q", "--lossless", two, lossless)
    same_bundle(stopped, lossless)
    out = tmp_path / "other"
    stop(two, out)
    (out / "mine.txt").write_text("of the user")
    go_on(model, out, "-q", "--restart")
    assert listing(out) == [
        ".hct", ".hct/report.html", ".hct/report.json", "config.json", "mine.txt",
        "model.safetensors.hct", "sub", "sub/notes.txt"]  # fmt: skip
    # With nothing to begin anew, it is as without.
    run(MKHCT, "-q", "--restart", two, tmp_path / "new")
    same_bundle(tmp_path / "new", plain)


def test_restart_that_is_stopped(two, plain, stopped):
    stop(two, stopped, "--restart", "--lossless")
    refuse_to_go_on(two, stopped, "--effort=5", match="its option mode")
    stop(two, stopped, "--restart")
    go_on(two, stopped)
    same_bundle(stopped, plain)


def test_finished_bundle_is_no_unfinished_one(two, plain, tmp_path):
    out = shutil.copytree(plain, tmp_path / "out")
    for options in ((), ("--restart",)):
        done = run(MKHCT, *options, two, out, expect=EXIT_SYSTEM)
        assert "a bundle already; give --force to write it anew" in done.stderr
    assert tree_digests(out) == tree_digests(plain)


def test_dry_run_of_an_unfinished_bundle(two, stopped):
    before = tree_digests(stopped)
    done = run(MKHCT, "--dry-run", "--retention=.5", two, stopped)
    assert "b.big" in done.stdout
    assert tree_digests(stopped) == before


def test_two_at_once(slow_model, two, tmp_path):
    out = tmp_path / "out"
    process = start("-q", slow_model, out)
    assert started_writing(out)
    for options in ((), ("-f",), ("--restart",)):
        refuse_to_go_on(slow_model, out, *options, same=False, match="another mkhct is at work on it")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED
    go_on(two, out, "-q", "--restart")
    run(HCT, "check", out)


def test_names_that_are_no_utf8(own, tmp_path):
    name = os.fsencode(own) + b"/caf\xe9.safetensors"
    shutil.copy(own / "a.safetensors", name)
    plain, out = tmp_path / "plain", tmp_path / "out"
    run(MKHCT, "-q", own, plain)
    stop(own, out)
    go_on(own, out)
    same_bundle(out, plain)
