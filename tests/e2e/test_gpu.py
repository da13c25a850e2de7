"""hctfs --gpu: a real mount whose GPU is the emulated plug-in."""

import errno
import os
import shutil
import threading

import numpy as np
import pytest
from helpers import (
    BUILD,
    EXIT_USAGE,
    HCTFS,
    MKHCT,
    ROOT,
    bf16_bytes,
    compress,
    make_safetensors,
    mounted,
    random_tensor,
    run,
    wait_until,
    weights,
)

EMULATED = BUILD / "tests" / "gpu" / "libhct_cuda.so"
GPU = {"HCT_CUDA_PLUGIN": str(EMULATED)}
NAME = "model.safetensors"
CHUNK = 512 << 10  # decoded bytes, at most

pytestmark = pytest.mark.skipif(not EMULATED.exists(), reason=f"{EMULATED} is not built")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Some megabytes in one file, for read-ahead: the emulator is slow."""
    folder = tmp_path_factory.mktemp("gpu") / "source"
    folder.mkdir()
    rng = np.random.default_rng(11)
    block = bf16_bytes(weights(rng, 1024, 512))
    tensors = {}
    for i in range(8):
        turned = block[1024 * i :] + block[: 1024 * i]
        tensors[f"layer.{i}.weight"] = ("BF16", (1024, 512), turned)
        tensors[f"layer.{i}.norm"] = ("BF16", (512,), turned[:1024])
    tensors["steps"] = random_tensor(rng, "I64", (1000,))
    make_safetensors(folder / NAME, tensors, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def bundle(source):
    return compress(source, source.parent / "bundle.hct")


@pytest.fixture(scope="module")
def layered(source):
    """The same with loss, in layers."""
    out = source.parent / "layered.hct"
    run(MKHCT, "-q", "--cosine", ".998", "--layers", "3", source, out)
    return out


def read(mount):
    return (mount.path / NAME).read_bytes()


def says(mount, text):
    """Whether a line with this text is in the log, soon."""
    return wait_until(lambda: text in mount.log, timeout=120)


def lines_of(mount, text):
    return [line for line in mount.log.splitlines() if text in line]


def shown(bundle, *options):
    """What a mount without a GPU shows."""
    with mounted(bundle, "--gpu=off", *options) as mount:
        data = read(mount)
        assert mount.log.count("GPU") == 0
    return data


@pytest.mark.fuse
def test_same_bytes(source, bundle):
    with mounted(bundle, "--gpu", "0", env=GPU) as mount:
        assert says(mount, "cuda:0 (emulated) decodes what is read ahead, as gpu=0 says")
        assert read(mount) == (source / NAME).read_bytes()
        assert not lines_of(mount, "CPU")


@pytest.mark.fuse
@pytest.mark.parametrize("quality", ["full", "quick", "essentials"])
def test_same_bytes_of_layers(layered, quality):
    option = f"quality={quality}"
    expected = shown(layered, "-o", option)
    with mounted(layered, "-o", f"{option},gpu=0", env=GPU) as mount:
        assert says(mount, "as gpu=0 says")
        assert read(mount) == expected
        assert not lines_of(mount, "CPU")


@pytest.mark.fuse
def test_two_readers(source, bundle):
    expected = (source / NAME).read_bytes()
    found = []
    with mounted(bundle, "--gpu=0", env=GPU) as mount:
        assert says(mount, "as gpu=0 says")
        threads = [threading.Thread(target=lambda: found.append(read(mount))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [data == expected for data in found] == [True, True]


@pytest.mark.fuse
@pytest.mark.parametrize(
    "failing", ["launch:1", "launch:2", "cudaMemcpyAsync:6", "cudaMalloc:1", "cudaMallocHost:1"]
)
def test_failing_in_the_middle(source, bundle, failing):
    """Nobody who reads notices; one line says that the CPU goes on."""
    env = GPU | {"CUDA_EMULATOR_FAIL": failing}
    with mounted(bundle, "--gpu=0", env=env) as mount:
        assert says(mount, "gpu=0")
        assert read(mount) == (source / NAME).read_bytes()
        lines = lines_of(mount, "CPU decodes")
        assert len(lines) == 1, mount.log
        assert lines[0].startswith("hctfs: cuda:0 (emulated): ") or "gpu=0: " in lines[0]


@pytest.mark.fuse
def test_the_faster_one_is_used(source, bundle):
    """The emulator is slower than any CPU; both rates are in the one line."""
    with mounted(bundle, env=GPU) as mount:
        assert read(mount) == (source / NAME).read_bytes()
        assert says(mount, "decodes what is read ahead")
        (line,) = lines_of(mount, "hctfs: ")
        assert line.startswith("hctfs: cpu (")
        assert ": here cuda:0 (emulated) decodes " in line
        assert " a second, cpu (" in line


@pytest.mark.fuse
def test_ends_while_it_measures(bundle):
    with mounted(bundle, env=GPU) as mount:
        assert (mount.path / NAME).stat().st_size > 0
    assert mount.process.returncode == 0


@pytest.mark.fuse
@pytest.mark.parametrize(
    ("options", "env", "text"),
    [
        ([], GPU | {"CUDA_EMULATOR_DEVICES": "0"}, None),
        (["--gpu=off"], GPU, None),
        (["-s", "--gpu=0"], GPU, None),
        (["-o", "readahead=0,gpu=0"], GPU, None),
        (["--gpu=7"], GPU, "gpu=7: no GPU 7: there is 1; the CPU decodes"),
        (["--gpu", "0"], GPU | {"CUDA_EMULATOR_DEVICES": "0"}, "gpu=0: no GPU 0: there are 0"),
        (["-o", "gpu=0"], {"HCT_CUDA_PLUGIN": "/none.so"}, "gpu=0: the GPU plug-in cannot be"),
        ([], {"HCT_CUDA_PLUGIN": "/none.so"}, "no GPU is used: the GPU plug-in cannot be loaded"),
    ],
)
def test_without_a_gpu(source, bundle, options, env, text):
    with mounted(bundle, *options, env=env) as mount:
        if text:
            assert says(mount, text), mount.log
        assert read(mount) == (source / NAME).read_bytes()
        assert len(mount.log.splitlines()) == (1 if text else 0), mount.log


@pytest.mark.parametrize("word", ["on", "", "-1", "1x", "AUTO"])
@pytest.mark.parametrize("form", [["--gpu"], ["--gpu="], ["-o", "gpu="]])
def test_a_slip(bundle, tmp_path, form, word):
    point = tmp_path / "point"
    point.mkdir()
    words = [*form[:-1], form[-1] + word] if form[-1].endswith("=") else [*form, word]
    done = run(HCTFS, *words, bundle, point, expect=EXIT_USAGE)
    assert done.stderr == (
        f"hctfs: gpu is not auto, off or the number of a GPU: {word}; try 'hctfs --help'\n"
    )


@pytest.mark.fuse
def test_damage(source, bundle, tmp_path):
    """What is damaged fails, with a line of its own; the rest is read."""
    copy = tmp_path / "damaged.hct"
    shutil.copytree(bundle, copy)
    path = copy / f"{NAME}.hct"
    with open(path, "r+b") as out:
        out.seek(path.stat().st_size // 2)
        byte = out.read(1)[0]
        out.seek(-1, os.SEEK_CUR)
        out.write(bytes([byte ^ 1]))
    expected = (source / NAME).read_bytes()
    found = bytearray(len(expected))
    with mounted(copy, "--gpu=0", env=GPU) as mount:
        assert says(mount, "as gpu=0 says")
        with open(mount.path / NAME, "rb", buffering=0) as file:
            for at in range(0, len(expected), 65536):
                try:
                    data = os.pread(file.fileno(), 65536, at)
                    found[at : at + len(data)] = data
                except OSError as error:
                    assert error.errno == errno.EIO
        (line,) = lines_of(mount, "checksum")
        assert "tensor layer." in line
    wrong = np.flatnonzero(np.frombuffer(found, "u1") != np.frombuffer(expected, "u1"))
    assert 0 < wrong[-1] - wrong[0] <= CHUNK + 2 * 65536


def test_help_and_manual_name_the_words():
    for text in (run(HCTFS, "--help").stdout, (ROOT / "fs" / "hctfs.1").read_text()):
        for word in ("gpu", "auto", "off"):
            assert word in text
