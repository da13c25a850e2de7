"""mkhct with loss: targets, policies, budgets, odd tensors, forecasts and reports.

Errors are measured here, in double, on the files that hct extract gives back.
"""

import json
import os
import re

import numpy as np
import pytest
from helpers import (
    EXIT_BAD_DATA,
    EXIT_SYSTEM,
    EXIT_USAGE,
    HCT,
    MKHCT,
    compress,
    float_bytes,
    make_safetensors,
    mount,
    random_tensor,
    run,
    sha256,
    tree_digests,
    weights,
)

# The definition of --retention, rounded: what keeping the fraction r of white noise leaves.
RETENTION = {0.5: 0.07133, 0.6: 0.03532, 0.7: 0.01459, 0.8: 0.00425, 0.9: 0.00052}

# How far the coder may miss a target that it only meets on average.
SLACK = 1.05


def read_tensors(path):
    """{name: (dtype, float64 array or bytes)} of a safetensors file."""
    blob = path.read_bytes()
    length = int.from_bytes(blob[:8], "little")
    tensors = {}
    for name, info in json.loads(blob[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        data = blob[8 + length + begin : 8 + length + end]
        tensors[name] = (info["dtype"], as_double(info["dtype"], data), data)
    return tensors


def as_double(dtype, data):
    if dtype == "BF16":
        wide = np.frombuffer(data, "<u2").astype("<u4") << 16
        return wide.view("<f4").astype(np.float64)
    if dtype in ("F16", "F32", "F64"):
        return np.frombuffer(data, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).astype(float)
    return None


def measure(source, bundle, tmp_path):
    """{name: (relative squared error, cosine)} between a source folder and its bundle; 0 and 1
    only for what is equal in every bit."""
    back = tmp_path / f"back-{bundle.name}"
    run(HCT, "extract", "-q", bundle, back)
    result = {}
    for path in sorted(source.glob("**/*.safetensors")):
        ours = read_tensors(back / path.relative_to(source))
        for name, (_, a, bytes_a) in read_tensors(path).items():
            _, b, bytes_b = ours[name]
            if bytes_a == bytes_b:
                result[name] = 0.0, 1.0
            elif a is None:
                result[name] = float("inf"), 0.0
            else:
                error = np.sum((a - b) ** 2) / np.sum(a * a)
                result[name] = error, np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))
    return result


def report_of(bundle):
    """The report in the bundle, and its tensors by name."""
    report = json.loads((bundle / ".hct/report.json").read_text())
    return report, {t["name"]: t for f in report["files"] for t in f.get("tensor_list", [])}


def lossy(source, bundle, *options, env=None):
    run(MKHCT, "-q", *options, source, bundle, env=env)
    return bundle


def llama_tensors(layers=8, dtype="BF16", width=64):
    rng = np.random.default_rng(11)
    tensors = {"model.embed_tokens.weight": random_tensor(rng, dtype, (256, width))}
    for i in range(layers):
        at = f"model.layers.{i}"
        tensors[f"{at}.input_layernorm.weight"] = random_tensor(rng, dtype, (width,))
        for name in ("q", "k", "v", "o"):
            shape = (width + 8, width)
            tensors[f"{at}.self_attn.{name}_proj.weight"] = random_tensor(rng, dtype, shape)
        for name, shape in (("gate", (2 * width, width)), ("down", (width, 2 * width))):
            tensors[f"{at}.mlp.{name}_proj.weight"] = random_tensor(rng, dtype, shape)
    tensors["model.norm.weight"] = random_tensor(rng, dtype, (width,))
    tensors["lm_head.weight"] = random_tensor(rng, dtype, (256, width))
    return tensors


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A Llama of eight small layers.  Do not change it."""
    folder = tmp_path_factory.mktemp("llama") / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 8}))
    make_safetensors(folder / "model.safetensors", llama_tensors())
    return folder


@pytest.fixture(scope="module")
def matrices(tmp_path_factory):
    """F32 and BF16 matrices of more than one chunk, and a norm.  Do not change it."""
    folder = tmp_path_factory.mktemp("matrices") / "matrices"
    folder.mkdir()
    rng = np.random.default_rng(12)
    make_safetensors(folder / "model.safetensors", {
        "layers.0.fc.weight": random_tensor(rng, "F32", (520, 512)),
        "layers.0.proj.weight": random_tensor(rng, "BF16", (256, 384)),
        "layers.1.fc.weight": random_tensor(rng, "F16", (384, 256)),
        "layers.1.proj.weight": random_tensor(rng, "F64", (96, 128)),
        "layers.1.norm.weight": random_tensor(rng, "F32", (256,)),
    })  # fmt: skip
    return folder


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


# Policies ----------------------------------------------------------------------------


def base_error(r):
    """D(r) as the definition has it, by numerical integration."""
    x = np.linspace(-8, 8, 400_001)
    density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    tail = np.cumsum(density[::-1])[::-1] * (x[1] - x[0]) * 2
    t = abs(x[np.searchsorted(-tail, -r)])
    inside = np.abs(x) < t
    return float(np.sum(x[inside] ** 2 * density[inside]) * (x[1] - x[0]))


def assert_targets(tensors, expected):
    """expected: {name: retention, 1 for lossless}."""
    for name, r in expected.items():
        t = tensors[name]
        if r == 1:
            assert "target_error" not in t and "relative_squared_error" not in t, t
        else:
            assert t["target_error"] == pytest.approx(base_error(r), rel=2e-3), (name, r)
            assert t["relative_squared_error"] < SLACK * t["target_error"]


def test_policy_hybrid(llama, tmp_path):
    out = lossy(llama, tmp_path / "out", "--policy", "hybrid", "--retention", ".6")
    _, tensors = report_of(out)
    retentions = [1, 0.8, 0.8, 0.6, 0.6, 0.8, 0.8, 1]
    assert_targets(tensors, {f"model.layers.{i}.mlp.gate_proj.weight": r
                             for i, r in enumerate(retentions)})  # fmt: skip
    assert_targets(tensors, {"model.embed_tokens.weight": 0.6, "model.norm.weight": 1})
    found = measure(llama, out, tmp_path)
    assert found["model.layers.7.self_attn.q_proj.weight"] == (0.0, 1.0)
    assert found["model.layers.3.self_attn.q_proj.weight"][0] > 0.02


def test_policy_hybrid_counts_by_config(llama, tmp_path):
    """A checkpoint that holds the first four of twelve layers has no last layer."""
    part = tmp_path / "part"
    (part / "sub").mkdir(parents=True)
    (part / "config.json").write_text(json.dumps({"num_hidden_layers": 12}))
    tensors = {n: t for n, t in llama_tensors(4).items() if "layers" in n}
    make_safetensors(part / "model.safetensors", tensors)
    # And in another folder a model of its own, whose last layer is its third.
    (part / "sub" / "config.json").write_text(json.dumps({"num_hidden_layers": 3}))
    make_safetensors(part / "sub" / "model.safetensors",
                     {n: t for n, t in llama_tensors(3).items() if "layers" in n})  # fmt: skip
    out = lossy(part, tmp_path / "out", "--policy", "hybrid")
    report, _ = report_of(out)
    name = "model.layers.{}.self_attn.q_proj.weight"
    kept = [[t["name"] for t in f["tensor_list"] if "target_error" not in t]
            for f in report["files"] if f["kind"] == "model"]  # fmt: skip
    assert [name.format(i) in kept[0] for i in range(4)] == [True, False, False, False]
    assert [name.format(i) in kept[1] for i in range(3)] == [True, False, True]
    # A single file is judged by the config.json beside it.
    _, tensors = report_of(lossy(part / "model.safetensors", tmp_path / "one", "--policy", "hybrid"))
    assert "target_error" in tensors[name.format(3)]


def test_policy_layertype(llama, tmp_path):
    _, tensors = report_of(lossy(llama, tmp_path / "out", "--policy", "layertype"))
    at = "model.layers.2."
    assert_targets(tensors, {
        "model.embed_tokens.weight": 1, "lm_head.weight": 0.9, at + "mlp.gate_proj.weight": 0.49,
        at + "mlp.down_proj.weight": 0.49, at + "self_attn.q_proj.weight": 0.7,
        at + "self_attn.k_proj.weight": 0.7, at + "self_attn.v_proj.weight": 0.77,
        at + "self_attn.o_proj.weight": 0.77, at + "input_layernorm.weight": 1,
    })  # fmt: skip


def test_policy_importance(llama, tmp_path):
    _, tensors = report_of(lossy(llama, tmp_path / "roles", "--policy", "importance"))
    at = "model.layers.2."
    assert_targets(tensors, {
        "lm_head.weight": 0.7 * 0.95 * 1.2, at + "mlp.gate_proj.weight": 0.7 * 0.75 * 0.7,
        at + "self_attn.q_proj.weight": 0.7 * 0.875, at + "self_attn.v_proj.weight": 0.7 * 0.9 * 1.2,
    })  # fmt: skip
    names = {at + "mlp.gate_proj.weight": {"importance": 1, "sensitivity": "very_low"},
             at + "self_attn.q_proj.weight": {"importance": 0}}  # fmt: skip
    file = tmp_path / "importance.json"
    file.write_text(json.dumps({"version": 1, "source": "made up", "tensors": names}))
    report, tensors = report_of(lossy(llama, tmp_path / "file", "--importance", file))
    assert_targets(tensors, {at + "mlp.gate_proj.weight": 0.35, at + "self_attn.q_proj.weight": 0.35,
                             "lm_head.weight": 0.7 * 0.95 * 1.2})  # fmt: skip
    assert re.fullmatch("[0-9a-f]{16}", report["options"]["importance_xxh3"])
    assert str(tmp_path) not in json.dumps(report)


def test_policy_adaptive_reaches_its_quality(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(13)
    smooth = np.cumsum(np.cumsum(rng.standard_normal((256, 256)), 0), 1).astype(np.float32)
    sparse = (rng.standard_normal((128, 128)) ** 9).astype(np.float32)
    make_safetensors(source / "model.safetensors", {
        "white": ("F32", (256, 256), weights(rng, 256 * 256).tobytes()),
        "smooth": ("F32", (256, 256), smooth.tobytes()),
        "sparse": ("F32", (128, 128), sparse.tobytes()),
        "odd": random_tensor(rng, "F32", (67, 71)),
    })  # fmt: skip
    for quality in (0.95, 0.99):
        out = lossy(source, tmp_path / f"q{quality}", "--policy", "adaptive",
                    "--target-quality", quality)  # fmt: skip
        for name, (error, _) in measure(source, out, tmp_path).items():
            assert error < SLACK * (1 - quality), name
    _, tensors = report_of(out)
    # White noise needs most of its coefficients for .99 of the energy, D(r) of those.
    assert tensors["white"]["target_error"] == pytest.approx(0.01, rel=0.05)
    again = lossy(source, tmp_path / "again", "--policy", "adaptive", "--target-quality", 0.99,
                  "-j1", env={"HCT_SIMD": "scalar"})  # fmt: skip
    assert sha256(again / "model.safetensors.hct") == sha256(out / "model.safetensors.hct")


def test_keep_and_tensor(llama, tmp_path):
    out = lossy(llama, tmp_path / "out", "--keep", "*.layers.0.*", "--tensor", "*.mlp.*=.5",
                "--tensor", "lm_head.weight=cosine:.999",
                "--tensor", "model.layers.3.mlp.gate_proj.weight=lossless")  # fmt: skip
    report, tensors = report_of(out)
    assert_targets(tensors, {
        "model.layers.0.self_attn.q_proj.weight": 1, "model.layers.0.mlp.down_proj.weight": 0.5,
        "model.layers.3.mlp.gate_proj.weight": 1, "model.layers.4.mlp.gate_proj.weight": 0.5,
        "model.layers.4.self_attn.q_proj.weight": 0.7,
    })  # fmt: skip
    assert tensors["lm_head.weight"]["target_error"] == pytest.approx(1 - 0.999**2)
    assert report["options"]["overrides"][0] == {"pattern": "*.layers.0.*", "lossless": True}
    assert measure(llama, out, tmp_path)["model.layers.0.self_attn.q_proj.weight"] == (0.0, 1.0)


def test_lossless_with_one_tensor_that_is_not(llama, tmp_path):
    out = lossy(llama, tmp_path / "out", "--lossless", "--tensor", "lm_head.weight=.6")
    found = measure(llama, out, tmp_path)
    assert found.pop("lm_head.weight")[0] > 0.03
    assert set(found.values()) == {(0.0, 1.0)}
    assert report_of(out)[0]["options"]["mode"] == "lossy"


# Budgets -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Matrices of very different rates, of 1.3 M weights.  Do not change it."""
    folder = tmp_path_factory.mktemp("uneven") / "uneven"
    folder.mkdir()
    rng = np.random.default_rng(14)
    smooth = np.cumsum(np.cumsum(rng.standard_normal((512, 256)), 0), 1).astype(np.float32)
    tensors = {"smooth.weight": ("F32", (512, 256), smooth.tobytes())}
    for i in range(3):
        tensors[f"h.{i}.mlp.weight"] = random_tensor(rng, ("F32", "BF16")[i % 2], (512, 512))
        tensors[f"h.{i}.norm.weight"] = random_tensor(rng, "F32", (512,))
    make_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("bits", [1.5, 3, 6])
def test_bpw_lands_within_one_percent(uneven, tmp_path, bits):
    out = lossy(uneven, tmp_path / "out", "--bpw", bits)
    elements = 512 * 256 + 3 * 512 * 513
    size = (out / "model.safetensors.hct").stat().st_size
    assert 8 * size / elements == pytest.approx(bits, rel=0.01)
    report, tensors = report_of(out)
    assert report["bits_per_weight"] == pytest.approx(8 * size / elements, rel=1e-6)
    assert report["options"]["bpw"] == bits
    assert all(t["reason"] == "budget" for n, t in tensors.items() if "norm" not in n)


@pytest.mark.parametrize("size", ["400K", "900000"])
def test_size_lands_within_one_percent(uneven, tmp_path, size):
    out = lossy(uneven, tmp_path / "out", "--size", size)
    wanted = int(size[:-1]) << 10 if size.endswith("K") else int(size)
    found = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert found == pytest.approx(wanted, rel=0.01)


def test_budget_is_dealt_out_at_equal_gain(uneven, tmp_path):
    """At the same size, no more error in sum than with one error for all."""
    same = lossy(uneven, tmp_path / "same", "--retention", ".5")
    size = sum(p.stat().st_size for p in same.rglob("*") if p.is_file())
    dealt = lossy(uneven, tmp_path / "dealt", "--size", size)
    elements = {"smooth.weight": 512 * 256, **{f"h.{i}.mlp.weight": 512 * 512 for i in range(3)}}

    def loss(bundle):
        found = measure(uneven, bundle, tmp_path)
        return sum(n * found[name][0] for name, n in elements.items())

    assert loss(dealt) < 1.02 * loss(same)


def test_budget_that_cannot_be_met(uneven, tmp_path):
    out = tmp_path / "out"
    for option, value in (("--size", "20K"), ("--size", "1")):
        done = run(MKHCT, option, value, uneven, out, expect=EXIT_USAGE)
        assert re.fullmatch(r"mkhct: --size .*: cannot be met: the bundle takes .* to .*\n",
                            done.stderr.splitlines(True)[-1])  # fmt: skip
        assert not out.exists()
    # Almost everything is lossless here, and takes more than a bit.
    done = run(MKHCT, "--bpw", "1", "--keep", "h.*", uneven, out, expect=EXIT_USAGE)
    assert re.search(r"--bpw 1: cannot be met: this model takes \d+\.\d+ .* to \d+\.\d+", done.stderr)
    assert not out.exists()


def test_budget_above_lossless(llama, tmp_path):
    done = run(MKHCT, "--bpw", "16", llama, tmp_path / "out")
    assert "note: --bpw 16: lossless takes" in done.stderr
    assert set(measure(llama, tmp_path / "out", tmp_path).values()) == {(0.0, 1.0)}


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


def test_budget_gives_the_same_bytes_with_any_threads(uneven, tmp_path):
    one = lossy(uneven, tmp_path / "one", "--bpw", "3", "-j1")
    four = lossy(uneven, tmp_path / "four", "--bpw", "3", "-j4")
    assert sha256(one / "model.safetensors.hct") == sha256(four / "model.safetensors.hct")


# Dry run -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--bpw", "3"], ["--lossless"], ["--policy", "hybrid"]])
def test_dry_run_agrees_with_the_run(uneven, tmp_path, options):
    before = tree_digests(tmp_path)
    forecast = json.loads(run(MKHCT, "--dry-run", "--json", *options, uneven).stdout)
    assert tree_digests(tmp_path) == before
    out = lossy(uneven, tmp_path / "out", *options)
    report, tensors = report_of(out)
    assert forecast["dry_run"] is True and forecast["options"] == report["options"]
    assert forecast["stored_bytes"] == pytest.approx(report["stored_bytes"], rel=0.005)
    assert forecast["source_bytes"] == report["source_bytes"]
    (file,) = forecast["files"]
    assert [t["name"] for t in file["tensor_list"]] == list(tensors)
    for t in file["tensor_list"]:
        real = tensors[t["name"]]
        assert t["lossy"] == ("relative_squared_error" in real)
        # Up to what tables of other tensors save by being compressed with these.
        stored = t["bits_per_weight"] * np.prod(real["shape"]) / 8
        assert stored == pytest.approx(real["stored_bytes"], rel=0.01, abs=1000)
        for key in ("relative_squared_error", "cosine", "target_error"):
            assert t.get(key, 0) == pytest.approx(real.get(key, 0), rel=1e-6)


def test_dry_run_prints_a_table(llama, tmp_path):
    out = tmp_path / "out"
    done = run(MKHCT, "--dry-run", llama, out)
    assert not out.exists()
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["dtype", "shape", "kept", "bits", "error", "cosine", "reason", "tensor"]
    norm = next(line for line in lines if line.endswith("model.norm.weight"))
    assert norm.split()[:3] == ["BF16", "[64]", "lossless"] and "norm" in norm.split()
    head = next(line for line in lines if line.endswith("lm_head.weight"))
    assert head.split()[2] == "loss" and head.split()[-2] == "uniform"
    assert lines[-2].startswith("expected  ") and lines[-1] == "nothing was written"
    # A bundle that is there already is in the way of a dry run as of a real one.
    compress(llama, out)
    done = run(MKHCT, "--dry-run", llama, out, expect=EXIT_SYSTEM)
    assert done.stdout == "" and str(out) in done.stderr


# Reports -----------------------------------------------------------------------------


def test_report_agrees_with_measurements(matrices, tmp_path):
    out = lossy(matrices, tmp_path / "out", "--quality-sample", "1")
    report, tensors = report_of(out)
    found = measure(matrices, out, tmp_path)
    for name, (error, cosine) in found.items():
        t = tensors[name]
        assert t["verified"] is True
        assert t.get("relative_squared_error", 0) == pytest.approx(error, rel=1e-5)
        assert t.get("cosine", 1) == pytest.approx(cosine, rel=1e-6)
    lossy_names = [n for n, (error, _) in found.items() if error > 0]
    sizes = {n: int(np.prod(tensors[n]["shape"])) for n in tensors}
    total = report["lossy"]
    assert total["tensors"] == len(lossy_names) == 4
    assert total["weights"] == sum(sizes[n] for n in lossy_names)
    mean = sum(sizes[n] * found[n][1] for n in lossy_names) / total["weights"]
    assert total["cosine"] == pytest.approx(mean, rel=1e-6)
    worst = min(lossy_names, key=lambda n: found[n][1])
    assert total["worst"]["tensor"] == worst
    assert total["worst"]["cosine"] == pytest.approx(found[worst][1], rel=1e-6)
    assert total["grade"] == "Good"
    assert report["lossless"]["tensors"] == 1
    assert report["verified_tensors"] == 5
    stored = (out / "model.safetensors.hct").stat().st_size
    assert report["weights"] == sum(sizes.values())
    assert report["bits_per_weight"] == pytest.approx(8 * stored / report["weights"], rel=1e-6)
    wide = {"F32": 2, "F64": 4}
    bf16 = report["model_source_bytes"] - sum(
        t["source_bytes"] - t["source_bytes"] // wide.get(t["dtype"], 1) for t in tensors.values())
    assert report["bf16_ratio"] == pytest.approx(bf16 / stored, rel=1e-6)


def test_hct_agrees_with_the_report(matrices, tmp_path):
    out = lossy(matrices, tmp_path / "out")
    report, tensors = report_of(out)
    (file,) = json.loads(run(HCT, "ls", "--json", out).stdout)["files"]
    for t in file["tensors"]:
        mine = tensors[t["name"]]
        assert t["relative_squared_error"] == pytest.approx(
            mine.get("relative_squared_error", 0), rel=1e-6)  # fmt: skip
        assert t["stored_bytes"] == mine["stored_bytes"]
    text = run(HCT, "ls", out).stdout
    assert "ERROR" in text and "COSINE" in text
    info = json.loads(run(HCT, "info", "--json", out).stdout)
    assert info["lossy"]["tensors"] == report["lossy"]["tensors"]
    assert info["lossy"]["stored_bytes"] == report["lossy"]["stored_bytes"]
    assert info["total"]["bits_per_weight"] == pytest.approx(report["bits_per_weight"], rel=1e-6)
    assert info["options"] == report["options"]
    assert "with loss     4 tensors" in run(HCT, "info", out).stdout
    compared = json.loads(run(HCT, "compare", "--json", matrices, out).stdout)
    for t in compared["tensors"]:
        mine = tensors[t["name"]]
        assert t["relative_squared_error"] == pytest.approx(
            mine.get("relative_squared_error", 0), rel=1e-5)  # fmt: skip
        assert t["cosine"] == pytest.approx(mine.get("cosine", 1), rel=1e-6)


def test_quality_sample_chooses_by_name(llama, tmp_path):
    none, _ = report_of(lossy(llama, tmp_path / "none", "--quality-sample", "0"))
    some, by_name = report_of(lossy(llama, tmp_path / "some", "--quality-sample", ".3"))
    more, all_names = report_of(lossy(llama, tmp_path / "more", "--quality-sample", ".6"))
    assert none["verified_tensors"] == 0
    assert 0 < some["verified_tensors"] < more["verified_tensors"] < more["tensors"]
    assert all("verified" in all_names[n] for n, t in by_name.items() if "verified" in t)


def test_final_table(llama, tmp_path):
    done = run(MKHCT, "--quality-sample", "1", llama, tmp_path / "out")
    text = done.stdout
    assert all(len(line) <= 80 for line in text.splitlines()), text
    assert re.search(r"^models +59 .* \d+\.\d{3}$", text, re.M), text
    assert re.search(r"^  with loss +50 ", text, re.M) and re.search(r"^  lossless +9 ", text, re.M)
    assert re.search(r"^quality   Good: the mean cosine to the source is 0\.99", text, re.M)
    assert re.search(r"^worst     0\.99\d+: model\.", text, re.M)
    assert re.search(r"^size      \d+\.\d+ times smaller than the same models in BF16$", text, re.M)
    assert "59 of 59 tensors were read back" in text


def test_verbose_shows_bits_and_cosine(llama, tmp_path):
    done = run(MKHCT, "-v", llama, tmp_path / "out")
    line = r"^  lm_head\.weight  BF16  \[256,64\]  tcq  \d\.\d{3}  \d\.\d{3} bits  cosine 0\.99\d+$"
    assert re.search(line, done.stderr, re.M), done.stderr
    assert re.search(r"^  model\.norm\.weight  BF16  \[64\]  \w+  \d\.\d{3}$", done.stderr, re.M)


# Bad input ---------------------------------------------------------------------------


def importance(tmp_path, text):
    path = tmp_path / "importance.json"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "options, match",
    [
        (["--retention", ".5", "--cosine", ".9"], "--retention and --cosine exclude each other"),
        (["--bpw", "3", "--size", "1G"], "--bpw and --size exclude each other"),
        (["--lossless", "--snr", "30"], "exclude each other"),
        (["--retention", "0"], "--retention: '0' is no retention"),
        (["--retention", "1.01"], "--retention: '1.01' is no retention"),
        (["--cosine", "1"], "--cosine: '1' is no cosine"),
        (["--snr", "-3"], "--snr: '-3' is no number of decibels"),
        (["--snr", "nan"], "--snr: 'nan' is no"),
        (["--bpw", ".5"], "--bpw: '.5' is no number of bits"),
        (["--size", "many"], "--size: 'many' is no size"),
        (["--policy", "best"], "--policy: 'best' is not known"),
        (["--policy", "hybrid", "--bpw", "3"], "--policy hybrid: sets the error of each tensor"),
        (["--target-quality", ".9"], "--target-quality: give --policy adaptive with it"),
        (["--policy", "adaptive", "--target-quality", "1"], "'1' is no quality"),
        (["--effort", "10"], "--effort: '10' is no level"),
        (["--transform", "wavelet"], "--transform: 'wavelet' is not known"),
        (["--encoder", "zip"], "--encoder: 'zip' is not known"),
        (["--encoder", "topk", "--bpw", "4"], "--bpw and --size: the size of topk, mixed and int4"),
        (["--encoder", "int4", "--layers", "2"], "--layers: only --encoder tcq codes several"),
        (["--layers", "5"], "--layers: '5' is no number of layers"),
        (["--quality-sample", "2"], "--quality-sample: '2' is no fraction"),
        (["--keep", "nothing.*"], "--keep nothing.*: matches no tensor of the model"),
        (["--tensor", "*.q_proj=.5"], r"--tensor \*.q_proj: matches no tensor of the model"),
        (["--tensor", "*.weight"], "is no PATTERN=TARGET"),
        (["--tensor", "*.weight=size:3"], "'size:3' is no target"),
        (["--importance", "/nonexistent.json"], "/nonexistent.json"),
    ],
)
def test_bad_options_write_nothing(llama, tmp_path, options, match):
    out = tmp_path / "out"
    done = run(MKHCT, *options, llama, out, expect=None)
    assert done.returncode in (EXIT_USAGE, 3 if "/nonexistent.json" in options else EXIT_USAGE)
    assert done.stdout == "" and re.fullmatch(r"mkhct: [^\n]+\n", done.stderr), done.stderr
    assert re.search(match, done.stderr), done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    "text, match",
    [
        ('{"version": 1,\n "tensors": {"lm_head.weight":\n {"importance": 2}}}', r"line 3: "),
        ('{"version": 1,\n "tensors": [}', r"line 2: "),
        ('{"version": 1, "tensors": {"lm_head.weight": {"importance": 1,\n"sensitivity": "so"}}}',
         r"line 2: "),
        ('{"version": 7, "tensors": {}}', r"line 1: "),
        ('{"version": 1, "tensors": {"other": {"importance": 1}}}', "names no tensor of the model"),
    ],
)  # fmt: skip
def test_bad_importance_files(llama, tmp_path, text, match):
    out = tmp_path / "out"
    path = importance(tmp_path, text)
    done = run(MKHCT, "--importance", path, llama, out, expect=EXIT_USAGE)
    assert re.fullmatch(r"mkhct: [^\n]+\n", done.stderr) and re.search(match, done.stderr), done.stderr
    assert not out.exists()


def test_notes_tell_what_has_no_effect(llama, tmp_path):
    done = run(MKHCT, "--tensor", "*layernorm*=.5", llama, tmp_path / "out")
    assert re.search(r"^mkhct: note: --tensor \*layernorm\*: matches only tensors that are lossless",
                     done.stderr, re.M)  # fmt: skip
    quiet = run(MKHCT, "-q", "--tensor", "*layernorm*=.5", llama, tmp_path / "quiet")
    assert quiet.stderr == ""


def test_damaged_source_is_refused_before_any_measurement(llama, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    (source / "b.safetensors").write_bytes(b"\xff" * 100)
    for options in ([], ["--bpw", "3"], ["--dry-run"]):
        done = run(MKHCT, *options, source, tmp_path / "out", expect=EXIT_BAD_DATA)
        assert len(done.stderr.splitlines()) == 1 and "b.safetensors" in done.stderr
        assert not os.path.exists(tmp_path / "out")
