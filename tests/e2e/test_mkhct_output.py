"""mkhct: what it prints and reports, and its command line."""

import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import termios
import time

import pytest
import xxhash
from helpers import (
    EXIT_INTERRUPTED,
    EXIT_SYSTEM,
    EXIT_USAGE,
    HCT,
    MKHCT,
    compress,
    make_safetensors,
    run,
    sha256,
    tree_digests,
)
from mkhct_tool import REPORTS, listing, small_tensors


def test_json_report(odd_model, tmp_path):
    out = tmp_path / "out"
    done = run(MKHCT, "--lossless", "--json", "-q", odd_model, out)
    assert done.stderr == ""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["event"] for e in events][0] == "start"
    report = events[-1]
    assert report.pop("event") == "report" and report.pop("time")
    stored = {n: (out / n).stat().st_size for n in listing(out) if (out / n).is_file()}
    for name in REPORTS:
        del stored[name]
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
    assert re.search(r"^  a\.weight  BF16  \[96,64\]  \w+  \d\.\d{3}  \d+\.\d\d s$", done.stderr, re.M)
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
    for digest in (expected, digests):
        for report in REPORTS:
            del digest[report]
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
    (line,) = [line for line in done.stderr.splitlines() if "takes along" in line]
    assert line.endswith("takes along .git (3.00 MiB); --exclude .git leaves it out")
    (model / ".cache/huggingface/part").write_bytes(b"x")
    done = run(MKHCT, model, tmp_path / "again")
    assert sum("--exclude" in line for line in done.stderr.splitlines()) == 2
    assert run(MKHCT, "-q", model, tmp_path / "quiet").stderr == ""
