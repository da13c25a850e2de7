"""mkhct and an unfinished bundle whose state was damaged, or forged."""

import json
import os
import random
import shutil
import struct

import pytest
import xxhash
from helpers import EXIT_BAD_DATA, EXIT_OK, EXIT_SYSTEM, MKHCT, run, tree_digests
from resume_tool import CHECKPOINT, edit, entry, files_of, plain, state, stop, two  # noqa: F401

LEDGER = ".hct/1.ledger"
PART = ".b.safetensors.hct.part"
SUB = {"name": "sub", "kind": "folder", "mode": 493, "status": "completed"}


@pytest.fixture(scope="module")
def left(two, tmp_path_factory):
    """An unfinished bundle.  Do not change it."""
    out = tmp_path_factory.mktemp("left") / "out"
    stop(two, out)
    return out


@pytest.fixture
def out(left, tmp_path):
    """In a folder of its own, besides which is a file that nothing may touch."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/victim.txt").write_text("keep me")
    yield shutil.copytree(left, tmp_path / "in/out", symlinks=True)
    assert sorted(os.listdir(tmp_path / "in")) in (["out", "victim.txt"], ["out", "victim.txt", "way"])
    assert (tmp_path / "in/victim.txt").read_text() == "keep me"


def survives(two, out, *options):
    """It ends by itself, with at most one line about what is wrong; True when all went well."""
    done = run(MKHCT, "-q", *options, two, out, expect=None, timeout=120)
    assert done.returncode in (EXIT_OK, EXIT_BAD_DATA, EXIT_SYSTEM), (done.returncode, done.stderr)
    lines = done.stderr.splitlines()
    assert all(line.startswith("mkhct: ") for line in lines), done.stderr
    errors = [line for line in lines if not line.startswith(("mkhct: warning", "mkhct: note"))]
    assert len(errors) == (done.returncode != 0), done.stderr
    return done.returncode == EXIT_OK


def restarts(two, out, plain):
    run(MKHCT, "-q", "--restart", two, out)
    assert files_of(out).items() >= files_of(plain).items()


def put_all(value, *keys):
    def change(document):
        for shard in document["shards"]:
            shard.update({key: value for key in keys})

    return change


def put(name, **values):
    return lambda document: entry(document, name).update(values)


WILD = [-1, 0.5, 1e300, 2**53, 2**63, 2**31, None, True, "x", [], {}, [[]], "9" * 5000]

FORGED = {
    "no object": lambda document: [1, 2, 3],
    "a number": lambda document: 7,
    "no list": lambda document: document.pop("shards") and None,
    "a list of numbers": lambda document: document.update(shards=[1, 2, 3, 4, 5]),
    "a list of lists": lambda document: document.update(shards=[[[]]] * 5),
    "nothing": lambda document: {},
    "no names": put_all(None, "name"),
    "names up": put_all("../victim.txt", "name"),
    "an entry more": lambda document: document["shards"].append({}),
    "an entry more, named": lambda document: document["shards"].append({"name": "../x"}),
    "an entry less": lambda document: document["shards"].pop() and None,
    "many entries": lambda document: document.update(shards=[{}] * 200000),
    "many words": lambda document: document.update(words=["--lossless"] * 99999),
    "too many words": lambda document: document.update(words=["-q"] * 100001),
    "words that are no options": lambda document: document.update(words=["SRC", "-V", "--help"]),
    "words that end the options": lambda document: document.update(words=["--"]),
    "words that are none": lambda document: document.update(words=[1, {}, None]),
    "words of OUT": lambda document: document.update(words=["--log=../victim.txt", "-f"]),
    "options are a list": lambda document: document.update(options=[1, [2]]),
    "options are text": lambda document: document.update(options="mkhct: \n\x1b[31m" * 100),
    "an option with a long name": lambda document: document.update(options={"x\n" * 9999: 1}),
    "no version": lambda document: document.pop("version") and None,
    "versions that are none": lambda document: document.update(version="x", tool_version=[1]),
    "a tool of many digits": lambda document: document.update(tool_version="9" * 100000),
    "deep": lambda document: document.update(options=json.loads("[" * 900 + "]" * 900)),
    "no manifest": lambda document: document.pop("manifest") and None,
    "no statistics": lambda document: document.update(statistics=[[1], 2]),
    "another stage": lambda document: document.update(stage="naming"),
    "a report that is a list": put("a.safetensors", report=[[]]),
    "a report of nothing": put("a.safetensors", report={}),
    "a report of a folder": put("a.safetensors", report={"name": "x"}),
    "no report": put("a.safetensors", report=None),
    "all is done": put_all("completed", "status"),
    "all is begun": put_all("in_progress", "status"),
    "all is another's": put_all("skipped", "status"),
    "a status that is none": put_all("?", "status"),
    "errors of errors": put_all([[]], "errors", "reasons"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_checkpoint(two, out, plain, name):
    edit(out, FORGED[name])
    # With options given, those of the checkpoint are not asked.
    if not survives(two, out) and not survives(two, out, "--effort=5"):
        restarts(two, out, plain)


@pytest.mark.parametrize("wild", range(len(WILD)))
def test_wild_values(two, out, left, wild):
    for key in ("bytes", "ledger_bytes", "size", "mtime", "status", "report", "part", "kind", "mode",
                "header_xxh3", "tensors", "name_hex"):  # fmt: skip
        edit(out, put("b.safetensors", **{key: WILD[wild]}))
        survives(two, out)
        shutil.rmtree(out)
        shutil.copytree(left, out)


@pytest.mark.parametrize("wild", range(len(WILD)))
def test_wild_values_of_a_copy(two, out, plain, left, wild):
    for key in "bytes", "bytes_xxh3", "status":
        values = {"status": "in_progress", "bytes": 2, "bytes_xxh3": "0" * 16, key: WILD[wild]}
        edit(out, put("config.json", **values))
        (out / ".config.json.part").write_text("{}}}")
        if survives(two, out) and key != "status":
            assert files_of(out).items() >= files_of(plain).items()
        shutil.rmtree(out)
        shutil.copytree(left, out)


@pytest.mark.parametrize("part", ["../victim.txt", "/tmp/x", "way/.victim.txt.part", "config.json",
                                  ".hct/checkpoint.json", "sub/.b.safetensors.hct.part", "."])  # fmt: skip
def test_part_file_somewhere_else(two, out, plain, part):
    """What is not the part file of its own file is not taken for it."""
    (out.parent / "way").mkdir()
    (out / "way").symlink_to(out.parent / "way")
    edit(out, put("b.safetensors", part={"name": part}))
    assert survives(two, out)
    assert files_of(out).items() >= files_of(plain).items()
    assert not list((out.parent / "way").iterdir())


@pytest.mark.parametrize("name", ["../victim.txt", "way/victim.txt"])
def test_manifest_that_leads_outside(two, out, plain, name):
    """--restart removes what the checkpoint lists."""
    (out.parent / "way").mkdir()
    (out.parent / "way/victim.txt").write_text("keep me")
    (out / "way").symlink_to(out.parent / "way")

    def change(document):
        for kind in ("parts", "files", "folders"):
            document["manifest"][kind] += [{"name": name}, {"name": "way"}]

    edit(out, change)
    restarts(two, out, plain)
    assert (out.parent / "way/victim.txt").read_text() == "keep me"


def test_finish_that_leads_outside(two, tmp_path):
    """A file in a folder that is a link, and that is not listed as a folder."""
    out, way = tmp_path / "out", tmp_path / "way"
    run(MKHCT, "-q", "--shards=1/1", two, out)
    way.mkdir()
    name = ".hct/checkpoint-1-of-1.json"

    def change(document):
        document["shards"] = [s for s in document["shards"] if s["name"] != "sub"]

    edit(out, change, name)
    shutil.move(out / "sub/.notes.txt.part", way / ".notes.txt.part")
    (out / "sub").rmdir()
    (out / "sub").symlink_to(way)
    done = run(MKHCT, "--finish", out, expect=EXIT_BAD_DATA)
    assert "its checkpoint is damaged" in done.stderr
    assert os.listdir(way) == [".notes.txt.part"]
    # With the folder in the list, it is no folder.
    edit(out, lambda d: d["shards"].insert(-1, dict(SUB)), name)
    done = run(MKHCT, "--finish", out, expect=EXIT_SYSTEM)
    assert "sub: stands where a folder must be" in done.stderr
    assert os.listdir(way) == [".notes.txt.part"]


@pytest.mark.parametrize("what", [CHECKPOINT, LEDGER, PART, ".hct/lock"])
def test_something_else_in_their_place(two, out, plain, what):
    for make in (lambda path: path.mkdir(), lambda path: os.mkfifo(path),
                 lambda path: path.symlink_to(out.parent / "victim.txt")):  # fmt: skip
        path = out / what
        path.unlink()
        make(path)
        survives(two, out)
        survives(two, out, "--restart")
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(b"")
    if (out / CHECKPOINT).exists():
        restarts(two, out, plain)
    assert files_of(out).items() >= files_of(plain).items()


def mutate(rng, blob):
    blob = bytearray(blob)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(blob))
        kind = rng.randrange(6)
        if kind == 0:
            blob[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            blob[at] = rng.randrange(256)
        elif kind == 2:
            del blob[at : at + rng.choice((1, 10, 1000))]
        elif kind == 3:
            blob[at:at] = blob[at : at + rng.choice((1, 10, 1000))]
        elif kind == 4:
            del blob[at:]
        else:
            blob[at:at] = rng.choice((b"null", b"[", b"}", b"1e999", b"-1", b'"', b"\\u0000", b"\0"))
        if not blob:
            break
    return bytes(blob)


def seal(blob):
    """The records of a ledger, with checksums that are right."""
    blob, at = bytearray(blob), 0
    while at + 12 <= len(blob):
        (length,) = struct.unpack_from("<I", blob, at)
        body = bytes(blob[at + 12 : at + 12 + length])
        struct.pack_into("<Q", blob, at + 4, xxhash.xxh3_64_intdigest(body))
        at += 12 + length
    return bytes(blob)


@pytest.mark.parametrize("what", [CHECKPOINT, LEDGER, "sealed"])
def test_mutations(two, out, left, what):
    """HCT_MUTATIONS says how many."""
    rng = random.Random(what)
    path = LEDGER if what == "sealed" else what
    good = (left / path).read_bytes()
    before = tree_digests(two)
    for _ in range(int(os.environ.get("HCT_MUTATIONS", 40))):
        bad = mutate(rng, good)
        if what == "sealed":
            bad = seal(bad)
            document = state(left)
            entry(document, "b.safetensors")["ledger_bytes"] = len(bad)
            (out / CHECKPOINT).write_text(json.dumps(document))
        (out / path).write_bytes(bad)
        try:
            survives(two, out)
        except BaseException:
            (out.parent / "bad").write_bytes(bad)
            raise
        shutil.rmtree(out)
        shutil.copytree(left, out)
    assert tree_digests(two) == before
