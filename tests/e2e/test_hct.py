"""hct: ls, info, check, extract and compare, on bundles that mkhct made."""

import fcntl
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    EXIT_BAD_DATA,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_SYSTEM,
    EXIT_USAGE,
    HCT,
    bf16_bytes,
    compress,
    make_safetensors,
    odd_tensors,
    random_tensor,
    run,
    sha256,
    tree_digests,
    wait_until,
)

COMMANDS = ("ls", "info", "check", "extract", "compare")


def hct(*arguments, **options):
    return run(HCT, *arguments, **options)


def hct_json(*arguments, **options):
    done = hct(*arguments, "--json", **options)
    return json.loads(done.stdout)


def close(value, expected):
    return value == pytest.approx(expected, rel=1e-12, abs=1e-300)


def copy_bundle(bundle, folder):
    return Path(shutil.copytree(bundle, Path(folder) / "copy.hct"))


def extents(path):
    """[(offset, length)] of the chunks of an .hct file, from its EXTENTS section."""
    data = Path(path).read_bytes()
    index, _ = struct.unpack_from("<QQ", data, len(data) - 64)
    (sections,) = struct.unpack_from("<I", data, index + 8)
    for i in range(sections):
        number, coding, _, offset, stored = struct.unpack_from("<IHHQQ", data, index + 32 + 40 * i)
        if number == 3:
            assert coding == 0
            table = data[index + offset : index + offset + stored]
            return [struct.unpack_from("<QI", table, at) for at in range(0, stored, 32)]
    raise AssertionError("no EXTENTS section")


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


# The command line ----------------------------------------------------------------------


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


# ls and info ---------------------------------------------------------------------------


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


# check ---------------------------------------------------------------------------------


def test_check_finds_nothing(odd_bundle):
    done = hct("check", odd_bundle)
    assert done.stderr == "" and done.stdout.count("\n") == 1
    assert hct("check", "-q", "-j", "3", odd_bundle).stdout == ""
    result = hct_json("check", odd_bundle)
    chunks = sum(t["chunks"] for f in hct_json("ls", odd_bundle)["files"] for t in f["tensors"])
    assert (result["ok"], result["bad"]) == (True, [])
    assert (result["files"], result["chunks"]) == (3, chunks)


def test_check_names_every_damaged_chunk(tmp_path, odd_bundle):
    bundle = copy_bundle(odd_bundle, tmp_path)
    file = hct_json("ls", bundle, "model.safetensors")["files"][0]
    owner = [t["name"] for t in file["tensors"] for _ in range(t["chunks"])]
    where = extents(bundle / "model.safetensors.hct")
    assert len(where) == len(owner)
    rng = np.random.default_rng(5)
    chosen = sorted(int(n) for n in rng.choice(len(owner), 9, replace=False))
    for n in chosen:
        offset, length = where[n]
        flip(bundle / "model.safetensors.hct", offset + int(rng.integers(length)))
    for jobs in (1, 4):
        result = hct_json("check", "-j", jobs, bundle, expect=EXIT_BAD_DATA)
        assert result["ok"] is False
        assert [(b["file"], b["tensor"], b["chunk"]) for b in result["bad"]] == [
            ("model.safetensors", owner[n], n - owner.index(owner[n])) for n in chosen
        ]
        assert all(f"chunk {b['chunk']} " in b["message"] for b in result["bad"])
        assert {b["error"] for b in result["bad"]} == {"checksum mismatch"}
    done = hct("check", "-q", bundle, expect=EXIT_BAD_DATA)
    assert done.stderr == "" and done.stdout.count("\n") == len(chosen)
    for line in done.stdout.splitlines():
        assert "model.safetensors" in line and "expected" in line and "found" in line
    # The other files are fine.
    hct("check", bundle / "adapter.safetensors.hct")


def test_check_of_a_truncated_file(tmp_path, sharded_bundle):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    shards = sorted(bundle.glob("*.safetensors.hct"))
    os.truncate(shards[1], shards[1].stat().st_size - 1)
    os.truncate(shards[2], 100)
    where = extents(shards[0])
    flip(shards[0], where[0][0])
    result = hct_json("check", bundle, expect=EXIT_BAD_DATA)
    assert [b["file"] for b in result["bad"]] == [
        shards[1].name[:-4],
        shards[2].name[:-4],
        shards[0].name[:-4],
    ]
    assert result["bad"][0]["error"] == "unfinished .hct file"
    assert "tensor" not in result["bad"][0] and result["bad"][2]["chunk"] == 0
    # The rest is still listed.
    done = hct("ls", bundle, expect=EXIT_BAD_DATA)
    assert f"{shards[0].name[:-4]}:" in done.stdout and done.stderr.count("\n") == 2
    done = hct("info", bundle, expect=EXIT_BAD_DATA)
    assert "1 model file," in done.stdout and done.stderr.count("\n") == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_check_of_an_unreadable_carried_file(tmp_path, sharded_bundle):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    (bundle / "config.json").chmod(0)
    result = hct_json("check", bundle, expect=EXIT_SYSTEM)
    assert [b["file"] for b in result["bad"]] == ["config.json"]


def test_check_tells_damage_from_refusal(tmp_path, sharded_bundle):
    """A limit on open files makes the system refuse, whoever asks."""
    bundle = copy_bundle(sharded_bundle, tmp_path)

    def check(expect):
        words = ("sh", "-c", 'ulimit -n 5; exec "$@"', "sh", HCT, "check", "--json", bundle)
        return json.loads(run(*words, expect=expect).stdout)

    result = check(EXIT_SYSTEM)
    assert result["bad"] and all("Too many open files" in b["message"] for b in result["bad"])
    first = sorted(bundle.glob("*.safetensors.hct"))[0]
    os.truncate(first, 100)
    result = check(EXIT_BAD_DATA)
    assert "Too many open files" in result["bad"][-1]["message"]


def test_check_of_missing_and_altered_files(tmp_path, odd_bundle):
    bundle = copy_bundle(odd_bundle, tmp_path)
    report = json.loads((bundle / ".hct" / "report.json").read_text())
    sizes = {f["name"]: f["stored_bytes"] for f in report["files"] if f["kind"] == "carried"}
    carried = sorted(sizes, key=sizes.get)
    gone, longer, other = carried[0], carried[-2], carried[-1]
    assert len({gone, longer, other}) == 3
    (bundle / gone).unlink()
    with open(bundle / longer, "ab") as file:
        file.write(b"x")
    flip(bundle / other, 0)
    (bundle / "adapter.safetensors.hct").unlink()
    result = hct_json("check", bundle, expect=EXIT_BAD_DATA)
    assert {b["file"]: b["error"] for b in result["bad"]} == {
        "adapter.safetensors": "not found",
        gone: "not found",
        longer: "corrupt structure",
        other: "checksum mismatch",
    }
    assert len(result["bad"]) == 4 and result["notes"] == []
    done = hct("check", "-q", bundle, expect=EXIT_BAD_DATA)
    assert "adapter.safetensors.hct: missing" in done.stdout and done.stdout.count("\n") == 4
    # A whole model of another size in the place of one that mkhct wrote.
    shutil.copy(bundle / "model.safetensors.hct", bundle / "adapter.safetensors.hct")
    result = hct_json("check", bundle, expect=EXIT_BAD_DATA)
    (bad,) = [b for b in result["bad"] if b["file"] == "adapter.safetensors"]
    assert f"found {(bundle / 'model.safetensors.hct').stat().st_size}" in bad["message"]


def test_check_of_files_that_mkhct_did_not_write(tmp_path, sharded_bundle):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    (bundle / "mine").mkdir()
    for i in range(7):
        (bundle / "mine" / f"{i}.txt").write_text("mine")
    done = hct("check", bundle)
    assert "all good" in done.stdout
    lines = done.stderr.splitlines()
    assert len(lines) == 6 and "mine/0.txt" in lines[0] and "2 more files" in lines[5]
    assert len(hct_json("check", bundle)["notes"]) == 6
    assert hct("check", "-q", bundle).stderr == ""


def test_check_without_a_usable_report(tmp_path, sharded_bundle):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    report = bundle / ".hct" / "report.json"
    for text in ("", "{", "{}", '{"files": [{}]}', '{"files": [{"name": "a", "kind": "model"}]}'):
        report.write_text(text)
        (bad,) = hct_json("check", bundle, expect=EXIT_BAD_DATA)["bad"]
        assert bad["file"] == ".hct/report.json"
    shutil.rmtree(bundle / ".hct")
    done = hct("check", bundle)
    assert "all good" in done.stdout
    assert done.stderr.count("\n") == 1 and "no report" in done.stderr
    # One file is not its bundle.
    assert hct("check", sorted(bundle.glob("*.hct"))[0]).stderr == ""


def test_check_of_a_name_that_is_no_utf8(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    make_safetensors(source / "a.safetensors", {"w": ("U8", (4,), b"abcd")})
    name = os.fsencode(source) + b"/\xff\xfe.txt"
    with open(name, "wb") as file:
        file.write(b"text")
    bundle = compress(source, tmp_path / "bundle")
    done = hct("check", bundle)
    assert done.stderr == "" and "1 model file, 1 tensor, 1 chunk, " in done.stdout
    flip(os.fsencode(bundle) + b"/\xff\xfe.txt", 2)
    hct("check", bundle, expect=EXIT_BAD_DATA)


@pytest.mark.parametrize("command", COMMANDS)
def test_unfinished_bundle_is_refused(tmp_path, sharded_bundle, command):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    (bundle / ".hct" / "unfinished.json").write_text("{}")
    (bundle / ".model.safetensors.hct.part").write_bytes(b"part")
    more = {"extract": [tmp_path / "out"], "compare": [sharded_bundle]}.get(command, [])
    done = hct(command, bundle, *more, expect=EXIT_BAD_DATA)
    assert done.stdout == "" and "not finished" in done.stderr
    assert not (tmp_path / "out").exists()


# extract -------------------------------------------------------------------------------


def leftovers(folder):
    return [str(p) for p in Path(folder).rglob("*") if p.name.endswith(".part")]


@pytest.mark.parametrize("jobs", [1, 4])
def test_extract_gives_back_the_source(tmp_path, odd_model, odd_bundle, jobs):
    out = tmp_path / "out"
    hct("extract", "-j", jobs, odd_bundle, out)
    assert tree_digests(out) == tree_digests(odd_model)
    for path in odd_model.rglob("*"):
        if path.is_file():
            again = out / path.relative_to(odd_model)
            assert again.stat().st_mtime_ns == path.stat().st_mtime_ns
    assert hct("compare", odd_model, out).stdout.endswith("all bit-identical\n")


def test_extract_of_sharded_and_of_one_file(tmp_path, sharded_model, sharded_bundle):
    hct("extract", "-q", sharded_bundle, tmp_path / "all")
    assert tree_digests(tmp_path / "all") == tree_digests(sharded_model)
    shard = sorted(sharded_bundle.glob("*.safetensors.hct"))[1]
    hct("extract", shard, tmp_path / "one")
    assert [p.name for p in (tmp_path / "one").iterdir()] == [shard.name[:-4]]
    assert sha256(tmp_path / "one" / shard.name[:-4]) == sha256(sharded_model / shard.name[:-4])


def test_extract_of_some_files(tmp_path, odd_model, odd_bundle):
    out = tmp_path / "out"
    hct("extract", odd_bundle, out, "onnx/deep/vocab ü.txt", "adapter.safetensors.hct")
    assert set(tree_digests(out)) == {"onnx/deep/vocab ü.txt", "adapter.safetensors"}
    assert sha256(out / "adapter.safetensors") == sha256(odd_model / "adapter.safetensors")
    hct("extract", odd_bundle, tmp_path / "no", "nothing", expect=EXIT_SYSTEM)
    assert not (tmp_path / "no").exists()


def test_extract_replaces_only_with_force(tmp_path, sharded_model, sharded_bundle):
    out = tmp_path / "out"
    out.mkdir()
    last = sorted(p.name for p in sharded_model.iterdir())[-1]
    (out / last).write_text("mine")
    (out / "other").write_text("other")
    done = hct("extract", sharded_bundle, out, expect=EXIT_SYSTEM)
    assert last in done.stderr and "-f" in done.stderr
    assert sorted(p.name for p in out.iterdir()) == sorted([last, "other"])
    assert (out / last).read_text() == "mine"
    hct("extract", "-f", sharded_bundle, out)
    (out / "other").unlink()
    assert tree_digests(out) == tree_digests(sharded_model)
    # Links are replaced, not followed.
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (out / last).unlink()
    (out / last).symlink_to(victim)
    hct("extract", sharded_bundle, out, last, expect=EXIT_SYSTEM)
    hct("extract", "-f", sharded_bundle, out, last)
    assert victim.read_text() == "mine" and not (out / last).is_symlink()


def test_extract_into_the_bundle_itself(tmp_path, sharded_bundle):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    before = tree_digests(bundle)
    done = hct("extract", "-f", bundle, bundle, expect=EXIT_USAGE)
    assert "is the bundle" in done.stderr
    assert tree_digests(bundle) == before


def test_extract_where_it_cannot_write(tmp_path, sharded_bundle):
    (tmp_path / "file").write_text("x")
    hct("extract", sharded_bundle, tmp_path / "file", expect=EXIT_SYSTEM)
    done = hct("extract", sharded_bundle, tmp_path / "no" / "parent", expect=EXIT_SYSTEM)
    assert "no/parent" in done.stderr
    assert not (tmp_path / "no").exists()


def test_extract_of_a_damaged_bundle(tmp_path, sharded_model, sharded_bundle):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    shards = sorted(bundle.glob("*.safetensors.hct"))
    offset, length = extents(shards[0])[-1]
    flip(shards[0], offset + length // 2)
    os.truncate(shards[1], 1000)
    out = tmp_path / "out"
    done = hct("extract", bundle, out, expect=EXIT_BAD_DATA)
    assert shards[0].name in done.stderr and shards[1].name in done.stderr
    # What is whole is there, the rest is not.
    digests = tree_digests(sharded_model)
    for shard in shards[:2]:
        del digests[shard.name[:-4]]
    assert tree_digests(out) == digests


def test_failed_extract_leaves_no_empty_directories(tmp_path, odd_bundle):
    bundle = copy_bundle(odd_bundle, tmp_path)
    nested = bundle / "more" / "deep" / "m.safetensors.hct"
    nested.parent.mkdir(parents=True)
    shutil.copy(bundle / "model.safetensors.hct", nested)
    flip(nested, extents(nested)[0][0])
    name = nested.relative_to(bundle)
    hct("extract", bundle, tmp_path / "out", name, expect=EXIT_BAD_DATA)
    assert not (tmp_path / "out").exists()
    # A directory that was there stays.
    (tmp_path / "out").mkdir()
    hct("extract", bundle, tmp_path / "out", name, expect=EXIT_BAD_DATA)
    assert os.listdir(tmp_path / "out") == []


def test_extract_over_the_remains_of_another(tmp_path, sharded_model, sharded_bundle):
    out = tmp_path / "out"
    out.mkdir()
    name = sorted(p.name for p in sharded_model.glob("*.safetensors"))[0]
    part = out / f".{name}.part"
    part.write_bytes(b"x" * 10_000_000)
    with open(part, "rb") as held:  # a program that is at work on it
        fcntl.flock(held, fcntl.LOCK_EX)
        done = hct("extract", sharded_bundle, out, name, expect=EXIT_SYSTEM)
        assert "another program" in done.stderr and part.stat().st_size == 10_000_000
    hct("extract", sharded_bundle, out, name)  # one that was killed
    assert tree_digests(out) == {name: sha256(sharded_model / name)}
    victim = tmp_path / "victim"
    victim.write_text("mine")
    part.symlink_to(victim)
    hct("extract", "-f", sharded_bundle, out, name, expect=EXIT_SYSTEM)
    assert victim.read_text() == "mine"


def test_extract_of_the_longest_name(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / ("n" * 255)).write_text("carried")
    rng = np.random.default_rng(1)
    make_safetensors(source / "m.safetensors", {"a": random_tensor(rng, "BF16", (8, 8))})
    bundle = compress(source, tmp_path / "bundle.hct")
    hct("extract", bundle, tmp_path / "out")
    assert tree_digests(tmp_path / "out") == tree_digests(source)


@pytest.fixture(scope="module")
def big_bundle(tmp_path_factory):
    """Takes long enough to be interrupted: 192 MiB that do not shrink."""
    folder = tmp_path_factory.mktemp("big")
    (folder / "source").mkdir()
    noise = np.random.default_rng(4).bytes(192 << 20)
    make_safetensors(folder / "source" / "a.safetensors", {"w": ("I32", (48 << 20,), noise)})
    yield compress(folder / "source", folder / "bundle.hct")
    shutil.rmtree(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_extract_interrupted(tmp_path, big_bundle, number):
    for attempt in range(5):  # it may be done before the signal comes
        out = tmp_path / f"out{attempt}"
        part = out / ".a.safetensors.part"
        process = subprocess.Popen(
            [HCT, "extract", "-q", "-j", "1", big_bundle, out], stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: part.exists() or process.poll() is not None, interval=0.0005)
        process.send_signal(number)
        _, messages = process.communicate(timeout=60)
        if process.returncode != EXIT_OK:
            break
        shutil.rmtree(out)
    assert process.returncode == EXIT_INTERRUPTED
    assert messages == "hct extract: interrupted\n"
    assert not out.exists()


def test_check_interrupted(big_bundle):
    for _ in range(5):
        process = subprocess.Popen(
            [HCT, "check", "-j", "1", big_bundle], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        wait_until(lambda: len(os.listdir(f"/proc/{process.pid}/task")) > 1, interval=0.0005)
        process.send_signal(signal.SIGINT)
        output, messages = process.communicate(timeout=60)
        if process.returncode != EXIT_OK:
            break
    assert process.returncode == EXIT_INTERRUPTED
    assert (output, messages) == (b"", b"hct check: interrupted\n")


@pytest.mark.root
def test_extract_on_a_full_disk(tmp_path, sharded_model, sharded_bundle):
    disk = tmp_path / "disk"
    disk.mkdir()
    sizes = {p.name: p.stat().st_size for p in sharded_model.iterdir()}
    room = (sum(sizes.values()) // 4096 + len(sizes) + 4) * 4096
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={room}", "none", disk]
    if subprocess.run(mounting, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("cannot mount a tmpfs")
    first = min(sharded_model.glob("*.safetensors")).name
    try:
        # Too little room is known before anything is written.
        (disk / "full").write_bytes(bytes(sizes[first]))
        done = hct("extract", sharded_bundle, disk / "out", expect=EXIT_SYSTEM)
        assert "no space left" in done.stderr and "free" in done.stderr
        assert os.listdir(disk) == ["full"]
        # What -f replaces makes room.
        (disk / "out").mkdir()
        (disk / "full").rename(disk / "out" / first)
        hct("extract", "-f", sharded_bundle, disk / "out")
        shutil.rmtree(disk / "out")
        # Unless a program has it open, which only shows when the disk is full.
        (disk / "out").mkdir()
        (disk / "out" / first).write_bytes(bytes(sizes[first]))
        with open(disk / "out" / first, "rb"):
            done = hct("extract", "-f", sharded_bundle, disk / "out", expect=EXIT_SYSTEM)
        assert "no space left" in done.stderr and "free" in done.stderr
        assert leftovers(disk) == []
        # What is there is whole.
        assert tree_digests(disk / "out").items() < tree_digests(sharded_model).items()
    finally:
        subprocess.run(["umount", disk], check=True)


# compare -------------------------------------------------------------------------------


TENSOR_KEYS = (
    "name dtype shape elements source_bytes stored_bytes bits_per_weight codec "
    "relative_squared_error cosine psnr_db max_abs_error grade"
).split()
TOTAL_KEYS = (
    "elements source_bytes stored_bytes bits_per_weight relative_squared_error cosine ratio"
).split()


def bf16_values(data):
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)


def known_pair():
    """{name: (dtype, shape, bytes of A, bytes of B, values of A, values of B)}"""
    rng = np.random.default_rng(9)
    pair = {}

    def add(name, dtype, a, b, va, vb):
        pair[name] = dtype, (len(va),), a, b, va.astype(np.float64), vb.astype(np.float64)

    a = rng.standard_normal(700_001).astype("<f4")
    for name, error in (("fine", 0.01), ("good", 0.1), ("fair", 0.17), ("low", 0.25), ("bad", 0.9)):
        b = (a + np.float32(error) * rng.standard_normal(len(a))).astype("<f4")
        add(f"f32.{name}", "F32", a.tobytes(), b.tobytes(), a, b)
    add("f32.same", "F32", a.tobytes(), a.tobytes(), a, a)
    b = a.copy()
    b[3] += 1
    add("f32.once", "F32", a.tobytes(), b.tobytes(), a, b)
    half_a, half_b = a[:300_007].astype("<f2"), (a[:300_007] * 1.01).astype("<f2")
    add("f16", "F16", half_a.tobytes(), half_b.tobytes(), half_a, half_b)
    brain_a, brain_b = bf16_bytes(a), bf16_bytes(a * np.float32(0.97))
    add("bf16", "BF16", brain_a, brain_b, bf16_values(brain_a), bf16_values(brain_b))
    byte_a = rng.integers(-128, 128, 100_003, dtype="i1")
    byte_b = np.clip(byte_a.astype(int) + rng.integers(-2, 3, len(byte_a)), -128, 127).astype("i1")
    add("i8", "I8", byte_a.tobytes(), byte_b.tobytes(), byte_a, byte_b)
    wide_a = rng.standard_normal(50_000)
    wide_b = wide_a * (1 + 1e-9)
    add("f64", "F64", wide_a.tobytes(), wide_b.tobytes(), wide_a, wide_b)
    return pair


def expected_figures(a, b):
    """relative squared error, cosine, PSNR, largest error"""
    square = np.sum((a - b) ** 2)
    if square == 0:
        return 0, 1, None, 0
    return (
        square / np.sum(a * a),
        np.sum(a * b) / math.sqrt(np.sum(a * a) * np.sum(b * b)),
        10 * math.log10(np.max(np.abs(a)) ** 2 / (square / len(a))),
        np.max(np.abs(a - b)),
    )


def grade(cosine):
    steps = (0.998, "Excellent"), (0.993, "Good"), (0.98, "Acceptable"), (0.95, "Degraded")
    return next((name for least, name in steps if round(cosine, 3) >= least), "Poor")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two model directories that differ by what known_pair says, and their bundles."""
    folder = tmp_path_factory.mktemp("pair")
    for side in (0, 1):
        source = folder / "ab"[side]
        source.mkdir()
        tensors = {n: (d, s, (a, b)[side]) for n, (d, s, a, b, _, _) in known_pair().items()}
        make_safetensors(source / "model.safetensors", tensors)
        (source / "config.json").write_text("{}" * side)
        compress(source, folder / f"{'ab'[side]}.hct")
    return folder


FORMS = {
    "directory": "{}",
    "file": "{}/model.safetensors",
    "bundle": "{}.hct",
    "hct": "{}.hct/model.safetensors.hct",
}


@pytest.mark.parametrize("b", FORMS)
@pytest.mark.parametrize("a", FORMS)
def test_compare_figures(pair, a, b):
    path_a, path_b = pair / FORMS[a].format("a"), pair / FORMS[b].format("b")
    result = hct_json("compare", path_a, path_b)
    assert set(result) == {"tensors", "total"}
    expected = known_pair()
    assert [t["name"] for t in result["tensors"]] == list(expected)
    weighed = "a" if a in ("bundle", "hct") and b in ("directory", "file") else "b"
    compressed = {a, b} & {"bundle", "hct"}
    if compressed:
        listing = hct_json("ls", pair / f"{weighed}.hct")["files"][0]["tensors"]
    for i, tensor in enumerate(result["tensors"]):
        dtype, shape, data, _, va, vb = expected[tensor["name"]]
        assert list(tensor) == TENSOR_KEYS
        error, cosine, psnr, largest = expected_figures(va, vb)
        assert close(tensor["relative_squared_error"], error)
        assert close(tensor["cosine"], cosine)
        assert tensor["psnr_db"] is None if psnr is None else close(tensor["psnr_db"], psnr)
        assert tensor["max_abs_error"] == largest
        assert tensor["grade"] == grade(cosine)
        assert (tensor["dtype"], tensor["shape"]) == (dtype, list(shape))
        assert (tensor["elements"], tensor["source_bytes"]) == (len(va), len(data))
        stored = listing[i]["stored_bytes"] if compressed else len(data)
        assert tensor["stored_bytes"] == stored
        assert tensor["codec"] == (listing[i]["codec"] if compressed else "none")
        assert close(tensor["bits_per_weight"], 8 * stored / len(va))
    total = result["total"]
    assert list(total) == TOTAL_KEYS
    all_a, all_b = (np.concatenate([t[k] for t in expected.values()]) for k in (4, 5))
    error, cosine, _, _ = expected_figures(all_a, all_b)
    assert close(total["relative_squared_error"], error)
    assert close(total["cosine"], cosine)
    assert total["elements"] == len(all_a)
    assert total["source_bytes"] == (pair / "a" / "model.safetensors").stat().st_size
    on_disk = pair / FORMS["hct" if compressed else "file"].format(weighed)
    assert total["stored_bytes"] == on_disk.stat().st_size
    assert close(total["ratio"], total["source_bytes"] / total["stored_bytes"])
    assert close(total["bits_per_weight"], 8 * total["stored_bytes"] / len(all_a))


def test_grades_are_all_met():
    cosines = {n: expected_figures(va, vb)[1] for n, (*_, va, vb) in known_pair().items()}
    assert {grade(c) for c in cosines.values()} == {
        "Excellent",
        "Good",
        "Acceptable",
        "Degraded",
        "Poor",
    }


def test_compare_does_not_depend_on_threads(pair):
    outputs = {
        hct("compare", "--json", "-j", jobs, pair / "a", pair / "b.hct").stdout
        for jobs in (1, 2, 3, 7)
    }
    assert len(outputs) == 1


def test_compare_table(pair):
    lines = hct("compare", pair / "a", pair / "b.hct").stdout.splitlines()
    assert lines[0].split() == "ERROR COSINE PSNR MAX ERR GRADE BITS TENSOR".split()
    assert sum("same" in line for line in lines) == 1
    (worst,) = [line for line in lines if line.startswith("worst")]
    assert worst.endswith("f32.bad") and "Poor" in worst
    assert lines[-1].startswith("11 tensors: 1 bit-identical, 10 differ (")
    quiet = hct("compare", "-q", pair / "a", pair / "b.hct").stdout.splitlines()
    assert quiet == lines[-len(quiet) :] and len(quiet) == 4


def test_compare_of_equals(odd_model, odd_bundle, sharded_model, sharded_bundle):
    for a, b in ((odd_model, odd_bundle), (odd_bundle, odd_model), (odd_bundle, odd_bundle)):
        done = hct("compare", a, b)
        count = len(odd_tensors()) + 2
        assert done.stdout.splitlines()[-1] == f"{count} tensors, all bit-identical"
        assert done.stderr == ""
    result = hct_json("compare", sharded_model, sharded_bundle)
    assert {t["relative_squared_error"] for t in result["tensors"]} == {0}
    assert {t["psnr_db"] for t in result["tensors"]} == {None}
    assert {t["grade"] for t in result["tensors"]} == {"Excellent"}
    total = result["total"]
    assert total["relative_squared_error"] == 0 and total["cosine"] == 1
    assert total["stored_bytes"] == sum(p.stat().st_size for p in sharded_bundle.glob("*.safetensors.hct"))


def test_compare_of_other_shards(tmp_path, sharded_model, sharded_bundle):
    """Tensors are found wherever they lie; one shard is weighed alone."""
    merged = {}
    for shard in sorted(sharded_model.glob("*.safetensors")):
        data = shard.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        for name, tensor in json.loads(data[8 : 8 + length]).items():
            if name != "__metadata__":
                begin, end = (8 + length + at for at in tensor["data_offsets"])
                merged[name] = tensor["dtype"], tensor["shape"], data[begin:end]
    names = sorted(merged)
    make_safetensors(tmp_path / "all.safetensors", {n: merged[n] for n in names})
    done = hct("compare", tmp_path / "all.safetensors", sharded_bundle)
    assert done.stdout.endswith(f"{len(names)} tensors, all bit-identical\n")
    shard = sorted(sharded_model.glob("*.safetensors"))[0]
    result = hct_json("compare", shard, sharded_bundle, expect=EXIT_BAD_DATA)
    stored = sharded_bundle / f"{shard.name}.hct"
    assert result["total"]["stored_bytes"] == stored.stat().st_size
    assert result["total"]["source_bytes"] == shard.stat().st_size


def test_compare_by_value_of_other_dtypes(tmp_path):
    rng = np.random.default_rng(6)
    values = rng.standard_normal(300_000).astype("<f4")
    make_safetensors(tmp_path / "a.safetensors", {"w": ("F32", (300, 1000), values.tobytes())})
    make_safetensors(tmp_path / "b.safetensors", {"w": ("BF16", (300, 1000), bf16_bytes(values))})
    (tmp_path / "source").mkdir()
    shutil.copy(tmp_path / "b.safetensors", tmp_path / "source" / "b.safetensors")
    bundle = compress(tmp_path / "source", tmp_path / "b.hct")
    rounded = bf16_values(bf16_bytes(values))
    error, cosine, psnr, largest = expected_figures(values.astype(np.float64), rounded)
    for b in (tmp_path / "b.safetensors", bundle):
        (tensor,) = hct_json("compare", tmp_path / "a.safetensors", b)["tensors"]
        assert close(tensor["relative_squared_error"], error)
        assert close(tensor["cosine"], cosine)
        assert close(tensor["psnr_db"], psnr)
        assert tensor["max_abs_error"] == largest
        assert (tensor["dtype"], tensor["source_bytes"]) == ("F32", 1_200_000)
    assert "w (F32, BF16)" in hct("compare", tmp_path / "a.safetensors", bundle).stdout
    # The same numbers in another dtype are equal, but not bit-identical.
    exact = {"w": ("F32", (300, 1000), rounded.astype("<f4").tobytes())}
    make_safetensors(tmp_path / "c.safetensors", exact)
    done = hct("compare", bundle, tmp_path / "c.safetensors")
    assert done.stdout.endswith("1 tensor: 1 equal in value only\n")


def test_compare_of_what_is_no_number(tmp_path):
    def tensors(flag, nan):
        return {
            "bool": ("BOOL", (4,), bytes([0, 1, 1, 0])),
            "c64": ("C64", (2,), np.array([1 + 2j, 3 + 4j * flag], "<c8").tobytes()),
            "f4": ("F4", (4,), bytes([0x12, 0x34])),
            "nan": ("F32", (3,), np.array([1, nan, np.inf], "<f4").tobytes()),
            "none": ("F32", (0, 7), b""),
            "zero": ("F32", (2,), np.array([0.0, 0.0 if flag == 1 else -0.0], "<f4").tobytes()),
        }

    make_safetensors(tmp_path / "a.safetensors", tensors(1, np.nan))
    make_safetensors(tmp_path / "b.safetensors", tensors(2, np.nan))
    result = hct_json("compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    found = {t["name"]: t for t in result["tensors"]}
    errors = {name: t["relative_squared_error"] for name, t in found.items()}
    assert errors == {"bool": 0, "c64": None, "f4": 0, "nan": 0, "none": 0, "zero": 0}
    assert found["c64"]["grade"] == "Poor" and found["c64"]["cosine"] is None
    assert found["none"]["bits_per_weight"] == 0
    # What differs without a number leaves the total without one.
    assert result["total"]["relative_squared_error"] is None
    text = hct("compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors").stdout
    assert text.endswith("6 tensors: 4 bit-identical, 1 equal in value only, 1 differ (1 Poor)\n")
    make_safetensors(tmp_path / "c.safetensors", tensors(1, 5))
    (nan,) = [
        t
        for t in hct_json("compare", tmp_path / "a.safetensors", tmp_path / "c.safetensors")["tensors"]
        if t["name"] == "nan"
    ]
    assert nan["relative_squared_error"] is None and nan["grade"] == "Poor"


def test_compare_lists_what_cannot_be_compared(tmp_path):
    rng = np.random.default_rng(7)
    common = random_tensor(rng, "F32", (8, 8))
    a = {
        "common": common,
        "only.a": random_tensor(rng, "F32", (3,)),
        "shape": ("F32", (2, 8), common[2][:64]),
        "kind": ("F8_E8M0", (64,), common[2][:64]),
    }
    b = {
        "common": common,
        "only.b\x1b[31m": random_tensor(rng, "F32", (3,)),
        "shape": ("F32", (8, 2), common[2][:64]),
        "kind": ("U8", (64,), common[2][:64]),
    }
    make_safetensors(tmp_path / "a.safetensors", a)
    make_safetensors(tmp_path / "b.safetensors", b)
    done = hct(
        "compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors", expect=EXIT_BAD_DATA
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    for word in ("only.a", "only.b\\x1b[31m", "[2,8]", "F8_E8M0"):
        assert sum(word in line for line in lines) == 1
    assert done.stdout.endswith("1 tensor, all bit-identical; 4 not compared\n")
    result = hct_json(
        "compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors", expect=EXIT_BAD_DATA
    )
    assert [t["name"] for t in result["tensors"]] == ["common"]


def test_compare_with_one_name_in_two_files(tmp_path):
    """Files of the same path belong together, whatever their order."""
    rng = np.random.default_rng(8)
    for side, files in (("a", ("1", "2")), ("b", ("2", "1"))):
        for name in files:
            (tmp_path / side / name).mkdir(parents=True)
    for name in ("1", "2"):
        tensor = {"w": random_tensor(rng, "F32", (100,))}
        make_safetensors(tmp_path / "a" / name / "m.safetensors", tensor)
        make_safetensors(tmp_path / "b" / name / "m.safetensors", tensor)
    done = hct("compare", tmp_path / "a", tmp_path / "b")
    assert done.stdout.endswith("2 tensors, all bit-identical\n")
    # One of them moved: what is left over goes by name.
    (tmp_path / "b" / "2").rename(tmp_path / "b" / "0")
    done = hct("compare", tmp_path / "a", tmp_path / "b")
    assert done.stdout.endswith("2 tensors, all bit-identical\n")


def test_compare_with_a_damaged_side(tmp_path, sharded_model, sharded_bundle):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    shards = sorted(bundle.glob("*.safetensors.hct"))
    listing = hct_json("ls", shards[0])["files"][0]["tensors"]
    flip(shards[0], extents(shards[0])[0][0])
    done = hct("compare", sharded_model, bundle, expect=EXIT_BAD_DATA)
    assert f"'{listing[0]['name']}' cannot be read" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout.endswith("; 1 not compared\n")
    os.truncate(shards[1], 3000)
    done = hct("compare", sharded_model, bundle, expect=EXIT_BAD_DATA)
    assert shards[1].name in done.stderr
    for shard in shards:
        for offset, _ in extents(shard) if shard is not shards[1] else []:
            flip(shard, offset + 1)
    done = hct("compare", sharded_model, bundle, expect=EXIT_BAD_DATA)
    assert done.stdout.startswith("no tensor was compared; ") and done.stdout.count("\n") == 1
    # What is missing because a file does not open is counted, not listed.
    assert "is only in" not in done.stderr
    total = hct_json("compare", sharded_model, bundle, expect=EXIT_BAD_DATA)["total"]
    assert list(total) == TOTAL_KEYS and set(total.values()) == {None}
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "m.safetensors").write_bytes(b"\xff" * 100)
    done = hct("compare", sharded_model, broken, expect=EXIT_BAD_DATA)
    assert "m.safetensors" in done.stderr.splitlines()[0]
    (broken / "m.safetensors").unlink()
    done = hct("compare", sharded_model, broken, expect=EXIT_BAD_DATA)
    assert done.stderr.count("\n") == 1


def test_compare_totals_with_an_unreadable_tensor(tmp_path, sharded_model, sharded_bundle):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    before = hct_json("compare", sharded_model, bundle)
    shard = min(bundle.glob("*.safetensors.hct"))
    flip(shard, extents(shard)[0][0])
    after = hct_json("compare", sharded_model, bundle, expect=EXIT_BAD_DATA)
    assert len(after["tensors"]) == len(before["tensors"]) - 1
    assert after["total"] == before["total"]
    assert after["total"]["elements"] == sum(t["elements"] for t in before["tensors"])


def test_compare_lists_a_few_that_are_missing(tmp_path):
    tensors = {f"t{i}": ("U8", (4,), b"abcd") for i in range(20)}
    make_safetensors(tmp_path / "a.safetensors", tensors)
    make_safetensors(tmp_path / "b.safetensors", {"t3": tensors["t3"]})
    done = hct(
        "compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors", expect=EXIT_BAD_DATA
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 6 and lines[5] == "hct compare: ... and 14 more"
    assert done.stdout.endswith("1 tensor, all bit-identical; 19 not compared\n")


def test_compare_of_a_file_of_any_name(tmp_path, sharded_model):
    """A cache names files by their hash."""
    shard = sorted(sharded_model.glob("*.safetensors"))[0]
    shutil.copy(shard, tmp_path / "0a1b2c")
    done = hct("compare", tmp_path / "0a1b2c", shard)
    assert done.stdout.endswith("all bit-identical\n")
