"""--memory bounds what mkhct has resident, pages of the source included, whatever the tensors."""

import ctypes
import json
import mmap
import os
import shutil
import sys

import numpy as np
import pytest
from helpers import (
    HCT,
    MKHCT,
    ROOT,
    is_sanitized,
    make_safetensors,
    peak_memory,
    random_tensor,
    run,
)

GIB = 1 << 30
MIB = 1 << 20
READER = 192 * MIB  # of hct, which has no such option: chunks, their tables, and pages of the bundle

pytestmark = pytest.mark.skipif(
    is_sanitized(), reason="AddressSanitizer keeps freed memory, and shadows all: nothing to measure"
)


def make_shard(folder, gib):
    """A folder with a sparse shard of that size, of which one tensor is 3.4/8."""
    path = folder / "model.safetensors"
    done = run(sys.executable, "-B", ROOT / "bench" / "shard.py", path, gib, expect=None)
    if done.returncode:
        pytest.skip(f"no sparse file of {gib} GiB here: {done.stderr.splitlines()[-1]}")
    return folder


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """8 GiB, with a tensor of 3.4 GiB."""
    folder = make_shard(tmp_path_factory.mktemp("huge"), 8)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """768 MiB, with a tensor of 326 MiB: more than the least that --memory takes."""
    folder = make_shard(tmp_path_factory.mktemp("large"), 0.75)
    yield folder
    shutil.rmtree(folder)


def peak_of(bound, source, out, *options):
    """Compresses, and what was resident at most must be within the bound."""
    memory = [] if bound == GIB else ["--memory", f"{bound // MIB}M"]
    peak = peak_memory(MKHCT, "-q", *memory, *options, source, out)
    print(f"{peak >> 20} MiB of {bound >> 20}: mkhct {' '.join(options)}")
    assert peak <= bound
    return peak


def test_the_shard_is_what_it_is_said_to_be(huge):
    with open(huge / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        assert os.fstat(file.fileno()).st_size > 8 * GIB
    begin, end = header["model.embed_tokens.weight"]["data_offsets"]
    assert end - begin > 3.39 * GIB


def test_eight_gibibytes_lossless(huge, tmp_path):
    out = tmp_path / "out"
    peak_of(GIB, huge, out, "--lossless", "-j2")
    assert peak_memory(HCT, "check", out) <= READER


def test_eight_gibibytes_lossy(huge, tmp_path):
    out = tmp_path / "out"
    # Low-rank factors, which zeros suggest, would take longer; they are tried below.
    peak_of(256 * MIB, huge, out, "--encoder", "tcq", "-j2")
    assert peak_memory(HCT, "check", out) <= READER


@pytest.mark.parametrize(
    "options",
    [
        ["--lossless", "-j1"],
        ["--lossless", "-j8", "--verify"],
        ["-j1", "--encoder", "tcq"],
        ["-j8", "--encoder", "svd", "--quality-sample", "1"],
        ["-j2", "--encoder", "tcq", "--transform", "dct", "--effort", "9"],
        ["-j2", "--encoder", "tcq", "--layers", "3", "--verify", "--quality-sample", "1"],
        ["-j2", "--encoder", "mixed", "--policy", "adaptive"],
    ],
    ids=" ".join,
)
def test_every_way_of_coding(large, tmp_path, options):
    peak_of(256 * MIB, large, tmp_path / "out", *options)


def test_a_bundle_as_source(large, tmp_path):
    """Decoded into a file that no name leads to, and read from there."""
    first, second, back = tmp_path / "first", tmp_path / "second", tmp_path / "back"
    peak_of(256 * MIB, large, first, "--encoder", "tcq", "-j2")
    peak_of(256 * MIB, first, second, "--encoder", "tcq", "--retention", ".5", "-j2")
    assert peak_memory(HCT, "extract", second, back) <= READER
    assert (back / "model.safetensors").stat().st_size == (large / "model.safetensors").stat().st_size


# The page cache -----------------------------------------------------------------------------


def resident(path):
    """Bytes of a file that the page cache holds."""
    size, libc = path.stat().st_size, ctypes.CDLL(None, use_errno=True)
    pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE) as view:
        start = ctypes.addressof(ctypes.c_char.from_buffer(view))
        assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), pages) == 0
    return sum(page & 1 for page in pages.raw) * mmap.PAGESIZE


def lets_go_of_pages(path):
    """Whether files of this file system leave the page cache when that is asked for."""
    path.write_bytes(os.urandom(MIB))
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return resident(path) == 0


@pytest.mark.parametrize("interval", ["1", "60s"])
def test_what_is_written_leaves_the_page_cache(tmp_path, interval):
    """There it would push out what others need, and nothing reads it soon."""
    if not lets_go_of_pages(tmp_path / "probe"):
        pytest.skip("this file system keeps its files in memory")
    source, out, rng = tmp_path / "source", tmp_path / "out", np.random.default_rng(1)
    source.mkdir()
    tensors = {f"{i}": random_tensor(rng, "BF16", (1024, 2048)) for i in range(4)}
    make_safetensors(source / "model.safetensors", tensors)
    (source / "model.onnx").write_bytes(os.urandom(8 * MIB))
    run(MKHCT, "-q", "--lossless", "--checkpoint-interval", interval, source, out)
    for name in "model.safetensors.hct", "model.onnx":
        assert (out / name).stat().st_size >= 8 * MIB
        assert resident(out / name) <= MIB, name
