"""hctfs: how a mount reads, and how much memory it takes."""

import concurrent.futures
import errno
import fcntl
import mmap
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    compress,
    is_sanitized,
    make_safetensors,
    mount,
    mounted,
    run,
    sha256,
    tree_digests,
)

pytestmark = pytest.mark.fuse

# Reading -----------------------------------------------------------------------------


def read_ranges(path, expected, seed, count=150):
    """Compares random ranges; returns the first that differs."""
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDONLY)
    try:
        for _ in range(count):
            length = min(len(expected), int(2 ** rng.uniform(0, 21.5)))
            at = rng.randrange(len(expected) - length + 1)
            if os.pread(fd, length, at) != expected[at : at + length]:
                return at, length
    finally:
        os.close(fd)
    return None


def test_ranges_and_end_of_file(large_bundle, large_bytes):
    size = len(large_bytes)
    with mount(large_bundle) as path:
        file = path / "model.safetensors"
        assert read_ranges(file, large_bytes, 1) is None
        fd = os.open(file, os.O_RDONLY)
        assert os.pread(fd, 100, size) == b""
        assert os.pread(fd, 100, size + 10**12) == b""
        assert os.pread(fd, 100, size - 7) == large_bytes[-7:]
        assert os.lseek(fd, 0, os.SEEK_HOLE) == size
        assert os.lseek(fd, 5, os.SEEK_DATA) == 5
        os.close(fd)


def test_page_by_page(odd_model, odd_bundle):
    """Headers and chunks that begin and end within a page, and the last page."""
    with mount(odd_bundle) as path:
        for name in ("adapter.safetensors", "model.safetensors", "onnx/none.safetensors"):
            expected = (odd_model / name).read_bytes()
            fd = os.open(path / name, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            for at in range(len(expected) // 4096 * 4096, -1, -4096):
                assert os.pread(fd, 4096, at) == expected[at : at + 4096]
            os.close(fd)


def test_mmap(large_bundle, large_bytes):
    with mount(large_bundle) as path, open(path / "model.safetensors", "rb") as file:
        for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
            with mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ) as view:
                rng = random.Random(2)
                for _ in range(300):
                    at = rng.randrange(len(large_bytes))
                    assert view[at] == large_bytes[at]
                assert view[:] == large_bytes


@pytest.mark.parametrize("options", [(), ("-s",), ("-o", "cache_size=64M,threads=3,readahead=0")])
def test_many_readers(large_bundle, large_bytes, options, tmp_path):
    """Threads, processes and a sequential reader at the same time."""
    helper = tmp_path / "reader.py"
    helper.write_text(
        "import sys, hashlib\n"
        "print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())\n"
    )
    with mount(large_bundle, *options) as path:
        file = path / "model.safetensors"
        others = [
            subprocess.Popen([sys.executable, helper, file], stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(read_ranges, file, large_bytes, i) for i in range(8)]
            assert [job.result() for job in jobs] == [None] * 8
        digests = {other.communicate(timeout=120)[0].strip() for other in others}
        assert digests == {sha256(path.parent / "mnt" / "model.safetensors")}


def test_copy_out(odd_model, odd_bundle, tmp_path):
    with mount(odd_bundle) as path:
        run("cp", "-r", path, tmp_path / "copy")
        run("tar", "-C", path, "-cf", tmp_path / "copy.tar", ".")
    assert tree_digests(tmp_path / "copy") == tree_digests(odd_model)


def test_flock(odd_bundle):
    with mount(odd_bundle) as path:
        with open(path / "config.json", "rb") as a, open(path / "config.json", "rb") as b:
            fcntl.flock(a, fcntl.LOCK_EX)
            with pytest.raises(BlockingIOError):
                fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(a, fcntl.LOCK_UN)
            fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_plain_file_that_is_cut(odd_bundle, tmp_path):
    bundle = tmp_path / "bundle.hct"
    shutil.copytree(odd_bundle, bundle)
    (bundle / "note.bin").write_bytes(bytes(100_000))
    with mounted(bundle) as running:
        os.truncate(bundle / "note.bin", 10)
        with pytest.raises(OSError) as caught:
            (running.path / "note.bin").read_bytes()
        assert caught.value.errno == errno.EIO
        assert "note.bin" in running.log


def test_damaged_chunk(large_bundle, large_bytes, tmp_path):
    """EIO in the range of the chunk and nowhere else, and one line that says which."""
    bundle = tmp_path / "bundle.hct"
    shutil.copytree(large_bundle, bundle)
    with open(bundle / "model.safetensors.hct", "r+b") as file:
        file.seek(os.fstat(file.fileno()).st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
    page = 4096
    with mounted(bundle) as running:
        fd = os.open(running.path / "model.safetensors", os.O_RDONLY)
        bad = []
        for at in range(0, len(large_bytes), page):
            try:
                assert os.pread(fd, page, at) == large_bytes[at : at + page]
            except OSError as error:
                assert error.errno == errno.EIO
                bad.append(at)
        os.close(fd)
        lines = [line for line in running.log.splitlines() if "checksum" in line]
        assert len(lines) == 1, running.log
    match = re.search(
        r"model\.safetensors\.hct: tensor layer\.\d+\.weight, chunk \d+ "
        r"\(bytes (\d+) to (\d+)\): checksum [0-9a-f]{16} expected, [0-9a-f]{16} found",
        lines[0],
    )
    assert match, lines[0]
    first, last = int(match[1]), int(match[2])
    assert bad == list(range(first // page * page, last + 1, page))


def test_damaged_small_chunk_among_good_ones(tmp_path):
    """Small tensors are decoded together; damage in one does not spoil the others."""
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(4)
    tensors = {f"t{i}": ("U8", (20_000,), rng.bytes(20_000)) for i in range(8)}
    file = make_safetensors(source / "model.safetensors", tensors)
    data = file.read_bytes()
    bundle = compress(source, tmp_path / "bundle.hct")
    stored = (bundle / "model.safetensors.hct").read_bytes()
    at = stored.index(tensors["t5"][2][100:150])
    (bundle / "model.safetensors.hct").write_bytes(
        stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]
    )
    with mounted(bundle) as running:
        fd = os.open(running.path / "model.safetensors", os.O_RDONLY)
        begin = len(data) - 160_000 + 100_000
        for at in range(0, len(data), 4096):
            if at + 4096 > begin and at < begin + 20_000:
                with pytest.raises(OSError):
                    os.pread(fd, 4096, at)
            else:
                assert os.pread(fd, 4096, at) == data[at : at + 4096]
        os.close(fd)
        assert running.log.count("tensor t5, chunk 0") == 1


# Memory ------------------------------------------------------------------------------


def resident_peak(bundle, size, *options):
    """VmHWM in MiB of a server that has decoded every chunk, in an order that is no stream."""
    with mounted(bundle, "-o", ",".join(("threads=2", *options))) as running:
        places = list(range(0, size, 256 << 10))
        random.Random(5).shuffle(places)
        fd = os.open(running.path / "model.safetensors", os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for at in places:
            # The second read of a block decodes all of it.
            os.pread(fd, 1, at)
            os.pread(fd, 1, at + 8192)
        os.close(fd)
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def test_cache_size_bounds_memory(large_bundle, large_bytes):
    if is_sanitized():
        pytest.skip("the memory of a sanitizer build says nothing")
    small = resident_peak(large_bundle, len(large_bytes), "cache_size=24M")
    large = resident_peak(large_bundle, len(large_bytes), "cache_size=72M")
    assert small < 24 + 16
    assert 72 < large < 72 + 16


def test_a_single_small_read_of_a_block_is_not_kept(large_bundle, large_bytes):
    """It decodes just what it touches; the cache is for those that come back."""
    if is_sanitized():
        pytest.skip("the memory of a sanitizer build says nothing")
    with mounted(large_bundle, "-o", "threads=2,cache_size=256M") as running:
        places = list(range(0, len(large_bytes) - 4096, 1 << 20))
        random.Random(6).shuffle(places)
        fd = os.open(running.path / "model.safetensors", os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for at in places:
            at = at // 4096 * 4096
            assert os.pread(fd, 4096, at) == large_bytes[at : at + 4096]
        os.close(fd)
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        assert int(re.search(r"VmHWM:\s+(\d+)", status)[1]) < 24 << 10


def test_sequential_reading_needs_little_memory(large_bundle):
    if is_sanitized():
        pytest.skip("the memory of a sanitizer build says nothing")
    with mounted(large_bundle, "-o", "threads=2") as running:
        sha256(running.path / "model.safetensors")
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        assert int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024 < 64
