"""mkhct --shards and --finish: one bundle, made in parts."""

import json
import os
import shutil
import signal

import pytest
from helpers import (
    EXIT_BAD_DATA,
    EXIT_SYSTEM,
    EXIT_USAGE,
    HCT,
    MKHCT,
    make_sharded_model,
    run,
    tree_digests,
)
from mkhct_tool import make_sparse, start, started_writing
from resume_tool import edit, files_of, go_on, run_limited, same_bundle, state, stop

PARTS = 3


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three models, an index, and a config.  Do not change it."""
    return make_sharded_model(tmp_path_factory.mktemp("sharded") / "source", layers=3)


@pytest.fixture(scope="module")
def plain(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "plain"
    run(MKHCT, "-q", source, out)
    return out


def make_part(source, out, part, *options, parts=PARTS):
    return run(MKHCT, "-q", *options, "--shards", f"{part}/{parts}", source, out)


@pytest.fixture(scope="module")
def all_parts(source, tmp_path_factory):
    """All parts, not finished.  Do not change it."""
    out = tmp_path_factory.mktemp("parts") / "out"
    for part in range(1, PARTS + 1):
        make_part(source, out, part)
    return out


@pytest.fixture
def parts(all_parts, tmp_path):
    return shutil.copytree(all_parts, tmp_path / "parts")


def finish(out, *options):
    return run(MKHCT, "-q", *options, "--finish", out)


def refuse_to_finish(out, match, code=EXIT_SYSTEM):
    before = tree_digests(out)
    done = run(MKHCT, "--finish", out, expect=code)
    (line,) = done.stderr.splitlines()
    assert done.stdout == "" and match in line, line
    assert tree_digests(out) == before


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_parts_in_any_order(source, plain, tmp_path, order):
    out = tmp_path / "out"
    for part in order:
        refused = run(MKHCT, "--finish", out, expect=EXIT_SYSTEM)
        assert len(refused.stderr.splitlines()) == 1
        make_part(source, out, part)
        assert not list(out.glob("*.safetensors.hct"))  # none has a name yet
        run(HCT, "ls", out, expect=1)
    finish(out)
    same_bundle(out, plain)
    run(HCT, "check", out)


@pytest.mark.parametrize("count", [1, 2, 5, 300])
def test_any_number_of_parts(source, plain, tmp_path, count):
    """More parts than models, too: then some have nothing to do."""
    out = tmp_path / "out"
    for part in range(1, count + 1) if count < 300 else (1, 2, 3, 300):
        make_part(source, out, part, parts=count)
    if count == 300:
        refuse_to_finish(out, "part 4 of 300 is missing; run mkhct --shards 4/300")
        return
    finish(out)
    same_bundle(out, plain)


def test_other_files_are_those_of_part_1(source, tmp_path):
    out = tmp_path / "out"
    make_part(source, out, 2)
    assert sorted(os.listdir(out)) == [".hct", ".model-00002-of-00003.safetensors.hct.part"]
    seen = state(out, ".hct/checkpoint-2-of-3.json")
    assert (seen["part"], seen["parts"]) == (2, 3)
    assert [shard["status"] for shard in seen["shards"]] == [
        "skipped", "skipped", "completed", "skipped", "skipped"]  # fmt: skip


def test_report_is_printed(parts):
    report = json.loads(run(MKHCT, "--json", "--finish", parts).stdout.splitlines()[-1])
    assert report["models"] == 3
    kept = json.loads((parts / ".hct/report.json").read_text())
    assert kept["stored_bytes"] == report["stored_bytes"]


def test_what_a_part_says(source, tmp_path):
    out = tmp_path / "out"
    done = run(MKHCT, "--shards", "2/3", source, out)
    assert done.stdout == (
        f"part 2 of 3 of {out} is done; when all are: mkhct --finish {out}\n")  # fmt: skip


def test_part_that_is_done_is_not_done_again(source, parts):
    before = {p: p.stat().st_mtime_ns for p in parts.glob(".*.part")}
    make_part(source, parts, 2)
    assert {p: p.stat().st_mtime_ns for p in parts.glob(".*.part")} == before


def test_missing_part(source, plain, parts):
    for name in (".hct/checkpoint-2-of-3.json", ".model-00002-of-00003.safetensors.hct.part"):
        (parts / name).unlink()
    refuse_to_finish(parts, "part 2 of 3 is missing; run mkhct --shards 2/3")
    make_part(source, parts, 2)
    finish(parts)
    same_bundle(parts, plain)


@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_file_of_a_part_is_gone(source, plain, parts, harm):
    path = parts / ".model-00002-of-00003.safetensors.hct.part"
    if harm == "removed":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 1)
    refuse_to_finish(parts, "model-00002-of-00003.safetensors")
    make_part(source, parts, 2)
    finish(parts)
    same_bundle(parts, plain)


def test_part_that_is_not_done(source, plain, tmp_path):
    out = tmp_path / "out"
    for part in (1, 3):
        make_part(source, out, part)
    run(MKHCT, "-q", "--shards=2/3", source, out)
    size = (plain / "model-00002-of-00003.safetensors.hct").stat().st_size
    shutil.rmtree(out)
    for part in (1, 3):
        make_part(source, out, part)
    with pytest.raises(FileNotFoundError):  # stop() reads the checkpoint of a whole bundle
        stop(source, out, "--shards=2/3", size=size // 2)
    refuse_to_finish(out, "part 2 of 3 is not done; run mkhct --shards 2/3 again")
    go_on(source, out, "-q", "--shards=2/3")
    finish(out)
    same_bundle(out, plain)


def test_part_with_other_options(source, tmp_path):
    out = tmp_path / "out"
    for part in (1, 2):
        make_part(source, out, part)
    before = tree_digests(out)
    done = run(MKHCT, "-q", "--lossless", "--shards=3/3", source, out, expect=EXIT_SYSTEM)
    assert "is not what part 1 of it was begun with: its option mode was " in done.stderr
    assert "give --restart and the source and options of part 1" in done.stderr
    assert tree_digests(out) == before
    # Who wants all of it anew begins somewhere.
    make_part(source, out, 3, "--lossless", "--restart")
    refuse_to_finish(out, "part 3 is not as part 1: its option mode was ")
    refuse_to_finish(out, "run mkhct --shards 3/3 --restart with the source and the options of part 1")
    # To run it again would be with its own options.
    done = run(MKHCT, "-q", "--shards=3/3", source, out, expect=EXIT_SYSTEM)
    assert "is not what part 1 of it was begun with" in done.stderr
    make_part(source, out, 3, "--restart")
    finish(out)
    run(HCT, "check", out)


def test_part_of_another_source(source, tmp_path):
    own, out = shutil.copytree(source, tmp_path / "own"), tmp_path / "out"
    for part in (1, 2):
        make_part(own, out, part)
    os.utime(own / "model-00001-of-00003.safetensors", ns=(0, 10**18))
    done = run(MKHCT, "-q", "--shards=3/3", own, out, expect=EXIT_SYSTEM)
    assert "model-00001-of-00003.safetensors was written to since" in done.stderr
    make_part(own, out, 3, "--restart")
    refuse_to_finish(out, "model-00001-of-00003.safetensors is another file, or of another time")


def test_same_source_elsewhere(source, plain, tmp_path):
    """What counts is name, size and time: each machine may have it at another place."""
    (tmp_path / "other").mkdir()
    copy = shutil.copytree(source, tmp_path / "other" / "source")
    out = tmp_path / "out"
    for part, place in ((1, source), (2, copy), (3, source)):
        make_part(place, out, part)
    finish(out)
    same_bundle(out, plain)


def test_finish_twice(plain, parts):
    finish(parts)
    before = tree_digests(parts)
    done = run(MKHCT, "--finish", parts)
    assert (done.stdout, done.stderr) == (f"{parts} is finished already\n", "")
    assert run(MKHCT, "-q", "--finish", parts).stdout == ""
    assert tree_digests(parts) == before
    assert files_of(parts) == files_of(plain)


def test_finish_says_that_what_is_done_is_kept(source, plain, parts, tmp_path):
    (parts / ".hct/checkpoint-2-of-3.json").rename(tmp_path / "away")
    refuse_to_finish(parts, "run mkhct --shards 2/3; what is done is kept")
    (tmp_path / "away").rename(parts / ".hct/checkpoint-2-of-3.json")
    done = run_limited(100, "--finish", parts)
    assert done.stderr.endswith("File too large; what is done is kept: "
                                f"run mkhct --finish {parts} again to go on\n")  # fmt: skip
    finish(parts)
    same_bundle(parts, plain)


def test_seconds_of_parts_count_once(plain, parts):
    """However often --finish has taken them over."""
    for part, seconds in (2, 1000), (3, 2000):
        edit(parts, lambda d, s=seconds: d["statistics"].update(seconds=s),
             f".hct/checkpoint-{part}-of-3.json")  # fmt: skip
    size = (plain / ".hct/report.html").stat().st_size - 1
    for _ in range(3):
        run_limited(size, "-q", "--finish", parts)
        seen = state(parts, ".hct/checkpoint-1-of-3.json")["statistics_of_parts"]
        assert {part: seen[part]["seconds"] for part in seen} == {"2": 1000, "3": 2000}
    finish(parts)
    same_bundle(parts, plain)
    assert 3000 < json.loads((parts / ".hct/report.json").read_text())["seconds"] < 3100


@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.parametrize("harm", ["checkpoint", "file", "note"])
def test_damaged_part(source, plain, parts, part, harm):
    """The line says how to mend it."""
    name = f".hct/checkpoint-{part}-of-3.json"
    words = ["--shards", f"{part}/3"]
    if harm == "checkpoint":
        (parts / name).write_text("{")
        refuse_to_finish(parts, f"run mkhct --shards {part}/3 with --restart", EXIT_BAD_DATA)
        words.append("--restart")
    elif harm == "file":
        with open(parts / f".model-0000{part}-of-00003.safetensors.hct.part", "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"x")
        refuse_to_finish(parts, "make its part again, with --restart", EXIT_BAD_DATA)
        words.append("--restart")
    else:
        edit(parts, lambda d: d["shards"][part].update(report={}), name)
        done = run(MKHCT, "--finish", parts, expect=EXIT_SYSTEM)
        assert "what was noted of it is damaged; run its part again; what is done is kept" in done.stderr
    run(MKHCT, "-q", *words, source, parts)
    finish(parts)
    # Part files that no checkpoint tells of any more are nobody's.
    orphans = list(parts.glob(".*.part")) if harm == "checkpoint" else []
    for orphan in orphans:
        orphan.unlink()
    same_bundle(parts, plain)


@pytest.mark.parametrize("part", [1, 2, 3])
def test_restarted_part_leaves_the_others_alone(source, plain, parts, part):
    others = {p: p.stat().st_ino for p in parts.glob(".model-*.part") if f"0000{part}-of" not in p.name}
    assert len(others) == PARTS - 1
    make_part(source, parts, part, "--restart")
    assert {p: p.stat().st_ino for p in others if p.exists()} == others
    finish(parts)
    same_bundle(parts, plain)


def test_finish_of_what_has_no_parts(source, plain, tmp_path):
    (tmp_path / "bare" / ".hct").mkdir(parents=True)
    refuse_to_finish(tmp_path / "bare", "no parts of a bundle are there; nothing to finish")
    (tmp_path / "empty").mkdir()
    refuse_to_finish(tmp_path / "empty", "no bundle that is being made")
    stop(source, tmp_path / "one", size=100 << 10)
    refuse_to_finish(tmp_path / "one", "is not made in parts; run mkhct SRC OUT again")
    done = run(MKHCT, "--finish", tmp_path / "none", expect=EXIT_SYSTEM)
    assert "No such file" in done.stderr


def test_parts_and_a_whole_exclude_each_other(source, parts, tmp_path):
    before = tree_digests(parts)
    for options in ((), ("-f",), ("--restart",), ("--shards=1/2",), ("--restart", "--shards=1/2")):
        done = run(MKHCT, *options, source, parts, expect=EXIT_SYSTEM)
        assert "is being made in other parts (checkpoint-" in done.stderr
        assert tree_digests(parts) == before
    out = tmp_path / "one"
    stop(source, out, size=100 << 10)
    done = run(MKHCT, "--shards=1/2", source, out, expect=EXIT_SYSTEM)
    assert "is being made in other parts (checkpoint.json)" in done.stderr


def test_finished_bundle_is_not_made_in_parts(source, plain, model, tmp_path):
    out = shutil.copytree(plain, tmp_path / "out")
    done = run(MKHCT, "--shards=1/3", source, out)
    assert done.stdout == f"{out} is finished already\n"
    assert not done.stderr
    for other, options, match in (
        (source, ("--lossless",), "its option mode was"),
        (model, (), "is not what it is in the source now"),
        (source, ("--exclude=config.json",), "the source had other files"),
    ):
        done = run(MKHCT, "--shards=1/3", *options, other, out, expect=EXIT_SYSTEM)
        assert "is a finished bundle already, and " in done.stderr and match in done.stderr
        assert "--force" not in done.stderr and "kept" not in done.stderr
    assert tree_digests(out) == tree_digests(plain)


def test_source_that_was_changed_since_it_was_finished(source, tmp_path):
    own, out = shutil.copytree(source, tmp_path / "own"), tmp_path / "out"
    run(MKHCT, "-q", own, out)
    run(MKHCT, "-q", "--shards=1/3", own, out)
    for name in ("config.json", "model-00002-of-00003.safetensors"):
        sb = os.stat(own / name)
        os.utime(own / name, ns=(0, 10**18))
        done = run(MKHCT, "--shards=1/3", own, out, expect=EXIT_SYSTEM)
        assert f"{name} is not what it is in the source now" in done.stderr
        os.utime(own / name, ns=(0, sb.st_mtime_ns))
    run(MKHCT, "-q", "--shards=1/3", own, out)


def test_checkpoints_of_different_numbers_of_parts(source, parts):
    shutil.copy(parts / ".hct/checkpoint-1-of-3.json", parts / ".hct/checkpoint-1-of-2.json")
    refuse_to_finish(parts, "has checkpoints of 2 parts and of 3")
    (parts / ".hct/checkpoint-1-of-2.json").rename(parts / ".hct/checkpoint.json")
    refuse_to_finish(parts, "has checkpoints of 3 parts and of one run")


def test_part_that_is_asked_for_while_names_are_given(source, plain, parts):
    edit(parts, lambda d: d.update(stage="naming"), ".hct/checkpoint-1-of-3.json")
    for part, options in ((1, ()), (2, ()), (2, ("--restart",))):
        before = tree_digests(parts)
        done = run(MKHCT, *options, f"--shards={part}/3", source, parts, expect=EXIT_SYSTEM)
        assert f"it is being finished; run mkhct --finish {parts} again" in done.stderr
        assert tree_digests(parts) == before
    finish(parts)
    same_bundle(parts, plain)


def test_names_that_are_given_by_two_runs(source, plain, parts):
    """A --finish that was stopped while it gave names."""
    first, second, third = sorted(parts.glob(".model*.hct.part"))
    edit(parts, lambda d: d.update(stage="naming"), ".hct/checkpoint-1-of-3.json")
    first.rename(parts / first.name[1:-5])
    third.rename(parts / third.name[1:-5])
    assert second.exists()
    finish(parts)
    same_bundle(parts, plain)


def test_two_parts_at_once(source, tmp_path):
    slow, out = tmp_path / "slow", tmp_path / "out"
    slow.mkdir()
    make_sparse(slow / "model.safetensors", 64 << 30)
    shutil.copy(source / "model-00001-of-00003.safetensors", slow / "z.safetensors")
    process = start("-q", "--shards=1/2", slow, out)
    assert started_writing(out)
    make_part(slow, out, 2, parts=2)
    for _ in range(2):
        done = run(MKHCT, "--shards=1/2", slow, out, expect=EXIT_SYSTEM)
        assert "another mkhct is at work on it" in done.stderr
    refuse = run(MKHCT, "--finish", out, expect=EXIT_SYSTEM)
    assert "part 1 of 2" in refuse.stderr or "another mkhct" in refuse.stderr
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def test_part_that_did_nothing_leaves_the_others(source, parts, tmp_path):
    """What is rolled back is one's own."""
    before = tree_digests(parts)
    (parts / ".hct/checkpoint-3-of-3.json").unlink()
    (parts / ".model-00003-of-00003.safetensors.hct.part").unlink()
    run(MKHCT, "-q", "--shards=3/3", source / "none", parts, expect=None)
    assert tree_digests(parts).items() <= before.items()


@pytest.mark.parametrize(
    "words, match",
    [
        (["--shards=0/3", "a", "b"], "'0/3' is no part I/N"),
        (["--shards=4/3", "a", "b"], "'4/3' is no part I/N"),
        (["--shards=1", "a", "b"], "'1' is no part I/N"),
        (["--shards=-1/3", "a", "b"], "'-1/3' is no part I/N"),
        (["--shards=1/3x", "a", "b"], "'1/3x' is no part I/N"),
        (["--shards=1/3", "--dry-run", "a", "b"], "--shards: a dry run is always of everything"),
        (["--shards=1/3", "-f", "a", "b"], "--shards and --force exclude each other"),
        (["--finish", "--lossless", "b"], "--finish: takes the options that the parts"),
        (["--finish", "--shards=1/2", "b"], "--finish: takes the options that the parts"),
        (["--finish", "a", "b"], "'b' is one argument too many: --finish takes OUT alone"),
        (["--finish"], "OUT is missing"),
    ],
)
def test_wrong_command_lines(words, match):
    done = run(MKHCT, *words, expect=EXIT_USAGE)
    (line,) = done.stderr.splitlines()
    assert match in line
