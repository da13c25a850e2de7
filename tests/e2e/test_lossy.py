"""mkhct with loss: targets, odd tensors and encoders, and the same bytes every time."""

import numpy as np
import pytest
from helpers import (
    HCT,
    float_bytes,
    make_safetensors,
    mount,
    random_tensor,
    real_model,
    run,
    sha256,
    tree_digests,
)
from losses import RETENTION, SLACK, lossy, measure, report_of

# Targets -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error",
    [
        ([], RETENTION[0.7]),
        (["--retention", ".5"], RETENTION[0.5]),
        (["--retention", ".6"], RETENTION[0.6]),
        (["--retention", ".8"], RETENTION[0.8]),
        (["--retention", "0.9"], RETENTION[0.9]),
        (["--cosine", ".99"], 1 - 0.99**2),
        (["--snr", "20"], 0.01),
        (["--snr", "35"], 10**-3.5),
    ],
)
def test_targets_are_reached(matrices, tmp_path, options, error):
    out = lossy(matrices, tmp_path / "out", *options)
    found = measure(matrices, out, tmp_path)
    assert found.pop("layers.1.norm.weight") == (0.0, 1.0)
    for name, (measured, cosine) in found.items():
        assert 0.7 * error < measured < SLACK * error, (name, measured, error)
        assert cosine >= np.sqrt(1 - SLACK * error), name
    run(HCT, "check", out)


def test_default_is_retention_70(matrices, tmp_path):
    one = tree_digests(lossy(matrices, tmp_path / "one"))
    two = tree_digests(lossy(matrices, tmp_path / "two", "--retention", ".70"))
    assert one["model.safetensors.hct"] == two["model.safetensors.hct"]
    report, _ = report_of(tmp_path / "one")
    assert report["options"] == {
        "mode": "lossy", "retention": 0.7, "policy": "uniform", "effort": 5,
        "transform": "auto", "encoder": "auto", "layers": 1}  # fmt: skip


def test_higher_retention_is_larger_and_better(matrices, tmp_path):
    last_size, last_error = 0, 1
    for r in (0.4, 0.6, 0.8, 0.9):
        out = lossy(matrices, tmp_path / f"r{r}", "--retention", r)
        size = (out / "model.safetensors.hct").stat().st_size
        error = measure(matrices, out, tmp_path)["layers.0.fc.weight"][0]
        assert size > last_size and error < last_error
        last_size, last_error = size, error


def test_retention_one_is_lossless(matrices, tmp_path):
    out = lossy(matrices, tmp_path / "out", "--retention", "1")
    assert all(found == (0.0, 1.0) for found in measure(matrices, out, tmp_path).values())


def test_mount_shows_the_same_values(matrices, tmp_path):
    out = lossy(matrices, tmp_path / "out")
    run(HCT, "extract", out, tmp_path / "back")
    with mount(out) as point:
        assert sha256(point / "model.safetensors") == sha256(tmp_path / "back/model.safetensors")


def test_transform_effort_and_layers_reach_the_target(matrices, tmp_path):
    for name, options in {
        "none": ["--transform", "none"],
        "dct": ["--transform", "dct", "--effort", "3"],
        "quick": ["--effort", "1"],
        "layers": ["--layers", "2"],
    }.items():
        out = lossy(matrices, tmp_path / name, *options)
        found = measure(matrices, out, tmp_path)
        assert all(error < SLACK * RETENTION[0.7] for error, _ in found.values()), (name, found)
    _, tensors = report_of(tmp_path / "layers")
    assert tensors["layers.0.fc.weight"]["layers"] == 2
    _, tensors = report_of(tmp_path / "none")
    assert tensors["layers.0.fc.weight"]["tile"] == [1, 1]
    _, tensors = report_of(tmp_path / "dct")
    assert tensors["layers.0.fc.weight"]["tile"] != [1, 1]


@pytest.mark.parametrize("snr", [9.9, 10, 10.1, 11])
def test_heavy_tails_of_real_weights_reach_the_target(tmp_path, snr):
    """Matrices whose error hardly follows the quantiser's step: within 2%."""
    source = real_model("gpt2-attn")
    out = lossy(source, tmp_path / "out", "--snr", snr)
    for name, (error, _) in measure(source, out, tmp_path).items():
        assert error <= 1.02 * 10 ** (-snr / 10), name


# Odd tensors -------------------------------------------------------------------------


def odd_matrices():
    rng = np.random.default_rng(15)
    n = 96
    plain = rng.standard_normal((n, n)).astype(np.float32)
    nan, inf = plain.copy(), plain.copy()
    nan[3, 4], inf[90, 2] = np.nan, -np.inf
    return {
        "nan": nan,
        "inf": inf,
        "mild_outlier": np.where(np.arange(n * n).reshape(n, n) == 99, 500, plain),
        "zero": np.zeros((n, n), np.float32),
        "tiny": plain * np.float32(1e-30),
        "subnormal": plain * np.float32(1e-42),
        "huge": plain * np.float32(1e30),
        "rank1": np.outer(plain[0], plain[1]).astype(np.float32),
        "one_row": plain[:1].repeat(n, 0),
        "integers": np.round(plain * 3),
        "tall": rng.standard_normal((5000, 3)).astype(np.float32),
        "deep": rng.standard_normal((4, 3, 2, 5, 64)).astype(np.float32),
    }


def test_odd_tensors_reach_their_target_or_are_lossless(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for dtype in ("F32", "BF16", "F16", "F64"):
        with np.errstate(over="ignore", invalid="ignore"):
            make_safetensors(source / f"{dtype}.safetensors", {
                f"{dtype}.{name}": (dtype, values.shape,
                                    float_bytes(dtype, values.astype(np.float32)))
                for name, values in odd_matrices().items()
            })  # fmt: skip
    out = lossy(source, tmp_path / "out", "--quality-sample", "1")
    found = measure(source, out, tmp_path)
    _, tensors = report_of(out)
    for name, (error, _) in found.items():
        assert error < SLACK * RETENTION[0.7] or not np.isfinite(error), name
        assert tensors[name]["verified"] is True
    for dtype in ("F32", "BF16", "F64"):
        for name in ("nan", "inf"):
            assert found[f"{dtype}.{name}"] == (0.0, 1.0)
            assert tensors[f"{dtype}.{name}"]["lossless_because"] == "it has NaN or infinity"
    run(HCT, "check", out)
    # Most of these can be coded with loss, and are.
    assert sum(error > 0 for error, _ in found.values()) >= 18


def make_outlier(dtype):
    """White noise and one number that has all the energy there is."""
    values = np.random.default_rng(18).standard_normal((96, 96)).astype(np.float32)
    values[7, 7] = 1e4 if dtype == "F16" else 1e30
    return values


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_constants_and_outliers_reach_their_target(tmp_path, dtype):
    source = tmp_path / "source"
    source.mkdir()
    matrices = {f"c{value}": np.full((96, 96), value, np.float32) for value in (0.25, 0.3)}
    matrices["outlier"] = make_outlier(dtype)
    plain = np.random.default_rng(15).standard_normal((96, 96)).astype(np.float32)
    matrices["mostly_zero"] = np.where(np.abs(plain) > 2.5, plain, 0)
    make_safetensors(source / "model.safetensors", {
        name: (dtype, (96, 96), float_bytes(dtype, values)) for name, values in matrices.items()
    })  # fmt: skip
    out = lossy(source, tmp_path / "out")
    for name, (error, _) in measure(source, out, tmp_path).items():
        assert error < SLACK * RETENTION[0.7], name


@pytest.mark.parametrize(
    ("options", "codec", "bits", "error"),
    [
        # 70% of the coefficients at 4.5 bits and a mask; what is dropped, and what 4 bits lose.
        (["--encoder", "topk"], "coef", (3.9, 4.3), (0.015, 0.03)),
        (["--encoder", "mixed"], "coef", (5.6, 6.6), (0.01, 0.02)),
        (["--encoder", "int4"], "coef", (4.5, 4.6), (0.004, 0.012)),
        (["--encoder", "svd"], "tcq", (2.9, 3.4), (0.0138, 0.0153)),
    ],
    ids=lambda v: v[1] if isinstance(v, list) else "",
)
def test_literal_encoders(tmp_path, options, codec, bits, error):
    """White noise, of which the figures are known."""
    source = tmp_path / "source"
    source.mkdir()
    values = np.random.default_rng(21).standard_normal((256, 512)).astype(np.float32)
    low = np.outer(values[:, 0], values[0]).astype(np.float32)
    make_safetensors(source / "model.safetensors", {
        "noise": ("F32", values.shape, values.tobytes()), "low": ("F32", low.shape, low.tobytes())
    })  # fmt: skip
    out = lossy(source, tmp_path / "out", "--quality-sample", "1", *options)
    run(HCT, "check", "-q", out)
    found, (_, tensors) = measure(source, out, tmp_path), report_of(out)
    assert tensors["noise"]["codec"] == codec
    assert bits[0] < 8 * tensors["noise"]["stored_bytes"] / values.size < bits[1]
    assert error[0] < found["noise"][0] < error[1]
    if codec == "tcq":  # a matrix of rank 1 is where svd wins
        assert tensors["low"]["codec"] == "lowrank"
        assert 8 * tensors["low"]["stored_bytes"] / low.size < 0.2
        assert found["low"][0] < SLACK * RETENTION[0.7]


def test_f8_and_integers_survive(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(16)
    make_safetensors(source / "model.safetensors", {
        d: random_tensor(rng, d, (96, 96)) for d in ("F8_E4M3", "F8_E5M2", "I32", "U8", "BOOL", "F4")
    })  # fmt: skip
    out = lossy(source, tmp_path / "out")
    found = measure(source, out, tmp_path)
    assert all(found[d] == (0.0, 1.0) for d in ("I32", "U8", "BOOL", "F4"))
    _, tensors = report_of(out)
    assert tensors["I32"]["reason"] == "I32"


# Reproducibility ---------------------------------------------------------------------


def test_same_bytes_with_any_threads_and_instructions(matrices, tmp_path):
    digests = set()
    for jobs in (1, 2, 4):
        out = lossy(matrices, tmp_path / f"j{jobs}", f"-j{jobs}")
        digests.add(sha256(out / "model.safetensors.hct"))
    for simd in ("scalar", "avx2", "avx512"):
        out = lossy(matrices, tmp_path / simd, env={"HCT_SIMD": simd})
        digests.add(sha256(out / "model.safetensors.hct"))
    assert len(digests) == 1
