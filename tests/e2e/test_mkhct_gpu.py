"""mkhct --gpu: the bundle is the same with a GPU, without, and with one that fails half-way.

The GPU is an emulated one (tests/gpu/emulator), which runs the real kernels on the CPU.
"""

import json
import os
import re

import numpy as np
import pytest
from helpers import (
    BUILD,
    EXIT_SYSTEM,
    EXIT_USAGE,
    MKHCT,
    float_bytes,
    is_sanitized,
    make_safetensors,
    run,
    tree_digests,
    weights,
)
from mkhct_tool import REPORTS
from resume_tool import run_limited

EMULATED = BUILD / "tests" / "gpu" / "libhct_cuda.so"
GPU = {"HCT_CUDA_PLUGIN": str(EMULATED)}
USED = "note: encoding with cuda:0 (emulated)"
GAVE_UP = r"mkhct: warning: cuda:0 \(emulated\): [^\n]+; from now on the CPU encodes"

pytestmark = pytest.mark.skipif(not EMULATED.exists(), reason=f"{EMULATED} is not built")


@pytest.fixture(scope="module")
def matrices(tmp_path_factory):
    """Matrices with scales, outliers, long rows, and smooth columns.  Do not change it."""
    folder = tmp_path_factory.mktemp("matrices") / "source"
    folder.mkdir()
    rng = np.random.default_rng(31)
    outliers = weights(rng, 130, 256)
    outliers[7, 5] = 30
    outliers[100:104] *= 20
    smooth = np.cumsum(rng.standard_normal((128, 192)), axis=0) * 0.01
    tensors = {
        "layers.0.norm": ("F32", (96,), float_bytes("F32", np.ones(96))),
        "layers.0.weight": ("BF16", (96, 256), float_bytes("BF16", weights(rng, 96, 256))),
        "layers.1.weight": ("F32", (130, 256), float_bytes("F32", outliers)),
        "positions.weight": ("F16", (128, 192), float_bytes("F16", smooth)),
        "wide.weight": ("F32", (3, 30001), float_bytes("F32", weights(rng, 3, 30001))),
    }
    make_safetensors(folder / "model.safetensors", tensors)
    return folder


def bundle_of(source, out, *options, env=None):
    """mkhct's digests of everything but reports, and standard error."""
    done = run(MKHCT, "-v", *options, source, out, env=env)
    digests = tree_digests(out)
    for report in REPORTS:
        del digests[report]
    return digests, done.stderr


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--effort", "1", "--transform", "none"),
        ("--effort", "9", "--cosine", ".9999999"),
        ("--layers", "2"),
        ("--encoder", "svd"),
        ("--bpw", "5"),
    ],
    ids=lambda options: " ".join(options) or "default",
)
def test_same_bytes_with_a_gpu(matrices, tmp_path, options):
    if options and is_sanitized():
        pytest.skip("the emulator is slow with sanitizers")
    expected, said = bundle_of(matrices, tmp_path / "off", "--gpu", "off", *options, env=GPU)
    assert USED not in said
    digests, said = bundle_of(matrices, tmp_path / "on", "-j3", *options, env=GPU)
    assert said.count(USED) == 1
    assert digests == expected


@pytest.mark.parametrize(
    "failure",
    ["launch:2", "launch:9", "cudaMalloc:2", "cudaMallocHost:2", "cudaMemcpyAsync:30",
     "cudaEventSynchronize:12"],
)  # fmt: skip
def test_a_gpu_that_fails_half_way(matrices, tmp_path, failure):
    expected, _ = bundle_of(matrices, tmp_path / "off", "--gpu", "off")
    env = {**GPU, "CUDA_EMULATOR_FAIL": failure}
    log = tmp_path / "log"
    digests, said = bundle_of(
        matrices, tmp_path / "on", "--gpu", "0", "-j2", "--log", log, env=env
    )
    assert digests == expected
    assert USED in said
    assert len(re.findall(GAVE_UP, said)) == 1, said
    assert log.read_text().count("from now on the CPU encodes") == 1


def test_no_gpu(matrices, tmp_path):
    """auto is silent, a number is an error that writes nothing."""
    out = tmp_path / "out"
    none = {**GPU, "CUDA_EMULATOR_DEVICES": "0"}
    missing = {"HCT_CUDA_PLUGIN": str(tmp_path / "none.so")}
    expected, _ = bundle_of(matrices, tmp_path / "off", "--gpu", "off")
    digests, said = bundle_of(matrices, tmp_path / "auto", "--gpu", "auto", env=none)
    assert digests == expected
    assert "GPU" not in said and "warning" not in said
    for env, match in ((none, "no GPU 0"), (missing, "plug-in"), (GPU, "no GPU 7")):
        number = "7" if env is GPU else "0"
        done = run(MKHCT, "--gpu", number, matrices, out, env=env, expect=None)
        assert done.returncode not in (0, EXIT_USAGE)
        assert re.fullmatch(rf"mkhct: [^\n]*{match}[^\n]*\n", done.stderr), done.stderr
        assert not out.exists()


def test_a_gpu_that_does_not_begin(matrices, tmp_path):
    """With auto one line tells that there is one, and why it is not used."""
    env = {**GPU, "CUDA_EMULATOR_FAIL": "launch:1"}
    _, said = bundle_of(matrices, tmp_path / "out", env=env)
    assert len(re.findall(r"mkhct: warning: no GPU is used: [^\n]+\n", said)) == 1
    assert USED not in said


def test_words(matrices, tmp_path):
    out = tmp_path / "out"
    for word in ("", "x", "-1", "1x", "on"):
        done = run(MKHCT, f"--gpu={word}", matrices, out, expect=EXIT_USAGE)
        assert "auto, off, or a number" in done.stderr
    done = run(MKHCT, "--gpu", "0", "--memory", "300M", matrices, out, expect=EXIT_USAGE)
    assert "768M" in done.stderr
    _, said = bundle_of(matrices, out, "--memory", "300M", env=GPU)
    assert USED not in said


def test_lossless_needs_none(matrices, tmp_path):
    env = {**GPU, "CUDA_EMULATOR_FAIL": "launch:1"}
    _, said = bundle_of(matrices, tmp_path / "out", "--lossless", "--gpu", "0", env=env)
    assert "--gpu: has no effect" in said
    assert "warning" not in said and USED not in said


def test_going_on_with_and_without(matrices, tmp_path):
    """--gpu is no part of what a bundle was begun with."""
    out = tmp_path / "out"
    expected, _ = bundle_of(matrices, tmp_path / "off", "--gpu", "off")
    run_limited(24 << 10, "-q", "--gpu", "0", matrices, out, env=GPU, expect=EXIT_SYSTEM)
    assert os.path.exists(out / ".hct" / "checkpoint.json")
    digests, said = bundle_of(matrices, out, "--gpu", "off")
    assert "going on" in said
    assert digests == expected
    report = json.loads((out / ".hct" / "report.json").read_text())
    assert "gpu" not in report["options"]
