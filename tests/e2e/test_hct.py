"""hct: the command line, ls and info, on bundles that mkhct made."""

import math
import os
import signal
import subprocess
import time

import pytest
from hct_tool import COMMANDS, close, copy_bundle, hct, hct_json
from helpers import EXIT_BAD_DATA, EXIT_SYSTEM, EXIT_USAGE, HCT, odd_tensors, sha256

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


@pytest.mark.parametrize("command", COMMANDS)
def test_unfinished_bundle_is_refused(tmp_path, sharded_bundle, command):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    (bundle / ".hct" / "unfinished.json").write_text("{}")
    (bundle / ".model.safetensors.hct.part").write_bytes(b"part")
    more = {"extract": [tmp_path / "out"], "compare": [sharded_bundle]}.get(command, [])
    done = hct(command, bundle, *more, expect=EXIT_BAD_DATA)
    assert done.stdout == "" and "not finished" in done.stderr
    assert not (tmp_path / "out").exists()


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
