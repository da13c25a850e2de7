"""mkhct: everything that people feed it, and --include and --exclude."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import (
    DTYPE_BITS,
    EXIT_BAD_DATA,
    EXIT_SYSTEM,
    EXIT_USAGE,
    HCT,
    MKHCT,
    compress,
    is_sanitized,
    make_safetensors,
    make_sharded_model,
    peak_memory,
    random_tensor,
    run,
    sha256,
    tree_digests,
)
from mkhct_tool import listing, refuse, same_after_extract, small_tensors
from safetensors.numpy import load_file


def notes(done):
    return [line for line in done.stderr.splitlines() if line.startswith("mkhct: note: ")]


# --include and --exclude ---------------------------------------------------------------


def mixed_model(folder):
    """Weights in several formats, at the top and in subfolders."""
    (folder / "onnx").mkdir(parents=True)
    make_safetensors(folder / "model.safetensors", small_tensors())
    make_safetensors(folder / "onnx" / "decoder.safetensors", small_tensors(6))
    (folder / "config.json").write_text("{}\n")
    (folder / "pytorch_model.bin").write_bytes(bytes(3 << 20))
    (folder / "onnx" / "model.onnx").write_bytes(bytes(2 << 20))
    (folder / "onnx" / "notes.txt").write_text("notes\n")
    return folder


@pytest.fixture
def mixed(tmp_path):
    return mixed_model(tmp_path / "mixed")


EVERYTHING = ["config.json", "model.safetensors.hct", "onnx", "onnx/decoder.safetensors.hct",
              "onnx/model.onnx", "onnx/notes.txt", "pytorch_model.bin"]  # fmt: skip


@pytest.mark.parametrize(
    "options, missing",
    [
        ([], []),
        (["--exclude=*.bin"], ["pytorch_model.bin"]),
        (["--exclude", "*.bin", "--exclude", "*.onnx"], ["pytorch_model.bin", "onnx/model.onnx"]),
        (["--exclude=onnx"], ["onnx", "onnx/decoder.safetensors.hct", "onnx/model.onnx",
                              "onnx/notes.txt"]),
        (["--exclude=onnx/*"], ["onnx/decoder.safetensors.hct", "onnx/model.onnx",
                                "onnx/notes.txt"]),
        (["--exclude=decoder.safetensors"], ["onnx/decoder.safetensors.hct"]),
        (["--exclude=*", "--include=*.safetensors"],
         ["config.json", "onnx/model.onnx", "onnx/notes.txt", "pytorch_model.bin"]),
        (["--include=*.json", "--include=model.*", "--exclude=*.onnx"],
         ["onnx", "onnx/decoder.safetensors.hct", "onnx/model.onnx", "onnx/notes.txt",
          "pytorch_model.bin"]),
    ],
)  # fmt: skip
def test_selections(mixed, tmp_path, options, missing):
    out = compress(mixed, tmp_path / "out", *options)
    there = [name for name in listing(out) if not name.startswith(".hct")]
    assert there == [name for name in EVERYTHING if name not in missing]
    again = compress(mixed, tmp_path / "again", "-j7", *options)
    for bundle in (out, again):
        shutil.rmtree(bundle / ".hct")
    assert tree_digests(out) == tree_digests(again)


def test_selections_that_are_refused(mixed, sharded_model, tmp_path):
    out = tmp_path / "out"
    refuse(mixed, out, "--exclude=*.bim", code=EXIT_USAGE, match=r"--exclude \*.bim: matches no")
    refuse(mixed, out, "--include=", code=EXIT_USAGE, match="--include")
    refuse(mixed, out, "--exclude=*.safetensors", code=EXIT_USAGE,
           match="leave no .safetensors file")  # fmt: skip
    refuse(mixed / "model.safetensors", out, "--exclude=model*", code=EXIT_USAGE,
           match="leave no .safetensors file")  # fmt: skip
    shard = "model-00002-of-00003.safetensors"
    refuse(sharded_model, out, "--exclude", shard, code=EXIT_USAGE,
           match=f"model.safetensors.index.json: names the shard {shard}, which --ex")  # fmt: skip
    compress(sharded_model, out, "--exclude", shard, "--exclude=*.index.json")
    assert f"{shard}.hct" not in listing(out)


# The same weights in other formats -----------------------------------------------------


def test_other_formats_are_carried_with_a_note(mixed, tmp_path):
    done = run(MKHCT, "--lossless", mixed, tmp_path / "out")
    assert notes(done) == [
        "mkhct: note: the bundle takes along 1 .bin file as it is (3.00 MiB); "
        "--exclude '*.bin' leaves it out",
        "mkhct: note: the bundle takes along 1 .onnx file as it is (2.00 MiB); "
        "--exclude '*.onnx' leaves it out",
    ]
    same_after_extract(mixed, tmp_path / "out", tmp_path)
    done = run(MKHCT, "--lossless", "--exclude=*.bin", mixed, tmp_path / "less")
    assert len(notes(done)) == 1
    assert run(MKHCT, "--lossless", "-q", mixed, tmp_path / "quiet").stderr == ""


@pytest.mark.parametrize(
    "name, how",
    [("pytorch_model.bin", "convert it .*import BertForMaskedLM as M"),
     ("model.pt", "convert it .*torch.load"), ("model.pth", "convert it .*torch.load"),
     ("model.ckpt", "convert it .*torch.load"), ("model.gguf", "convert it .*gguf_file"),
     ("onnx/model.onnx", "nothing converts it to safetensors and keeps the names"),
     ("tf_model.h5", "convert it .*import BertForMaskedLM as M.*from_tf=True"),
     ("flax_model.msgpack", "convert it .*from_flax=True"), ("weights.npz", "convert it .*numpy")],
)  # fmt: skip
def test_only_another_format(tmp_path, name, how):
    source = tmp_path / "source"
    (source / name).parent.mkdir(parents=True)
    (source / "config.json").write_text('{"architectures": ["BertForMaskedLM"]}')
    (source / name).write_bytes(b"x")
    refuse(source, tmp_path / "out", code=EXIT_BAD_DATA,
           match=f"no .safetensors file, but {name}; {how}")  # fmt: skip


def follow_hint(source, out, weights):
    """Converts with the command that mkhct prints, and compresses with the options it names."""
    text = refuse(source, out, code=EXIT_BAD_DATA, match="convert it to safetensors first")
    command, then = re.search(r"safetensors first[^:]*: (.*); then (--exclude .*)$", text).groups()
    python = f'"{sys.executable}" -c'
    command = command.replace("python3 -c", python).replace("DIR", str(source))
    command = command.replace("FILE", str(source / weights))
    subprocess.run(["bash", "-c", command], check=True)
    subprocess.run(["bash", "-c", f"'{MKHCT}' --lossless -q {then} {source} {out}"], check=True)
    run(HCT, "extract", out, out.with_name("back"))
    return out.with_name("back")


def test_hint_for_npz(tmp_path):
    """Also of an array in the order of Fortran, and of one without dimensions."""
    source = tmp_path / "source"
    source.mkdir()
    arrays = {"a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.eye(2, 3)),
              "s": np.float32(3)}  # fmt: skip
    np.savez(source / "weights.npz", **arrays)
    back = follow_hint(source, tmp_path / "out", "weights.npz")
    assert os.listdir(back) == ["model.safetensors"]
    found = load_file(back / "model.safetensors")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("shards", [1, 2])
def test_hint_for_state_dicts(tmp_path, shards):
    """With tied weights, transposed ones, and what is no tensor."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load_torch

    source = tmp_path / "source"
    source.mkdir()
    table = torch.arange(4096.0, dtype=torch.bfloat16).reshape(64, 64)
    state = {"embed.weight": table, "t.weight": table.t(), "lm_head.weight": table,
             "half": table[:32]}  # fmt: skip
    for i in range(shards):
        part = {name: state[name] for name in list(state)[i::shards]}
        name = "last.ckpt" if shards == 1 else f"model-{i + 1}-of-{shards}.ckpt"
        torch.save({"epoch": 3, "state_dict": part}, source / name)
    back = follow_hint(source, tmp_path / "out", "last.ckpt")
    found = {}
    for path in back.iterdir():
        found |= load_torch(path)
    assert set(found) == set(state)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("name", ["model.safetensors.gz", "model.tar", "model.safetensors.zst"])
def test_packed_with_something_else(tmp_path, name):
    source = tmp_path / "source"
    source.mkdir()
    (source / name).write_bytes(b"x")
    refuse(source, tmp_path / "out", code=EXIT_BAD_DATA, match=f"but {name}; unpack it first")


# Shards --------------------------------------------------------------------------------


def test_shards_without_an_index(tmp_path):
    source = make_sharded_model(tmp_path / "source")
    (source / "model.safetensors.index.json").unlink()
    done = run(MKHCT, "--lossless", source, tmp_path / "out")
    assert notes(done) == []
    same_after_extract(source, tmp_path / "out", tmp_path)


def test_missing_shard_without_an_index(tmp_path):
    """An unfinished download, unless it is wanted that way."""
    source = make_sharded_model(tmp_path / "source")
    (source / "model.safetensors.index.json").unlink()
    gone = "model-00003-of-00003.safetensors"
    (source / gone).unlink()
    out = tmp_path / "out"
    text = refuse(source, out, code=EXIT_SYSTEM,
                  match=f"00002-of-00003.*: is there, and its shard {gone}")  # fmt: skip
    refuse(source, out, "--exclude=*.json", code=EXIT_SYSTEM, match=f"shard {gone} is not")
    refuse(source, out, "--include=*.safetensors", code=EXIT_SYSTEM, match=f"shard {gone} is not")
    option, pattern = re.search(r"(--exclude) (\S+) to go without", text).groups()
    compress(source, out, option, pattern)
    compress(source, tmp_path / "one", "--include=model-00001*")
    compress(source / "model-00001-of-00003.safetensors", tmp_path / "file")
    compress(tmp_path / "one", tmp_path / "never", "--include=model-00001*")
    refuse(tmp_path / "one", tmp_path / "no", code=EXIT_SYSTEM, match="00002-of-00003.* is not;")


def test_same_tensor_in_two_shards_without_an_index(tmp_path):
    source = make_sharded_model(tmp_path / "source")
    (source / "model.safetensors.index.json").unlink()
    twice = {"model.layers.0.mlp.up_proj.weight":
             random_tensor(np.random.default_rng(9), "BF16", (128, 256))}  # fmt: skip
    make_safetensors(source / "model-00003-of-00003.safetensors", twice)
    done = run(MKHCT, "--lossless", "--json", source, tmp_path / "out")
    (note,) = notes(done)
    assert "1 tensor lies in two files without an index" in note
    assert twice.keys() == {re.search(r"\((\S+) in model-0000\S+ and model-00003", note)[1]}
    events = [json.loads(line) for line in done.stdout.splitlines()]
    said = [e for e in events if e["event"] == "note"]
    assert len(said) == 1 and "two files without an index" in json.dumps(said)
    same_after_extract(source, tmp_path / "out", tmp_path)


def test_copies_of_the_whole_model(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("model", "model.fp16"):
        make_safetensors(source / f"{name}.safetensors", small_tensors())
    (note,) = notes(run(MKHCT, "--lossless", source, tmp_path / "out"))
    assert "model.fp16.safetensors seems to be another copy of the model in model.saf" in note
    same_after_extract(source, tmp_path / "out", tmp_path)
    option, pattern = re.search(r"(--exclude) '(\S+)' leaves", note).groups()
    assert notes(run(MKHCT, "--lossless", option, pattern, source, tmp_path / "less")) == []


def test_shards_that_agree_with_their_index(sharded_model, tmp_path):
    assert notes(run(MKHCT, "--lossless", sharded_model, tmp_path / "out")) == []


@pytest.mark.parametrize("target", ["--lossless", "--retention=.7"])
def test_same_tensor_in_two_shards(tmp_path, target):
    source = make_sharded_model(tmp_path / "source")
    rng = np.random.default_rng(9)
    twice = {"model.layers.0.mlp.up_proj.weight": random_tensor(rng, "BF16", (128, 256)),
             "only.here": random_tensor(rng, "BF16", (64,))}  # fmt: skip
    make_safetensors(source / "model-00003-of-00003.safetensors", twice)
    done = run(MKHCT, target, source, tmp_path / "out")
    (note,) = notes(done)
    assert "2 tensors lie in a shard that it does not give for them" in note
    if target == "--lossless":
        same_after_extract(source, tmp_path / "out", tmp_path)
    shown = run(HCT, "ls", tmp_path / "out" / "model-00003-of-00003.safetensors.hct").stdout
    assert all(name in shown for name in twice)


def test_tied_weights(tmp_path):
    """The same values under two names, and a name that only the index has."""
    source = tmp_path / "source"
    source.mkdir()
    tensors = small_tensors()
    tensors["lm_head.weight"] = tensors["a.weight"]
    make_safetensors(source / "model.safetensors", tensors)
    (source / "config.json").write_text('{"tie_word_embeddings": true}')
    out = compress(source, tmp_path / "out")
    same_after_extract(source, out, tmp_path)
    names = {name: "model.safetensors" for name in [*tensors, "tied.weight"]}
    index = {"metadata": {}, "weight_map": names}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    done = run(MKHCT, "--lossless", source, tmp_path / "again")
    (note,) = notes(done)
    assert "names 1 tensor that the shards do not hold" in note
    same_after_extract(source, tmp_path / "again", tmp_path)


# Folders -------------------------------------------------------------------------------


def test_diffusers_layout(tmp_path):
    source = tmp_path / "source"
    parts = {"unet": "diffusion_pytorch_model.safetensors",
             "vae": "diffusion_pytorch_model.safetensors",
             "text_encoder": "model.safetensors"}  # fmt: skip
    for seed, (part, name) in enumerate(parts.items()):
        (source / part).mkdir(parents=True)
        make_safetensors(source / part / name, small_tensors(seed))
        (source / part / "config.json").write_text(json.dumps({"num_hidden_layers": 3 + seed}))
    (source / "scheduler").mkdir()
    (source / "scheduler" / "scheduler_config.json").write_text("{}")
    (source / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    out = compress(source, tmp_path / "out")
    for part, name in parts.items():
        assert (out / part / f"{name}.hct").exists()
        assert not (out / part / name).exists()
    same_after_extract(source, out, tmp_path)
    run(MKHCT, "--retention=.7", "-q", source, tmp_path / "lossy")
    report = json.loads((tmp_path / "lossy" / ".hct" / "report.json").read_text())
    kinds = {file["name"]: file["kind"] for file in report["files"]}
    assert all(kinds[f"{part}/{name}"] == "model" for part, name in parts.items())


def test_read_only_source(mixed, tmp_path):
    expected = tree_digests(mixed)
    times = {name: (mixed / name).stat().st_mtime_ns for name in expected}
    for folder, _, names in os.walk(mixed, topdown=False):
        for name in names:
            os.chmod(os.path.join(folder, name), 0o444)
        os.chmod(folder, 0o555)
    try:
        out = compress(mixed, tmp_path / "out")
        assert {name: (mixed / name).stat().st_mtime_ns for name in expected} == times
        same_after_extract(mixed, out, tmp_path)
        assert (out / "model.safetensors.hct").stat().st_mode & 0o777 == 0o444
        shutil.rmtree(out)
    finally:
        for folder, _, _ in os.walk(mixed):
            os.chmod(folder, 0o755)


@pytest.mark.root
def test_source_on_a_read_only_mount(mixed, tmp_path):
    done = subprocess.run(["mount", "--bind", mixed, mixed], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", mixed], check=True)
        same_after_extract(mixed, compress(mixed, tmp_path / "out"), tmp_path)
    finally:
        subprocess.run(["umount", mixed], check=True)


def test_loop_of_links_that_is_left_out(mixed, tmp_path):
    (mixed / "onnx" / "up").symlink_to("..")
    refuse(mixed, tmp_path / "out", code=EXIT_BAD_DATA, match="onnx/up: a symlink to a folder")
    out = compress(mixed, tmp_path / "out", "--exclude=up")
    assert "onnx/up" not in listing(out)


# config.json ---------------------------------------------------------------------------


@pytest.mark.parametrize("config", ["missing", "broken", "hostile", "huge", "folder", "link"])
@pytest.mark.parametrize("target", ["--lossless", "--retention=.7", "--policy=hybrid"])
def test_config_that_is_none(mixed, tmp_path, config, target):
    path = mixed / "config.json"
    path.unlink()
    if config == "broken":
        path.write_text('{"num_hidden_layers": 3,')
    elif config == "hostile":
        path.write_text(json.dumps({"num_hidden_layers": -1e300, "model_type": ["x"] * 1000}))
    elif config == "huge":
        path.write_bytes(b" " * (17 << 20))
    elif config == "folder":
        path.mkdir()
    elif config == "link":
        (mixed / "elsewhere").write_bytes(b"\xff\x00")
        path.symlink_to("elsewhere")
    out = tmp_path / "out"
    done = run(MKHCT, target, mixed, out)
    said = {"broken": "is no JSON, so", "huge": "is larger than 16 MiB, so",
            "link": "is not UTF-8, so"}.get(config)  # fmt: skip
    assert [said in note for note in notes(done) if "config.json" in note] == [True] * bool(said)
    if target == "--lossless":
        same_after_extract(mixed, out, tmp_path)
        assert path.is_dir() == (out / "config.json").is_dir()
    run(HCT, "check", out)


# Tensors -------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["--lossless", "--retention=.6"])
def test_unusual_dtypes(tmp_path, target):
    rng = np.random.default_rng(4)
    source = make_safetensors(tmp_path / "m.safetensors", {
        f"{dtype}.{shape}": random_tensor(rng, dtype, shape)
        for dtype in DTYPE_BITS for shape in ((), (0,), (2, 0, 3), (6, 40), (300, 128))
        if int(np.prod(shape)) * DTYPE_BITS[dtype] % 8 == 0
    })  # fmt: skip
    run(MKHCT, "-q", target, source, tmp_path / "out")
    run(HCT, "extract", tmp_path / "out", tmp_path / "back")
    back = tmp_path / "back" / "m.safetensors"
    if target == "--lossless":
        assert sha256(back) == sha256(source)
    length = int.from_bytes(source.read_bytes()[:8], "little")
    assert back.read_bytes()[: 8 + length] == source.read_bytes()[: 8 + length]
    assert back.stat().st_size == source.stat().st_size


def test_what_does_not_shrink(tmp_path):
    """Weights that were quantised and packed already."""
    rng = np.random.default_rng(4)
    source = make_safetensors(tmp_path / "m.safetensors", {
        f"layers.{i}.qweight": ("I32", (512, 1024), rng.bytes(4 * 512 * 1024)) for i in range(4)
    })  # fmt: skip
    for target in ("--lossless", "--retention=.6"):
        out = tmp_path / target
        run(MKHCT, "-q", target, source, out)
        assert (out / "m.safetensors.hct").stat().st_size < source.stat().st_size + 8192
        run(HCT, "extract", out, tmp_path / "back")
        assert sha256(tmp_path / "back" / "m.safetensors") == sha256(source)
        shutil.rmtree(tmp_path / "back")


def test_names_of_4_kib(tmp_path):
    rng = np.random.default_rng(4)
    names = ["n" * 4096, "é" * 2048, "." * 4096, "a/" * 2048, "x" * 65536]
    source = tmp_path / "source"
    source.mkdir()
    make_safetensors(source / "m.safetensors",
                     {name: random_tensor(rng, "BF16", (40, 30)) for name in names})  # fmt: skip
    for target in ("--lossless", "--retention=.7"):
        out = tmp_path / target
        done = run(MKHCT, "-v", target, "--keep", "n" * 4096, source, out)
        assert done.returncode == 0
        report = json.loads((out / ".hct" / "report.json").read_text())
        (file,) = report["files"]
        assert {tensor["name"] for tensor in file["tensor_list"]} == set(names)
        shown = json.loads(run(HCT, "ls", "--json", out / "m.safetensors.hct").stdout)
        assert "n" * 4096 in json.dumps(shown)
    same_after_extract(source, tmp_path / "--lossless", tmp_path)


def test_100_000_small_tensors(tmp_path):
    rng = np.random.default_rng(4)
    data = random_tensor(rng, "BF16", (100_000, 8))[2]
    source = make_safetensors(tmp_path / "m.safetensors", {
        f"model.layers.{i // 100}.experts.{i % 100}.weight":
            ("BF16", (2, 4), data[16 * i : 16 * i + 16]) for i in range(100_000)
    })  # fmt: skip
    for target in ("--lossless", "--retention=.7"):
        out = tmp_path / target
        started = time.monotonic()
        peak = peak_memory(MKHCT, "-q", target, source, out)
        if not is_sanitized():
            assert time.monotonic() - started < 60
            assert peak < 400 << 20
    run(HCT, "check", tmp_path / "--retention=.7")
    run(HCT, "extract", tmp_path / "--lossless", tmp_path / "back")
    assert sha256(tmp_path / "back" / "m.safetensors") == sha256(source)


# Mounts that hiccup --------------------------------------------------------------------

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of the files below $HICCUP_IN each HICCUP_EVERY-th opening and reading fails HICCUP_RUN times
 * in a row. */
static int hiccup(int fd, const char *path)
{
	static __thread int calls, left;
	char link[64], name[4096];
	const char *in = getenv("HICCUP_IN");
	ssize_t n;

	if (!path) {
		char *digits = link + sizeof(link) - 1;
		*digits = 0;
		do
			*--digits = (char)('0' + fd % 10);
		while (fd /= 10);
		memmove(link + 14, digits, strlen(digits) + 1);
		memcpy(link, "/proc/self/fd/", 14);
		n = readlink(link, name, sizeof(name) - 1);
		if (n < 0)
			return 0;
		name[n] = 0;
		path = name;
	}
	if (strncmp(path, in, strlen(in)) != 0)
		return 0;
	if (left > 0) {
		left--;
		return 1;
	}
	if (++calls % atoi(getenv("HICCUP_EVERY")) == 0)
		left = atoi(getenv("HICCUP_RUN")) - 1;
	else
		return 0;
	return 1;
}

static int open_it(const char *symbol, const char *path, int flags, int mode)
{
	int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, symbol);

	if (hiccup(-1, path)) {
		errno = EIO;
		return -1;
	}
	return real(path, flags, mode);
}

#define OPEN(name) \
	int name(const char *path, int flags, ...) \
	{ \
		va_list ap; \
		va_start(ap, flags); \
		int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0; \
		va_end(ap); \
		return open_it(#name, path, flags, mode); \
	}
OPEN(open)
OPEN(open64)

#define PREAD(name) \
	ssize_t name(int fd, void *buf, size_t n, off_t at) \
	{ \
		ssize_t (*real)(int, void *, size_t, off_t) = \
			(ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, #name); \
		if (hiccup(fd, NULL)) { \
			errno = EIO; \
			return -1; \
		} \
		return real(fd, buf, n, at); \
	}
PREAD(pread)
PREAD(pread64)

ssize_t copy_file_range(int in, off_t *a, int out, off_t *b, size_t n, unsigned flags)
{
	(void)in, (void)a, (void)out, (void)b, (void)n, (void)flags;
	errno = EIO;
	return -1;
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    run(compiler, "-shared", "-fPIC", "-O1", "-o", folder / "shim.so", folder / "shim.c", "-ldl")
    return folder / "shim.so"


def hiccups(shim, folder, every, count):
    return {"LD_PRELOAD": str(shim), "HICCUP_IN": str(folder), "HICCUP_EVERY": str(every),
            "HICCUP_RUN": str(count), "ASAN_OPTIONS": "verify_asan_link_order=0"}  # fmt: skip


def test_mount_that_hiccups(mixed, shim, tmp_path):
    """Each fifth opening or reading fails twice in a row, with EIO."""
    run(MKHCT, "--lossless", "-q", mixed, tmp_path / "out", env=hiccups(shim, mixed, 5, 2))
    same_after_extract(mixed, tmp_path / "out", tmp_path)


def test_mount_that_fails(mixed, shim, tmp_path):
    done = run(MKHCT, "--lossless", "-q", mixed, tmp_path / "out", expect=EXIT_SYSTEM,
               env=hiccups(shim, mixed, 1, 1000))  # fmt: skip
    assert "Input/output error" in done.stderr
    assert not (tmp_path / "out").exists()
