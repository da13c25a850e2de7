"""mkhct SRC OUT: what comes out."""

import json
import os
import shutil

import numpy as np
import pytest
from helpers import (
    HCT,
    MKHCT,
    compress,
    make_safetensors,
    peak_memory,
    random_tensor,
    run,
    sha256,
    tree_digests,
)
from mkhct_tool import REPORTS, listing, make_sparse, same_after_extract


def test_round_trip_of_everything_odd(odd_model, odd_bundle, tmp_path):
    same_after_extract(odd_model, odd_bundle, tmp_path)


def test_same_bytes_with_any_number_of_threads(odd_model, odd_bundle, tmp_path):
    expected = tree_digests(odd_bundle)
    assert all(expected.pop(report) for report in REPORTS)
    for jobs in (1, 2, 8, 33):
        out = compress(odd_model, tmp_path / f"j{jobs}", f"-j{jobs}")
        digests = tree_digests(out)
        for report in REPORTS:
            del digests[report]
        assert digests == expected


def test_report_is_the_same_but_for_the_time(model, tmp_path):
    reports = []
    for name in ("one", "two"):
        report = json.loads((compress(model, tmp_path / name) / ".hct/report.json").read_text())
        assert report.pop("seconds") >= 0
        reports.append(report)
    assert reports[0] == reports[1]
    assert str(tmp_path) not in json.dumps(reports)


def test_many_tiny_tensors_and_threads(tmp_path):
    """More tensors than are in flight at a time, with and without bytes."""
    source = tmp_path / "tiny.safetensors"
    rng = np.random.default_rng(7)
    tensors = {}
    for i in range(3000):
        shape = ((2, 3), (0,), (), (700,))[i % 4]
        tensors[f"t{i}"] = random_tensor(rng, ("BF16", "F32", "I32")[i % 3], shape)
    make_safetensors(source, tensors)
    one = compress(source, tmp_path / "one", "-j1")
    four = compress(source, tmp_path / "four", "-j4")
    assert sha256(one / "tiny.safetensors.hct") == sha256(four / "tiny.safetensors.hct")
    run(HCT, "check", four)
    run(HCT, "extract", four, tmp_path / "back")
    assert sha256(tmp_path / "back" / "tiny.safetensors") == sha256(source)


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("target", ["--lossless", "--retention=.7"])
def test_memory_does_not_grow_with_the_file(tmp_path, count, target):
    """The map of the source is let go behind the encoder, whatever its tensors' size.

    With a lossy target all of a tensor is looked at before it is known that it is zero.
    """
    source = tmp_path / "big.safetensors"
    make_sparse(source, 1 << 30, count, columns=1024)
    # A sanitizer takes more than mkhct itself.
    assert peak_memory(MKHCT, target, "-q", "-j2", source, tmp_path / "out") < 400 << 20


def test_single_file_becomes_a_bundle(model, tmp_path):
    out = tmp_path / "out"
    compress(model / "model.safetensors", out)
    assert listing(out) == [".hct", *REPORTS, "model.safetensors.hct"]


def test_cache_snapshot_of_symlinks(model, tmp_path):
    """Hugging Face's cache: files are links to blobs named by digest."""
    snapshot = tmp_path / "hub" / "snapshots" / "0123abc"
    blobs = tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("model.safetensors", "config.json"):
        blob = blobs / sha256(model / name)
        shutil.copy(model / name, blob)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    (snapshot / "linked").symlink_to(model / "sub")
    out = compress(snapshot, tmp_path / "out")
    assert not any(os.path.islink(out / name) for name in listing(out))
    same_after_extract(snapshot, out, tmp_path)
    single = compress(snapshot / "model.safetensors", tmp_path / "single")
    assert (single / "model.safetensors.hct").is_file()


def test_carried_files_folders_modes_and_times(model, tmp_path):
    (model / "empty" / "deeper").mkdir(parents=True)
    (model / ".hidden").write_text("hidden")
    (model / ".gitattributes").write_bytes(b"")
    (model / "ünïcode 重み.txt").write_text("unicode")
    (model / ".config.json.part").write_text("the name that mkhct would take")
    (model / ("n" * 255)).write_text("the longest name")
    (model / ("n" * 254 + "m")).write_text("and its neighbour")
    with open(os.fsencode(model) + b"/latin-\xe9.txt", "w") as file:
        file.write("no UTF-8")
    script = model / "sub" / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o4750)
    (model / "model.safetensors").chmod(0o640)
    os.utime(script, ns=(1, 1_600_000_000_123_456_789))
    out = compress(model, tmp_path / "out")
    expected = [n + ".hct" if n.endswith(".safetensors") else n for n in listing(model)]
    assert listing(out) == sorted([*expected, ".hct", *REPORTS])
    stored, source = tree_digests(out), tree_digests(model)
    assert all(stored[n] == source[n] for n in source if n != "model.safetensors")
    assert (out / "sub" / "run.sh").stat().st_mode & 0o7777 == 0o750
    assert (out / "sub" / "run.sh").stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert (out / "model.safetensors.hct").stat().st_mode & 0o7777 == 0o640
    compress(model, out, "-f")
    assert listing(out) == sorted([*expected, ".hct", *REPORTS])


def test_out_with_slashes_and_dots(model, tmp_path):
    run(MKHCT, "-q", f"{model}/", f"{tmp_path}/out//")
    assert (tmp_path / "out" / "model.safetensors.hct").is_file()
    (tmp_path / "here").mkdir()
    run(MKHCT, "-q", model, ".", cwd=tmp_path / "here")
    assert (tmp_path / "here" / "model.safetensors.hct").is_file()
    run(MKHCT, "-q", ".", "../relative", cwd=model)
    assert (tmp_path / "relative" / "model.safetensors.hct").is_file()
