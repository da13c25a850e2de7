"""hct extract: what it gives back, replaces and refuses."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hct_tool import copy_bundle, extents, flip, hct
from helpers import (
    EXIT_BAD_DATA,
    EXIT_SYSTEM,
    EXIT_USAGE,
    compress,
    make_safetensors,
    random_tensor,
    sha256,
    tree_digests,
)


def leftovers(folder):
    return [str(p) for p in Path(folder).rglob("*") if p.name.endswith(".part")]


@pytest.mark.parametrize("jobs", [1, 4])
def test_extract_gives_back_the_source(tmp_path, odd_model, odd_bundle, jobs):
    out = tmp_path / "out"
    hct("extract", "-j", jobs, odd_bundle, out)
    assert tree_digests(out) == tree_digests(odd_model)
    for path in odd_model.rglob("*"):
        if path.is_file():
            again = out / path.relative_to(odd_model)
            assert again.stat().st_mtime_ns == path.stat().st_mtime_ns
    assert hct("compare", odd_model, out).stdout.endswith("all bit-identical\n")


def test_extract_of_sharded_and_of_one_file(tmp_path, sharded_model, sharded_bundle):
    hct("extract", "-q", sharded_bundle, tmp_path / "all")
    assert tree_digests(tmp_path / "all") == tree_digests(sharded_model)
    shard = sorted(sharded_bundle.glob("*.safetensors.hct"))[1]
    hct("extract", shard, tmp_path / "one")
    assert [p.name for p in (tmp_path / "one").iterdir()] == [shard.name[:-4]]
    assert sha256(tmp_path / "one" / shard.name[:-4]) == sha256(sharded_model / shard.name[:-4])


def test_extract_of_some_files(tmp_path, odd_model, odd_bundle):
    out = tmp_path / "out"
    hct("extract", odd_bundle, out, "onnx/deep/vocab ü.txt", "adapter.safetensors.hct")
    assert set(tree_digests(out)) == {"onnx/deep/vocab ü.txt", "adapter.safetensors"}
    assert sha256(out / "adapter.safetensors") == sha256(odd_model / "adapter.safetensors")
    hct("extract", odd_bundle, tmp_path / "no", "nothing", expect=EXIT_SYSTEM)
    assert not (tmp_path / "no").exists()


def test_extract_replaces_only_with_force(tmp_path, sharded_model, sharded_bundle):
    out = tmp_path / "out"
    out.mkdir()
    last = sorted(p.name for p in sharded_model.iterdir())[-1]
    (out / last).write_text("mine")
    (out / "other").write_text("other")
    done = hct("extract", sharded_bundle, out, expect=EXIT_SYSTEM)
    assert last in done.stderr and "-f" in done.stderr
    assert sorted(p.name for p in out.iterdir()) == sorted([last, "other"])
    assert (out / last).read_text() == "mine"
    hct("extract", "-f", sharded_bundle, out)
    (out / "other").unlink()
    assert tree_digests(out) == tree_digests(sharded_model)
    # Links are replaced, not followed.
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (out / last).unlink()
    (out / last).symlink_to(victim)
    hct("extract", sharded_bundle, out, last, expect=EXIT_SYSTEM)
    hct("extract", "-f", sharded_bundle, out, last)
    assert victim.read_text() == "mine" and not (out / last).is_symlink()


def test_extract_into_the_bundle_itself(tmp_path, sharded_bundle):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    before = tree_digests(bundle)
    done = hct("extract", "-f", bundle, bundle, expect=EXIT_USAGE)
    assert "is the bundle" in done.stderr
    assert tree_digests(bundle) == before


def test_extract_where_it_cannot_write(tmp_path, sharded_bundle):
    (tmp_path / "file").write_text("x")
    hct("extract", sharded_bundle, tmp_path / "file", expect=EXIT_SYSTEM)
    done = hct("extract", sharded_bundle, tmp_path / "no" / "parent", expect=EXIT_SYSTEM)
    assert "no/parent" in done.stderr
    assert not (tmp_path / "no").exists()


def test_extract_of_a_damaged_bundle(tmp_path, sharded_model, sharded_bundle):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    shards = sorted(bundle.glob("*.safetensors.hct"))
    offset, length = extents(shards[0])[-1]
    flip(shards[0], offset + length // 2)
    os.truncate(shards[1], 1000)
    out = tmp_path / "out"
    done = hct("extract", bundle, out, expect=EXIT_BAD_DATA)
    assert shards[0].name in done.stderr and shards[1].name in done.stderr
    # What is whole is there, the rest is not.
    digests = tree_digests(sharded_model)
    for shard in shards[:2]:
        del digests[shard.name[:-4]]
    assert tree_digests(out) == digests


def test_failed_extract_leaves_no_empty_directories(tmp_path, odd_bundle):
    bundle = copy_bundle(odd_bundle, tmp_path)
    nested = bundle / "more" / "deep" / "m.safetensors.hct"
    nested.parent.mkdir(parents=True)
    shutil.copy(bundle / "model.safetensors.hct", nested)
    flip(nested, extents(nested)[0][0])
    name = nested.relative_to(bundle)
    hct("extract", bundle, tmp_path / "out", name, expect=EXIT_BAD_DATA)
    assert not (tmp_path / "out").exists()
    # A directory that was there stays.
    (tmp_path / "out").mkdir()
    hct("extract", bundle, tmp_path / "out", name, expect=EXIT_BAD_DATA)
    assert os.listdir(tmp_path / "out") == []


def test_extract_over_the_remains_of_another(tmp_path, sharded_model, sharded_bundle):
    out = tmp_path / "out"
    out.mkdir()
    name = sorted(p.name for p in sharded_model.glob("*.safetensors"))[0]
    part = out / f".{name}.part"
    part.write_bytes(b"x" * 10_000_000)
    with open(part, "rb") as held:  # a program that is at work on it
        fcntl.flock(held, fcntl.LOCK_EX)
        done = hct("extract", sharded_bundle, out, name, expect=EXIT_SYSTEM)
        assert "another program" in done.stderr and part.stat().st_size == 10_000_000
    hct("extract", sharded_bundle, out, name)  # one that was killed
    assert tree_digests(out) == {name: sha256(sharded_model / name)}
    victim = tmp_path / "victim"
    victim.write_text("mine")
    part.symlink_to(victim)
    hct("extract", "-f", sharded_bundle, out, name, expect=EXIT_SYSTEM)
    assert victim.read_text() == "mine"


def test_extract_of_the_longest_name(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / ("n" * 255)).write_text("carried")
    rng = np.random.default_rng(1)
    make_safetensors(source / "m.safetensors", {"a": random_tensor(rng, "BF16", (8, 8))})
    bundle = compress(source, tmp_path / "bundle.hct")
    hct("extract", bundle, tmp_path / "out")
    assert tree_digests(tmp_path / "out") == tree_digests(source)


@pytest.mark.root
def test_extract_on_a_full_disk(tmp_path, sharded_model, sharded_bundle):
    disk = tmp_path / "disk"
    disk.mkdir()
    sizes = {p.name: p.stat().st_size for p in sharded_model.iterdir()}
    room = (sum(sizes.values()) // 4096 + len(sizes) + 4) * 4096
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={room}", "none", disk]
    if subprocess.run(mounting, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("cannot mount a tmpfs")
    first = min(sharded_model.glob("*.safetensors")).name
    try:
        # Too little room is known before anything is written.
        (disk / "full").write_bytes(bytes(sizes[first]))
        done = hct("extract", sharded_bundle, disk / "out", expect=EXIT_SYSTEM)
        assert "no space left" in done.stderr and "free" in done.stderr
        assert os.listdir(disk) == ["full"]
        # What -f replaces makes room.
        (disk / "out").mkdir()
        (disk / "full").rename(disk / "out" / first)
        hct("extract", "-f", sharded_bundle, disk / "out")
        shutil.rmtree(disk / "out")
        # Unless a program has it open, which only shows when the disk is full.
        (disk / "out").mkdir()
        (disk / "out" / first).write_bytes(bytes(sizes[first]))
        with open(disk / "out" / first, "rb"):
            done = hct("extract", "-f", sharded_bundle, disk / "out", expect=EXIT_SYSTEM)
        assert "no space left" in done.stderr and "free" in done.stderr
        assert leftovers(disk) == []
        # What is there is whole.
        assert tree_digests(disk / "out").items() < tree_digests(sharded_model).items()
    finally:
        subprocess.run(["umount", disk], check=True)
