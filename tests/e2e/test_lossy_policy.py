"""mkhct with loss: what each policy asks of each tensor."""

import json
import re

import numpy as np
import pytest
from helpers import MKHCT, make_safetensors, random_tensor, run, sha256, weights
from losses import SLACK, llama_tensors, lossy, measure, report_of


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
    # Which retention that is stands in the reason, and its D in the target.
    for name, t in tensors.items():
        found = re.fullmatch(r"adaptive: (0\.\d+) keeps 0\.99 of energy", t["reason"])
        assert found, t["reason"]
        kept = np.sort(np.abs(rng.standard_normal(1 << 16)))[::-1] ** 2
        if name == "white":
            retention = np.searchsorted(np.cumsum(kept), 0.99 * kept.sum()) / kept.size
            assert float(found[1]) == pytest.approx(retention, abs=0.02)
        assert t["target_error"] <= base_error(float(found[1])) * 1.02
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


@pytest.mark.parametrize("options, notes", [
    (["--encoder", "int4", "--transform", "dct"], ["--transform dct: has no effect"]),
    (["--encoder", "int4", "--retention", ".5"], ["--retention, .*: have no effect on the error"]),
    (["--encoder", "int4", "--transform", "none"], []),
    (["--encoder", "topk", "--retention", ".5"], []),
    (["--lossless", "--layers", "2", "--encoder", "tcq", "--effort", "3"],
     ["--effort: has no effect", "--encoder: has no effect", "--layers: has no effect"]),
    (["--lossless", "--tensor", "lm_head.weight=.5", "--layers", "2"], []),
    (["--tensor", "*=.5"], [r"--tensor \*: 9 of the tensors that it matches are lossless"]),
    (["--tensor", "*.mlp.*=.5", "--keep", "*"], []),
])  # fmt: skip
def test_what_has_no_effect_gets_a_note(llama, options, notes):
    lines = run(MKHCT, "--dry-run", *options, llama).stderr.splitlines()
    found = [line for line in lines if "note:" in line]
    assert len(found) == len(notes), found
    for line, note in zip(found, notes):
        assert re.match("mkhct: note: " + note, line)
    assert "note" not in run(MKHCT, "-q", "--dry-run", *options, llama).stderr


def test_odd_importance_files_get_notes(llama, tmp_path):
    file = tmp_path / "i.json"
    file.write_text('{"version": 1, "tensors": {}}')
    done = run(MKHCT, "--dry-run", "--importance", file, llama)
    assert f"mkhct: note: {file}: has no tensors; each goes by its role" in done.stderr
    file.write_text('{"version": 1, "tensors": {\n"lm_head.weight": '
                    '{"importance": 1, "sensitvity": "high"}, "other": {"importance": 1}}}')  # fmt: skip
    done = run(MKHCT, "--dry-run", "--importance", file, llama)
    assert f"note: {file}: line 2: lm_head.weight: sensitvity: has no effect" in done.stderr
    assert f"note: {file}: 1 of its tensors is not in the model" in done.stderr
