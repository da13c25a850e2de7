"""hct: the command line, ls and info, on bundles that mkhct made."""

import json
import math
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from hct_tool import COMMANDS, close, copy_bundle, hct, hct_json
from helpers import (
    EXIT_BAD_DATA,
    EXIT_SYSTEM,
    EXIT_USAGE,
    HCT,
    MKHCT,
    make_safetensors,
    odd_tensors,
    random_tensor,
    run,
    sha256,
)

# The command line --------------------------------------------------------------------


def test_help_and_version():
    top = hct("--help").stdout
    assert all(f"\n  {name} " in top for name in COMMANDS)
    assert hct("-h").stdout == hct("help").stdout == top
    assert hct("--version").stdout == hct("-V").stdout
    assert hct("--version").stdout.startswith("hct 0.")
    for name in COMMANDS:
        done = hct(name, "--help")
        assert done.stdout.startswith(f"Usage: hct {name} ")
        assert done.stdout == hct(name, "-h").stdout == hct("help", name).stdout
        assert done.stderr == ""
        assert max(map(len, done.stdout.splitlines())) <= 90


@pytest.mark.parametrize(
    "words, hint",
    [
        ((), "hct --help"),
        (("chekc", "x"), "hct check"),
        (("verify", "x"), "unknown command 'verify'"),
        (("--jason",), "unknown option '--jason'"),
        (("ls",), "hct ls --help"),
        (("ls", "--jsn", "x"), "unknown option '--jsn'"),
        (("ls", "-lx", "x"), "unknown option '-x'"),
        (("ls", "--json=1", "x"), "'--json' takes no value"),
        (("info", "a", "b"), "hct info --help"),
        (("check", "-j"), "'-j' needs a value"),
        (("check", "-j", "0", "x"), "not '0'"),
        (("check", "-j", "4x", "x"), "not '4x'"),
        (("check", "--jobs=-1", "x"), "not '-1'"),
        (("extract", "x"), "hct extract --help"),
        (("compare", "a"), "hct compare --help"),
        (("compare", "a", "b", "c"), "hct compare --help"),
    ],
)
def test_wrong_command_line(words, hint):
    done = hct(*words, expect=EXIT_USAGE)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert hint in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_not_there(command, tmp_path):
    more = [tmp_path] if command in ("extract", "compare") else []
    done = hct(command, tmp_path / "nothing", *more, expect=EXIT_SYSTEM)
    assert done.stderr.count("\n") == 1 and "nothing" in done.stderr


@pytest.mark.parametrize("command", ["ls", "info", "check", "extract"])
def test_what_is_no_bundle(command, tmp_path, sharded_model):
    more = [tmp_path / "out"] if command == "extract" else []
    done = hct(command, sharded_model, *more, expect=EXIT_BAD_DATA)
    assert done.stderr.count("\n") == 1 and str(sharded_model) in done.stderr
    other = tmp_path / "not.hct"
    other.write_bytes(b"something else altogether" * 100)
    hct(command, other, *more, expect=EXIT_BAD_DATA)
    assert not (tmp_path / "out" / "not").exists()


def test_output_that_cannot_be_written(sharded_bundle):
    with open("/dev/full", "w") as full:
        done = subprocess.run([HCT, "ls", sharded_bundle], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == EXIT_SYSTEM
    assert b"No space left" in done.stderr


@pytest.mark.parametrize("ignored", [False, True])
def test_reader_that_goes_away(odd_bundle, ignored):
    reader, writer = os.pipe()
    os.close(reader)
    shell = "trap '' PIPE; exec \"$@\"" if ignored else "exec \"$@\""
    words = ["sh", "-c", shell, "sh", HCT, "ls", odd_bundle]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    # Killed without a word, as any filter; where that is ignored, an error.
    assert done.returncode == (EXIT_SYSTEM if ignored else -signal.SIGPIPE)
    assert done.stderr == ("hct: cannot write the output: Broken pipe\n" if ignored else "")


@pytest.mark.parametrize("mark", ["checkpoint.json", "checkpoint-2-of-3.json"])
@pytest.mark.parametrize("command", COMMANDS)
def test_unfinished_bundle_is_refused(tmp_path, sharded_bundle, command, mark):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    (bundle / ".hct" / mark).write_text("{}")
    (bundle / ".hct/report.json").unlink()
    (bundle / ".model.safetensors.hct.part").write_bytes(b"part")
    more = {"extract": [tmp_path / "out"], "compare": [sharded_bundle]}.get(command, [])
    done = hct(command, bundle, *more, expect=EXIT_BAD_DATA)
    assert done.stdout == "" and "not finished" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_bundle_that_is_going_to_be_replaced(tmp_path, sharded_bundle, command):
    """It has its report, and is whole; the files that are going to replace it do not show."""
    bundle = copy_bundle(sharded_bundle, tmp_path)
    (bundle / ".hct/checkpoint.json").write_text("{}")
    (bundle / ".model.safetensors.hct.part").write_bytes(b"part")
    more = {"extract": [tmp_path / "out"], "compare": [sharded_bundle]}.get(command, [])
    done = hct(command, bundle, *more)
    assert ".part" not in done.stdout + done.stderr
    assert not list(tmp_path.glob("out/.*"))


# ls and info -------------------------------------------------------------------------


def test_ls_json(odd_model, odd_bundle):
    listing = hct_json("ls", odd_bundle)
    assert [f["name"] for f in listing["files"]] == [
        "adapter.safetensors",
        "model.safetensors",
        "onnx/none.safetensors",
    ]
    assert {f["name"]: f["bytes"] for f in listing["carried"]} == {
        name: (odd_model / name).stat().st_size
        for name in ("config.json", "empty.txt", "onnx/deep/vocab ü.txt")
    }
    for file in listing["files"]:
        assert file["source_bytes"] == (odd_model / file["name"]).stat().st_size
        assert file["stored_bytes"] == (odd_bundle / f"{file['name']}.hct").stat().st_size
        tensors = file["tensors"]
        # Everything adds up to the whole file.
        assert file["header_bytes"] + sum(t["source_bytes"] for t in tensors) == file["source_bytes"]
        assert file["index_bytes"] + sum(t["stored_bytes"] for t in tensors) == file["stored_bytes"]
    tensors = {t["name"]: t for t in listing["files"][1]["tensors"]}
    expected = odd_tensors()
    assert set(tensors) == set(expected)
    for name, (dtype, shape, data) in expected.items():
        tensor = tensors[name]
        elements = math.prod(shape)
        assert (tensor["dtype"], tensor["shape"]) == (dtype, list(shape))
        assert (tensor["elements"], tensor["source_bytes"]) == (elements, len(data))
        bits = 8 * tensor["stored_bytes"] / elements if elements else 0
        assert close(tensor["bits_per_weight"], bits)
        assert (tensor["chunks"] > 0) == (len(data) > 0)


def test_ls_table(odd_bundle):
    text = hct("ls", odd_bundle).stdout
    lines = text.splitlines()
    assert "onnx/none.safetensors: 0 tensors" in lines
    # Names that hold control characters stay on their line and leave the terminal alone.
    assert any(line.endswith('quote " back \\ tab \\t, and space') for line in lines)
    assert any(line.endswith("слой.重み.🙂") for line in lines)
    assert not any(c < " " and c != "\n" for c in text)
    assert all(line == line.rstrip() for line in lines)
    # The rows of a file add up to the row of the whole file.
    rows = [line.split() for line in lines]
    start = lines.index("adapter.safetensors: 2 tensors")
    (a, b, rest, whole) = rows[start + 2 : start + 6]
    assert rest[2:] == ["(header,", "index)"] and whole[3:] == ["(whole", "file)"]
    for column in (0, 1):
        parts = int(a[3 + column]) + int(b[3 + column]) + int(rest[column])
        assert parts == int(whole[column])
    assert int(whole[1]) == (odd_bundle / "adapter.safetensors.hct").stat().st_size
    longer = hct("ls", "-l", odd_bundle).stdout
    assert "CHUNKS" in longer and "CHUNKS" not in text


def test_ls_of_some_files(odd_bundle):
    def names(*files):
        listing = hct_json("ls", odd_bundle, *files)
        return [f["name"] for f in listing["files"] + listing["carried"]]

    assert names("adapter.safetensors") == ["adapter.safetensors"]
    assert names("./adapter.safetensors.hct") == ["adapter.safetensors"]
    assert names("onnx/") == ["onnx/none.safetensors", "onnx/deep/vocab ü.txt"]
    assert names("onnx/deep", "config.json") == ["config.json", "onnx/deep/vocab ü.txt"]
    for name in ("nothing", "config.json.hct", "../bundle.hct/config.json", "config.json/x"):
        done = hct("ls", odd_bundle, name, expect=EXIT_SYSTEM)
        assert done.stdout == "" and name in done.stderr


def test_ls_of_one_file(odd_bundle):
    whole = hct_json("ls", odd_bundle)["files"][0]
    single = hct_json("ls", odd_bundle / "adapter.safetensors.hct")
    assert single == {"files": [whole], "carried": []}


def test_info_json(odd_model, odd_bundle):
    info = hct_json("info", odd_bundle)
    models = sorted(odd_model.rglob("*.safetensors"))
    stored = sorted(odd_bundle.rglob("*.safetensors.hct"))
    total = info["total"]
    assert (total["files"], total["carried_files"]) == (3, 3)
    assert total["tensors"] == len(odd_tensors()) + 2
    elements = sum(math.prod(shape) for _, shape, _ in odd_tensors().values()) + 64 * 64 + 64 * 65
    assert total["parameters"] == elements
    assert total["source_bytes"] == sum(p.stat().st_size for p in models)
    assert total["stored_bytes"] == sum(p.stat().st_size for p in stored)
    assert close(total["ratio"], total["source_bytes"] / total["stored_bytes"])
    assert close(total["bits_per_weight"], 8 * total["stored_bytes"] / elements)
    for parts in (info["dtypes"], info["codecs"]):
        assert sum(p["tensors"] for p in parts) == total["tensors"]
        assert sum(p["parameters"] for p in parts) == elements
        for key in ("source_bytes", "stored_bytes"):
            assert sum(p[key] for p in parts) + info["header_and_index"][key] == total[key]
    assert {p["dtype"] for p in info["dtypes"]} == {d for d, _, _ in odd_tensors().values()}
    assert info["options"]["mode"] == "lossless"
    for file in info["files"]:
        source = odd_model / file["name"]
        assert file["source_sha256"] == sha256(source)
        assert file["format_version"] == "1.0"
        assert file["provenance"]["tool"] == "mkhct"
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(source.stat().st_mtime)))
        assert file["source_mtime"] == when


def test_info_text(odd_model, odd_bundle):
    text = hct("info", odd_bundle).stdout
    for path in odd_model.rglob("*.safetensors"):
        assert f"sha256 {sha256(path)}  {path.relative_to(odd_model)}" in text
    assert "lossless" in text and "not the same" not in text


# Quality, as three tools name it -----------------------------------------------------


def quality_tensors(kind):
    """Matrices with loss among tensors that are none, as in a small llama; mixed: of several
    dtypes and scales, under a constant that is larger than all else together."""
    rng = np.random.default_rng(21)
    tensors = {"embed": random_tensor(rng, "F32", (512, 64))}
    for i in range(3):
        tensors[f"layers.{i}.norm"] = random_tensor(rng, "F32", (4096,))
        dtype = ("F32", "BF16", "F16")[i if kind == "mixed" else 0]
        tensors[f"layers.{i}.q"] = random_tensor(rng, dtype, (64, 64))
        tensors[f"layers.{i}.up"] = random_tensor(rng, dtype, (64, 172))
    if kind == "mixed":
        few = rng.standard_normal((96, 96)) * (rng.random((96, 96)) < 0.05) * 1e-6
        tensors["few"] = "F32", (96, 96), few.astype("<f4").tobytes()
        tensors["mask"] = "F32", (1,), np.array([-3e38], "<f4").tobytes()
        tensors["ids"] = "I64", (64,), np.arange(64).tobytes()
    return tensors


@pytest.mark.parametrize("options", [(), ("--retention", ".5"), ("--policy", "hybrid", "--effort", "1")])
@pytest.mark.parametrize("kind", ["llama", "mixed"])
def test_one_quality_in_three_tools(tmp_path, kind, options):
    """The report of mkhct, hct info and hct compare name the same mean and the same worst tensor."""
    source, bundle = tmp_path / "source", tmp_path / "bundle"
    source.mkdir()
    make_safetensors(source / "model.safetensors", quality_tensors(kind))
    table = run(MKHCT, *options, source, bundle).stdout
    report = json.loads((bundle / ".hct" / "report.json").read_text())["lossy"]
    info, compared = hct_json("info", bundle)["lossy"], hct_json("compare", source, bundle)["differ"]
    assert info["cosine_measured"] is True
    assert info["tensors"] == compared["tensors"] == report["tensors"]
    for found in (info, compared):
        assert found["cosine"] == pytest.approx(report["cosine"], abs=2e-6)
        assert found["relative_squared_error"] == pytest.approx(report["relative_squared_error"], rel=1e-4)
        assert found["grade"] == report["grade"]
        assert found["worst"]["tensor"] == report["worst"]["tensor"]
        assert found["worst"]["cosine"] == pytest.approx(report["worst"]["cosine"], abs=2e-6)
    texts = hct("info", bundle).stdout, hct("compare", "-q", source, bundle).stdout
    said = re.search(r"mean cosine to the source is (\d\.\d+)", table)[1]
    for text in texts:
        (mean,) = [t for t in text.splitlines() if t.lstrip().startswith("mean")]
        (worst,) = [t for t in text.splitlines() if t.lstrip().startswith("worst")]
        shown = float(re.search(r" cosine (\d\.\d+)", mean)[1])
        assert shown == pytest.approx(float(said), abs=1.01e-5)
        assert worst.endswith(f": {report['worst']['tensor']}")


def test_info_without_the_report(tmp_path):
    """A file by itself, or under a report of others, has the least cosines of its errors."""
    source, bundle = tmp_path / "source", tmp_path / "bundle"
    source.mkdir()
    make_safetensors(source / "model.safetensors", quality_tensors("llama"))
    run(MKHCT, "-q", "--retention", ".5", source, bundle)
    measured = hct_json("info", bundle)["lossy"]
    alone = hct_json("info", bundle / "model.safetensors.hct")["lossy"]
    path = bundle / ".hct" / "report.json"
    report = json.loads(path.read_text())
    for key, value in (("cosine", 0.5), ("cosine", "x"), ("weights", 7), ("relative_squared_error", 0.01)):
        forged = {**report, "lossy": {**report["lossy"], key: value}}
        path.write_text(json.dumps(forged))
        assert hct_json("info", bundle)["lossy"] == alone
    path.write_text("{")
    assert hct_json("info", bundle)["lossy"] == alone
    assert alone["cosine_measured"] is False and alone["cosine"] < measured["cosine"]
    listed = hct_json("ls", bundle)["files"][0]["tensors"]
    lossy = [(t["elements"], t["relative_squared_error"]) for t in listed if t["relative_squared_error"]]
    mean = sum(n * math.sqrt(1 - e) for n, e in lossy) / sum(n for n, _ in lossy)
    assert close(alone["cosine"], mean)
    assert "cosine at least 0.9" in hct("info", bundle).stdout
