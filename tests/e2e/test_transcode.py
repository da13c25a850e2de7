"""mkhct OLD NEW: a bundle, or one compressed file, as a source."""

import json
import os
import re
import shutil
import subprocess

import pytest
from helpers import (
    EXIT_BAD_DATA,
    EXIT_SYSTEM,
    EXIT_USAGE,
    HCT,
    MKHCT,
    compress,
    peak_memory,
    run,
    sha256,
    tree_digests,
)
from mkhct_tool import listing, make_sparse, refuse, same_after_extract

LOSSY = "was compressed with loss already, to a mean cosine of "


def files_of(bundle):
    """Digests of all but the report, which holds the time it took."""
    return {name: digest for name, digest in tree_digests(bundle).items()
            if not name.startswith(".hct/")}  # fmt: skip


@pytest.mark.parametrize("target", ["--lossless", "--retention=.6"])
@pytest.mark.parametrize("jobs", ["-j1", "-j5"])
def test_lossless_bundle_is_as_good_as_its_source(odd_model, odd_bundle, tmp_path, target, jobs):
    direct, again = tmp_path / "direct", tmp_path / "again"
    run(MKHCT, "-q", target, odd_model, direct)
    done = run(MKHCT, target, jobs, odd_bundle, again)
    assert LOSSY not in done.stderr
    assert files_of(again) == files_of(direct)


def test_names_times_and_modes(model, tmp_path):
    os.utime(model / "model.safetensors", ns=(1, 1234567890_123456789))
    (model / "model.safetensors").chmod(0o640)
    one = compress(model, tmp_path / "one")
    os.utime(one / "model.safetensors.hct")
    two = compress(one, tmp_path / "two")
    assert listing(two) == listing(one)
    run(HCT, "extract", two, tmp_path / "back")
    back = (tmp_path / "back" / "model.safetensors").stat()
    assert back.st_mtime_ns == 1234567890_123456789
    assert (two / "model.safetensors.hct").stat().st_mode & 0o777 == 0o640


def test_lossy_bundle(sharded_model, tmp_path):
    """What it decodes to is the source, and a note says so, once."""
    run(MKHCT, "-q", "--retention=.6", sharded_model, tmp_path / "lossy")
    done = run(MKHCT, "--lossless", tmp_path / "lossy", tmp_path / "exact")
    assert done.stderr.count(LOSSY) == 1
    said = (LOSSY + r"(\S+) \(as of --retention (\S+)\): its errors stay, and "
            r".* on top; a target that is no coarser only loses")  # fmt: skip
    cosine, retention = re.search(said, done.stderr).groups()
    report = json.loads((tmp_path / "lossy" / ".hct" / "report.json").read_text())
    assert abs(float(cosine) - report["lossy"]["cosine"]) < 2e-4
    assert abs(float(retention) - 0.6) < 0.02
    run(HCT, "extract", tmp_path / "lossy", tmp_path / "back")
    same_after_extract(tmp_path / "back", tmp_path / "exact", tmp_path)
    done = run(MKHCT, "-q", "--retention=.5", tmp_path / "lossy", tmp_path / "worse")
    assert done.stderr == ""
    run(HCT, "check", tmp_path / "worse")


@pytest.mark.parametrize("name", ["model.safetensors.hct", "other.hct"])
def test_one_compressed_file(model, tmp_path, name):
    compress(model, tmp_path / "old")
    shutil.copy(tmp_path / "old" / "model.safetensors.hct", tmp_path / name)
    out = compress(tmp_path / name, tmp_path / "out")
    (file,) = [n for n in listing(out) if not n.startswith(".hct")]
    assert file == ("model.safetensors.hct" if name[0] == "m" else "other.safetensors.hct")
    run(HCT, "extract", out, tmp_path / "back")
    back = tmp_path / "back" / file[: -len(".hct")]
    assert sha256(back) == sha256(model / "model.safetensors")


def test_selections_see_the_names_of_the_source(sharded_bundle, tmp_path):
    out = compress(sharded_bundle, tmp_path / "out", "--exclude=model-00002-of-00003.safetensors",
                   "--exclude=*.index.json")  # fmt: skip
    assert "model-00001-of-00003.safetensors.hct" in listing(out)
    assert "model-00002-of-00003.safetensors.hct" not in listing(out)
    refuse(sharded_bundle, tmp_path / "no", "--exclude=*.hct", code=EXIT_USAGE, match="matches no")
    refuse(sharded_bundle, tmp_path / "no", "--exclude=model-00002*", code=EXIT_USAGE,
           match="names the shard model-00002-of-00003.safetensors, which --exclude")  # fmt: skip


def test_what_looks_ahead(sharded_model, sharded_bundle, tmp_path):
    """A budget to meet, and a dry run, look at the tensors before they are written."""
    for source, out in ((sharded_model, "direct"), (sharded_bundle, "again")):
        run(MKHCT, "-q", "--bpw=3", source, tmp_path / out)
    assert files_of(tmp_path / "again") == files_of(tmp_path / "direct")
    previews = [run(MKHCT, "--dry-run", "--json", "-q", "--retention=.7", source).stdout
                for source in (sharded_model, sharded_bundle)]  # fmt: skip
    kept = [{k: v for k, v in json.loads(p).items() if k != "source"}
            for p in previews]  # fmt: skip
    assert kept[0] == kept[1]


@pytest.mark.parametrize("mark", ["unfinished.json", "checkpoint.json", "checkpoint-2-of-3.json"])
def test_unfinished_bundle(odd_bundle, tmp_path, mark):
    bundle = tmp_path / "bundle"
    shutil.copytree(odd_bundle, bundle)
    (bundle / ".hct" / mark).write_text("{}")
    refuse(bundle, tmp_path / "out", code=EXIT_BAD_DATA, match="has not finished this bundle")
    assert not (tmp_path / "out").exists()


def test_bundle_in_the_source(odd_bundle, odd_model, model, tmp_path):
    """Its files are part of the new bundle, without what its hidden folder says of them."""
    shutil.copytree(odd_bundle, model / "b")
    done = run(MKHCT, "--lossless", model, tmp_path / "out")
    (note,) = [line for line in done.stderr.splitlines() if "is a bundle itself" in line]
    assert note.startswith("mkhct: note: b is a bundle itself: its files are compressed anew")
    assert not any(".hct/" in name or name.endswith("/.hct") for name in listing(tmp_path / "out")
                   if not name.startswith(".hct"))  # fmt: skip
    for bundle in (tmp_path / "out", tmp_path / "out" / "b"):
        run(HCT, "check", bundle)
    run(HCT, "extract", tmp_path / "out", tmp_path / "back")
    assert tree_digests(tmp_path / "back" / "b") == tree_digests(odd_model)
    (model / "b" / ".hct" / "checkpoint.json").write_text("{}")
    refuse(model, tmp_path / "no", code=EXIT_BAD_DATA,
           match="/b: mkhct has not finished this bundle; .* --exclude b")  # fmt: skip
    run(MKHCT, "--lossless", "-q", "--exclude", "b", model, tmp_path / "less")
    assert not (tmp_path / "less" / "b").exists()


def test_damaged_bundle(odd_bundle, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(odd_bundle, bundle)
    file = bundle / "model.safetensors.hct"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    done = run(MKHCT, "-q", "--lossless", bundle, tmp_path / "out", expect=EXIT_BAD_DATA)
    assert "model.safetensors.hct: " in done.stderr
    file.write_bytes(data[: len(data) // 2])
    refuse(bundle, tmp_path / "never", code=EXIT_BAD_DATA, match="model.safetensors.hct: ")


def test_places_that_are_refused(odd_bundle, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(odd_bundle, bundle)
    for options in ([], ["--force"]):
        refuse(bundle, bundle, *options, code=EXIT_USAGE, match="lies in the source")
        refuse(bundle, bundle / "new", *options, code=EXIT_USAGE, match="lies in the source")
        refuse(bundle / "model.safetensors.hct", bundle, *options, code=EXIT_USAGE,
               match="lies in it")  # fmt: skip
    run(HCT, "check", bundle)


def test_nothing_is_left_behind(odd_bundle, tmp_path):
    """And nothing is needed elsewhere when OUT can be written to."""
    place, scratch = tmp_path / "place", tmp_path / "scratch"
    place.mkdir()
    scratch.mkdir()
    env = {"TMPDIR": str(tmp_path / "missing")}
    run(MKHCT, "-q", "--lossless", odd_bundle, place / "out", env=env)
    assert os.listdir(place) == ["out"]
    assert listing(place / "out") == listing(odd_bundle)
    run(MKHCT, "-q", "--dry-run", "--snr=20", odd_bundle, env={"TMPDIR": str(scratch)})
    assert os.listdir(scratch) == []


@pytest.mark.root
def test_disk_with_no_room_to_decode(tmp_path):
    make_sparse(tmp_path / "model.safetensors", 64 << 20)
    old = compress(tmp_path / "model.safetensors", tmp_path / "old")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk],
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    try:
        done = run(MKHCT, "-q", "--lossless", old, disk / "out", expect=EXIT_SYSTEM)
        assert "/disk/out: no room to decode " in done.stderr
        assert "which takes 64.0 MiB; make room" in done.stderr
    finally:
        subprocess.run(["umount", disk], check=True)


def test_memory_does_not_grow_with_the_file(tmp_path):
    make_sparse(tmp_path / "model.safetensors", 512 << 20, columns=1024)
    old = compress(tmp_path / "model.safetensors", tmp_path / "old")
    assert peak_memory(MKHCT, "--lossless", "-q", "-j2", old, tmp_path / "new") < 300 << 20
