"""mkhct SRC OUT: what goes in, what comes out, and what is left behind when it fails."""

import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import termios
import time

import numpy as np
import pytest
import xxhash
from helpers import (
    EXIT_BAD_DATA,
    EXIT_INTERRUPTED,
    EXIT_SYSTEM,
    EXIT_USAGE,
    HCT,
    MKHCT,
    compress,
    make_safetensors,
    peak_memory,
    random_tensor,
    run,
    sha256,
    tree_digests,
    wait_until,
    write_safetensors,
)


def small_tensors(seed=5):
    rng = np.random.default_rng(seed)
    return {
        "a.weight": random_tensor(rng, "BF16", (96, 64)),
        "a.bias": random_tensor(rng, "F32", (96,)),
        "ids": random_tensor(rng, "I64", (17,)),
    }


@pytest.fixture
def model(tmp_path):
    """A small model directory that the test may change."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    make_safetensors(folder / "model.safetensors", small_tensors())
    (folder / "config.json").write_text("{}\n")
    (folder / "sub" / "notes.txt").write_text("notes\n")
    return folder


def make_sparse(path, size, count=1, columns=1):
    """Tensors of zeros that take a long time to read and no space on disk."""
    step = size // count
    shape = [step // 4] if columns == 1 else [step // 4 // columns, columns]
    text = json.dumps({
        f"big.{i}": {"dtype": "F32", "shape": shape, "data_offsets": [i * step, (i + 1) * step]}
        for i in range(count)
    }).encode()  # fmt: skip
    write_safetensors(path, text)
    try:
        os.truncate(path, 8 + len(text) + size)
    except OSError as error:
        pytest.skip(f"no sparse files here: {error}")


@pytest.fixture
def slow_model(tmp_path):
    """A model that takes much longer than a test waits."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "a.txt").write_text("comes first\n")
    make_sparse(folder / "model.safetensors", 64 << 30)
    return folder


def listing(folder):
    """Every file and folder below folder."""
    return sorted(
        os.path.relpath(os.path.join(top, name), folder)
        for top, folders, files in os.walk(folder)
        for name in folders + files
    )


def refuse(source, out, *options, code, match):
    """mkhct fails with this code and one line that matches, and OUT is as it was."""
    before = listing(out) if os.path.isdir(out) else None
    done = run(MKHCT, *options, source, out, expect=code)
    assert done.stdout == ""
    assert re.fullmatch(r"mkhct: [^\n]+\n", done.stderr), done.stderr
    assert re.search(match, done.stderr), done.stderr
    assert (listing(out) if os.path.isdir(out) else None) == before
    return done.stderr


def same_after_extract(source, bundle, tmp_path):
    back = tmp_path / "extracted"
    run(HCT, "extract", bundle, back)
    assert tree_digests(back) == tree_digests(source)
    shutil.rmtree(back)


# What comes out ----------------------------------------------------------------------


def test_round_trip_of_everything_odd(odd_model, odd_bundle, tmp_path):
    same_after_extract(odd_model, odd_bundle, tmp_path)


def test_same_bytes_with_any_number_of_threads(odd_model, odd_bundle, tmp_path):
    expected = tree_digests(odd_bundle)
    report = expected.pop(".hct/report.json")
    assert report
    for jobs in (1, 2, 8, 33):
        out = compress(odd_model, tmp_path / f"j{jobs}", f"-j{jobs}")
        digests = tree_digests(out)
        del digests[".hct/report.json"]
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
    assert listing(out) == [".hct", ".hct/report.json", "model.safetensors.hct"]


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
    assert listing(out) == sorted([*expected, ".hct", ".hct/report.json"])
    stored, source = tree_digests(out), tree_digests(model)
    assert all(stored[n] == source[n] for n in source if n != "model.safetensors")
    assert (out / "sub" / "run.sh").stat().st_mode & 0o7777 == 0o750
    assert (out / "sub" / "run.sh").stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert (out / "model.safetensors.hct").stat().st_mode & 0o7777 == 0o640
    compress(model, out, "-f")
    assert listing(out) == sorted([*expected, ".hct", ".hct/report.json"])


def test_out_with_slashes_and_dots(model, tmp_path):
    run(MKHCT, "-q", f"{model}/", f"{tmp_path}/out//")
    assert (tmp_path / "out" / "model.safetensors.hct").is_file()
    (tmp_path / "here").mkdir()
    run(MKHCT, "-q", model, ".", cwd=tmp_path / "here")
    assert (tmp_path / "here" / "model.safetensors.hct").is_file()
    run(MKHCT, "-q", ".", "../relative", cwd=model)
    assert (tmp_path / "relative" / "model.safetensors.hct").is_file()


# What is printed ---------------------------------------------------------------------


def test_json_report(odd_model, tmp_path):
    out = tmp_path / "out"
    done = run(MKHCT, "--lossless", "--json", "-q", odd_model, out)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    stored = {n: (out / n).stat().st_size for n in listing(out) if (out / n).is_file()}
    del stored[".hct/report.json"]
    source = {n: (odd_model / n).stat().st_size for n in listing(odd_model)
              if (odd_model / n).is_file()}  # fmt: skip
    assert report["source_bytes"] == sum(source.values())
    assert report["stored_bytes"] == sum(stored.values())
    assert report["ratio"] == pytest.approx(sum(source.values()) / sum(stored.values()))
    assert report["tool"] == "mkhct" and report["options"] == {"mode": "lossless"}
    assert isinstance(report["seconds"], float) and isinstance(report["version"], str)
    assert report["models"] == 3 and report["carried_files"] == len(source) - 3
    assert report["folders"] == [{"name": "onnx"}, {"name": "onnx/deep"}]
    files = {file["name"]: file for file in report["files"]}
    assert set(files) == set(source)
    for name, file in files.items():
        model = file["kind"] == "model"
        assert file["source_bytes"] == source[name]
        assert file["stored_bytes"] == stored[name + ".hct" if model else name]
        if model:
            assert file["sha256"] == sha256(odd_model / name)
        else:
            assert file["xxh3"] == xxhash.xxh3_64_hexdigest((out / name).read_bytes())
    assert report["tensors"] == sum(f.get("tensors", 0) for f in files.values())

    kept = json.loads((out / ".hct/report.json").read_text())
    tensors = next(f for f in kept["files"] if f["name"] == "model.safetensors")["tensor_list"]
    assert len(tensors) == files["model.safetensors"]["tensors"]
    by_name = {t["name"]: t for t in tensors}
    assert by_name["слой.重み.🙂"]["shape"] == [31, 33]
    assert by_name["encoder/layer_0/kernel"]["dtype"] == "BF16"
    assert by_name["scalar.F32"]["shape"] == []
    assert by_name["zeros"]["source_bytes"] == 4 * 300 * 300
    assert by_name["zeros"]["stored_bytes"] < 4000
    total = sum(t["stored_bytes"] for t in tensors)
    assert total < files["model.safetensors"]["stored_bytes"]
    for file in kept["files"]:
        file.pop("tensor_list", None)
    assert kept == report


def test_table_and_plain_lines(model, tmp_path):
    done = run(MKHCT, "--lossless", model, tmp_path / "out")
    assert re.search(r"^total +3 .* 1\.\d{3} +\d+\.\d s$", done.stdout, re.M), done.stdout
    assert re.search(r"^models +3 ", done.stdout, re.M)
    assert re.search(r"^other files ", done.stdout, re.M)
    assert "\r" not in done.stderr and "\033" not in done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "config.json", "model.safetensors", "sub/notes.txt"]  # fmt: skip


def test_verbose_shows_each_tensor(tmp_path):
    source = tmp_path / "m.safetensors"
    make_safetensors(source, {**small_tensors(), "bad\x1b[31m\nname": ("U8", (0,), b"")})
    done = run(MKHCT, "--lossless", "-v", source, tmp_path / "out")
    assert re.search(r"^  a\.weight  BF16  \[96,64\]  \w+  \d\.\d{3}$", done.stderr, re.M)
    assert len(done.stderr.splitlines()) == 5
    assert "\x1b" not in done.stderr


def test_quiet(model, tmp_path):
    done = run(MKHCT, "-q", model, tmp_path / "out")
    assert done.stdout == done.stderr == ""


def start_on_terminal(*words):
    """mkhct on a pseudo-terminal of 60 columns: its process and the other end."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    process = subprocess.Popen([MKHCT, *words], stdin=follower, stdout=follower, stderr=follower,
                               env={**os.environ, "TERM": "xterm"})  # fmt: skip
    os.close(follower)
    return process, leader


def read_all(leader):
    text = b""
    with contextlib.suppress(OSError):  # EIO when the other end is closed
        while block := os.read(leader, 65536):
            text += block
    os.close(leader)
    return text.decode()


def test_bar_on_a_terminal(slow_model, tmp_path):
    """At most ten times a second, within the width, and gone before the error."""
    process, leader = start_on_terminal(slow_model, tmp_path / "out")
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    lines = read_all(leader).split("\r")
    assert process.wait() == EXIT_INTERRUPTED
    bars = [line for line in lines if "/64.0 GiB" in line]
    assert 2 <= len(bars) <= 14
    assert all(len(bar.replace("\033[K", "")) <= 59 for bar in bars)
    assert "\033[Kmkhct: interrupted" in lines[-2]


def test_bar_makes_way_for_lines(model, tmp_path):
    process, leader = start_on_terminal("-v", model, tmp_path / "out")
    text = read_all(leader)
    assert process.wait() == 0
    assert re.search(r"\r\[.*\d%.*\033\[K\r\033\[Kconfig.json: 3 B, carried\r\n", text), repr(text)


def test_standard_output_that_is_full(model, tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run([MKHCT, model, tmp_path / "out"], stdout=full,
                              stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert done.returncode == EXIT_SYSTEM
    assert "No space left" in done.stderr and "bundle is written" in done.stderr
    run(HCT, "check", tmp_path / "out")


@pytest.mark.parametrize(
    "words, match",
    [
        ([], "SRC is missing"),
        (["a"], "OUT is missing"),
        (["a", "b", "c"], "'c' is one argument too many"),
        (["--looseless", "a", "b"], "--looseless: no such option"),
        (["-z", "a", "b"], "-z: no such option"),
        (["-qz", "a", "b"], "-z: no such option"),
        (["a", "b", "--forced"], "--forced: no such option"),
        (["--json=x", "a", "b"], "--json=x: this option takes no value"),
        (["--force=x", "a", "b"], "--force=x: this option takes no value"),
        (["a", "b", "-j"], "needs a number"),
        (["-j0", "a", "b"], "'0' is no number of threads"),
        (["-jx", "a", "b"], "'x' is no number"),
        (["--jobs=-1", "a", "b"], "'-1' is no number"),
        (["--jobs", "3x", "a", "b"], "'3x' is no number"),
        (["--jobs", "99999999999999999999", "a", "b"], "is no number"),
        (["-q", "-v", "a", "b"], "exclude each other"),
        (["", "b"], "SRC is empty"),
    ],
)
def test_wrong_command_lines(words, match):
    done = run(MKHCT, *words, expect=EXIT_USAGE)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("mkhct: ") and match in line
    assert line.endswith("; try 'mkhct --help'")


def test_help_and_version():
    text = run(MKHCT, "--help").stdout
    assert text == run(MKHCT, "-h").stdout
    for word in ("--lossless", "-j, --jobs", "-f, --force", "-q, --quiet", "-v, --verbose",
                 "--json", "-V, --version", "Exit status"):  # fmt: skip
        assert word in text
    assert re.fullmatch(r"mkhct \d+\.\d+\.\d+\n", run(MKHCT, "--version").stdout)
    assert run(MKHCT, "-V").stdout == run(MKHCT, "--version").stdout


def test_closed_standard_descriptors(model, tmp_path):
    """No file of the bundle gets the number, and with it the text, of a closed one."""
    expected = tree_digests(compress(model, tmp_path / "expected"))
    out = tmp_path / "out"
    subprocess.run(["sh", "-c", 'exec "$0" --lossless -v "$1" "$2" <&- >&- 2>&-', MKHCT, model, out],
                   timeout=60, check=False)  # fmt: skip
    digests = tree_digests(out)
    for report in (expected, digests):
        del report[".hct/report.json"]
    assert digests == expected
    assert json.loads((out / ".hct" / "report.json").read_text())["ratio"] > 0


def test_unknown_instruction_set(model, tmp_path):
    expected = tree_digests(compress(model, tmp_path / "expected"))
    done = run(MKHCT, "--lossless", model, tmp_path / "out", env={"HCT_SIMD": "foo\x1b[2J"})
    lines = [line for line in done.stderr.splitlines() if "HCT_SIMD" in line]
    assert len(lines) == 1
    assert lines[0].startswith("mkhct: warning: HCT_SIMD=foo?[2J is ignored")
    assert "HCT_SIMD" not in run(MKHCT, model, tmp_path / "o2", env={"HCT_SIMD": "scalar"}).stderr
    digest = sha256(tmp_path / "out" / "model.safetensors.hct")
    assert digest == expected["model.safetensors.hct"]


def test_baggage_is_named(model, tmp_path):
    for folder in (".git/lfs", ".cache/huggingface", "sub/.git"):
        (model / folder).mkdir(parents=True)
    (model / ".git/lfs/object").write_bytes(bytes(3 << 20))
    (model / ".cache/huggingface/small").write_bytes(bytes(1 << 20))
    done = run(MKHCT, model, tmp_path / "out")
    (line,) = [line for line in done.stderr.splitlines() if "warning" in line]
    assert f"{model}/.git (3.00 MiB)" in line
    (model / ".cache/huggingface/part").write_bytes(b"x")
    done = run(MKHCT, model, tmp_path / "again")
    assert sum("warning" in line for line in done.stderr.splitlines()) == 2
    assert run(MKHCT, "-q", model, tmp_path / "quiet").stderr == ""


def test_names_that_are_too_long_with_suffix(model, tmp_path):
    name = "n" * (255 - len(".safetensors")) + ".safetensors"
    long = make_safetensors(model / name, small_tensors())
    refuse(model, tmp_path / "out", code=EXIT_BAD_DATA, match=r"n\.safetensors: .* room for \.hct")
    refuse(long, tmp_path / "out", code=EXIT_BAD_DATA, match="room for .hct")
    long.rename(model / name[4:])
    same_after_extract(model, compress(model, tmp_path / "out"), tmp_path)


@pytest.mark.parametrize("old", [False, True])
def test_rename_that_fails(model, tmp_path, old):
    """Without an old bundle all is undone; with one, what is left is said."""
    out, source = tmp_path / "out", tmp_path / "source"
    source.mkdir()
    make_sparse(source / "model.safetensors", 1 << 30)
    if old:
        compress(model, out)
        (source / "config.json").write_text("new")
    else:
        out.mkdir()
        (source / "a.json").write_text("new")
    process = start("-f", source, out)
    started_writing(out)
    in_the_way = next(source.glob("*.safetensors")).name + ".hct"
    shutil.rmtree(out / in_the_way, ignore_errors=True)
    (out / in_the_way).unlink(missing_ok=True)
    (out / in_the_way).mkdir()
    _, text = process.communicate(timeout=120)
    assert process.returncode == EXIT_SYSTEM
    last = text.splitlines()[-1]
    assert "cannot be given its name: Is a directory" in last
    if old:
        assert "unfinished" in last and "--force" in last
        assert (out / "config.json").read_text() == "new"
        (out / in_the_way).rmdir()
        (source / in_the_way[:-4]).unlink()
        make_safetensors(source / in_the_way[:-4], small_tensors())
        same_after_extract(source, compress(source, out, "-f"), tmp_path)
    else:
        assert last.endswith(f"{out} is as it was before")
        assert listing(out) == [in_the_way]


# Sources that are refused ------------------------------------------------------------


def header(**tensors):
    return json.dumps(tensors).encode()


def tensor(begin, end, shape=None, dtype="U8"):
    return {"dtype": dtype, "shape": shape or [end - begin], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "text, data, length",
    [
        (header(a=tensor(0, 8), b=tensor(4, 12)), bytes(12), None),  # overlap
        (header(a=tensor(0, 8), b=tensor(12, 16)), bytes(16), None),  # hole
        (header(a=tensor(0, 8)), bytes(12), None),  # more data than tensors
        (header(a=tensor(0, 80)), bytes(12), None),  # less
        (header(a=tensor(0, 8, [2**63, 2**63])), bytes(8), None),  # overflow
        (header(a=tensor(0, 8, [3], "F32")), bytes(8), None),  # shape and bytes disagree
        (b"not json", b"", None),
        (b"[]", b"", None),
        (header(), b"", 2**63),  # lies about its size
        (header(), b"", 1000),
        (b"", b"", 0),
    ],
)
def test_hostile_header(model, tmp_path, text, data, length):
    """The bad file comes last, and still nothing was written before it was found."""
    write_safetensors(model / "z.safetensors", text, data, length)
    refuse(model, tmp_path / "out", code=EXIT_BAD_DATA, match="z.safetensors: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"\1\2\3", os.urandom(100_000)])
def test_no_safetensors_file_behind_the_name(model, tmp_path, content):
    (model / "z.safetensors").write_bytes(content)
    refuse(model, tmp_path / "out", code=EXIT_BAD_DATA, match="z.safetensors: ")


def test_git_lfs_pointer(model, tmp_path):
    (model / "z.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")  # fmt: skip
    refuse(model, tmp_path / "out", code=EXIT_BAD_DATA, match="git lfs pull")


def test_missing_shard(sharded_model, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(sharded_model, source)
    (source / "model-00002-of-00003.safetensors").unlink()
    refuse(source, tmp_path / "out", code=EXIT_SYSTEM,
           match="shard model-00002-of-00003.safetensors, which is not there")  # fmt: skip
    same = tmp_path / "in-a-subfolder"
    shutil.copytree(source, same / "unet")
    refuse(same, tmp_path / "out", code=EXIT_SYSTEM, match="unet/model.*00002-of-00003")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": {"a": 1}}'])
def test_shard_index_that_is_none(model, tmp_path, text):
    (model / "model.safetensors.index.json").write_text(text)
    refuse(model, tmp_path / "out", code=EXIT_BAD_DATA, match="index.json: ")


def test_sharded_model(sharded_model, sharded_bundle, tmp_path):
    same_after_extract(sharded_model, sharded_bundle, tmp_path)


def test_source_without_models(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    refuse(source, tmp_path / "out", code=EXIT_BAD_DATA, match="no .safetensors file")
    (source / "pytorch_model.bin").write_bytes(b"x")
    refuse(source, tmp_path / "out", code=EXIT_BAD_DATA, match="pytorch_model.bin; convert")
    (source / "pytorch_model.bin").rename(source / "model.gguf")
    refuse(source, tmp_path / "out", code=EXIT_BAD_DATA, match="model.gguf; convert .*gguf_file")
    refuse(source / "model.gguf", tmp_path / "out", code=EXIT_BAD_DATA, match="neither a folder")


def test_source_that_is_not_there(tmp_path):
    refuse(tmp_path / "nothing", tmp_path / "out", code=EXIT_SYSTEM, match="No such file")


def test_source_that_is_a_bundle(model, tmp_path):
    bundle = compress(model, tmp_path / "bundle")
    refuse(bundle, tmp_path / "out", code=EXIT_BAD_DATA, match="bundle already")
    refuse(bundle / "model.safetensors.hct", tmp_path / "out", code=EXIT_BAD_DATA,
           match="compressed already")  # fmt: skip


def test_broken_link_loop_and_special_files(model, tmp_path):
    out = tmp_path / "out"
    odd = model / "sub" / "odd"
    odd.symlink_to("missing")
    refuse(model, out, code=EXIT_SYSTEM, match="sub/odd: a symlink to a file that is not there")
    odd.unlink()
    odd.symlink_to("..")
    refuse(model, out, code=EXIT_BAD_DATA, match="sub/odd: a symlink to a folder that holds it")
    odd.unlink()
    odd.symlink_to("odd")
    refuse(model, out, code=EXIT_SYSTEM, match="sub/odd: .*symbolic links")
    odd.unlink()
    os.mkfifo(odd)
    refuse(model, out, code=EXIT_BAD_DATA, match="sub/odd: neither a file nor a folder")
    odd.unlink()
    os.mknod(odd, stat.S_IFSOCK | 0o600)
    refuse(model, out, code=EXIT_BAD_DATA, match="sub/odd: neither a file nor a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(model, tmp_path):
    (model / "config.json").chmod(0)
    refuse(model, tmp_path / "out", code=EXIT_SYSTEM, match="config.json.*Permission denied")
    (model / "model.safetensors").chmod(0)
    refuse(model, tmp_path / "out", code=EXIT_SYSTEM, match="model.safetensors.*Permission")


@pytest.mark.root
def test_unreadable_for_another_user(model, tmp_path):
    """As nobody, in a source that only root may read."""
    (model / "config.json").chmod(0o600)
    place = tmp_path / "place"
    place.mkdir()
    for folder in (place, *tmp_path.parents, tmp_path, model, model / "sub"):
        if folder != place and not folder.stat().st_mode & 0o001:
            if os.path.commonpath([folder, tmp_path.parents[1]]) != str(tmp_path.parents[1]):
                pytest.skip(f"{folder} is closed to other users")
            folder.chmod(0o755)
    place.chmod(0o777)
    if not os.access(MKHCT, os.X_OK) or any(not p.stat().st_mode & 1 for p in MKHCT.parents):
        program = place / "mkhct"
        shutil.copy(MKHCT, program)
        program.chmod(0o755)
    else:
        program = MKHCT
    done = subprocess.run([program, model, place / "out"], user=65534, group=65534,
                          extra_groups=[], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == EXIT_SYSTEM, done.stderr
    assert re.search("config.json: .*Permission denied\n", done.stderr)  # and none of OUT
    assert not (place / "out").exists()


# Where OUT may be --------------------------------------------------------------------


def test_places_that_are_refused(model, tmp_path):
    refuse(model, model, code=EXIT_USAGE, match="lies in the source")
    refuse(model, model / "out", code=EXIT_USAGE, match="lies in the source")
    refuse(model, model / "sub" / "out", code=EXIT_USAGE, match="lies in the source")
    refuse(model, tmp_path, code=EXIT_USAGE, match="the source .* lies in it")
    refuse(model / "model.safetensors", model, code=EXIT_USAGE, match="lies in it")
    (tmp_path / "link").symlink_to(model)
    refuse(model, tmp_path / "link" / "out", code=EXIT_USAGE, match="lies in the source")
    (model / "elsewhere").symlink_to(tmp_path / "other")
    (tmp_path / "other").mkdir()
    refuse(model, tmp_path / "other" / "out", code=EXIT_USAGE, match="lies in the source")
    (model / "elsewhere").unlink()
    refuse(model, tmp_path / "no" / "out", code=EXIT_SYSTEM, match="no folder .*/no;")
    (tmp_path / "file").write_text("x")
    refuse(model, tmp_path / "file", code=EXIT_SYSTEM, match="a file is there already")
    refuse(model, tmp_path / "file" / "out", code=EXIT_SYSTEM, match="file")
    (tmp_path / "dangling").symlink_to("nowhere")
    refuse(model, tmp_path / "dangling", code=EXIT_SYSTEM, match="a symlink to nothing")
    refuse(model, tmp_path / "other" / ".." / "model" / "x", code=EXIT_USAGE, match="lies in")


def test_out_beside_a_single_file(model):
    compress(model / "model.safetensors", model / "out.hct")


def test_folder_of_somebody_else(model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for options in ([], ["-f"]):
        refuse(model, out, *options, code=EXIT_SYSTEM, match="neither empty nor a bundle")


def test_force(model, tmp_path):
    out = compress(model, tmp_path / "out")
    refuse(model, out, code=EXIT_SYSTEM, match="a bundle already; give --force")
    (out / "mine.txt").write_text("of the user")
    (out / "sub" / "mine.txt").write_text("of the user")
    (model / "config.json").unlink()
    (model / "sub" / "notes.txt").unlink()
    (model / "new.txt").write_text("new")
    (model / "model.safetensors").rename(model / "renamed.safetensors")
    compress(model, out, "-f")
    assert listing(out) == [".hct", ".hct/report.json", "mine.txt", "new.txt",
                            "renamed.safetensors.hct", "sub", "sub/mine.txt"]  # fmt: skip
    # Once more, so that the report of the second run is what counts.
    (model / "new.txt").unlink()
    (model / "sub").rmdir()
    compress(model, out, "--force")
    assert listing(out) == [".hct", ".hct/report.json", "mine.txt",
                            "renamed.safetensors.hct", "sub", "sub/mine.txt"]  # fmt: skip
    (out / "sub" / "mine.txt").unlink()
    (out / "mine.txt").unlink()
    (out / "sub").rmdir()
    same_after_extract(model, out, tmp_path)


def test_force_replaces_nothing_of_the_user(model, tmp_path):
    out = compress(model, tmp_path / "out")
    (out / "later.txt").write_text("of the user")
    (model / "later.txt").write_text("of the model")
    refuse(model, out, "-f", code=EXIT_SYSTEM, match="later.txt: was not written by mkhct")
    assert (out / "later.txt").read_text() == "of the user"
    (out / "later.txt").unlink()
    (out / "later.txt").symlink_to(tmp_path / "elsewhere")
    refuse(model, out, "-f", code=EXIT_SYSTEM, match="later.txt: was not written by mkhct")
    (out / "later.txt").unlink()
    shutil.rmtree(out / "sub")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "notes.txt").write_text("of the user")
    (out / "sub").symlink_to(tmp_path / "elsewhere")
    refuse(model, out, "-f", code=EXIT_SYSTEM, match="sub: stands where a folder must be")
    assert (tmp_path / "elsewhere" / "notes.txt").read_text() == "of the user"


def test_force_with_a_forged_report(model, tmp_path):
    """Names that lead outside, by dots or by links, are not followed."""
    out = compress(model, tmp_path / "out")
    victim = tmp_path / "victim.txt"
    victim.write_text("keep me")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "victim.txt").write_text("keep me")
    (out / "way").symlink_to(tmp_path / "folder")
    path = out / ".hct" / "report.json"
    report = json.loads(path.read_text())
    names = ["../victim.txt", str(victim), "sub/../../victim.txt", "way/victim.txt", "", "/", "."]
    report["files"] += [{"name": name, "kind": "carried"} for name in names]
    report["files"] += [{"name": 1}, {}, None, {"name": "x", "name_hex": "zz"}]
    report["files"] += [{"name": "x", "name_hex": b"../victim.txt".hex()}]
    path.write_text(json.dumps(report))
    compress(model, out, "-f")
    assert victim.read_text() == "keep me"
    assert (tmp_path / "folder" / "victim.txt").read_text() == "keep me"


# Failing half-way --------------------------------------------------------------------


def start(*words, env=None):
    return subprocess.Popen([MKHCT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={**os.environ, **(env or {})})  # fmt: skip


def started_writing(out):
    part = out / ".model.safetensors.hct.part"
    return wait_until(lambda: part.exists() and part.stat().st_size > 0)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_leaves_nothing(slow_model, tmp_path, name):
    out = tmp_path / "out"
    process = start(slow_model, out)
    assert started_writing(out)
    process.send_signal(getattr(signal, name))
    _, text = process.communicate(timeout=20)
    assert process.returncode == EXIT_INTERRUPTED
    assert f"mkhct: interrupted by {name}; {out} is as it was before\n" in text
    assert not out.exists()


def test_signal_while_a_tensor_is_planned(tmp_path):
    """A lossy coder looks at all of a tensor, here for a minute, before it writes the first byte."""
    source, out = tmp_path / "slow", tmp_path / "out"
    source.mkdir()
    make_sparse(source / "model.safetensors", 64 << 30, columns=4096)
    process = start(source, out)
    assert wait_until(lambda: (out / ".model.safetensors.hct.part").exists())
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=20)
    assert process.returncode == EXIT_INTERRUPTED
    assert f"mkhct: interrupted by SIGINT; {out} is as it was before\n" in text
    assert not out.exists()


def test_signal_leaves_an_empty_folder_empty(slow_model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    process = start("-q", slow_model, out)
    assert started_writing(out)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert listing(out) == []


def test_signal_keeps_the_old_bundle(model, slow_model, tmp_path):
    out = compress(model, tmp_path / "out")
    before = tree_digests(out)
    process = start("-q", "-f", slow_model, out)
    assert started_writing(out)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == EXIT_INTERRUPTED
    assert tree_digests(out) == before


def test_ignored_signal_stays_ignored(slow_model, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$0" "$@"', MKHCT, "-q", slow_model, out])  # fmt: skip
    assert started_writing(out)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == EXIT_INTERRUPTED


def test_killed_run_is_cleaned_up_by_force(model, slow_model, tmp_path):
    out = tmp_path / "out"
    process = start("-q", slow_model, out)
    assert started_writing(out)
    process.kill()
    process.communicate(timeout=20)
    assert not (out / "a.txt").exists() and not (out / "model.safetensors.hct").exists()
    assert (out / ".model.safetensors.hct.part").exists()
    refuse(model, out, code=EXIT_SYSTEM, match="an unfinished bundle; give --force")
    (out / ".mine.part").write_text("of the user")
    # A second run that fails does not forget what the first one left.
    (out / ".model.safetensors.hct.part").unlink()
    process = start("-q", "-f", slow_model, out)
    assert started_writing(out)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert listing(out) == [".hct", ".hct/unfinished.json", ".mine.part"]
    compress(model, out, "-f")
    assert (out / ".mine.part").exists()
    (out / ".mine.part").unlink()
    assert listing(out) == [".hct", ".hct/report.json", "config.json", "model.safetensors.hct",
                            "sub", "sub/notes.txt"]  # fmt: skip


def test_source_truncated_while_it_is_read(slow_model, tmp_path):
    """The map of the source faults; mkhct says what happened and cleans up.

    The work that the fault abandons loses its memory (writer/model.h), so a sanitizer is
    not to count it here.
    """
    out = tmp_path / "out"
    process = start("-q", slow_model, out, env={"ASAN_OPTIONS": "detect_leaks=0"})
    assert started_writing(out)
    os.truncate(slow_model / "model.safetensors", 1 << 20)
    _, text = process.communicate(timeout=60)
    assert process.returncode == EXIT_SYSTEM, text
    assert re.fullmatch(r"mkhct: \S+model.safetensors: was truncated while it was read[^\n]*\n", text)
    assert not out.exists()


def test_source_changed_while_it_is_read(tmp_path):
    source = tmp_path / "model.safetensors"
    make_safetensors(source, {"a": ("U8", (1 << 28,), bytes(1 << 28))})
    out = tmp_path / "out"
    process = start("-q", source, out)
    assert started_writing(out)
    with open(source, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    _, text = process.communicate(timeout=60)
    assert process.returncode == EXIT_SYSTEM, text
    assert "changed while it was read" in text
    assert not out.exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk],
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.root
@pytest.mark.parametrize("what", ["model.safetensors", "vocabulary.bin"])
def test_full_disk(model, small_disk, what):
    rng = np.random.default_rng(9)
    if what.endswith(".bin"):
        (model / what).write_bytes(rng.bytes(8 << 20))
    else:
        make_safetensors(model / what, {"a": ("F32", (1 << 21,), rng.bytes(8 << 20))})
    out = small_disk / "out"
    done = run(MKHCT, "--lossless", model, out, expect=EXIT_SYSTEM)
    assert re.search(f"warning: {out} has .* free, and the bundle will .* take .* to .*", done.stderr)
    last = done.stderr.splitlines()[-1]
    assert re.match(r"mkhct: .*No space left on device; .* is as it was before", last)
    assert what in last
    assert listing(small_disk) == []
    done = run(MKHCT, "-q", model, out, expect=EXIT_SYSTEM)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.root
def test_full_disk_keeps_the_old_bundle(model, small_disk):
    out = compress(model, small_disk / "out")
    before = tree_digests(out)
    (model / "vocabulary.bin").write_bytes(np.random.default_rng(9).bytes(8 << 20))
    (model / "another folder").mkdir()
    refuse(model, out, "-q", "-f", code=EXIT_SYSTEM, match="No space left on device")
    assert tree_digests(out) == before


def test_limit_on_file_sizes(tmp_path):
    """ulimit -f would end the program by a signal, with part files left behind."""
    source = tmp_path / "model.safetensors"
    data = np.random.default_rng(9).bytes(4 << 20)
    make_safetensors(source, {"a": ("F32", (1 << 20,), data)})

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = subprocess.run([MKHCT, "-q", source, tmp_path / "out"], preexec_fn=limit,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == EXIT_SYSTEM
    assert "File too large" in done.stderr
    assert not (tmp_path / "out").exists()
