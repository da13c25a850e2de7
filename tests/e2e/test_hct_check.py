"""hct check: damage is found, named and told from what the system refuses."""

import json
import os
import shutil

import numpy as np
import pytest
from hct_tool import copy_bundle, extents, flip, hct, hct_json
from helpers import EXIT_BAD_DATA, EXIT_SYSTEM, HCT, compress, make_safetensors, run


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
