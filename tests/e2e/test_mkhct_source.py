"""mkhct: sources that are odd or refused."""

import json
import os
import re
import shutil
import stat
import subprocess

import pytest
from helpers import (
    EXIT_BAD_DATA,
    EXIT_SYSTEM,
    MKHCT,
    compress,
    make_safetensors,
    write_safetensors,
)
from mkhct_tool import refuse, same_after_extract, small_tensors


def test_names_that_are_too_long_with_suffix(model, tmp_path):
    name = "n" * (255 - len(".safetensors")) + ".safetensors"
    long = make_safetensors(model / name, small_tensors())
    refuse(model, tmp_path / "out", code=EXIT_BAD_DATA, match=r"n\.safetensors: .* room for \.hct")
    refuse(long, tmp_path / "out", code=EXIT_BAD_DATA, match="room for .hct")
    long.rename(model / name[4:])
    same_after_extract(model, compress(model, tmp_path / "out"), tmp_path)


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


@pytest.mark.parametrize(
    "content, match",
    [("<!DOCTYPE html>\n<html><head>" + 99 * "x", "a web page and not the weights; download"),
     ("\n  <!doctype HTML>", "a web page"), ("<html lang='en'>", "a web page"),
     ("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a server's message"),
     ('{"error":"Repository not found"}', "a server's message"),
     ("Entry not found", "a server's message"),
     ("Access to model a/b is restricted.", "a server's message")],
)  # fmt: skip
def test_what_a_failed_download_leaves(model, tmp_path, content, match):
    (model / "z.safetensors").write_text(content)
    refuse(model, tmp_path / "out", code=EXIT_BAD_DATA, match=f"z.safetensors: {match}")


@pytest.mark.parametrize("content", [b"", b"\1\2\3", os.urandom(100_000)])
def test_no_safetensors_file_behind_the_name(model, tmp_path, content):
    (model / "z.safetensors").write_bytes(content)
    refuse(model, tmp_path / "out", code=EXIT_BAD_DATA, match="z.safetensors: ")


def test_git_lfs_pointer(model, tmp_path):
    (model / "z.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")  # fmt: skip
    refuse(model, tmp_path / "out", code=EXIT_BAD_DATA, match="git lfs pull.*hf download")


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


def test_whole_folder_of_a_cache(model, tmp_path):
    """What it names instead is right."""
    entry = tmp_path / "models--org--name"
    snapshot = entry / "snapshots" / "0123abcd"
    for folder in (entry / "blobs", entry / "refs", snapshot / "sub"):
        folder.mkdir(parents=True)
    (entry / "refs" / "main").write_text("0123abcd")
    for i, file in enumerate(sorted(p for p in model.rglob("*") if p.is_file())):
        shutil.copy(file, entry / "blobs" / f"b{i}")
        (snapshot / file.relative_to(model)).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / file.relative_to(model)).symlink_to(entry / "blobs" / f"b{i}")
    text = refuse(entry, tmp_path / "out", code=EXIT_BAD_DATA, match="cache of Hugging Face")
    named = re.search(r"; give (\S+)$", text)[1]
    assert named == str(snapshot)
    same_after_extract(snapshot, compress(named, tmp_path / "out"), tmp_path)


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
    refuse(model, out, code=EXIT_SYSTEM, match="sub/odd: a symlink that leads back .*; rem")
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
