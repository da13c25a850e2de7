"""hctfs: what it refuses and warns of."""

import contextlib
import os
import re
import shutil
import signal

import pytest
from helpers import (
    EXIT_BAD_DATA,
    EXIT_SYSTEM,
    EXIT_USAGE,
    HCTFS,
    is_mounted,
    run,
    running_with,
    servers_of,
    tree_digests,
    unmount,
    wait_until,
)

pytestmark = pytest.mark.fuse


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
    (bundle / ".hct/report.json").unlink()
    for mark in ("checkpoint.json", "checkpoint-1-of-2.json"):
        (bundle / ".hct" / mark).write_text("{}")
        refused(*mode, bundle, point, code=EXIT_BAD_DATA, text="not finished")
        (bundle / ".hct" / mark).unlink()
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
