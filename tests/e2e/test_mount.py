"""hctfs: what a mount shows, how it reads, begins, ends and refuses."""

import concurrent.futures
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    EXIT_BAD_DATA,
    EXIT_OK,
    EXIT_SYSTEM,
    EXIT_USAGE,
    HCTFS,
    bf16_bytes,
    compress,
    is_mounted,
    make_safetensors,
    mount,
    mounted,
    run,
    sha256,
    tree_digests,
    unmount,
    wait_until,
    weights,
)

pytestmark = pytest.mark.fuse

MIB = 1 << 20


@pytest.fixture(scope="session")
def large_model(tmp_path_factory):
    """One file of 96 MiB: large matrices, and small tensors between them."""
    folder = tmp_path_factory.mktemp("large") / "source"
    folder.mkdir()
    block = bf16_bytes(weights(np.random.default_rng(7), 2048, 1024))
    tensors = {}
    for i in range(24):
        turned = block[1024 * i :] + block[: 1024 * i]
        tensors[f"layer.{i}.weight"] = ("BF16", (2048, 1024), turned)
        tensors[f"layer.{i}.norm"] = ("BF16", (1024,), turned[:2048])
        tensors[f"layer.{i}.bias"] = ("BF16", (77,), turned[:154])
    make_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def large_bundle(large_model):
    return compress(large_model, large_model.parent / "bundle.hct")


@pytest.fixture(scope="session")
def large_bytes(large_model):
    return (large_model / "model.safetensors").read_bytes()


@pytest.fixture
def point(tmp_path):
    """An empty folder that is unmounted at the end, whatever the test did."""
    path = tmp_path / "point"
    path.mkdir()
    yield path
    unmount(path)


def servers_of(path):
    """Process ids of the hctfs processes that were started for a mount point."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if entry.isdigit() and os.fsencode(path) in words and words[0] == os.fsencode(HCTFS):
            found.append(int(entry))
    return found


def is_sanitized():
    return b"__asan_init" in Path(HCTFS).read_bytes()


# What is shown -------------------------------------------------------------------------


def test_every_file_is_the_source(odd_model, odd_bundle, sharded_model, sharded_bundle):
    for source, bundle in ((odd_model, odd_bundle), (sharded_model, sharded_bundle)):
        with mount(bundle) as path:
            assert tree_digests(path) == tree_digests(source)


def test_stat(odd_model, odd_bundle):
    inodes = []
    with mount(odd_bundle) as path:
        for source in [odd_model, *sorted(odd_model.rglob("*"))]:
            a = os.stat(source)
            b = os.stat(path / source.relative_to(odd_model))
            inodes.append(b.st_ino)
            if source.is_dir():
                assert b.st_mode == stat.S_IFDIR | 0o555
                assert b.st_nlink == 2 + sum(child.is_dir() for child in source.iterdir())
                continue
            assert b.st_mode == stat.S_IFREG | 0o444
            assert b.st_nlink == 1
            assert b.st_size == a.st_size
            assert b.st_mtime_ns == a.st_mtime_ns
            assert b.st_blocks == (a.st_size + 511) // 512
            assert b.st_blksize == MIB
            assert (b.st_uid, b.st_gid) == (os.getuid(), os.getgid())
            assert os.access(path / source.relative_to(odd_model), os.R_OK)
            assert not os.access(path / source.relative_to(odd_model), os.X_OK)
    assert len(set(inodes)) == len(inodes)
    with mount(odd_bundle, "-o", "uid=12,gid=34") as path:
        again = [path, *(path / s.relative_to(odd_model) for s in sorted(odd_model.rglob("*")))]
        assert [os.stat(p).st_ino for p in again] == inodes
        assert {(os.stat(p).st_uid, os.stat(p).st_gid) for p in again} == {(12, 34)}


def test_long_folder(odd_bundle, tmp_path):
    """More entries than several replies of readdir hold, and offsets that stay."""
    bundle = tmp_path / "bundle.hct"
    shutil.copytree(odd_bundle, bundle)
    (bundle / "many").mkdir()
    names = [f"{i:05}-{'x' * (i % 200)}" for i in range(16000)]
    for name in names:
        (bundle / "many" / name).touch()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.opendir.argtypes = [ctypes.c_char_p]
    libc.readdir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
    libc.telldir.argtypes, libc.telldir.restype = [ctypes.c_void_p], ctypes.c_long
    libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]

    def next_name(folder):
        entry = libc.readdir(folder)
        # struct dirent: u64 inode, i64 offset, u16 length, u8 type, then the name.
        return ctypes.string_at(entry + 19).decode() if entry else None

    with mount(bundle) as path:
        assert os.listdir(path / "many") == names
        assert {e.name: e.is_file() for e in os.scandir(path / "many")} == dict.fromkeys(names, True)
        folder = libc.opendir(os.fsencode(path / "many"))
        places = {}
        while True:
            at = libc.telldir(folder)
            name = next_name(folder)
            if name is None:
                break
            places[name] = at
        assert list(places) == [".", "..", *names]
        for name in ["..", names[15999], names[0], names[1234]]:
            libc.seekdir(folder, places[name])
            assert next_name(folder) == name
        libc.closedir(folder)


def test_mount_table_and_statvfs(odd_model, odd_bundle, tmp_path):
    strange = tmp_path / "a,b c\\d.hct"
    strange.symlink_to(odd_bundle)
    for bundle in (odd_bundle, strange):
        with mount(bundle) as path:
            with open("/proc/self/mountinfo", encoding="utf-8") as table:
                (line,) = (x for x in table if x.split()[4] == str(path))
            options, (kind, source, _) = line.split()[5], line.split(" - ")[1].split()
            assert kind == "fuse.hctfs"
            assert source == str(odd_bundle.resolve())
            assert {"ro", "nosuid", "nodev"} <= set(options.split(","))
            info = os.statvfs(path)
            size = sum(f.stat().st_size for f in odd_model.rglob("*") if f.is_file())
            assert 0 <= info.f_blocks * info.f_frsize - size < info.f_frsize
            assert info.f_bsize == MIB
            assert info.f_bfree == info.f_bavail == 0
            assert info.f_files == 1 + len(list(odd_model.rglob("*")))
            assert info.f_flag & os.ST_RDONLY
            assert info.f_namemax == 255


def test_bundle_with_comma_in_its_name(odd_bundle, tmp_path):
    strange = tmp_path / "a,b c\\d.hct"
    shutil.copytree(odd_bundle, strange)
    with mount(strange) as path:
        with open("/proc/self/mountinfo", encoding="utf-8") as table:
            (line,) = (x for x in table if x.split()[4] == str(path))
        source = line.split(" - ")[1].split()[1]
        assert re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), source) == str(strange)


def test_xattr(odd_model, odd_bundle):
    with mount(odd_bundle) as path:
        model = path / "model.safetensors"
        names = os.listxattr(model)
        values = {name: os.getxattr(model, name).decode() for name in names}
        stored = (odd_bundle / "model.safetensors.hct").stat().st_size
        assert values["user.hctfs.sha256"] == sha256(odd_model / "model.safetensors")
        assert values["user.hctfs.stored_bytes"] == str(stored)
        assert float(values["user.hctfs.ratio"]) == pytest.approx(
            model.stat().st_size / stored, abs=1e-4
        )
        assert "split" in values["user.hctfs.codec"].split(",")
        assert re.fullmatch(r"1\.\d+", values["user.hctfs.format"])
        assert os.listxattr(path / "config.json") == [
            "user.hctfs.version",
            "user.hctfs.stored_bytes",
        ]
        assert "user.hctfs.ratio" in os.listxattr(path)
        for name in ("user.other", "security.capability", "user.hctfs.", "user.hctfs.sha2567"):
            with pytest.raises(OSError) as caught:
                os.getxattr(model, name)
            assert caught.value.errno in (errno.ENODATA, errno.EOPNOTSUPP)
        with pytest.raises(OSError) as caught:
            os.getxattr(path / "config.json", "user.hctfs.sha256")
        assert caught.value.errno == errno.ENODATA


def test_one_file(odd_model, odd_bundle):
    with mount(odd_bundle / "adapter.safetensors.hct") as path:
        assert os.listdir(path) == ["adapter.safetensors"]
        assert sha256(path / "adapter.safetensors") == sha256(odd_model / "adapter.safetensors")


def test_nothing_can_be_changed(odd_bundle):
    with mount(odd_bundle) as path:
        file, new = path / "config.json", path / "new"
        attempts = [
            lambda: os.open(file, os.O_RDWR),
            lambda: os.open(file, os.O_WRONLY),
            lambda: os.open(file, os.O_RDONLY | os.O_TRUNC),
            lambda: os.open(new, os.O_CREAT | os.O_WRONLY, 0o666),
            lambda: os.unlink(file),
            lambda: os.mkdir(new),
            lambda: os.rmdir(path / "onnx"),
            lambda: os.rename(file, new),
            lambda: os.symlink("x", new),
            lambda: os.link(file, new),
            lambda: os.mkfifo(new),
            lambda: os.chmod(file, 0o600),
            lambda: os.chown(file, 1, 1),
            lambda: os.utime(file),
            lambda: os.truncate(file, 0),
            lambda: os.setxattr(file, "user.x", b"1"),
            lambda: os.removexattr(file, "user.hctfs.version"),
        ]
        for i, attempt in enumerate(attempts):
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno == errno.EROFS, i


# Reading -------------------------------------------------------------------------------


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


# Memory --------------------------------------------------------------------------------


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


# Beginning and ending ------------------------------------------------------------------


def test_background(odd_model, odd_bundle, point):
    begin = Path.cwd()
    relative = os.path.relpath(odd_bundle), os.path.relpath(point)
    done = run(HCTFS, *relative)
    assert Path.cwd() == begin
    assert done.stdout == ""
    # It answers at once.
    assert sha256(point / "model.safetensors") == sha256(odd_model / "model.safetensors")
    assert (point / "onnx/deep/vocab ü.txt").read_text() == "one\ntwo\n"
    found = [
        pid
        for pid in os.listdir("/proc")
        if pid.isdigit()
        and os.path.exists(f"/proc/{pid}/exe")
        and os.fsencode(relative[1]) in Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
    ]
    assert len(found) == 1
    assert os.readlink(f"/proc/{found[0]}/cwd") == "/"
    assert {os.readlink(f"/proc/{found[0]}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    run("fusermount3", "-u", point)
    assert not is_mounted(point)
    assert wait_until(lambda: not running_with(int(found[0])))


def test_closed_standard_descriptors(odd_model, odd_bundle, point):
    """Neither the pipe to the parent nor a file of the bundle gets their numbers."""
    command = 'exec "$0" "$1" "$2" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", command, HCTFS, odd_bundle, point], timeout=60, check=False)
    assert done.returncode == EXIT_OK
    assert tree_digests(point) == tree_digests(odd_model)


def running_with(pid):
    """Whether a process lives; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("options", [(), ("-s",)])
def test_signal_unmounts(odd_bundle, how, options):
    with mounted(odd_bundle, *options) as running:
        (running.path / "config.json").read_bytes()
        running.process.send_signal(how)
        assert running.process.wait(timeout=20) == EXIT_OK
        assert not is_mounted(running.path)


def test_signal_in_the_background(odd_bundle, point):
    run(HCTFS, odd_bundle, point)
    (pid,) = [p for p in servers_of(point) if running_with(p)]
    os.kill(pid, signal.SIGTERM)
    assert wait_until(lambda: not is_mounted(point) and not running_with(pid))


def test_signal_while_busy(large_bundle):
    """Readers get an error or data, nobody hangs, and the mount goes away."""
    with mounted(large_bundle) as running:
        reader = subprocess.Popen(
            ["sh", "-c", f"while cat '{running.path}/model.safetensors'; do :; done"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=20) == EXIT_OK
        assert not is_mounted(running.path)
        reader.wait(timeout=20)


def test_umount(odd_bundle):
    if os.geteuid() != 0:
        pytest.skip("umount needs root")
    with mounted(odd_bundle) as running:
        run("umount", running.path)
        assert running.process.wait(timeout=20) == EXIT_OK


def test_two_mounts_of_one_bundle(odd_model, odd_bundle):
    with mount(odd_bundle) as a, mount(odd_bundle) as b:
        assert tree_digests(a) == tree_digests(b) == tree_digests(odd_model)


@pytest.mark.parametrize("option", ["-d", "--debug", "-odebug"])
def test_debug_stays_in_the_foreground(odd_bundle, option):
    with mounted(odd_bundle, option) as running:
        (running.path / "config.json").read_bytes()
        assert running.process.poll() is None
        assert wait_until(lambda: "LOOKUP" in running.log)


def test_readahead_of_the_kernel(odd_bundle):
    if not os.access("/sys/class/bdi", os.W_OK) or os.geteuid() != 0:
        pytest.skip("needs a writable /sys/class/bdi")
    for option, kib in (("readahead=4M", 4096), ("readahead=1M", 1024)):
        with mount(odd_bundle, "-o", option) as path:
            device = os.stat(path).st_dev
            file = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
            assert wait_until(lambda f=file, k=kib: f.read_text().strip() == str(k), timeout=5)


def test_mount_command(odd_model, odd_bundle, point):
    """As from /etc/fstab, with what that may say."""
    if os.geteuid() != 0 or not shutil.which("mount.fuse3"):
        pytest.skip("needs root and mount.fuse3")
    options = "ro,nodev,nosuid,noauto,user,_netdev,x-systemd.automount,cache_size=64M,threads=2"
    # mount(8) looks for hctfs in the usual places only, unless it is told where.
    run("mount", "-t", "fuse", "-o", options, f"{HCTFS}#{odd_bundle}", point)
    assert tree_digests(point) == tree_digests(odd_model)
    run("umount", point)


@pytest.mark.parametrize(
    "options", ["defaults,rw,relatime", "ro,x-gvfs-hide,nofail,comment=x", "max_read=8192,noatime"]
)
def test_options_after_the_paths(odd_model, odd_bundle, point, options):
    run(HCTFS, odd_bundle, point, "-o", options)
    assert tree_digests(point) == tree_digests(odd_model)
    assert os.statvfs(point).f_flag & os.ST_RDONLY


# Refusing ------------------------------------------------------------------------------


def refused(*arguments, code, text, end=""):
    """hctfs ends with the code and one line on stderr that holds the text."""
    done = run(HCTFS, *arguments, expect=code, timeout=30)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("hctfs: ")
    assert text in lines[0]
    assert lines[0].endswith(end)
    assert done.stdout == ""


@pytest.mark.parametrize("mode", [(), ("-f",)])
def test_refused_paths(odd_bundle, odd_model, point, tmp_path, mode):
    refused(*mode, tmp_path / "absent", point, code=EXIT_SYSTEM, text="absent")
    refused(*mode, odd_bundle, tmp_path / "nowhere", code=EXIT_SYSTEM, text="nowhere")
    file = tmp_path / "file"
    file.write_text("x")
    refused(*mode, odd_bundle, file, code=EXIT_SYSTEM, text="not a folder")
    refused(*mode, odd_model / "onnx" / "deep", point, code=EXIT_BAD_DATA, text="neither a bundle")
    refused(*mode, file, point, code=EXIT_BAD_DATA, text="neither a bundle")
    for place in (odd_bundle, odd_bundle / "onnx", odd_bundle.parent):
        try:
            refused(*mode, odd_bundle, place, code=EXIT_SYSTEM, text="in one another")
        finally:
            unmount(place)
    assert not is_mounted(point)


def test_refused_twice(odd_bundle, sharded_bundle, point):
    run(HCTFS, odd_bundle, point)
    refused(sharded_bundle, point, code=EXIT_SYSTEM, text="already")
    assert (point / "config.json").read_text() == '{"model_type": "odd"}\n'


def test_dead_mount(odd_bundle, point):
    """Also one of which the kernel still answers stat from its cache."""
    run(HCTFS, odd_bundle, point)
    fd = os.open(point / "config.json", os.O_RDONLY)
    try:
        os.stat(point)
        (pid,) = [p for p in servers_of(point) if running_with(p)]
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: not running_with(pid))
        refused(odd_bundle, point, code=EXIT_SYSTEM, text="fusermount3 -u -z")
        run("fusermount3", "-u", "-z", point)
    finally:
        with contextlib.suppress(OSError):  # nobody answers
            os.close(fd)
    run(HCTFS, odd_bundle, point)
    assert (point / "config.json").read_bytes()


def test_folder_that_is_not_empty(odd_model, odd_bundle, point):
    (point / "mine").write_text("x")
    refused(odd_bundle, point, code=EXIT_SYSTEM, text="-o nonempty")
    run(HCTFS, "-o", "nonempty", odd_bundle, point)
    assert tree_digests(point) == tree_digests(odd_model)
    run("fusermount3", "-u", point)
    assert (point / "mine").read_text() == "x"


def test_warnings(odd_bundle, point):
    """What is odd but works is said in a line, and then it works."""
    done = run(HCTFS, "-o", "cache_size=4096T", odd_bundle, point)
    assert "hctfs: warning: cache_size=4096T is more than the memory" in done.stderr
    run("fusermount3", "-u", point)
    done = run(HCTFS, odd_bundle, point, env={"HCT_SIMD": "foo"})
    assert "hctfs: warning: HCT_SIMD=foo is ignored" in done.stderr
    run("fusermount3", "-u", point)
    for value in ("", "auto", "scalar"):
        done = run(HCTFS, odd_bundle, point, env={"HCT_SIMD": value})
        assert "warning" not in done.stderr
        run("fusermount3", "-u", point)


@pytest.mark.parametrize("mode", [(), ("-f",)])
def test_refused_damaged_bundle(odd_bundle, point, tmp_path, mode):
    bundle = tmp_path / "bundle.hct"
    shutil.copytree(odd_bundle, bundle)
    file = bundle / "adapter.safetensors.hct"
    os.truncate(file, file.stat().st_size - 1)
    refused(*mode, bundle, point, code=EXIT_BAD_DATA, text="adapter.safetensors.hct")
    file.write_bytes(b"")
    refused(*mode, bundle, point, code=EXIT_BAD_DATA, text="adapter.safetensors.hct")
    file.unlink()
    (bundle / ".hct" / "unfinished.json").write_text("{}")
    refused(*mode, bundle, point, code=EXIT_BAD_DATA, text="not finished")
    assert not is_mounted(point)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "no bundle"),
        (["BUNDLE"], "no mount point"),
        (["BUNDLE", "POINT", "more"], "more"),
        (["BUNDLE", "POINT", "-o", "cache_size=lots"], "cache_size"),
        (["BUNDLE", "POINT", "-o", "cache_size=1K"], "cache_size"),
        (["BUNDLE", "POINT", "-o", "cache_size=0"], "cache_size"),
        (["BUNDLE", "POINT", "-o", "threads=0"], "threads"),
        (["BUNDLE", "POINT", "-o", "threads=-1"], "threads"),
        (["BUNDLE", "POINT", "-o", "threads=2x"], "threads"),
        (["BUNDLE", "POINT", "-o", "readahead=99T"], "readahead"),
        (["BUNDLE", "POINT", "-o", "uid=me"], "uid"),
        (["BUNDLE", "POINT", "-o", "unheard_of"], "unheard_of"),
        (["--unheard-of", "BUNDLE", "POINT"], "unheard-of"),
        (["BUNDLE", "POINT", "-o", "ro,unheard_of,noatime"], "unknown option '-o unheard_of'"),
        (["-x", "BUNDLE", "POINT"], "-x"),
    ],
)
def test_wrong_command_line(odd_bundle, point, arguments, text):
    names = {"BUNDLE": odd_bundle, "POINT": point}
    hint = "" if "=1K" in "".join(arguments) else "; try 'hctfs --help'"
    refused(*(names.get(a, a) for a in arguments), code=EXIT_USAGE, text=text, end=hint)
    assert not is_mounted(point)


def test_help_and_version():
    assert "usage: hctfs" in run(HCTFS, "--help").stdout
    assert run(HCTFS, "-h").stdout == run(HCTFS, "--help").stdout
    assert re.match(r"hctfs \d+\.\d+\.\d+", run(HCTFS, "--version").stdout)
    assert run(HCTFS, "-V").stdout == run(HCTFS, "--version").stdout
