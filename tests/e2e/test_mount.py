"""hctfs: what a mount shows."""

import ctypes
import errno
import os
import re
import shutil
import stat

import pytest
from helpers import mount, sha256, tree_digests

pytestmark = pytest.mark.fuse

MIB = 1 << 20


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
