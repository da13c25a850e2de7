"""mkhct with loss: budgets of bits and bytes."""

import re

import pytest
from helpers import EXIT_USAGE, MKHCT, run, sha256
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
