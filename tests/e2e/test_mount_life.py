"""hctfs: how a mount begins and ends."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers import (
    EXIT_OK,
    HCTFS,
    is_mounted,
    mount,
    mounted,
    run,
    running_with,
    servers_of,
    sha256,
    tree_digests,
    wait_until,
)

pytestmark = pytest.mark.fuse


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
