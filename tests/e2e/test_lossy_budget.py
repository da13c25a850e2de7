"""mkhct with loss: budgets of bits and bytes."""

import json
import re

import numpy as np
import pytest
from helpers import EXIT_USAGE, MKHCT, make_safetensors, random_tensor, run, sha256
from losses import lossy, measure, report_of


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


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """47 tensors of 260 K weights: what is not weights counts.  Do not change it."""
    folder = tmp_path_factory.mktemp("stories") / "stories"
    folder.mkdir()
    rng = np.random.default_rng(15)
    shapes = {"model.embed_tokens.weight": (512, 64), "model.norm.weight": (64,)}
    for i in range(5):
        at = f"model.layers.{i}."
        shapes |= {f"{at}self_attn.{n}_proj.weight": (64 if n in "qo" else 32, 64) for n in "qkvo"}
        shapes |= {f"{at}mlp.{n}_proj.weight": (172, 64) for n in ("gate", "up")}
        shapes |= {f"{at}mlp.down_proj.weight": (64, 172), f"{at}input_layernorm.weight": (64,),
                   f"{at}post_attention_layernorm.weight": (64,)}  # fmt: skip
    make_safetensors(folder / "model.safetensors",
                     {name: random_tensor(rng, "F32", shape) for name, shape in shapes.items()})  # fmt: skip
    (folder / "config.json").write_text('{"num_hidden_layers": 5}')
    (folder / "tokenizer.json").write_text("{}" * 3000)
    return folder


@pytest.mark.parametrize("bits", [3, 4, 5, 6])
def test_bpw_of_a_small_model(stories, tmp_path, bits):
    out = lossy(stories, tmp_path / "out", "--bpw", bits)
    report, _ = report_of(out)
    assert report["bits_per_weight"] == pytest.approx(bits, rel=0.005)


@pytest.mark.parametrize("size", ["150K", "200K", "250K", "0.3M", "400k"])
def test_size_of_a_small_model(stories, tmp_path, size):
    out = lossy(stories, tmp_path / "out", "--size", size)
    wanted = float(size[:-1]) * (1 << 20 if size.endswith("M") else 1 << 10)
    found = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert found == pytest.approx(wanted, rel=0.005)


@pytest.mark.parametrize("options", [[], ["--bpw", "4"], ["--lossless"]])
def test_forecast_of_a_small_model(stories, tmp_path, options):
    """Within .1% of the file, or 100 bytes: the tables of all tensors are compressed as one."""
    forecast = json.loads(run(MKHCT, "--dry-run", "--json", *options, stories).stdout)
    report, tensors = report_of(lossy(stories, tmp_path / "out", *options))
    assert forecast["stored_bytes"] == pytest.approx(report["stored_bytes"], rel=0.001, abs=100)
    for t in forecast["files"][0]["tensor_list"]:
        stored = t["bits_per_weight"] * np.prod(t["shape"]) / 8
        assert stored == pytest.approx(tensors[t["name"]]["stored_bytes"], rel=0.005, abs=50)


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


def test_budget_gives_the_same_bytes_with_any_threads(uneven, tmp_path):
    one = lossy(uneven, tmp_path / "one", "--bpw", "3", "-j1")
    four = lossy(uneven, tmp_path / "four", "--bpw", "3", "-j4")
    assert sha256(one / "model.safetensors.hct") == sha256(four / "model.safetensors.hct")
